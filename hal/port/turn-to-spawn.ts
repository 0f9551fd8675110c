/**
 * When a program may be started. To start one takes this thread up to 40 ms when others start too, and far more where processors are wanted by everybody: it waits until the
 * new process has become its program. One in each turn of the event loop: whoever has many to start (a controller that has come back makes one for
 * each of its disks, and one for each file service) would otherwise look, to the beat process, like one that hangs, and its partner would take over.
 */
let lastSpawn: Promise<void> = Promise.resolve();

/** Settles in a turn of its own, in the order of asking. Whoever has asked starts at once then. */
export function turnToSpawn(): Promise<void> {
  lastSpawn = lastSpawn.then(() => new Promise((resolve) => setImmediate(resolve)));
  return lastSpawn;
}
