/**
 * What a replica says of itself on its disk (schema/mirror), in two slots, of which the newer whole one counts. Big-endian:
 *
 *     offset size                                     offset size
 *        0    8  magic "DYADMIR\n"                       64    8  replaced by
 *        8    2  format                                  72    1  ground of going on alone, 0 = never
 *       10    1  controller, 1 = a, 2 = b                73    1  generations in the history
 *       11    1  flags, see below                        74    2  zeros
 *       12    4  epoch                                   76    4  epoch of going on alone
 *       16    8  sequence of the writing                 80    8  generation that the witness granted
 *       24    8  volume id                               88    2  bytes of "who"
 *       32    8  bytes of data                           90    2  bytes of "why"
 *       40    4  granularity, bytes                      92    4  zeros
 *       44    4  zeros                                   96  128  history, 16 × 8, the newest first
 *       48    8  current generation, 0 = none           224   64  who overrode a missing proof, UTF-8
 *       56    8  base of the bitmap, 0 = none           288  256  why, UTF-8
 *                                                       544    8  what the witness granted it for
 *                                                       552 ..    zeros
 *                                                      4092    4  CRC32C of all before it
 *
 *     flags: 1 complete, 2 outdated, 4 primary, 8 sole
 *
 * Obligations. No bytes make a reader throw. Magic, format, sequence and checksum are where they are in every format, so that what a newer
 * firmware wrote is told from damage, and is refused instead of overwritten. Format N reads N and N - 1; there is none before 1 yet.
 *
 * Writing. A change is written twice, with two sequences: into the slot that is not the newest, flush, into the other one, flush. It is done
 * when both have it: were it only in one, a disk that loses that slot later would fall back to what was true before, as if the change
 * had never been (a target that is complete again, a sole one that is not). Reading. Before anything is done under what is read, the newest
 * is written into the other slot as well, and flushed: it may have been read from the cache of a disk that had not kept it yet.
 */
import type { ControllerId } from "../../schema/ids.ts";
import {
  type AloneProof,
  type GenerationId,
  historyMax,
  type ReplicaMetadata,
  replicaMetadataSchema,
  whoBytesMax,
  whyBytesMax,
} from "../../schema/mirror.ts";
import { failed, good, type Outcome } from "../../schema/outcome.ts";
import { checksumOf, seal } from "./block.ts";
import { blockBytes, granularityBytesMax } from "./layout.ts";

/** A slot is written and read as a whole. */
export const superblockBytes = blockBytes;

const formatNow = 1;
const magic = Buffer.from("DYADMIR\n", "latin1");
const at = {
  format: 8,
  controller: 10,
  flags: 11,
  epoch: 12,
  sequence: 16,
  volume: 24,
  dataBytes: 32,
  granularityBytes: 40,
  current: 48,
  base: 56,
  replacedBy: 64,
  ground: 72,
  historyLength: 73,
  groundEpoch: 76,
  granted: 80,
  whoBytes: 88,
  whyBytes: 90,
  history: 96,
  who: 224,
  why: 288,
  grantedNext: 544,
  crc: superblockBytes - 4,
} as const;
const idBytes = 8;
const flag = { isComplete: 1, isOutdated: 2, isPrimary: 4, isSole: 8 } as const;
type Flag = keyof typeof flag;
const flagNames = Object.keys(flag) as Flag[];
const flagsKnown = 15;

/** Grounds by their codes. The word of a partner that may die with it has a code of its own. */
const grounds = ["never", "goodbye", "goodbyeOfLife", "powerOff", "witness", "override"] as const;
type Ground = (typeof grounds)[number];

/** Metadata with the number of their writing. */
export interface Superblock {
  readonly sequence: number;
  readonly metadata: ReplicaMetadata;
}

/** What a slot holds. */
export type SuperblockSlot =
  /** Never written. */
  | { readonly kind: "empty" }
  | ({ readonly kind: "superblock" } & Superblock)
  /** Whole, and not understood: of a newer firmware, for instance. */
  | { readonly kind: "unknown"; readonly sequence: number; readonly reason: string }
  /** Torn, damaged, or something else's. */
  | { readonly kind: "damaged"; readonly reason: string };

