/** Serial and network wires between the two controllers: a delay, and a cut, for each direction on its own. */
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import type { ControllerId, LinkName } from "../../firmware-ts/schema/ids.ts";
import type { Timeline } from "./timeline.ts";

type Wire = Exclude<LinkName, "disk">;

export interface WireState {
  cut: boolean;
  delayMs: number;
  /** Part of the frames that are lost. */
  loss: number;
}

export class Wires {
  readonly #timeline: Timeline;
  readonly #random: () => number;
  readonly #wires: Record<string, WireState> = {};
  /** Set by the world: takes a frame that came in at a controller. */
  deliver: (to: ControllerId, link: Wire, beat: Beat) => void = () => undefined;
  /** Frames that were sent, for replays. */
  readonly recorded: { readonly to: ControllerId; readonly link: Wire; readonly beat: Beat }[] = [];

  constructor(timeline: Timeline, random: () => number, delaysMs: Readonly<Record<Wire, number>>) {
    this.#timeline = timeline;
    this.#random = random;
    for (const link of ["serial", "network"] as const)
      for (const to of ["a", "b"] as const)
        this.#wires[`${link}>${to}`] = { cut: false, delayMs: delaysMs[link], loss: 0 };
  }

  wire(link: Wire, to: ControllerId): WireState {
    const wire = this.#wires[`${link}>${to}`];
    if (!wire) throw new Error(`wires: no ${link} to ${to}`);
    return wire;
  }

  send(link: Wire, to: ControllerId, beat: Beat): void {
    this.recorded.push({ to, link, beat });
    if (this.recorded.length > recordedMax) this.recorded.shift();
    const wire = this.wire(link, to);
    if (wire.cut || (wire.loss > 0 && this.#random() < wire.loss)) return;
    // A frame that is on the wire when it is cut is lost with it.
    this.#timeline.after(wire.delayMs, () => {
      if (!wire.cut) this.deliver(to, link, beat);
    });
  }
}

const recordedMax = 400;
