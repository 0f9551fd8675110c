/** Commands that only look: status, virtual servers, disks, events. */
import type { z } from "zod";
import { followEvents, get, parse } from "./client.ts";
import { type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, printJson } from "./io.ts";

/** `dyad status`: 0 when all is well, 3 when it is not. */
export async function showStatus(io: Io, options: CommonOptions): Promise<ExitCode> {
  const { statusSchema } = await import("../schema/status.ts");
  const { value, raw } = await get(options.socket, "/v1/status", statusSchema);
  if (options.output === "json") printJson(io, raw);
  else {
    const { coloursFor, statusText } = await import("./text.ts");
    io.out(statusText(value, coloursFor(io.colour)));
  }
  return value.health === "ok" ? exitCodes.ok : exitCodes.degraded;
}

export async function listVirtualServers(io: Io, options: CommonOptions): Promise<ExitCode> {
  const { virtualServerListSchema } = await import("../schema/api.ts");
  const { value, raw } = await get(options.socket, "/v1/vservers", virtualServerListSchema);
  if (options.output === "json") printEach(io, (raw as typeof value).virtualServers);
  else {
    const { coloursFor, virtualServersText } = await import("./text.ts");
    io.out(virtualServersText(value.virtualServers, coloursFor(io.colour)));
  }
  return exitCodes.ok;
}

export interface ServerOptions extends CommonOptions {
  /** Only what it is to be, as `create` and `modify` read it. */
  readonly tomlOnly: boolean;
}

/** How it is on this controller, and what it is to be. */
export async function showVirtualServer(
  io: Io,
  options: ServerOptions,
  name: string,
): Promise<ExitCode> {
  const { virtualServerStatusSchema } = await import("../schema/status.ts");
  const { definitionViewSchema } = await import("../schema/api-change.ts");
  const path = `/v1/vservers/${encodeURIComponent(name)}`;
  const [status, definition] = await Promise.all([
    get(options.socket, path, virtualServerStatusSchema),
    get(options.socket, `${path}/definition`, definitionViewSchema),
  ]);
  if (options.output === "json")
    printJson(io, { ...(status.raw as object), definition: definition.raw });
  else {
    const { formatServer } = await import("../schema/server-text.ts");
    const toml = formatServer(definition.value.server);
    const { coloursFor, virtualServerText } = await import("./text.ts");
    const text = virtualServerText(status.value, definition.value, coloursFor(io.colour));
    io.out(options.tomlOnly ? toml : `${text}\n${toml}`);
  }
  return exitCodes.ok;
}

export async function listDisks(io: Io, options: CommonOptions): Promise<ExitCode> {
  const { diskListSchema } = await import("../schema/api.ts");
  const { value, raw } = await get(options.socket, "/v1/disks", diskListSchema);
  if (options.output === "json") printEach(io, (raw as typeof value).disks);
  else {
    const { coloursFor, disksText } = await import("./text.ts");
    io.out(disksText(value.disks, coloursFor(io.colour)));
  }
  return exitCodes.ok;
}

export interface EventOptions extends CommonOptions {
  readonly follow: boolean;
  readonly after: number;
  readonly limit: number;
}

/** `dyad events`: the newest ones; with `follow` also those to come, until the daemon ends or the operator has seen enough. */
export async function showEvents(io: Io, options: EventOptions): Promise<ExitCode> {
  const { eventSchema } = await import("../schema/status.ts");
  const { eventListSchema } = await import("../schema/api.ts");
  const print = await eventPrinter(io, options);
  const path = `/v1/events?after=${options.after}&limit=${options.limit}`;
  const { value, raw } = await get(options.socket, path, eventListSchema);
  value.events.forEach((event, i) => {
    print(event, (raw as typeof value).events[i]);
  });
  if (!options.follow) return exitCodes.ok;
  const last = value.events.at(-1)?.sequence ?? options.after;
  const onEvent = (json: string) => {
    const event = parse(json, eventSchema);
    print(event.value, event.raw);
  };
  await followEvents(options.socket, last, onEvent);
  io.err("dyad: the daemon ended the stream\n");
  return exitCodes.daemonUnreachable;
}

type Event = z.infer<typeof import("../schema/status.ts").eventSchema>;

async function eventPrinter(
  io: Io,
  options: CommonOptions,
): Promise<(event: Event, raw: unknown) => void> {
  if (options.output === "json") return (_, raw) => printJson(io, raw);
  const { coloursFor, eventText } = await import("./text.ts");
  const colours = coloursFor(io.colour);
  return (event) => io.out(eventText(event, colours));
}

function printEach(io: Io, values: readonly unknown[]): void {
  for (const value of values) printJson(io, value);
}
