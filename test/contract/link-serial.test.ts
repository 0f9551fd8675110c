/** The serial link on a pty pair made by socat. A pty does not pace: the line's speed is the driver's own count. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SerialPort } from "serialport";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { encodeCobs } from "../../firmware-ts/wire/cobs.ts";
import { openSerialLink } from "../../hal/linux/serial-link.ts";
import type { Link } from "../../hal/port/link.ts";
import { until } from "../support/until.ts";
import { LinkLog } from "./support/link-log.ts";
import { endProcess } from "./support/namespaces.ts";

const baudRate = 115_200;

describe("serial link", () => {
  let folder: string;
  let cable: ChildProcess;
  const open: { close(): Promise<void> }[] = [];
  const end = (name: string) => join(folder, name);

  async function plug(): Promise<void> {
    const pty = (name: string) => `PTY,link=${end(name)},raw,echo=0`;
    cable = spawn("socat", [pty("a"), pty("b")], { stdio: "inherit" });
    await until("pty pair", () => existsSync(end("a")) && existsSync(end("b")));
  }

  /** With its names: killed, socat leaves them behind, and they may come to mean somebody else's terminal. */
  async function unplug(): Promise<void> {
    await endProcess(cable);
    for (const name of ["a", "b"]) rmSync(end(name), { force: true });
  }

  function link(name: string, log: LinkLog): Link {
    const opened = openSerialLink({ path: end(name), baudRate, handlers: log });
    open.push(opened);
    return opened;
  }

  async function rawPort(name: string): Promise<SerialPort> {
    const port = new SerialPort({ path: end(name), baudRate, autoOpen: false });
    await new Promise<void>((resolve, reject) => port.open((e) => (e ? reject(e) : resolve())));
    open.push({ close: () => new Promise((resolve) => port.close(() => resolve())) });
    return port;
  }

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "dyad-serial-"));
    await plug();
  });

  afterEach(async () => {
    for (const item of open.splice(0)) await item.close();
    await unplug();
    rmSync(folder, { recursive: true });
  });

  test("frames arrive whole, in both directions", async () => {
    const [logA, logB] = [new LinkLog(), new LinkLog()];
    const [a, b] = [link("a", logA), link("b", logB)];
    await until("both up", () => logA.up && logB.up);
    a.send(Uint8Array.of(1, 0, 2));
    b.send(new Uint8Array(a.maxFrameBytes).fill(7));
    await until("both received", () => logA.frames.length === 1 && logB.frames.length === 1);
    expect(logB.frames).toEqual([Uint8Array.of(1, 0, 2)]);
    expect(logA.frames).toEqual([new Uint8Array(a.maxFrameBytes).fill(7)]);
    expect(a.counters()).toEqual({ sent: 1, received: 1, dropped: 0, malformed: 0 });
  });

  test("a busy line drops: what is sent never outruns the baud rate by more than one wait", async () => {
    const log = new LinkLog();
    const a = link("a", log);
    await until("up", () => log.up);
    const start = performance.now();
    const frame = new Uint8Array(61).fill(1);
    for (let i = 0; i < 100; i++) {
      a.send(frame);
      await new Promise((resolve) => setImmediate(resolve));
    }
    let offered = 100;
    await until("the line to be free again", () => {
      offered++;
      a.send(frame);
      return a.counters().sent >= 3;
    });
    const { sent, dropped } = a.counters();
    const frameMs = (encodeCobs(frame).length * 10_000) / baudRate;
    expect(sent + dropped).toBe(offered);
    expect(sent * frameMs).toBeLessThanOrEqual(performance.now() - start + 6 + frameMs);
  });

  test("nobody reads the other end: nothing piles up and nothing throws", async () => {
    const log = new LinkLog();
    const a = link("a", log);
    await rawPort("b").then((port) => port.pause());
    await until("up", () => log.up);
    const frame = new Uint8Array(a.maxFrameBytes).fill(1);
    for (let i = 0; i < 20_000; i++) a.send(frame);
    expect(a.counters().sent).toBeLessThan(5);
    expect(a.counters().dropped).toBeGreaterThan(19_990);
  });

  test("garbage is counted, and the next frame is whole", async () => {
    const log = new LinkLog();
    const a = link("a", log);
    const port = await rawPort("b");
    await until("up", () => log.up);
    port.write(Uint8Array.of(200, 1, 2, 3, 0));
    port.write(new Uint8Array(3000).fill(9));
    port.write(Uint8Array.of(0));
    port.write(encodeCobs(Uint8Array.of(5)));
    await until("frame", () => log.frames.length === 1);
    expect(log.frames).toEqual([Uint8Array.of(5)]);
    expect(a.counters()).toMatchObject({ received: 1, malformed: 2 });
  });

  test("a cable pulled and put back: carrier says so and frames flow again", async () => {
    const [logA, logB] = [new LinkLog(), new LinkLog()];
    const [a, b] = [link("a", logA), link("b", logB)];
    await until("both up", () => logA.up && logB.up);
    await unplug();
    await until("both down", () => !logA.up && !logB.up);
    a.send(Uint8Array.of(1));
    expect(a.counters().dropped).toBe(1);
    await plug();
    await until("both up again", () => logA.up && logB.up);
    b.send(Uint8Array.of(2));
    await until("frame", () => logA.frames.length === 1);
    expect(logA.carriers.map(({ up }) => up)).toEqual([true, false, true]);
  });

  test("a port that is not there is a link without carrier, and closes", async () => {
    const log = new LinkLog();
    const missing = link("missing", log);
    await until("told", () => log.carriers.length === 1);
    expect(log.carriers[0]).toMatchObject({ up: false });
    missing.send(Uint8Array.of(1));
    expect(missing.counters()).toMatchObject({ sent: 0, dropped: 1 });
  });

  test("a frame that no link can carry is a broken invariant", () => {
    const a = link("a", new LinkLog());
    expect(() => a.send(new Uint8Array(a.maxFrameBytes + 1))).toThrow(RangeError);
    expect(() => a.send(new Uint8Array(0))).toThrow(RangeError);
  });
});
