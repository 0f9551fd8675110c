/**
 * An I_T nexus: one initiator port at one target port of the shelf (SAM-5 4.6). Registrations and unit attentions
 * belong to it, not to a host and not to a TCP connection: a session that logs in again with the same name and
 * ISID is the same nexus.
 */
import type { InitiatorPort } from "../../../firmware-ts/wire/scsi/reservation.ts";

export interface Nexus {
  /** Identity as text, in the form of iSCSI port names (RFC 7143 4.2.7.1 and SPC-4 7.6.4.6). */
  readonly id: string;
  readonly initiator: InitiatorPort;
  /** Relative target port identifier, from 1. */
  readonly targetPort: number;
}

/** The nexus of an initiator port at a target port. Names compare in lower case (RFC 7143 4.2.7.1). */
export const nexusOf = (initiator: InitiatorPort, targetPort: number): Nexus => {
  const name = initiator.name.toLowerCase();
  const isid = initiator.isid.toLowerCase();
  return {
    id: `${name},i,0x${isid},t,${targetPort}`,
    initiator: { name, isid },
    targetPort,
  };
};
