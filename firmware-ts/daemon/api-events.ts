/**
 * `GET /v1/events` as a stream of server-sent events (WHATWG HTML 9.2). It writes to Node's response directly, because
 * only there the amount that waits for a slow reader can be seen, and bounded.
 *
 * Obligation: a reader that does not read costs at most `streamBytesMax` of memory, then it is cut off. It resumes with
 * `Last-Event-ID`; nothing else waits for it.
 */
import type { ServerResponse } from "node:http";
import type { OperatorEvent } from "../schema/status.ts";
import { type ApiBackend, type ApiCounters, ApiError } from "./api-backend.ts";

/** Bytes that may wait for one reader, beside what the kernel's socket buffers hold. */
export const streamBytesMax = 256 * 1024;
export const streamsMax = 16;
/** A comment line this often, so that proxies and readers see a live stream. */
const keepAliveMs = 15_000;
const reconnectMs = 2_000;

/** Starts a stream: the kept events after `afterSequence`, then each new one. Returns at once. */
export function streamEvents(
  backend: ApiBackend,
  counters: ApiCounters,
  response: ServerResponse,
  afterSequence: number,
): void {
  if (counters.streams >= streamsMax)
    throw new ApiError(503, "busy", `expected at most ${streamsMax} event streams at a time`);
  counters.streams += 1;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const write = (text: string) => {
    if (response.destroyed) return;
    response.write(text);
    if (response.writableLength <= streamBytesMax) return;
    counters.streamsDropped += 1;
    response.destroy();
  };
  write(`retry: ${reconnectMs}\n\n${newestThatFit(backend.events(afterSequence))}`);
  const unsubscribe = backend.subscribe((event) => write(frame(event)));
  const keepAlive = setInterval(() => write(": still here\n\n"), keepAliveMs);
  keepAlive.unref();
  response.once("close", () => {
    counters.streams -= 1;
    clearInterval(keepAlive);
    unsubscribe();
  });
}

/** JSON has no raw line ends, so one `data:` line carries an event whole. */
function frame(event: OperatorEvent): string {
  return `id: ${event.sequence}\ndata: ${JSON.stringify(event)}\n\n`;
}

/** The past may fill half of the bound, so that a reader who resumes is not cut off by its own request. */
function newestThatFit(events: readonly OperatorEvent[]): string {
  const frames: string[] = [];
  let bytes = 0;
  for (const event of events.toReversed()) {
    const text = frame(event);
    bytes += Buffer.byteLength(text);
    if (bytes > streamBytesMax / 2) break;
    frames.push(text);
  }
  return frames.toReversed().join("");
}
