/** Small parts shared by the starting and the stopping half of the virtual server machine. */
import type { Effect, Report, Work } from "./effects.ts";
import type { Phase, VirtualServerContext, VirtualServerState } from "./vserver-types.ts";

/** A token names server, round and step, so that it can match only the step that is waiting for it. */
export function makeToken(state: VirtualServerState, step: string, part: string): string {
  return `vs:${state.config.name}:${state.round}:${step}:${part}`;
}

interface Waiting {
  readonly starting: Extract<Phase, { readonly kind: "starting" }>;
  readonly stopping: Extract<Phase, { readonly kind: "stopping" }>;
}

/** The phase, if it is of this kind and waits for this token: what is left of earlier steps is nobody's business any more. */
export function awaiting<K extends keyof Waiting>(
  { phase }: VirtualServerState,
  kind: K,
  token: string,
): Waiting[K] | undefined {
  const waits = phase.kind === kind && "pending" in phase && phase.pending.includes(token);
  return waits ? (phase as Waiting[K]) : undefined;
}

/** Effects for a list of works, with the tokens to wait for. */
export function waitFor(
  state: VirtualServerState,
  step: string,
  list: readonly Work[],
  context: VirtualServerContext,
): readonly [readonly string[], readonly Effect[]] {
  const pending: string[] = [];
  const effects: Effect[] = list.map((work) => {
    const token = makeToken(state, step, "disk" in work ? work.disk : work.op);
    pending.push(token);
    return {
      kind: "work",
      token,
      virtualServer: state.config.name,
      work,
      limitMs: limitOf(work, context),
    };
  });
  return [pending, effects];
}

function limitOf(work: Work, { timing }: VirtualServerContext): number {
  const limit = timing.stepTimeoutMs;
  switch (work.op) {
    case "attach":
      return limit.attach;
    case "mount":
      return limit.mount;
    case "startService":
      return limit.export;
    case "addAddresses":
    case "announce":
      return limit.address;
    default:
      return limit.stop;
  }
}

export function report(
  severity: Report["severity"],
  code: string,
  message: string,
  detail?: Readonly<Record<string, unknown>>,
): Effect {
  return { kind: "report", report: { severity, code, message, ...(detail ? { detail } : {}) } };
}
