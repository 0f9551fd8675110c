/**
 * Memory that nobody uses any more. What the C library has freed between pieces that live on stays with the process, and V8 collects old
 * objects only when they have grown by 8 MB: after a takeover some MB of each in each process of a controller, for ever
 * (docs/design/0015-memory.md). It lies here because the block service, which has the most of it, may import nothing from elsewhere.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import koffi from "koffi";

/** A takeover frees in bursts; between two of these moments little comes together. */
const everyMs = 10_000;

/** malloc_trim(3): gives whole pages back to the kernel, from the middle of the heap too. Takes some tenths of a millisecond. */
const mallocTrim: (keepBytes: number) => number = koffi
  .load("libc.so.6")
  .func("int malloc_trim(size_t pad)");

/**
 * From now on this process gives back what it has freed, regularly. With `collect` it looks for garbage first, which takes some ms: not for
 * a process whose every tick counts.
 */
export function giveBackRegularly({ collect }: { readonly collect: boolean }): void {
  const collector = collect ? garbageCollector() : () => undefined;
  setInterval(() => {
    collector();
    mallocTrim(0);
  }, everyMs).unref();
}

function garbageCollector(): () => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
}
