/** What the parts of the command tree share: their context, and the options of commands that do something. */
import {
  type Command,
  type CommandUnknownOpts,
  InvalidArgumentError,
} from "@commander-js/extra-typings";
import type { CommandOptions } from "./command.ts";
import type { ExitCode } from "./exit.ts";
import type { CommonOptions, Io } from "./io.ts";

export interface Environment {
  readonly io: Io;
  readonly defaultSocket: string;
  /** Of the firmware that this command came with. */
  readonly version: string;
  /** The keyboard, for the live panel. */
  readonly terminal?: NodeJS.ReadStream | undefined;
}

export interface Context {
  readonly environment: Environment;
  readonly common: () => CommonOptions;
  readonly finish: (code: ExitCode) => void;
}
/** The parts add commands to any command, whatever options that one has. */
export type Parent = CommandUnknownOpts;

const waitSecondsDefault = 60;

/** Of commands that yield to vetoes. */
export function withCommandOptions(command: Command) {
  return command
    .option("--dry-run", "only say what would happen")
    .option("--force", "override soft vetoes")
    .option("--reason <text>", "why it is forced; recorded")
    .option("--yes", "do not ask for confirmation")
    .option("--wait [seconds]", `stay until it has ended (${waitSecondsDefault} s)`, seconds);
}

export interface ParsedOptions {
  readonly dryRun?: true | undefined;
  readonly force?: true | undefined;
  readonly reason?: string | undefined;
  readonly yes?: true | undefined;
  readonly wait?: number | true | undefined;
}

/** What the command line says, with what it leaves open. */
export function optionsOf({ common }: Context, parsed: ParsedOptions): CommandOptions {
  return {
    ...common(),
    dryRun: parsed.dryRun === true,
    force: parsed.force === true,
    reason: parsed.reason ?? "",
    yes: parsed.yes === true,
    waitSeconds: parsed.wait === true ? waitSecondsDefault : parsed.wait,
  };
}

export async function move(
  context: Context,
  options: ParsedOptions,
  what: { kind: "takeover" | "giveback" | "transfer"; name?: string },
): Promise<void> {
  const { runMove } = await import("./move.ts");
  context.finish(await runMove(context.environment.io, optionsOf(context, options), what));
}

export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("expected a whole number");
  return Number(text);
}

function seconds(text: string): number {
  const value = wholeNumber(text);
  if (value < 1 || value > 86_400) throw new InvalidArgumentError("expected 1 to 86400 seconds");
  return value;
}
