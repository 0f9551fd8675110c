/**
 * Planned moves: takeover, giveback and transfer of single virtual servers, and the urgent evacuation of one that this
 * controller can no longer serve. US 7,200,622: the first server's controlling unit stops the virtual server, and the
 * synchronizing units agree; the second starts it from what is on the disk.
 *
 *     source                                target
 *       │ ◀───────── request ───────────────── │   (the operator asked at the target)
 *     offered ───────── offer ───────────────▶ │   can it serve? else refuse
 *       │ ◀───────── ready ─────────────────  ready
 *     stopping: close → … → release            │
 *     released ───────── go ─────────────────▶ starting (the gate opens at once: the source said that it is closed)
 *     (detach)                                 │
 *       │ ◀───────── started / failed ──────── │
 *     done / takes it back
 *
 * Whatever is lost on the way, the disks know the owner: a lost partner ends all transfers and is taken over. How many are under way
 * at once, and which wait for their turn: core/transfer-window.
 */
import type { Message } from "../schema/messages.ts";
import {
  andThen,
  type ControllerState,
  isWriting,
  joinParts,
  ownsServer,
  type Part,
  partnerOwns,
  pathlessOf,
  replaceServer,
  type Step,
  sendMessage,
  serverContext,
  setTransfer,
  tell,
} from "./controller-state.ts";
import { isWanted, mayStart, userOf } from "./definitions.ts";
import { takeServer } from "./takeover.ts";
import { dropWaiting } from "./volume.ts";
import { hasLetGo, isHeld, stopServer } from "./vserver-stop.ts";
import type { VirtualServerState } from "./vserver-types.ts";

/**
 * A move that came to nothing is begun again after this time; doubles with each further one in a row. A refusal does not count: nothing
 * has moved, and only the partner knows when what it lacks is mended.
 */
const moveAgainMs = 1000;
const moveAgainMsMax = 60_000;

/** Failures after which a server that keeps failing here is offered to the partner. */
export const failuresBeforeMove = 2;

/**
 * More of them for each time in a row that it came here because the partner could not keep it either: what fails on both controllers is tried
 * again where it is, after waits that grow (core/vserver-stop), and goes to and fro ever more seldom.
 */
const failuresFactor = 4;
const failuresToMoveMax = 32;

/** Times further apart than this are not in a row. */
const stormMs = 30 * 60_000;

export function failuresToMove({ evacuated }: Pick<VirtualServerState, "evacuated">): number {
  return Math.min(
    failuresToMoveMax,
    failuresBeforeMove * failuresFactor ** (evacuated?.times ?? 0),
  );
}

function evacuatedNow(
  { evacuated }: VirtualServerState,
  nowMs: number,
): VirtualServerState["evacuated"] {
  const isInRow = evacuated !== undefined && nowMs - evacuated.lastMs < stormMs;
  return { times: isInRow ? evacuated.times + 1 : 1, lastMs: nowMs };
}

/** The source's first move, at once: for what cannot stay here, and for what the partner asks for, which counts its own. */
export function offerServer(
  state: ControllerState,
  index: number,
  urgent: boolean,
  why: string,
  nowMs: number,
): Step {
  const deadlineMs = nowMs + state.timing.transferAnswerMs;
  const next = setTransfer(state, index, {
    role: "source",
    at: "offered",
    deadlineMs,
    urgent,
    why,
  });
  const message: Message = { type: "offer", server: index, urgent, why };
  return [
    sendMessage(next, message),
    [tell("info", "transfer.offered", `${nameOf(state, index)} is offered to the partner: ${why}`)],
  ];
}

/** The target's first move, at once. */
export function requestServer(
  state: ControllerState,
  index: number,
  why: string,
  nowMs: number,
): Step {
  const deadlineMs = nowMs + 2 * state.timing.transferAnswerMs;
  const next = setTransfer(state, index, { role: "target", at: "requested", deadlineMs, why });
  return [sendMessage(next, { type: "request", server: index, why }), []];
}

