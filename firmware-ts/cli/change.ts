/**
 * Commands that change what a virtual server is to be: create, modify, start, stop, delete. A change of something that is there is made for the definition
 * that was read, so that nobody undoes by accident what somebody else has just done.
 */
import type { DefinitionView } from "../schema/api-change.ts";
import type { VirtualServerInput } from "../schema/config.ts";
import { isSame } from "../schema/definition-digest.ts";
import { type ControllerId, partnerOf } from "../schema/ids.ts";
import type { CommandAnswer, Status } from "../schema/status.ts";
import { get } from "./client.ts";
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

type Action = "create" | "modify" | "start" | "stop" | "delete";
type Server = Status["virtualServers"][number];

const pollMs = 100;

const methods = {
  create: "POST",
  modify: "PUT",
  start: "POST",
  stop: "POST",
  delete: "DELETE",
} as const;

/** What it will be, as the daemon has it. */
async function readDefinition(socket: string, name: string): Promise<DefinitionView> {
  const { definitionViewSchema } = await import("../schema/api-change.ts");
  const path = `/v1/vservers/${encodeURIComponent(name)}/definition`;
  return (await get(socket, path, definitionViewSchema)).value;
}

/** Creates one; without a home it is at home where it was asked for. */
export async function createServer(
  io: Io,
  options: CommandOptions,
  server: Omit<VirtualServerInput, "home"> & { readonly home?: ControllerId | undefined },
): Promise<ExitCode> {
  const home = server.home ?? (await readStatus(options.socket)).controller;
  return await runChange(io, options, { action: "create", server: { ...server, home } });
}

/** Changes one that is there by `edit`, which throws what it has against it. */
export async function editServer(
  io: Io,
  options: CommandOptions,
  name: string,
  edit: (server: VirtualServerInput) => VirtualServerInput,
): Promise<ExitCode> {
  const { server, sequence } = await readDefinition(options.socket, name);
  return await runChange(io, options, { action: "modify", server: edit(server), sequence });
}

/** Starts, stops or deletes one as it is now. */
export async function commandServer(
  io: Io,
  options: CommandOptions,
  action: "start" | "stop" | "delete",
  name: string,
): Promise<ExitCode> {
  const { server, sequence } = await readDefinition(options.socket, name);
  return await runChange(io, options, { action, server, sequence });
}

interface Change {
  readonly action: Action;
  readonly server: VirtualServerInput;
  readonly sequence?: number;
}

async function runChange(io: Io, options: CommandOptions, change: Change): Promise<ExitCode> {
  const { action, server, sequence } = change;
  const what = `${action} ${server.name}`;
  await confirmForce(io, options, what);
  const place = `/v1/vservers/${encodeURIComponent(server.name)}`;
  const path =
    action === "create"
      ? "/v1/vservers"
      : `${place}${action === "start" || action === "stop" ? `/${action}` : ""}`;
  const body = {
    ...(action === "create" || action === "modify" ? { server } : {}),
    ...(sequence === undefined ? {} : { expectedSequence: sequence }),
  };
  const answer = await sendCommand(options, methods[action], path, body);
  await printAnswer(io, options, answer, {
    what,
    accepted: "is stored",
    nothing: "nothing has to be changed",
  });
  if (!answer.accepted) return await refused(io, options, answer);
  if (options.dryRun || options.waitSeconds === undefined) return exitCodes.ok;
  return await waitForEnd(io, { ...options, waitSeconds: options.waitSeconds }, change, answer);
}

/** Where the command belongs is said in words that can be followed. */
async function refused(io: Io, options: CommandOptions, answer: CommandAnswer): Promise<ExitCode> {
  const { vetoes } = answer;
  if (options.output === "table" && vetoes.some(({ code }) => code === "notHere")) {
    const { controller } = await readStatus(options.socket);
    io.err(`give this command at controller ${partnerOf(controller)}\n`);
  }
  if (options.output === "table" && vetoes.some(({ code }) => code === "changed"))
    io.err("somebody else has changed it in the meantime: look at it, and try again\n");
  return isPassing(vetoes) ? exitCodes.tryAgain : exitCodes.notPossible;
}

/** Polls until the virtual server is as it is to be; prints each change of its state. */
async function waitForEnd(
  io: Io,
  options: CommandOptions & { readonly waitSeconds: number },
  { action, server }: Change,
  answer: CommandAnswer,
): Promise<ExitCode> {
  const { name } = server;
  const { defaultLimits } = await import("../schema/config.ts");
  // A limit that was taken away may have a default.
  const wanted = { ...server, limits: { ...defaultLimits, ...server.limits } };
  let said = "";
  const deadlineMs = performance.now() + options.waitSeconds * 1000;
  for (;;) {
    const status = await readStatus(options.socket);
    const found = status.virtualServers.find((each) => each.name === name);
    const text = found ? stateOf(found) : action === "delete" ? "gone" : "not there yet";
    if (text !== said && options.output === "table") io.out(`${plain(`${name}: ${text}`)}\n`);
    said = text;
    if (isDone(action, wanted, found)) {
      if (options.output === "json") printJson(io, answer);
      else io.out(`${action} ${name} done\n`);
      return exitCodes.ok;
    }
    if (found?.state === "failed")
      throw new CliError(
        exitCodes.failure,
        "changeFailed",
        `${name} failed: ${found.fault ?? "no reason given"}`,
      );
    if (performance.now() >= deadlineMs)
      throw new CliError(
        exitCodes.failure,
        "timeout",
        `${action} ${name} is stored, and has not ended within ${options.waitSeconds} s; see dyad vserver show ${name}`,
      );
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

const stateOf = ({ state, step, owner }: Server) =>
  `${state}${step === undefined ? "" : ` (${step})`}${state === "elsewhere" ? ` (${owner})` : ""}`;

function isDone(action: Action, wanted: VirtualServerInput, server: Server | undefined): boolean {
  if (action === "delete") return server === undefined;
  if (!server) return false;
  if (action === "stop") return server.state === "stopped";
  const isSettled = ["serving", "elsewhere", "stopped"].includes(server.state);
  if (action === "modify")
    return (
      isSettled &&
      isSame(server.addresses, wanted.addresses) &&
      isSame(server.exports, exportsOf(wanted)) &&
      isSame(server.shares ?? [], sharesOf(wanted)) &&
      isSame(server.limits, wanted.limits)
    );
  return server.state === "serving" || server.state === "elsewhere";
}

const exportsOf = ({ volumes }: VirtualServerInput) =>
  volumes.flatMap((volume) => volume.export ?? []);
const sharesOf = ({ volumes }: VirtualServerInput) =>
  volumes.flatMap((volume) => volume.share ?? []);
