/**
 * Free memory of the C library. What is freed between pieces that live on stays with the process: some MB in each process of a
 * controller after a takeover, for ever (docs/design/0015-memory.md).
 */
import koffi from "koffi";

/** A takeover frees in bursts; between two of these moments little comes together. */
const everyMs = 20_000;

/** malloc_trim(3): gives whole pages back to the kernel, from the middle of the heap too. Takes some ms at most. */
const mallocTrim: (keepBytes: number) => number = koffi
  .load("libc.so.6")
  .func("int malloc_trim(size_t pad)");

/** From now on this process gives back what it has freed, regularly. */
export function trimRegularly(): void {
  setInterval(() => mallocTrim(0), everyMs).unref();
}
