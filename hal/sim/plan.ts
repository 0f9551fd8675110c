/**
 * What happens in one run, as data: the set-up of the pair, and mishaps with the moments at which they strike. A plan is drawn from a seed
 * in full before anything runs, so that a part of it can be run again.
 */
import { deriveTiming, timingFaults } from "../../firmware-ts/core/timing.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Mishap } from "./chaos.ts";
import { drawMishap, type MishapKind, mishapKinds } from "./mishaps.ts";
import type { PairSetup } from "./pair.ts";
import { sparesOfPlans } from "./spares.ts";
import { pick, type Random, seeded } from "./timeline.ts";

export const profiles = [
  "quiet",
  "links",
  "disks",
  "power",
  "pauses",
  "upgrade",
  "changes",
  "everything",
] as const;
export type Profile = (typeof profiles)[number];

export interface Fault {
  /** Since the start of the run. */
  readonly atMs: number;
  /** So many events later it strikes: between any two effects of what goes on then. */
  readonly events: number;
  readonly mishap: Mishap;
}

/** A plain loss of a healthy pair, whose dark time is derived (core/timing). */
export interface PlainLoss {
  readonly victim: ControllerId;
  readonly how: "kill" | "power" | "freeze" | "hang" | "isolate";
}

export interface Plan {
  readonly seed: number;
  readonly profile: Profile;
  readonly setup: PairSetup;
  readonly faults: readonly Fault[];
  /** Kinds of mishap that this seed has on. */
  readonly kinds: readonly MishapKind[];
  /** After the last mishap and before everything is mended. */
  readonly restMs: number;
  /** Whoever ends by itself is started again after this. */
  readonly restartMs: number;
  readonly loss?: PlainLoss | undefined;
}

/** Times that an administrator may set; `default` is the product's. Slower beats give the same interleavings from fewer events. */
const timings = {
  default: {},
  slow: {
    beatIntervalMs: 25,
    diskBeatIntervalMs: 50,
    linkSilenceMs: 110,
    diskSilenceMs: 200,
    gateTimeoutMs: 310,
    soloGateTimeoutMs: 620,
    clockMarginMs: 15,
    progressTimeoutMs: 300,
    startupWaitMs: 1500,
  },
  slower: {
    beatIntervalMs: 50,
    diskBeatIntervalMs: 100,
    linkSilenceMs: 220,
    diskSilenceMs: 410,
    gateTimeoutMs: 600,
    soloGateTimeoutMs: 1200,
    clockMarginMs: 20,
    progressTimeoutMs: 600,
    startupWaitMs: 2500,
  },
} as const;

/** Kinds of each profile; in `quiet` nothing happens but what operators and a healthy shelf do. */
const kindsOf: Readonly<Record<Profile, readonly MishapKind[]>> = {
  quiet: ["command", "transfer", "change", "handOver"],
  links: [
    "cut",
    "split",
    "loss",
    "noise",
    "twice",
    "straggle",
    "nic",
    "lan",
    "unaddress",
    "command",
    "transfer",
    "change",
  ],
  disks: [
    "path",
    "disk",
    "slow",
    "fail",
    "hang",
    "command",
    "transfer",
    "device",
    "break",
    "change",
    "records",
  ],
  power: ["power", "kill", "crash", "tear", "forget", "transfer", "change"],
  pauses: ["freeze", "pause", "hang", "mute", "transfer", "command", "change"],
  upgrade: ["upgrade", "command", "transfer", "shutdown", "change"],
  changes: mishapKinds,
  everything: mishapKinds,
};

const withoutLosses: readonly Profile[] = ["quiet", "upgrade", "changes"];

