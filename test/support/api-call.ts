/** Calls of the HTTP API over its unix socket, as any client makes them. */
import { type IncomingMessage, request } from "node:http";
import { apiErrorSchema } from "../../firmware-ts/schema/api.ts";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
  readonly json: unknown;
}

/** A text is sent as it is, an object as JSON. */
export function callApi(
  socketPath: string,
  method: string,
  path: string,
  body?: string | object,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = typeof body === "object" ? JSON.stringify(body) : body;
    const type =
      text === undefined
        ? {}
        : {
            "content-type": "application/json",
            ...(headers["transfer-encoding"] ? {} : { "content-length": Buffer.byteLength(text) }),
          };
    const outgoing = request({ socketPath, method, path, headers: { ...type, ...headers } });
    outgoing.once("error", reject);
    outgoing.once("response", async (incoming) => {
      let received = "";
      for await (const chunk of incoming) received += chunk;
      const isJson = incoming.headers["content-type"]?.includes("json") ?? false;
      resolve({
        status: incoming.statusCode ?? 0,
        headers: incoming.headers,
        text: received,
        json: isJson ? JSON.parse(received) : undefined,
      });
    });
    outgoing.end(text);
  });
}

export function errorOf(answer: Answer) {
  return apiErrorSchema.parse(answer.json).error;
}
