/** One HTTP request with a JSON body, and its answer, with a limit on everything: time, bytes, and what is taken for an answer. */
import { type RequestOptions as PlainOptions, request as plainRequest } from "node:http";
import { type RequestOptions, request as secureRequest } from "node:https";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** More than the list of all volumes of a pair takes: 256 of less than 3 KiB each, and a third more from etcd for base64. */
export const answerBytesMax = 2 * 1024 * 1024;

export interface Called {
  readonly status: number;
  /** Parsed as JSON; its shape is for the caller to check. */
  readonly body: unknown;
}

/**
 * Posts `body` on a connection of its own. `deadlineMs` spans all of it, from looking up the name to the last byte.
 * Faults: `timeout`, `ioError`, `badInput` (too long, or no JSON), `refused` (the other side ends the handshake for our key or certificate).
 */
export function postJson(
  secure: boolean,
  options: RequestOptions,
  body: string,
  deadlineMs: number,
): Promise<Outcome<Called>> {
  const operation = `ask ${options.host}:${options.port}`;
  return new Promise((resolve) => {
    const full: PlainOptions & RequestOptions = {
      ...options,
      method: "POST",
      agent: false,
      headers: {
        ...options.headers,
        "content-type": "application/json",
        "content-length": Buffer.byteLength(body),
      },
    };
    const call = secure ? secureRequest(full) : plainRequest(full);
    const timer = setTimeout(
      () => finish(failed("timeout", operation, `no answer within ${deadlineMs} ms`)),
      deadlineMs,
    );
    const finish = (outcome: Outcome<Called>) => {
      clearTimeout(timer);
      call.destroy();
      resolve(outcome);
    };
    // Also after the end: what a destroyed request still reports is of no interest, but must have a listener.
    call.on("error", (error: NodeJS.ErrnoException) => {
      const code = faultCode(error);
      const why = code === "refused" ? "our key or certificate is not accepted" : "no answer";
      finish(failed(code, operation, why, error.message.trim()));
    });
    call.on("response", (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes > answerBytesMax)
          finish(failed("badInput", operation, `more than ${answerBytesMax} bytes`));
      });
      response.on("error", (error) => finish(failed("ioError", operation, "cut off", error)));
      response.on("end", () => {
        const parsed = parseJson(Buffer.concat(chunks).toString("utf8"));
        if (parsed === undefined) finish(failed("badInput", operation, "the answer is no JSON"));
        else finish(good({ status: response.statusCode ?? 0, body: parsed.value }));
      });
    });
    call.end(body);
  });
}

/** RFC 5246 7.2: the alerts of a server that does not know the key, or that could not read what we sent under it. */
function faultCode(error: NodeJS.ErrnoException): "refused" | "ioError" | "badInput" {
  if (error.code?.startsWith("HPE_")) return "badInput";
  return /alert (unknown psk identity|bad record mac|decrypt error|bad certificate|certificate required|unknown ca|handshake failure)/.test(
    error.message,
  )
    ? "refused"
    : "ioError";
}

/** Undefined: no JSON. */
export function parseJson(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}
