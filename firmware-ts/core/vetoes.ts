/**
 * Why a planned move may not happen now. Every reason is enumerated: the operator reads it, the manual explains it. A soft veto
 * yields to `force`, which is recorded (SAFETY forcedIsAudited); a hard one never does.
 */
import { type ControllerId, partnerOf } from "../schema/ids.ts";
import type { Veto } from "../schema/status.ts";
import { type ControllerState, isQueued, partnerOwns } from "./controller-state.ts";
import { isDeleted, isWanted } from "./definitions.ts";
import type { MoveCommand } from "./events.ts";

/** One virtual server to be moved, and to whom. */
export interface Move {
  readonly index: number;
  readonly to: ControllerId;
}

/** What a command means now. Servers that are where they should be are not in the plan. */
export function planMoves(state: ControllerState, command: MoveCommand): Move[] {
  const partner = partnerOf(state.me);
  const moves: Move[] = [];
  for (const server of state.servers) {
    const { index, config } = server;
    if (isDeleted(server) || (command.kind !== "transfer" && !isWanted(state, server))) continue;
    const theirs = partnerOwns(state, index);
    const owner = theirs ? partner : server.phase.kind === "off" ? undefined : state.me;
    const to =
      command.kind === "takeover"
        ? state.me
        : command.kind === "giveback"
          ? config.home
          : owner === state.me
            ? partner
            : state.me;
    if (command.kind === "transfer" && config.name !== command.virtualServer) continue;
    // One that is not to be served has no owner; it is told so.
    const isNamed = command.kind === "transfer" && !isWanted(state, server);
    if (isNamed || (owner !== undefined && owner !== to)) moves.push({ index, to });
  }
  return moves;
}

export const hard = (code: string, message: string): Veto => ({ code, severity: "hard", message });
export const soft = (code: string, message: string): Veto => ({ code, severity: "soft", message });

/** Every reason against the moves, hard ones first. */
export function vetoes(state: ControllerState, moves: readonly Move[]): Veto[] {
  const list: Veto[] = [];
  if (state.mode !== "paired")
    list.push(hard("notPaired", `the pair is not complete: this controller is ${state.mode}`));
  if (state.partner && state.partner.mode !== "paired")
    list.push(hard("partnerNotPaired", `the partner is ${state.partner.mode}`));
  if (state.partner && state.partner.configuration !== state.configuration)
    list.push(hard("configurationDiffers", "the two configurations differ"));
  for (const { index, to } of moves) {
    const server = state.servers[index];
    const name = server?.config.name ?? `#${index}`;
    if (server && !isWanted(state, server))
      list.push(hard("notStarted", `${name} is not to be served: there is nothing to be moved`));
    if (state.changes[index]) list.push(hard("changeUnderWay", `${name} is being changed`));
    if (state.transfers[index])
      list.push(hard("transferUnderWay", `${name} is being moved already`));
    if (isQueued(state, index))
      list.push(hard("transferUnderWay", `${name} waits for its turn to be moved already`));
    const kind = server?.phase.kind;
    if (kind === "starting" || kind === "stopping")
      list.push(hard("serverBusy", `${name} is ${kind} here`));
    if (to === state.me && !state.dataLinkUp)
      list.push(hard("dataLinkDown", `${name}: the data link here has no carrier`));
    if (to !== state.me && state.partner?.dataLinkDown)
      list.push(hard("partnerDataLinkDown", `${name}: the partner's data link has no carrier`));
  }
  const red = Object.entries(state.colours).filter(([, colour]) => colour === "red");
  for (const [name] of red)
    list.push(soft("linkRed", `the ${name} link is red: a failure during the move is seen later`));
  return dedupe(list);
}

function dedupe(list: readonly Veto[]): Veto[] {
  return [...new Map(list.map((veto) => [veto.code + veto.message, veto])).values()];
}

/** Hard vetoes always stop a command; soft ones do unless it is forced. */
export function stopped(list: readonly Veto[], force: boolean): boolean {
  return list.some((veto) => veto.severity === "hard" || !force);
}
