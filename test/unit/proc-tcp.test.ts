import { describe, expect, test } from "vitest";
import { parseProcTcp } from "../../hal/linux/proc-tcp.ts";

const head =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

describe("/proc/net/tcp", () => {
  test("established connections, IPv4", () => {
    const text = `${head}
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 3200090A:0801 0200090A:A2C4 01 00000000:00000000 02:000004BB 00000000     0        0 2 2
   2: 3200090A:0801 0300090A:A2C4 06 00000000:00000000 03:000004BB 00000000     0        0 0 3
`;
    expect(parseProcTcp(text)).toEqual([
      { localAddress: "10.9.0.50", localPort: 2049, remoteAddress: "10.9.0.2", remotePort: 41668 },
    ]);
  });

  test("IPv6, and IPv4 seen by a socket of both families", () => {
    const text = `${head}
   0: 0900FDFD000000000000000050000000:0801 0900FDFD000000000000000002000000:0400 01 0:0 0:0 0
   1: 0000000000000000FFFF00003200090A:0801 0000000000000000FFFF00000200090A:0400 01 0:0 0:0 0
`;
    expect(parseProcTcp(text).map(({ localAddress }) => localAddress)).toEqual([
      "fdfd:9::50",
      "10.9.0.50",
    ]);
  });

  test("lines of another form are skipped", () => {
    const text = `${head}\n   0: 3200090A 0200090A:A2C4 01\n   1: xyz:1 2:3 01\n   2:\n\n`;
    expect(parseProcTcp(text)).toEqual([]);
  });
});
