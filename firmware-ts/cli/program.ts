/**
 * The command tree of `dyad`, and how it ends. Nouns first, words that operators know; each command's code is loaded when
 * it runs, so that `dyad status` starts quickly.
 */
import { Argument, Command, CommanderError, Option } from "@commander-js/extra-typings";
import { CliError, type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, plain, printJson } from "./io.ts";
import {
  type Context,
  type Environment,
  move,
  type Parent,
  wholeNumber,
  withCommandOptions,
} from "./program-parts.ts";
import { addVirtualServers } from "./program-vserver.ts";
import { addWitness } from "./program-witness.ts";

const defaultConfigPath = "/etc/dyad/dyad.toml";

/** Runs one command line (without program name) and returns the exit code; never throws. */
export async function runCli(args: readonly string[], environment: Environment): Promise<ExitCode> {
  const { io } = environment;
  let exitCode: ExitCode = exitCodes.ok;
  const program = buildProgram(environment, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCode;
  } catch (error) {
    // Commander has written its message already; its own exit code says only whether it was help.
    if (error instanceof CommanderError)
      return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    const known =
      error instanceof CliError
        ? error
        : new CliError(exitCodes.failure, "internal", (error as Error).message);
    if (program.opts().output === "json")
      printJson(io, { error: { code: known.code, message: known.message } });
    else for (const line of known.message.split("\n")) io.err(`dyad: ${plain(line)}\n`);
    return known.exitCode;
  }
}

function buildProgram(environment: Environment, finish: (code: ExitCode) => void) {
  const { io } = environment;
  const program = new Command("dyad")
    .description("Look at and command one controller of a dual-controller appliance.")
    .version(`dyad ${environment.version}`, "-V, --version", "say which release this is")
    .addOption(
      new Option("--socket <path>", "the daemon's socket")
        .env("DYAD_SOCKET")
        .default(environment.defaultSocket),
    )
    .addOption(
      new Option("-o, --output <format>", "for people or for programs (one JSON object per line)")
        .choices(["table", "json"])
        .default("table"),
    )
    .configureOutput({ writeOut: io.out, writeErr: io.err })
    .exitOverride()
    .showHelpAfterError("(dyad --help shows the commands)")
    .addHelpText("after", exitCodeHelp);
  const common = (): CommonOptions => {
    const { socket, output } = program.opts();
    return { socket, output: output === "json" ? "json" : "table" };
  };
  const context: Context = { environment, common, finish };
  addStatus(program, context);
  addMoves(program, context);
  addVirtualServers(program, context);
  addEvents(program, context);
  addPanel(program, context);
  addConfig(program, context);
  addVolume(program, context);
  addWitness(program, context);
  addCompletion(program, context);
  return program;
}

const exitCodeHelp = `
Exit codes: 0 ok, 1 failure, 2 usage, 3 degraded, 4 not possible now, 5 daemon unreachable,
6 partner unreachable, 75 try again, 77 permission.`;

function addStatus(program: Parent, { environment, common, finish }: Context): void {
  program
    .command("status")
    .description("how things stand, and what to do about it")
    .action(async () => {
      const { showStatus } = await import("./show.ts");
      finish(await showStatus(environment.io, common()));
    });
  const disk = program.command("disk").description("coordinator and data disks");
  disk
    .command("list")
    .description("all disks, and who holds them")
    .action(async () => {
      const { listDisks } = await import("./show.ts");
      finish(await listDisks(environment.io, common()));
    });
}

function addMoves(program: Parent, context: Context): void {
  withCommandOptions(program.command("takeover"))
    .description("take the partner's virtual servers")
    .action((options) => move(context, options, { kind: "takeover" }));
  withCommandOptions(program.command("giveback"))
    .description("return every virtual server to its home")
    .action((options) => move(context, options, { kind: "giveback" }));
}

function addEvents(program: Parent, { environment, common, finish }: Context): void {
  program
    .command("events")
    .description("what has happened")
    .option("-f, --follow", "go on until interrupted")
    .option("--after <sequence>", "only later ones", wholeNumber, 0)
    .option("--limit <count>", "at most the newest so many, up to 1000", wholeNumber, 100)
    .action(async (options) => {
      const { showEvents } = await import("./show.ts");
      const all = { ...common(), ...options, follow: options.follow === true };
      finish(await showEvents(environment.io, all));
    });
}

function addPanel(program: Parent, { environment, common, finish }: Context): void {
  const panel = program
    .command("panel")
    .description("the front panel, live on a terminal")
    .action(async () => {
      const { showPanel } = await import("./panel.ts");
      finish(await showPanel(environment.io, common(), environment.terminal));
    });
  panel
    .command("press")
    .description("press one button")
    .addArgument(new Argument("<button>").choices(["up", "down", "ok", "back"]))
    .action(async (button) => {
      const { pressButton } = await import("./panel.ts");
      finish(await pressButton(environment.io, common(), button));
    });
}

function addConfig(program: Parent, { environment, common, finish }: Context): void {
  const config = program.command("config").description("the configuration file");
  config
    .command("check")
    .description("say whether the daemon would accept it")
    .argument("[file]", "", defaultConfigPath)
    .action(async (file) => {
      const { checkConfig } = await import("./config.ts");
      finish(await checkConfig(environment.io, common(), file));
    });
  config
    .command("show")
    .description("every value in force, defaults too")
    .argument("[file]", "", defaultConfigPath)
    .action(async (file) => {
      const { showConfig } = await import("./config.ts");
      finish(await showConfig(environment.io, common(), file));
    });
  config
    .command("schema")
    .description("JSON Schema of the file, for editors")
    .action(async () => {
      const { printConfigSchema } = await import("./config.ts");
      finish(await printConfigSchema(environment.io, common()));
    });
}

function addVolume(program: Parent, { environment, common, finish }: Context): void {
  program
    .command("volume")
    .description("the common volume on the coordinator disks")
    .command("dump")
    .description("every record, from disks or images of them, without a daemon")
    .argument("<files...>", "all coordinator disks of a pair")
    .action(async (files) => {
      const { dumpVolume } = await import("./volume.ts");
      finish(await dumpVolume(environment.io, common(), files));
    });
}

function addCompletion(program: Parent, { environment, common, finish }: Context): void {
  program
    .command("completion")
    .description("a script that completes commands in a shell")
    .addArgument(new Argument("<shell>").choices(["bash"]))
    .action(async (shell) => {
      const { bashCompletion } = await import("./completion.ts");
      const script = bashCompletion(program);
      if (common().output === "json") printJson(environment.io, { shell, script });
      else environment.io.out(script);
      finish(exitCodes.ok);
    });
}
