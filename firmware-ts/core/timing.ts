/**
 * Every duration of the pair, derived once from the few that an administrator may set, and the inequalities that make the
 * address argument of docs/SAFETY.md true. `timingFaults` must be empty before a controller may start.
 *
 * Timeline of a loss, with the defaults, in ms after the survivor last received a beat that it acknowledged (L):
 *
 *     0          the partner's gate can stay open until gateTimeout after it *sent* that beat, so until 150 at most
 *     60         serial and network are red (linkSilence)
 *     20         a last beat on the disks is found there, as late as they are looked at (diskBeatInterval)
 *     110        the disk link is red too (diskSilence after that): nothing granted any more, the race begins
 *     110..140   a tick, then PREEMPT on all coordinator disks; the majority decides (raceBudget)
 *     140..      data disks preempted, mounted, exported; the survivor's own gate, last renewed at about 0 too,
 *                lives until 150 and is renewed on the ground of its coordinator writes from then on
 *     150        the partner's kernel is silent, even if every process there is frozen
 *     165        L + gateTimeout + clockMargin: the survivor may open the partner's addresses
 *
 * A survivor whose beat process did not run in that time (a tick later than stallMs) notices the loss later by as much, at most by
 * stallGraceMs after it would have otherwise (core/beat-silence). All other times stay: its own gate may lapse at 150 and be opened again.
 */
import type { TimingConfig } from "../schema/config.ts";

/** The clock that the main loop advances by; also the largest delay between a timeout and its notice in either loop, unloaded. */
export const tickMs = 10;

/** Kernel timer granularity for set elements: one jiffy at HZ=100, the coarsest kernel that we run on. */
const kernelJiffyMs = 10;

/** Two quartz clocks differ by less than this (parts per million) over minutes, temperature included. */
const clockDriftPpm = 500;

export interface Timing extends TimingConfig {
  /** The clock of the beat process: the precision of sending and of opening gates. */
  readonly beatTickMs: number;
  /** How often the main loop says that it has got through what waited: often enough for `progressTimeoutMs`. */
  readonly progressEveryMs: number;
  /** Longest silence before the partner counts as lost, when every link fell silent at once. */
  readonly lossMs: number;
  /** A tick of the beat process that comes later than this shows that the process did not run. */
  readonly stallMs: number;
  /** How much longer at most a partner counts as alive because we did not run ourselves. */
  readonly stallGraceMs: number;
  /** Time within which all coordinator disks answer the race; later answers count as failed. */
  readonly raceTimeoutMs: number;
  /** What a race usually takes at most; only used to show that the survivor's own gate does not blink. */
  readonly raceBudgetMs: number;
  /** After the last granted beat: when the partner's addresses may be opened. */
  readonly partnerSilentMs: number;
  /** After the end of our preempt: when the addresses of a partner that may have been alone may be opened. */
  readonly soloSilentMs: number;
  /** First lease of a gate, before the reservation was checked again. */
  readonly firstLeaseMs: number;
  /** An acknowledgement of a beat older than this proves nothing about the present. */
  readonly freshAckMs: number;
  readonly reserveTimeoutMs: number;
  readonly stepTimeoutMs: { readonly [step in TimedStep]: number };
  /** A planned transfer whose target has not answered by then goes on at the source. */
  readonly transferAnswerMs: number;
  /** How long the source may take to stop; then the move is off. */
  readonly transferStopMs: number;
  /** How long a target that has said "ready" waits: longer than the source waits for that and then stops, so that no go comes after it. */
  readonly transferReadyMs: number;
  /** From the source's release to the target's "started"; then the target counts as failed. */
  readonly transferStartMs: number;
}

/** Steps of a virtual server that have a time limit of their own. */
export type TimedStep = "claim" | "attach" | "mount" | "export" | "address" | "stop";

