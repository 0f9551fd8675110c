/**
 * The HTTP API of one controller: hono over a unix socket. It shows and asks; it decides nothing. Every request is parsed by
 * the schemas of api-document.ts, every limit is named here, and every error becomes `{error: {code, message}}` and a count.
 *
 * It runs in the daemon's thread, so no handler does more than serialise what the daemon already knows.
 */
import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener, type HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { OpenAPIHono } from "@hono/zod-openapi";
import { HTTPException } from "hono/http-exception";
import type { z } from "zod";
import { apiBodyBytesMax, apiEventsMax, sequenceTextSchema } from "../schema/api.ts";
import { issueWords } from "../schema/config-words.ts";
import type { Outcome } from "../schema/outcome.ts";
import { type ApiBackend, type ApiCounters, ApiError, sendError } from "./api-backend.ts";
import { type App, bindChanges, bindCommands, findVirtualServer } from "./api-commands.ts";
import * as routes from "./api-document.ts";
import { streamEvents } from "./api-events.ts";
import { listenOnSocket } from "./api-socket.ts";

const headerBytesMax = 8 * 1024;
const headersTimeoutMs = 5_000;
const requestTimeoutMs = 10_000;
const connectionsMax = 64;

export interface Api {
  readonly counters: Readonly<ApiCounters>;
  /** The OpenAPI 3.1 document. */
  readonly document: () => object;
  /** Starts to listen on a unix socket, mode 0600; a stale file is replaced, a live one is an error. */
  readonly listen: (path: string) => Promise<Outcome<string>>;
  /** Ends every connection, streams too, and removes the socket file. */
  readonly close: () => Promise<void>;
}

/** Builds the API; nothing listens until `listen`. */
export function createApi(backend: ApiBackend): Api {
  const counters: ApiCounters = { requests: 0, errors: {}, streams: 0, streamsDropped: 0 };
  const app: App = new OpenAPIHono<{ Bindings: HttpBindings }>({
    defaultHook: (result) => {
      if (!result.success)
        throw new ApiError(400, "badRequest", describeIssues(result.error.issues));
    },
  });
  app.use(async (context, next) => {
    counters.requests += 1;
    refuseLongBody(context.req.header("content-length"), context.req.header("transfer-encoding"));
    await next();
  });
  bindReaders(app, backend, counters);
  bindCommands(app, backend);
  bindChanges(app, backend);
  let cachedDocument: object | undefined;
  const document = () => (cachedDocument ??= app.getOpenAPI31Document(routes.documentHead));
  app.get("/v1/openapi.json", (context) => context.json(document()));
  app.notFound((context) => sendError(context, counters, unknownPlace(app, context.req)));
  app.onError((error, context) => sendError(context, counters, asApiError(error, backend)));
  const server = createLimitedServer(app, counters);
  return {
    counters,
    document,
    listen: (path) => listenOnSocket(server, path),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Everything that only shows. */
function bindReaders(app: App, backend: ApiBackend, counters: ApiCounters): void {
  app.openapi(routes.statusRoute, (context) => context.json(backend.status(), 200));
  app.openapi(routes.eventsRoute, (context) => {
    const { after, limit } = context.req.valid("query");
    if (!(context.req.header("accept") ?? "").includes("text/event-stream")) {
      const events = backend.events(after ?? 0).slice(-(limit ?? apiEventsMax));
      return context.json({ events: [...events] }, 200);
    }
    const resumed = context.req.header("last-event-id");
    const parsed = sequenceTextSchema.safeParse(resumed ?? String(after ?? 0));
    if (!parsed.success)
      throw new ApiError(400, "badRequest", "Last-Event-ID: expected a whole number");
    streamEvents(backend, counters, context.env.outgoing, parsed.data);
    return RESPONSE_ALREADY_SENT as never;
  });
  app.openapi(routes.virtualServersRoute, (context) =>
    context.json({ virtualServers: backend.status().virtualServers }, 200),
  );
  app.openapi(routes.virtualServerRoute, (context) =>
    context.json(findVirtualServer(backend, context.req.valid("param").name), 200),
  );
  app.openapi(routes.disksRoute, (context) => context.json({ disks: backend.status().disks }, 200));
  app.openapi(routes.panelRoute, (context) => context.json(backend.panel(), 200));
  app.openapi(routes.healthRoute, (context) => context.text("ok\n", 200));
  app.openapi(routes.readyRoute, (context) => {
    const { mode } = backend.status();
    if (mode !== "paired" && mode !== "alone")
      throw new ApiError(503, "notReady", `this controller is ${mode}`);
    return context.json({ ready: true, mode }, 200);
  });
  app.openapi(routes.metricsRoute, async (context) =>
    context.text(await backend.metrics(), 200, {
      "content-type": "text/plain; version=0.0.4; charset=utf-8",
    }),
  );
}

/** A body must state its length, which is judged before a byte of it is read; Node's parser holds the sender to it. */
function refuseLongBody(length: string | undefined, encoding: string | undefined): void {
  if (encoding !== undefined)
    throw new ApiError(411, "badRequest", "expected content-length, found transfer-encoding");
  if (Number(length ?? 0) > apiBodyBytesMax)
    throw new ApiError(413, "tooLarge", `expected a body of at most ${apiBodyBytesMax} bytes`);
}

/** Of a virtual server, in the words of the configuration file; keys are written as the client has written them. */
function describeIssues(issues: readonly z.core.$ZodIssue[]): string {
  const lines = issues.flatMap((issue) => {
    const [first, ...rest] = issue.path.map((part) => (typeof part === "symbol" ? "" : part));
    const base = first === "server" ? (["virtualServers", 0, ...rest] as const) : undefined;
    const path = issue.path.map(String).join(".");
    const messages = base ? issueWords(issue, base) : [issue.message];
    return messages.map((message) => (path === "" ? message : `${path}: ${message}`));
  });
  return lines.join("; ").slice(0, 500);
}

function asApiError(error: Error, backend: ApiBackend): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof HTTPException)
    return error.status === 415
      ? new ApiError(415, "unsupportedMediaType", "expected content-type: application/json")
      : new ApiError(400, "badRequest", error.message || "the request is not understood");
  backend.log?.(`api: a handler failed: ${error.stack ?? error.message}`);
  return new ApiError(500, "internal", "the daemon failed to answer; see its log");
}

