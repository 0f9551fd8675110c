/**
 * Starting programs from a process of real-time priority. They must not have it: a file server under SCHED_FIFO could keep the processor from
 * the process that renews the address gate.
 *
 * Nor may a start keep that process waiting, and it does wait, in libuv, until the child has become its program. With the usual flag
 * (SCHED_RESET_ON_FORK) the child is ordinary from its first instruction, and waits in turn for a processor behind every busy file
 * server: 26 to 166 ms for each start with six of them, and the partner of such a controller took over because it "made no progress". So the child
 * keeps the priority until it has become `chrt`, which gives it away and becomes the program: 6 ms (docs/design/0001-processes-and-beats.md).
 */
import { schedulingOf } from "./processes.ts";
import { SCHED_FIFO, SCHED_OTHER, SCHED_RESET_ON_FORK, setScheduler } from "./syscalls.ts";

/**
 * Starts `words` under the ordinary policy, whatever this thread runs under: `start` is given the command line, and returns when its one child has
 * become a program, as all of node:child_process do.
 */
export function startOrdinary<T>(
  words: readonly string[],
  start: (program: string, args: string[]) => T,
): T {
  const [program = "", ...args] = words;
  const { policy, priority } = schedulingOf("thread-self");
  if (policy === SCHED_OTHER) return start(program, args);
  const ordinary = () => start("chrt", ["-o", "0", program, ...args]);
  // Another policy is not ours: whoever has set it has to live with what it does.
  if (policy !== SCHED_FIFO) return ordinary();
  // Refused, it only takes longer.
  setScheduler(0, SCHED_FIFO, priority);
  try {
    return ordinary();
  } finally {
    // Whatever else this thread makes would have the priority for ever.
    if (setScheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, priority) < 0) process.abort();
  }
}