/** The move of a virtual server came to nothing: none is begun by itself for a while. */
function postponeMove(state: ControllerState, index: number, nowMs: number): ControllerState {
  const server = state.servers[index];
  if (!server) throw new Error(`postponeMove: no virtual server ${index}`);
  const movesFailed = server.movesFailed + 1;
  const waitMs = Math.min(moveAgainMsMax, moveAgainMs * 2 ** (movesFailed - 1));
  return replaceServer(state, { ...server, movesFailed, moveNotBeforeMs: nowMs + waitMs });
}

function nameOf(state: ControllerState, index: number): string {
  return state.servers[index]?.config.name ?? `#${index}`;
}

export type TransferMessage = Exclude<Message, { type: "changed" | "known" }>;

/** What the partner says about a move. */
export function transferMessage(
  state: ControllerState,
  message: TransferMessage,
  nowMs: number,
): Step {
  const server = state.servers[message.server];
  if (!server)
    return [state, [tell("warning", "transfer.unknown", `no virtual server ${message.server}`)]];
  switch (message.type) {
    case "request":
      return onRequest(state, server, message.why, nowMs);
    case "offer":
      return onOffer(state, server, message, nowMs);
    case "ready":
      return onReady(state, server, nowMs);
    case "refuse":
      return onRefuse(state, server, message.why, nowMs);
    case "go":
      return onGo(state, server, message.clients, nowMs);
    case "started":
      return onStarted(state, server);
    case "failed":
      return onFailed(state, server, message.why, nowMs);
    default:
      throw new Error(`transferMessage: unknown message ${JSON.stringify(message)}`);
  }
}

function refuse(state: ControllerState, index: number, why: string): Step {
  return [sendMessage(state, { type: "refuse", server: index, why }), []];
}

function onRequest(
  state: ControllerState,
  server: VirtualServerState,
  why: string,
  nowMs: number,
): Step {
  const { index, phase } = server;
  // Only members know what is whose: what a guest believes to be off may be starting at the partner.
  if (state.mode !== "paired") return refuse(state, index, `this controller is ${state.mode}`);
  const at = state.transfers[index]?.at;
  const obstacle = whyNotGiven(state, server);
  if (obstacle !== undefined) return refuse(state, index, obstacle);
  // What is left of a move that was given up is released.
  if (at === "declined" && isHeld(server)) return released(state, index, why, nowMs);
  if (at !== undefined) return refuse(state, index, "a transfer of it is under way");
  if (phase.kind === "serving") return offerServer(state, index, false, why, nowMs);
  if (phase.kind === "off" || phase.kind === "failed") {
    // Nobody has it: ceding it is a promise not to start it ourselves meanwhile.
    const off = replaceServer(state, { ...server, phase: { kind: "off" } });
    return released(off, index, why, nowMs);
  }
  return refuse(state, index, `it is ${phase.kind}`);
}

/** What of its definition keeps it here: a change is under way, or it is not to be served, or not with what something here still uses. */
function whyNotGiven(state: ControllerState, server: VirtualServerState): string | undefined {
  if (!isWanted(state, server)) return "it is not to be served";
  if (state.changes[server.index]) return "it is being changed";
  if (isWriting(state, server.index) && !ownsServer(server)) return "its record is being written";
  const user = userOf(state, server);
  return user && `${user.config.name} still uses what it needs`;
}

function onOffer(
  state: ControllerState,
  server: VirtualServerState,
  { why, urgent }: Extract<Message, { type: "offer" }>,
  nowMs: number,
): Step {
  const { index, phase } = server;
  if (state.mode !== "paired") return refuse(state, index, `this controller is ${state.mode}`);
  if (!state.dataLinkUp) return refuse(state, index, "its data link has no carrier");
  const pathless = pathlessOf(state, server.config);
  if (pathless.length > 0) return refuse(state, index, `no path to ${pathless.join(", ")}`);
  if (phase.kind !== "off" && phase.kind !== "failed")
    return refuse(state, index, `it is ${phase.kind} here`);
  if (!mayStart(state, server)) return refuse(state, index, "it is not ready to be served here");
  const deadlineMs = nowMs + state.timing.transferReadyMs;
  const next = setTransfer(replaceServer(state, { ...server, phase: { kind: "off" } }), index, {
    role: "target",
    at: "ready",
    deadlineMs,
    why,
    urgent,
  });
  return [sendMessage(next, { type: "ready", server: index }), []];
}

