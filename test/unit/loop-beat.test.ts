/**
 * The loop of the beat process in virtual time, before a host that only notes. When its main loop is gone: silence first, and not a word
 * before the kernel has confirmed it. When it did not run itself: nothing is judged before everything that waited was read.
 */
import { describe, expect, test } from "vitest";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import { BeatLoop } from "../../firmware-ts/loop/beat-loop.ts";
import type { FromBeat } from "../../firmware-ts/loop/channel.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { linkNames } from "../../firmware-ts/schema/ids.ts";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ReservationCommand } from "../../firmware-ts/schema/reservation.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { Timeline } from "../../hal/sim/timeline.ts";
import { recordOf } from "../support/volume-records.ts";

const timing = deriveTiming(new Pair().config("a").timing);
const addresses = ["10.0.0.100", "10.0.0.101"];

const aloneMandate = {
  mode: "alone",
  turn: 1,
  epoch: 1,
  owned: "11",
  serving: "11",
  goodbye: false,
  dataLinkDown: false,
  configuration: 0,
  ground: "solo",
  messageAck: 0,
  messageSession: 0,
} as const;
const pairedMandate = { ...aloneMandate, mode: "paired", ground: "acknowledged" } as const;

/** A beat process that runs whenever time goes by, but while it `stands`. */
function start(closes: Outcome = done, writesHang = false) {
  const timeline = new Timeline();
  const story: string[] = [];
  const beats: Beat[] = [];
  const told: FromBeat[] = [];
  /** Ends each writing that hangs. */
  const hanging: (() => void)[] = [];
  let stands = false;
  const waiting: (() => void)[] = [];
  const wake = () => {
    const run = () => {
      while (loop.advance());
    };
    if (stands) waiting.push(run);
    else run();
  };
  const lease = (name: string) => (listed: readonly string[], leaseMs: number) => {
    story.push(`${name} ${listed.join(" ")} for ${leaseMs}`);
    return done;
  };
  const loop = new BeatLoop({
    me: "a",
    session: 111,
    configuration: 7,
    timing,
    links: linkNames,
    coordinators: ["c1", "c2", "c3"],
    host: {
      wake,
      nowMs: () => timeline.nowMs,
      after: (delayMs, run) => timeline.after(delayMs, run),
      send: (links, beat) => {
        if (beat.granting && !beats.at(-1)?.granting) story.push("granting");
        beats.push(beat);
        for (const link of links) story.push(`${link}: ${beat.dyingGasp ? "last words" : "beat"}`);
      },
      gate: {
        open: lease("open"),
        renew: lease("renew"),
        close: (listed) => {
          story.push(`close ${listed.join(" ")}`);
          return done;
        },
        know: (listed) => {
          story.push(`know ${listed.join(" ")}`);
          return done;
        },
        seal: () => {
          story.push("seal");
          return closes;
        },
      },
      tell: (message) => {
        told.push(message);
        if (message.kind !== "observation") return;
        const { observation } = message;
        if (observation.kind === "partner" || observation.kind === "partnerLost")
          story.push(observation.kind);
      },
      reserve: (serial, command, _deadlineMs, settle) => {
        story.push(`reserve ${serial} ${command.op}`);
        settle({ status: "good" });
      },
      writeRecord: (serial, { generation }, isWanted, settle) => {
        story.push(`write ${generation} to ${serial}`);
        if (!writesHang) return settle("accepted");
        hanging.push(() => {
          story.push(isWanted() ? `${serial} wanted` : `${serial} not wanted`);
          settle("failed");
        });
      },
    },
  });
  loop.start();
  const run = (ms: number) => timeline.runUntil(timeline.nowMs + ms, () => undefined);
  /** A beat of the partner that answers our newest. */
  const answer = (): Beat => {
    const last = beats.at(-1);
    if (!last) throw new Error("nothing was said yet");
    const ack = { session: 111, sequence: last.sequence };
    const sequence = last.sequence + 1000;
    return { ...last, sender: "b", session: 222, sequence, ack, mode: "paired" };
  };
  const contacts = () =>
    told.flatMap((message) =>
      message.kind === "observation" && message.observation.kind === "partner"
        ? [message.observation.view.contact]
        : [],
    );
  /** The process stands still for a while; when it goes on, timers come before what waits in sockets. */
  const standStill = (ms: number, meanwhile: () => void = () => undefined) => {
    stands = true;
    meanwhile();
    run(ms);
    stands = false;
    for (const each of waiting.splice(0)) each();
  };
  return { timeline, loop, story, told, beats, hanging, run, answer, contacts, standStill };
}

