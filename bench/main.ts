/**
 * `npm run -s bench -- COMMAND`: the appliance on one machine, live or unattended. Exit status: 0 all as it must be, 1 not so, 2 usage,
 * 77 root is missing.
 */
import { join } from "node:path";
import { Command, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { compare } from "./campaign/compare.ts";
import { openStage, series } from "./campaign/failover.ts";
import { isolation, openIsolationStage } from "./campaign/isolation.ts";
import { moveKinds } from "./campaign/moves-result.ts";
import type { Stage } from "./campaign/one-run.ts";
import { quiet } from "./campaign/quiet.ts";
import { smbActs, smbMoves } from "./campaign/smb.ts";
import { moves } from "./campaign/vserver.ts";
import type { Fault } from "./faults/fault.ts";
import { faultNamed, faults } from "./faults/index.ts";
import { demandRoot, Live } from "./view/live.ts";
import { parseScript } from "./view/script.ts";
import { BenchError, explainError } from "./world/error.ts";
import { repoDir } from "./world/layout.ts";
import { cleanPrefix, type World } from "./world/world.ts";

// Every process of the bench is started from source: the compiled form is kept, so that a controller boots in half the time.
process.env.NODE_COMPILE_CACHE ??= join(repoDir, "work", "compile-cache");

/** sysexits(3) EX_NOPERM. */
const exitNoPermission = 77;

const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => interrupted.abort(new BenchError("worldBroken", "bench", signal)));

const wholeNumber =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max)
      throw new InvalidArgumentError(`expected a whole number from ${min} to ${max}.`);
    return value;
  };

function positive(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError("expected a number above 0.");
}

const options = {
  prefix: () =>
    new Option("--prefix <name>", "name of the world; two worlds may run at once").default("dyad"),
  runs: () =>
    new Option("--runs <n>", "runs of each fault").default(20).argParser(wholeNumber(1, 10_000)),
  json: () => new Option("--json", "print results as JSON lines"),
  clients: () =>
    new Option("--clients <n>", "number of NFS clients").default(2).argParser(wholeNumber(1, 32)),
  servers: () =>
    new Option("--servers <n>", "virtual servers, half of them at home on each controller")
      .default(2)
      .argParser(wholeNumber(1, 64)),
  engines: () =>
    new Option(
      "--engines <list>",
      "NFS engines of each client: nfs3, libnfs, nfs41 (with locks)",
    ).default("nfs3"),
  paceMs: () =>
    new Option("--pace-ms <n>", "pause of a client after each operation")
      .default(4)
      .argParser(wholeNumber(0, 10_000)),
};

interface SeriesOptions {
  readonly prefix: string;
  readonly runs: number;
  readonly clients: number;
  readonly engines: string;
  readonly paceMs: number;
  readonly serverCount?: number;
  readonly shares?: boolean;
  readonly json?: true | undefined;
  readonly keepLogs?: true | undefined;
}

function stageFor(given: Omit<SeriesOptions, "runs">): Promise<Stage> {
  return openStage({
    prefix: given.prefix,
    clientCount: given.clients,
    engines: given.engines,
    paceMs: given.paceMs,
    ...(given.serverCount === undefined ? {} : { serverCount: given.serverCount }),
    ...(given.shares === undefined ? {} : { shares: given.shares }),
    signal: interrupted.signal,
  });
}

/** Opens a stage, does something on it, and removes it whatever happens; keeps the logs of what went wrong. */
async function onStage<T extends { readonly world: World }>(
  given: Pick<SeriesOptions, "keepLogs">,
  open: () => Promise<T>,
  act: (stage: T) => Promise<boolean>,
): Promise<boolean> {
  const stage = await open();
  let good = false;
  try {
    good = await act(stage);
  } finally {
    if (!good || given.keepLogs) note(`logs: ${stage.world.keepLogs()}`);
    await stage.world.stop();
  }
  if (!good) process.exitCode = 1;
  return good;
}

/** On the stage that most commands have. */
function onPair(
  given: Omit<SeriesOptions, "runs">,
  act: (stage: Stage) => Promise<boolean>,
): Promise<boolean> {
  return onStage(given, () => stageFor(given), act);
}

function print(result: object, asLine: true | undefined): void {
  process.stdout.write(`${JSON.stringify(result, undefined, asLine ? undefined : 2)}\n`);
}

function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** One stage for all faults; a pair that did not mend would spoil what comes after it, so it is replaced by a new one. */
async function faultSeries(chosen: readonly Fault[], given: SeriesOptions): Promise<void> {
  const left = [...chosen];
  while (left.length > 0)
    await onPair(given, async (stage) => {
      const { builtMs, servingMs } = stage.world.times;
      note(`built in ${Math.round(builtMs)} ms, serving after ${Math.round(servingMs)} ms`);
      let good = true;
      for (let fault = left.shift(); fault; fault = left.shift()) {
        const result = await series(stage, fault, given.runs, note);
        print(result, given.json);
        good &&= result.problems.length === 0;
        if (result.runs < given.runs) return false;
      }
      return good;
    });
}

const program = new Command("bench").description(
  "The appliance on one machine: two controllers, a shelf, a broker and NFS clients.",
);

