/**
 * Commands that touch logical blocks (SBC-3 clause 5): checking them, and carrying them out on a medium.
 *
 * Glossary: a *plan* is a checked command: the bytes it may touch and whether it writes, which is what the task
 * set needs to keep conflicting commands apart (so that COMPARE AND WRITE is atomic, SBC-3 5.2).
 *
 * Obligations: `check` looks at the command alone; nothing touches the medium before `perform`.
 */
import { Asc, SenseKey, Status } from "../../../firmware-ts/wire/scsi/codes.ts";
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import { type BlockRange, decodeUnmap } from "../../../firmware-ts/wire/scsi/parameters.ts";
import {
  COMPARE_AND_WRITE_BLOCKS_MAX,
  type Identity,
  TRANSFER_BYTES_MAX,
  UNMAP_DESCRIPTORS_MAX,
  ZERO_BYTES_MAX,
} from "./identity.ts";
import type { Medium, MediumError } from "./medium.ts";
import {
  checkCondition,
  good,
  illegalRequest,
  invalidField,
  type Result,
  withData,
} from "./result.ts";

export type BlockCommand = Extract<Command, { readonly lba: number } | { readonly name: "unmap" }>;

export const isBlockCommand = (command: Command): command is BlockCommand =>
  "lba" in command || command.name === "unmap";

const outOfRange = (lba: number): Result =>
  checkCondition(SenseKey.illegalRequest, Asc.lbaOutOfRange, Math.min(lba, 0xffff_ffff));

/** LOGICAL BLOCK ADDRESS OUT OF RANGE also for no blocks at an address beyond the end (SBC-3 4.5). */
const checkRange = ({ lba, blocks }: BlockRange, identity: Identity): Result | null =>
  lba > identity.blocks || lba + blocks > identity.blocks ? outOfRange(lba) : null;

const checkProtect = (command: BlockCommand): boolean =>
  !("protect" in command) || command.protect === 0;

/** Checks fields, limits and range; null when the command may run. */
export const check = (command: BlockCommand, identity: Identity): Result | null => {
  // The disk is formatted without protection information (SBC-3 4.22).
  if (!checkProtect(command)) return invalidField;
  if (command.name === "unmap") return command.anchor ? invalidField : null;
  const outside = checkRange(command, identity);
  if (outside !== null) return outside;
  const bytes = command.blocks * identity.blockBytes;
  switch (command.name) {
    case "read":
    case "write":
      return bytes > TRANSFER_BYTES_MAX ? invalidField : null;
    case "verify":
      // BYTCHK 10b is reserved (SBC-3 5.29).
      if (command.byteCheck === 2) return invalidField;
      return command.byteCheck !== 0 && bytes > TRANSFER_BYTES_MAX ? invalidField : null;
    case "compareAndWrite":
      return command.blocks > COMPARE_AND_WRITE_BLOCKS_MAX ? invalidField : null;
    case "writeSame":
      // WSNZ: zero blocks does not mean "to the end" here (SBC-3 6.5.3).
      if (command.blocks === 0 || bytes > ZERO_BYTES_MAX) return invalidField;
      return command.anchor || (command.noData && !command.unmap) ? invalidField : null;
    default:
      return null;
  }
};

/** Bytes from `start` to `end`, exclusive. */
export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly writes: boolean;
}

const unmapRanges = (data: Buffer, identity: Identity): readonly BlockRange[] | Result => {
  const list = decodeUnmap(data);
  if (!list.ok) return illegalRequest(Asc.parameterListLength);
  if (list.value.length > UNMAP_DESCRIPTORS_MAX) {
    return illegalRequest(Asc.invalidFieldInParameterList);
  }
  let blocks = 0;
  for (const range of list.value) {
    const outside = checkRange(range, identity);
    if (outside !== null) return outside;
    blocks += range.blocks;
  }
  return blocks * identity.blockBytes > ZERO_BYTES_MAX
    ? illegalRequest(Asc.invalidFieldInParameterList)
    : list.value;
};

const isResult = (value: readonly BlockRange[] | Result): value is Result => "status" in value;

/** The bytes a command with all its data may touch. An UNMAP takes the hull of its ranges. */
export const extentOf = (command: BlockCommand, data: Buffer, identity: Identity): Extent => {
  const { blockBytes } = identity;
  if (command.name === "unmap") {
    const ranges = unmapRanges(data, identity);
    if (isResult(ranges) || ranges.length === 0) return { start: 0, end: 0, writes: true };
    return {
      start: Math.min(...ranges.map(({ lba }) => lba)) * blockBytes,
      end: Math.max(...ranges.map(({ lba, blocks }) => lba + blocks)) * blockBytes,
      writes: true,
    };
  }
  // A flush covers writes that have completed; it need not wait for its turn among ranges.
  const touches = command.name !== "synchronizeCache" && command.name !== "prefetch";
  const start = command.lba * blockBytes;
  return {
    start,
    end: touches ? start + command.blocks * blockBytes : start,
    writes: touches && command.name !== "read" && command.name !== "verify",
  };
};

type Finish = (result: Result) => void;

const readError = checkCondition(SenseKey.mediumError, Asc.unrecoveredReadError);
const writeError = checkCondition(SenseKey.mediumError, Asc.writeError);

