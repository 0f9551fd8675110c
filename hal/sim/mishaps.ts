/** Drawing single mishaps: each kind with what it needs, and with its end if it is to have one. */

import { drawHandOver, drawWish } from "./changes.ts";
import type { Mishap } from "./chaos.ts";
import { workNames } from "./chaos.ts";
import { spareDisk } from "./spares.ts";
import { pick, type Random } from "./timeline.ts";

export const mishapKinds = [
  "cut",
  "split",
  "loss",
  "noise",
  "twice",
  "straggle",
  "nic",
  "lan",
  "path",
  "disk",
  "slow",
  "fail",
  "hang",
  "power",
  "kill",
  "crash",
  "tear",
  "forget",
  "freeze",
  "pause",
  "die",
  "shutdown",
  "upgrade",
  "command",
  "transfer",
  "device",
  "mute",
  "break",
  "unaddress",
  "change",
  "records",
  "handOver",
] as const;
export type MishapKind = (typeof mishapKinds)[number];

export interface Drawn {
  readonly mishap: Mishap;
  readonly undo?: Mishap | undefined;
  readonly lastsMs: number;
}

type Draw = (random: Random) => { readonly mishap: Mishap; readonly undo?: Mishap | undefined };

const who = (random: Random) => pick(random, ["a", "b"] as const);
const server = (random: Random) => pick(random, ["alpha", "beta"] as const);
const wire = (random: Random) => pick(random, ["serial", "network"] as const);
const disk = (random: Random) =>
  pick(random, ["c1", "c2", "c3", "d1", "d2", "c1", "c2", "c3", "d1", "d2", spareDisk(0)] as const);
const blind = (random: Random) => pick(random, ["a", "b", "nobody", "nobody"] as const);
const part = (random: Random) => pick(random, ["all", "all", "main", "beat"] as const);

const draws: Readonly<Record<MishapKind, Draw>> = {
  cut: (random) => {
    const head = { do: "cut", link: wire(random), to: who(random) } as const;
    return { mishap: { ...head, cut: true }, undo: { ...head, cut: false } };
  },
  split: (random) => {
    const head = { do: "split", blind: blind(random) } as const;
    return { mishap: { ...head, on: true }, undo: { ...head, on: false } };
  },
  loss: (random) => spoiled(random, "loss", pick(random, [0.05, 0.3, 0.9])),
  noise: (random) => spoiled(random, "noise", pick(random, [0.0005, 0.01, 0.1])),
  twice: (random) => spoiled(random, "twice", pick(random, [0.1, 1])),
  straggle: (random) => spoiled(random, "straggleMs", pick(random, [3, 30, 150])),
  nic: (random) => {
    const head = { do: "nic", who: who(random) } as const;
    return { mishap: { ...head, up: false }, undo: { ...head, up: true } };
  },
  lan: (random) => ({
    mishap: { do: "lan", loss: pick(random, [0, 0.1, 0.5]), lateMs: pick(random, [0, 50, 2000]) },
    undo: { do: "lan", loss: 0, lateMs: 0 },
  }),
  path: (random) => {
    const head = {
      do: "path",
      who: who(random),
      disk: pick(random, [disk(random), "all"]),
    } as const;
    return { mishap: { ...head, up: false }, undo: { ...head, up: true } };
  },
  disk: (random) => {
    const head = { do: "disk", disk: disk(random) } as const;
    return { mishap: { ...head, alive: false }, undo: { ...head, alive: true } };
  },
  slow: (random) => {
    const head = { do: "slow", disk: disk(random) } as const;
    const ms = pick(random, [5, 60, 300, 1500]);
    return { mishap: { ...head, ms }, undo: { ...head, ms: 0 } };
  },
  fail: (random) => ({
    mishap: {
      do: "fail",
      who: who(random),
      op: pick(random, workNames),
      count: 1 + Math.floor(3 * random()),
    },
  }),
  hang: (random) => {
    const head = { who: who(random), op: pick(random, workNames) } as const;
    return { mishap: { do: "hang", ...head }, undo: { do: "release", ...head } };
  },
  power: (random) => again({ do: "power", who: who(random) }),
  kill: (random) => again({ do: "kill", who: who(random) }),
  crash: (random) => again({ do: "crash", who: who(random) }),
  tear: (random) => again({ do: "tear", who: who(random), length: Math.floor(60 * random()) }),
  forget: (random) => again({ do: "forget", who: who(random) }),
  freeze: (random) => {
    const head = { who: who(random), what: part(random) } as const;
    return { mishap: { do: "freeze", ...head }, undo: { do: "thaw", ...head } };
  },
  pause: (random) => {
    const head = { who: who(random), what: part(random) } as const;
    return { mishap: { do: "freeze", ...head }, undo: { do: "thaw", ...head } };
  },
  die: (random) => ({ mishap: { do: "die", who: who(random), server: server(random) } }),
  mute: (random) => ({ mishap: { do: "mute", who: who(random), server: server(random) } }),
  device: (random) => ({
    mishap: { do: "device", who: who(random), disk: pick(random, ["d1", "d2"] as const) },
  }),
  break: (random) => ({
    mishap: { do: "break", who: who(random), disk: pick(random, ["d1", "d2"] as const) },
  }),
  unaddress: (random) => ({
    mishap: { do: "unaddress", who: who(random), server: server(random) },
  }),
  change: (random) => ({ mishap: drawWish(random) }),
  handOver: (random) => {
    const { take, give } = drawHandOver(random);
    return { mishap: take, undo: give };
  },
  records: (random) => ({
    mishap: {
      do: "records",
      who: who(random),
      disks: pick(random, [["c1"], ["c1", "c2"], ["c2", "c3"], ["c1", "c2", "c3"]]),
      how: pick(random, ["failed", "torn", "unheard", "unread"] as const),
      count: 1 + Math.floor(3 * random()),
    },
  }),
  shutdown: (random) => again({ do: "shutdown", who: who(random) }),
  upgrade: (random) => again({ do: "shutdown", who: who(random) }),
  command: (random) => ({
    mishap: {
      do: "command",
      who: who(random),
      kind: pick(random, ["takeover", "giveback"] as const),
      force: random() < 0.4,
    },
  }),
  transfer: (random) => ({
    mishap: {
      do: "transfer",
      who: who(random),
      server: server(random),
      force: random() < 0.2,
    },
  }),
};

/** Whoever is struck down is started again. */
function again(mishap: Extract<Mishap, { readonly who: "a" | "b" }>): ReturnType<Draw> {
  return { mishap, undo: { do: "start", who: mishap.who } };
}

function spoiled(
  random: Random,
  what: "loss" | "noise" | "twice" | "straggleMs",
  part: number,
): ReturnType<Draw> {
  const link = what === "noise" ? "serial" : wire(random);
  const to = random() < 0.5 ? undefined : who(random);
  const head = { do: "spoil", link, to, what } as const;
  return { mishap: { ...head, part }, undo: { ...head, part: 0 } };
}

/** Kinds whose end is their point: they end soon. */
const short: ReadonlySet<MishapKind> = new Set(["pause", "cut", "upgrade", "handOver"]);

export function drawMishap(random: Random, kind: MishapKind, gapMs: number): Drawn {
  const { mishap, undo } = draws[kind](random);
  const ends = short.has(kind) || random() < 0.7;
  const scale = pick(random, [40, 150, 500, gapMs, 2 * gapMs]);
  const shorter = kind === "pause" ? 0.5 : kind === "handOver" ? 0.25 : 1;
  const lastsMs = scale * (0.2 + 1.6 * random()) * shorter;
  return { mishap, undo: ends ? undo : undefined, lastsMs };
}
