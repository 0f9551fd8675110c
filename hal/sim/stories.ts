/**
 * Stories whose every step is struck at: a planned move, a takeover, a giveback, a planned stop, a start, and changes of virtual servers, as orders of
 * the scripts. What the controllers do in them is not written here; it is seen (hal/sim/steps).
 */

/** An order, and how long the world goes on after it, ms. */
type Act = readonly [order: string, forMs: number];

export interface Story {
  readonly name: string;
  /** What has happened when the story begins: steps of that are not struck at. */
  readonly before: readonly Act[];
  readonly acts: readonly Act[];
  /** How many changes of virtual servers its operators are told to have made, from the beginning on; none if nothing is said. */
  readonly changes?: number;
}

/** Longer than it takes the pair to be whole from its start, and old enough to know nothing of the time before. */
const started: Act = ["start a b", 600];

/** A few moves after one another, or a takeover. */
const movedMs = 400;
/** Back as a guest, and a member again. */
const backMs = 300;

const whole = (name: string, ...acts: readonly Act[]): Story => ({
  name,
  before: [started],
  acts,
});

/** The partner is lost, and comes back to get back what was its own. */
const lost = (how: string, who: string): Act => [`${how} ${who}`, movedMs];

/** Written, known to both, and carried out on both. */
const changedMs = 400;

const change = (what: string): Act => [`change ${what}`, changedMs];

/** Of changes, all of them accepted. */
const changes = (name: string, before: readonly Act[], ...acts: readonly Act[]): Story => ({
  name,
  before: [started, ...before],
  acts,
  changes: [...before, ...acts].filter(([order]) => order.startsWith("change ")).length,
});

const created = change("a create iota +10.0.0.150 +s1");

const ofChanges: readonly Story[] = [
  changes("create", [], created),
  changes("create-alone", [lost("kill", "b")], change("a create iota home=b +10.0.0.150 +s1"), [
    "start b",
    backMs,
  ]),
  changes("kill-creator", [created], lost("kill", "a"), ["start a", backMs]),
  changes(
    "change-addresses",
    [],
    change("a modify alpha +10.0.0.150"),
    change("a modify alpha -10.0.0.150"),
  ),
  changes("change-disks", [], change("b modify beta +s1"), change("b modify beta -s1")),
  changes("change-home", [], change("a modify alpha home=b export")),
  changes("stop-and-start", [], change("a stop alpha"), change("a start alpha")),
  changes("delete", [created], change("a stop iota"), change("a delete iota")),
  changes(
    "hand-over",
    [change("a modify alpha +10.0.0.150 +s1")],
    change("a modify alpha -10.0.0.150 -s1"),
    change("b modify beta +10.0.0.150 +s1"),
  ),
];

export const stories: readonly Story[] = [
  { name: "start", before: [], acts: [["start a b", backMs]] },
  whole("transfer-offered-by-a", ["transfer a alpha", movedMs]),
  whole("transfer-asked-by-b", ["transfer b alpha", movedMs]),
  whole("transfer-offered-by-b", ["transfer b beta", movedMs]),
  whole("transfer-asked-by-a", ["transfer a beta", movedMs]),
  whole("takeover-asked-by-b", ["takeover b", movedMs]),
  {
    name: "giveback-offered-by-b",
    before: [started, ["takeover b", movedMs]],
    acts: [["giveback b", movedMs]],
  },
  {
    name: "giveback-asked-by-b",
    before: [started, ["takeover a", movedMs]],
    acts: [["giveback b", movedMs]],
  },
  whole("kill-a", lost("kill", "a")),
  whole("power-b", lost("power", "b")),
  whole("crash-a", lost("crash", "a")),
  whole("freeze-b", lost("freeze", "b"), ["thaw b", movedMs + backMs]),
  whole("hang-a", ["freeze a main", 2 * movedMs], ["thaw a main", movedMs + backMs]),
  {
    name: "return-of-a",
    before: [started, lost("kill", "a")],
    acts: [
      ["start a", backMs],
      ["giveback a", movedMs],
    ],
  },
  {
    name: "return-of-b",
    before: [started, lost("power", "b")],
    acts: [
      ["start b", backMs],
      ["giveback a", movedMs],
    ],
  },
  whole("leave-a", ["shutdown a", movedMs]),
  whole("leave-b-after-takeover", ["takeover b", movedMs], ["shutdown b", movedMs]),
  ...ofChanges,
];

/** Numbers of virtual servers: two move side by side, of six some wait for their turn. */
export const sizes = [2, 6] as const;
