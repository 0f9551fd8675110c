/** The panel's entries, lines and lights: what each follows from, at the limits of a display of 2 × 20 characters. */
import { describe, expect, test } from "vitest";
import {
  initialPanel,
  type PanelEvent,
  type PanelState,
  panelAnswerMs,
  panelConfirmMs,
  panelIdleMs,
  panelStep,
} from "../../firmware-ts/core/panel.ts";
import { faultsOf, linesOf, panelPages, spread } from "../../firmware-ts/core/panel-lists.ts";
import { view } from "../../firmware-ts/core/panel-view.ts";
import type { PanelButton, Status } from "../../firmware-ts/schema/status.ts";
import { healthyStatus } from "../support/fake-daemon.ts";

const healthy = healthyStatus();
const [alpha, beta] = healthy.virtualServers;
if (!alpha || !beta) throw new Error("two virtual servers are needed");
type Server = typeof alpha;

const withServers = (...changes: readonly Partial<Server>[]): Status => ({
  ...healthy,
  virtualServers: changes.map((change) => ({ ...alpha, ...change })),
});
const onlyServer = (change: Partial<Server>) => linesOf("servers", withServers(change))[0];

describe("an entry", () => {
  test.each([
    [0, "0 ms"],
    [999.4, "999 ms"],
    [1000, "1 s"],
    [119_999, "119 s"],
    [120_000, "2 min"],
    [7_199_999, "119 min"],
    [7_200_000, "2 h"],
    [172_799_999, "47 h"],
    [172_800_000, "2 days"],
  ])("tells %i ms as people do: %s", (uptimeMs, words) => {
    expect(linesOf("status", { ...healthy, uptimeMs })[2]).toEqual(["Up for", words]);
  });

  test("of the partner tells whether it is heard, and as what", () => {
    const of = (partner: Status["partner"]) => linesOf("status", { ...healthy, partner })[1];
    expect(of({ heard: true, mode: "alone" })).toEqual(["Partner        heard", "it is alone"]);
    expect(of({ heard: false })).toEqual(["Partner       SILENT", ""]);
  });

  test("of a link tells when it was heard last, if it ever was", () => {
    const link = { name: "serial", colour: "red", malformed: 0 } as const;
    const links = (silentMs?: number) =>
      linesOf("links", {
        ...healthy,
        links: [{ ...link, ...(silentMs === undefined ? {} : { silentMs }) }],
      });
    expect(links(2500)).toEqual([["serial           RED", "heard 2 s ago"]]);
    expect(links()).toEqual([["serial           RED", "never heard"]]);
  });

  test.each([
    ["serving", "HERE"],
    ["silent", "MUTE"],
    ["elsewhere", "PTNR"],
    ["nowhere", "NONE"],
    ["starting", "STRT"],
    ["stopping", "STOP"],
    ["failed", "FAIL"],
  ] as const)("of a virtual server that is %s says %s", (state, word) => {
    expect(onlyServer({ state })?.[0]).toBe(`alpha           ${word}`);
  });

  test("of a virtual server tells its fault before its step, and that before its last start", () => {
    const { lastStartMs: _lastStartMs, ...fresh } = alpha;
    expect(linesOf("servers", { ...healthy, virtualServers: [fresh] })[0]?.[1]).toBe(
      spread("home A", ""),
    );
    expect(onlyServer({ lastStartMs: 62 })?.[1]).toBe("home A      in 62 ms");
    expect(onlyServer({ step: "mount" })?.[1]).toBe("home A         mount");
    expect(onlyServer({ step: "mount", fault: "no path" })?.[1]).toBe("no path");
  });

  test("of an address keeps the name while there is room, and gives up first the prefix, then the name", () => {
    const of = (address: string) => linesOf("addresses", withServers({ addresses: [address] }))[0];
    expect(of("fd00:1:2:3::1234/128")).toEqual(["alpha", "fd00:1:2:3::1234/128"]);
    expect(of("fd00:1:2:3:4::1234/64")).toEqual(["alpha", "fd00:1:2:3:4::1234"]);
    expect(of("fd00:1:2:3:4:5::1234/64")).toEqual(["alpha", "fd00:1:2:3:4:5::1234"]);
    expect(of("fd00:1:2:3:4:5:6:1234/64")).toEqual(["fd00:1:2:3:4:5:6:123", "4"]);
  });

  test("of a reason breaks between words where it can", () => {
    const of = (message: string) => {
      const vetoes = [{ code: "x", severity: "hard", message }] as const;
      return linesOf("takeover", {
        ...healthy,
        takeover: { possible: false, vetoes: [...vetoes] },
      })[0];
    };
    expect(of("exactly twenty chars")).toEqual(["exactly twenty chars", ""]);
    expect(of("exactly twenty chars and more")).toEqual(["exactly twenty chars", "and more"]);
    expect(of("not quite twenty characters")).toEqual(["not quite twenty", "characters"]);
    expect(of("oneverylongwordwithoutablank")).toEqual(["oneverylongwordwitho", "utablank"]);
    expect(of(" averylongwordafterablank")).toEqual([" averylongwordaftera", "blank"]);
  });

  test("has a blank between left and right even where there is no room for one", () => {
    expect(spread("left", "right")).toBe("left           right");
    expect(spread("a name of fifteen", "HERE")).toBe("a name of fifteen HERE");
  });
});