/** A command that nobody watches, on a stage of its own. */
const unattended = (name: string, description: string, under: typeof program = program) =>
  under
    .command(name)
    .description(description)
    .addOption(options.json())
    .addOption(options.prefix())
    .addOption(options.clients())
    .addOption(options.engines())
    .addOption(options.paceMs())
    .option("--keep-logs", "also when all went well: journals for scripts/timeline.ts");

program
  .command("run")
  .description("start everything and watch it live; single keys break and repair it")
  .option("--script <steps>", 'what to do and when, as in "5s kill9 a; 10s repair; 15s quit"', "")
  .addOption(options.prefix())
  .addOption(options.clients())
  .addOption(options.engines())
  .addOption(options.paceMs().default(10))
  .action(async (given) => {
    demandRoot();
    const steps = parseScript(
      given.script,
      faults.map((each) => each.name),
    );
    note("starting two controllers, a shelf, a broker and clients");
    await onPair(given, async (stage) => {
      await new Live(stage).run(steps);
      return true;
    });
  });

unattended("failover", "one fault, several times; prints what clients saw")
  .addOption(
    new Option("--fault <name>", "what happens")
      .choices(faults.map((f) => f.name))
      .makeOptionMandatory(),
  )
  .addOption(options.runs())
  .addOption(options.servers())
  .action((given) =>
    faultSeries([faultNamed(given.fault)], { ...given, serverCount: given.servers }),
  );

unattended("campaign", "every fault, several times each")
  .addOption(options.runs())
  .action((given) => faultSeries(faults, given));

unattended("quiet", "nothing fails on a busy machine: nobody may be taken over")
  .addOption(new Option("--minutes <n>", "how long").default(5).argParser(positive))
  .option("--stress", "under stress-ng --cpu 4")
  .action(async (given) => {
    await onPair(given, async (stage) => {
      const result = await quiet(stage, given.minutes, given.stress ?? false, note);
      print(result, given.json);
      return result.problems.length === 0;
    });
  });

unattended("compare", "outage of an address, ours and keepalived's (adverts every 0.1 s), in turn")
  .option("--fault <list>", "kill9, freeze, power, link, term", "kill9,freeze,power")
  .addOption(options.runs())
  .action(async (given) => {
    await onPair(given, async (stage) => {
      let good = true;
      await compare(stage, given.fault.split(","), given.runs, note, (result) => {
        print(result, given.json);
        good &&= result.problems.length === 0;
      });
      return good;
    });
  });

const vserver = program
  .command("vserver")
  .description("many virtual servers: half of them are at home on each controller");
for (const kind of moveKinds)
  unattended(
    kind,
    kind === "takeover"
      ? "one controller dies, the other takes over all that were at home there"
      : "all that are at home on one controller move to the other, while clients work",
    vserver,
  )
    .option("--count <n>", "virtual servers that move", wholeNumber(1, 32), 1)
    .addOption(options.runs())
    .action(async (given) => {
      await onPair({ ...given, serverCount: 2 * given.count }, async (stage) => {
        const result = await moves(stage, kind, given.runs, note);
        print(result, given.json);
        return result.problems.length === 0;
      });
    });

vserver
  .command("isolation")
  .description(
    "a fork bomb, a full disk and a dead gateway of one: what do the clients of its neighbour feel?",
  )
  .addOption(options.json())
  .addOption(options.prefix())
  .addOption(options.runs().default(5))
  .addOption(options.paceMs().default(20))
  .option("--cpu-percent <n>", "limit of the one that is befallen", wholeNumber(5, 25_600))
  .option("--cpu-weight <n>", "its weight", wholeNumber(1, 10_000))
  .option("--keep-logs", "also when all went well")
  .action(async ({ cpuPercent, cpuWeight, ...given }) => {
    const neighbourLimits = {
      ...(cpuPercent === undefined ? {} : { cpuPercent }),
      ...(cpuWeight === undefined ? {} : { cpuWeight }),
    };
    const wanted = { ...given, neighbourLimits, signal: interrupted.signal };
    await onStage(
      given,
      () => openIsolationStage(wanted),
      async (stage) => {
        const result = await isolation(stage, wanted, note);
        print(result, given.json);
        return result.problems.length === 0;
      },
    );
  });

unattended(
  "smb",
  "volumes by NFS and SMB: one controller fails, or gives away, while SMB clients put files",
)
  .addOption(
    new Option("--fault <name>", "what happens").choices(smbActs).default("kill9" as const),
  )
  .addOption(options.runs())
  .action(async (given) => {
    await onPair({ ...given, shares: true }, async (stage) => {
      const result = await smbMoves(stage, given.fault, given, note);
      print(result, given.json);
      return result.problems.length === 0;
    });
  });

program
  .command("clean")
  .description("remove what a killed run left behind")
  .addOption(options.prefix())
  .action(async ({ prefix }) => {
    const cleaned = await cleanPrefix(prefix);
    const { processes, namespaces, loops, files } = cleaned;
    const nothing = processes + namespaces.length + loops.length === 0 && !files;
    process.stdout.write(
      nothing
        ? `nothing is left of ${prefix}\n`
        : `removed ${processes} processes, ${namespaces.length} namespaces, ${loops.length} loop devices\n`,
    );
  });

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`bench: ${explainError(error)}\n`);
  process.exitCode = error instanceof BenchError && error.code === "notRoot" ? exitNoPermission : 1;
}
// Pipes to processes that have just been killed must not keep us.
process.exit();
