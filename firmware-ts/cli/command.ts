/** What commands that yield to vetoes have in common: confirmation of force, the request and who makes it, the answer in words. */
import type { CommandAnswer, CommandRequest, Status, Veto } from "../schema/status.ts";
import { call, get, parse, refusal } from "./client.ts";
import { CliError, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, printJson } from "./io.ts";

export interface CommandOptions extends CommonOptions {
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly reason: string;
  readonly yes: boolean;
  /** Wait for the end for so many seconds; undefined: return when it has begun. */
  readonly waitSeconds: number | undefined;
}

/** Reasons that pass by themselves, or when one has looked again. */
const passingVetoes = new Set([
  "transferUnderWay",
  "serverBusy",
  "changeUnderWay",
  "changed",
  "tooMany",
]);

/** Whether nothing but such reasons speaks against it that nobody can override. */
export function isPassing(vetoes: readonly Veto[]): boolean {
  const hard = vetoes.filter((veto) => veto.severity === "hard");
  return hard.length > 0 && hard.every((veto) => passingVetoes.has(veto.code));
}

/** SAFETY forcedIsAudited: an override cannot happen by accident, and says why. `what`: as in "Force what over soft vetoes?" */
export async function confirmForce(io: Io, options: CommandOptions, what: string): Promise<void> {
  if (!options.force) return;
  if (options.reason.trim() === "")
    throw new CliError(exitCodes.usage, "usage", "--force needs --reason TEXT; it is recorded");
  if (options.yes || options.dryRun) return;
  if (!io.interactive)
    throw new CliError(exitCodes.usage, "usage", "--force needs --yes where nobody can be asked");
  const answer = await io.ask(`Force ${what} over soft vetoes? Type "yes" to go on: `);
  if (answer.trim() !== "yes")
    throw new CliError(exitCodes.failure, "declined", "not confirmed; nothing was done");
}

export async function readStatus(socket: string): Promise<Status> {
  const { statusSchema } = await import("../schema/status.ts");
  return (await get(socket, "/v1/status", statusSchema)).value;
}

/** Sends a command; `more` is what it says beside what every command says. */
export async function sendCommand(
  options: CommandOptions,
  method: "POST" | "PUT" | "DELETE",
  path: string,
  more: object = {},
): Promise<CommandAnswer> {
  const { dryRun, force, reason } = options;
  const request: CommandRequest = { dryRun, force, reason, by: await whoAsks() };
  const answer = await call(options.socket, method, path, { ...request, ...more });
  const { commandAnswerSchema } = await import("../schema/status.ts");
  if (answer.status === 200 || answer.status === 202)
    return parse(answer.text, commandAnswerSchema).value;
  if (answer.status !== 409) throw await refusal(answer);
  const { apiErrorSchema } = await import("../schema/api.ts");
  const { error } = parse(answer.text, apiErrorSchema).value;
  return { accepted: false, vetoes: error.vetoes ?? [], plan: [] };
}

/** The person behind root, for the record. */
async function whoAsks(): Promise<string> {
  const { userInfo } = await import("node:os");
  try {
    return (process.env.SUDO_USER ?? userInfo().username).slice(0, 64);
  } catch {
    return `uid ${process.getuid?.() ?? "unknown"}`; // a user without an entry in the password file
  }
}

/** How an answer is told. */
export interface AnswerWords {
  /** The command, as in "what is not possible due to reason(s)". */
  readonly what: string;
  /** What is said of one that was accepted, as in "takeover has begun". */
  readonly accepted: string;
  /** Of a plan without a step. */
  readonly nothing: string;
}

/** The answer itself for programs, unless the end is waited for; what has begun, or every reason against it, for people. */
export async function printAnswer(
  io: Io,
  options: CommandOptions,
  answer: CommandAnswer,
  { what, accepted, nothing }: AnswerWords,
): Promise<void> {
  if (options.output === "json") {
    if (!answer.accepted || options.waitSeconds === undefined) printJson(io, answer);
    return;
  }
  const { planText, vetoesText } = await import("./text.ts");
  if (!answer.accepted) {
    io.err(vetoesText(what, answer.vetoes));
    if (answer.vetoes.every((veto) => veto.severity === "soft"))
      io.err("every reason is soft: --force --reason TEXT overrides them\n");
    return;
  }
  io.out(options.dryRun ? `${what} is possible; it would do:\n` : `${what} ${accepted}:\n`);
  io.out(planText(answer.plan, nothing));
}
