/**
 * Walks through every world of two mirrored controllers that can come about (mirror-moves.ts), breadth first, and asks in each of them
 * what must be true. What it finds comes with the shortest way there.
 */
import { rejoin } from "../../firmware-ts/core/mirror/rejoin.ts";
import type { ReplicaMetadata, Verdict } from "../../firmware-ts/schema/mirror.ts";
import { keyOf } from "./mirror-key.ts";
import { fairMoves, moves } from "./mirror-moves.ts";
import {
  ackedIn,
  blocks,
  has,
  lineage,
  type Node,
  type Rules,
  type World,
} from "./mirror-world.ts";

export type Rejoin = (mine: ReplicaMetadata, theirs: ReplicaMetadata) => Verdict;

export interface Found {
  readonly states: number;
  readonly violation?: string;
  /** From the beginning to the violation. */
  readonly trail?: readonly string[];
}

export interface Search {
  readonly rules: Rules;
  readonly begin: World;
  readonly statesMax: number;
  readonly rejoin?: Rejoin;
  /** Called with each world that is new. */
  readonly visit?: (world: World, number: number) => void;
}

/** Fails by an exception when there are more states than it may visit: a search that is not complete proves nothing. */
export function explore({ rules, begin, statesMax, visit, ...search }: Search): Found {
  const judge = search.rejoin ?? rejoin;
  const from = new Map<string, readonly [string, string] | undefined>([[keyOf(begin), undefined]]);
  let level: World[] = [begin];
  while (level.length > 0) {
    const below: World[] = [];
    for (const world of level) {
      const parent = keyOf(world);
      for (const [label, next] of moves(rules, world)) {
        const key = keyOf(next);
        if (from.has(key)) continue;
        from.set(key, [parent, label]);
        if (from.size > statesMax) throw new Error(`more than ${statesMax} states`);
        const violation = next.violation ?? wrongVerdict(judge, next);
        if (violation !== undefined)
          return { states: from.size, violation, trail: trailTo(from, key) };
        visit?.(next, from.size);
        below.push(next);
      }
    }
    level = below;
  }
  return { states: from.size };
}

function trailTo(
  from: ReadonlyMap<string, readonly [string, string] | undefined>,
  end: string,
): string[] {
  const labels: string[] = [];
  for (let at = from.get(end); at; at = from.get(at[0])) labels.push(at[1]);
  return labels.reverse();
}

/** What the two disks say of each other now, if both controllers crashed in this instant, against what is really on them. */
export function wrongVerdict(judge: Rejoin, world: World): string | undefined {
  const { a, b } = world.nodes;
  const verdict = judge(a.disk, b.disk);
  const said = `${verdict.kind} (${verdict.reason})`;
  const onlyA = lackedBy(world, b, a);
  const onlyB = lackedBy(world, a, b);
  const areComplete = a.disk.isComplete && b.disk.isComplete;
  if (areComplete && onlyA.length > 0 && onlyB.length > 0 && verdict.kind !== "diverged")
    return `both acknowledged alone (${onlyA}; ${onlyB}), and the verdict is ${said}`;
  if (!world.isUnsound && verdict.kind === "diverged") return `sound proofs, and ${said}`;
  if (verdict.kind === "same" && blocks.some((block) => a.data[block] !== b.data[block]))
    return `the disks differ (${a.data}; ${b.data}), and the verdict is ${said}`;
  if (verdict.kind !== "resync") return undefined;
  const [source, target] = verdict.source === "mine" ? [a, b] : [b, a];
  const lost = lackedBy(world, source, target);
  if (lost.length > 0)
    return `${target.disk.controller} has acknowledged ${lost}, and is to be overwritten: ${said}`;
  return verdict.how === "bitmap" ? unmarked(source, target) : undefined;
}

/** Acknowledged writes that are on one disk, and not in what the other has. */
function lackedBy(world: World, lacks: Node, holds: Node): number[] {
  return blocks.flatMap((block) => {
    const contained = lineage(world, lacks.data[block]);
    return ackedIn(world, holds.data[block]).filter((write) => !contained.has(write));
  });
}

/** Every difference has to be in a bitmap, or in the activity log of somebody who was primary. */
function unmarked(source: Node, target: Node): string | undefined {
  const marked =
    (source.disk.base === undefined ? 0 : source.dirtyOnDisk) |
    (target.disk.base === undefined ? 0 : target.dirtyOnDisk) |
    (source.disk.isPrimary ? source.active : 0) |
    (target.disk.isPrimary ? target.active : 0);
  const missed = blocks.filter(
    (block) => source.data[block] !== target.data[block] && !has(marked, block),
  );
  return missed.length === 0
    ? undefined
    : `a resync by the bitmap from ${source.disk.controller} would miss block ${missed}`;
}

/** When nothing more goes wrong, and whatever can happen does: where it ends. Takes the moves in turn, so that none is forgotten. */
export function mend(rules: Rules, world: World, stepsMax = 400): World {
  let next: World = world;
  for (let step = 0; step < stepsMax; step++) {
    const all = fairMoves(rules, next);
    const move = all[step % Math.max(all.length, 1)];
    if (!move) return next;
    next = move[1];
    if (next.violation !== undefined) return next;
  }
  return { ...next, violation: "it comes to no end" };
}
