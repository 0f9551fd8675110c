/**
 * Stalls of a beat process, drawn at random. In one machine: an excuse postpones a loss within its bound and changes nothing that anybody
 * else relies on. In a pair: two that stall together do not race.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type { BeatEffect, BeatEvent } from "../../firmware-ts/core/beat-types.ts";
import { nobodyHeard } from "../../firmware-ts/core/links.ts";
import { deriveTiming, tickMs } from "../../firmware-ts/core/timing.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { linkNames } from "../../firmware-ts/schema/ids.ts";
import { ids, Pair } from "../../hal/sim/pair.ts";

const timing = deriveTiming(new Pair().config("a").timing);
const address = "10.0.0.100";

/** Time goes by without a tick; perhaps a beat of the partner is read; then the tick comes. */
const turn = fc.record({
  gapMs: fc.oneof(
    { weight: 4, arbitrary: fc.constant(5) },
    { weight: 1, arbitrary: fc.integer({ min: 6, max: 60 }) },
    { weight: 1, arbitrary: fc.integer({ min: 31, max: 400 }) },
  ),
  /** Silence comes in stretches. */
  repeat: fc.integer({ min: 1, max: 30 }),
  hears: fc.constantFrom(undefined, undefined, ...linkNames),
  /** How many beats ago the one was said that the partner answers. */
  ackAgo: fc.constantFrom(0, 0, 1, 12),
});
type Turn = typeof turn extends fc.Arbitrary<infer T> ? T : never;

/** The machine, and beside it what follows from its events without any thought of stalls. */
class Watched {
  state: BeatState;
  nowMs = 0;
  #sequence = 0;
  #tickedAtMs = 0;
  readonly #sentAtMs = new Map<number, number>();
  #heardMs = 0;
  #grantedMs: number | undefined;
  #leaseMs = 0;
  /** The first tick of this silence at which nobody was heard within the limits. */
  #silentSinceMs: number | undefined;
  #stalled = false;

  constructor() {
    const setup = { me: "a", session: 1, configuration: 7, timing, links: linkNames } as const;
    this.state = newBeatState({ ...setup, nowMs: 0 });
    const mandate = { ...this.state.mandate, mode: "paired", ground: "acknowledged" } as const;
    this.#step({ kind: "mandate", nowMs: 0, mandate });
    this.#step({ kind: "gateKeep", nowMs: 0, addresses: [address] });
  }

  play({ gapMs, repeat, hears, ackAgo }: Turn): void {
    for (let i = 0; i < repeat; i += 1) {
      this.nowMs += gapMs;
      if (hears) this.#hear(hears, ackAgo);
      this.#grant();
      this.#tick();
    }
  }

