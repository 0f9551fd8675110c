/**
 * A program with process numbers of its own (pid_namespaces(7)). Whatever it starts, however it detaches itself, ends with it: the kernel kills all
 * of them when the first one ends, and tells that end only when all others are gone and have let go of what they held.
 */
import { closeSync, openSync } from "node:fs";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { CLONE_NEWPID, enterNamespace, errorName, unshareNamespace } from "./syscalls.ts";

/**
 * What this synchronous call starts, which has to be one process, is the first of a new namespace. Only children are meant; this thread stays where
 * it is. Fault `refused`.
 */
export function withOwnProcesses<T>(start: () => T): Outcome<T> {
  const home = openSync("/proc/thread-self/ns/pid", "r");
  try {
    const left = unshareNamespace(CLONE_NEWPID);
    if (left < 0) return failed("refused", "unshare process numbers", errorName(left));
    try {
      return good(start());
    } finally {
      // Every other child would be killed with that one, and no thread of ours could be made any more.
      if (enterNamespace(home, CLONE_NEWPID) < 0) process.abort();
    }
  } finally {
    closeSync(home);
  }
}
