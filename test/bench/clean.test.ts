/** Whatever ends the orchestrator, and whenever: the next run finds everything and removes it. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { rememberSetting } from "../../bench/world/kernel-setting.ts";
import { Ledger } from "../../bench/world/ledger.ts";
import { cleanPrefix } from "../../bench/world/world.ts";
import { expeditedPath } from "../../hal/linux/grace-periods.ts";
import { leftovers } from "./support/leftovers.ts";

const prefix = "bclean";

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
  // From the first namespaces to a pair that is just joining; times in between fall somewhere else in each run.
  it.each([150, 400, 800, 1400])("leaves nothing after a clean, killed near %i ms", async (ms) => {
    const { child, ended } = startWorld();
    await delay(ms + Math.random() * 200);
    child.kill("SIGKILL");
    await ended;
    await cleanPrefix(prefix);
    expect(await leftovers(prefix)).toEqual([]);
  });

  it("leaves nothing after a clean when it was serving, and the kernel's setting as it was", async () => {
    const setting = () => readFileSync(expeditedPath, "utf8");
    const before = setting();
    // Another world that has found the same.
    const other = new Ledger(`${prefix}2`);
    other.begin();
    rememberSetting(other);
    const { child, serving, ended } = startWorld();
    await serving;
    expect(await leftovers(prefix)).not.toEqual([]);
    expect(setting()).toBe("1\n");
    child.kill("SIGKILL");
    await ended;
    const cleaned = await cleanPrefix(prefix);
    expect(cleaned.namespaces.length).toBeGreaterThan(5);
    expect(cleaned.processes).toBeGreaterThan(5);
    expect(setting()).toBe("1\n");
    await cleanPrefix(`${prefix}2`);
    expect(setting()).toBe(before);
    expect(await leftovers(prefix)).toEqual([]);
    expect(await cleanPrefix(prefix)).toMatchObject({ processes: 0, namespaces: [], loops: [] });
  });
});