function onReady(state: ControllerState, server: VirtualServerState, nowMs: number): Step {
  const transfer = state.transfers[server.index];
  if (transfer?.role !== "source" || transfer.at !== "offered") return [state, []];
  const { why, urgent } = transfer;
  if (!ownsServer(server) && mayGo(state, server)) {
    const off = replaceServer(state, { ...server, phase: { kind: "off" } });
    return released(off, server.index, why, nowMs);
  }
  const deadlineMs = nowMs + state.timing.transferStopMs;
  const next = setTransfer(state, server.index, {
    role: "source",
    at: "stopping",
    deadlineMs,
    urgent,
    why,
  });
  const forced = pathlessOf(state, server.config).length > 0;
  const [stopped, effects] = stopServer(server, "transfer", forced, serverContext(state, nowMs));
  return [replaceServer(next, stopped), effects];
}

/** The disks have answered to what was written of it, and nothing else here uses what it is served with. */
function mayGo(state: ControllerState, server: VirtualServerState): boolean {
  return !isWriting(state, server.index) && userOf(state, server) === undefined;
}

/** Nothing of it is here any more: the partner may open the address at once, and writes its record from now on. */
function released(state: ControllerState, index: number, why: string, nowMs: number): Step {
  const deadlineMs = nowMs + state.timing.transferStartMs;
  const next = setTransfer(dropWaiting(state, index), index, {
    role: "source",
    at: "released",
    deadlineMs,
    urgent: false,
    why,
  });
  return [
    sendMessage(next, { type: "go", server: index, clients: state.servers[index]?.clients }),
    [tell("info", "transfer.released", `${nameOf(state, index)} is handed to the partner`)],
  ];
}

function onRefuse(
  state: ControllerState,
  server: VirtualServerState,
  why: string,
  nowMs: number,
): Step {
  // Only what still waits for an answer is refused: an offer may have crossed our request, and its move is under way then.
  const at = state.transfers[server.index]?.at;
  if (at !== "offered" && at !== "requested") return [state, []];
  const next = setTransfer(state, server.index, undefined);
  const moveNotBeforeMs = Math.max(server.moveNotBeforeMs, nowMs + moveAgainMs);
  return [
    replaceServer(next, { ...server, moveNotBeforeMs }),
    [tell("warning", "transfer.refused", `the partner refuses ${server.config.name}: ${why}`)],
  ];
}

function onGo(
  state: ControllerState,
  server: VirtualServerState,
  clients: string | undefined,
  nowMs: number,
): Step {
  const transfer = state.transfers[server.index];
  if (transfer?.role === "target" && transfer.at === "starting") return [state, []];
  const expects = transfer?.role === "target" && transfer.at !== "declined";
  // Given up meanwhile, or defined otherwise: the source must not wait for us.
  const isReady = server.phase.kind === "off" && mayStart(state, server);
  if (!expects || !isReady || state.mode !== "paired")
    return decline(
      state,
      server.index,
      `this controller does not expect it (${state.mode})`,
      nowMs,
    );
  const deadlineMs = nowMs + state.timing.transferStartMs;
  // What it failed at here before is over: somebody sends it back, or its failures were the partner's.
  const evacuated = transfer.urgent ? evacuatedNow(server, nowMs) : undefined;
  const told = replaceServer(state, { ...server, clients, failures: 0, evacuated });
  const next = setTransfer(told, server.index, { ...transfer, at: "starting", deadlineMs });
  return takeServer(next, server.index, nowMs, nowMs);
}

