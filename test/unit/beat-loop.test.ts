/**
 * The loop of the beat process. When its main loop is gone: silence first, and not a word before the kernel has confirmed it. When it did
 * not run itself: nothing is judged before everything that waited was read.
 */
import { describe, expect, test, vi } from "vitest";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import { createBeatLoop } from "../../firmware-ts/daemon/beat-loop.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { linkNames } from "../../firmware-ts/schema/ids.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { BeatMachine } from "../../hal/port/beat-machine.ts";
import { Pair } from "../../hal/sim/pair.ts";

const timing = deriveTiming(new Pair().config("a").timing);
const addresses = ["10.0.0.100", "10.0.0.101"];

const aloneMandate = {
  mode: "alone",
  turn: 1,
  epoch: 1,
  owned: 3,
  serving: 3,
  goodbye: false,
  dataLinkDown: false,
  ground: "solo",
  messageAck: 0,
  messageSession: 0,
} as const;
const pairedMandate = { ...aloneMandate, mode: "paired", ground: "acknowledged" } as const;

/** A loop whose beats are objects on their way through a list, and a kernel that answers as it is told. */
function start(closes: Outcome) {
  const story: string[] = [];
  const beats: Beat[] = [];
  const partnerBeats: Beat[] = [];
  let contact = 0;
  const call = (name: string, outcome: Outcome) => (listed: readonly string[]) => {
    story.push(`${name} ${listed.join(" ")}`);
    return outcome;
  };
  const loop = createBeatLoop({
    me: "a",
    session: 111,
    configuration: 7,
    timing,
    links: linkNames,
    encode: (beat) => {
      if (beat.granting && !beats.at(-1)?.granting) story.push("granting");
      beats.push(beat);
      return Uint8Array.of(beats.length - 1);
    },
    decode: ([at]) => {
      const beat = partnerBeats[at ?? 0];
      return beat ? { ok: true, beat } : { ok: false, reason: "nobody speaks here" };
    },
    tell: (message) => {
      if (message.kind !== "observation") return;
      const { observation } = message;
      if (observation.kind === "partner") contact = observation.view.contact;
      if (observation.kind === "partner" || observation.kind === "partnerLost")
        story.push(observation.kind);
    },
  });
  const machine: BeatMachine = {
    links: linkNames.map((name) => ({
      name,
      maxFrameBytes: 512,
      send: ([at = 0]) => {
        story.push(`${name}: ${beats[at]?.dyingGasp ? "last words" : "beat"}`);
      },
      counters: () => ({ sent: 0, received: 0, dropped: 0, malformed: 0 }),
      close: async () => undefined,
    })),
    gate: {
      setUp: () => done,
      open: call("open", done),
      renew: call("renew", done),
      close: call("close", done),
      seal: () => call("seal", closes)(["all"]),
      read: () => good(new Map()),
    },
    reserve: async () => ({ status: "failed", reason: "no disk" }),
    realTime: () => done,
    close: async () => undefined,
  };
  loop.start(machine);
  /** A beat of the partner that answers our newest. */
  const answer = (): Uint8Array => {
    const last = beats.at(-1);
    if (!last) throw new Error("nothing was said yet");
    const ack = { session: 111, sequence: last.sequence };
    const at = partnerBeats.length;
    const mode = "paired";
    partnerBeats.push({ ...last, sender: "b", session: 222, sequence: at + 1, ack, mode });
    return Uint8Array.of(at);
  };
  return { loop, story, answer, contact: () => contact };
}

/** The main loop serves alone, and the coordinators have let a beat through. */
function serve({ loop }: ReturnType<typeof start>): void {
  loop.command({ kind: "mandate", mandate: aloneMandate });
  loop.command({ kind: "progress" });
  loop.handlers.disk.written(performance.now(), 3, 0, 3);
}

test("every address is closed, also one that is open without being kept yet; then every link says so", async () => {
  const running = start(done);
  const { loop, story } = running;
  serve(running);
  const open = { kind: "gateOpen", token: "t", addresses: ["10.0.0.101"], notBeforeMs: 0 } as const;
  loop.command({ kind: "gate", command: open });
  expect(story).toContain("open 10.0.0.101");
  const begun = story.length;
  const said = loop.lastWords();
  expect(story.slice(begun)).toEqual([
    "seal all",
    "serial: last words",
    "network: last words",
    "disk: last words",
  ]);
  await said;
  for (const name of linkNames)
    expect(story.filter((line) => line === `${name}: last words`).length).toBeGreaterThan(1);
});

test("what the main loop still had on its way opens and renews nothing", async () => {
  const running = start(done);
  const { loop, story } = running;
  serve(running);
  const said = loop.lastWords();
  const begun = story.length;
  serve(running);
  const open = { kind: "gateOpen", token: "t", addresses, notBeforeMs: 0 } as const;
  loop.command({ kind: "gate", command: open });
  loop.command({ kind: "gate", command: { kind: "gateKeep", addresses } });
  loop.handlers.disk.written(performance.now(), 3, 0, 3);
  await said;
  expect(story.slice(begun).filter((line) => !line.endsWith("last words"))).toEqual([]);
});

test("a gate that the kernel does not close is not called closed: nothing is said at all", async () => {
  const running = start(failed("gateFailed", "close address gate", "no answer"));
  serve(running);
  await running.loop.lastWords();
  expect(running.story.filter((line) => line.endsWith("last words"))).toEqual([]);
});

/** The whole process stands still, timers and sockets with it. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

describe("after a stall", () => {
  test("what waited is read first, and the partner is still the same", async () => {
    const { loop, story, answer, contact } = start(done);
    await vi.waitFor(() => expect(story.length).toBeGreaterThan(0));
    const { handlers } = loop;
    handlers.network.frame(answer(), performance.now());
    await vi.waitFor(() => expect(story).toContain("partner"));
    const first = contact();
    loop.command({ kind: "grant", on: true, contact: first });
    loop.command({ kind: "mandate", mandate: pairedMandate });
    const before = story.length;
    // Longer than a loss; the frame waits where only a later turn of the loop finds it, as in a serial port.
    standStill(timing.lossMs + 30);
    const frame = answer();
    setTimeout(() => {
      void nextTurn().then(() => handlers.serial.frame(frame, performance.now()));
    });
    // It was granted nothing while nobody had looked, and is granted again.
    await vi.waitFor(() => expect(story.slice(before)).toContain("granting"));
    expect(story.slice(0, story.lastIndexOf("granting"))).not.toContain("partnerLost");
    expect(contact()).toBe(first);
  });

  test("a partner that is gone is lost all the same", async () => {
    const { loop, story, answer } = start(done);
    await vi.waitFor(() => expect(story.length).toBeGreaterThan(0));
    loop.handlers.network.frame(answer(), performance.now());
    standStill(timing.lossMs + 30);
    await vi.waitFor(() => expect(story).toContain("partnerLost"));
  });
});
