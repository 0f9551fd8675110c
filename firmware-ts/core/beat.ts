/**
 * The beat machine: decides, frame by frame, whether the partner lives, what may be acknowledged, and how long the
 * kernel may keep our own addresses open. It runs in a process of its own with real-time priority; the main
 * loop tells it what to say (mandate) and which gates to keep, and learns of changes by observations.
 *
 *     frame ─▶ session known? ──no──▶ answered, not believed, until it acknowledges *our* session (a replay cannot)
 *                  │yes
 *                  ▼
 *              newer than all before ─▶ partner view, lease on our gates (if the partner grants), messages
 *
 *     silent on all links / stalled / dying gasp / goodbye / restarted ─▶ partnerLost, and nothing granted from then on
 *     silent on all links, and so were we ─▶ nothing granted, judged again (core/beat-silence)
 *
 * Safety (docs/SAFETY.md): `lastGrantedMs` is the receive time of the newest beat that any acknowledgement of ours with
 * `granting` named. The partner renews its gates to the *send* time of that beat plus gateTimeout, so on our clock they
 * are closed at lastGrantedMs + gateTimeout + margin. That holds only because granting stops in the very step that
 * declares the loss.
 */
import type { LinkName } from "../schema/ids.ts";
import {
  closeForGood,
  closeGates,
  gateOutcome,
  keepGates,
  knowGates,
  openDue,
  queueOpen,
  renewGates,
} from "./beat-gates.ts";
import { epochOf, frameIn } from "./beat-hear.ts";
import { lose } from "./beat-loss.ts";
import { sayEverywhere, send, sendDue } from "./beat-send.ts";
import { judge, noteTick, stalledFor } from "./beat-silence.ts";
import {
  type BeatState,
  inTurn,
  join,
  nothing,
  observe,
  type Part,
  type Step,
} from "./beat-state.ts";
import type { BeatEvent, Mandate } from "./beat-types.ts";
import { hasColours, linkColours, withLink } from "./links.ts";
import { heedsRefusal } from "./modes.ts";

/** Commands of a main loop; one that was still on its way when the loop died must not undo the last words. */
const commands: readonly BeatEvent["kind"][] = [
  "mandate",
  "progress",
  "grant",
  "gateOpen",
  "gateKeep",
  "gateClose",
  "gateKnow",
];

export function beatStep(state: BeatState, event: BeatEvent): Step {
  if (state.ending !== "no" && commands.includes(event.kind)) return [state, []];
  switch (event.kind) {
    case "tick":
      return tick(state, event.nowMs);
    case "frame":
      return frameIn(epochOf(state, event.beat), event.link, event.beat, event.nowMs);
    case "remnant":
      return epochOf(state, event.beat);
    case "carrier":
      return carrier(state, event.link, event.up, event.nowMs);
    case "written":
      return written(state, event);
    case "mandate":
      return mandate(state, event.mandate, event.nowMs);
    case "progress":
      return [{ ...state, progressAtMs: event.nowMs }, nothing];
    case "grant":
      // A grant that was on its way when its contact ended must not outlive the loss that it knows nothing of.
      if (!state.partner || event.contact !== state.contact) return [state, []];
      return [{ ...state, granting: event.on }, []];
    case "gateOpen": {
      const queued = queueOpen(state, event);
      return join(queued, openDue(queued[0], event.nowMs));
    }
    case "gateKeep": {
      const keeping = keepGates(state, event.addresses);
      return join(keeping, renewGates(keeping[0], event.nowMs));
    }
    case "gateClose":
      return closeGates(state, event.token, event.addresses);
    case "gateKnow":
      return knowGates(state, event.token, event.addresses);
    case "lastWords":
      return closeForGood(state);
    case "gateOutcome":
      return sealed(gateOutcome(state, event), state, event.nowMs);
    default:
      return unreachable(event);
  }
}

