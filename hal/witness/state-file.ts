/**
 * The durable state of a built-in witness: a directory with one file for all records, replaced as a whole. The file is one line: the
 * SHA-256 of the rest, a blank, and the state as JSON, so that a witness never takes half a state, or a changed one, for its own.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { type WitnessState, witnessStateSchema } from "../../firmware-ts/schema/witness.ts";
import { parseJson } from "./call.ts";
import { lockFile } from "./lock.ts";

/** More than the largest state takes: 64 pairs of 256 volumes, of less than 3 KiB each. */
const stateBytesMax = 64 * 1024 * 1024;

const stateName = "state";
const lockName = "lock";

export interface StateStore {
  /** As it is on the disk. */
  state(): WitnessState;
  /** Returns when it is durable. Throws when that is not certain: the process has to end, and to read again what there is. */
  keep(state: WitnessState): void;
  close(): void;
}

/** Makes the directory and the state of a new witness. Fails with `refused` where there is a state. */
export function createState(directory: string, state: WitnessState): Outcome {
  const operation = `create witness state in ${directory}`;
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    return failed("ioError", operation, "the directory cannot be made", error);
  }
  const lock = lockFile(join(directory, lockName));
  if (!lock.ok) return lock;
  try {
    if (statSync(join(directory, stateName), { throwIfNoEntry: false }) !== undefined)
      return failed("refused", operation, "there is a state already");
    replaceDurably(directory, state);
    return good(undefined);
  } catch (error) {
    return failed("ioError", operation, "the state cannot be written", error);
  } finally {
    lock.value.release();
  }
}

/** Opens the state for one witness at a time. Faults: `refused` (another one runs on it), `badInput` (no state, or unreadable), `ioError`. */
export function openState(directory: string): Outcome<StateStore> {
  // Before the lock, which would make a file in a directory that holds no witness.
  const first = readState(directory);
  if (!first.ok) return first;
  const lock = lockFile(join(directory, lockName));
  if (!lock.ok) return lock;
  const read = readState(directory);
  if (!read.ok) {
    lock.value.release();
    return read;
  }
  let current = read.value;
  return good({
    state: () => current,
    keep(state) {
      replaceDurably(directory, state);
      current = state;
    },
    close: lock.value.release,
  });
}

/** Reads it without the lock: for looking only. Faults as of `openState`. */
export function readState(directory: string): Outcome<WitnessState> {
  const path = join(directory, stateName);
  const operation = `read witness state ${path}`;
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > stateBytesMax)
      return failed("badInput", operation, `${size} bytes are more than a witness keeps`);
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT")
      return failed("ioError", operation, "it cannot be read", error);
    return failed(
      "badInput",
      operation,
      "there is none. For a new witness run: dyad witness init. A witness that had one has lost it: see docs/witness.md",
    );
  }
  const [, sum, json] = /^([0-9a-f]{64}) (.*)\n$/.exec(text) ?? [];
  if (sum === undefined || json === undefined)
    return failed("badInput", operation, "it is cut off, or no state of a witness");
  if (sum !== sumOf(json)) return failed("badInput", operation, "its checksum is wrong");
  const parsed = witnessStateSchema.safeParse(parseJson(json)?.value);
  return parsed.success
    ? good(parsed.data)
    : failed("badInput", operation, "it is not of this release", parsed.error);
}

function sumOf(json: string): string {
  return createHash("sha256").update(json).digest("hex");
}

/** A new file beside the old one, in its place only when it is whole on the disk; then the name, too, has to survive a power cut. */
function replaceDurably(directory: string, state: WitnessState): void {
  const json = JSON.stringify(state);
  writeDurably(join(directory, stateName), `${sumOf(json)} ${json}\n`);
}

/** Writes a file as a whole, with mode 0600, and returns when content and name are durable. Throws when that is not certain. */
export function writeDurably(path: string, text: string): void {
  const draft = `${path}.new`;
  const file = openSync(draft, "w", 0o600);
  try {
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(draft, path);
  const directory = openSync(dirname(path), "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
