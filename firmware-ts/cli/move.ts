/** Commands that move virtual servers: takeover, giveback, transfer. */
import type { CommandAnswer, Status } from "../schema/status.ts";
import {
  type CommandOptions,
  confirmForce,
  isPassing,
  printAnswer,
  readStatus,
  sendCommand,
} from "./command.ts";
import { CliError, type ExitCode, exitCodes } from "./exit.ts";
import { type Io, plain, printJson } from "./io.ts";

export interface Move {
  readonly kind: "takeover" | "giveback" | "transfer";
  /** Only for a transfer. */
  readonly name?: string | undefined;
}

const pollMs = 100;
/** Asks for the move, prints the plan or the reasons against it, and with `--wait` stays until it has ended. */
export async function runMove(io: Io, options: CommandOptions, move: Move): Promise<ExitCode> {
  await confirmForce(io, options, move.kind);
  const before = await readStatus(options.socket);
  const path =
    move.kind === "transfer"
      ? `/v1/vservers/${encodeURIComponent(move.name ?? "")}/transfer`
      : `/v1/${move.kind}`;
  const answer = await sendCommand(options, "POST", path);
  const what = move.name === undefined ? move.kind : `${move.kind} of ${move.name}`;
  await printAnswer(io, options, answer, {
    what,
    accepted: "has begun",
    nothing: "nothing has to be moved",
  });
  if (!answer.accepted) {
    if (!before.partner.heard) return exitCodes.partnerUnreachable;
    return isPassing(answer.vetoes) ? exitCodes.tryAgain : exitCodes.notPossible;
  }
  if (options.dryRun || options.waitSeconds === undefined) return exitCodes.ok;
  return await waitForEnd(
    io,
    { ...options, waitSeconds: options.waitSeconds },
    answer,
    before,
    move,
  );
}

/** Polls until every moved server is where it should be; prints each change of each server. */
async function waitForEnd(
  io: Io,
  options: CommandOptions & { readonly waitSeconds: number },
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
