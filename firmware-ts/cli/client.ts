/** The API's client: HTTP over the daemon's unix socket, every answer checked against the schemas it was written with. */
import { type IncomingMessage, request } from "node:http";
import type { z } from "zod";
import { CliError, exitCodes } from "./exit.ts";

const answerBytesMax = 8 * 1024 * 1024;
/** The daemon itself gives a command 10 s for its decision. */
const answerTimeoutMs = 15_000;

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Calls the API and returns status and body; throws a `CliError` only when there is no answer. */
export async function call(
  socketPath: string,
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  body?: object,
): Promise<Answer> {
  const incoming = await open(socketPath, method, path, body, answerTimeoutMs);
  let text = "";
  incoming.setEncoding("utf8");
  try {
    for await (const chunk of incoming) {
      text += chunk;
      if (text.length > answerBytesMax) throw new Error("the answer is too long");
    }
  } catch (error) {
    throw unreachable(socketPath, error as NodeJS.ErrnoException);
  }
  return { status: incoming.statusCode ?? 0, text };
}

/** Reads one thing: the parsed answer, and the object as it came (newer daemons may say more than we know). */
export async function get<T extends z.ZodType>(
  socketPath: string,
  path: string,
  schema: T,
): Promise<{ value: z.infer<T>; raw: unknown }> {
  const answer = await call(socketPath, "GET", path);
  if (answer.status !== 200) throw await refusal(answer);
  return parse(answer.text, schema);
}

/** Checks a text against a schema. */
export function parse<T extends z.ZodType>(
  text: string,
  schema: T,
): { value: z.infer<T>; raw: unknown } {
  try {
    const raw: unknown = JSON.parse(text);
    return { value: schema.parse(raw), raw };
  } catch {
    const message = "the daemon's answer is not understood: are daemon and command of one version?";
    throw new CliError(exitCodes.failure, "notUnderstood", message);
  }
}

/** The daemon's own words for why it refused. */
export async function refusal(answer: Answer): Promise<CliError> {
  const { apiErrorSchema } = await import("../schema/api.ts");
  const { error } = parse(answer.text, apiErrorSchema).value;
  const exitCode =
    error.code === "badRequest"
      ? exitCodes.usage
      : error.code === "busy" || error.code === "notReady"
        ? exitCodes.tryAgain
        : exitCodes.failure;
  return new CliError(exitCode, error.code, error.message);
}

/**
 * Follows the event stream and calls `onEvent` with each event's JSON text. Resolves when the daemon ends the stream.
 */
export async function followEvents(
  socketPath: string,
  after: number,
  onEvent: (json: string) => void,
): Promise<void> {
  const incoming = await open(socketPath, "GET", `/v1/events?after=${after}`, undefined, 0, {
    accept: "text/event-stream",
  });
  if (incoming.statusCode !== 200) {
    let text = "";
    for await (const chunk of incoming) text += chunk;
    throw await refusal({ status: incoming.statusCode ?? 0, text });
  }
  incoming.setEncoding("utf8");
  let pending = "";
  try {
    for await (const chunk of incoming) {
      pending += chunk;
      const lines = pending.split("\n");
      pending = lines.pop() ?? "";
      for (const line of lines) if (line.startsWith("data: ")) onEvent(line.slice(6));
      if (pending.length > answerBytesMax) throw new Error("a line of the stream is too long");
    }
  } catch (error) {
    throw unreachable(socketPath, error as NodeJS.ErrnoException);
  }
}

function open(
  socketPath: string,
  method: string,
  path: string,
  body: object | undefined,
  timeoutMs: number,
  headers: Record<string, string> = {},
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const type =
      text === undefined
        ? {}
        : { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
    const outgoing = request({
      socketPath,
      method,
      path,
      headers: { ...type, ...headers },
      agent: false,
    });
    outgoing.setTimeout(timeoutMs, () => outgoing.destroy(new Error("no answer in time")));
    outgoing.once("response", resolve);
    outgoing.once("error", (error: NodeJS.ErrnoException) =>
      reject(unreachable(socketPath, error)),
    );
    outgoing.end(text);
  });
}

function unreachable(socketPath: string, error: NodeJS.ErrnoException): CliError {
  if (error.code === "EACCES" || error.code === "EPERM")
    return new CliError(
      exitCodes.permission,
      "permission",
      `${socketPath}: permission denied (only root may use it)`,
    );
  const reason =
    error.code === "ENOENT"
      ? "there is no such socket"
      : error.code === "ECONNREFUSED"
        ? "nobody listens there"
        : error.message;
  return new CliError(
    exitCodes.daemonUnreachable,
    "daemonUnreachable",
    `the daemon does not answer at ${socketPath}: ${reason}`,
  );
}