describe("a fault", () => {
  const well: Status = { ...healthy, links: [] };
  const [data] = healthy.disks;

  test("is nothing that is as it should be", () => {
    const links = healthy.links.map((link) => ({ ...link, colour: "absent" as const }));
    expect(faultsOf({ ...well, links })).toEqual([]);
    for (const state of ["serving", "elsewhere", "starting", "stopping"] as const)
      expect(faultsOf({ ...withServers({ state }), links: [] })).toEqual([]);
  });

  test.each<[string, Partial<Status>, readonly [string, string]]>([
    [
      "a server that failed",
      withServers({ state: "failed", fault: "no path" }),
      ["alpha FAILED", "no path"],
    ],
    ["one that failed for no known reason", withServers({ state: "failed" }), ["alpha FAILED", ""]],
    [
      "a server that may not answer",
      withServers({ state: "silent" }),
      ["alpha SILENT", "no disk majority"],
    ],
    [
      "a server that nobody serves",
      withServers({ state: "nowhere" }),
      ["alpha", "served by nobody"],
    ],
    [
      "a partner that is not heard",
      { partner: { heard: false } },
      ["Partner is silent", "no redundancy"],
    ],
    ["a data link without a carrier", { dataLinkUp: false }, ["Data link here", "no carrier"]],
    [
      "the partner's data link",
      { partner: { heard: true, dataLinkDown: true } },
      ["Data link of partner", "no carrier"],
    ],
    [
      "a disk that cannot be reached",
      {
        disks: [{ serial: "d1", role: "data", owner: "a", path: "down" }, ...(data ? [data] : [])],
      },
      ["d1", "data disk lost"],
    ],
    [
      "a dead link",
      { links: [{ name: "disk", colour: "red", malformed: 0 }] },
      ["Link disk", "dead"],
    ],
    [
      "a late link",
      { links: [{ name: "disk", colour: "yellow", malformed: 0 }] },
      ["Link disk", "overdue"],
    ],
  ])("is %s", (_, change, lines) => {
    expect(
      faultsOf({ ...well, ...change, links: change.links?.length === 1 ? change.links : [] }),
    ).toEqual([lines]);
  });

  test("that is graver stands first", () => {
    const status = {
      ...withServers({ state: "failed" }),
      partner: { heard: false },
      dataLinkUp: false,
    };
    expect(faultsOf(status).map(([first]) => first)).toEqual([
      "alpha FAILED",
      "Partner is silent",
      "Data link here",
      "Link disk",
    ]);
  });
});

