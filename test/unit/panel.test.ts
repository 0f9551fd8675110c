/** The front panel: what a person with four buttons can reach, and what they can never do by accident. */
import { expect, test } from "vitest";
import { panelBox } from "../../firmware-ts/cli/panel-box.ts";
import {
  initialPanel,
  type PanelEvent,
  type PanelState,
  panelAnswerMs,
  panelConfirmMs,
  panelIdleMs,
  panelStep,
} from "../../firmware-ts/core/panel.ts";
import { view } from "../../firmware-ts/core/panel-view.ts";
import type { PanelButton, Status } from "../../firmware-ts/schema/status.ts";
import { healthyStatus } from "../support/fake-daemon.ts";

/** Presses buttons a second apart; returns the last state, the effects of all, and what the panel shows. */
function press(buttons: string, status: Status = healthyStatus(), from = initialPanel(0)) {
  const names: Record<string, PanelButton> = { u: "up", d: "down", o: "ok", b: "back" };
  let state: PanelState = from;
  let nowMs = from.sinceMs;
  const effects: unknown[] = [];
  for (const letter of buttons) {
    nowMs += 1000;
    const button = names[letter] ?? "back";
    const step = panelStep(state, { kind: "button", button, status, nowMs });
    state = step.state;
    effects.push(...step.effects);
  }
  return { state, effects, nowMs, lines: view(state, status).lines };
}

test("the pages, turned with down, and round again", () => {
  const shown = ["", "d", "dd", "ddd", "dddd", "ddddd", "dddddd", "ddddddd"].map(
    (buttons) => press(buttons).lines,
  );
  expect(shown).toEqual([
    ["A PAIRED          OK", "here 1 ptnr 1       "],
    ["Virtual servers    2", "OK: look            "],
    ["Links               ", "s:green n:green d:ye"],
    ["Addresses          3", "OK: look            "],
    ["Faults             1", "OK: look            "],
    ["Take over partner?  ", "OK: choose          "],
    ["Give all back?      ", "not now. OK: reasons"],
    ["A PAIRED          OK", "here 1 ptnr 1       "],
  ]);
  expect(press("u").lines).toEqual(shown[6]);
});

test("the lists behind the pages", () => {
  expect(press("o").lines).toEqual(["Controller         A", "epoch              7"]);
  expect(press("od").lines).toEqual(["Partner        heard", "it is paired        "]);
  expect(press("do").lines).toEqual(["alpha           HERE", "home A      in 62 ms"]);
  expect(press("dod").lines).toEqual(["beta            PTNR", "home B              "]);
  expect(press("dodd").lines).toEqual(press("do").lines);
  expect(press("ddodd").lines).toEqual(["disk          YELLOW", "heard 41 ms ago     "]);
  expect(press("dddo").lines).toEqual(["alpha               ", "10.0.0.100/24       "]);
  expect(press("ddddo").lines).toEqual(["Link disk           ", "overdue             "]);
  expect(press("ddddddo").lines).toEqual(["every server is at  ", "home                "]);
  expect(press("dodb").state).toMatchObject({ kind: "pages", page: "servers" });
});

test("a full IPv6 address uses both lines", () => {
  const status = healthyStatus();
  const address = "2001:0db8:1111:2222:3333:4444:5555:6666";
  status.virtualServers = status.virtualServers.map((each) => ({
    ...each,
    addresses: [`${address}/128`],
  }));
  expect(press("dddo", status).lines.join("").trim()).toBe(address);
});

test("a page without entries does not open", () => {
  const status = { ...healthyStatus(), links: [] };
  expect(press("ddo", status).state).toMatchObject({ kind: "pages", page: "links" });
});

test("a list that becomes empty while it is shown leads back to its page", () => {
  const list = press("ddddo").state;
  const status = { ...healthyStatus(), links: [] };
  expect(view(list, status).lines[0]).toBe("Faults             0");
  expect(press("d", status, list).state).toMatchObject({ kind: "pages", page: "faults" });
});

test("a takeover is chosen, confirmed, and asked for once", () => {
  expect(press("dddddo").lines).toEqual(["Take over partner?  ", "[NO]  yes           "]);
  expect(press("dddddou").lines[1]).toBe(" no  [YES]     OK=go");
  const asked = press("dddddouo");
  expect(asked.effects).toEqual([{ kind: "command", command: "takeover" }]);
  expect(asked.lines[1]).toBe("asking...           ");
  expect(press("oooudb", healthyStatus(), asked.state).effects).toEqual([]);
});

