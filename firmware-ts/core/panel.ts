/**
 * The front panel: two lines of 20 characters, four buttons, four lights. This file is its behaviour, panel-view.ts what it shows.
 *
 *                 up/down: next page                      ok: choice "yes"
 *     ┌──────────────────────┐          ┌────────┐  ────────────────────▶ ┌─────────┐
 *     │        pages         │───ok────▶│confirm │                        │ waiting │
 *     │ status  servers      │ on a     │ no|yes │ ──back, "no", 20 s──┐  └────┬────┘
 *     │ links   addresses    │ possible └────────┘                     │       │ answer, or 15 s
 *     │ faults  takeover     │ command                                 │       ▼
 *     │ giveback             │◀────────────────────────────────────────┘  ┌────────┐
 *     │                      │◀──────────────any button, 60 s─────────────│ result │
 *     │                      │                                            └────────┘
 *     │                      │──ok, if there are entries──▶ ┌──────┐
 *     │                      │◀──back, 60 s──────────────── │ list │ up/down: next entry
 *     └──────────────────────┘                              └──────┘
 *
 *     from \ to   pages  list  confirm  waiting  result
 *     pages         x     x       x
 *     list          x     x
 *     confirm       x             x        x
 *     waiting                              x        x
 *     result        x                               x
 *
 * A takeover needs four deliberate presses (page, ok, up, ok), and the panel never forces: vetoes are shown, not overridden.
 */
import type { CommandAnswer, PanelButton, Status, Veto } from "../schema/status.ts";
import { linesOf, type PanelPage, panelPages } from "./panel-lists.ts";

export type PanelCommand = "takeover" | "giveback";

/** A panel left alone shows the state again; an unconfirmed command must not wait for a passer-by's hand. */
export const panelIdleMs = 60_000;
export const panelConfirmMs = 20_000;
/** Longer than the daemon takes to decide, or to say that it cannot. */
export const panelAnswerMs = 15_000;

interface Common {
  readonly page: PanelPage;
  /** When the state was entered or a button last pressed. */
  readonly sinceMs: number;
}
export type PanelState =
  | (Common & { readonly kind: "pages" })
  | (Common & { readonly kind: "list"; readonly entry: number })
  | (Common & { readonly kind: "confirm"; readonly command: PanelCommand; readonly yes: boolean })
  | (Common & { readonly kind: "waiting"; readonly command: PanelCommand })
  | (Common & {
      readonly kind: "result";
      readonly command: PanelCommand;
      readonly accepted: boolean;
      /** The reason shown for a refusal. */
      readonly veto?: Veto | undefined;
    });

/** `answer` is the daemon's answer to the effect `command`; an answer that nobody waits for is ignored. */
export type PanelEvent =
  | { readonly kind: "tick"; readonly nowMs: number }
  | {
      readonly kind: "button";
      readonly button: PanelButton;
      readonly status: Status;
      readonly nowMs: number;
    }
  | { readonly kind: "answer"; readonly answer: CommandAnswer; readonly nowMs: number };

/** To be given to the daemon as an ordinary command, without force, asked by "panel". */
export interface PanelEffect {
  readonly kind: "command";
  readonly command: PanelCommand;
}

export interface PanelStep {
  readonly state: PanelState;
  readonly effects: readonly PanelEffect[];
}

const allowed: Readonly<Record<PanelState["kind"], readonly PanelState["kind"][]>> = {
  pages: ["pages", "list", "confirm"],
  list: ["list", "pages"],
  confirm: ["confirm", "pages", "waiting"],
  waiting: ["waiting", "result"],
  result: ["result", "pages"],
};

export function initialPanel(nowMs: number): PanelState {
  return { kind: "pages", page: "status", sinceMs: nowMs };
}

/** One step of the panel; throws when a transition is made that the table does not show. */
export function panelStep(state: PanelState, event: PanelEvent): PanelStep {
  const step = decide(state, event);
  if (!allowed[state.kind].includes(step.state.kind))
    throw new Error(`panel: no transition from ${state.kind} to ${step.state.kind}`);
  return step;
}

function decide(state: PanelState, event: PanelEvent): PanelStep {
  switch (event.kind) {
    case "tick":
      return still(onTick(state, event.nowMs));
    case "answer":
      return still(onAnswer(state, event.answer, event.nowMs));
    case "button": {
      // A press and the passing of time may arrive in either order: time is judged first.
      const current = onTick(state, event.nowMs);
      if (current.kind !== state.kind) return still(current);
      return onButton(current, event.button, event.status, event.nowMs);
    }
    default:
      return unknownEvent(event);
  }
}

