/** What a controller does when something breaks under what it serves: a path, a reservation, a service, a cable. */
import { describe, expect, test } from "vitest";
import { controllerStep } from "../../firmware-ts/core/controller.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import { restartsMax } from "../../firmware-ts/core/faults.ts";
import { failuresBeforeMove } from "../../firmware-ts/core/transfer.ts";
import type { Phase } from "../../firmware-ts/core/vserver-types.ts";
import type { Unstamped } from "../../firmware-ts/loop/unstamped.ts";
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { said } from "../support/one-server.ts";
import {
  busyPhase,
  failedPhase,
  heldPhase,
  off,
  reportsOf,
  servingPhase,
  whole,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 10_000;

type Happening = Unstamped<ControllerEvent>;

function happen(state: ControllerState, event: Happening) {
  const [next, effects] = controllerStep(state, { ...event, nowMs } as ControllerEvent);
  const told = reportsOf(effects).map(({ severity, code }) => `${severity} ${code}`);
  const isSame = next === state && effects.length === 0;
  return { next, told, asked: said(effects), alpha: next.servers[0], isSame };
}

/** A pair in which nothing goes to the partner and nothing is started, so that what happens here is all that happens. */
const here = (phase: Phase, more = {}): ControllerState =>
  withPartner(
    { dataLinkDown: true, owned: phase.kind === "off" ? "11" : "01" },
    withServer(0, { phase, ...more }),
  );

describe("a block device", () => {
  const lose = (state: ControllerState, serial = "d1") =>
    happen(state, { kind: "deviceLost", serial, reason: "signal 9" });

  test("that is gone takes what serves from it down by force, counts as its failure, and nothing else stops", () => {
    const state = here(servingPhase, { failures: 2 });
    const { next, told, alpha } = lose(state);
    expect(told).toEqual(["error vserver.deviceLost"]);
    expect(alpha).toMatchObject({
      failures: 3,
      phase: { kind: "stopping", step: "close", reason: "failed", forced: true },
    });
    expect(next.mode).toBe("paired");
    expect(next.servers[1]).toBe(state.servers[1]);
  });

  test("that is gone for the first time is reason enough to ask a partner that is here", () => {
    expect(lose(here(servingPhase)).alpha?.failures).toBe(failuresBeforeMove);
    const alone = { ...here(servingPhase), mode: "alone" as const };
    expect(lose(alone).alpha?.failures).toBe(1);
  });

  test.each(["mount", "address", "export", "open", "verify"] as const)(
    "that is gone ends a start that has come to %s",
    (step) => {
      const { alpha } = lose(here(busyPhase("starting", { step })));
      expect(alpha?.phase).toMatchObject({ kind: "stopping", reason: "failed", forced: true });
    },
  );

  test("that is gone under a stop in good order makes it go on by force, for the same reason", () => {
    const { alpha } = lose(here(busyPhase("stopping", { reason: "leave", step: "seal" })));
    expect(alpha?.phase).toMatchObject({ step: "close", reason: "leave", forced: true });
    expect(alpha?.failures).toBe(0);
  });

  test.each<[string, Phase, string]>([
    ["of another disk", servingPhase, "d2"],
    ["of no disk of ours", servingPhase, "d9"],
    ["before it is claimed", busyPhase("starting", { step: "claim" }), "d1"],
    ["before it is attached, which makes it anew", busyPhase("starting", { step: "attach" }), "d1"],
    ["of a disk that is given back already", busyPhase("stopping", { hasLetGo: true }), "d1"],
    ["of what failed", failedPhase, "d1"],
    ["of what is off", off, "d1"],
  ])("that is gone touches no server otherwise: %s", (_, phase, serial) => {
    const state = here(phase);
    expect(lose(state, serial).alpha).toBe(state.servers[0]);
  });
});

describe("a file system", () => {
  const fail = (state: ControllerState, serial = "d1") =>
    happen(state, { kind: "volumeFailed", serial, reason: "it is read-only" });

  test("that takes no writes any more takes what serves from it down by force, and nothing else stops", () => {
    const state = here(servingPhase, { failures: 2 });
    const { next, told, alpha } = fail(state);
    expect(told).toEqual(["error vserver.volumeFailed"]);
    expect(alpha).toMatchObject({
      failures: 3,
      phase: { kind: "stopping", step: "close", reason: "failed", forced: true },
    });
    expect(next.mode).toBe("paired");
    expect(next.servers[1]).toBe(state.servers[1]);
  });

  test("that fails for the first time is reason enough to ask a partner that is here", () => {
    expect(fail(here(servingPhase)).alpha?.failures).toBe(failuresBeforeMove);
    expect(fail({ ...here(servingPhase), mode: "alone" }).alpha?.failures).toBe(1);
  });

  test("tells the operator what to do if it is the disk's", () => {
    const [, effects] = controllerStep(here(servingPhase), {
      kind: "volumeFailed",
      nowMs,
      serial: "d1",
      reason: "it is read-only",
    });
    expect(reportsOf(effects)[0]?.message).toMatch(/read-only; .*e2fsck/);
  });

  test("that fails under a stop in good order makes it go on by force, for the same reason", () => {
    const { alpha } = fail(here(busyPhase("stopping", { reason: "transfer", step: "flush" })));
    expect(alpha?.phase).toMatchObject({ step: "close", reason: "transfer", forced: true });
  });

  test.each<[string, Phase, string]>([
    ["of another virtual server", servingPhase, "d2"],
    ["before it is mounted", busyPhase("starting", { step: "attach" }), "d1"],
    ["of what is abandoned already", busyPhase("stopping", { forced: true }), "d1"],
    ["of what is given back already", busyPhase("stopping", { hasLetGo: true }), "d1"],
    ["of what failed", failedPhase, "d1"],
    ["of what is off", off, "d1"],
  ])("that fails touches no server otherwise: %s", (_, phase, serial) => {
    const state = here(phase);
    const { alpha, told } = fail(state, serial);
    expect(alpha).toBe(state.servers[0]);
    expect(told.filter((each) => each.includes("volume"))).toEqual([]);
  });

  test("and its device that are both lost are told of once", () => {
    const { next } = fail(here(servingPhase));
    expect(happen(next, { kind: "deviceLost", serial: "d1", reason: "signal 9" }).told).toEqual([]);
  });
});

describe("a path to a disk", () => {
  const path = (state: ControllerState, up: boolean, serial = "d1") =>
    happen(state, { kind: "diskPath", serial, up, reason: "test" });
  const lost = (...pathsDown: readonly string[]) => ({ ...here(servingPhase), pathsDown });

  test("that is lost is told, and remembered until it is back", () => {
    const { next, told } = path(lost(), false);
    expect([next.pathsDown, told]).toEqual([["d1"], ["error disk.pathDown"]]);
    const both = path(next, false, "d2").next;
    expect(both.pathsDown).toEqual(["d1", "d2"]);
    const back = path(both, true);
    expect([back.next.pathsDown, back.told]).toEqual([["d2"], ["info disk.pathUp"]]);
  });

  test("that is lost already, or there already, is no news", () => {
    expect(path(lost("d1"), false).isSame).toBe(true);
    expect(path(lost(), true).isSame).toBe(true);
    expect(path(lost("d1"), true, "d2").isSame).toBe(true);
  });

  test("that is lost under a stop in good order makes it go on by force, for the same reason", () => {
    const stopping = here(busyPhase("stopping", { reason: "leave" }));
    expect(path(stopping, false).alpha?.phase).toMatchObject({
      kind: "stopping",
      step: "close",
      reason: "leave",
      forced: true,
    });
  });

  test.each<[string, Phase, string]>([
    ["of another disk", busyPhase("stopping"), "d2"],
    ["of a disk that is given back already", busyPhase("stopping", { hasLetGo: true }), "d1"],
    ["of what serves: it is moved, not torn down", servingPhase, "d1"],
    ["of what starts", busyPhase("starting"), "d1"],
  ])("that is lost touches no server otherwise: %s", (_, phase, serial) => {
    const state = here(phase);
    expect(path(state, false, serial).alpha).toBe(state.servers[0]);
  });

  test("that comes back forces nothing", () => {
    const state = { ...here(busyPhase("stopping")), pathsDown: ["d1"] };
    expect(path(state, true).alpha).toBe(state.servers[0]);
  });
});

describe("a disk that says that it is not ours any more", () => {
  const fence = (phase: Phase, more = {}, serial = "d1") =>
    happen(here(phase, more), { kind: "diskFenced", serial, reason: "test" });

  test.each<[string, Phase]>([
    ["serves", servingPhase],
    ["starts", busyPhase("starting")],
    ["flushes, with its gate still open", busyPhase("stopping", { step: "flush" })],
  ])("puts a controller out whose server %s", (_, phase) => {
    const { next, told } = fence(phase);
    expect(next.mode).toBe("out");
    expect(told[0]).toBe("error controller.out");
  });

  test.each<[string, Phase, object, string]>([
    ["its gate is closed already", busyPhase("stopping"), {}, "d1"],
    ["it is released, and held", heldPhase, {}, "d1"],
    ["nothing of it is here", off, {}, "d1"],
    ["it has failed here", failedPhase, {}, "d1"],
    [
      "it was not ours yet",
      busyPhase("starting"),
      { claims: { d1: { at: "registering", pass: 0, heard: {} } } },
      "d1",
    ],
    ["it was never claimed", busyPhase("starting"), { claims: {} }, "d1"],
    ["it is no disk of ours", servingPhase, {}, "d9"],
  ])("is no news when %s", (_, phase, more, serial) => {
    expect(fence(phase, more, serial).isSame).toBe(true);
  });
});

describe("a file service that dies", () => {
  const die = (phase: Phase, failures = 0, virtualServer = "alpha") =>
    happen(here(phase, { failures }), { kind: "serviceExited", virtualServer, reason: "test" });

  test.each<[string, Phase]>([
    ["while it serves", servingPhase],
    ["while its address waits to be opened", busyPhase("starting", { step: "open" })],
    ["while its disks are asked", busyPhase("starting", { step: "verify" })],
  ])("%s is restarted in place, silence first, and that is told", (_, phase) => {
    const { told, alpha } = die(phase);
    expect(told).toEqual(["error vserver.serviceDied"]);
    expect(alpha).toMatchObject({ failures: 1, phase: { kind: "starting", step: "hush" } });
  });

  test.each<[string, Phase]>([
    ["before it was proved", busyPhase("starting", { step: "export" })],
    ["while it is stopped", busyPhase("stopping")],
    ["when nothing is here", off],
  ])("%s is nobody's business but the step's", (_, phase) => {
    expect(die(phase).isSame).toBe(true);
  });

  test("of no virtual server of ours is no news", () => {
    expect(die(servingPhase, 0, "gamma").isSame).toBe(true);
  });

  test("again and again is not restarted for ever: then it stops, because it failed, with its reason", () => {
    expect(die(servingPhase, restartsMax - 1).alpha?.phase).toMatchObject({ step: "hush" });
    expect(die(servingPhase, restartsMax).alpha?.phase).toMatchObject({
      kind: "stopping",
      reason: "failed",
      forced: false,
      fault: expect.stringContaining("died"),
    });
  });
});

describe("a file service that hangs", () => {
  const hang = (phase: Phase, more = {}, pathsDown: readonly string[] = []) =>
    happen(
      { ...here(phase, more), pathsDown },
      { kind: "serviceHung", virtualServer: "alpha", reason: "test" },
    );

  test.each<[string, Phase]>([
    ["while it serves", servingPhase],
    ["while its address waits to be opened", busyPhase("starting", { step: "open" })],
    ["while its disks are asked", busyPhase("starting", { step: "verify" })],
  ])("%s is restarted in place, silence first, and that is told", (_, phase) => {
    const { told, alpha, asked } = hang(phase);
    expect(told).toEqual(["error vserver.serviceHung"]);
    expect(alpha).toMatchObject({ failures: 1, phase: { kind: "starting", step: "hush" } });
    expect(asked.slice(0, 2)).toEqual(["gateClose", "stopService"]);
  });

  test.each<[string, Phase]>([
    ["before it was proved", busyPhase("starting", { step: "export" })],
    ["while it is killed already", busyPhase("starting", { step: "hush" })],
    ["while it is stopped", busyPhase("stopping")],
    ["when it has failed", failedPhase],
    ["when nothing is here", off],
  ])("%s is no news", (_, phase) => {
    expect(hang(phase).isSame).toBe(true);
  });

  test("while the path to its disk is lost waits for that, as whatever is started in its place would", () => {
    expect(hang(servingPhase, {}, ["d1"]).isSame).toBe(true);
    expect(hang(servingPhase, {}, ["d2"]).told).toEqual(["error vserver.serviceHung"]);
  });

  test("again and again fails like one that dies, and for both together", () => {
    expect(hang(servingPhase, { failures: restartsMax - 1 }).alpha?.phase).toMatchObject({
      step: "hush",
    });
    expect(hang(servingPhase, { failures: restartsMax }).alpha?.phase).toMatchObject({
      kind: "stopping",
      reason: "failed",
      forced: false,
      fault: expect.stringContaining("does not answer"),
    });
  });

  test("is nobody else's business", () => {
    const state = here(servingPhase);
    const event = { kind: "serviceHung", virtualServer: "alpha", reason: "test" } as const;
    expect(happen(state, event).next.servers[1]).toBe(state.servers[1]);
  });
});

describe("an address that is lost", () => {
  const lose = (phase: Phase, more = {}) =>
    happen(here(phase, more), {
      kind: "addressLost",
      virtualServer: "alpha",
      reason: "10.0.0.100/24 is gone",
    });

  test("from under what serves is put back there: the service goes on, and its gate stays open", () => {
    const state = here(servingPhase, { failures: 1 });
    const { told, asked, alpha, next } = lose(servingPhase, { failures: 1 });
    expect(told).toEqual(["error vserver.addressLost"]);
    expect(asked.filter((each) => !each.startsWith("vserver"))).toEqual(["addAddresses"]);
    // Served since now: what it has served before forgives nothing.
    expect(alpha).toMatchObject({ failures: 2, phase: { kind: "serving", sinceMs: nowMs } });
    expect(next.servers[1]).toBe(state.servers[1]);
  });

  test.each(["open", "verify"] as const)(
    "before it serves (%s), it is begun again with the addresses, silence first",
    (step) => {
      const { alpha } = lose(busyPhase("starting", { step }));
      expect(alpha).toMatchObject({ failures: 1, phase: { kind: "starting", step: "hush" } });
    },
  );

  test.each<[string, Phase]>([
    ["while they are added", busyPhase("starting", { step: "address" })],
    ["while it is proved, which will not succeed", busyPhase("starting", { step: "export" })],
    ["while it stops", busyPhase("stopping")],
    ["when it has failed", failedPhase],
    ["when nothing is here", off],
  ])("is no news %s", (_, phase) => {
    expect(lose(phase).isSame).toBe(true);
  });

  test("again and again is not put back for ever", () => {
    expect(lose(servingPhase, { failures: restartsMax - 1 }).asked).toContain("addAddresses");
    expect(lose(servingPhase, { failures: restartsMax }).alpha).toMatchObject({
      failures: restartsMax + 1,
      phase: { kind: "stopping", reason: "failed", forced: false },
    });
  });

  describe("and is put back", () => {
    const { next } = lose(servingPhase);
    const token = `vs:alpha:${next.servers[0]?.round}:repair:addAddresses`;
    const done = (state: ControllerState, outcome: Outcome) =>
      happen(state, { kind: "done", token, outcome });

    test("is told to the operator and to the network", () => {
      const { told, asked, alpha } = done(next, { ok: true, value: undefined });
      expect(told).toEqual(["info vserver.addressBack"]);
      expect(asked).toContain("announce");
      expect(alpha?.phase.kind).toBe("serving");
    });

    test("in vain, it stops in good order, because it failed, and may move", () => {
      const { told, alpha } = done(next, failed("addressFailed", "add address", "no NIC"));
      expect(told).toEqual(["error vserver.addressNotBack"]);
      expect(alpha).toMatchObject({
        failures: failuresBeforeMove,
        phase: { kind: "stopping", step: "close", reason: "failed", forced: false },
      });
    });

    test("when something else has begun since, is nobody's business any more", () => {
      const moved = { ...next, servers: next.servers.map((each) => ({ ...each, round: 99 })) };
      expect(done(moved, failed("addressFailed", "add address", "no NIC")).isSame).toBe(true);
    });
  });
});

describe("the cable of the data link", () => {
  const carrier = (dataLinkUp: boolean, up: boolean) =>
    happen({ ...here(servingPhase), dataLinkUp }, { kind: "carrier", up });

  test("is told when it comes or goes, to the operator and to the partner", () => {
    const gone = carrier(true, false);
    expect([gone.next.dataLinkUp, gone.told]).toEqual([false, ["error dataLink.down"]]);
    expect(gone.next.said?.dataLinkDown).toBe(true);
    const back = carrier(false, true);
    expect([back.next.dataLinkUp, back.told]).toEqual([true, ["info dataLink.up"]]);
    expect(back.next.said?.dataLinkDown).toBe(false);
  });

  test("is told once", () => {
    expect(carrier(true, true).isSame).toBe(true);
    expect(carrier(false, false).isSame).toBe(true);
  });
});

describe("time", () => {
  const tick = (state: ControllerState) => happen(state, { kind: "tick" });

  test("ends a start and a stop that take too long", () => {
    const late = { deadlineMs: nowMs };
    const starting = tick(here(busyPhase("starting", late)));
    expect(starting.told).toEqual(["error vserver.stepFailed"]);
    expect(starting.alpha?.phase).toMatchObject({ kind: "stopping", reason: "failed" });
    const sealing = tick(here(busyPhase("stopping", { step: "seal", ...late })));
    expect(sealing.alpha?.phase).toMatchObject({ kind: "stopping", forced: true });
    for (const kind of ["starting", "stopping"] as const) {
      const state = here(busyPhase(kind, { deadlineMs: nowMs + 1 }));
      expect(tick(state).alpha).toBe(state.servers[0]);
    }
  });

  test("makes a guest race that has heard nobody for long enough, as if it had never known anyone", () => {
    const loss = { reason: "goodbye", lastGrantedMs: 1, soloBoundMs: 2, leasedAtMs: 3 } as const;
    const guest: ControllerState = {
      ...whole,
      mode: "joining",
      partner: undefined,
      loss,
      quietSinceMs: nowMs - whole.timing.startupWaitMs,
    };
    const { next } = tick(guest);
    expect(next.mode).toBe("racing");
    expect(next.loss).toBeUndefined();
    expect(tick({ ...guest, quietSinceMs: guest.quietSinceMs + 1 }).next.mode).toBe("joining");
  });

  test("in which nothing was said yet is when the beats are told first, and then only of what is new", () => {
    const { next, asked } = tick({ ...whole, said: undefined });
    expect(asked).toEqual(["mandate"]);
    expect(tick(next).isSame).toBe(true);
  });
});

test("asked to stop, a controller leaves", () => {
  expect(happen(whole, { kind: "shutdown", reason: "test" }).next.mode).toBe("leaving");
});
