/** Errors that keep the shelf from starting or end a control command. */
export type ShelfErrorCode = "BACKING_FILE" | "APTPL_FILE" | "CONFIG" | "LISTEN" | "CONTROL";

export class ShelfError extends Error {
  readonly code: ShelfErrorCode;

  /** `operation` says what was being done; the cause is kept. */
  constructor(code: ShelfErrorCode, operation: string, cause?: unknown) {
    super(cause instanceof Error ? `${operation}: ${cause.message}` : operation, { cause });
    this.name = "ShelfError";
    this.code = code;
  }
}
