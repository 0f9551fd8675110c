/**
 * How every operation that can fail in operation reports it: as a value, never as an exception. An exception
 * in Dyad means a broken invariant, and ends the process.
 */

/** Machine-readable reasons; grouped by who notices them. The text beside a code is for people. */
export type FaultCode =
  // storage
  | "fenced" // the disk refused us: another controller holds it
  | "diskLost" // no path to the disk
  | "diskError"
  | "effectUnknown" // sent, and no answer: it may have happened, or may not
  | "generationRefused" // the partner's replica has another generation than we
  | "mountFailed"
  | "stillMounted"
  | "attachFailed"
  // network and service
  | "addressFailed"
  | "gateExpired" // the kernel refused to renew a gate that had already closed
  | "gateFailed"
  | "serviceFailed"
  | "serviceSilent"
  // anything
  | "timeout"
  | "badInput"
  | "refused"
  | "toolMissing"
  | "notSupported" // this kernel cannot do that
  | "ioError";

/** One operating error: its code, the operation that failed, a sentence, and what caused it. */
export interface Fault {
  readonly code: FaultCode;
  readonly operation: string;
  readonly message: string;
  readonly cause?: Fault | undefined;
}

export type Outcome<T = undefined> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly fault: Fault };

/** Success without a value to carry. */
export const done: Outcome = { ok: true, value: undefined };

/** Wraps a value as a success. */
export function good<T>(value: T): Outcome<T> {
  return { ok: true, value };
}

/** Builds a failed outcome. `cause` may be a caught exception or an inner fault. */
export function failed(
  code: FaultCode,
  operation: string,
  message: string,
  cause?: unknown,
): { readonly ok: false; readonly fault: Fault } {
  const inner = toFault(cause, operation);
  return { ok: false, fault: { code, operation, message, ...(inner ? { cause: inner } : {}) } };
}

function toFault(cause: unknown, operation: string): Fault | undefined {
  if (cause === undefined || cause === null) return undefined;
  if (typeof cause === "object" && "code" in cause && "operation" in cause) return cause as Fault;
  const message = cause instanceof Error ? cause.message : String(cause);
  return { code: "ioError", operation, message };
}

/** The whole chain on one line, outermost first: what is logged once, at the boundary. */
export function explain(fault: Fault): string {
  const own = `${fault.operation}: ${fault.message} [${fault.code}]`;
  return fault.cause ? `${own}; because ${explain(fault.cause)}` : own;
}