/**
 * A slot of 4,096 bytes. "Who" and "why" of an override are cut to what has room, at a character.
 * Fault `badInput`: the metadata are not such as the schema allows.
 */
export function encodeSuperblock({ sequence, metadata }: Superblock): Outcome<Buffer> {
  const no = (reason: string) => failed("badInput", "metadata of a replica", reason);
  const parsed = replicaMetadataSchema.safeParse(metadata);
  if (!parsed.success) return no(parsed.error.message);
  if (!Number.isSafeInteger(sequence) || sequence < 0) return no("no sequence");
  if (metadata.granularityBytes > granularityBytesMax)
    return no(`a granularity of ${metadata.granularityBytes} bytes is more than there is`);
  const slot = Buffer.alloc(superblockBytes);
  magic.copy(slot);
  slot.writeUInt16BE(formatNow, at.format);
  slot.writeUInt8(metadata.controller === "a" ? 1 : 2, at.controller);
  slot.writeUInt8(
    flagNames.reduce((flags, name) => flags | (metadata[name] ? flag[name] : 0), 0),
    at.flags,
  );
  slot.writeUInt32BE(metadata.epoch, at.epoch);
  slot.writeBigUInt64BE(BigInt(sequence), at.sequence);
  slot.writeBigUInt64BE(BigInt(metadata.dataBytes), at.dataBytes);
  slot.writeUInt32BE(metadata.granularityBytes, at.granularityBytes);
  writeId(slot, at.volume, metadata.volume);
  writeId(slot, at.current, metadata.current);
  writeId(slot, at.base, metadata.base);
  writeId(slot, at.replacedBy, metadata.replacedBy);
  slot.writeUInt8(metadata.history.length, at.historyLength);
  for (const [index, id] of metadata.history.entries())
    writeId(slot, at.history + index * idBytes, id);
  if (metadata.continued) writeGround(slot, metadata.continued);
  return good(seal(slot, at.crc));
}

/** What a slot holds. Never throws. */
export function decodeSuperblock(bytes: Uint8Array): SuperblockSlot {
  const slot = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (slot.length !== superblockBytes)
    return { kind: "damaged", reason: `${slot.length} bytes are no slot` };
  if (!slot.subarray(0, magic.length).equals(magic))
    return slot.every((byte) => byte === 0)
      ? { kind: "empty" }
      : { kind: "damaged", reason: "no metadata of a replica" };
  if (slot.readUInt32BE(at.crc) !== checksumOf(slot, at.crc))
    return { kind: "damaged", reason: "torn or damaged" };
  const sequence = Number(slot.readBigUInt64BE(at.sequence));
  const unknown = (reason: string) => ({ kind: "unknown", sequence, reason }) as const;
  const format = slot.readUInt16BE(at.format);
  if (format > formatNow) return unknown(`written by a newer firmware (format ${format})`);
  if (format !== 1) return unknown(`of format ${format}, which this firmware does not read`);
  if (!Number.isSafeInteger(sequence)) return unknown("a sequence beyond 2^53");
  if (slot.readUInt8(at.flags) > flagsKnown) return unknown("flags that this firmware lacks");
  const parsed = replicaMetadataSchema.safeParse(fieldsOf(slot));
  if (parsed.success) return { kind: "superblock", sequence, metadata: parsed.data };
  const [issue] = parsed.error.issues;
  return unknown(`not understood at ${issue?.path.join(".")}: ${issue?.message}`);
}

/**
 * What counts of the two slots; undefined: both are empty, nobody has used this disk.
 * Fault `refused`: the newest is not understood, or what was there is lost; nothing may be written over either.
 */
export function newestSuperblock(
  slots: readonly [SuperblockSlot, SuperblockSlot],
): Outcome<Superblock | undefined> {
  const no = (reason: string) => failed("refused", "metadata of a replica", reason);
  const [first, second] = slots;
  if (first.kind === "empty" && second.kind === "empty") return good(undefined);
  let newest: Extract<SuperblockSlot, { sequence: number }> | undefined;
  for (const slot of slots)
    if ("sequence" in slot && (!newest || slot.sequence > newest.sequence)) newest = slot;
  if (!newest)
    return no(slots.map((slot) => (slot.kind === "damaged" ? slot.reason : "empty")).join(", "));
  if (newest.kind === "unknown") return no(newest.reason);
  return good({ sequence: newest.sequence, metadata: newest.metadata });
}

