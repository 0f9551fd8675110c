/**
 * Two controllers with a mirrored volume of two blocks, as a value: the production decisions (core/mirror/volume) on both sides, and around
 * them as little of disks, data planes, wires and a witness as decides what can go wrong. What it adds is what nobody has in reality: the
 * ancestry of each block's content, and which writes were acknowledged.
 *
 * A write is a number; 0 is what was there before. Its parent is the content that it replaced where it was issued. So a content contains
 * a write if that is itself or one of its ancestors.
 */
import { firstReplica, freshReplica } from "../../firmware-ts/core/mirror/generations.ts";
import { mirrorStep } from "../../firmware-ts/core/mirror/volume.ts";
import { startMirror } from "../../firmware-ts/core/mirror/volume-state.ts";
import type {
  Merge,
  MirrorEffect,
  MirrorEvent,
  MirrorState,
  MirrorStep,
  Question,
  Word,
} from "../../firmware-ts/core/mirror/volume-types.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type {
  AloneProof,
  Arbiter,
  GenerationId,
  ReplicaMetadata,
} from "../../firmware-ts/schema/mirror.ts";

export const blocks = [0, 1] as const;
export type Block = (typeof blocks)[number];
export const everyBlock = 0b11;
export const bit = (block: Block) => 1 << block;
export const has = (mask: number, block: Block) => (mask & bit(block)) !== 0;

/** A write that a data plane works on. Each block is an extent of the activity log, and a bit of the bitmap. */
export interface Inflight {
  readonly block: Block;
  readonly write: number;
  readonly hasLocal: boolean;
  readonly hasRemote: boolean;
}

export interface Node {
  readonly isUp: boolean;
  readonly state: MirrorState;
  // What is on the disk, and survives.
  readonly disk: ReplicaMetadata;
  readonly data: readonly [number, number];
  readonly dirtyOnDisk: number;
  readonly active: number;
  // What a crash ends.
  readonly dirty: number;
  readonly persisting?: { metadata: ReplicaMetadata; merge: readonly Merge[] } | undefined;
  /** Our connection to the partner's replica: `broken` until we notice. */
  readonly leg: "none" | "good" | "broken";
  readonly legTask?: number;
  readonly copyTask?: number;
  readonly hasToRetry?: boolean;
  readonly isFetching?: { activity: boolean; bitmap: boolean; task: number } | undefined;
  readonly asking?: Question | undefined;
  readonly granted?: { ask: number; proof: AloneProof } | undefined;
  readonly inflight?: Inflight | undefined;
}

/** What is left of what may happen. */
export interface Budget {
  readonly writes: number;
  readonly contacts: number;
  readonly cuts: number;
  readonly crashes: number;
  readonly promotions: number;
  readonly demotions: number;
  readonly leaves: number;
  readonly overrides: number;
  readonly resolutions: number;
}

export interface World {
  readonly nodes: Readonly<Record<ControllerId, Node>>;
  /** The link, up under this contact. */
  readonly contact?: number | undefined;
  /** How many contacts there have been. */
  readonly contacts: number;
  /** Words on their way, by receiver, with the contact that they were said in. */
  readonly words: Readonly<Record<ControllerId, readonly (readonly [number, Word])[]>>;
  readonly witness: Readonly<Record<GenerationId, ControllerId>>;
  /** Block and parent of write n at n - 1. */
  readonly writes: readonly { readonly block: Block; readonly parent: number }[];
  readonly acked: readonly number[];
  /** Acknowledged writes that an operator gave up when two histories had diverged. */
  readonly givenUp: readonly number[];
  /** A proof was overridden: from here on histories may diverge, but never merge. */
  readonly isUnsound: boolean;
  readonly generations: number;
  readonly left: Budget;
  readonly violation?: string | undefined;
}

export type Stepper = typeof mirrorStep;

export interface Rules {
  readonly step: Stepper;
  /** A bit is cleared when its block is read for a copy, not when the copy is durable. */
  readonly clearsEarly?: boolean;
  /** A degraded write is acknowledged without its bit. */
  readonly forgetsBit?: boolean;
  /** The witness says yes to everybody. */
  readonly hasTwoFaces?: boolean;
}

export const production: Rules = { step: mirrorStep };

const generationId = (number: number) => number.toString(16).padStart(16, "0");
const volume = "00000000000000aa";

function newNode(me: ControllerId, arbiter: Arbiter, disk: ReplicaMetadata): Node {
  const data = [0, 0] as const;
  const state = startMirror(me, arbiter);
  return { isUp: false, state, disk, data, dirtyOnDisk: 0, active: 0, dirty: 0, leg: "none" };
}

/** Both are off, with the same data; or b's disk is new. */
export function newWorld(arbiter: Arbiter, left: Budget, isFresh = false): World {
  const shape = { volume, dataBytes: 2 ** 23, granularityBytes: 2 ** 16 };
  const first = firstReplica(freshReplica({ ...shape, controller: "a" }), generationId(1));
  if (!first.ok) throw new Error(first.fault.message);
  const a = { ...first.value, isSole: isFresh };
  const b = isFresh
    ? freshReplica({ ...shape, controller: "b" })
    : ({ ...a, controller: "b" } as const);
  return {
    nodes: { a: newNode("a", arbiter, a), b: newNode("b", arbiter, b) },
    contacts: 0,
    words: { a: [], b: [] },
    witness: {},
    writes: [],
    acked: [],
    givenUp: [],
    isUnsound: false,
    generations: 1,
    left,
  };
}

