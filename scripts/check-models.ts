/**
 * Checks the Promela models of `models/` exhaustively with spin, then proves that the checker can fail: each planted mistake must be
 * found. Without spin or a C compiler it says that it was skipped, because only root can install them (`scripts/setup.sh`).
 *
 *     node scripts/check-models.ts            what fits into `make check`
 *     node scripts/check-models.ts --all      the larger bounds too
 *     node scripts/check-models.ts --trail arbitration BUG_UNPROVED     how a mistake comes about, step by step
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";

interface Run {
  readonly model: string;
  readonly defines: readonly string[];
  /** A mistake is planted: the run passes when an assertion fails. */
  readonly mistake?: boolean;
  readonly large?: boolean;
  /** So few states that to optimise the verifier would take longer than to run it. */
  readonly atOnce?: boolean;
}

const folder = join(import.meta.dirname, "..", "models");
/** Longest run that is waited for; a model that grows beyond it has to be made smaller. */
const limitMs = 1_800_000;
/** What a run may take of the memory, in MiB. */
const memoryMax = 9000;

/** No process dies, but controllers freeze, lose each other, fall out and come back as often as they like. */
const living = ["CRASHES=0", "KEYS=1"];
/** Controllers freeze as a whole, or their processes each by itself. */
const whole = ["WHOLE", "LOSSES=1"];
const twice = ["WHOLE", "LOSSES=2"];
const split = ["LOSSES=1"];
/** A planned move in which a step fails, and a living partner is lost, or one dies and comes back, or both. */
const loss = ["LOSSES=1", "FAILURES=1"];
const death = ["LOSSES=0", "CRASHES=1", "FAILURES=1"];
const both = ["LOSSES=1", "CRASHES=1"];
const mistake = (model: string, bug: string, defines: readonly string[]): Run => ({
  model,
  defines: [...bug.split(" ").map((each) => `BUG_${each}`), ...defines],
  mistake: true,
});
const large = (run: Run): Run => ({ ...run, large: true });
const atOnce = (run: Run): Run => ({ ...run, atOnce: true });

const runs: readonly Run[] = [
  { model: "arbitration", defines: living },
  large({ model: "arbitration", defines: [] }),
  large({ model: "arbitration", defines: ["LATE"] }),
  mistake("arbitration", "UNPROVED", living),
  mistake("arbitration", "CONFLICT_WINS", living),
  large(mistake("arbitration", "NO_ABORT", living)),
  atOnce(mistake("arbitration", "MINORITY", living)),
  atOnce(mistake("arbitration", "GONE_REGISTERS", living)),
  atOnce(mistake("arbitration", "YOUNG", living)),
  atOnce(mistake("arbitration", "LATE", living)),
  { model: "gate", defines: whole },
  large({ model: "gate", defines: ["DEATHS=1", ...twice] }),
  large({ model: "gate", defines: split }),
  large({ model: "gate", defines: ["GATE=2", "SOLO=3", ...whole] }),
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
  atOnce({ model: "transfer", defines: death }),
  large({ model: "transfer", defines: [...both, "FAILURES=1"] }),
  atOnce(mistake("transfer", "RELEASE_UNSEALED", loss)),
  atOnce(mistake("transfer", "SEAL_BELIEVED", loss)),
  atOnce(mistake("transfer", "RELEASE_ALWAYS", loss)),
  atOnce(mistake("transfer", "RELEASE_ALONE", loss)),
  atOnce(mistake("transfer", "GO_FIRST", loss)),
  atOnce(mistake("transfer", "NO_WAIT", loss)),
  atOnce(mistake("transfer", "NOT_TAKEN_BACK", loss)),
  atOnce(mistake("transfer", "TAKEN_FROM_IT", loss)),
  mistake("transfer", "GUEST_CEDES", loss),
  atOnce(mistake("transfer", "DECLINED_STARTS", loss)),
  atOnce(mistake("transfer", "TWICE", loss)),
  atOnce(mistake("transfer", "OLD_SESSION", loss)),
  mistake("transfer", "EARLIER_TURN", both),
  atOnce(mistake("transfer", "GO_ANY_TIME EARLIER_TURN", death)),
  large(mistake("transfer", "LAST_LIFE", both)),
];

const scratch = mkdtempSync(join(tmpdir(), "dyad-models-"));
const running = new Set<ChildProcess>();
// However this ends, also by a signal or because whoever reads has seen enough: no search goes on, and nothing is left.
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(scratch, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.once(signal, () => process.exit(1));
process.stdout.once("error", () => process.exit(1));

/** What a program says; its exit code does not tell whether a mistake was found. */
function command(cwd: string, name: string, parameters: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, parameters, { cwd, timeout: limitMs });
    running.add(child);
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
    child.on("error", reject);
    child.on("close", (_code, signal) => {
      running.delete(child);
      if (signal) reject(new Error(`models: ${name} was ended by ${signal}:\n${text}`));
      else resolve(text);
    });
  });
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
  readonly memoryMib: number;
}

