/** With whom a pair is made, under which epoch, and who may have our word. */
import { describe, expect, test } from "vitest";
import type { PartnerView } from "../../firmware-ts/core/beat-types.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { grant, pairUp } from "../../firmware-ts/core/pairing.ts";
import { type Mode, modes } from "../../firmware-ts/schema/beat.ts";
import { said } from "../support/one-server.ts";
import { whole, withPartner } from "../support/whole-pair.ts";

const nowMs = 10_000;

/** A controller in a mode that hears a partner which fits, but for what the test changes. */
const meeting = (mode: Mode, theirs: Partial<PartnerView> = {}): ControllerState =>
  withPartner(
    { mode: "joining", granting: true, answersTurn: whole.turn, epoch: 3, ...theirs },
    { ...whole, mode, granted: undefined, epoch: 3, epochSeen: 3 },
  );

const pairs = (state: ControllerState) => pairUp(state, nowMs) !== undefined;
const grants = (state: ControllerState) => grant(state) !== undefined;

describe("a pair", () => {
  test.each(modes)("is made by a controller that is joining or alone, with a guest: %s", (mode) => {
    expect(pairs(meeting(mode))).toBe(mode === "joining" || mode === "alone");
  });

  test.each(modes)("is made with one that is %s, if it may be", (mode) => {
    expect(pairs(meeting("joining", { mode }))).toBe(mode === "joining" || mode === "paired");
    expect(pairs(meeting("alone", { mode }))).toBe(mode === "joining");
  });

  test.each<[string, Partial<PartnerView>]>([
    ["whose configuration differs", { configuration: whole.configuration + 1 }],
    ["that does not let our gates live", { granting: false }],
    ["that has not answered what we are now", { answersTurn: whole.turn - 1 }],
  ])("is not made with one %s", (_, theirs) => {
    for (const mode of ["joining", "alone"] as const)
      expect(pairs(meeting(mode, theirs))).toBe(false);
  });

  test("is not made with nobody", () => {
    expect(pairUp({ ...meeting("joining"), partner: undefined }, nowMs)).toBeUndefined();
  });

  test.each([
    ["ours", 8, 3, 9],
    ["the partner's", 3, 7, 8],
  ])(
    "of two that join is of an epoch above every one known, remembered first: above %s",
    (_, seen, theirs, epoch) => {
      const state = { ...meeting("joining", { epoch: theirs }), epochSeen: seen };
      const [next, effects] = pairUp(state, nowMs) ?? [state, []];
      expect(next).toMatchObject({ mode: "paired", epoch, epochSeen: epoch, pairedSinceMs: nowMs });
      expect(effects[0]).toEqual({ kind: "persist", record: { version: 1, epoch } });
      expect(said(effects)).toEqual(["persist", "controller.paired"]);
    },
  );

  test("of one that was alone goes on under its epoch, and forgets how the last one ended", () => {
    const loss = { reason: "silent", lastGrantedMs: 1, soloBoundMs: 2, leasedAtMs: 3 } as const;
    const state = { ...meeting("alone"), loss };
    const [next, effects] = pairUp(state, nowMs) ?? [state, []];
    expect(next).toMatchObject({ mode: "paired", epoch: 3, pairedSinceMs: nowMs });
    expect(next.loss).toBeUndefined();
    expect(said(effects)).toEqual(["controller.paired"]);
  });
});

describe("our word", () => {
  test.each(modes)("is given by a controller that is %s, if it may be", (mode) => {
    expect(grants(meeting(mode))).toBe(["joining", "paired", "alone"].includes(mode));
    expect(grants(meeting(mode, { mode: "paired" }))).toBe(["joining", "paired"].includes(mode));
  });

  test("is given once for each contact, and names it", () => {
    const state = meeting("paired", { contact: 6 });
    const [next, effects] = grant(state) ?? [state, []];
    expect(effects).toEqual([{ kind: "grant", on: true, contact: 6 }]);
    expect(next.granted).toBe(6);
    expect(grant(next)).toBeUndefined();
    expect(grants(withPartner({ contact: 7 }, next))).toBe(true);
  });

  test("is not given to one whose configuration differs, nor to nobody", () => {
    for (const mode of modes)
      expect(grants(meeting(mode, { configuration: whole.configuration + 1 }))).toBe(false);
    expect(grant({ ...meeting("paired"), partner: undefined })).toBeUndefined();
  });

  test("is given by one that is alone only to a guest that knows it", () => {
    expect(grants(meeting("alone", { answersTurn: whole.turn - 1 }))).toBe(false);
    expect(grants(meeting("paired", { answersTurn: whole.turn - 1 }))).toBe(true);
  });
});
