/** Small parts shared by the starting and the stopping half of the virtual server machine. */
import type { Effect, Report, Work } from "./effects.ts";
import type { VirtualServerContext, VirtualServerState } from "./vserver-types.ts";

/** A token names server, round and step, so that it can match only the step that is waiting for it. */
export function makeToken(state: VirtualServerState, step: string, part: string): string {
  return `vs:${state.config.name}:${state.round}:${step}:${part}`;
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