/**
 * Says that the source has to take it back, and leaves it alone until the source has heard that: its home would start it at once
 * otherwise, while the source does, and the two would preempt each other (models/transfer.pml, BUG_DECLINED_STARTS).
 */
function decline(state: ControllerState, index: number, why: string, nowMs: number): Step {
  const deadlineMs = nowMs + state.timing.transferAnswerMs;
  const next = setTransfer(state, index, { role: "target", at: "declined", deadlineMs, why });
  return [sendMessage(next, { type: "failed", server: index, why }), []];
}

function onStarted(state: ControllerState, server: VirtualServerState): Step {
  const transfer = state.transfers[server.index];
  if (transfer?.role !== "source") return [state, []];
  // Served there: what failed here before is no claim any more.
  const phase = server.phase.kind === "failed" ? ({ kind: "off" } as const) : server.phase;
  const told = replaceServer(state, { ...server, phase, clients: undefined, movesFailed: 0 });
  return [
    setTransfer(told, server.index, undefined),
    [tell("info", "transfer.done", `${server.config.name} is served by the partner`)],
  ];
}

function onFailed(
  state: ControllerState,
  server: VirtualServerState,
  why: string,
  nowMs: number,
): Step {
  const { index } = server;
  const transfer = state.transfers[index];
  if (transfer?.role !== "source" || transfer.at !== "released") return [state, []];
  // The last of it is still being tidied away here; the tick takes it back.
  if (ownsServer(server)) return [setTransfer(state, index, { ...transfer, failure: why }), []];
  if (state.mode !== "paired")
    return notTakenBack(state, index, why, `it stays off, for this controller is ${state.mode}`);
  // It came too late for a target that had given up, and has started it by itself since (models/transfer.pml, BUG_TAKEN_FROM_IT).
  if (partnerOwns(state, index)) return notTakenBack(state, index, why, "the partner has it");
  if (!mayStart(state, server))
    return notTakenBack(state, index, why, "it is not to be served as it was");
  const next = postponeMove(setTransfer(state, index, undefined), index, nowMs);
  const said = tell(
    "error",
    "transfer.failed",
    `the partner could not start ${server.config.name} (${why}); it is taken back`,
  );
  return andThen([next, [said]], (after) => takeServer(after, index, nowMs, nowMs));
}

/**
 * A controller that leaves takes nothing back: its goodbye, which may be out already, says that everything is released. And nothing is
 * taken from a partner that claims it.
 */
function notTakenBack(state: ControllerState, index: number, why: string, instead: string): Step {
  const said = `the partner could not start ${nameOf(state, index)} (${why}); ${instead}`;
  return [setTransfer(state, index, undefined), [tell("error", "transfer.failed", said)]];
}

/** Moves that wait for a virtual server's own steps, and deadlines. */
export function transferTick(state: ControllerState, nowMs: number): Part {
  let step: Part;
  for (const { index } of state.servers) {
    const transfer = state.transfers[index];
    if (!transfer) continue;
    const now = step ? step[0] : state;
    const server = now.servers[index];
    if (!server) throw new Error(`transferTick: no virtual server ${index}`);
    const next =
      transfer.role === "source"
        ? sourceTick(now, server, transfer, nowMs)
        : targetTick(now, server, transfer, nowMs);
    step = joinParts(step, next);
  }
  return step;
}

type Of<R> = Extract<ControllerState["transfers"][number], { role: R }>;