/** The content and what it replaced, back to what was there before. */
export function lineage(world: World, content: number): ReadonlySet<number> {
  const seen = new Set<number>();
  for (let at = content; at !== 0; at = world.writes[at - 1]?.parent ?? 0) seen.add(at);
  return seen;
}

/** Acknowledged writes that count, and that this content contains. */
export function ackedIn(world: World, content: number): readonly number[] {
  const contained = lineage(world, content);
  return world.acked.filter((write) => contained.has(write) && !world.givenUp.includes(write));
}

export function onNode(world: World, who: ControllerId, change: Partial<Node>): World {
  return {
    ...world,
    nodes: { ...world.nodes, [who]: { ...world.nodes[who], ...change } },
  };
}

export function violated(world: World, violation: string): World {
  return world.violation === undefined ? { ...world, violation } : world;
}

/** A block of a disk is overwritten: no acknowledged write may be in what goes that is not in what comes. */
export function overwrite(world: World, who: ControllerId, block: Block, content: number): World {
  const node = world.nodes[who];
  const comes = lineage(world, content);
  const lost = ackedIn(world, node.data[block]).filter((write) => !comes.has(write));
  const data = node.data.map((was, at) => (at === block ? content : was)) as [number, number];
  const next = onNode(world, who, { data });
  return lost.length === 0
    ? next
    : violated(
        next,
        `acknowledged write ${lost} was overwritten by the older ${content} at ${who}`,
      );
}

/** Tells a controller something, and takes note of what it wants done. */
export function tell(rules: Rules, world: World, who: ControllerId, event: MirrorEvent): World {
  const node = world.nodes[who];
  if (!node.isUp) return world;
  const fresh = generationId(world.generations + 1);
  let step: MirrorStep;
  try {
    step = rules.step(node.state, event, fresh);
  } catch (error) {
    return violated(world, `${who} at ${event.kind}: ${String(error)}`);
  }
  const [state, effects] = step;
  const isUsed = JSON.stringify(step).includes(fresh);
  const generations = world.generations + (isUsed ? 1 : 0);
  let next = onNode({ ...world, generations }, who, { state });
  for (const effect of effects) next = perform(rules, next, who, effect);
  return next;
}

/**
 * Effects whose outcome depends on nobody else's timing are done at once: ending the partner's access, opening a leg, ending what is in flight. What
 * takes time, and may be interrupted, is noted.
 */
function perform(rules: Rules, world: World, who: ControllerId, effect: MirrorEffect): World {
  switch (effect.kind) {
    case "persist":
      return onNode(world, who, { persisting: { metadata: effect.metadata, merge: effect.merge } });
    case "refuseAccess":
      return tell(rules, breakLeg(world, partnerOf(who)), who, { kind: "fenced" });
    case "openLeg":
      return openLeg(rules, world, who, effect);
    case "closeLeg":
      return onNode(world, who, { leg: "none", isFetching: undefined });
    case "retryLater":
      return onNode(world, who, { hasToRetry: true });
    case "drainWrites":
      return drain(rules, world, who, effect.task);
    case "startResync":
      return onNode(world, who, { copyTask: effect.task });
    case "fetchMarks":
      return onNode(world, who, { isFetching: effect });
    case "askProof":
      return onNode(world, who, { asking: effect });
    case "dropQuestion":
      return onNode(world, who, { asking: undefined, granted: undefined });
    case "tell": {
      const { contact } = world;
      const to = partnerOf(who);
      if (contact === undefined || effect.contact !== `c${contact}`) return world;
      const line = [...world.words[to], [contact, effect.word] as const];
      return { ...world, words: { ...world.words, [to]: line } };
    }
    default:
      return world; // the state says the same, and the data plane of this world looks there
  }
}

export function breakLeg(world: World, who: ControllerId): World {
  return world.nodes[who].leg === "good" ? onNode(world, who, { leg: "broken" }) : world;
}

function openLeg(
  rules: Rules,
  world: World,
  who: ControllerId,
  { task, generation }: Extract<MirrorEffect, { kind: "openLeg" }>,
): World {
  const { isUp, state } = world.nodes[partnerOf(who)];
  if (world.contact === undefined || !isUp)
    return tell(rules, world, who, { kind: "legLost", task, reason: "no way" });
  if (state.access !== "open" || state.accessFor !== generation)
    return tell(rules, world, who, { kind: "legRefused", task, reason: "not let in" });
  const open = onNode(world, who, { leg: "good", legTask: task });
  return tell(rules, open, who, { kind: "legOpened", task });
}

/** What can be ended in the last mode is; what cannot is failed. */
function drain(rules: Rules, world: World, who: ControllerId, task: number): World {
  const { inflight } = world.nodes[who];
  const next = onNode(world, who, { inflight: undefined });
  return tell(rules, next, who, { kind: "drained", task, isClean: inflight === undefined });
}

/** Everything that a crash ends. Words that were said are on their way. */
export function crash(world: World, who: ControllerId): World {
  const { disk, data, dirtyOnDisk, active, state } = world.nodes[who];
  const dead: Node = {
    ...newNode(who, state.arbiter, disk),
    data,
    dirtyOnDisk,
    dirty: dirtyOnDisk,
    active,
  };
  const nodes = { ...world.nodes, [who]: dead };
  const words = { ...world.words, [who]: [] };
  return breakLeg({ ...world, nodes, words, contact: undefined }, partnerOf(who));
}

/** A remote leg is lost: what it has not confirmed is dirty. */
export function markUnconfirmed(world: World, who: ControllerId): World {
  const { inflight, dirty } = world.nodes[who];
  if (!inflight) return world;
  return onNode(world, who, {
    dirty: dirty | bit(inflight.block),
    inflight: { ...inflight, hasRemote: false },
  });
}