/** When the gates have just been closed for good, the beats say so at once. */
function sealed(step: Step, before: BeatState, nowMs: number): Step {
  if (step[0].ending === before.ending) return step;
  return join(step, sayEverywhere(step[0], nowMs));
}

function unreachable(event: never): never {
  throw new Error(`beatStep: unknown event ${JSON.stringify(event)}`);
}

/** What a tick looks at, in this order, after it has judged the silence. Most ticks find nothing to do. */
const tickParts = [sendDue, openDue, showSolo, showLinks];

function tick(state: BeatState, nowMs: number): Step {
  const stallMs = stalledFor(state, nowMs);
  const noted = noteTick(state, stallMs, nowMs);
  const judged = join([noted, nothing], judgeSilence(noted, stallMs, nowMs));
  return inTurn(judged, nowMs, tickParts);
}

/** Tells the main loop when the proof by the coordinators begins and ends. */
function showSolo(state: BeatState, nowMs: number): Part {
  const soloFresh = nowMs < state.soloLeaseMs;
  if (soloFresh === state.shown.soloFresh) return undefined;
  const next = { ...state, shown: { ...state.shown, soloFresh } };
  return [next, [observe({ kind: "solo", fresh: soloFresh })]];
}

/** Tells the main loop when a light changes, not at every beat. */
function showLinks(state: BeatState, nowMs: number): Part {
  const { links, timing, shown } = state;
  const diskReadable = links.disk.present && links.disk.carrier;
  if (shown.diskReadable === diskReadable && hasColours(shown.colours, links, timing, nowMs))
    return undefined;
  const colours = linkColours(links, timing, nowMs);
  const next = { ...state, shown: { ...shown, colours, diskReadable } };
  return [next, [observe({ kind: "links", colours, diskReadable })]];
}

function judgeSilence(state: BeatState, stallMs: number, nowMs: number): Part {
  if (!state.partner) return undefined;
  const verdict = judge(state, stallMs, nowMs);
  if (verdict === "heard") return undefined;
  if (verdict === "lost") return lose(state, "silent");
  return [{ ...state, doubtedSinceMs: state.doubtedSinceMs ?? nowMs }, nothing];
}

/** What the main loop says is heard by the partner now, not at the next tick: a transfer is made of such turns. */
function mandate(state: BeatState, said: Mandate, nowMs: number): Step {
  const turnFirst = said.turn === state.mandate.turn ? state.turnFirst : state.sequence + 1;
  const next = { ...state, mandate: said, turnFirst };
  const urgent = (["network", "serial"] as const).find((name) => state.links[name].present);
  const step: Step = urgent ? send(next, [urgent], nowMs) : [next, nothing];
  return join(step, renewGates(step[0], nowMs));
}

function carrier(state: BeatState, name: LinkName, up: boolean, nowMs: number): Step {
  if (state.links[name].carrier === up) return [state, []];
  const links = withLink(state.links, name, { ...state.links[name], carrier: up });
  const next: BeatState = { ...state, links };
  return join([next, nothing], showLinks(next, nowMs));
}

/** A write that a majority of coordinators let through proves that nobody had preempted us when it was sent. */
function written(
  state: BeatState,
  event: { nowMs: number; sentAtMs: number; accepted: number; refused: number; total: number },
): Step {
  const majority = Math.floor(event.total / 2) + 1;
  if (event.refused >= majority) {
    // A controller that starts is refused with every beat until it is registered; its main process may need seconds for that.
    if (!heedsRefusal(state.mandate.mode)) return [state, nothing];
    return [state, [observe({ kind: "soloRefused", sentAtMs: event.sentAtMs })]];
  }
  if (event.accepted < majority) return [state, nothing];
  const soloLeaseMs = Math.max(state.soloLeaseMs, event.sentAtMs + state.timing.soloGateTimeoutMs);
  const next: BeatState = { ...state, soloLeaseMs };
  return join([next, nothing], renewGates(next, event.nowMs));
}