describe("the display", () => {
  const pages = (page: PanelState["page"]): PanelState => ({ kind: "pages", page, sinceMs: 0 });
  const shown = (state: PanelState, status = healthy) => view(state, status).lines;

  test("has twenty printable characters on each line, whatever is to be said", () => {
    const status = withServers({ name: "übergröße mit langem Namen", fault: "é\n" });
    expect(shown({ kind: "list", page: "servers", entry: 0, sinceMs: 0 }, status)).toEqual([
      "?bergr??e mit langem",
      "??                  ",
    ]);
  });

  test.each<[string, readonly Server["state"][], string]>([
    ["where everything is", ["serving", "elsewhere"], "here 1 ptnr 1       "],
    ["what moves", ["serving", "starting", "stopping"], "here 1 ptnr 0 move 2"],
    ["what is down, before what moves", ["starting", "failed"], "here 0 ptnr 0 down 1"],
    ["all that is down", ["nowhere", "failed", "silent"], "here 0 ptnr 0 down 3"],
  ])("tells %s", (_, states, line) => {
    expect(shown(pages("status"), withServers(...states.map((state) => ({ state }))))[1]).toBe(
      line,
    );
  });

  test.each([
    ["ok", "OK"],
    ["degraded", "DEGRADED"],
    ["takenOver", "TAKEOVER"],
    ["notServing", "DOWN"],
  ] as const)("calls health %s %s", (health, word) => {
    expect(
      shown(pages("status"), { ...healthy, health })[0]
        .trim()
        .endsWith(` ${word}`),
    ).toBe(true);
  });

  test("says that there is nothing to look at, where there is not", () => {
    expect(shown(pages("faults"), { ...healthy, links: [] })).toEqual([
      "Faults             0",
      "none                ",
    ]);
  });

  test("says whether a command may be chosen", () => {
    const takeover = { possible: false, vetoes: [] };
    expect(shown(pages("takeover"), { ...healthy, takeover })[1]).toBe("not now. OK: reasons");
    expect(shown(pages("takeover"))[1]).toBe("OK: choose          ");
  });

  test("shows the last entry of a list that has become shorter", () => {
    const state: PanelState = { kind: "list", page: "servers", entry: 5, sinceMs: 0 };
    expect(shown(state)[0]).toBe("beta            PTNR");
  });

  test("names the question, the answer, or the want of a reason", () => {
    const command = { command: "giveback", page: "giveback", sinceMs: 0 } as const;
    expect(shown({ kind: "confirm", yes: true, ...command })[0]).toBe("Give all back?      ");
    expect(shown({ kind: "waiting", ...command })).toEqual([
      "Give all back?      ",
      "asking...           ",
    ]);
    const result = { kind: "result", ...command } as const;
    expect(shown({ ...result, accepted: true })[1]).toBe("under way           ");
    expect(shown({ ...result, accepted: false })).toEqual([
      "Refused:            ",
      "no reason given     ",
    ]);
  });
});

describe("the lights", () => {
  const lights = (change: Partial<Status>) =>
    view(initialPanel(0), { ...healthy, ...change }).lights;

  test("power is amber while we leave", () => {
    expect(lights({ mode: "leaving" }).power).toBe("amber");
    expect(lights({ mode: "out" }).power).toBe("green");
  });

  test.each([
    ["paired", "green"],
    ["alone", "green"],
    ["joining", "amber"],
    ["out", "amber"],
  ] as const)("partner, heard as %s, is %s", (mode, colour) => {
    expect(lights({ partner: { heard: true, mode } }).partner).toBe(colour);
    expect(lights({ partner: { heard: false, mode } }).partner).toBe("red");
  });

  test.each<[readonly Server["state"][], string]>([
    [["serving", "elsewhere"], "green"],
    [["serving", "starting"], "blinkGreen"],
    [["serving", "stopping"], "blinkGreen"],
    [["elsewhere", "failed"], "off"],
  ])("activity with virtual servers %j is %s", (states, colour) => {
    const { virtualServers } = withServers(...states.map((state) => ({ state })));
    expect(lights({ virtualServers }).activity).toBe(colour);
  });
});

