import { describe, expect, it } from "vitest";
import { draw, heightMin, widthMin } from "../../bench/view/draw.ts";
import { actionOf } from "../../bench/view/keys.ts";
import { plainStatus } from "../../bench/view/lines.ts";
import type { LiveModel } from "../../bench/view/model.ts";
import { parseScript } from "../../bench/view/script.ts";
import { svgOf } from "../../bench/view/svg.ts";
import { cellsOf, fitTo, plain, styled, widthOf } from "../../bench/view/text.ts";
import type { Status } from "../../firmware-ts/schema/status.ts";

const status: Status = {
  version: 1,
  controller: "a",
  mode: "paired",
  epoch: 7,
  health: "ok",
  statusText: "both controllers serve their own virtual servers and a sentence too long for a box",
  actionText: "",
  uptimeMs: 1000,
  partner: { heard: true },
  dataLinkUp: true,
  links: [
    { name: "serial", colour: "green", malformed: 0 },
    { name: "network", colour: "red", malformed: 0 },
    { name: "disk", colour: "absent", malformed: 0 },
  ],
  disks: [
    { serial: "C0", role: "coordinator", owner: "none", path: "up" },
    { serial: "D1", role: "data", owner: "a", path: "up" },
  ],
  virtualServers: [
    {
      name: "vs1",
      home: "a",
      owner: "a",
      state: "serving",
      addresses: ["10.77.0.100/24"],
      exports: ["/vol1"],
      lastStartMs: 123,
    },
  ],
  takeover: { possible: true, vetoes: [] },
  giveback: { possible: false, vetoes: [] },
  refusedFrames: {},
};

const model: LiveModel = {
  elapsedMs: 65_000,
  selected: "a",
  controllers: {
    a: { status, powered: true, memory: undefined, panel: undefined },
    b: { status: undefined, powered: false, memory: undefined, panel: undefined },
  },
  clients: [{ name: "c1", virtualServer: "vs1", state: undefined }],
  servers: [{ name: "vs1", home: "a", address: "10.77.0.100", answeredBy: "a", silentMs: 0 }],
  faults: ["power b"],
  events: Array.from({ length: 50 }, (_, i) => ({
    sequence: i,
    at: "2026-11-21T05:31:09.839Z",
    controller: "a" as const,
    severity: "warning" as const,
    code: "link.red",
    message: `event ${i} ${"long ".repeat(40)}`,
  })),
  note: "a note",
};

describe("the live view", () => {
  it.each([
    [widthMin, heightMin],
    [81, 25],
    [200, 60],
  ])("fills %i×%i exactly", (width, height) => {
    const lines = draw(model, width, height);
    expect(lines).toHaveLength(height);
    expect(lines.map(widthOf)).toEqual(lines.map(() => width));
  });

  it("says what is to be seen", () => {
    const text = draw(model, widthMin, heightMin).map(plain).join("\n");
    for (const word of ["power b", "paired", "epoch 7", "no power", "vs1", "yes, a", "123 ms"])
      expect(text).toContain(word);
    expect(text).toContain("event 49");
    expect(text).not.toContain("event 10 ");
    expect(text).toContain("a note");
    expect(text).toContain("repair all");
  });

  it("asks for room instead of drawing rubbish", () => {
    expect(draw(model, 60, 20)).toHaveLength(1);
    expect(draw(model, 60, 20)[0]).toContain("80×24");
  });

  it("tells the same in one line for a pipe", () => {
    expect(plainStatus(model)).toContain("a paired e7 s:green n:red d:absent | b off | vs1@a");
    expect(plainStatus(model)).toContain("broken: power b");
  });
});

describe("text in columns", () => {
  it("counts what is seen, and cuts without losing the end of a style", () => {
    const text = `ab${styled("cdef", "red")}`;
    expect(widthOf(text)).toBe(6);
    expect(plain(fitTo(text, 4))).toBe("abcd");
    expect(fitTo(text, 4).endsWith("\x1b[0m")).toBe(true);
    expect(fitTo(text, 8)).toBe(`${text}  `);
    expect(cellsOf(text).at(-1)).toEqual({ character: "f", codes: "31" });
  });
});

describe("keys and scripts", () => {
  it("knows its keys and ends with Ctrl-C", () => {
    expect(actionOf("k")).toMatchObject({ kind: "fault", fault: "kill9", toggle: true });
    expect(actionOf("\x03")).toEqual({ kind: "quit" });
    expect(actionOf("~")).toBeUndefined();
  });

  it("reads steps in the order of their times", () => {
    expect(parseScript("10s repair; 2s kill9 a; 1m quit; 500ms select b;", ["kill9"])).toEqual([
      { atMs: 500, action: { kind: "select", id: "b" } },
      { atMs: 2000, action: { kind: "fault", fault: "kill9", victim: "a", toggle: false } },
      { atMs: 10_000, action: { kind: "repair" } },
      { atMs: 60_000, action: { kind: "quit" } },
    ]);
    expect(parseScript("", [])).toEqual([]);
  });

  it.each(["kill9 a", "5s", "5s dance", "5s kill9 c", "5s quit now", "5s shot", "-1s quit"])(
    "refuses %j and quotes it",
    (text) => {
      expect(() => parseScript(text, ["kill9"])).toThrow(JSON.stringify(text));
    },
  );
});

describe("pictures", () => {
  it("draw every visible character once, escaped, at its place", () => {
    const svg = svgOf([`<a> & ${styled("b", "inverse", "bold")}`], "a & b");
    expect(svg).toContain("<title>a &amp; b</title>");
    expect(svg).toContain("&lt;a&gt; &amp; ");
    expect(svg).toMatch(/<rect x="62\.4"[^>]*fill="#d5d8da"/);
    expect(svg).toMatch(/<text[^>]*font-weight="bold"[^>]*>b</);
  });
});
