/**
 * Connections of clients to one virtual server, packed into a message of the beats: what the old owner knows and its volume does not.
 *
 *     each: 1 byte index of the server's address, in sorted order · 2 bytes port of the client · 4 or 16 bytes address of the client
 *
 * All in base64. A hint, never a proof: what does not fit is left out, what is malformed is no client.
 */
import { formatAddress, parseAddress } from "../schema/ip-address.ts";

export interface Client {
  /** The virtual server's address, without prefix. */
  readonly localAddress: string;
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
  for (const { localAddress, remoteAddress, remotePort } of clients) {
    const remote = parseAddress(remoteAddress);
    const local = parseAddress(localAddress);
    const index = local ? order.indexOf(formatAddress(local.bytes)) : -1;
    const fits = remote && out.length + headBytes + remote.bytes.length <= bytesMax;
    if (!fits || index < 0 || remote.family !== local?.family) left += 1;
    else out.push(index, remotePort >> 8, remotePort & 0xff, ...remote.bytes);
  }
  return { text: Buffer.from(out).toString("base64"), left };
}

/** The reverse. Reading ends at the first thing that cannot be. */
export function unpackClients(text: string, addresses: readonly string[]): Client[] {
  const bytes = Buffer.from(text, "base64");
  const order = sorted(addresses);
  const clients: Client[] = [];
  for (let at = 0; at + headBytes <= bytes.length; ) {
    const localAddress = order[bytes[at] ?? 0];
    if (localAddress === undefined) break;
    const end = at + headBytes + (localAddress.includes(":") ? 16 : 4);
    const remotePort = bytes.readUInt16BE(at + 1);
    if (end > bytes.length || remotePort === 0) break;
    const remoteAddress = formatAddress(bytes.subarray(at + headBytes, end));
    clients.push({ localAddress, remoteAddress, remotePort });
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
