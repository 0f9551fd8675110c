/** Connections as the kernel lists them in /proc/net/tcp and tcp6 (proc(5)). */
import type { Connection } from "../port/addresses.ts";
import { formatAddress } from "./ip-address.ts";

const established = "01";
const mappedPrefix = "00000000000000000000ffff";

/** The established connections in the text; lines that are not of the known form are skipped. */
export function parseProcTcp(text: string): Connection[] {
  const connections: Connection[] = [];
  for (const line of text.split("\n")) {
    const [, local = "", remote = "", state] = line.trim().split(/\s+/);
    if (state !== established) continue;
    const from = endpoint(local);
    const to = endpoint(remote);
    if (!from || !to) continue;
    connections.push({
      localAddress: from.address,
      localPort: from.port,
      remoteAddress: to.address,
      remotePort: to.port,
    });
  }
  return connections;
}

/** `0100007F:0801`: the address as 32-bit words in host order, the port in network order. */
function endpoint(text: string): { address: string; port: number } | undefined {
  const [words = "", port = ""] = text.split(":");
  if (!/^([0-9A-F]{8}|[0-9A-F]{32})$/.test(words) || !/^[0-9A-F]{4}$/.test(port)) return undefined;
  const bytes = Buffer.from(words, "hex").swap32();
  // A server that listens on :: sees its IPv4 clients as ::ffff:a.b.c.d (RFC 4291 2.5.5.2).
  const mapped = bytes.length === 16 && bytes.toString("hex").startsWith(mappedPrefix);
  return {
    address: formatAddress(mapped ? bytes.subarray(12) : bytes),
    port: Number.parseInt(port, 16),
  };
}
