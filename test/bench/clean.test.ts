/** Whatever ends the orchestrator, and whenever: the next run finds everything and removes it. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { rememberSettings } from "../../bench/world/kernel-settings.ts";
import { layoutOf } from "../../bench/world/layout.ts";
import { Ledger } from "../../bench/world/ledger.ts";
import { loopsBelow } from "../../bench/world/loops.ts";
import { cleanPrefix } from "../../bench/world/world.ts";
import { expeditedPath, gracePeriodThreads } from "../../hal/linux/grace-periods.ts";
import { until } from "../support/until.ts";
import { leftovers } from "./support/leftovers.ts";

const prefix = "bclean";

// Also what a run left that was killed as a whole.
beforeEach(async () => {
  await cleanPrefix(prefix);
});
afterEach(async () => {
  await cleanPrefix(`${prefix}2`);
  await cleanPrefix(prefix);
});

function startWorld(): { child: ChildProcess; serving: Promise<void>; ended: Promise<unknown> } {
  const entry = new URL("./support/start-world.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [entry, prefix], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const serving = new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", () => reject(new Error("the world ended before it served")));
  });
  serving.catch(() => {});
  return { child, serving, ended };
}

describe("a killed run", () => {
  const { baseDir } = layoutOf(prefix);
  const hasStarted = (role: string) =>
    new Ledger(prefix).entries().some((each) => each.kind === "process" && each.role === role);

  // From the first namespaces to a pair that is about to serve.
  it.each<[string, () => boolean]>([
    ["it has begun", () => new Ledger(prefix).entries().length > 0],
    ["its serial cable is there", () => hasStarted("serial")],
    ["its shelf is started", () => hasStarted("shelf")],
    ["its machines are powered on", () => hasStarted("b-holder")],
    ["its second controller is started", () => hasStarted("b-daemon")],
    ["its first volume is attached", () => loopsBelow(baseDir).length > 0],
  ])("leaves nothing after a clean, killed when %s", async (what, condition) => {
    const { child, ended } = startWorld();
    await until(what, condition);
    child.kill("SIGKILL");
    await ended;
    await cleanPrefix(prefix);
    expect(await leftovers(prefix)).toEqual([]);
  });

  it("leaves nothing after a clean when it was serving, and the kernel's settings as they were", async () => {
    const setting = () => readFileSync(expeditedPath, "utf8");
    const policies = () =>
      gracePeriodThreads().map((pid) =>
        execFileSync("ps", ["-o", "cls=", "-p", String(pid)], { encoding: "utf8" }).trim(),
      );
    const before = setting();
    const policiesBefore = policies();
    // Another world that has found the same.
    const other = new Ledger(`${prefix}2`);
    other.begin();
    rememberSettings(other);
    const { child, serving, ended } = startWorld();
    await serving;
    expect(await leftovers(prefix)).not.toEqual([]);
    expect(setting()).toBe("1\n");
    expect(policies()).toEqual(policiesBefore.map(() => "FF"));
    child.kill("SIGKILL");
    await ended;
    const cleaned = await cleanPrefix(prefix);
    expect(cleaned.namespaces.length).toBeGreaterThan(5);
    expect(cleaned.processes).toBeGreaterThan(5);
    expect(setting()).toBe("1\n");
    await cleanPrefix(`${prefix}2`);
    expect(setting()).toBe(before);
    expect(policies()).toEqual(policiesBefore);
    expect(await leftovers(prefix)).toEqual([]);
    expect(await cleanPrefix(prefix)).toMatchObject({ processes: 0, namespaces: [], loops: [] });
  });
});
