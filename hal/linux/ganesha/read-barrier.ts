/**
 * The read barrier: a small C library that ganesha.nfsd is started with, so that a read never shows what a crash could take back
 * (`read-barrier.c`, docs/design/0012-read-barrier.md). Here it is compiled when need be.
 */
import { execFile } from "node:child_process";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { ordinaryCommand } from "./ordinary.ts";

const sourcePath = join(import.meta.dirname, "read-barrier.c");
/** Beside everything else that is built here. */
const libraryPath = join(import.meta.dirname, "../../../work/native/dyad-read-barrier.so");
/** 0.13 s on a quiet machine. */
const compileMsMax = 20_000;

let known: Promise<Outcome<string>> | undefined;

/**
 * The path of the library, compiled first if it is not there or older than its source (needs cc); asked once in a process's life.
 * Faults: `toolMissing`, `ioError`.
 */
export function readBarrier(): Promise<Outcome<string>> {
  known ??= findOrCompile();
  return known;
}

async function findOrCompile(): Promise<Outcome<string>> {
  const operation = `compile ${sourcePath}`;
  // Two controllers may compile at once: each gives its result the name in one step.
  const draft = `${libraryPath}.${process.pid}`;
  try {
    const [source, built] = await Promise.all([modifiedMs(sourcePath), modifiedMs(libraryPath)]);
    if (built !== undefined && (source === undefined || built >= source)) return good(libraryPath);
    await mkdir(dirname(libraryPath), { recursive: true });
    const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"];
    const { program, args } = ordinaryCommand("cc", [...flags, "-o", draft, sourcePath]);
    await promisify(execFile)(program, args, { timeout: compileMsMax });
    await rename(draft, libraryPath);
    return good(libraryPath);
  } catch (error) {
    await rm(draft, { force: true });
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return failed(isMissing ? "toolMissing" : "ioError", operation, "not compiled", error);
  }
}

async function modifiedMs(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined;
  }
}
