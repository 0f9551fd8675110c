/** The network link between two loopback addresses: needs neither root nor packages. */
import { createSocket, type Socket } from "node:dgram";
import { afterEach, describe, expect, test } from "vitest";
import { openNetworkLink } from "../../hal/linux/network-link.ts";
import type { Link } from "../../hal/port/link.ts";
import { LinkLog } from "../contract/support/link-log.ts";
import { until } from "../support/until.ts";

const open: { close(): Promise<void> }[] = [];

function socket(address: string, port = 0): Promise<Socket> {
  const made = createSocket("udp4");
  open.push({ close: () => new Promise((resolve) => made.close(() => resolve())) });
  return new Promise((resolve) => made.bind(port, address, () => resolve(made)));
}

/** A port that is free on both loopback addresses a moment ago. */
async function freePort(): Promise<number> {
  const probe = createSocket("udp4");
  await new Promise<void>((resolve) => probe.bind(0, "0.0.0.0", resolve));
  const { port } = probe.address();
  await new Promise<void>((resolve) => probe.close(resolve));
  return port;
}

function link(localAddress: string, partnerAddress: string, port: number, log: LinkLog): Link {
  const opened = openNetworkLink({ localAddress, partnerAddress, port, handlers: log });
  open.push(opened);
  return opened;
}

describe("network link", () => {
  afterEach(async () => {
    for (const item of open.splice(0)) await item.close();
  });

  test("frames arrive in both directions", async () => {
    const port = await freePort();
    const [logA, logB] = [new LinkLog(), new LinkLog()];
    const a = link("127.0.0.1", "127.0.0.2", port, logA);
    const b = link("127.0.0.2", "127.0.0.1", port, logB);
    await until("both up", () => logA.up && logB.up);
    a.send(Uint8Array.of(1, 2));
    b.send(new Uint8Array(b.maxFrameBytes).fill(3));
    await until("both received", () => logA.frames.length === 1 && logB.frames.length === 1);
    expect(logB.frames).toEqual([Uint8Array.of(1, 2)]);
    expect(logA.frames).toEqual([new Uint8Array(b.maxFrameBytes).fill(3)]);
    expect(a.counters()).toEqual({ sent: 1, received: 1, dropped: 0, malformed: 0 });
  });

  test("strangers, empty and oversize datagrams are counted and not heard", async () => {
    const port = await freePort();
    const log = new LinkLog();
    const a = link("127.0.0.1", "127.0.0.2", port, log);
    await until("up", () => log.up);
    const stranger = await socket("127.0.0.3", port);
    const otherPort = await socket("127.0.0.2");
    const partner = await socket("127.0.0.2", port);
    stranger.send(Uint8Array.of(1), port, "127.0.0.1");
    otherPort.send(Uint8Array.of(1), port, "127.0.0.1");
    partner.send(new Uint8Array(0), port, "127.0.0.1");
    partner.send(new Uint8Array(a.maxFrameBytes + 1), port, "127.0.0.1");
    await until("counted", () => a.counters().malformed === 4);
    partner.send(Uint8Array.of(9), port, "127.0.0.1");
    await until("heard", () => log.frames.length === 1);
    expect(log.frames).toEqual([Uint8Array.of(9)]);
    expect(a.counters()).toMatchObject({ received: 1, malformed: 4 });
  });

  test("nobody there: sending goes on and the link stays", async () => {
    const port = await freePort();
    const [logA, logB] = [new LinkLog(), new LinkLog()];
    const a = link("127.0.0.1", "127.0.0.2", port, logA);
    await until("up", () => logA.up);
    for (let i = 0; i < 20; i++) {
      a.send(Uint8Array.of(1));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until("all accounted", () => a.counters().sent + a.counters().dropped === 20);
    const b = link("127.0.0.2", "127.0.0.1", port, logB);
    await until("b up", () => logB.up);
    b.send(Uint8Array.of(4));
    await until("heard", () => logA.frames.length === 1);
    expect(logA.carriers.map(({ up }) => up)).toEqual([true]);
  });

  test("an address that is not ours yet is a link without carrier until it is", async () => {
    const port = await freePort();
    const holder = await socket("127.0.0.1", port);
    const log = new LinkLog();
    const a = link("127.0.0.1", "127.0.0.2", port, log);
    await until("down", () => log.carriers.length === 1);
    expect(log.up).toBe(false);
    a.send(Uint8Array.of(1));
    expect(a.counters()).toMatchObject({ sent: 0, dropped: 1 });
    open.splice(
      open.findIndex((item) => item !== a),
      1,
    );
    await new Promise<void>((resolve) => holder.close(resolve));
    await until("up", () => log.up);
  });

  test("a frame that no link can carry is a broken invariant", async () => {
    const a = link("127.0.0.1", "127.0.0.2", await freePort(), new LinkLog());
    expect(() => a.send(new Uint8Array(a.maxFrameBytes + 1))).toThrow(RangeError);
  });
});
