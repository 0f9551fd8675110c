/** Commands that move virtual servers: takeover, giveback, transfer. */
import type { CommandAnswer, CommandRequest, Status, Veto } from "../schema/status.ts";
import { call, get, parse, refusal } from "./client.ts";
import { CliError, type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, plain, printJson } from "./io.ts";

export interface MoveOptions extends CommonOptions {
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly reason: string;
  readonly yes: boolean;
  /** Wait for the end of the move for so many seconds; undefined: return when it has begun. */
  readonly waitSeconds: number | undefined;
}

export interface Move {
  readonly kind: "takeover" | "giveback" | "transfer";
  /** Only for a transfer. */
  readonly name?: string | undefined;
}

const pollMs = 100;
/** Reasons that pass by themselves. */
const passingVetoes = new Set(["transferUnderWay", "serverBusy"]);

/** Asks for the move, prints the plan or the reasons against it, and with `--wait` stays until it has ended. */
export async function runMove(io: Io, options: MoveOptions, move: Move): Promise<ExitCode> {
  await confirmForce(io, options, move);
  const before = await readStatus(options.socket);
  const answer = await ask(options, move);
  if (options.output === "json" && (!answer.accepted || options.waitSeconds === undefined))
    printJson(io, answer);
  if (options.output === "table") await printAnswer(io, options, move, answer);
  if (!answer.accepted) return refusedExit(before, answer.vetoes);
  if (options.dryRun || options.waitSeconds === undefined) return exitCodes.ok;
  return await waitForEnd(
    io,
    { ...options, waitSeconds: options.waitSeconds },
    answer,
    before,
    move,
  );
}

/** SAFETY forcedIsAudited: an override cannot happen by accident, and says why. */
async function confirmForce(io: Io, options: MoveOptions, move: Move): Promise<void> {
  if (!options.force) return;
  if (options.reason.trim() === "")
    throw new CliError(exitCodes.usage, "usage", "--force needs --reason TEXT; it is recorded");
  if (options.yes || options.dryRun) return;
  if (!io.interactive)
    throw new CliError(exitCodes.usage, "usage", "--force needs --yes where nobody can be asked");
  const answer = await io.ask(`Force ${move.kind} over soft vetoes? Type "yes" to go on: `);
  if (answer.trim() !== "yes")
    throw new CliError(exitCodes.failure, "declined", "not confirmed; nothing was done");
}

async function readStatus(socket: string): Promise<Status> {
  const { statusSchema } = await import("../schema/status.ts");
  return (await get(socket, "/v1/status", statusSchema)).value;
}

async function ask(options: MoveOptions, move: Move): Promise<CommandAnswer> {
  const path =
    move.kind === "transfer"
      ? `/v1/vservers/${encodeURIComponent(move.name ?? "")}/transfer`
      : `/v1/${move.kind}`;
  const { dryRun, force, reason } = options;
  const request: CommandRequest = { dryRun, force, reason, by: await whoAsks() };
  const answer = await call(options.socket, "POST", path, request);
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

async function printAnswer(
  io: Io,
  options: MoveOptions,
  move: Move,
  answer: CommandAnswer,
): Promise<void> {
  const { planText, vetoesText } = await import("./text.ts");
  const what = move.name === undefined ? move.kind : `${move.kind} of ${move.name}`;
  if (!answer.accepted) {
    io.err(vetoesText(what, answer.vetoes));
    if (answer.vetoes.every((veto) => veto.severity === "soft"))
      io.err("every reason is soft: --force --reason TEXT overrides them\n");
    return;
  }
  io.out(options.dryRun ? `${what} is possible; it would do:\n` : `${what} has begun:\n`);
  io.out(planText(answer.plan));
}

function refusedExit(status: Status, vetoes: readonly Veto[]): ExitCode {
  if (!status.partner.heard) return exitCodes.partnerUnreachable;
  const hard = vetoes.filter((veto) => veto.severity === "hard");
  if (hard.length > 0 && hard.every((veto) => passingVetoes.has(veto.code)))
    return exitCodes.tryAgain;
  return exitCodes.notPossible;
}

/** Polls until every moved server is where it should be; prints each change of each server. */
async function waitForEnd(
  io: Io,
  options: MoveOptions & { readonly waitSeconds: number },
  answer: CommandAnswer,
  before: Status,
  move: Move,
): Promise<ExitCode> {
  const targets = new Map(
    answer.plan.map(({ virtualServer }) => [virtualServer, target(before, virtualServer, move)]),
  );
  const said = new Map<string, string>();
  const deadlineMs = performance.now() + options.waitSeconds * 1000;
  for (;;) {
    const status = await readStatus(options.socket);
    const moved = status.virtualServers.filter((server) => targets.has(server.name));
    for (const server of moved) {
      const text = `${server.state}${server.step === undefined ? "" : ` (${server.step})`}`;
      if (said.get(server.name) === text) continue;
      said.set(server.name, text);
      if (options.output === "table") io.out(`${plain(`${server.name}: ${text}`)}\n`);
    }
    // What had failed before, and waits for its turn to be moved, is no failure of the move.
    const failed = moved.find((server) => server.state === "failed" && server.step !== "queued");
    if (failed !== undefined)
      throw new CliError(
        exitCodes.failure,
        "moveFailed",
        `${failed.name} failed: ${failed.fault ?? "no reason given"}`,
      );
    if (moved.every((server) => arrived(status, server, targets.get(server.name)))) {
      if (options.output === "json") printJson(io, answer);
      else io.out(`${move.kind} done\n`);
      return exitCodes.ok;
    }
    if (performance.now() >= deadlineMs)
      throw new CliError(
        exitCodes.failure,
        "timeout",
        `${move.kind} has not ended within ${options.waitSeconds} s; see dyad status`,
      );
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

function target(before: Status, name: string, move: Move): "a" | "b" {
  const server = before.virtualServers.find((each) => each.name === name);
  const partner = before.controller === "a" ? "b" : "a";
  if (move.kind === "takeover") return before.controller;
  if (move.kind === "giveback") return server?.home ?? partner;
  return server?.owner === before.controller ? partner : before.controller;
}

function arrived(
  status: Status,
  server: Status["virtualServers"][number],
  to: "a" | "b" | undefined,
): boolean {
  if (server.owner !== to) return false;
  return server.state === (to === status.controller ? "serving" : "elsewhere");
}