  #hear(link: (typeof linkNames)[number], ackAgo: number): void {
    this.#sequence += 1;
    const acked = Math.max(1, this.state.sequence - ackAgo);
    const beat: Beat = {
      sender: "b",
      session: 2,
      sequence: this.#sequence,
      ack: { session: 1, sequence: acked },
      granting: true,
      mode: "paired",
      epoch: 1,
      configuration: 7,
      progressAgeMs: 0,
      goodbye: false,
      dyingGasp: false,
      dataLinkDown: false,
      owned: "",
      serving: "",
      messageAck: 0,
    };
    const saidMs = this.#sentAtMs.get(acked) ?? Number.NEGATIVE_INFINITY;
    const isFresh = this.nowMs - saidMs <= timing.freshAckMs;
    const isKnown = this.state.heard !== undefined;
    if (isFresh || isKnown) this.#heardMs = this.nowMs;
    if (isFresh) {
      this.#leaseMs = Math.max(this.#leaseMs, saidMs + timing.gateTimeoutMs);
      this.#silentSinceMs = undefined;
      this.#stalled = false;
    }
    this.#step({ kind: "frame", nowMs: this.nowMs, link, beat });
  }

  #grant(): void {
    const { contact, granting, partner } = this.state;
    if (partner && !granting) this.#step({ kind: "grant", nowMs: this.nowMs, on: true, contact });
    this.#step({ kind: "progress", nowMs: this.nowMs });
  }

  #tick(): void {
    const { nowMs, state } = this;
    if (nowMs - this.#tickedAtMs > tickMs + timing.stallMs) this.#stalled = true;
    this.#tickedAtMs = nowMs;
    const before = state.partner;
    if (before && nobodyHeard(state.links, timing, nowMs)) this.#silentSinceMs ??= nowMs;
    const since = this.#silentSinceMs;
    this.#step({ kind: "tick", nowMs });
    if (!before) return;
    const lost = this.state.partner === undefined;
    if (since === undefined) expect(lost, "lost while it is heard").toBe(false);
    else if (!this.#stalled || nowMs - since >= timing.stallGraceMs)
      expect(lost, "kept without an excuse").toBe(true);
    if (lost) this.#silentSinceMs = undefined;
  }

  #step(event: BeatEvent): void {
    const [state, effects] = beatStep(this.state, event);
    this.state = state;
    for (const effect of effects) this.#check(effect);
    expect(state.ackLeaseMs, "our lease is not what the partner gave").toBe(this.#leaseMs);
  }

  #check(effect: BeatEffect): void {
    if (effect.kind === "send") {
      this.#sentAtMs.set(effect.beat.sequence, this.nowMs);
      if (!effect.beat.granting) return;
      expect(this.#silentSinceMs, "granted to somebody who is not heard").toBeUndefined();
      this.#grantedMs = this.#heardMs;
    } else if (effect.kind === "renew") {
      expect(effect.untilMs).toBeLessThanOrEqual(this.#leaseMs);
    } else if (effect.kind === "observe" && effect.observation.kind === "partnerLost") {
      expect(effect.observation.lastGrantedMs).toBe(this.#grantedMs);
    }
  }
}

describe("one machine", () => {
  test("an excuse postpones a loss within its bound, and touches no grant and no lease", () => {
    let losses = 0;
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1, maxLength: 40 }), (turns) => {
        const watched = new Watched();
        for (const each of turns) watched.play(each);
        losses += watched.state.contact - 1;
      }),
      { numRuns: 400 },
    );
    expect(losses).toBeGreaterThan(100);
  });
});

describe("a pair", () => {
  /** Shorter than the age at which a main loop counts as hung: that is said by the partner itself, and not excused. */
  const stall = fc.record({
    stallMs: fc.integer({ min: 30, max: timing.progressTimeoutMs - 130 }),
    sooner: fc.constantFrom(...ids),
    /** What one runs alone is silence that counts. */
    headStartMs: fc.integer({ min: 0, max: timing.linkSilenceMs - 2 * timing.beatIntervalMs }),
    runMs: fc.integer({ min: 25, max: 200 }),
  });

  test("that stalls together stays one, however often", () => {
    const history = fc.record({
      seed: fc.integer({ min: 1, max: 1_000_000 }),
      stalls: fc.array(stall, { minLength: 1, maxLength: 12 }),
    });
    fc.assert(
      fc.property(history, ({ seed, stalls }) => {
        const pair = new Pair({ seed, jitter: true });
        for (const who of ids) pair.start(who);
        pair.run(2000);
        for (const { stallMs, sooner, headStartMs, runMs } of stalls) {
          for (const who of ids) pair.freeze(who);
          pair.run(stallMs);
          pair.thaw(sooner);
          pair.run(headStartMs);
          for (const who of ids) pair.thaw(who);
          pair.run(runMs);
        }
        pair.run(300);
        expect(pair.trace.filter((line) => line.includes("partner.lost"))).toEqual([]);
        for (const each of pair.addresses) expect(pair.answers(each)).toBeDefined();
      }),
      { numRuns: Number(process.env.CHAOS_RUNS ?? 100) },
    );
  });
});
