/** What the HTTP API needs from the daemon, and the shared counters and answers of its parts. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Change } from "../core/events.ts";
import type { ApiErrorCode } from "../schema/api.ts";
import type { DefinitionView } from "../schema/api-change.ts";
import type {
  CommandAnswer,
  CommandRequest,
  OperatorEvent,
  PanelButton,
  PanelView,
  Status,
  Veto,
} from "../schema/status.ts";

export type CommandKind = "takeover" | "giveback" | "transfer";

/**
 * The daemon as the API sees it. Everything but `command` and `metrics` is synchronous and cheap: it is called in the
 * main loop's thread. `command` resolves when the decision is made, not when the move has ended.
 */
export interface ApiBackend {
  readonly status: () => Status;
  /** Kept events with a higher sequence number, oldest first. */
  readonly events: (afterSequence: number) => readonly OperatorEvent[];
  /** Calls `listener` for every new event until the returned function is called. */
  readonly subscribe: (listener: (event: OperatorEvent) => void) => () => void;
  /** `virtualServer` is set for a transfer, and then it is one that exists. */
  readonly command: (
    kind: CommandKind,
    virtualServer: string | undefined,
    request: CommandRequest,
  ) => Promise<CommandAnswer>;
  /** Of every virtual server that is not deleted. */
  readonly definitions: () => readonly DefinitionView[];
  /** `server` is checked by its schema alone. Resolves when the change is stored and known to both controllers, or refused. */
  readonly change: (change: Change, request: CommandRequest) => Promise<CommandAnswer>;
  readonly panel: () => PanelView;
  readonly press: (button: PanelButton) => void;
  /** The page of `/metrics`, in Prometheus' text format 0.0.4. */
  readonly metrics: () => Promise<string>;
  /** Told of errors that are ours (a handler threw): one line for the log. */
  readonly log?: ((message: string) => void) | undefined;
}

/** What the API counts; read by telemetry/metrics. */
export interface ApiCounters {
  requests: number;
  /** Requests that were answered with an error, by its code. */
  readonly errors: Partial<Record<ApiErrorCode, number>>;
  /** Event streams that are open now. */
  streams: number;
  /** Event streams that were cut because their reader was too slow. */
  streamsDropped: number;
}

/** An error that becomes an answer: thrown by handlers, counted and written once, in `sendError`. */
export class ApiError extends Error {
  readonly status: ContentfulStatusCode;
  readonly code: ApiErrorCode;
  readonly vetoes: readonly Veto[] | undefined;

  constructor(
    status: ContentfulStatusCode,
    code: ApiErrorCode,
    message: string,
    vetoes?: readonly Veto[],
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.vetoes = vetoes;
  }
}

/** Answers with `{error: {code, message, vetoes?}}` and counts it. */
export function sendError(context: Context, counters: ApiCounters, error: ApiError) {
  counters.errors[error.code] = (counters.errors[error.code] ?? 0) + 1;
  const vetoes = error.vetoes === undefined ? {} : { vetoes: error.vetoes };
  return context.json(
    { error: { code: error.code, message: error.message, ...vetoes } },
    error.status,
  );
}
