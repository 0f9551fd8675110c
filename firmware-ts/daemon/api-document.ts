/**
 * The routes of the HTTP API as documents: method, path, what goes in and what comes out. The handlers are bound to
 * them in api.ts; docs/openapi.json is generated from them and compared by a test.
 */
import { createRoute, z } from "@hono/zod-openapi";
import {
  apiErrorSchema,
  diskListSchema,
  eventListSchema,
  eventQuerySchema,
  pressRequestSchema,
  readinessSchema,
  virtualServerListSchema,
} from "../schema/api.ts";
import { virtualServerNameSchema } from "../schema/ids.ts";
import {
  commandAnswerSchema,
  commandRequestSchema,
  panelViewSchema,
  statusSchema,
  virtualServerStatusSchema,
} from "../schema/status.ts";

export const error = apiErrorSchema.meta({ id: "Error" });
const answer = commandAnswerSchema.meta({ id: "CommandAnswer" });
const request = commandRequestSchema.meta({ id: "CommandRequest" });
const virtualServer = virtualServerStatusSchema.meta({ id: "VirtualServer" });
const panel = panelViewSchema.meta({ id: "Panel" });

export const json = <T extends z.ZodType>(schema: T, description: string) => ({
  description,
  content: { "application/json": { schema } },
});
const text = (description: string) => ({
  description,
  content: { "text/plain": { schema: z.string() } },
});
export const refusals = {
  400: json(error, "the request is not understood; nothing was done"),
  500: json(error, "the daemon failed; see its log"),
};
export const nameParameter = z.strictObject({ name: virtualServerNameSchema });

export const statusRoute = createRoute({
  method: "get",
  path: "/v1/status",
  summary: "The state of the pair as this controller knows it",
  responses: { 200: json(statusSchema.meta({ id: "Status" }), "the state"), ...refusals },
});

export const eventsRoute = createRoute({
  method: "get",
  path: "/v1/events",
  summary: "Operator events, oldest first",
  description:
    "With `Accept: text/event-stream` a stream of server-sent events that begins with the kept events after `Last-Event-ID` (or `after`) and goes on; a reader that falls too far behind is cut off and may resume.",
  request: { query: eventQuerySchema },
  responses: {
    200: {
      description: "the newest kept events, or the stream",
      content: {
        "application/json": { schema: eventListSchema.meta({ id: "Events" }) },
        "text/event-stream": { schema: z.string() },
      },
    },
    503: json(error, "too many streams are open"),
    ...refusals,
  },
});

export const commandResponses = {
  200: json(answer, "dry run: what would happen, and what speaks against it"),
  202: json(answer, "accepted: the plan that is being carried out"),
  409: json(error, "not possible now; every reason is listed"),
  411: json(error, "the body does not state its length"),
  413: json(error, "the body is too large"),
  415: json(error, "the body is not JSON"),
  503: json(error, "no decision in time; look at the status before trying again"),
  ...refusals,
};
const commandBody = {
  body: { required: false, content: { "application/json": { schema: request } } },
} as const;

export const takeoverRoute = createRoute({
  method: "post",
  path: "/v1/takeover",
  summary: "This controller takes its partner's virtual servers",
  request: commandBody,
  responses: commandResponses,
});

export const givebackRoute = createRoute({
  method: "post",
  path: "/v1/giveback",
  summary: "Every virtual server returns to its home",
  request: commandBody,
  responses: commandResponses,
});

export const virtualServersRoute = createRoute({
  method: "get",
  path: "/v1/vservers",
  summary: "All virtual servers",
  responses: {
    200: json(
      virtualServerListSchema.meta({ id: "VirtualServers" }),
      "in the order of the configuration",
    ),
    ...refusals,
  },
});

export const virtualServerRoute = createRoute({
  method: "get",
  path: "/v1/vservers/{name}",
  summary: "One virtual server",
  request: { params: nameParameter },
  responses: {
    200: json(virtualServer, "the virtual server"),
    404: json(error, "no virtual server has that name"),
    ...refusals,
  },
});

export const transferRoute = createRoute({
  method: "post",
  path: "/v1/vservers/{name}/transfer",
  summary: "One virtual server moves to the other controller",
  request: { params: nameParameter, ...commandBody },
  responses: { ...commandResponses, 404: json(error, "no virtual server has that name") },
});

export const disksRoute = createRoute({
  method: "get",
  path: "/v1/disks",
  summary: "Coordinator and data disks, and who holds them",
  responses: { 200: json(diskListSchema.meta({ id: "Disks" }), "the disks"), ...refusals },
});

export const panelRoute = createRoute({
  method: "get",
  path: "/v1/panel",
  summary: "What the front panel shows",
  responses: { 200: json(panel, "two lines of 20 characters, four lights"), ...refusals },
});

export const pressRoute = createRoute({
  method: "post",
  path: "/v1/panel/press",
  summary: "Press a button of the front panel",
  request: {
    body: {
      required: true,
      content: { "application/json": { schema: pressRequestSchema.meta({ id: "Press" }) } },
    },
  },
  responses: {
    200: json(panel, "what the panel shows now"),
    413: json(error, "the body is too large"),
    415: json(error, "the body is not JSON"),
    ...refusals,
  },
});

export const healthRoute = createRoute({
  method: "get",
  path: "/healthz",
  summary: "The daemon's loop runs",
  responses: { 200: text("it does, since it answers") },
});

export const readyRoute = createRoute({
  method: "get",
  path: "/readyz",
  summary: "The controller has found its place in the pair",
  responses: {
    200: json(readinessSchema.meta({ id: "Readiness" }), "paired, or alone and serving"),
    503: json(error, "still starting, joining or racing, or out of the pair"),
  },
});

export const metricsRoute = createRoute({
  method: "get",
  path: "/metrics",
  summary: "Prometheus metrics, text format 0.0.4",
  responses: { 200: text("the metrics"), 500: json(error, "the daemon failed; see its log") },
});

export const documentHead = {
  openapi: "3.1.0",
  info: {
    title: "Dyad controller",
    version: "1",
    description:
      "The local API of one controller, on a unix socket that only root may open. Errors are `{error: {code, message}}`.",
  },
};