/** Derives all durations. Pure; does not judge: see `timingFaults`. */
export function deriveTiming(config: TimingConfig): Timing {
  const stopMs = 10_000;
  const transferAnswerMs = 1500;
  const transferStopMs = 3 * stopMs;
  const lossMs = Math.max(config.linkSilenceMs, config.diskSilenceMs) + tickMs;
  return {
    ...config,
    beatTickMs: Math.min(tickMs, Math.floor(config.beatIntervalMs / 2)),
    progressEveryMs: Math.floor(config.progressTimeoutMs / 20),
    lossMs,
    // Lateness below this is a part of every silence; two thirds of the limit are left for beats that are lost or late.
    stallMs: Math.floor(config.linkSilenceMs / 3),
    // What is left of a silence after one stall, however long that was, is never more; and many stalls together get no more.
    stallGraceMs: lossMs,
    raceTimeoutMs: 500,
    raceBudgetMs: 20,
    partnerSilentMs: config.gateTimeoutMs + config.clockMarginMs,
    soloSilentMs: config.soloGateTimeoutMs + config.clockMarginMs,
    firstLeaseMs: Math.min(60, Math.floor(config.gateTimeoutMs / 2)),
    freshAckMs: 1000,
    reserveTimeoutMs: 1000,
    stepTimeoutMs: {
      claim: 3000,
      attach: 5000,
      mount: 20_000,
      export: 5000,
      address: 5000,
      stop: stopMs,
    },
    transferAnswerMs,
    transferStopMs,
    transferReadyMs: transferStopMs + 2 * transferAnswerMs,
    transferStartMs: 30_000,
  };
}

/** Each broken inequality as a sentence for the operator; empty when the argument holds. */
export function timingFaults(t: Timing): string[] {
  const faults: string[] = [];
  const need = (holds: boolean, sentence: string) => {
    if (!holds) faults.push(sentence);
  };
  need(
    t.linkSilenceMs >= 4 * t.beatIntervalMs,
    "link_silence_ms must be at least four beat intervals, or one late beat is a red link",
  );
  need(
    t.diskSilenceMs >= 4 * t.diskBeatIntervalMs,
    "disk_silence_ms must be at least four disk beat intervals",
  );
  need(
    4 * t.beatIntervalMs <= t.freshAckMs && 4 * t.diskBeatIntervalMs <= t.freshAckMs,
    `beat_interval_ms and disk_beat_interval_ms must be at most ${t.freshAckMs / 4}, or an answer is too old to prove anything when it comes`,
  );
  need(
    tickMs + t.stallMs < t.linkSilenceMs,
    "link_silence_ms must be longer than a tick may be late without counting as a stall",
  );
  need(
    t.beatIntervalMs + t.diskBeatIntervalMs + t.lossMs + t.raceBudgetMs <= t.gateTimeoutMs,
    "gate_timeout_ms must outlast the detection of a loss, by whichever link it was heard last, and the race, or the survivor's own addresses blink",
  );
  need(
    t.clockMarginMs >= kernelJiffyMs + (t.soloGateTimeoutMs * clockDriftPpm) / 1e6,
    "clock_margin_ms must cover the kernel's timer granularity and the drift of two clocks",
  );
  need(
    t.soloGateTimeoutMs >= t.gateTimeoutMs && t.soloGateTimeoutMs >= 6 * t.diskBeatIntervalMs,
    "solo_gate_timeout_ms must be at least gate_timeout_ms and six disk beat intervals",
  );
  need(
    t.firstLeaseMs < t.gateTimeoutMs,
    "the first lease of a gate must be shorter than gate_timeout_ms",
  );
  need(
    t.progressTimeoutMs >= 5 * tickMs,
    "progress_timeout_ms must be at least five ticks of the main loop",
  );
  need(
    t.startupWaitMs > 2 * t.raceTimeoutMs,
    "startup_wait_ms must be longer than two races: a registration younger than that does not count in one",
  );
  need(
    t.startupWaitMs > t.soloSilentMs + t.lossMs,
    "startup_wait_ms must be longer than a loss and a solo gate, or a restarted controller races a live partner",
  );
  return faults;
}