/** Tells a path that does not exist from one that wants another method. */
function unknownPlace(app: App, request: { path: string; method: string }): ApiError {
  const place = `${request.method} ${request.path}`.slice(0, 200);
  const methods = app.routes.filter(
    (route) =>
      route.method !== "ALL" &&
      new RegExp(`^${route.path.replaceAll(/:[^/]+/g, "[^/]+").replaceAll(".", "\\.")}$`).test(
        request.path,
      ),
  );
  if (methods.length === 0) return new ApiError(404, "notFound", `nothing is at ${place}`);
  const allowed = [...new Set(methods.map((route) => route.method))].join(", ");
  return new ApiError(405, "methodNotAllowed", `expected ${allowed}, found ${place}`);
}

function createLimitedServer(app: App, counters: ApiCounters): Server {
  const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const server = createServer(
    {
      maxHeaderSize: headerBytesMax,
      headersTimeout: headersTimeoutMs,
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: 1_000,
    },
    (incoming, outgoing) => {
      // The listener answers its own errors; its promise only says when.
      void listener(incoming, outgoing);
    },
  );
  server.maxConnections = connectionsMax;
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
    refuseNonHttp(error, socket, counters);
  });
  return server;
}

/** Bytes that are not HTTP, or too much of it, never reach hono: they are answered and counted here. */
function refuseNonHttp(error: NodeJS.ErrnoException, socket: Socket, counters: ApiCounters): void {
  counters.requests += 1;
  counters.errors.badRequest = (counters.errors.badRequest ?? 0) + 1;
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const body = JSON.stringify({ error: { code: "badRequest", message: "expected HTTP/1.1" } });
  socket.end(
    `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
  );
}
