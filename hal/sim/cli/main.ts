/**
 * The simulator: `npm run -s sim -- --seeds N [--seed S] [--profile P] [--json]`. One seed alone (`--seed S`) shows its plan and, if it breaks
 * an invariant, its timeline; `--trace` shows the timeline in any case, `--only 1,4` runs some of its mishaps. `--every-step` crashes a
 * controller before and after each step of some stories instead.
 */
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import type { Found, Tally } from "../campaign.ts";
import { Coverage } from "../coverage.ts";
import { minimise, onlyFaults } from "../minimise.ts";
import { drawPlan, type Plan, type Profile, profiles } from "../plan.ts";
import { runPlan } from "../run.ts";
import { everyStep } from "./every-step.ts";
import { runCampaign } from "./threads.ts";

const usage =
  "usage: sim [--seeds N] [--seed S] [--profile P] [--jobs N] [--json] [--coverage] [--trace] [--only 0,3,…]\n" +
  "       sim --every-step [--story S] [--servers N] [--seed S] [--at a:12:before:main] [--jobs N] [--json] [--trace]\n" +
  `profiles: ${profiles.join(", ")}`;

/** Violations that are shown in full; the others are listed. */
const shownMax = 3;
/** Lines of a timeline that are shown before a violation. */
const timelineLines = 120;

function options() {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string" },
      seed: { type: "string" },
      profile: { type: "string", default: "everything" },
      jobs: { type: "string", default: String(availableParallelism()) },
      json: { type: "boolean", default: false },
      coverage: { type: "boolean", default: false },
      trace: { type: "boolean", default: false },
      only: { type: "string" },
      "every-step": { type: "boolean", default: false },
      story: { type: "string" },
      servers: { type: "string" },
      at: { type: "string" },
    },
  });
  const profile = profiles.find((each) => each === values.profile);
  const number = (text: string | undefined, min: number, max: number) => {
    if (text === undefined) return undefined;
    const found = Number(text);
    if (!Number.isInteger(found) || found < min || found > max)
      throw new Error(`not valid: ${text}`);
    return found;
  };
  if (!profile) throw new Error(`no profile ${values.profile}`);
  return {
    profile,
    seeds: number(values.seeds, 1, 1e9),
    seed: number(values.seed, 0, 2 ** 32),
    jobs: number(values.jobs, 1, 1024) ?? 1,
    json: values.json,
    coverage: values.coverage,
    trace: values.trace,
    only: values.only?.split(",").map((text) => number(text, 0, 1e6) ?? 0),
    everyStep: values["every-step"],
    story: values.story,
    servers: number(values.servers, 1, 64),
    at: values.at,
  };
}

function commit(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short=12", "HEAD"], { encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}

/** What is left of a plan, what happened, and how to see it again. */
function show(plan: Plan, kept: readonly number[] | undefined, traced: boolean): boolean {
  const result = runPlan(plan, { traced: true });
  const { violation, trace, digest } = result;
  console.log(`seed ${plan.seed}, profile ${plan.profile}, commit ${commit()}`);
  for (const [index, { atMs, events, mishap }] of plan.faults.entries()) {
    const after = events > 0 ? ` + ${events} events` : "";
    const number = `${kept?.[index] ?? index}`.padStart(4);
    console.log(`${number}  ${atMs.toFixed(1).padStart(9)} ms${after}: ${JSON.stringify(mishap)}`);
  }
  if (plan.loss) console.log(`      plain loss of ${plan.loss.victim}: ${plan.loss.how}`);
  if (violation !== undefined || traced)
    for (const line of trace.slice(traced ? 0 : -timelineLines)) console.log(line);
  console.log(violation ?? `no violation (${digest})`);
  const only = kept ? ` --only ${kept.join(",")}` : "";
  console.log(`again: npm run -s sim -- --seed ${plan.seed} --profile ${plan.profile}${only}\n`);
  return violation !== undefined;
}

function showFound(profile: Profile, { seed, invariant }: Found): void {
  const { plan, kept } = minimise(drawPlan(seed, profile), invariant);
  show(plan, plan.loss ? undefined : kept, false);
}

function report(tally: Tally, profile: Profile, wallSeconds: number, json: boolean): void {
  const { reached, total, missing } = new Coverage(tally.coverage).totals();
  const line = {
    seeds: tally.seeds,
    violations: tally.violations.length,
    eventsPerSecond: Math.round(tally.events / wallSeconds),
    simulatedSeconds: Math.round(tally.simulatedMs / 1000),
    wallSeconds: Math.round(wallSeconds * 10) / 10,
    transitionsReached: reached,
    transitionsTotal: total,
  };
  if (json) {
    console.log(JSON.stringify(line));
    return;
  }
  console.log(
    `${line.seeds} seeds of ${profile}: ${line.violations} violations; ${line.simulatedSeconds} s simulated in ${line.wallSeconds} s ` +
      `(${line.eventsPerSecond} events/s); ${tally.operations} operations of clients; ${reached} of ${total} transitions`,
  );
  for (const each of missing) console.log(`  not reached: ${each}`);
}

function showCoverage(tally: Tally): void {
  const coverage = new Coverage(tally.coverage);
  for (const each of coverage.totals().unexpected) console.log(`  not listed: ${each}`);
  const sorts = ["mode", "phase", "event", "struck", "pair"];
  console.log(sorts.map((sort) => `${coverage.distinct(sort)} of ${sort}`).join(", "));
  for (const [key, count] of [...coverage.counts].sort())
    console.log(`${`${count}`.padStart(9)} ${key}`);
}

async function main(): Promise<number> {
  const given = options();
  const { profile, seed, seeds, only, trace, jobs, json, coverage } = given;
  if (given.everyStep) return everyStep({ ...given, seed: seed ?? 1 });
  if (seed !== undefined && seeds === undefined) {
    const plan = drawPlan(seed, profile);
    if (only) return show(onlyFaults(plan, only), only, trace) ? 1 : 0;
    return show(plan, undefined, trace) ? 1 : 0;
  }
  const startMs = performance.now();
  const progress = (tally: Tally) => {
    if (!process.stderr.isTTY) return;
    process.stderr.write(`\r${tally.seeds} seeds, ${tally.violations.length} violations `);
  };
  const tally = await runCampaign({
    profile,
    jobs,
    progress,
    firstSeed: seed ?? 1,
    seeds: seeds ?? 1000,
  });
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  const wallSeconds = (performance.now() - startMs) / 1000;
  report(tally, profile, wallSeconds, json);
  if (coverage) showCoverage(tally);
  if (!json) {
    for (const found of tally.violations.slice(0, shownMax)) showFound(profile, found);
    for (const { seed: other, violation } of tally.violations.slice(shownMax))
      console.log(`seed ${other}: ${violation.split("\n")[0]}`);
  }
  return tally.violations.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  console.error(usage);
  process.exitCode = 2;
}
