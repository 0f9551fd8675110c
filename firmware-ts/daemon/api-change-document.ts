/** The routes by which virtual servers are created, changed and deleted, as documents; bound to handlers in api-commands.ts. */
import { createRoute } from "@hono/zod-openapi";
import {
  createRequestSchema,
  definitionViewSchema,
  existingRequestSchema,
  modifyRequestSchema,
} from "../schema/api-change.ts";
import { commandResponses, error, json, nameParameter, refusals } from "./api-document.ts";

const definition = definitionViewSchema.meta({ id: "Definition" });
const existing = existingRequestSchema.meta({ id: "ExistingRequest" });
const unknown = { 404: json(error, "no virtual server has that name") };

const existingBody = {
  body: { required: false, content: { "application/json": { schema: existing } } },
} as const;

const sequenceText =
  "With `expectedSequence` it is refused (veto `changed`) when the definition has another sequence by now.";

export const definitionRoute = createRoute({
  method: "get",
  path: "/v1/vservers/{name}/definition",
  summary: "What a virtual server is to be, and the sequence of that",
  request: { params: nameParameter },
  responses: { 200: json(definition, "the definition"), ...unknown, ...refusals },
});

export const createServerRoute = createRoute({
  method: "post",
  path: "/v1/vservers",
  summary: "Create a virtual server, and start it at its home",
  request: {
    body: {
      required: true,
      content: {
        "application/json": { schema: createRequestSchema.meta({ id: "CreateRequest" }) },
      },
    },
  },
  responses: commandResponses,
});

export const modifyRoute = createRoute({
  method: "put",
  path: "/v1/vservers/{name}",
  summary: "Change a virtual server: all of it, as it is to be",
  description: sequenceText,
  request: {
    params: nameParameter,
    body: {
      required: true,
      content: {
        "application/json": { schema: modifyRequestSchema.meta({ id: "ModifyRequest" }) },
      },
    },
  },
  responses: { ...commandResponses, ...unknown },
});

export const startRoute = createRoute({
  method: "post",
  path: "/v1/vservers/{name}/start",
  summary: "Serve a virtual server that was stopped",
  description: sequenceText,
  request: { params: nameParameter, ...existingBody },
  responses: { ...commandResponses, ...unknown },
});

export const stopRoute = createRoute({
  method: "post",
  path: "/v1/vservers/{name}/stop",
  summary:
    "Stop a virtual server; its disks are released, and it stays stopped until it is started",
  description: sequenceText,
  request: { params: nameParameter, ...existingBody },
  responses: { ...commandResponses, ...unknown },
});

export const deleteRoute = createRoute({
  method: "delete",
  path: "/v1/vservers/{name}",
  summary: "Delete a virtual server; what is on its disks stays there",
  description: sequenceText,
  request: { params: nameParameter, ...existingBody },
  responses: { ...commandResponses, ...unknown },
});
