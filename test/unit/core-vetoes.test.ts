/** What a command means now, and every reason against it. */
import { describe, expect, test } from "vitest";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { MoveCommand } from "../../firmware-ts/core/events.ts";
import { planMoves, stopped, vetoes } from "../../firmware-ts/core/vetoes.ts";
import type { Phase } from "../../firmware-ts/core/vserver-types.ts";
import { busyPhase, off, servingPhase, whole, withPartner } from "../support/whole-pair.ts";

const phases = (...list: readonly Phase[]): ControllerState => ({
  ...whole,
  servers: whole.servers.map((each, i) => ({ ...each, phase: list[i] ?? each.phase })),
});
const allHere = withPartner({ owned: "" }, phases(servingPhase, servingPhase));
const allThere = withPartner({ owned: "11" }, phases(off, off));
const nowhere = withPartner({ owned: "" }, phases(off, off));

const request = { dryRun: false, force: false, reason: "" };
const who = { id: 1, by: "operator", request } as const;
const takeover: MoveCommand = { ...who, kind: "takeover" };
const giveback: MoveCommand = { ...who, kind: "giveback" };
const transferOf = (virtualServer: string): MoveCommand => ({
  ...who,
  kind: "transfer",
  virtualServer,
});

describe("a command moves", () => {
  test.each<[string, ControllerState, MoveCommand, readonly string[]]>([
    ["takeover: what the partner has", whole, takeover, ["1 to a"]],
    ["takeover: nothing that is here", allHere, takeover, []],
    ["takeover: all that the partner has", allThere, takeover, ["0 to a", "1 to a"]],
    ["takeover: nothing that nobody has", nowhere, takeover, []],
    ["giveback: nothing that is at home", whole, giveback, []],
    ["giveback: what is here and not at home", allHere, giveback, ["1 to b"]],
    ["giveback: what is there and not at home", allThere, giveback, ["0 to a"]],
    ["transfer: from here to the partner", whole, transferOf("alpha"), ["0 to b"]],
    ["transfer: from the partner to here", whole, transferOf("beta"), ["1 to a"]],
    ["transfer: nothing that nobody has", nowhere, transferOf("alpha"), []],
    ["transfer: nothing that does not exist", whole, transferOf("gamma"), []],
  ])("%s", (_, state, command, moves) => {
    expect(planMoves(state, command).map(({ index, to }) => `${index} to ${to}`)).toEqual(moves);
  });
});

describe("a veto", () => {
  const codes = (state: ControllerState, ...moves: { index: number; to: "a" | "b" }[]) =>
    vetoes(state, moves).map(({ code, severity }) => `${severity} ${code}`);
  const [away, here] = [
    { index: 0, to: "b" },
    { index: 1, to: "a" },
  ] as const;

  test("is not raised against a healthy pair", () => {
    expect(codes(whole, away, here)).toEqual([]);
  });

  const moving = { role: "source", at: "offered", deadlineMs: 0, urgent: false, why: "" } as const;
  const busy = (kind: "starting" | "stopping") => phases(busyPhase(kind));
  test.each<[string, ControllerState, readonly string[]]>([
    ["we are no pair", { ...whole, mode: "alone" }, ["hard notPaired"]],
    ["the partner is not", withPartner({ mode: "joining" }), ["hard partnerNotPaired"]],
    ["it differs", withPartner({ configuration: 99 }), ["hard configurationDiffers"]],
    ["it is under way", { ...whole, transfers: { 0: moving } }, ["hard transferUnderWay"]],
    ["another one is under way", { ...whole, transfers: { 1: moving } }, []],
    ["it starts", busy("starting"), ["hard serverBusy"]],
    ["it stops", busy("stopping"), ["hard serverBusy"]],
    [
      "the partner has no carrier",
      withPartner({ dataLinkDown: true }),
      ["hard partnerDataLinkDown"],
    ],
    ["we have none", { ...whole, dataLinkUp: false }, []],
    ["nobody is heard", { ...whole, mode: "joining", partner: undefined }, ["hard notPaired"]],
  ])("against a move away: %s", (_, state, list) => {
    expect(codes(state, away)).toEqual(list);
  });

  test("against a move to here: our own carrier counts, not the partner's", () => {
    expect(codes({ ...whole, dataLinkUp: false }, here)).toEqual(["hard dataLinkDown"]);
    expect(codes(withPartner({ dataLinkDown: true }), here)).toEqual([]);
  });

  test("against one move of several names the virtual server that it is about", () => {
    const about = (state: ControllerState) =>
      vetoes(state, [away, here]).map(({ message }) => message);
    expect(about({ ...whole, transfers: { 0: moving } })).toEqual([
      expect.stringContaining("alpha"),
    ]);
    expect(about({ ...whole, transfers: { 1: moving } })).toEqual([
      expect.stringContaining("beta"),
    ]);
  });

  test("is soft for a red link, one for each, after the hard ones", () => {
    const colours = { serial: "red", network: "red", disk: "yellow" } as const;
    const state = { ...whole, colours, dataLinkUp: false };
    expect(codes(state, here)).toEqual(["hard dataLinkDown", "soft linkRed", "soft linkRed"]);
    expect(
      codes({ ...whole, colours: { ...colours, serial: "absent", network: "green" } }),
    ).toEqual([]);
  });

  test("stops a command, a soft one only when it is not forced", () => {
    const hard = { code: "x", severity: "hard", message: "" } as const;
    const soft = { ...hard, severity: "soft" } as const;
    expect([stopped([], false), stopped([], true)]).toEqual([false, false]);
    expect([stopped([soft], false), stopped([soft], true)]).toEqual([true, false]);
    expect([stopped([soft, hard], false), stopped([soft, hard], true)]).toEqual([true, true]);
  });
});
