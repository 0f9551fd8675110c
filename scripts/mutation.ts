/**
 * Mutation testing of `core` and `wire`, one source file after the other, so that a run can be stopped and taken up again: what was
 * judged before and has not changed since, neither mutant nor test, is not judged again (`work/mutation/`).
 *
 *     node scripts/mutation.ts                                  everything, then the table
 *     node scripts/mutation.ts firmware-ts/core/ownership.ts    some files, their survivors, then the table
 *     node scripts/mutation.ts --table                          what was measured so far
 */
import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Mutant {
  readonly mutatorName: string;
  readonly replacement?: string;
  readonly status: string;
  /** It acts while its module is loaded, before any test. */
  readonly static?: boolean;
  readonly location: { readonly start: { readonly line: number; readonly column: number } };
}

interface Report {
  readonly files: Readonly<Record<string, { mutants: readonly Mutant[] }>>;
}

interface Score {
  readonly caught: number;
  readonly missed: number;
}

const root = join(import.meta.dirname, "..");
const store = join(root, "work", "mutation");
/** The score that `core` and `wire` have to reach together. */
const wantedPercent = 85;

const sources = globSync("firmware-ts/{core,wire}/**/*.ts", { cwd: root }).toSorted();
const reportOf = (source: string) => join(store, `${source.replaceAll("/", "+")}.json`);
const caughtStates = ["Killed", "Timeout"];
const missedStates = ["Survived", "NoCoverage"];

/**
 * Stryker judges a survivor again when a test has come that reaches it. No test is counted as reaching a mutant that acts while its
 * module is loaded: such a survivor would stay one for ever, so it is forgotten.
 */
function forgetStaticSurvivors(source: string): void {
  if (!existsSync(reportOf(source))) return;
  const report = JSON.parse(readFileSync(reportOf(source), "utf8")) as Report;
  for (const file of Object.values(report.files))
    file.mutants = file.mutants.filter(
      (each) => !each.static || !missedStates.includes(each.status),
    );
  writeFileSync(reportOf(source), JSON.stringify(report));
}

function judge(source: string): void {
  forgetStaticSurvivors(source);
  const run = spawnSync(
    join(root, "node_modules", ".bin", "stryker"),
    ["run", "--mutate", source, "--incrementalFile", reportOf(source)],
    { cwd: root, stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" },
  );
  if (run.error) throw new Error("mutation: stryker did not start", { cause: run.error });
  if (run.status !== 0)
    throw new Error(`mutation: ${source}: stryker ended with ${run.status}\n${run.stdout}`);
  // Nothing but types: there is nothing to change, and Stryker writes no report.
  if (!existsSync(reportOf(source))) writeFileSync(reportOf(source), '{"files":{}}');
}

/** The mutants of a file as they were judged last; none if it has not been. */
function mutantsOf(source: string): readonly Mutant[] | undefined {
  if (!existsSync(reportOf(source))) return undefined;
  const report = JSON.parse(readFileSync(reportOf(source), "utf8")) as Report;
  return report.files[source]?.mutants ?? [];
}

function scoreOf(mutants: readonly Mutant[]): Score {
  const count = (states: readonly string[]) =>
    mutants.filter(({ status }) => states.includes(status)).length;
  return { caught: count(caughtStates), missed: count(missedStates) };
}

function percent({ caught, missed }: Score): number {
  return caught + missed === 0 ? 100 : (100 * caught) / (caught + missed);
}

function line(name: string, score: Score): string {
  const { caught, missed } = score;
  return `${name.padEnd(44)} ${percent(score).toFixed(1).padStart(6)} ${String(caught + missed).padStart(8)} ${String(missed).padStart(7)}`;
}

function showSurvivors(source: string): void {
  for (const { status, location, mutatorName, replacement } of mutantsOf(source) ?? []) {
    if (!missedStates.includes(status)) continue;
    const at = `${source}:${location.start.line}:${location.start.column}`;
    console.log(`${at} ${status} ${mutatorName}: ${(replacement ?? "").replaceAll(/\s+/g, " ")}`);
  }
}

/** Prints the table; true when the score is reached by all files together. */
function showTable(): boolean {
  const judged = sources.flatMap((source) => {
    const mutants = mutantsOf(source);
    return mutants ? [{ source, ...scoreOf(mutants) }] : [];
  });
  const sum = (name: string, prefix: string): Score => {
    const total = { caught: 0, missed: 0 };
    for (const { source, caught, missed } of judged) {
      if (!source.startsWith(prefix)) continue;
      total.caught += caught;
      total.missed += missed;
    }
    console.log(line(name, total));
    return total;
  };
  console.log(`${"file".padEnd(44)} ${"score".padStart(6)} ${"mutants".padStart(8)}  missed`);
  for (const each of judged)
    if (each.caught + each.missed > 0) console.log(line(each.source, each));
  sum("core", "firmware-ts/core/");
  sum("wire", "firmware-ts/wire/");
  const all = sum("core and wire", "");
  const open = sources.length - judged.length;
  if (open > 0) console.log(`${open} of ${sources.length} files have not been judged`);
  return open === 0 && percent(all) >= wantedPercent;
}

mkdirSync(store, { recursive: true });
const chosen = process.argv.slice(2);
if (!chosen.includes("--table")) {
  for (const source of chosen.length > 0 ? chosen : sources) {
    judge(source);
    showSurvivors(source);
  }
}
process.exitCode = showTable() || chosen.length > 0 ? 0 : 1;
