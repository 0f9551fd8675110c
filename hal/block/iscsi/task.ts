/** One SCSI command on its way through a session: what was asked, what has arrived, what is owed. */
import type { Sense } from "../../../firmware-ts/wire/scsi/sense.ts";

export interface CommandRequest {
  readonly lun: number;
  readonly cdb: Buffer;
  /** Data for the device. Must stay unchanged until the result. */
  readonly out?: Buffer;
  /** The most data that the device may return. */
  readonly inBytes?: number;
  /** From now to the result; after it the command is aborted, and the result is `timeout` once that is certain. */
  readonly deadlineMs: number;
  /** Whether `abortIo` applies: reads and writes of data, not commands that inspect or reserve. */
  readonly io?: boolean;
}

/** Why there is no answer from the device. Nothing of the command can happen later: it was aborted, or ended with its session. */
export type TransportFailure = "down" | "lost" | "timeout" | "aborted" | "protocol";

export type CommandResult =
  | {
      readonly kind: "answered";
      /** SAM-5 status code. */
      readonly status: number;
      readonly data: Buffer;
      /** With CHECK CONDITION, if the device sent it. */
      readonly sense: Sense | undefined;
    }
  | { readonly kind: "transport"; readonly failure: TransportFailure; readonly detail: string };

export interface Task {
  readonly tag: number;
  readonly request: CommandRequest;
  readonly resolve: (result: CommandResult) => void;
  readonly inbound: Buffer;
  received: number;
  /** CmdSN once sent. */
  cmdSn: number | undefined;
  timer: NodeJS.Timeout | undefined;
  /** Why it is being aborted, once it is. */
  abort: "timeout" | "aborted" | undefined;
}
