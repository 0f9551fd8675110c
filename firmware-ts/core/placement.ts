/**
 * Placement: which virtual servers this controller starts by itself. A server that nobody has goes to its home; one that failed is
 * tried again after its back-off; one whose home does not come for it is asked for, never simply taken, unless its home leaves.
 */
import {
  type ControllerState,
  joinParts,
  type Part,
  partnerOwns,
  replaceServer,
} from "./controller-state.ts";
import { mayStart } from "./definitions.ts";
import { takeServer } from "./takeover.ts";
import { requestServer } from "./transfer.ts";
import { offerInTurn } from "./transfer-window.ts";
import type { VirtualServerState } from "./vserver-types.ts";

/** How long the home of an orphan may take to start it before the other asks for it. */
const adoptAfterMs = 3000;

/**
 * How long the pair and the partner's data link must have been whole, and the server have been here, before it returns home by itself
 * (autoGiveback): a cable or a path that comes and goes must not make it move each time.
 */
const givebackAfterMs = 10_000;

/** Service for this long forgives earlier failures. */
const forgiveAfterMs = 60_000;

export function keepServers(state: ControllerState, nowMs: number): Part {
  let step: Part;
  for (const { index } of state.servers) {
    const now = step ? step[0] : state;
    const server = now.servers[index];
    if (!server) throw new Error(`keepServers: no virtual server ${index}`);
    step = joinParts(step, keepServer(now, server, nowMs));
  }
  return step;
}

function keepServer(state: ControllerState, server: VirtualServerState, nowMs: number): Part {
  const { phase } = server;
  switch (phase.kind) {
    case "serving":
      return serving(state, server, phase.sinceMs, nowMs);
    case "failed":
      return nowMs >= phase.retryAtMs ? again(state, server, nowMs) : undefined;
    case "off":
      return orphan(state, server, nowMs);
    case "starting":
    case "stopping":
      return undefined;
    default:
      throw new Error(`keepServer: unknown phase ${JSON.stringify(phase)}`);
  }
}

function serving(
  state: ControllerState,
  server: VirtualServerState,
  sinceMs: number,
  nowMs: number,
): Part {
  const hasFailed = server.failures > 0 || server.movesFailed > 0 || server.evacuated !== undefined;
  if (hasFailed && nowMs - sinceMs >= forgiveAfterMs)
    return [
      replaceServer(state, { ...server, failures: 0, movesFailed: 0, evacuated: undefined }),
      [],
    ];
  const home = server.config.home !== state.me;
  const quietSinceMs = Math.max(sinceMs, state.pairedSinceMs, state.partnerLinkedSinceMs);
  const whole = state.mode === "paired" && nowMs - quietSinceMs >= givebackAfterMs;
  if (!state.config.autoGiveback || !home || !whole || state.transfers[server.index])
    return undefined;
  if (nowMs < server.moveNotBeforeMs || state.partner?.dataLinkDown) return undefined;
  return offerInTurn(state, server.index, "automatic giveback", nowMs);
}

/**
 * A start under a raised epoch must not rest on a race won long ago: somebody may have preempted us since on a majority that we cannot
 * reach now, and the disks would then be taken from their rightful owner.
 */
function mayAlone(state: ControllerState): boolean {
  return state.mode === "alone" && state.soloFresh;
}

function again(state: ControllerState, server: VirtualServerState, nowMs: number): Part {
  const may = mayAlone(state) || (state.mode === "paired" && state.dataLinkUp);
  if (!may || state.transfers[server.index] || partnerOwns(state, server.index)) return undefined;
  if (!mayStart(state, server)) return undefined;
  const notBeforeMs = Math.max(nowMs, state.openNotBeforeMs);
  return takeServer(state, server.index, notBeforeMs, nowMs);
}

function orphan(state: ControllerState, server: VirtualServerState, nowMs: number): Part {
  const { index, config } = server;
  if (state.transfers[index]) return undefined;
  const { partner } = state;
  const isAlone = mayAlone(state);
  const mayInPair = state.mode === "paired" && !partnerOwns(state, index) && state.dataLinkUp;
  // Whether it may be started is asked last: most of those that are off are served by the partner, and are looked at in every step.
  if (!(isAlone || (mayInPair && partner)) || !mayStart(state, server)) return undefined;
  if (isAlone) return takeServer(state, index, Math.max(nowMs, state.openNotBeforeMs), nowMs);
  if (!partner) return undefined;
  // Who leaves starts nothing any more, and refuses requests; what it does not own is closed and released there (core/leave).
  if (partner.mode === "leaving") return takeServer(state, index, nowMs, nowMs);
  if (config.home === state.me) {
    // A partner that is not of the pair yet has not said what it owns.
    return partner.mode === "paired" ? takeServer(state, index, nowMs, nowMs) : undefined;
  }
  const waited = nowMs - state.pairedSinceMs >= adoptAfterMs && nowMs >= server.moveNotBeforeMs;
  // It waits for no turn: nobody serves it meanwhile.
  return waited ? requestServer(state, index, "nobody serves it", nowMs) : undefined;
}
