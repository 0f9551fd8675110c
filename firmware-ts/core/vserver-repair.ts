/**
 * An address of a virtual server that serves is put back under it: the file service goes on, with its connections, which have only lost some packets.
 *
 * SAFETY: that is safe whenever it is done. A gate that is open is open because we own what is behind it; behind one that is closed, or closes while
 * this is under way, an address is as silent as without it. And whatever is done to the virtual server next is done after it (Work).
 */
import type { Outcome } from "../schema/outcome.ts";
import { explain } from "../schema/outcome.ts";
import { makeToken, report, waitFor } from "./vserver-parts.ts";
import { stopServer } from "./vserver-stop.ts";
import type {
  VirtualServerContext as Context,
  VirtualServerState as State,
  VirtualServerStep as Step,
} from "./vserver-types.ts";

const step = "repair";

/** Counts as a failure, and what it has served before forgives nothing. */
export function repairAddresses(state: State, context: Context): Step {
  if (state.phase.kind !== "serving")
    throw new Error(`repairAddresses: ${state.config.name} is ${state.phase.kind}`);
  const [, effects] = waitFor(state, step, [{ op: "addAddresses" }], context);
  const phase = { kind: "serving", sinceMs: context.nowMs } as const;
  return [{ ...state, failures: state.failures + 1, phase }, effects];
}

/** What came of it, if the token is that of a repair and nothing else has begun since. */
export function repairDone(
  state: State,
  token: string,
  outcome: Outcome<string | undefined>,
  context: Context,
): Step {
  if (token !== makeToken(state, step, "addAddresses")) return [state, []];
  const { name } = state.config;
  if (!outcome.ok) {
    const fault = `an address could not be put back: ${explain(outcome.fault)}`;
    const failing: State = { ...state, failures: state.failures + 1, fault };
    const [next, effects] = stopServer(failing, "failed", false, context, fault);
    return [next, [report("error", "vserver.addressNotBack", `${name}: ${fault}`), ...effects]];
  }
  const [, announced] = waitFor(state, step, [{ op: "announce" }], context);
  return [state, [report("info", "vserver.addressBack", `${name}: it is put back`), ...announced]];
}
