/**
 * Serial and network wires between the two controllers, each direction on its own: a delay, a cut, loss, frames twice or out of order, and
 * on the serial line noise. Beats travel decoded while their wire is sound; with noise they are real bytes through the real codecs, and so
 * are the frames of strangers. Frames can be held up on their way, and come when they are let go.
 */
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { type ControllerId, type LinkName, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { CobsDecoder, encodeCobs } from "../../firmware-ts/wire/cobs.ts";
import { beatBytesMax, decodeBeat, encodeBeat } from "../../firmware-ts/wire/heartbeat.ts";
import type { Timeline } from "./timeline.ts";

export type Wire = Exclude<LinkName, "disk">;

export interface WireState {
  cut: boolean;
  delayMs: number;
  /** Part of the frames that are lost. */
  loss: number;
  /** Part of the frames that come twice. */
  twice: number;
  /** A frame may come later than it should by up to this: frames overtake each other. */
  straggleMs: number;
  /** Part of the bytes that are altered, or swallowed. */
  noise: number;
}

interface Direction extends WireState {
  /** Frames that are held up; undefined while they pass. */
  held: Beat[] | undefined;
  /** What the receiver has of a stream whose bytes were touched; undefined while it is sound. */
  decoder: CobsDecoder | undefined;
}

/** Both know it; the bytes are signed as on a real line. */
const pair = { pairId: 17, key: new Uint8Array(32).fill(7) };

/** What another pair on the same wire may have in common with ours. */
type Kinship = "id" | "key" | "both";

const strangers: Readonly<Record<Kinship, typeof pair>> = {
  id: { pairId: pair.pairId, key: new Uint8Array(32).fill(8) },
  key: { pairId: pair.pairId + 1, key: pair.key },
  both: pair,
};

const recordedMax = 400;

export class Wires {
  readonly #timeline: Timeline;
  readonly #random: () => number;
  readonly #wires: Readonly<Record<Wire, Readonly<Record<ControllerId, Direction>>>>;
  /** Set by the world: takes a frame that came in at a controller. */
  deliver: (to: ControllerId, link: Wire, beat: Beat) => void = () => undefined;
  /** Set by the world: a frame that came in and is no beat of the partner. */
  refuse: (to: ControllerId, reason: string) => void = () => undefined;
  /** Frames that were sent, for replays. */
  readonly recorded: { readonly to: ControllerId; readonly link: Wire; readonly beat: Beat }[] = [];
  readonly #recording: boolean;
  /** Frames that the codecs refused. */
  damaged = 0;

  constructor(
    timeline: Timeline,
    random: () => number,
    delaysMs: Readonly<Record<Wire, number>>,
    recording = true,
  ) {
    this.#timeline = timeline;
    this.#random = random;
    this.#recording = recording;
    const direction = (link: Wire): Direction => ({
      cut: false,
      delayMs: delaysMs[link],
      loss: 0,
      twice: 0,
      straggleMs: 0,
      noise: 0,
      held: undefined,
      decoder: undefined,
    });
    const both = (link: Wire) => ({ a: direction(link), b: direction(link) });
    this.#wires = { serial: both("serial"), network: both("network") };
  }

  wire(link: Wire, to: ControllerId): WireState {
    return this.#direction(link, to);
  }

  #direction(link: Wire, to: ControllerId): Direction {
    const both = link === "serial" ? this.#wires.serial : this.#wires.network;
    return to === "a" ? both.a : both.b;
  }

  send(link: Wire, to: ControllerId, beat: Beat): void {
    if (this.#recording) this.#record(link, to, beat);
    const wire = this.#direction(link, to);
    if (wire.cut || (wire.loss > 0 && this.#random() < wire.loss)) return;
    if (wire.held) {
      wire.held.push(beat);
      return;
    }
    this.#carry(link, to, wire, beat);
    if (wire.twice > 0 && this.#random() < wire.twice) this.#carry(link, to, wire, beat);
  }

  /** From now on frames are held up on their way. */
  hold(link: Wire, to: ControllerId): void {
    this.#direction(link, to).held ??= [];
  }

  /** What was held up comes now, in its order, and what is sent from now on passes; or only some of it, and the rest is lost. */
  let(link: Wire, to: ControllerId, pick: (held: readonly Beat[]) => readonly Beat[]): number {
    const wire = this.#direction(link, to);
    const late = pick(wire.held ?? []);
    wire.held = undefined;
    for (const beat of late) this.#timeline.after(wire.delayMs, () => this.deliver(to, link, beat));
    return late.length;
  }

  /** A frame of another pair that lies on the same wire. */
  stranger(link: Wire, to: ControllerId, beat: Beat, kinship: Kinship): void {
    const wire = this.#direction(link, to);
    const frame = encodeBeat(beat, strangers[kinship]);
    this.#timeline.after(wire.delayMs, () => {
      if (wire.cut) return;
      const decoded = decodeBeat(frame, pair, partnerOf(to));
      if (decoded.ok) this.deliver(to, link, decoded.beat);
      else this.refuse(to, decoded.reason);
    });
  }

  #record(link: Wire, to: ControllerId, beat: Beat): void {
    this.recorded.push({ to, link, beat });
    if (this.recorded.length > recordedMax) this.recorded.shift();
  }

  #carry(link: Wire, to: ControllerId, wire: Direction, beat: Beat): void {
    const lateMs = wire.straggleMs > 0 ? wire.straggleMs * this.#random() : 0;
    const bytes = wire.noise > 0 || wire.decoder ? this.#encode(wire, beat) : undefined;
    // A frame that is on the wire when it is cut is lost with it.
    this.#timeline.after(wire.delayMs + lateMs, () => {
      if (wire.cut) return;
      if (bytes) this.#receive(link, to, wire, bytes);
      else this.deliver(to, link, beat);
    });
  }

  #encode(wire: Direction, beat: Beat): Uint8Array {
    wire.decoder ??= new CobsDecoder(beatBytesMax);
    return this.#spoil(encodeCobs(encodeBeat(beat, pair)), wire.noise);
  }

  #spoil(bytes: Uint8Array, noise: number): Uint8Array {
    if (noise === 0) return bytes;
    const out: number[] = [];
    for (const byte of bytes) {
      const drawn = this.#random();
      if (drawn < noise / 3) continue;
      if (drawn < noise) out.push(byte ^ (1 << Math.floor(this.#random() * 8)));
      else out.push(byte);
    }
    return Uint8Array.from(out);
  }

  #receive(link: Wire, to: ControllerId, wire: Direction, bytes: Uint8Array): void {
    const frames = wire.decoder?.push(bytes) ?? [];
    for (const frame of frames) {
      const decoded = decodeBeat(frame, pair, partnerOf(to));
      if (decoded.ok) this.deliver(to, link, decoded.beat);
      else this.damaged += 1;
      // A whole frame without noise: nothing of the trouble is left in the decoder.
      if (decoded.ok && wire.noise === 0) wire.decoder = undefined;
    }
  }
}
