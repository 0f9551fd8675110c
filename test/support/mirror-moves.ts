/** Everything that may happen next in a world of two mirrored controllers (mirror-world.ts), one step at a time. */
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import {
  ackedIn,
  type Budget,
  bit,
  blocks,
  breakLeg,
  crash,
  everyBlock,
  has,
  lineage,
  markUnconfirmed,
  type Node,
  onNode,
  overwrite,
  type Rules,
  tell,
  violated,
  type World,
} from "./mirror-world.ts";

/** What happens, and the world after it. */
export type Move = readonly [string, World];

const who = ["a", "b"] as const;

export function moves(rules: Rules, world: World): Move[] {
  const all: Move[] = [];
  for (const me of who) all.push(...ofNode(rules, world, me));
  all.push(...ofLink(rules, world));
  return all;
}

/** The world after these moves, each of which is possible when its turn comes. */
export function follow(rules: Rules, world: World, labels: readonly string[]): World {
  return labels.reduce((next, label) => {
    const move = moves(rules, next).find(([each]) => each === label);
    if (!move) throw new Error(`"${label}" cannot happen`);
    return move[1];
  }, world);
}

/** What a healthy world does by itself: no mishap, no new write, no order. */
export function fairMoves(rules: Rules, world: World): Move[] {
  const all: Move[] = [];
  for (const me of who) {
    const node = world.nodes[me];
    if (!node.isUp) all.push([`${me} boots`, boot(rules, world, me)]);
    else all.push(...ownSteps(rules, world, me));
  }
  if (world.contact === undefined && who.every((me) => world.nodes[me].isUp))
    all.push(["met", meet(rules, world)]);
  for (const me of who) all.push(...hearing(rules, world, me));
  return all;
}

function spend(world: World, key: keyof Budget): World {
  return { ...world, left: { ...world.left, [key]: world.left[key] - 1 } };
}

function ofNode(rules: Rules, world: World, me: ControllerId): Move[] {
  const node = world.nodes[me];
  if (!node.isUp) return [[`${me} boots`, boot(rules, world, me)]];
  const all = ownSteps(rules, world, me);
  all.push(
    ...hearing(rules, world, me),
    ...arbitration(rules, world, me),
    ...orders(rules, world, me),
  );
  if (world.left.crashes > 0) all.push([`${me} crashes`, crash(spend(world, "crashes"), me)]);
  if (world.left.writes > 0 && !node.inflight) all.push(...issue(world, me));
  return all;
}

function boot(rules: Rules, world: World, me: ControllerId): World {
  const up = onNode(world, me, { isUp: true });
  return tell(rules, up, me, { kind: "booted", metadata: world.nodes[me].disk });
}

/** What is under way at one controller goes on by a step. */
function ownSteps(rules: Rules, world: World, me: ControllerId): Move[] {
  const node = world.nodes[me];
  const all: Move[] = [];
  if (node.persisting) all.push([`${me} persists`, persist(rules, world, me, node)]);
  if (node.leg === "broken") {
    const lost = markUnconfirmed(onNode(world, me, { leg: "none", isFetching: undefined }), me);
    const event = { kind: "legLost", task: node.legTask ?? 0, reason: "cut" } as const;
    all.push([`${me} loses its leg`, tell(rules, lost, me, event)]);
  }
  if (node.isFetching && node.leg === "good")
    all.push([`${me} fetches`, fetchMarks(rules, world, me)]);
  if (node.hasToRetry) {
    const due = onNode(world, me, { hasToRetry: false });
    all.push([`${me} tries again`, tell(rules, due, me, { kind: "retryDue" })]);
  }
  if (node.granted) {
    const { ask, proof } = node.granted;
    const told = onNode(world, me, { granted: undefined, asking: undefined });
    all.push([
      `${me} hears ${proof.kind}`,
      tell(rules, told, me, { kind: "proofArrived", ask, proof }),
    ]);
  }
  if (node.inflight) all.push(...carry(rules, world, me, node));
  all.push(...copying(rules, world, me, node));
  return all;
}

/** Bits first, then the metadata. A log that does not count any more is emptied behind them. */
function persist(rules: Rules, world: World, me: ControllerId, node: Node): World {
  const { persisting } = node;
  if (!persisting) return world;
  const { metadata, merge } = persisting;
  let dirty = node.dirty;
  if (merge.includes("all")) dirty = everyBlock;
  if (merge.includes("ownActivity")) dirty |= node.active;
  if (dirty !== node.dirtyOnDisk || dirty !== node.dirty)
    return onNode(world, me, { dirty, dirtyOnDisk: dirty, persisting: { metadata, merge: [] } });
  const hasYielded = metadata.replacedBy !== undefined && node.disk.isComplete;
  const before = hasYielded && world.isUnsound ? giveUp(world, me) : world;
  const active = metadata.isPrimary ? node.active : 0;
  const isSettled = metadata.base === undefined && metadata.isComplete;
  const clean = isSettled ? { dirty: 0, dirtyOnDisk: 0 } : {};
  const written = onNode(before, me, {
    disk: metadata,
    persisting: undefined,
    active,
    ...clean,
  });
  return tell(rules, written, me, { kind: "persisted", ok: true });
}

