/** One beat machine on a bench: what its main loop and its partner say goes in by name, what it says and sees comes out. */
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type {
  BeatEffect,
  BeatEvent,
  Mandate,
  Observation,
} from "../../firmware-ts/core/beat-types.ts";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { type LinkName, linkNames } from "../../firmware-ts/schema/ids.ts";
import { Pair } from "../../hal/sim/pair.ts";

export const timing = deriveTiming(new Pair().config("a").timing);
export const me = 111;
export const partner = 222;

export class BeatBench {
  state: BeatState;
  /** Of the last step. */
  effects: readonly BeatEffect[] = [];
  #sequence = 0;

  constructor(links: readonly LinkName[] = linkNames) {
    const setup = { me: "a", session: me, configuration: 7, timing, links, nowMs: 0 } as const;
    this.state = newBeatState(setup);
  }

  step(event: BeatEvent): void {
    [this.state, this.effects] = beatStep(this.state, event);
  }

  tick(nowMs: number): void {
    this.step({ kind: "tick", nowMs });
  }

  /** What the last step told the main loop. */
  seen(): Observation[] {
    return this.effects.flatMap((each) => (each.kind === "observe" ? [each.observation] : []));
  }

  kinds(): string[] {
    return this.seen().map(({ kind }) => kind);
  }

  /** What the last step said, and on which links. */
  sent(): (BeatEffect & { kind: "send" })[] {
    return this.effects.filter((each) => each.kind === "send");
  }

  /** What the last step asked of the kernel. */
  gates(): BeatEffect[] {
    return this.effects.filter(({ kind }) => kind !== "send" && kind !== "observe");
  }

  /** The main loop changes what the beats say, and they say it at once. */
  say(change: Partial<Mandate>, nowMs: number): Beat {
    this.step({ kind: "mandate", nowMs, mandate: { ...this.state.mandate, ...change } });
    const [sent] = this.sent();
    if (!sent) throw new Error("a mandate is said at once");
    return sent.beat;
  }

  /** A beat of the partner that answers our newest, unless told otherwise. */
  hear(change: Partial<Beat>, nowMs: number, link: LinkName = "network"): void {
    this.#sequence += 1;
    const beat: Beat = {
      sender: "b",
      session: partner,
      sequence: this.#sequence,
      ack: { session: me, sequence: this.state.sequence },
      granting: false,
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
      ...change,
    };
    this.step({ kind: "frame", nowMs, link, beat });
  }

  grant(nowMs: number, contact = this.state.contact): void {
    this.step({ kind: "grant", nowMs, on: true, contact });
  }

  open(nowMs: number, notBeforeMs: number, ...addresses: readonly string[]): void {
    this.step({ kind: "gateOpen", nowMs, token: addresses.join("+"), addresses, notBeforeMs });
  }

  keep(nowMs: number, ...addresses: readonly string[]): void {
    this.step({ kind: "gateKeep", nowMs, addresses });
  }
}
