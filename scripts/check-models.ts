/**
 * Checks the Promela models of `models/` exhaustively with spin, then proves that the checker can fail: each planted mistake must be
 * found. Without spin or a C compiler it says that it was skipped, because only root can install them (`scripts/setup.sh`).
 *
 *     node scripts/check-models.ts            what fits into `make check`
 *     node scripts/check-models.ts --all      the larger bounds too
 *     node scripts/check-models.ts --trail arbitration BUG_UNPROVED     how a mistake comes about, step by step
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Run {
  readonly model: string;
  readonly defines: readonly string[];
  /** A mistake is planted: the run passes when an assertion fails. */
  readonly mistake?: boolean;
  readonly large?: boolean;
}

const folder = join(import.meta.dirname, "..", "models");
/** Longest run that is waited for; a model that grows beyond it has to be made smaller. */
const limitMs = 600_000;

const races = ["LIVES=0", "KEYS=1", "RACES=2"];
const crash = ["LIVES=1", "KEYS=1", "RACES=2"];
/** Controllers freeze as a whole, or their processes each by itself. */
const whole = ["WHOLE", "LOSSES=1"];
const twice = ["WHOLE", "LOSSES=2"];
const split = ["LOSSES=1"];
/** A planned move in which a step fails, and a living partner is lost or one dies and comes back. */
const loss = ["LOSSES=1", "FAILURES=1"];
const death = ["LOSSES=0", "CRASHES=1", "FAILURES=1"];
const mistake = (model: string, bug: string, defines: readonly string[]): Run => ({
  model,
  defines: [`BUG_${bug}`, ...defines],
  mistake: true,
});
const large = (run: Run): Run => ({ ...run, large: true });

const runs: readonly Run[] = [
  { model: "arbitration", defines: races },
  { model: "arbitration", defines: [...races, "LATE"], large: true },
  { model: "arbitration", defines: crash, large: true },
  { model: "arbitration", defines: ["LIVES=0", "KEYS=1", "RACES=3"], large: true },
  { model: "arbitration", defines: ["LIVES=1", "KEYS=2", "RACES=2"], large: true },
  mistake("arbitration", "MINORITY", races),
  mistake("arbitration", "UNPROVED", races),
  mistake("arbitration", "GONE_REGISTERS", races),
  mistake("arbitration", "CONFLICT_WINS", races),
  mistake("arbitration", "NO_ABORT", races),
  mistake("arbitration", "YOUNG", crash),
  mistake("arbitration", "LATE", crash),
  { model: "gate", defines: whole },
  { model: "gate", defines: twice, large: true },
  { model: "gate", defines: split, large: true },
  { model: "gate", defines: ["DEATHS=1", ...whole], large: true },
  { model: "gate", defines: ["DEATHS=1", ...whole], large: true },
  { model: "gate", defines: ["GATE=2", "SOLO=3", ...whole], large: true },
  mistake("gate", "NO_MARGIN", whole),
  mistake("gate", "NO_TIMEOUT", whole),
  mistake("gate", "NO_WAIT", whole),
  mistake("gate", "LEASE_FROM_NOW", whole),
  mistake("gate", "UNPROVED", whole),
  mistake("gate", "ANY_TURN", whole),
  large(mistake("gate", "GRANT_ALONE", whole)),
  large(mistake("gate", "GRANT_ON", split)),
  large(mistake("gate", "GRANT_ANY_CONTACT", split)),
  large(mistake("gate", "GUEST_LOSS", twice)),
  large(mistake("gate", "SOLO_FROM_ANSWER", twice)),
  { model: "transfer", defines: loss },
  { model: "transfer", defines: death },
  { model: "transfer", defines: ["LOSSES=2"], large: true },
  mistake("transfer", "RELEASE_UNSEALED", loss),
  mistake("transfer", "SEAL_BELIEVED", loss),
  mistake("transfer", "RELEASE_ALWAYS", loss),
  mistake("transfer", "GO_FIRST", loss),
  mistake("transfer", "NO_WAIT", loss),
  mistake("transfer", "NOT_TAKEN_BACK", loss),
  mistake("transfer", "DECLINED_STARTS", loss),
  large(mistake("transfer", "RELEASE_ALONE", loss)),
  large(mistake("transfer", "GO_ANY_TIME", loss)),
  large(mistake("transfer", "READY_ENDS", loss)),
  large(mistake("transfer", "TWICE", loss)),
  large(mistake("transfer", "OLD_SESSION", ["MOVES=2", "LOSSES=1"])),
];

