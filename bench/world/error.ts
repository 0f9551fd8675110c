/** The one error of the bench: a code, the operation that failed, and what caused it. */
export type BenchErrorCode =
  | "alreadyRunning"
  | "badInput"
  | "notRoot"
  | "programFailed"
  | "timeout"
  | "unsupported"
  | "worldBroken";

export class BenchError extends Error {
  readonly code: BenchErrorCode;
  readonly operation: string;

  constructor(code: BenchErrorCode, operation: string, message: string, cause?: unknown) {
    super(`${operation}: ${message}`, cause === undefined ? undefined : { cause });
    this.name = "BenchError";
    this.code = code;
    this.operation = operation;
  }
}

/** The whole chain of causes on one line, outermost first. */
export function explainError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error instanceof BenchError ? `${error.message} [${error.code}]` : error.message;
  return error.cause === undefined ? own : `${own}; because ${explainError(error.cause)}`;
}
