/**
 * Two mirrored controllers, exhaustively: every order in which persisting, words, legs, writes and copies can happen, with a link that is
 * cut, crashes, promotions, an arbiter, and overrides. In every state that is reached: no acknowledged write was overwritten by what lacks it;
 * whoever acknowledges by sound proofs has everything that was ever acknowledged; and if both crashed now, what their disks say of each
 * other would be right, and the bitmap complete.
 *
 * The two largest stories (a crash, two crashes, before a witness) are walked through with `DYAD_MIRROR_MODEL=full` in the environment only.
 */
import { describe, expect, test } from "vitest";
import { rejoinBy, rejoinTable } from "../../firmware-ts/core/mirror/rejoin.ts";
import { mirrorStep } from "../../firmware-ts/core/mirror/volume.ts";
import type { Arbiter } from "../../firmware-ts/schema/mirror.ts";
import { explore, type Found, mend, type Search } from "../support/mirror-explore.ts";
import { follow } from "../support/mirror-moves.ts";
import {
  type Budget,
  newWorld,
  production,
  type Rules,
  type Stepper,
  tell,
  type World,
} from "../support/mirror-world.ts";

const nothing: Budget = {
  writes: 0,
  contacts: 0,
  cuts: 0,
  crashes: 0,
  promotions: 0,
  demotions: 0,
  leaves: 0,
  overrides: 0,
  resolutions: 0,
};

/** Far above what any of them has: ends a search that would have no end. */
const statesMax = 150_000;

interface Story {
  readonly arbiter: Arbiter;
  readonly left: Partial<Budget>;
  readonly isFresh?: boolean;
  /** What has happened before everything that may. */
  readonly first?: readonly string[];
}

/** From a pair that mirrors, with a as primary, whatever the budget allows. */
const stories: Readonly<Record<string, Story>> = {
  cut: { arbiter: "witness", left: { writes: 1, contacts: 1, cuts: 1, promotions: 1 } },
  cutPower: { arbiter: "powerOff", left: { writes: 1, contacts: 1, cuts: 1, promotions: 1 } },
  crash: { arbiter: "witness", left: { writes: 1, contacts: 1, crashes: 1, promotions: 1 } },
  crashTwice: { arbiter: "witness", left: { writes: 1, contacts: 1, crashes: 2 } },
  crashPower: { arbiter: "powerOff", left: { writes: 1, contacts: 1, crashes: 1, promotions: 1 } },
  twoWrites: { arbiter: "witness", left: { writes: 2, contacts: 1, cuts: 1 } },
  handOver: { arbiter: "witness", left: { writes: 1, demotions: 1, promotions: 1, leaves: 1 } },
  override: { arbiter: "witness", left: { writes: 2, cuts: 1, overrides: 1 }, first: ["cut"] },
  yields: {
    arbiter: "witness",
    left: {
      writes: 2,
      cuts: 1,
      overrides: 1,
      contacts: 1,
      crashes: 1,
      demotions: 1,
      resolutions: 1,
    },
    first: [
      ...["a writes 1", "a has 1", "cut", "a loses its leg", "a parts", "b parts"],
      ...["the witness answers", "a hears witness", "a persists", "a persists"],
      ...["a acknowledges 1 alone", "b is overridden", "b persists"],
      ...["b writes 2", "b has 2", "b acknowledges 2 alone"],
    ],
  },
  fresh: { arbiter: "powerOff", left: { writes: 1, contacts: 1, cuts: 1 }, isFresh: true },
};

const largest: readonly string[] = ["crash", "crashTwice"];
const isFull = process.env.DYAD_MIRROR_MODEL === "full";
const walked = Object.keys(stories).filter((name) => isFull || !largest.includes(name));

function mirroring({ arbiter, left, isFresh }: Story): World {
  const apart = newWorld(arbiter, { ...nothing, ...left }, isFresh);
  const together = mend(production, apart);
  const primary = tell(production, together, "a", { kind: "promoteAsked", epoch: 1 });
  return mend(production, primary);
}

const beginOf = (story: Story) => follow(production, mirroring(story), story.first ?? []);

function search(name: string, rules: Rules, more: Partial<Search> = {}): Found {
  const story = stories[name];
  if (!story) throw new Error(`no story ${name}`);
  return explore({ rules, begin: beginOf(story), statesMax, ...more });
}

