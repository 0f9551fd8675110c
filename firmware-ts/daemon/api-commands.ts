/** The part of the HTTP API that asks the daemon to do something: moves, changes of virtual servers, buttons. */
import type { HttpBindings } from "@hono/node-server";
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Change } from "../core/events.ts";
import { existingRequestSchema } from "../schema/api-change.ts";
import { type VirtualServerInput, virtualServerSchema } from "../schema/config.ts";
import { type CommandAnswer, type CommandRequest, commandRequestSchema } from "../schema/status.ts";
import { type ApiBackend, ApiError, type CommandKind } from "./api-backend.ts";
import * as changes from "./api-change-document.ts";
import * as routes from "./api-document.ts";

/** A decision takes milliseconds, a change as long as it takes to store it; a daemon that has not answered by then will not. */
const commandTimeoutMs = 10_000;

export type App = OpenAPIHono<{ Bindings: HttpBindings }>;

/** Moves, and the front panel's buttons. */
export function bindCommands(app: App, backend: ApiBackend): void {
  const run = (kind: CommandKind, name: string | undefined, body: unknown) => {
    const request = parseCommand(body);
    return answered(kind, request, backend.command(kind, name, request));
  };
  app.openapi(routes.takeoverRoute, async (context) => {
    const { answer, status } = await run("takeover", undefined, context.req.valid("json"));
    return context.json(answer, status);
  });
  app.openapi(routes.givebackRoute, async (context) => {
    const { answer, status } = await run("giveback", undefined, context.req.valid("json"));
    return context.json(answer, status);
  });
  app.openapi(routes.transferRoute, async (context) => {
    const { name } = findVirtualServer(backend, context.req.valid("param").name);
    const { answer, status } = await run("transfer", name, context.req.valid("json"));
    return context.json(answer, status);
  });
  app.openapi(routes.pressRoute, (context) => {
    backend.press(context.req.valid("json").button);
    return context.json(backend.panel(), 200);
  });
}

/** Virtual servers come, change and go. */
export function bindChanges(app: App, backend: ApiBackend): void {
  const run = (change: Change, body: unknown) => {
    const request = parseCommand(body);
    return answered(`${change.action} ${change.name}`, request, backend.change(change, request));
  };
  const runExisting = (action: "start" | "stop" | "delete", name: string, body: unknown) => {
    findDefinition(backend, name);
    const { expectedSequence, ...request } = existingRequestSchema.parse(body);
    return run({ action, name, expectedSequence }, request);
  };
  app.openapi(changes.definitionRoute, (context) =>
    context.json(findDefinition(backend, context.req.valid("param").name), 200),
  );
  app.openapi(changes.createServerRoute, async (context) => {
    const { server, ...request } = context.req.valid("json");
    const change = { action: "create", name: server.name, server: wholeServer(server) } as const;
    const { answer, status } = await run(change, request);
    return context.json(answer, status);
  });
  app.openapi(changes.modifyRoute, async (context) => {
    const { name } = context.req.valid("param");
    const former = findDefinition(backend, name);
    const { server, expectedSequence, ...request } = context.req.valid("json");
    const whole = wholeServer(server, former.server);
    const change = { action: "modify", name, server: whole, expectedSequence } as const;
    const { answer, status } = await run(change, request);
    return context.json(answer, status);
  });
  app.openapi(changes.startRoute, async (context) => {
    const { name } = context.req.valid("param");
    const { answer, status } = await runExisting("start", name, context.req.valid("json"));
    return context.json(answer, status);
  });
  app.openapi(changes.stopRoute, async (context) => {
    const { name } = context.req.valid("param");
    const { answer, status } = await runExisting("stop", name, context.req.valid("json"));
    return context.json(answer, status);
  });
  app.openapi(changes.deleteRoute, async (context) => {
    const { name } = context.req.valid("param");
    const { answer, status } = await runExisting("delete", name, context.req.valid("json"));
    return context.json(answer, status);
  });
}

/** Every volume with its id: where none is said, that of the same disk in `former`, and for a new disk a new one. */
function wholeServer(server: VirtualServerInput, former?: VirtualServerInput) {
  const volumes = server.volumes.map((volume) => {
    const id = volume.id ?? former?.volumes.find(({ disk }) => disk === volume.disk)?.id;
    return id === undefined ? volume : { ...volume, id };
  });
  return virtualServerSchema.parse({ ...server, volumes });
}

function findDefinition(backend: ApiBackend, name: string) {
  const found = backend.definitions().find(({ server }) => server.name === name);
  return found ?? unknownServer(name);
}

export function findVirtualServer(backend: ApiBackend, name: string) {
  const found = backend.status().virtualServers.find((each) => each.name === name);
  return found ?? unknownServer(name);
}

function unknownServer(name: string): never {
  throw new ApiError(404, "notFound", `expected the name of a virtual server, found ${name}`);
}

async function answered(what: string, request: CommandRequest, command: Promise<CommandAnswer>) {
  const answer = await withTimeout(command);
  if (!answer.accepted && !request.dryRun)
    throw new ApiError(409, "notPossible", `${what} is not possible now`, answer.vetoes);
  return { answer, status: request.dryRun ? (200 as const) : (202 as const) };
}

/** A request without a body means all defaults, which the route's validator does not fill in then. */
function parseCommand(body: unknown): CommandRequest {
  const request = commandRequestSchema.parse(body);
  // SAFETY forcedIsAudited: an override without a stated reason is refused.
  if (request.force && request.reason.trim() === "")
    throw new ApiError(400, "badRequest", "reason: expected a reason together with force");
  return request;
}

async function withTimeout<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const message = "no decision in time: look at the status before trying again";
    timer = setTimeout(() => reject(new ApiError(503, "busy", message)), commandTimeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