test("leaning on OK never asks for anything, from any page", () => {
  for (let page = 0; page < 7; page += 1)
    expect(press("d".repeat(page) + "o".repeat(20)).effects).toEqual([]);
});

test("back and the other choice leave a confirmation without a command", () => {
  for (const buttons of ["dddddob", "dddddouuo", "dddddoub"]) {
    const { state, effects } = press(buttons);
    expect(effects).toEqual([]);
    expect(state).toMatchObject({ kind: "pages", page: "takeover" });
  }
});

test("a command that is not possible cannot be confirmed; its reasons are listed", () => {
  const { state, effects } = press("ddddddouo");
  expect(effects).toEqual([]);
  expect(state.kind).toBe("list");
});

function answered(accepted: boolean): PanelEvent {
  const vetoes = accepted
    ? []
    : [{ code: "notPaired", severity: "hard" as const, message: "the pair is not complete" }];
  return { kind: "answer", answer: { accepted, vetoes, plan: [] }, nowMs: 20_000 };
}

test("the answer is shown, whichever it is, and any button returns to the page", () => {
  const asked = press("dddddouo").state;
  const accepted = panelStep(asked, answered(true)).state;
  expect(view(accepted, healthyStatus()).lines[1]).toBe("under way           ");
  const refused = panelStep(asked, answered(false)).state;
  expect(view(refused, healthyStatus()).lines).toEqual([
    "Refused:            ",
    "the pair is not comp",
  ]);
  expect(press("b", healthyStatus(), refused).state).toMatchObject({ kind: "pages" });
});

test("an answer that nobody waits for any more is ignored", () => {
  const state = initialPanel(0);
  expect(panelStep(state, answered(true)).state).toBe(state);
});

test.each([
  ["a page", "dd", panelIdleMs, "pages"],
  ["a list", "do", panelIdleMs, "pages"],
  ["a confirmation", "dddddou", panelConfirmMs, "pages"],
  ["a question without answer", "dddddouo", panelAnswerMs, "result"],
])("left alone, %s ends at its time and not before", (_, buttons, limitMs, kind) => {
  const { state, nowMs } = press(buttons);
  const early = panelStep(state, { kind: "tick", nowMs: nowMs + limitMs - 1 });
  expect(early.state).toBe(state);
  const late = panelStep(state, { kind: "tick", nowMs: nowMs + limitMs });
  expect(late.state).not.toBe(state);
  expect(late.state.kind).toBe(kind);
  expect(late.effects).toEqual([]);
});

test("a press after the confirmation's time does not confirm, even without a tick between", () => {
  const { state, nowMs } = press("dddddou");
  const late = panelStep(state, {
    kind: "button",
    button: "ok",
    status: healthyStatus(),
    nowMs: nowMs + panelConfirmMs,
  });
  expect(late.effects).toEqual([]);
});

test("the lights say what is wrong from across the room", () => {
  const lights = (change: Partial<Status>) =>
    view(initialPanel(0), { ...healthyStatus(), ...change }).lights;
  const healthy = { power: "green", health: "green", partner: "green", activity: "green" };
  expect(lights({})).toEqual(healthy);
  expect(lights({ health: "degraded" }).health).toBe("amber");
  expect(lights({ health: "takenOver", partner: { heard: false } })).toMatchObject({
    health: "red",
    partner: "red",
  });
  expect(lights({ health: "notServing" }).health).toBe("blinkRed");
  expect(lights({ partner: { heard: true, mode: "joining" } }).partner).toBe("amber");
  const moving = healthyStatus().virtualServers.map((each) => ({
    ...each,
    state: "starting" as const,
  }));
  expect(lights({ virtualServers: moving }).activity).toBe("blinkGreen");
  expect(lights({ virtualServers: [] }).activity).toBe("off");
});

test("the soft panel, without colour", () => {
  expect(panelBox(view(initialPanel(0), healthyStatus()), false)).toEqual([
    "┌──────────────────────┬──────────────┐",
    "│ A PAIRED          OK │ G power      │",
    "│ here 1 ptnr 1        │ G health     │",
    "│                      │ G partner    │",
    "│ ↑ ↓   ⏎ = ok  ⌫ back │ G activity   │",
    "└──────────────────────┴──────────────┘",
  ]);
});