/** The plan of a seed: the same wherever and whenever it is drawn. */
export function drawPlan(seed: number, profile: Profile): Plan {
  const random = seeded(Math.imul(seed, 0x9e3779b1) ^ (profiles.indexOf(profile) * 0x85ebca6b));
  for (let i = 0; i < 4; i += 1) random();
  const setup = drawSetup(random, seed);
  const plain = !withoutLosses.includes(profile) && random() < 0.1;
  const settleMs = pick(random, [10, 300, 1200, 3000]);
  const restMs = pick(random, [0, 50, 500]);
  const restartMs = pick(random, [20, 100, 600]);
  const all = kindsOf[profile];
  const head = { seed, profile, setup, restMs, restartMs };
  if (plain) return { ...head, kinds: [], ...drawLoss(random) };
  // Swarm: half of the kinds are off, so that those that are on meet each other often.
  const some = all.filter(() => random() < 0.5);
  const few = some.length > 0 ? some : [pick(random, all)];
  const changes = few.flatMap(
    () => ["change", "change", "records", "handOver", "handOver"] as const,
  );
  const kinds = profile === "changes" ? [...few, ...changes] : few;
  return { ...head, kinds, faults: drawFaults(random, kinds, settleMs, profile) };
}

function drawSetup(random: Random, seed: number): PairSetup {
  const timing =
    timings[pick(random, ["default", "slow", "slow", "slower", "slower", "slower"] as const)];
  const clock = () => ({
    ppm: (random() - 0.5) * 500,
    originMs: pick(random, [0, 0, 5000 * random(), 1e9 * random()]),
  });
  const withClients = random() < 0.75;
  return {
    seed,
    jitter: true,
    timing,
    // Enough of them that some wait for their turn to be moved, and with twelve for their turn to start.
    servers: seed % 16 === 0 ? 12 : seed % 8 === 0 ? 6 : 2,
    spares: sparesOfPlans,
    coordinators: random() < 0.8 ? 3 : pick(random, [1, 5]),
    links: { serial: random() < 0.85 },
    autoGiveback: random() < 0.4,
    clocks: { a: clock(), b: clock() },
    clients: withClients
      ? { perServer: pick(random, [1, 2, 3]), thinkMs: pick(random, [15, 60, 250]) }
      : undefined,
  };
}

function drawFaults(
  random: Random,
  kinds: readonly MishapKind[],
  settleMs: number,
  profile: Profile,
): Fault[] {
  const faults: Fault[] = [];
  const few = profile === "quiet" ? 3 : 1 + Math.floor(random() * 14);
  const count = profile === "changes" ? 6 + few : few;
  const gapMs = pick(random, [20, 120, 400, 1200]);
  let atMs = settleMs;
  for (let i = 0; i < count; i += 1) {
    const { mishap, undo, lastsMs } = drawMishap(random, pick(random, kinds), gapMs);
    const events = random() < 0.5 ? 0 : Math.floor(random() * 60);
    faults.push({ atMs, events, mishap });
    if (undo) faults.push({ atMs: atMs + lastsMs, events: 0, mishap: undo });
    atMs += gapMs * -Math.log(1 - random() * 0.99);
  }
  return faults.sort((one, other) => one.atMs - other.atMs);
}

function drawLoss(random: Random): { faults: readonly Fault[]; loss: PlainLoss } {
  const who = () => pick(random, ["a", "b"] as const);
  const how = pick(random, ["kill", "power", "freeze", "hang", "isolate"] as const);
  const atMs = 3800 + 200 * random();
  const events = Math.floor(30 * random());
  // The strike itself is the judge's: this only says when.
  return {
    faults: [{ atMs, events, mishap: { do: "wait", ms: 0 } }],
    loss: { victim: who(), how },
  };
}

/** Every timing that plans use keeps the inequalities; asked by a test. */
export function planTimingFaults(): readonly string[] {
  const derived = (timing: object) =>
    timingFaults(deriveTiming({ ...productTiming, ...timing } as typeof productTiming));
  return Object.values(timings).flatMap(derived);
}

const productTiming = {
  beatIntervalMs: 10,
  diskBeatIntervalMs: 20,
  linkSilenceMs: 60,
  diskSilenceMs: 90,
  gateTimeoutMs: 150,
  soloGateTimeoutMs: 400,
  clockMarginMs: 15,
  progressTimeoutMs: 500,
  startupWaitMs: 1500,
};
