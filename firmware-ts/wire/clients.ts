/**
 * Connections of clients to one virtual server, packed into a message of the beats: what the old owner knows and its volume does not.
 *
 *     each: 4 bits number of the service, 4 bits index of the server's address, in sorted order
 *           2 bytes port of the client · 4 or 16 bytes address of the client
 *
 * All in base64. A hint, never a proof: what does not fit is left out, what is malformed is no client.
 */
import { formatAddress, parseAddress } from "../schema/ip-address.ts";

/** Ports of the file services, NFS and SMB; their order is that of the message. */
export const nfsPort = 2049;
export const smbPort = 445;
const servicePorts: readonly number[] = [nfsPort, smbPort];

export interface Client {
  /** The virtual server's address, without prefix. */
  readonly localAddress: string;
  /** The port of a file service. */
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
}

const headBytes = 3;

/** Of `clients` as many as fit into `charsMax` characters; "" when none does. The rest are left out, and counted. */
export function packClients(
  clients: readonly Client[],
  addresses: readonly string[],
  charsMax: number,
): { readonly text: string; readonly left: number } {
  const bytesMax = Math.floor(charsMax / 4) * 3;
  const order = sorted(addresses);
  const out: number[] = [];
  let left = 0;
  for (const { localAddress, localPort, remoteAddress, remotePort } of clients) {
    const service = servicePorts.indexOf(localPort);
    const remote = parseAddress(remoteAddress);
    const local = parseAddress(localAddress);
    const index = local ? order.indexOf(formatAddress(local.bytes)) : -1;
    const fits = remote && out.length + headBytes + remote.bytes.length <= bytesMax;
    if (!fits || service < 0 || index < 0 || remote.family !== local?.family) left += 1;
    else out.push((service << 4) | index, remotePort >> 8, remotePort & 0xff, ...remote.bytes);
  }
  return { text: Buffer.from(out).toString("base64"), left };
}

/** The reverse. Reading ends at the first thing that cannot be. */
export function unpackClients(text: string, addresses: readonly string[]): Client[] {
  const bytes = Buffer.from(text, "base64");
  const order = sorted(addresses);
  const clients: Client[] = [];
  for (let at = 0; at + headBytes <= bytes.length; ) {
    const first = bytes[at] ?? 0;
    const localAddress = order[first & 0x0f];
    const localPort = servicePorts[first >> 4];
    if (localAddress === undefined || localPort === undefined) break;
    const end = at + headBytes + (localAddress.includes(":") ? 16 : 4);
    const remotePort = bytes.readUInt16BE(at + 1);
    if (end > bytes.length || remotePort === 0) break;
    const remoteAddress = formatAddress(bytes.subarray(at + headBytes, end));
    clients.push({ localAddress, localPort, remoteAddress, remotePort });
    at = end;
  }
  return clients;
}

/** In canonical form and one order, whatever the two configurations say (wire/configuration). */
function sorted(addresses: readonly string[]): string[] {
  const canonical = addresses.flatMap((text) => {
    const parsed = parseAddress(text);
    return parsed ? [formatAddress(parsed.bytes)] : [];
  });
  return canonical.toSorted();
}
