/** When the common volume is read, and when a record is written: nothing of it stands in the way of whoever waits for a start. */
import { describe, expect, test } from "vitest";
import { controllerStep } from "../../firmware-ts/core/controller.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import {
  askReading,
  readAfterLoss,
  recordStart,
  volumeRead,
  volumeTick,
} from "../../firmware-ts/core/volume.ts";
import { failed } from "../../firmware-ts/schema/outcome.ts";
import { busyPhase, servingPhase, whole, withPartner, withServer } from "../support/whole-pair.ts";

const nowMs = 10_000;

/** The controller after a look at the volume, and the readings that it asks for: thorough ones or not. */
function look(state: ControllerState, atMs: number) {
  const [next, effects] = volumeTick(state, atMs) ?? [state, []];
  const readings = effects.flatMap((each) => (each.kind === "volumeRead" ? [each.isThorough] : []));
  return { next, readings };
}

describe("after a loss", () => {
  test("it is read when a takeover is over, and asks a majority first", () => {
    const won = readAfterLoss(whole, nowMs);
    expect(look(won, nowMs + 499).readings).toEqual([]);
    expect(look(won, nowMs + 500).readings).toEqual([false]);
  });

  test.each([
    ["nothing else", 0, false],
    ["something else", 1, true],
  ])("of a partner that knew %s it is read at once: %i", (_, more, isRead) => {
    const state = withPartner({ configuration: whole.configuration + more });
    const observation = { kind: "partnerLost", reason: "silent", soloBoundMs: 2 } as const;
    const loss = { ...observation, lastGrantedMs: 1, leasedAtMs: 3 };
    const [, effects] = controllerStep(state, { kind: "seen", nowMs, observation: loss });
    expect(effects.some(({ kind }) => kind === "volumeRead")).toBe(isRead);
  });
});

test.each([true, false])(
  "a reading that fails is repeated as it was asked for: %s",
  (isThorough) => {
    const [asked] = askReading(whole);
    const begun = look({ ...asked, volume: { ...asked.volume, isThorough } }, nowMs);
    expect(begun.readings).toEqual([isThorough]);
    const token = `volume:read:${begun.next.volume.reading}`;
    const broken = failed("diskLost", "read the common volume", "no majority");
    const [after] = volumeRead(begun.next, token, broken, nowMs + 100);
    expect(look(after, nowMs + 599).readings).toEqual([]);
    expect(look(after, nowMs + 600).readings).toEqual([isThorough]);
  },
);

describe("while one waits for its turn to start", () => {
  const waits = withServer(1, {
    phase: busyPhase("starting", { pending: [], waitsForTurn: true }),
  });
  const goesOn = withServer(1, { phase: busyPhase("starting", { turnMs: nowMs }) }, waits);

  test("what may be read later is", () => {
    const [asked] = askReading(waits);
    expect(look(asked, nowMs)).toEqual({ next: asked, readings: [] });
    expect(look({ ...asked, servers: goesOn.servers }, nowMs).readings).toEqual([false]);
  });

  test.each<[string, Partial<ControllerState>]>([
    ["a change", { changes: { 0: {} as ControllerState["changes"][number] } }],
    ["a join", { volume: { ...waits.volume, joinAfter: waits.volume.done + 1 } }],
    ["a partner that knows something else", { configuration: whole.configuration + 1 }],
  ])("%s waits for nobody", (_, more) => {
    const [asked] = askReading({ ...waits, ...more });
    // A member is given time to tell it.
    const [seen] = volumeTick(asked, nowMs) ?? [asked];
    const first = seen.volume.reading;
    const readings = first === undefined ? look(seen, nowMs + 100).readings : [false];
    expect(readings).toEqual([false]);
  });

  test("those that start meanwhile are written down at a full second, after one reading", () => {
    const epoch = whole.epoch + 10;
    const started = [nowMs + 1, nowMs + 400, nowMs + 1000].map(
      (atMs) => recordStart({ ...waits, epoch }, 0, atMs).volume.writings[0]?.dueMs,
    );
    expect(started).toEqual([nowMs + 2000, nowMs + 2000, nowMs + 2000]);
    const others = withServer(1, { phase: servingPhase });
    expect(recordStart({ ...others, epoch }, 0, nowMs + 1).volume.writings[0]?.dueMs).toBe(
      nowMs + 1001,
    );
  });
});

describe("the record of a start", () => {
  const risen: ControllerState = { ...whole, epoch: whole.epoch + 10 };

  test("is read for and written a second later", () => {
    const started = recordStart(risen, 0, nowMs);
    expect(look(started, nowMs + 999)).toEqual({ next: started, readings: [] });
    expect(look(started, nowMs + 1000).readings).toEqual([false]);
  });

  test("waits for the right to write before it is read for", () => {
    const blind: ControllerState = {
      ...risen,
      mode: "alone",
      partner: undefined,
      soloFresh: false,
    };
    const started = recordStart(blind, 0, nowMs);
    expect(look(started, nowMs + 1000).readings).toEqual([]);
    expect(look({ ...started, soloFresh: true }, nowMs + 1000).readings).toEqual([false]);
  });

  test("is not written again under the same epoch, as after a start in place", () => {
    expect(whole.volume.known[0]?.owner).toBe("a");
    expect(recordStart(whole, 0, nowMs)).toBe(whole);
    const theirs = { ...whole.volume.known[0], owner: "b" } as const;
    const known = { ...whole.volume.known, 0: theirs as (typeof whole.volume.known)[number] };
    const state = { ...whole, volume: { ...whole.volume, known } };
    expect(recordStart(state, 0, nowMs).volume.writings[0]).toMatchObject({ why: "record" });
  });
});