function sourceTick(
  state: ControllerState,
  server: VirtualServerState,
  transfer: Of<"source">,
  nowMs: number,
): Step {
  const { index, config } = server;
  if (transfer.at === "stopping" && hasLetGo(server) && mayGo(state, server))
    return released(state, index, transfer.why, nowMs);
  if (transfer.failure !== undefined && !ownsServer(server))
    return onFailed(state, server, transfer.failure, nowMs);
  // It cannot be taken back before somebody lets go of it: the partner is asked to try again (see `evacuate`).
  if (transfer.failure !== undefined && isHeld(server))
    return [
      postponeMove(setTransfer(state, index, undefined), index, nowMs),
      [
        tell(
          "error",
          "transfer.failed",
          `the partner could not start ${config.name}: ${transfer.failure}`,
        ),
      ],
    ];
  if (nowMs < transfer.deadlineMs) return [state, []];
  // What hangs here in its last step has a limit of its own.
  if (transfer.at === "released" && ownsServer(server)) return [state, []];
  const next = setTransfer(state, index, undefined);
  const said = tell("warning", "transfer.timeout", `the transfer of ${config.name} timed out`);
  const isBack =
    transfer.at === "released" && !partnerOwns(state, index) && state.mode === "paired";
  if (isBack && mayStart(state, server))
    return andThen([next, [said]], (after) => takeServer(after, index, nowMs, nowMs));
  return [postponeMove(next, index, nowMs), [said]];
}

function targetTick(
  state: ControllerState,
  server: VirtualServerState,
  transfer: Of<"target">,
  nowMs: number,
): Step {
  const { index, phase } = server;
  if (transfer.at === "starting") {
    if (phase.kind === "serving")
      return [
        sendMessage(setTransfer(state, index, undefined), { type: "started", server: index }),
        [],
      ];
    if (phase.kind === "failed" || phase.kind === "off") {
      const off = replaceServer(state, { ...server, phase: { kind: "off" } });
      const why = phase.kind === "failed" ? phase.fault : "it was stopped";
      return decline(off, index, why, nowMs);
    }
    return isHeld(server) ? declineHeld(state, server, nowMs) : [state, []];
  }
  if (nowMs < transfer.deadlineMs) return [state, []];
  if (transfer.at === "declined")
    return isHeld(server) ? [state, []] : [setTransfer(state, index, undefined), []];
  return [
    setTransfer(state, index, undefined),
    [
      tell(
        "warning",
        "transfer.timeout",
        `${server.config.name}: the partner did not hand it over`,
      ),
    ],
  ];
}

/**
 * Its start failed, its disks are released, and somebody holds what is left of it here, for as long as they like: the source need not wait
 * for that. It stays declined, and unclaimed, until it is gone.
 */
function declineHeld(state: ControllerState, server: VirtualServerState, nowMs: number): Step {
  // It ends as off then, not as something that is to be tried here again.
  const [given] = stopServer(server, "transfer", false, serverContext(state, nowMs));
  const why = server.fault ?? "what is left of it is held";
  return decline(replaceServer(state, given), server.index, why, nowMs);
}

/** Virtual servers that this controller should not keep, offered to a partner that can do better. */
export function evacuate(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "paired" || !state.partner || state.partner.dataLinkDown) return undefined;
  let step: Part;
  for (const server of state.servers) {
    if (nowMs < server.moveNotBeforeMs || state.transfers[server.index]) continue;
    if (state.changes[server.index]) continue;
    const why = reasonToLeave(state, server);
    if (why === undefined) continue;
    const now = step ? step[0] : state;
    step = joinParts(step, offerServer(now, server.index, true, why, nowMs));
  }
  return step;
}

/** Why it should not stay here; undefined when it may. */
export function reasonToLeave(
  state: ControllerState,
  server: VirtualServerState,
): string | undefined {
  const { phase } = server;
  if (!isWanted(state, server)) return undefined;
  const here = phase.kind === "serving" || phase.kind === "failed";
  if (isHeld(server) && !partnerOwns(state, server.index))
    return "it is released, and what is left of it here is still held";
  if (!here) return undefined;
  if (!state.dataLinkUp) return "the data link has no carrier";
  const pathless = pathlessOf(state, server.config);
  if (pathless.length > 0) return `no path to ${pathless.join(", ")}`;
  if (phase.kind === "failed" && server.failures >= failuresToMove(server)) return phase.fault;
  return undefined;
}
