/** What the hosts in real time add to the loops: codecs, the clock of the process, and what becomes of an exception. */
import { describe, expect, test } from "vitest";
import { newController } from "../../firmware-ts/core/controller.ts";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import { hostBeatLoop } from "../../firmware-ts/daemon/beat-host.ts";
import { monotonicMs } from "../../firmware-ts/daemon/clock.ts";
import { hostLoop } from "../../firmware-ts/daemon/host.ts";
import type { FromBeat } from "../../firmware-ts/loop/channel.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { linkNames } from "../../firmware-ts/schema/ids.ts";
import { done, good } from "../../firmware-ts/schema/outcome.ts";
import type { BeatMachine } from "../../hal/port/beat-machine.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { recordOf } from "../support/volume-records.ts";

const config = new Pair().config("a");
const timing = deriveTiming(config.timing);

/** A beat loop that has not begun to tick: it does what it is told, and nothing by itself. */
function startBeat() {
  const sent: string[] = [];
  const told: FromBeat[] = [];
  const decided: (number | undefined)[] = [];
  const beats: Beat[] = [];
  const machine: BeatMachine = {
    links: linkNames.map((name) => ({
      name,
      maxFrameBytes: 512,
      send: ([at = 0]) => sent.push(`${name} ${beats[at]?.sequence}`),
      counters: () => ({ sent: 0, received: 0, dropped: 0, malformed: 0 }),
      close: async () => undefined,
    })),
    gate: {
      setUp: () => done,
      know: () => done,
      open: (_addresses, _leaseMs, decidedAtMs) => {
        decided.push(decidedAtMs);
        return done;
      },
      renew: () => done,
      close: () => done,
      seal: () => done,
      read: () => good(new Map()),
    },
    reserve: async () => ({ status: "failed", reason: "no disk" }),
    writeRecord: async (serial) => (serial === "c1" ? "accepted" : "failed"),
    realTime: () => done,
    close: async () => undefined,
  };
  const host = hostBeatLoop({
    me: "a",
    session: 111,
    configuration: 7,
    timing,
    links: linkNames,
    coordinators: ["c1", "c2", "c3"],
    encode: (beat) => Uint8Array.of(beats.push(beat) - 1),
    decode: () => ({ ok: false, reason: "signature" }),
    tell: (message) => told.push(message),
  });
  return { host, machine, sent, told, decided };
}

describe("the beat process", () => {
  test("has no gate and no voice before its machine is open, and says so to whoever asks", () => {
    const { host, told, sent } = startBeat();
    const addresses = ["10.0.0.100"];
    host.command({ kind: "gate", command: { kind: "gateClose", token: "t", addresses } });
    expect(sent).toEqual([]);
    expect(told).toContainEqual({
      kind: "observation",
      observation: expect.objectContaining({ kind: "gateClosed", token: "t", ok: false }),
    });
  });

  test("gives the gate the time of the decision on the clock of its drivers", () => {
    const { host, machine, decided } = startBeat();
    host.start(machine);
    host.command({ kind: "mandate", mandate: { ...noMandate, ground: "solo", mode: "alone" } });
    host.command({ kind: "progress" });
    const beforeMs = performance.now();
    const addresses = ["10.0.0.100"];
    const command = { kind: "gateOpen", token: "t", addresses, notBeforeMs: 0 } as const;
    // A machine that stands still between the proof and the command lets the proof grow old.
    for (let tries = 0; decided.length === 0 && tries < 100; tries += 1) {
      host.handlers.disk.written(performance.now(), 3, 0, 3);
      host.command({ kind: "gate", command });
    }
    expect(decided).toHaveLength(1);
    expect(decided[0]).toBeGreaterThanOrEqual(beforeMs - 1);
    expect(decided[0]).toBeLessThanOrEqual(performance.now() + 1);
  });

  test("writes records through its machine, and none before that is open", async () => {
    const { host, machine, told } = startBeat();
    const write = (token: string) =>
      host.command({
        kind: "volumeWrite",
        token,
        record: recordOf(),
        untilMs: monotonicMs() + 10_000,
      });
    write("early");
    const none = { accepted: 0, refused: 0, overtaken: 0, total: 3 };
    expect(told).toContainEqual({ kind: "volumeWritten", token: "early", written: none });
    host.start(machine);
    write("open");
    const one = { ...none, accepted: 1 };
    await expect
      .poll(() => told)
      .toContainEqual({ kind: "volumeWritten", token: "open", written: one });
  });

  test("says its last words on every link, and only then ends", async () => {
    const { host, machine, sent } = startBeat();
    host.start(machine);
    const words = host.lastWords();
    expect(sent.map((line) => line.split(" ")[0])).toEqual([...linkNames]);
    await words;
  });
});

const noMandate = {
  mode: "starting",
  turn: 1,
  epoch: 1,
  owned: "",
  serving: "",
  goodbye: false,
  dataLinkDown: false,
  configuration: 0,
  ground: "none",
  messageAck: 0,
  messageSession: 0,
} as const;

describe("the main process", () => {
  const start = (persist: () => void) => {
    const reports: string[] = [];
    const broken: unknown[] = [];
    const host = hostLoop({
      initial: newController({ config, timing, configuration: 0, definitions: [] }),
      coordinators: config.shelf.coordinators,
      disks: {
        reserve: async () => ({ status: "failed", reason: "no disk" }),
        close: async () => undefined,
      },
      performer: { perform: () => undefined, close: () => undefined },
      volume: { read: () => undefined, write: () => undefined },
      journal: {
        write: ({ nowMs }) => {
          expect(Math.abs(nowMs - monotonicMs())).toBeLessThan(60_000);
          persist();
        },
        flush: () => undefined,
        close: () => undefined,
      },
      persist: () => undefined,
      beat: () => undefined,
      report: ({ code }) => reports.push(code),
      answer: () => undefined,
      exit: () => undefined,
      broken: (error) => broken.push(error),
    });
    return { host, reports, broken };
  };

  test("takes what was offered before it began, after the boot", () => {
    const { host, reports } = start(() => undefined);
    host.happen({ kind: "carrier", up: true });
    expect(reports).toEqual([]);
    host.start({ version: 1, epoch: 3 });
    host.stop();
    expect(reports.slice(0, 2)).toEqual(["controller.boot", "dataLink.up"]);
  });

  test("an exception ends the process, whoever was the caller; it is not left to him", () => {
    const { host, broken } = start(() => {
      throw new Error("broken invariant");
    });
    expect(() => host.happen({ kind: "carrier", up: true })).not.toThrow();
    host.start({ version: 1, epoch: 3 });
    host.stop();
    expect(broken).toEqual([new Error("broken invariant")]);
    // Nothing is decided any more.
    host.happen({ kind: "carrier", up: false });
    expect(broken).toHaveLength(1);
  });
});