/** A model may be of several files. */
const sources = () => readdirSync(folder).filter((name) => name.endsWith(".pml"));

/** Builds a verifier and runs it; throws when the search was not complete. */
async function check(cwd: string, run: Run): Promise<Result> {
  const { model, defines } = run;
  const file = `${model}.pml`;
  for (const each of sources()) copyFileSync(join(folder, each), join(cwd, each));
  const made = await command(cwd, "spin", [...defines.map((each) => `-D${each}`), "-a", file]);
  if (/error/i.test(made)) throw new Error(`models: spin refuses ${file}:\n${made}`);
  const optimise = run.atOnce ? "-O0" : run.large && !run.mistake ? "-O2" : "-O1";
  const built = await command(cwd, "cc", [
    optimise,
    "-w",
    "-DSAFETY",
    "-DCOLLAPSE",
    `-DMEMLIM=${memoryMax}`,
    "-o",
    "pan",
    "pan.c",
  ]);
  if (/error:/.test(built)) throw new Error(`models: cc refuses ${file}:\n${built}`);
  const text = await command(cwd, "./pan", ["-m1000000"]);
  const violation = /assertion violated ([^\n]*)/.exec(text)?.[1];
  const complete = !/Search not completed|max search depth too small|out of memory/.test(text);
  // Also an invalid end state is an error, though no assertion.
  if (!violation && !(complete && /errors: 0\b/.test(text)))
    throw new Error(`models: ${file} was not searched completely:\n${text}`);
  return {
    violation,
    states: number(text, /([\d.e+]+) states, stored/),
    depth: number(text, /depth reached (\d+)/),
    memoryMib: number(text, /([\d.]+)\s+(?:total actual memory usage|memory used)/),
  };
}

async function inFolder<T>(act: (cwd: string) => Promise<T>): Promise<T> {
  const cwd = mkdtempSync(join(scratch, "run-"));
  try {
    return await act(cwd);
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

/** Whether the run ended as it must. */
async function passes(run: Run): Promise<boolean> {
  const startedMs = performance.now();
  const { violation, states, depth, memoryMib } = await inFolder((cwd) => check(cwd, run));
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
  const size = `${states} states, depth ${depth}, ${Math.round(memoryMib)} MiB`;
  console.log(`models: ${found.padEnd(9)} ${name}: ${size}, ${seconds} s`);
  if (!good && violation) console.error(`models: ${violation}; see --trail`);
  return good;
}

async function showTrail(model: string, bug: string): Promise<void> {
  const found = runs.find((each) => each.model === model && each.defines.includes(bug));
  if (!found) throw new Error(`models: no run of ${model} with ${bug}`);
  // Who is who, from step to step, can be read only where nothing is sorted.
  const run =
    model === "arbitration" ? { ...found, defines: [...found.defines, "UNSORTED"] } : found;
  await inFolder(async (cwd) => {
    await check(cwd, run);
    if (!existsSync(join(cwd, `${model}.pml.trail`))) return console.log("models: nothing to show");
    const defines = run.defines.map((each) => `-D${each}`);
    const steps = await command(cwd, "spin", [...defines, "-t", "-p", `${model}.pml`]);
    const lines = new Map(
      sources().map((name) => [name, readFileSync(join(cwd, name), "utf8").split("\n")]),
    );
    let last = "";
    for (const step of steps.split("\n")) {
      const said = /MSC: (.*)/.exec(step)?.[1];
      const at = /proc +\d+ \((\w+):\d+\) ([^:]+):(\d+) /.exec(step);
      const line = lines.get(at?.[2] ?? "")?.[Number(at?.[3]) - 1];
      const text = said ? `      *** ${said}` : `${at?.[1]} ${line?.trim()}`;
      const begins = said !== undefined || /::.*(d_step|atomic)/.test(text);
      if (begins && text !== last) console.log(text);
      if (begins) last = text;
    }
  });
}

function available(name: string, flag: string): boolean {
  return spawnSync(name, [flag], { stdio: "ignore" }).error === undefined;
}

/** Small runs go side by side; of the large ones, each for itself, none shares its memory. */
async function runAll(chosen: readonly Run[]): Promise<boolean> {
  const waiting = chosen.filter((run) => !run.large);
  let good = true;
  const work = async () => {
    for (let run = waiting.shift(); run; run = waiting.shift())
      if (!(await passes(run))) good = false;
  };
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, work));
  for (const run of chosen.filter((each) => each.large)) if (!(await passes(run))) good = false;
  return good;
}

const [option, model = "", bug = ""] = process.argv.slice(2);
if (!available("spin", "-V") || !available("cc", "--version"))
  console.log("models: skipped, spin or cc is not installed (scripts/setup.sh does it as root)");
else if (option === "--trail") await showTrail(model, bug);
else if (!(await runAll(runs.filter((run) => option === "--all" || !run.large))))
  process.exitCode = 1;
