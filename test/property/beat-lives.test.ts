/**
 * Two beat machines that die and live again, on wires on which frames of dead lives come late and overtake the first words of the living. When
 * the wires are sound again each hears the life that the other leads; and no lease ever outlasts what its giver reckons with.
 */
import { expect, test } from "vitest";
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type { BeatEffect, BeatEvent } from "../../firmware-ts/core/beat-types.ts";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import type { Unstamped } from "../../firmware-ts/loop/unstamped.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { type ControllerId, type LinkName, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { ids, Pair } from "../../hal/sim/pair.ts";
import { seeded, Timeline } from "../../hal/sim/timeline.ts";

const timing = deriveTiming(new Pair().config("a").timing);

const troubleMs = 4000;
/** No frame is longer under way. */
const lateMsMax = 900;
const healedMs = troubleMs + lateMsMax + 500;
const deathsMs = [20, 320] as const;
const deadMsMax = 20;
const wireMs = { serial: 5, network: 0.5, disk: 1 } as const;
const ipcMs = 0.1;

class Life {
  alive = true;
  state: BeatState;
  readonly #world: World;

  constructor(world: World, me: ControllerId, session: number) {
    this.#world = world;
    const links = ["serial", "network"] as const;
    this.state = newBeatState({ me, session, configuration: 7, timing, links, nowMs: world.nowMs });
    const mandate = { ...this.state.mandate, mode: "paired", ground: "acknowledged" } as const;
    this.step({ kind: "mandate", mandate });
    this.#tick();
  }

  #tick(): void {
    this.#world.after(timing.beatTickMs, () => {
      this.step({ kind: "progress" });
      this.step({ kind: "tick" });
      if (this.alive) this.#tick();
    });
  }

  step(event: Unstamped<BeatEvent>): void {
    if (!this.alive) return;
    const [state, effects] = beatStep(this.state, {
      ...event,
      nowMs: this.#world.nowMs,
    } as BeatEvent);
    this.state = state;
    for (const effect of effects) this.#perform(effect);
    this.#world.judge(this.state);
  }

  #perform(effect: BeatEffect): void {
    const world = this.#world;
    if (effect.kind === "send") {
      for (const link of effect.links) world.carry(link, this.state.me, effect.beat);
    } else if (effect.kind === "observe" && effect.observation.kind === "partner") {
      // The main loop gives its word to whoever it is shown.
      const { contact } = effect.observation.view;
      world.after(ipcMs, () => this.step({ kind: "grant", on: true, contact }));
    }
  }
}

class World {
  readonly #timeline = new Timeline();
  readonly #random: () => number;
  readonly #loss: number;
  readonly #straggling: number;
  readonly living: Partial<Record<ControllerId, Life>> = {};
  readonly #lives: Record<ControllerId, Life[]> = { a: [], b: [] };
  #session = 0;

  constructor(seed: number) {
    this.#random = seeded(seed);
    this.#loss = 0.9 * this.#random();
    this.#straggling = 0.5 + 0.5 * this.#random();
    for (const who of ids) this.after(50 * this.#random(), () => this.#begin(who));
    this.#dieLater();
  }

  get nowMs(): number {
    return this.#timeline.nowMs;
  }

  after(delayMs: number, run: () => void): void {
    this.#timeline.after(delayMs, run);
  }

  runUntil(untilMs: number): void {
    this.#timeline.runUntil(untilMs, () => undefined);
  }

  #begin(who: ControllerId): void {
    this.#session += 1;
    const life = new Life(this, who, this.#session);
    this.living[who] = life;
    this.#lives[who].push(life);
  }

  #dieLater(): void {
    const [shortMs, longMs] = deathsMs;
    this.after(shortMs + (longMs - shortMs) * this.#random(), () => {
      const who = this.#random() < 0.5 ? "a" : "b";
      const life = this.living[who];
      if (life) {
        life.alive = false;
        delete this.living[who];
        this.after(deadMsMax * this.#random(), () => this.#begin(who));
      }
      if (this.nowMs + longMs + deadMsMax < troubleMs) this.#dieLater();
    });
  }

  carry(link: LinkName, from: ControllerId, beat: Beat): void {
    const isTrouble = this.nowMs < troubleMs;
    if (isTrouble && this.#random() < this.#loss) return;
    const isLate = isTrouble && this.#random() < this.#straggling;
    const lateMs = isLate ? lateMsMax * this.#random() : 0;
    this.after(wireMs[link] + lateMs, () =>
      this.living[partnerOf(from)]?.step({ kind: "frame", link, beat }),
    );
  }

  /** Whoever gave a lease, dead by now or not, reckons with its end. */
  judge({ me, ackLeaseMs }: BeatState): void {
    const granted = this.#lives[partnerOf(me)].map(({ state }) => state.lastGrantedMs ?? 0);
    const boundMs = Math.max(0, ...granted) + timing.gateTimeoutMs;
    if (ackLeaseMs > boundMs)
      throw new Error(`${me} has a lease until ${ackLeaseMs}, not ${boundMs}`);
  }
}

test("the living hear each other after any trouble with the dead, and no lease is longer than its giver knows", () => {
  for (let seed = 1; seed <= 700; seed += 1) {
    const world = new World(seed);
    world.runUntil(healedMs);
    for (const who of ids)
      expect(world.living[who]?.state.partner?.session, `seed ${seed}: whom ${who} hears`).toBe(
        world.living[partnerOf(who)]?.state.session,
      );
  }
});
