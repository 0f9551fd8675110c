/** What an operator is told: by the command, at the panel, from across the room. */
import { expect, test } from "vitest";
import { coloursFor, planText, statusText, virtualServerText } from "../../firmware-ts/cli/text.ts";
import { initialPanel } from "../../firmware-ts/core/panel.ts";
import { linesOf } from "../../firmware-ts/core/panel-lists.ts";
import { view } from "../../firmware-ts/core/panel-view.ts";
import { definitionsOf, statusOf } from "../../firmware-ts/core/show.ts";
import { definitionViewSchema } from "../../firmware-ts/schema/api-change.ts";
import { type Status, statusSchema } from "../../firmware-ts/schema/status.ts";
import { Pair } from "../../hal/sim/pair.ts";

const status = (pair: Pair): Status => {
  const controller = pair.controllers.a;
  if (!controller) throw new Error("a was not started");
  return statusSchema.parse(
    statusOf(controller.state, { uptimeMs: 0, links: {}, refusedFrames: {} }),
  );
};

/** Controller a alone, both virtual servers here; then it loses two of its three coordinators. */
function silenced(): Pair {
  const pair = new Pair();
  pair.start("a");
  pair.run(4000);
  expect(status(pair)).toMatchObject({ health: "takenOver", mode: "alone" });
  pair.path("a", "c1", false);
  pair.path("a", "c2", false);
  pair.run(1000);
  return pair;
}

test("a lone controller without a majority says that it is silent, and why", () => {
  const pair = silenced();
  expect(pair.addresses.map((each) => pair.answers(each))).toEqual([undefined, undefined]);
  const shown = status(pair);
  expect(shown.health).toBe("notServing");
  expect(shown.statusText).toContain("no majority of the coordinator disks");
  for (const server of shown.virtualServers)
    expect(server).toMatchObject({
      owner: "a",
      state: "silent",
      fault: expect.stringContaining("closed"),
    });
  const text = statusText(shown, coloursFor(false));
  expect(text).toContain("health: NOT SERVING\n");
  expect(text).toMatch(/^alpha +a +a +silent /m);
  expect(text).toContain("alpha: its addresses are closed: no majority of the coordinator disks");
});

test("the panel counts it among what is down, names it as a fault, and blinks", () => {
  const shown = status(silenced());
  const panel = view(initialPanel(0), shown);
  expect(panel.lines).toEqual(["A ALONE         DOWN", "here 0 ptnr 0 down 2"]);
  expect(panel.lights).toMatchObject({ health: "blinkRed", activity: "off" });
  expect(linesOf("faults", shown)).toContainEqual(["alpha SILENT", "no disk majority"]);
  expect(linesOf("servers", shown)[0]?.[0]).toBe("alpha           MUTE");
});

test("it serves again, and says so, when a majority lets it write", () => {
  const pair = silenced();
  pair.path("a", "c1", true);
  pair.run(1000);
  expect(status(pair)).toMatchObject({
    health: "takenOver",
    virtualServers: [{ state: "serving" }, { state: "serving" }],
  });
});

test("nobody is called silent while a loss is decided with the coordinators at hand", () => {
  const pair = new Pair();
  pair.start("a");
  pair.start("b");
  pair.run(2500);
  pair.kill("b");
  for (let ms = 0; ms < 1000; ms += 5) {
    pair.run(5);
    expect(status(pair).virtualServers.map(({ state }) => state)).not.toContain("silent");
  }
});

test("the predicted duration of many moves is that of each, for they take turns", () => {
  const move = (virtualServer: string, predictedMs: number) => ({
    virtualServer,
    action: "move to controller b",
    predictedMs,
  });
  const lastLine = (...plan: ReturnType<typeof move>[]) =>
    planText(plan).trimEnd().split("\n").at(-1);
  expect(lastLine(move("alpha", 60))).toBe("predicted duration: 60 ms");
  expect(lastLine(move("alpha", 60), move("gamma", 71))).toBe(
    "predicted duration: 71 ms each, a few at a time",
  );
});

test("what every virtual server is to be is shown, with who started it last as the common volume has it", () => {
  const pair = new Pair();
  pair.start("a");
  pair.run(4000);
  const state = pair.controllers.a?.state;
  if (!state) throw new Error("a was not started");
  const shown = definitionsOf(state);
  expect(definitionViewSchema.array().parse(shown)).toEqual(shown);
  expect(shown.map(({ number, server }) => [number, server.name])).toEqual([
    [0, "alpha"],
    [1, "beta"],
  ]);
  for (const each of shown) {
    expect(each).toMatchObject({ sequence: 0, wanted: "started" });
    expect(each.lastStart).toMatchObject({ owner: "a", epoch: state.epoch });
  }
  const [alpha, ...others] = state.servers;
  if (!alpha) throw new Error("two servers expected");
  const deleted = { ...alpha, definition: { ...alpha.definition, wanted: "deleted" as const } };
  expect(definitionsOf({ ...state, servers: [deleted, ...others] })).toEqual(shown.slice(1));
});

test("what a virtual server may take and what it uses is told, in a status and to a person", () => {
  const pair = new Pair();
  pair.start("a");
  pair.run(4000);
  const controller = pair.controllers.a;
  if (!controller) throw new Error("a was not started");
  const usage = new Map([
    ["alpha", { cpuSeconds: 1.5, processes: 23, oomKills: 2, forksRefused: 0 }],
  ]);
  const counted = { uptimeMs: 0, links: {}, refusedFrames: {}, usage };
  const [alpha, beta] = statusSchema.parse(statusOf(controller.state, counted)).virtualServers;
  if (!alpha || !beta) throw new Error("two virtual servers expected");
  expect(alpha.limits).toEqual({ cpuWeight: 100, processes: 512 });
  expect(beta.usage).toBeUndefined();
  const limits = { cpuWeight: 7, cpuPercent: 20, memoryMb: 64, processes: 300, bandwidthMbit: 10 };
  const [ofAlpha, ofBeta] = definitionsOf(controller.state);
  if (!ofAlpha || !ofBeta) throw new Error("two definitions expected");
  const text = virtualServerText({ ...alpha, limits }, ofAlpha, coloursFor(false));
  expect(text).toContain(
    "    limits: processor weight 7, 20 % of a processor, 64 MiB, 300 processes, 10 Mbit/s\n",
  );
  expect(text).toContain(
    "      uses: 1.5 s of processor time, 23 processes, 2 killed for want of memory\n",
  );
  expect(virtualServerText({ ...beta, usage: {} }, ofBeta, coloursFor(false))).toContain(
    "uses: nothing that this kernel tells\n",
  );
});
