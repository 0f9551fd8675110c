/**
 * When a program may be started. To start one takes this thread 6 ms at best (the kernel copies the tables of its memory) and far longer where
 * processors are wanted by everybody, for it waits until the new process has become its program. Whoever has many to start (a controller that
 * has come back makes one for each of its disks, and one for each file service) would otherwise look, to the beat process, like one that hangs, and
 * its partner would take over; and a thread of real-time priority that starts one after the other takes the processor from all
 * ordinary work until the kernel lets that go before the beats, too.
 */
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";

/** After a start this thread is left to others for as many times what the start took. */
const restFactor = 3;
/** What took longer was no start, but a process, or a machine, that stood still. */
const restMsMax = 100;

let lastTurn: Promise<unknown> = Promise.resolve();

/** Settles in a turn of the event loop of its own, in the order of asking, with rests in between. Whoever has asked starts at once then. */
export function turnToSpawn(): Promise<void> {
  const turn = lastTurn.then(() => nextTurn());
  lastTurn = turn.then(async () => {
    const fromMs = performance.now();
    await nextTurn();
    await delay(Math.min(restMsMax, restFactor * (performance.now() - fromMs)));
  });
  return turn;
}