/** The main loop serves alone, and the coordinators have let a beat through. */
function serve({ loop, timeline }: ReturnType<typeof start>): void {
  loop.command({ kind: "mandate", mandate: aloneMandate });
  loop.command({ kind: "progress" });
  const sentAtMs = timeline.nowMs;
  loop.offer({ kind: "written", sentAtMs, accepted: 3, refused: 0, total: 3 });
}

const openOne = {
  kind: "gateOpen",
  token: "t",
  addresses: ["10.0.0.101"],
  notBeforeMs: 0,
} as const;

const isLastWord = (line: string) => line.endsWith("last words");

describe("last words", () => {
  test("every address is closed, also one that is open without being kept yet; then every link says so", () => {
    const running = start();
    const { loop, story, run } = running;
    serve(running);
    loop.command({ kind: "gate", command: openOne });
    expect(story).toContain(`open 10.0.0.101 for ${timing.firstLeaseMs}`);
    let ended = false;
    const begun = story.length;
    loop.lastWords(() => {
      ended = true;
    });
    expect(story.slice(begun)).toEqual([
      "seal",
      "serial: last words",
      "network: last words",
      "disk: last words",
    ]);
    run(2 * timing.diskBeatIntervalMs);
    expect(ended).toBe(false);
    run(2 * timing.diskBeatIntervalMs);
    expect(ended).toBe(true);
    for (const name of linkNames)
      expect(story.filter((line) => line === `${name}: last words`).length).toBeGreaterThan(1);
  });

  test("what the main loop still had on its way opens and renews nothing", () => {
    const running = start();
    const { loop, story, run } = running;
    serve(running);
    loop.lastWords(() => undefined);
    const begun = story.length;
    serve(running);
    loop.command({ kind: "gate", command: openOne });
    loop.command({ kind: "gate", command: { kind: "gateKeep", addresses } });
    run(100);
    expect(story.slice(begun).filter((line) => !isLastWord(line))).toEqual([]);
  });

  test("a gate that the kernel does not close is not called closed: nothing is said at all, and the end is now", () => {
    const running = start(failed("gateFailed", "close address gate", "no answer"));
    serve(running);
    let ended = false;
    running.loop.lastWords(() => {
      ended = true;
    });
    expect(ended).toBe(true);
    running.run(100);
    expect(running.story.filter(isLastWord)).toEqual([]);
  });
});

describe("after a stall", () => {
  /** A member whose partner has answered it. */
  const paired = () => {
    const running = start();
    const { loop, run, answer, contacts } = running;
    run(20);
    loop.frame("network", answer());
    loop.command({ kind: "grant", on: true, contact: contacts()[0] ?? 0 });
    loop.command({ kind: "mandate", mandate: pairedMandate });
    run(1);
    expect(running.story).toContain("granting");
    return running;
  };

  test("what waited is read first, and the partner is still the same", () => {
    const { loop, story, run, answer, contacts, standStill } = paired();
    // Longer than a loss. One frame waits in a socket, the next where only a later turn of the event loop finds it.
    const frame = answer();
    const before = story.length;
    standStill(timing.lossMs + 30);
    run(1);
    loop.frame("serial", frame);
    run(timing.beatIntervalMs);
    expect(story.slice(before)).not.toContain("partnerLost");
    expect(new Set(contacts()).size).toBe(1);
    expect(story.at(-1)).toContain("beat");
  });

  test("nothing is granted before the partner is heard again", () => {
    const { story, beats, standStill, loop, answer, run } = paired();
    const said = beats.length;
    const frame = answer();
    standStill(timing.lossMs + 30);
    run(1);
    expect(beats.slice(said).every(({ granting }) => !granting)).toBe(true);
    const before = story.length;
    loop.frame("serial", frame);
    run(2 * timing.beatIntervalMs);
    expect(story.slice(before)).toContain("granting");
  });

  test("a partner that is gone is lost all the same", () => {
    const { story, standStill, run } = paired();
    standStill(timing.lossMs + 30);
    expect(story).not.toContain("partnerLost");
    run(timing.lossMs + timing.stallGraceMs);
    expect(story).toContain("partnerLost");
  });

  test("a whole period goes by before the next tick", () => {
    const { loop, run, standStill } = start();
    run(20);
    loop.tickLateMsMax();
    standStill(200);
    expect(loop.tickLateMsMax()).toBeGreaterThan(190);
    run(timing.beatTickMs - 1);
    expect(loop.tickLateMsMax()).toBe(0);
    expect(loop.state.tickedAtMs).toBe(220);
    run(1);
    expect(loop.state.tickedAtMs).toBe(225);
  });
});