const afterRead = (finish: Finish, next: () => void) => (error: MediumError) => {
  if (error === null) next();
  else finish(readError);
};

const afterWrite =
  (finish: Finish, next: () => void = () => finish(good)) =>
  (error: MediumError) => {
    if (error === null) next();
    else finish(writeError);
  };

/** FUA: the data is on stable storage before the status is sent (SBC-3 4.15). */
const written = (medium: Medium, fua: boolean, finish: Finish) =>
  afterWrite(finish, () => {
    if (fua) medium.flush(afterWrite(finish));
    else finish(good);
  });

const firstDifference = (first: Buffer, second: Buffer): number | null => {
  if (first.equals(second)) return null;
  return first.findIndex((byte, index) => byte !== second[index]);
};

const miscompare = (offset: number): Result =>
  checkCondition(SenseKey.miscompare, Asc.miscompareDuringVerify, offset);

const compareAndWrite = (
  command: Extract<BlockCommand, { name: "compareAndWrite" }>,
  data: Buffer,
  offset: number,
  medium: Medium,
  finish: Finish,
) => {
  const half = data.length / 2;
  const present = Buffer.allocUnsafe(half);
  medium.read(
    offset,
    present,
    afterRead(finish, () => {
      const difference = firstDifference(present, data.subarray(0, half));
      if (difference === null) {
        medium.write(offset, data.subarray(half), written(medium, command.fua, finish));
      } else {
        finish(miscompare(difference));
      }
    }),
  );
};

const PATTERN_BYTES = 1024 * 1024;

/** Writes one block over and over, in pieces of about a mebibyte. */
const fill = (
  block: Buffer,
  offset: number,
  bytes: number,
  medium: Medium,
  finish: Finish,
): void => {
  const step = Math.min(bytes, PATTERN_BYTES);
  const pattern = Buffer.alloc(step, block);
  const advance = (at: number): void => {
    if (at === bytes) {
      finish(good);
      return;
    }
    const piece = pattern.subarray(0, Math.min(step, bytes - at));
    medium.write(
      offset + at,
      piece,
      afterWrite(finish, () => advance(at + piece.length)),
    );
  };
  advance(0);
};

const writeSame = (
  command: Extract<BlockCommand, { name: "writeSame" }>,
  block: Buffer,
  identity: Identity,
  medium: Medium,
  finish: Finish,
) => {
  const offset = command.lba * identity.blockBytes;
  const bytes = command.blocks * identity.blockBytes;
  // Unmapped blocks read as zeros here (LBPRZ), so zeros may be unmapped and nothing else (SBC-3 5.42).
  if (command.noData || block.every((byte) => byte === 0)) {
    medium.zero(offset, bytes, afterWrite(finish));
  } else {
    fill(block, offset, bytes, medium, finish);
  }
};

const unmap = (data: Buffer, identity: Identity, medium: Medium, finish: Finish) => {
  // SBC-3 5.28: a list of no length is no error.
  const ranges = data.length === 0 ? [] : unmapRanges(data, identity);
  if (isResult(ranges)) {
    finish(ranges);
    return;
  }
  const advance = (index: number): void => {
    const range = ranges[index];
    if (range === undefined) {
      finish(good);
      return;
    }
    const bytes = range.blocks * identity.blockBytes;
    const next = afterWrite(finish, () => advance(index + 1));
    medium.zero(range.lba * identity.blockBytes, bytes, next);
  };
  advance(0);
};

const verify = (
  command: Extract<BlockCommand, { name: "verify" }>,
  data: Buffer,
  identity: Identity,
  medium: Medium,
  finish: Finish,
) => {
  if (command.byteCheck === 0 || command.blocks === 0) {
    finish(good);
    return;
  }
  const bytes = command.blocks * identity.blockBytes;
  const expected = command.byteCheck === 1 ? data : Buffer.alloc(bytes, data);
  const present = Buffer.allocUnsafe(bytes);
  medium.read(
    command.lba * identity.blockBytes,
    present,
    afterRead(finish, () => {
      const difference = firstDifference(present, expected);
      finish(difference === null ? good : miscompare(difference));
    }),
  );
};

/** Carries out a checked command. Calls `finish` once, when nothing of it can happen any more. */
export const perform = (
  command: BlockCommand,
  data: Buffer,
  identity: Identity,
  medium: Medium,
  finish: Finish,
): void => {
  switch (command.name) {
    case "read": {
      const target = Buffer.allocUnsafe(command.blocks * identity.blockBytes);
      const next = afterRead(finish, () => finish(withData(target)));
      medium.read(command.lba * identity.blockBytes, target, next);
      return;
    }
    case "write":
      medium.write(command.lba * identity.blockBytes, data, written(medium, command.fua, finish));
      return;
    case "compareAndWrite":
      compareAndWrite(command, data, command.lba * identity.blockBytes, medium, finish);
      return;
    case "writeSame":
      writeSame(command, data, identity, medium, finish);
      return;
    case "unmap":
      unmap(data, identity, medium, finish);
      return;
    case "verify":
      verify(command, data, identity, medium, finish);
      return;
    case "synchronizeCache":
      medium.flush(afterWrite(finish));
      return;
    case "prefetch":
      // The medium has no cache of its own to fill, so the blocks are where they would be (SBC-3 5.8).
      finish({ status: Status.conditionMet });
  }
};
