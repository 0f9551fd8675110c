/**
 * Real-time priorities of a controller's processes (sched(7): 1 to 99, the higher goes first). What the heartbeats wait for in the kernel goes before them; they before everything else; the decisions above
 * all that is ordinary, so that a file server under load does not look like a hung controller; the way of the data, in a hurry, below both, for neither
 * ever waits for data.
 */
export const priorities = { gracePeriods: 21, beat: 20, main: 10, data: 3 } as const;