describe("a lease", () => {
  test("is what is left of it, in whole milliseconds rounded down", () => {
    const running = start();
    const { loop, story, timeline, run } = running;
    loop.command({ kind: "mandate", mandate: aloneMandate });
    loop.command({ kind: "progress" });
    loop.command({ kind: "gate", command: { kind: "gateKeep", addresses } });
    run(10.25);
    const sentAtMs = timeline.nowMs - 1.5;
    loop.offer({ kind: "written", sentAtMs, accepted: 2, refused: 0, total: 3 });
    expect(story).toContain(`renew ${addresses.join(" ")} for ${timing.soloGateTimeoutMs - 2}`);
    expect(loop.renewals).toBe(1);
  });

  test("that is over before the kernel can be asked is not asked for, and the gate has lapsed", () => {
    const running = start();
    const { loop, story, told, timeline, run } = running;
    run(100);
    loop.command({ kind: "mandate", mandate: aloneMandate });
    loop.command({ kind: "progress" });
    loop.command({ kind: "gate", command: { kind: "gateKeep", addresses } });
    const sentAtMs = timeline.nowMs - timing.soloGateTimeoutMs + 0.5;
    loop.offer({ kind: "written", sentAtMs, accepted: 2, refused: 0, total: 3 });
    expect(story.filter((line) => line.startsWith("renew"))).toEqual([]);
    expect(told).toContainEqual({
      kind: "observation",
      observation: { kind: "gateLapsed", addresses },
    });
  });
});

describe("the beat loop", () => {
  test("hears of a gate's outcome before anything else that waits", () => {
    const running = start();
    serve(running);
    const { loop, told, standStill } = running;
    standStill(1, () => {
      loop.command({ kind: "gate", command: openOne });
      loop.command({
        kind: "reserve",
        token: "r",
        serial: "c1",
        command: { op: "readKeys" },
        deadlineMs: 10,
      });
    });
    const kinds = told.map((message) =>
      message.kind === "observation" ? message.observation.kind : message.kind,
    );
    expect(kinds.indexOf("gateOpened")).toBeGreaterThanOrEqual(0);
    expect(kinds.indexOf("gateOpened")).toBeLessThan(kinds.indexOf("reserved"));
  });

  test("gives up a record on the disk on which it registers, and only when it registers", () => {
    const { loop, story, hanging, told, run } = start(done, true);
    run(20);
    const deadlineMs = 10;
    loop.command({ kind: "volumeWrite", token: "w", record: recordOf(), untilMs: 5000 });
    const ask = (serial: string, command: ReservationCommand) =>
      loop.command({ kind: "reserve", token: "r", serial, command, deadlineMs });
    ask("c1", { op: "readKeys" });
    ask("c2", { op: "register", key: "00000000000000a1" });
    story.length = 0;
    // In the last place: with two that have failed nothing is wanted any more.
    const [c1, c2, c3] = hanging;
    for (const look of [c1, c3, c2]) look?.();
    expect(story).toEqual(["c1 wanted", "c3 wanted", "c2 not wanted"]);
    const written = { accepted: 0, refused: 0, overtaken: 0, total: 3 };
    expect(told.at(-1)).toEqual({ kind: "volumeWritten", token: "w", written });
  });

  test("counts what the codec or the decisions refuse, and tells nobody", () => {
    const { loop, told, run, answer } = start();
    run(20);
    loop.refuse("signature");
    const beat = answer();
    loop.frame("network", beat);
    told.length = 0;
    loop.frame("network", beat);
    loop.frame("network", beat);
    expect(loop.refused).toEqual({ signature: 1, replay: 2 });
    expect(told).toEqual([]);
  });
});