/** The slot for the writing with this sequence: never the one that holds the last. */
export function slotOf(sequence: number): 0 | 1 {
  return sequence % 2 === 0 ? 0 : 1;
}

function writeGround(
  slot: Buffer,
  { epoch, proof }: NonNullable<ReplicaMetadata["continued"]>,
): void {
  slot.writeUInt8(grounds.indexOf(groundOf(proof)), at.ground);
  slot.writeUInt32BE(epoch, at.groundEpoch);
  if (proof.kind === "witness") {
    writeId(slot, at.granted, proof.generation);
    writeId(slot, at.grantedNext, proof.next);
  }
  if (proof.kind !== "override") return;
  slot.writeUInt16BE(slot.write(proof.who, at.who, whoBytesMax, "utf8"), at.whoBytes);
  slot.writeUInt16BE(slot.write(proof.why, at.why, whyBytesMax, "utf8"), at.whyBytes);
}

function groundOf(proof: AloneProof): Ground {
  if (proof.kind !== "goodbye") return proof.kind;
  return proof.isDurable ? "goodbye" : "goodbyeOfLife";
}

function fieldsOf(slot: Buffer): unknown {
  const flags = slot.readUInt8(at.flags);
  const historyLength = slot.readUInt8(at.historyLength);
  const history = Array.from({ length: Math.min(historyLength, historyMax) }, (_, index) =>
    readId(slot, at.history + index * idBytes),
  );
  const fields: Record<string, unknown> = {
    volume: readId(slot, at.volume),
    controller: controllerOf(slot.readUInt8(at.controller)),
    dataBytes: Number(slot.readBigUInt64BE(at.dataBytes)),
    granularityBytes: slot.readUInt32BE(at.granularityBytes),
    history: historyLength > historyMax ? undefined : history,
    epoch: slot.readUInt32BE(at.epoch),
  };
  for (const name of flagNames) fields[name] = (flags & flag[name]) !== 0;
  for (const name of ["current", "base", "replacedBy"] as const) {
    const id = readId(slot, at[name]);
    if (id !== undefined) fields[name] = id;
  }
  const ground = slot.readUInt8(at.ground);
  if (ground !== 0)
    fields.continued = { epoch: slot.readUInt32BE(at.groundEpoch), proof: proofOf(slot, ground) };
  return fields;
}

function proofOf(slot: Buffer, code: number): unknown {
  const ground = grounds[code];
  switch (ground) {
    case "goodbye":
    case "goodbyeOfLife":
      return { kind: "goodbye", isDurable: ground === "goodbye" };
    case "witness":
      return {
        kind: ground,
        generation: readId(slot, at.granted),
        next: readId(slot, at.grantedNext),
      };
    case "override":
      return {
        kind: ground,
        who: readText(slot, at.who, slot.readUInt16BE(at.whoBytes), whoBytesMax),
        why: readText(slot, at.why, slot.readUInt16BE(at.whyBytes), whyBytesMax),
      };
    default:
      return { kind: ground };
  }
}

/** Undefined when it says that it is longer than there is room: the schema refuses it. */
function readText(slot: Buffer, from: number, bytes: number, bytesMax: number) {
  return bytes > bytesMax ? undefined : slot.toString("utf8", from, from + bytes);
}

function controllerOf(code: number): ControllerId | undefined {
  return code === 1 ? "a" : code === 2 ? "b" : undefined;
}

function writeId(slot: Buffer, offset: number, id: GenerationId | undefined): void {
  if (id !== undefined) slot.write(id, offset, idBytes, "hex");
}

function readId(slot: Buffer, offset: number): GenerationId | undefined {
  const id = slot.toString("hex", offset, offset + idBytes);
  return /[^0]/.test(id) ? id : undefined;
}