const told = ({ violation, trail }: Found) => [violation, ...(trail ?? [])].join("\n");

test("the pair that all begins with mirrors every write", () => {
  for (const story of Object.values(stories)) {
    const { nodes, violation } = mirroring(story);
    expect(violation).toBeUndefined();
    expect(nodes.a.state).toMatchObject({ role: "primary", writes: "both" });
    expect(nodes.b.disk.current).toBe(nodes.a.disk.current);
  }
});

describe("nothing is lost, and nothing merges", () => {
  test.each(walked)("%s", (name) => {
    let ends = 0;
    const visit = (world: World, number: number) => {
      // Each so many states: when nothing goes wrong any more, the two come to rest.
      if (number % 199 !== 0) return;
      ends += 1;
      const end = mend(production, world);
      expect(end.violation).toBeUndefined();
      const isSound = !world.isUnsound && world.left.leaves === (stories[name]?.left.leaves ?? 0);
      if (isSound) expect(end.nodes.b.disk.current).toBe(end.nodes.a.disk.current);
    };
    const found = search(name, production, { visit });
    console.log(`mirror model, ${name}: ${found.states} states, ${ends} mended`);
    expect(found.violation, told(found)).toBeUndefined();
    expect(found.states).toBeGreaterThan(500);
  });
});

/** What is written is taken for written at once: whatever follows from it is done while the disk still says something else. */
const actsFirst: Stepper = (state, event, fresh) => {
  if (event.kind === "persisted") return [state, []];
  const [next, effects] = mirrorStep(state, event, fresh);
  if (!next.saving) return [next, effects];
  const [after, more] = mirrorStep(next, { kind: "persisted", ok: true }, fresh);
  return [after, [...effects, ...more]];
};

/** A proof is taken for good without being asked for its kind or its question. */
const goesOnWithoutProof: Stepper = (state, event, fresh) => {
  const [next, effects] = mirrorStep(state, event, fresh);
  const ask = effects.find((effect) => effect.kind === "askProof");
  if (ask?.kind !== "askProof") return [next, effects];
  const { generation, next: fresher } = ask;
  const proof = { kind: "witness", generation, next: fresher } as const;
  const arrived = { kind: "proofArrived", ask: ask.ask, proof } as const;
  const [after, more] = mirrorStep(next, arrived, fresh);
  return [after, [...effects, ...more]];
};

/** The source says that it is still alone with its generation after the target may have it. */
const staysSole: Stepper = (state, event, fresh) => {
  const [next, effects] = mirrorStep(state, event, fresh);
  const { saving } = next;
  if (saving?.purpose !== "finished" || state.saving) return [next, effects];
  const metadata = { ...saving.metadata, isSole: true };
  const persist = effects.map((effect) =>
    effect.kind === "persist" ? { ...effect, metadata } : effect,
  );
  return [{ ...next, saving: { ...saving, metadata } }, persist];
};

describe("planted mistakes are found", () => {
  test.each<readonly [string, string, Rules]>([
    [
      "a bit is cleared before the copy is there",
      "twoWrites",
      { ...production, clearsEarly: true },
    ],
    ["a write is acknowledged alone without its bit", "cut", { ...production, forgetsBit: true }],
    ["the witness grants a generation to both", "cut", { ...production, hasTwoFaces: true }],
    ["it acts before it has persisted", "cut", { step: actsFirst }],
    ["it goes on without a proof", "cut", { step: goesOnWithoutProof }],
    ["the source stays sole when it has finished", "cut", { step: staysSole }],
  ])("%s", (_what, name, rules) => {
    const found = search(name, rules);
    expect(found.violation).toBeDefined();
  });

  /** Rows as they must not be, and the story that shows it. */
  const altered: readonly (readonly [string, string, (typeof rejoinTable)[number]["says"]])[] = [
    ["crashed primary", "crash", "same"],
    ["went on alone", "cut", "same"],
    ["diverged", "yields", "same"],
    ["resync goes on", "cut", "same"],
  ];

  test.each(altered)("the row %s", (row, name, says) => {
    const table = rejoinTable.map((each) => (each.name === row ? { ...each, says } : each));
    const found = search(name, production, {
      rejoin: (mine, theirs) => rejoinBy(table, mine, theirs),
    });
    expect(found.violation).toBeDefined();
  });
});
