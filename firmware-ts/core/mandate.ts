/** What the beats say of this controller, from the state alone: above all which virtual servers are its own in the eyes of the partner. */
import type { Mode } from "../schema/beat.ts";
import { encodeMessage } from "../schema/messages.ts";
import { setOf } from "../schema/server-set.ts";
import type { Mandate } from "./beat-types.ts";
import { type ControllerState, isWriting } from "./controller-state.ts";
import { isInTheWay } from "./definitions.ts";
import { isHeld } from "./vserver-stop.ts";
import type { VirtualServerState } from "./vserver-types.ts";

/**
 * Also what we have promised to start, or keep as failed; but not what is left of something that was declined, which is released. And
 * whatever is being written or changed here: so the right to write does not pass to the partner meanwhile.
 */
export function holdsServer(state: ControllerState, server: VirtualServerState): boolean {
  const { index } = server;
  if (state.changes[index] || state.parts[index]?.isResumed || isWriting(state, index)) return true;
  const transfer = state.transfers[index];
  const at = transfer?.role === "target" ? transfer.at : undefined;
  if (server.phase.kind === "off") return at === "starting";
  return at !== "declined" || !isHeld(server);
}

/** Owned in the eyes of the partner: what we hold, and what it must not start because something of it is still in use here. */
export function claimsServer(state: ControllerState, server: VirtualServerState): boolean {
  return holdsServer(state, server) || isInTheWay(state, server);
}

/** What the beats must say, from the state alone. */
export function mandateOf(state: ControllerState): Mandate {
  const { servers } = state;
  const those = (passes: (server: VirtualServerState) => boolean) =>
    setOf(servers.length, (number) => {
      const server = servers[number];
      return server !== undefined && passes(server);
    });
  const head = state.outbox[0];
  return {
    mode: state.mode,
    turn: state.turn,
    epoch: state.epoch,
    owned: those((server) => claimsServer(state, server)),
    serving: those((server) => server.phase.kind === "serving"),
    goodbye: state.farewellMs !== undefined,
    dataLinkDown: !state.dataLinkUp,
    configuration: state.configuration,
    ground: groundOf(state.mode),
    messageAck: state.messageAck,
    messageSession: state.lastSession,
    ...(head ? { message: { id: state.messageId, body: encodeMessage(head) } } : {}),
  };
}

/** Whether two mandates say the same; asked after every event. The body of a message follows from its number. */
export function sameMandate(one: Mandate, other: Mandate): boolean {
  return (
    one.mode === other.mode &&
    one.turn === other.turn &&
    one.epoch === other.epoch &&
    one.owned === other.owned &&
    one.serving === other.serving &&
    one.goodbye === other.goodbye &&
    one.dataLinkDown === other.dataLinkDown &&
    one.configuration === other.configuration &&
    one.ground === other.ground &&
    one.messageAck === other.messageAck &&
    one.messageSession === other.messageSession &&
    one.message?.id === other.message?.id
  );
}

/** On which proof gates live in each mode. While racing the last acknowledgement still counts, and runs out. */
function groundOf(mode: Mode): Mandate["ground"] {
  switch (mode) {
    case "paired":
    case "racing":
    case "leaving":
      return "acknowledged";
    case "alone":
      return "solo";
    case "starting":
    case "joining":
    case "out":
      return "none";
    default:
      throw new Error(`groundOf: unknown mode ${String(mode)}`);
  }
}