/** An operator decided: what only this copy had need not be anywhere any more. */
function giveUp(world: World, me: ControllerId): World {
  const lost = blocks.flatMap((block) => {
    const kept = lineage(world, world.nodes[partnerOf(me)].data[block]);
    return ackedIn(world, world.nodes[me].data[block]).filter((write) => !kept.has(write));
  });
  return { ...world, givenUp: [...world.givenUp, ...lost].toSorted() };
}

function fetchMarks(rules: Rules, world: World, me: ControllerId): World {
  const { isFetching, dirty } = world.nodes[me];
  const theirs = world.nodes[partnerOf(me)];
  const marks =
    (isFetching?.activity ? theirs.active : 0) | (isFetching?.bitmap ? theirs.dirtyOnDisk : 0);
  const fetched = onNode(world, me, { isFetching: undefined, dirty: dirty | marks });
  return tell(rules, fetched, me, { kind: "marksFetched", task: isFetching?.task ?? 0 });
}

/** A write begins: its extent is in the log, durably, before. */
function issue(world: World, me: ControllerId): Move[] {
  const node = world.nodes[me];
  const { writes } = node.state;
  if (writes !== "both" && writes !== "alone") return [];
  return blocks.map((block) => {
    const write = world.writes.length + 1;
    const next = onNode(spend(world, "writes"), me, {
      active: node.active | bit(block),
      inflight: { block, write, hasLocal: false, hasRemote: false },
    });
    const parent = node.data[block];
    return [`${me} writes ${write}`, { ...next, writes: [...world.writes, { block, parent }] }];
  });
}

/** A write goes on by a step: to either disk, or to its acknowledgement. */
function carry(rules: Rules, world: World, me: ControllerId, node: Node): Move[] {
  const { inflight } = node;
  if (!inflight) return [];
  const { block, write } = inflight;
  const all: Move[] = [];
  if (!inflight.hasLocal) {
    const next = onNode(world, me, { inflight: { ...inflight, hasLocal: true } });
    all.push([`${me} has ${write}`, overwrite(next, me, block, write)]);
  }
  const { writes } = node.state;
  if (!inflight.hasRemote && node.leg === "good" && writes !== "held") {
    const next = onNode(world, me, { inflight: { ...inflight, hasRemote: true } });
    all.push([`${partnerOf(me)} gets ${write}`, overwrite(next, partnerOf(me), block, write)]);
  }
  if (inflight.hasLocal && writes === "both" && inflight.hasRemote && node.leg === "good")
    all.push([`${me} acknowledges ${write}`, acknowledge(world, me, write)]);
  if (inflight.hasLocal && writes === "alone") {
    const isBoth = inflight.hasRemote && node.leg === "good";
    const dirty = isBoth || rules.forgetsBit ? node.dirty : node.dirty | bit(block);
    all.push([
      `${me} acknowledges ${write} alone`,
      acknowledge(onNode(world, me, { dirty }), me, write),
    ]);
  }
  return all;
}

/**
 * In sound histories whoever acknowledges has everything that was ever acknowledged. The log forgets the extent at once, as early as it may:
 * behind its bit.
 */
function acknowledge(world: World, me: ControllerId, write: number): World {
  const node = world.nodes[me];
  const next = onNode({ ...world, acked: [...world.acked, write] }, me, {
    inflight: undefined,
    active: node.inflight ? node.active & ~bit(node.inflight.block) : node.active,
    dirtyOnDisk: node.dirtyOnDisk | node.dirty,
  });
  if (world.isUnsound) return next;
  const contained = new Set(blocks.flatMap((block) => [...lineage(world, node.data[block])]));
  const lacking = world.acked.filter((each) => !contained.has(each));
  return lacking.length === 0
    ? next
    : violated(next, `${me} acknowledges ${write} and lacks the acknowledged ${lacking}`);
}

