/** What a command begins, what it is answered, and what is recorded of it. */
import { describe, expect, test } from "vitest";
import { onCommand } from "../../firmware-ts/core/command.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { MoveCommand } from "../../firmware-ts/core/events.ts";
import type { CommandRequest } from "../../firmware-ts/schema/status.ts";
import { off, reportsOf, whole, withPartner, withServer } from "../support/whole-pair.ts";

const nowMs = 10_000;
const takeover: MoveCommand["kind"] = "takeover";

function give(
  request: Partial<CommandRequest>,
  state: ControllerState = whole,
  kind: MoveCommand["kind"] = takeover,
  virtualServer?: string,
) {
  const full = { dryRun: false, force: false, reason: "", ...request };
  const command = { id: 7, kind, virtualServer, by: "operator", request: full };
  const [next, effects] = onCommand(state, command, nowMs);
  const answers = effects.flatMap((each) => (each.kind === "answer" ? [each] : []));
  const [answer] = answers;
  if (!answer || answers.length > 1) throw new Error("a command is answered once");
  const recorded = reportsOf(effects).filter(({ code }) => code.startsWith("command."));
  return { next, answer, recorded, says: next.outbox };
}

/** The disk link is red: a soft veto. */
const redLink: ControllerState = { ...whole, colours: { ...whole.colours, disk: "red" } };
const twoRedLinks: ControllerState = { ...whole, colours: { ...redLink.colours, serial: "red" } };

describe("a command that nothing speaks against", () => {
  test("is accepted and begun, and who gave it and why is recorded", () => {
    const { answer, recorded, says } = give({ reason: "service" });
    expect(answer).toMatchObject({ id: 7, answer: { accepted: true, vetoes: [] } });
    expect(says).toMatchObject([{ type: "request", server: 1 }]);
    expect(recorded).toEqual([
      {
        severity: "info",
        code: "command.accepted",
        message: "takeover by operator: service",
        detail: { command: "takeover", by: "operator", reason: "service", overridden: [] },
      },
    ]);
  });

  test("overrides nothing by being forced, and is not recorded as if it had", () => {
    expect(give({ force: true }).recorded).toMatchObject([
      { severity: "info", code: "command.accepted", detail: { overridden: [] } },
    ]);
  });

  test("offers what goes to the partner, without haste, for the partner may still be asked otherwise", () => {
    const { next, says } = give({}, whole, "transfer", "alpha");
    expect(says).toMatchObject([{ type: "offer", server: 0, urgent: false }]);
    expect(next.transfers[0]).toMatchObject({ role: "source", at: "offered", urgent: false });
  });

  test("begins every move of its plan", () => {
    const allThere = withPartner({ owned: "11" }, withServer(0, { phase: off }));
    const { answer, says } = give({}, allThere);
    expect(answer.answer.plan.map((each) => each.virtualServer)).toEqual(["alpha", "beta"]);
    expect(says).toMatchObject([
      { type: "request", server: 0 },
      { type: "request", server: 1 },
    ]);
  });
});

describe("a command against which something speaks", () => {
  test("is answered with the reasons, and neither begun nor recorded", () => {
    const { next, answer, recorded } = give({}, redLink);
    expect(answer.answer).toMatchObject({ accepted: false, vetoes: [{ code: "linkRed" }] });
    expect(next).toBe(redLink);
    expect(recorded).toEqual([]);
  });

  // SAFETY forcedIsAudited
  test("and that is forced is recorded as a warning, with who, why, and all that it overrode", () => {
    const { answer, recorded, says } = give({ force: true, reason: "I insist" }, twoRedLinks);
    expect(answer.answer).toMatchObject({ accepted: true, vetoes: [{}, {}] });
    expect(says).toHaveLength(1);
    expect(recorded).toEqual([
      {
        severity: "warning",
        code: "command.forced",
        message: "takeover by operator: I insist",
        detail: {
          command: "takeover",
          by: "operator",
          reason: "I insist",
          overridden: ["linkRed", "linkRed"],
        },
      },
    ]);
  });

  test("and that is forced all the same is refused where a reason is hard", () => {
    const linkless = { ...redLink, dataLinkUp: false };
    const { next, answer, recorded } = give({ force: true }, linkless);
    expect(answer.answer.accepted).toBe(false);
    expect(next).toBe(linkless);
    expect(recorded).toEqual([]);
  });
});

describe("a dry run", () => {
  test.each([
    ["nothing", {}, whole, true],
    ["what could be forced", {}, redLink, false],
    ["what is forced", { force: true }, redLink, true],
  ] as const)(
    "is answered as if it were none, and changes nothing, against %s",
    (_, more, state, accepted) => {
      const { next, answer, recorded } = give({ ...more, dryRun: true }, state);
      expect(answer.answer.accepted).toBe(accepted);
      expect(next).toBe(state);
      expect(recorded).toEqual([]);
    },
  );
});

describe("a plan", () => {
  test("predicts that a move takes as long as the last start here, or 60 ms where there was none", () => {
    const predicted = (lastStartMs: number | undefined) =>
      give({ dryRun: true }, withServer(1, { lastStartMs })).answer.answer.plan;
    const move = { virtualServer: "beta", action: "move to controller a" };
    expect(predicted(undefined)).toEqual([{ ...move, predictedMs: 60 }]);
    expect(predicted(41.6)).toEqual([{ ...move, predictedMs: 42 }]);
  });

  test("says what goes where, in words", () => {
    const { plan } = give({ dryRun: true }, whole, "transfer", "alpha").answer.answer;
    expect(plan).toMatchObject([{ virtualServer: "alpha", action: "move to controller b" }]);
  });
});