function unknownEvent(event: never): never {
  throw new Error(`panel: unknown event ${JSON.stringify(event)}`);
}

const still = (state: PanelState): PanelStep => ({ state, effects: [] });

/** Time alone brings the panel home; it never leads towards a command. */
function onTick(state: PanelState, nowMs: number): PanelState {
  const restedMs = nowMs - state.sinceMs;
  switch (state.kind) {
    case "pages":
      return state.page !== "status" && restedMs >= panelIdleMs ? initialPanel(nowMs) : state;
    case "list":
    case "result":
      return restedMs >= panelIdleMs ? initialPanel(nowMs) : state;
    case "confirm":
      return restedMs >= panelConfirmMs ? toPages(state, nowMs) : state;
    case "waiting":
      if (restedMs < panelAnswerMs) return state;
      return {
        kind: "result",
        page: state.page,
        command: state.command,
        accepted: false,
        veto: { code: "noAnswer", severity: "hard", message: "no answer" },
        sinceMs: nowMs,
      };
    default:
      return unknownState(state);
  }
}

function unknownState(state: never): never {
  throw new Error(`panel: unknown state ${JSON.stringify(state)}`);
}

function onAnswer(state: PanelState, answer: CommandAnswer, nowMs: number): PanelState {
  if (state.kind !== "waiting") return state;
  return {
    kind: "result",
    page: state.page,
    command: state.command,
    accepted: answer.accepted,
    veto: answer.accepted ? undefined : answer.vetoes[0],
    sinceMs: nowMs,
  };
}

function onButton(
  state: PanelState,
  button: PanelButton,
  status: Status,
  nowMs: number,
): PanelStep {
  switch (state.kind) {
    case "pages":
      return still(onPages(state.page, button, status, nowMs));
    case "list":
      return still(onList(state, button, status, nowMs));
    case "confirm":
      return onConfirm(state, button, nowMs);
    case "waiting":
      return still(state);
    case "result":
      return still(toPages(state, nowMs));
    default:
      return unknownState(state);
  }
}

function toPages(state: PanelState, nowMs: number): PanelState {
  return { kind: "pages", page: state.page, sinceMs: nowMs };
}

function onPages(page: PanelPage, button: PanelButton, status: Status, nowMs: number): PanelState {
  switch (button) {
    case "up":
    case "down":
      return { kind: "pages", page: turnPage(page, button), sinceMs: nowMs };
    case "back":
      return initialPanel(nowMs);
    case "ok":
      if ((page === "takeover" || page === "giveback") && status[page].possible)
        return { kind: "confirm", page, command: page, yes: false, sinceMs: nowMs };
      if (linesOf(page, status).length > 0) return { kind: "list", page, entry: 0, sinceMs: nowMs };
      return { kind: "pages", page, sinceMs: nowMs };
    default:
      return unknownButton(button);
  }
}

function unknownButton(button: never): never {
  throw new Error(`panel: unknown button ${JSON.stringify(button)}`);
}

function turnPage(page: PanelPage, button: "up" | "down"): PanelPage {
  const step = button === "down" ? 1 : panelPages.length - 1;
  return panelPages[(panelPages.indexOf(page) + step) % panelPages.length] ?? "status";
}

function onList(
  state: PanelState & { kind: "list" },
  button: PanelButton,
  status: Status,
  nowMs: number,
): PanelState {
  if (button === "back") return toPages(state, nowMs);
  const count = linesOf(state.page, status).length;
  // The list may have become shorter, or empty, since the last press.
  if (count === 0) return toPages(state, nowMs);
  const step = button === "up" ? count - 1 : 1;
  const entry = (Math.min(state.entry, count - 1) + step) % count;
  return { ...state, entry, sinceMs: nowMs };
}

/** "No" stands first, so that leaning on OK does nothing. */
function onConfirm(
  state: PanelState & { kind: "confirm" },
  button: PanelButton,
  nowMs: number,
): PanelStep {
  if (button === "up" || button === "down")
    return still({ ...state, yes: !state.yes, sinceMs: nowMs });
  if (button === "back" || !state.yes) return still(toPages(state, nowMs));
  const { page, command } = state;
  return {
    state: { kind: "waiting", page, command, sinceMs: nowMs },
    effects: [{ kind: "command", command }],
  };
}
