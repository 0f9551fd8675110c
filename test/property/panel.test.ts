/** Whatever is pressed and whatever the state of the pair, the panel shows 2 × 20 printable ASCII and asks nothing unasked. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { panelBox } from "../../firmware-ts/cli/panel-box.ts";
import { initialPanel, type PanelEvent, panelStep } from "../../firmware-ts/core/panel.ts";
import { view } from "../../firmware-ts/core/panel-view.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import {
  healthSchema,
  linkColourSchema,
  panelButtonSchema,
  panelViewSchema,
  type Status,
  virtualServerStateSchema,
} from "../../firmware-ts/schema/status.ts";
import { healthyStatus } from "../support/fake-daemon.ts";

const text = fc.string({ unit: "binary", maxLength: 60 });
const vetoes = fc.array(
  fc.record({ code: text, severity: fc.constantFrom("hard", "soft"), message: text }),
  { maxLength: 3 },
);
const status: fc.Arbitrary<Status> = fc
  .record({
    controller: fc.constantFrom("a", "b"),
    mode: fc.constantFrom(...modes),
    epoch: fc.nat(),
    health: fc.constantFrom(...healthSchema.options),
    uptimeMs: fc.double({ min: 0, max: 1e15, noNaN: true }),
    partner: fc.record({
      heard: fc.boolean(),
      mode: fc.option(fc.constantFrom(...modes), { nil: undefined }),
    }),
    dataLinkUp: fc.boolean(),
    links: fc.array(
      fc.record({
        name: fc.constantFrom("serial", "network", "disk"),
        colour: fc.constantFrom(...linkColourSchema.options),
        silentMs: fc.option(fc.nat(), { nil: undefined }),
        malformed: fc.nat(),
      }),
      { maxLength: 3 },
    ),
    disks: fc.array(
      fc.record({
        serial: text,
        role: fc.constantFrom("coordinator", "data"),
        owner: fc.constantFrom("a", "b", "none", "unknown"),
        path: fc.constantFrom("up", "down", "unknown"),
      }),
      { maxLength: 3 },
    ),
    virtualServers: fc.array(
      fc.record({
        name: text,
        home: fc.constantFrom("a", "b"),
        owner: fc.constantFrom("a", "b", "none"),
        state: fc.constantFrom(...virtualServerStateSchema.options),
        step: fc.option(text, { nil: undefined }),
        addresses: fc.array(text, { maxLength: 2 }),
        exports: fc.array(text, { maxLength: 2 }),
        lastStartMs: fc.option(fc.nat(), { nil: undefined }),
        fault: fc.option(text, { nil: undefined }),
      }),
      { maxLength: 3 },
    ),
    takeover: fc.record({ possible: fc.boolean(), vetoes }),
    giveback: fc.record({ possible: fc.boolean(), vetoes }),
  })
  .map((parts) => ({ ...healthyStatus(), ...(parts as Partial<Status>) }));

type Input = { readonly event: PanelEvent; readonly status: Status };
const input: fc.Arbitrary<Input> = fc
  .record({
    kind: fc.constantFrom("button", "button", "button", "button", "tick", "answer"),
    button: fc.constantFrom(...panelButtonSchema.options),
    passedMs: fc.constantFrom(0, 100, 1000, 20_000, 60_000),
    accepted: fc.boolean(),
    status,
  })
  .map(({ kind, button, passedMs, accepted, status }) => ({
    status,
    event: (kind === "button"
      ? { kind, button, status, nowMs: passedMs }
      : kind === "tick"
        ? { kind, nowMs: passedMs }
        : {
            kind,
            answer: { accepted, vetoes: status.takeover.vetoes, plan: [] },
            nowMs: passedMs,
          }) as PanelEvent,
  }));

/** The way to a confirmed takeover: random presses alone would hardly ever find it. */
const wayToTakeover: Input[] = (["up", "up", "ok", "up", "ok"] as const).map((button) => {
  const status = healthyStatus();
  return { status, event: { kind: "button", button, status, nowMs: 100 } };
});
const inputs = fc
  .tuple(fc.nat(wayToTakeover.length), fc.array(input, { maxLength: 40 }))
  .map(([steps, random]) => [...wayToTakeover.slice(0, steps), ...random]);

test("any presses in any situation: always a view that fits, and a command only after a confirmed yes", () => {
  let commands = 0;
  fc.assert(
    fc.property(inputs, (inputs) => {
      let state = initialPanel(0);
      let nowMs = 0;
      for (const { event, status } of inputs) {
        nowMs += event.nowMs;
        const before = state;
        const step = panelStep(before, { ...event, nowMs });
        state = step.state;
        const shown = panelViewSchema.parse(view(state, status));
        for (const line of shown.lines) expect(line).toMatch(/^[\x20-\x7e]{20}$/);
        for (const line of panelBox(shown, false)) expect(line.length).toBe(39);
        commands += step.effects.length;
        if (step.effects.length === 0) continue;
        expect(before).toMatchObject({ kind: "confirm", yes: true });
        expect(event).toMatchObject({ kind: "button", button: "ok" });
        expect(state.kind).toBe("waiting");
      }
    }),
    { numRuns: 500 },
  );
  expect(commands).toBeGreaterThan(0);
});