/** The resync, and the log and the bitmap of a quiet data plane. */
function copying(rules: Rules, world: World, me: ControllerId, node: Node): Move[] {
  const { sync } = node.state;
  if (sync?.side !== "source" || sync.at !== "copying" || node.leg !== "good") return [];
  if (node.dirty === 0) {
    const event = { kind: "resyncCopied", task: node.copyTask ?? 0 } as const;
    return node.inflight ? [] : [[`${me} has copied`, tell(rules, world, me, event)]];
  }
  return blocks.flatMap((block): Move[] => {
    if (!has(node.dirty, block) || node.inflight?.block === block) return [];
    const mask = everyBlock & ~bit(block);
    const cleared = onNode(world, me, {
      dirty: node.dirty & mask,
      dirtyOnDisk: node.dirtyOnDisk & mask,
    });
    if (rules.clearsEarly) return [[`${me} reads ${block}`, cleared]];
    return [[`${me} copies ${block}`, overwrite(cleared, partnerOf(me), block, node.data[block])]];
  });
}

function hearing(rules: Rules, world: World, me: ControllerId): Move[] {
  const node = world.nodes[me];
  const all: Move[] = [];
  const [first, ...rest] = world.words[me];
  if (first) {
    const [contact, word] = first;
    const heard = { ...world, words: { ...world.words, [me]: rest } };
    const event = { kind: "told", contact: `c${contact}`, word } as const;
    all.push([`${me} hears ${word.kind}`, tell(rules, heard, me, event)]);
  }
  const { contact } = node.state;
  if (contact && contact.id !== `c${world.contact}`) {
    const silent = { ...world, words: { ...world.words, [me]: [] } };
    all.push([`${me} parts`, tell(rules, silent, me, { kind: "parted", contact: contact.id })]);
  }
  return all;
}

/** The witness, or the switch. An answer may be lost; it is asked again. */
function arbitration(rules: Rules, world: World, me: ControllerId): Move[] {
  const { asking, granted, state } = world.nodes[me];
  if (!asking || granted || state.asking?.ask !== asking.ask) return [];
  const { ask, generation, next } = asking;
  if (state.arbiter === "powerOff") {
    const off = crash(world, partnerOf(me));
    return [
      [`${me} cuts the power`, onNode(off, me, { granted: { ask, proof: { kind: "powerOff" } } })],
    ];
  }
  const holder = world.witness[generation];
  if (holder !== undefined && holder !== me && !rules.hasTwoFaces) return [];
  const proof = { kind: "witness", generation, next } as const;
  const decided = { ...world, witness: { ...world.witness, [generation]: me } };
  const answered: Move = ["the witness answers", onNode(decided, me, { granted: { ask, proof } })];
  return holder === undefined ? [answered, [`the answer to ${me} is lost`, decided]] : [answered];
}

function orders(rules: Rules, world: World, me: ControllerId): Move[] {
  const { state, disk } = world.nodes[me];
  const { left } = world;
  const all: Move[] = [];
  if (left.promotions > 0 && state.wanted === "secondary" && !state.isLeaving) {
    const event = { kind: "promoteAsked", epoch: disk.epoch } as const;
    all.push([`${me} is promoted`, tell(rules, spend(world, "promotions"), me, event)]);
  }
  if (left.demotions > 0 && state.wanted === "primary")
    all.push([
      `${me} is demoted`,
      tell(rules, spend(world, "demotions"), me, { kind: "demoteAsked" }),
    ]);
  if (left.leaves > 0 && !state.isLeaving)
    all.push([`${me} leaves`, tell(rules, spend(world, "leaves"), me, { kind: "leaveAsked" })]);
  if (left.overrides > 0) {
    const event = { kind: "overrideAsked", epoch: disk.epoch, who: "o", why: "w" } as const;
    const unsound = { ...spend(world, "overrides"), isUnsound: true };
    all.push([`${me} is overridden`, tell(rules, unsound, me, event)]);
  }
  if (left.resolutions > 0 && state.contact?.heard && state.role === "secondary") {
    const resolution = { way: "keepTheirs", who: "o", why: "w" } as const;
    const event = { kind: "resolveAsked", resolution } as const;
    all.push([`${me} yields`, tell(rules, spend(world, "resolutions"), me, event)]);
  }
  return all;
}

function meet(rules: Rules, world: World): World {
  const contact = world.contacts + 1;
  let next: World = { ...world, contact, contacts: contact, words: { a: [], b: [] } };
  for (const me of who) next = tell(rules, next, me, { kind: "met", contact: `c${contact}` });
  return next;
}

function ofLink(rules: Rules, world: World): Move[] {
  const { left, contact } = world;
  const isUp = who.every((me) => world.nodes[me].isUp);
  if (contact === undefined)
    return isUp && left.contacts > 0 ? [["met", meet(rules, spend(world, "contacts"))]] : [];
  if (left.cuts === 0) return [];
  const cut = { ...spend(world, "cuts"), contact: undefined };
  return [["cut", who.reduce(breakLeg, cut as World)]];
}
