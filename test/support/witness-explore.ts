/** Walks through every order of what can happen to two controllers and their witness (witness-world). */
import { hash } from "node:crypto";
import type { WitnessClient } from "../../firmware-ts/core/witness/client.ts";
import {
  actions,
  type Budget,
  firstWorld,
  nothing,
  type Rules,
  sides,
  soundRules,
  type World,
} from "./witness-world.ts";

interface Explored {
  readonly worlds: number;
  /** Every verdict that some client had. */
  readonly verdicts: ReadonlySet<string>;
  /** How it came to a violation, step by step. */
  readonly violation: readonly string[] | undefined;
}

/** Breadth first, so that a violation is told on a shortest way. Throws beyond `worldsMax`: then nothing has been shown. */
export function explore(
  budget: Partial<Budget>,
  change: Partial<Rules> = {},
  worldsMax = 400_000,
): Explored {
  const rules = { ...soundRules, ...change };
  const first = firstWorld({ ...nothing, ...budget });
  const seen = new Set([digest(first)]);
  const verdicts = new Set<string>();
  let edge: { readonly world: World; readonly way: Way | undefined }[] = [
    { world: first, way: undefined },
  ];
  while (edge.length > 0) {
    const next: typeof edge = [];
    for (const { world, way } of edge)
      for (const action of actions(world, rules)) {
        const taken = { name: action.name, before: way };
        if (action.world.violation !== undefined)
          return {
            worlds: seen.size,
            verdicts,
            violation: [...told(taken), action.world.violation],
          };
        const text = digest(action.world);
        if (seen.has(text)) continue;
        seen.add(text);
        if (seen.size > worldsMax) throw new Error(`more than ${worldsMax} worlds`);
        for (const me of sides) verdicts.add(verdictText(action.world.controllers[me].client));
        next.push({ world: action.world, way: taken });
      }
    edge = next;
  }
  return { worlds: seen.size, verdicts, violation: undefined };
}

/** Worlds are many, and longer than this. */
function digest(world: World): string {
  return hash("sha1", JSON.stringify(world), "base64");
}

interface Way {
  readonly name: string;
  readonly before: Way | undefined;
}

function told(way: Way): string[] {
  const names: string[] = [];
  for (let at: Way | undefined = way; at !== undefined; at = at.before) names.unshift(at.name);
  return names;
}

function verdictText(client: WitnessClient | undefined): string {
  if (client === undefined) return "down";
  const { verdict } = client;
  return verdict.kind === "refused" ? `refused: ${verdict.why}` : verdict.kind;
}