describe("a button", () => {
  const press = (state: PanelState, button: PanelButton, nowMs: number, status = healthy) =>
    panelStep(state, { kind: "button", button, status, nowMs });
  const at = (page: PanelState["page"], sinceMs = 0): PanelState => ({
    kind: "pages",
    page,
    sinceMs,
  });

  test("is looked at after the time that went by before it", () => {
    const list: PanelState = { kind: "list", page: "links", entry: 1, sinceMs: 0 };
    expect(press(list, "down", panelIdleMs).state).toEqual(initialPanel(panelIdleMs));
    const confirm = {
      kind: "confirm",
      page: "takeover",
      command: "takeover",
      yes: true,
      sinceMs: 0,
    } as const;
    expect(press(confirm, "ok", panelConfirmMs)).toMatchObject({
      state: { kind: "pages" },
      effects: [],
    });
    expect(press(at("links"), "down", panelIdleMs).state).toMatchObject({ page: "servers" });
  });

  test.each<[string, PanelState, PanelButton]>([
    ["turning a page", at("links"), "down"],
    ["turning back", at("links"), "up"],
    ["going home", at("links"), "back"],
    ["looking at a page without entries", at("faults"), "ok"],
    ["turning to the next entry", { kind: "list", page: "links", entry: 0, sinceMs: 0 }, "down"],
    ["leaving a list", { kind: "list", page: "links", entry: 0, sinceMs: 0 }, "back"],
    [
      "choosing",
      { kind: "confirm", page: "takeover", command: "takeover", yes: false, sinceMs: 0 },
      "up",
    ],
  ])("begins the time of rest anew: %s", (_, state, button) => {
    expect(press(state, button, 500, { ...healthy, links: [] }).state.sinceMs).toBe(500);
  });

  test("that says back leads from any page to the first", () => {
    for (const page of panelPages)
      expect(press(at(page), "back", 5).state).toEqual(initialPanel(5));
  });

  test("goes through the entries of a list in both ways, and round", () => {
    const list = (entry: number): PanelState => ({
      kind: "list",
      page: "links",
      entry,
      sinceMs: 0,
    });
    const entryAfter = (entry: number, button: PanelButton) => press(list(entry), button, 1).state;
    expect(entryAfter(0, "up")).toMatchObject({ entry: 2 });
    expect(entryAfter(2, "up")).toMatchObject({ entry: 1 });
    expect(entryAfter(2, "down")).toMatchObject({ entry: 0 });
    expect(entryAfter(0, "ok")).toMatchObject({ entry: 1 });
    // It has become shorter meanwhile: what was shown is the last.
    expect(entryAfter(9, "up")).toMatchObject({ entry: 1 });
    expect(entryAfter(9, "down")).toMatchObject({ entry: 0 });
  });

  test("changes nothing while an answer is waited for", () => {
    const waiting: PanelState = {
      kind: "waiting",
      page: "takeover",
      command: "takeover",
      sinceMs: 0,
    };
    for (const button of ["up", "down", "ok", "back"] as const)
      expect(press(waiting, button, 1)).toEqual({ state: waiting, effects: [] });
  });

  test("ok on a command that may be given asks first, with no for an answer", () => {
    for (const page of ["takeover", "giveback"] as const) {
      const status = { ...healthy, [page]: { possible: true, vetoes: [] } };
      expect(press(at(page), "ok", 1, status).state).toEqual({
        kind: "confirm",
        page,
        command: page,
        yes: false,
        sinceMs: 1,
      });
    }
  });
});

describe("left alone", () => {
  const tick = (state: PanelState, nowMs: number) =>
    panelStep(state, { kind: "tick", nowMs }).state;

  test("the first page stays", () => {
    const home = initialPanel(0);
    expect(tick(home, 10 * panelIdleMs)).toBe(home);
  });

  test("a result is shown for as long as a list, and no longer", () => {
    const result = {
      kind: "result",
      page: "takeover",
      command: "takeover",
      accepted: true,
      sinceMs: 0,
    } as const;
    expect(tick(result, panelIdleMs - 1)).toBe(result);
    expect(tick(result, panelIdleMs)).toEqual(initialPanel(panelIdleMs));
  });

  test("a question without an answer is a refusal, said on the page of its command", () => {
    const asked = { page: "giveback", command: "giveback" } as const;
    const result = tick({ kind: "waiting", ...asked, sinceMs: 0 }, panelAnswerMs);
    expect(result).toMatchObject({
      kind: "result",
      ...asked,
      accepted: false,
      sinceMs: panelAnswerMs,
    });
    expect(result).toMatchObject({ veto: { severity: "hard" } });
  });
});

test("an answer is shown with the first reason against it, if it was refused", () => {
  const waiting: PanelState = {
    kind: "waiting",
    page: "takeover",
    command: "takeover",
    sinceMs: 0,
  };
  const vetoes = ["one", "two"].map((message) => ({
    code: "x",
    severity: "soft" as const,
    message,
  }));
  const answer = (accepted: boolean): PanelEvent => ({
    kind: "answer",
    answer: { accepted, vetoes, plan: [] },
    nowMs: 5,
  });
  const shown = { kind: "result", page: "takeover", command: "takeover", sinceMs: 5 };
  expect(panelStep(waiting, answer(false)).state).toEqual({
    ...shown,
    accepted: false,
    veto: vetoes[0],
  });
  expect(panelStep(waiting, answer(true)).state).toEqual({
    ...shown,
    accepted: true,
    veto: undefined,
  });
});
