/** `sim --every-step`: a crash before and after every step of the stories; and one of them alone, with its timeline. */
import { tellStruck } from "../every-step.ts";
import {
  atOf,
  type Named,
  StepRunner,
  type StepTally,
  tellingOf,
  tellings,
} from "../step-campaign.ts";
import { sizes, stories } from "../stories.ts";
import { runStepCampaign } from "./threads.ts";

export interface StepOptions {
  readonly seed: number;
  readonly story: string | undefined;
  readonly servers: number | undefined;
  readonly at: string | undefined;
  readonly jobs: number;
  readonly json: boolean;
  readonly trace: boolean;
}

/** Violations that are shown in full; the others are listed. */
const shownMax = 3;
/** Lines of a timeline that are shown before a violation. */
const timelineLines = 120;

/** 0 when nothing was violated, 1 otherwise. Throws when there is no such story, size or step. */
export async function everyStep(options: StepOptions): Promise<number> {
  const { seed, story, servers, at, json } = options;
  const list = tellings(seed, story, servers);
  if (list.length === 0)
    throw new Error(
      `no such telling; stories: ${stories.map(({ name }) => name).join(", ")}; servers: ${sizes.join(", ")}`,
    );
  if (at !== undefined) return showAll(list, at, options.trace);
  const startMs = performance.now();
  const told: StepTally[] = [];
  await runStepCampaign(list, options.jobs, (tally) => {
    told.push(tally);
    console.log(json ? JSON.stringify(lineOf(tally)) : sentenceOf(tally));
  });
  const wallSeconds = Math.round((performance.now() - startMs) / 100) / 10;
  const total = (of: (tally: StepTally) => number) => told.reduce((sum, each) => sum + of(each), 0);
  const all = {
    tellings: told.length,
    steps: total(({ steps }) => steps),
    runs: total(({ runs }) => runs),
    violations: total(({ violations }) => violations.length),
    simulatedSeconds: Math.round(total(({ simulatedMs }) => simulatedMs) / 1000),
    wallSeconds,
  };
  console.log(
    json
      ? JSON.stringify(all)
      : `${all.tellings} tellings: ${all.steps} steps, ${all.runs} crashes, ${all.violations} violations; ` +
          `${all.simulatedSeconds} s simulated in ${wallSeconds} s`,
  );
  const found = told.flatMap(({ violations }) => violations);
  if (!json) {
    const shown = found.filter(({ at }) => at !== "").slice(0, shownMax);
    for (const each of shown) show(each, each.at, false);
    for (const each of found.filter((one) => !shown.includes(one)))
      console.log(
        `${each.story} ${each.servers} ${each.at || each.what}: ${each.violation.split("\n")[0]}`,
      );
  }
  return found.length > 0 ? 1 : 0;
}

const rounded = (ms: number) => Math.round(ms * 10) / 10;

function lineOf({ violations, worst, wholeMs, events, simulatedMs, ...rest }: StepTally) {
  const near = Object.entries(worst).map(([left, { servedMs, boundMs, at }]) => {
    return [left, { servedMs: rounded(servedMs), boundMs, at }];
  });
  return {
    ...rest,
    simulatedSeconds: Math.round(simulatedMs / 1000),
    worst: Object.fromEntries(near),
    wholeMs: rounded(wholeMs),
    violations: violations.length,
    found: violations.map(({ at, violation }) => `${at} ${violation.split("\n")[0]}`),
  };
}

function sentenceOf({ story, servers, steps, runs, violations, worst }: StepTally): string {
  const near = Object.entries(worst).map(
    ([left, { servedMs, boundMs }]) => `${left} ${rounded(servedMs)} of ${boundMs}`,
  );
  return (
    `${story}, ${servers} servers: ${steps} steps, ${runs} crashes, ${violations.length} violations; ` +
    `served after at most, ms: ${near.join(", ")}`
  );
}

function showAll(list: readonly Named[], at: string, traced: boolean): number {
  const broken = list.filter((named) => show(named, at, traced));
  return broken.length > 0 ? 1 : 0;
}

/** One crash, with the timeline that leads to a violation, or in any case. */
function show(named: Named, at: string, traced: boolean): boolean {
  const { story, servers, seed } = named;
  const runner = new StepRunner();
  const injection = runner.injections(named).find((each) => atOf(each) === at);
  if (!injection) {
    const { length } = runner.steps(named);
    throw new Error(`${story} with ${servers} servers has ${length} steps, and no ${at}`);
  }
  const { violation, trace, servedMs, boundMs, left } = tellStruck(tellingOf(named), injection, {
    traced: true,
  });
  console.log(`${story}, ${servers} servers, seed ${seed}: ${at}, at ${injection.step.what}`);
  if (violation !== undefined || traced)
    for (const line of trace.slice(traced ? 0 : -timelineLines)) console.log(line);
  console.log(
    violation ??
      `no violation; all is served after ${rounded(servedMs)} of ${boundMs} ms (${left})`,
  );
  console.log(
    `again: npm run -s sim -- --every-step --story ${story} --servers ${servers} --seed ${seed} --at ${at}\n`,
  );
  return violation !== undefined;
}
