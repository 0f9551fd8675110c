/** The status that everyone is shown: what each part of it follows from. */
import { describe, expect, test } from "vitest";
import type { ControllerState, Transfer } from "../../firmware-ts/core/controller-state.ts";
import { type Counted, statusOf } from "../../firmware-ts/core/show.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import { type Status, statusSchema } from "../../firmware-ts/schema/status.ts";
import {
  busyPhase,
  failedPhase,
  off,
  servingPhase,
  whole,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nothing: Counted = { uptimeMs: 0, links: {}, refusedFrames: {} };
const status = (state: ControllerState, counted = nothing): Status =>
  statusSchema.parse(statusOf(state, counted));
const server = (state: ControllerState) => status(state).virtualServers[0];
const texts = (state: ControllerState) => {
  const { statusText, actionText } = status(state);
  return `${statusText} ${actionText}`;
};

const alone: ControllerState = { ...whole, mode: "alone", soloFresh: true, partner: undefined };
const silenced: ControllerState = { ...alone, soloFresh: false };
const red = (name: "serial" | "network" | "disk"): ControllerState => ({
  ...whole,
  colours: { ...whole.colours, [name]: "red" },
});
/** Alpha is the partner's as well as beta; and nobody's. */
const [away, nowhere] = ["11", "01"].map((owned) =>
  withPartner({ owned }, withServer(0, { phase: off })),
) as [ControllerState, ControllerState];
/** What may be wrong in a pair, with a word that the operator then reads. */
const troubles: readonly (readonly [string, string, ControllerState])[] = [
  ["the serial link is dead", "serial link is red", red("serial")],
  ["the network link is dead", "network link is red", red("network")],
  ["the disk link is dead", "disk link is red", red("disk")],
  ["the data link has no carrier", "no carrier", { ...whole, dataLinkUp: false }],
  ["a disk cannot be reached", "no path to d1, d2", { ...whole, pathsDown: ["d1", "d2"] }],
  ["a server has failed", "alpha failed (broken here)", withServer(0, { phase: failedPhase })],
  [
    "a server has failed here, and the partner has it",
    "alpha failed",
    withPartner({ owned: "11" }, withServer(0, { phase: failedPhase })),
  ],
  ["a server is served by nobody", "alpha is not served", nowhere],
  ["a server starts", "alpha is starting", withServer(0, { phase: busyPhase("starting") })],
];

describe("health", () => {
  test.each(modes)("of a controller that is %s and well", (mode) => {
    const health = { paired: "ok", racing: "degraded", alone: "takenOver" } as const;
    const state = { ...whole, mode, soloFresh: true };
    expect(status(state).health).toBe(mode in health ? health[mode as "paired"] : "notServing");
  });

  test("of one that is alone, and may not answer any more: it does not serve", () => {
    expect(status(silenced).health).toBe("notServing");
  });

  test.each(troubles)("of a pair is degraded when %s", (_, __, state) => {
    expect(status(state).health).toBe("degraded");
  });

  test.each<[string, ControllerState]>([
    ["a link is late", { ...whole, colours: { ...whole.colours, serial: "yellow" } }],
    ["a link is not configured", { ...whole, colours: { ...whole.colours, serial: "absent" } }],
    ["everything is at the partner", away],
    ["everything is here", withPartner({ owned: "" }, withServer(1, { phase: servingPhase }))],
  ])("of a pair is well even when %s", (_, state) => {
    expect(status(state).health).toBe("ok");
  });
});

describe("the operator reads", () => {
  test.each(troubles)("what is wrong when %s, and nothing else", (_, words, state) => {
    const { statusText } = status(state);
    expect(statusText).toContain(words);
    expect(statusText.split("; ")).toHaveLength(1);
  });

  test("everything that is wrong at once", () => {
    const { statusText } = status({ ...red("disk"), dataLinkUp: false, pathsDown: ["d1"] });
    expect(statusText).toMatch(/disk link is red; .*no carrier; no path to d1\.$/);
  });

  test("whether everything is at home", () => {
    const here = withPartner({ owned: "" }, withServer(1, { phase: servingPhase }));
    expect(texts(whole)).toContain("everything is at home");
    for (const state of [here, away]) expect(texts(state)).toContain("not every virtual server");
  });

  test.each<[string, ControllerState, string]>([
    ["register", { ...whole, mode: "starting" }, "Registering"],
    ["leave", { ...whole, mode: "leaving" }, "Leaving"],
    ["arbitrate", { ...whole, mode: "racing" }, "Controller b is lost; arbitrating"],
    ["are alone", alone, "Controller b is lost; this controller serves alone"],
    ["are alone and silent", silenced, "no majority of the coordinator disks"],
    ["are out, and why", { ...whole, mode: "out", outReason: "d1 is fenced" }, "d1 is fenced"],
    ["make a pair", { ...whole, mode: "joining" }, "Controller b is heard; pairing"],
    [
      "cannot make one",
      withPartner({ configuration: whole.configuration + 1 }, { ...whole, mode: "joining" }),
      "configuration of controller b differs",
    ],
    [
      "listen",
      { ...whole, mode: "joining", partner: undefined, diskReadable: true },
      "Listening for controller b",
    ],
    [
      "cannot even listen",
      { ...whole, mode: "joining", partner: undefined, diskReadable: false },
      "cannot tell whether it lives",
    ],
  ])("that we %s", (_, state, words) => {
    expect(texts(state)).toContain(words);
  });
});

describe("a virtual server", () => {
  test.each<[string, ControllerState, string, string]>([
    ["serves here", whole, "serving", "a"],
    ["serves here by the partner's word", { ...whole, soloFresh: false }, "serving", "a"],
    ["starts here", withServer(0, { phase: busyPhase("starting") }), "starting", "a"],
    ["stops here", withServer(0, { phase: busyPhase("stopping") }), "stopping", "a"],
    ["has failed here", withServer(0, { phase: failedPhase }), "failed", "a"],
    ["is the partner's", away, "elsewhere", "b"],
    ["is nobody's", nowhere, "nowhere", "none"],
    ["is all here, and may not answer", silenced, "silent", "a"],
    [
      "starts here while it may not answer",
      withServer(0, { phase: busyPhase("starting") }, silenced),
      "starting",
      "a",
    ],
  ])("that %s says so, and whose it is", (_, state, shown, owner) => {
    expect(server(state)).toMatchObject({ state: shown, owner });
  });

  test("that was promised to us is ours before it starts", () => {
    const transfer = { role: "target", at: "starting", deadlineMs: 0, why: "" } as Transfer;
    expect(server({ ...nowhere, transfers: { 0: transfer } })).toMatchObject({ owner: "a" });
  });

  test("tells its step while it has one", () => {
    expect(server(withServer(0, { phase: busyPhase("starting") }))?.step).toBe("mount");
    expect(server(whole)).not.toHaveProperty("step");
  });

  test("tells its fault, unless it serves", () => {
    const fault = "of the last start";
    expect(server(withServer(0, { phase: failedPhase, fault }))?.fault).toBe("broken here");
    expect(server(withServer(0, { phase: busyPhase("starting"), fault }))?.fault).toBe(fault);
    expect(server(withServer(0, { phase: off, fault }, away))?.fault).toBe(fault);
    expect(server(withServer(0, { fault }))).not.toHaveProperty("fault");
    expect(server(withServer(0, { fault }, silenced))?.fault).toContain("addresses are closed");
    expect(server(away)).not.toHaveProperty("fault");
  });

  test("tells how long its last start took, and how often it failed, if it did", () => {
    const known = server(withServer(0, { lastStartMs: 61.6, failures: 2 }));
    expect(known).toMatchObject({ lastStartMs: 62, failures: 2 });
    const unknown = server(withServer(0, { lastStartMs: undefined, failures: 0 }));
    expect(unknown).not.toHaveProperty("lastStartMs");
    expect(unknown).not.toHaveProperty("failures");
  });

  test("names its addresses and exports", () => {
    expect(server(whole)).toMatchObject({
      name: "alpha",
      home: "a",
      addresses: whole.servers[0]?.config.addresses,
      exports: whole.servers[0]?.config.volumes.map((volume) => volume.export),
    });
  });
});

describe("a disk", () => {
  const disks = (state: ControllerState) =>
    Object.fromEntries(status(state).disks.map(({ serial, ...rest }) => [serial, rest]));

  test("of the coordinators is ours where we are registered, and of the others nothing is known", () => {
    const c2 = { at: "none", againAtMs: 0, told: "" } as const;
    const shown = disks({ ...whole, registrations: { ...whole.registrations, c2 } });
    expect(shown.c1).toEqual({ role: "coordinator", owner: "a", path: "up" });
    expect(shown.c2).toEqual({ role: "coordinator", owner: "unknown", path: "unknown" });
  });

  test("with data is owned by whoever serves from it, ours under the epoch of our key", () => {
    const shown = disks(whole);
    expect(shown.d1).toMatchObject({ role: "data", virtualServer: "alpha", owner: "a" });
    expect(shown.d1?.epoch).toBe(whole.epoch);
    expect(shown.d2).toMatchObject({ virtualServer: "beta", owner: "b" });
    expect(shown.d2).not.toHaveProperty("epoch");
    const unclaimed = disks(withServer(0, { claims: {} }, nowhere)).d1;
    expect(unclaimed).toMatchObject({ owner: "unknown" });
    expect(unclaimed).not.toHaveProperty("epoch");
  });

  test("with data can be reached or not", () => {
    const shown = disks({ ...whole, pathsDown: ["d1"] });
    expect([shown.d1?.path, shown.d2?.path]).toEqual(["down", "up"]);
  });
});

describe("what may be asked for", () => {
  test("is possible when no hard reason speaks against it; the soft ones are named", () => {
    expect(status(whole)).toMatchObject({
      takeover: { possible: true, vetoes: [] },
      giveback: { possible: true, vetoes: [] },
    });
    expect(status(red("disk")).takeover).toMatchObject({
      possible: true,
      vetoes: [{ code: "linkRed" }],
    });
    expect(status(alone).giveback).toMatchObject({
      possible: false,
      vetoes: [{ code: "notPaired" }],
    });
  });

  test("is judged for each by itself", () => {
    // Here beta could not come; and nothing has to go.
    expect(status({ ...whole, dataLinkUp: false })).toMatchObject({
      takeover: { possible: false },
      giveback: { possible: true },
    });
  });
});

describe("also shown", () => {
  test("is the partner, as far as it is heard", () => {
    expect(status(alone).partner).toEqual({ heard: false });
    expect(status(withPartner({ dataLinkDown: true, epoch: 9, mode: "racing" })).partner).toEqual({
      heard: true,
      mode: "racing",
      epoch: 9,
      dataLinkDown: true,
    });
  });

  test("are the links, with what was counted of them", () => {
    const links = {
      serial: { malformed: 3, silentMs: 7 },
      disk: { malformed: 0, silentMs: undefined },
    };
    expect(status(red("network"), { ...nothing, links }).links).toEqual([
      { name: "serial", colour: "green", silentMs: 7, malformed: 3 },
      { name: "network", colour: "red", malformed: 0 },
      { name: "disk", colour: "green", malformed: 0 },
    ]);
  });

  test("are the time since the start, and the frames that were refused", () => {
    const shown = status(whole, { ...nothing, uptimeMs: 1234.5, refusedFrames: { mac: 3 } });
    expect(shown).toMatchObject({ uptimeMs: 1235, refusedFrames: { mac: 3 } });
  });
});