function command(cwd: string, name: string, parameters: readonly string[]): string {
  const result = spawnSync(name, parameters, {
    cwd,
    encoding: "utf8",
    timeout: limitMs,
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error) throw new Error(`models: ${name} did not run`, { cause: result.error });
  return result.stdout + result.stderr;
}

function number(text: string, pattern: RegExp): number {
  const found = pattern.exec(text)?.[1];
  if (found === undefined) throw new Error(`models: spin's report lacks ${pattern}:\n${text}`);
  return Number(found);
}

interface Result {
  readonly violation: string | undefined;
  readonly states: number;
  readonly depth: number;
}

/** Builds a verifier and runs it; throws when the search was not complete. */
function check(cwd: string, { model, defines, mistake: planted }: Run): Result {
  const file = `${model}.pml`;
  copyFileSync(join(folder, file), join(cwd, file));
  const made = command(cwd, "spin", [...defines.map((each) => `-D${each}`), "-a", file]);
  if (/error/i.test(made)) throw new Error(`models: spin refuses ${file}:\n${made}`);
  const optimise = planted ? "-O1" : "-O2";
  command(cwd, "cc", [
    optimise,
    "-w",
    "-DSAFETY",
    "-DCOLLAPSE",
    "-DMEMLIM=6000",
    "-o",
    "pan",
    "pan.c",
  ]);
  const text = command(cwd, "./pan", ["-m100000"]);
  const violation = /assertion violated ([^\n]*)/.exec(text)?.[1];
  const complete = !/Search not completed|max search depth too small|out of memory/.test(text);
  if (!violation && !complete)
    throw new Error(`models: ${file} was not searched completely:\n${text}`);
  return {
    violation,
    states: number(text, /([\d.e+]+) states, stored/),
    depth: number(text, /depth reached (\d+)/),
  };
}

function inFolder<T>(act: (cwd: string) => T): T {
  const cwd = mkdtempSync(join(tmpdir(), "dyad-models-"));
  try {
    return act(cwd);
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

/** Whether the run ended as it must. */
function passes(run: Run): boolean {
  const startedMs = performance.now();
  const { violation, states, depth } = inFolder((cwd) => check(cwd, run));
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  const good = run.mistake === (violation !== undefined) || (!run.mistake && !violation);
  const found = run.mistake
    ? violation
      ? "found"
      : "NOT FOUND"
    : violation
      ? "VIOLATED"
      : "holds";
  const name = [run.model, ...run.defines].join(" ");
  console.log(`models: ${found.padEnd(9)} ${name}: ${states} states, depth ${depth}, ${seconds} s`);
  if (!good && violation) console.error(`models: ${violation}; see --trail`);
  return good;
}

function showTrail(model: string, bug: string): void {
  const run = runs.find((each) => each.model === model && each.defines.includes(bug));
  if (!run) throw new Error(`models: no run of ${model} with ${bug}`);
  inFolder((cwd) => {
    check(cwd, run);
    if (!existsSync(join(cwd, `${model}.pml.trail`))) return console.log("models: nothing to show");
    const defines = run.defines.map((each) => `-D${each}`);
    const steps = command(cwd, "spin", [...defines, "-t", "-p", `${model}.pml`]);
    const lines = readFileSync(join(cwd, `${model}.pml`), "utf8").split("\n");
    let last = "";
    for (const step of steps.split("\n")) {
      const said = /MSC: (.*)/.exec(step)?.[1];
      const at = /proc +\d+ \((\w+):\d+\) [^:]+:(\d+) /.exec(step);
      const text = said ? `      *** ${said}` : `${at?.[1]} ${lines[Number(at?.[2]) - 1]?.trim()}`;
      const begins = said !== undefined || /::.*(d_step|atomic)/.test(text);
      if (begins && text !== last) console.log(text);
      if (begins) last = text;
    }
  });
}

function available(name: string, flag: string): boolean {
  return spawnSync(name, [flag], { stdio: "ignore" }).error === undefined;
}

const [option, model = "", bug = ""] = process.argv.slice(2);
if (!available("spin", "-V") || !available("cc", "--version"))
  console.log("models: skipped, spin or cc is not installed (scripts/setup.sh does it as root)");
else if (option === "--trail") showTrail(model, bug);
else {
  const chosen = runs.filter((run) => option === "--all" || !run.large);
  const failures = chosen.filter((run) => !passes(run));
  if (failures.length > 0) process.exitCode = 1;
}
