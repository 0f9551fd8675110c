import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { takeRealTimePriority } from "../../hal/linux/realtime.ts";
import { rootMissing } from "./support/namespaces.ts";

/** In a process of its own: this one would keep the priority. */
const script = `
  import { execFileSync } from "node:child_process";
  import { takeRealTimePriority } from "${new URL("../../hal/linux/realtime.ts", import.meta.url)}";
  const outcome = takeRealTimePriority(7);
  const ps = (...args) => execFileSync("ps", [...args, "-o", "cls=,rtprio="], { encoding: "utf8" });
  const own = ps("-L", "-p", String(process.pid)).trim().split("\\n");
  const child = execFileSync("sh", ["-c", "ps -o cls= -p $$"], { encoding: "utf8" }).trim();
  // Garbage collection gives pages back: what broke when memory was locked.
  let waste = [];
  for (let i = 0; i < 50; i++) waste = Array.from({ length: 1e5 }, () => ({ i }));
  console.log(JSON.stringify({ ok: outcome.ok, own, child, waste: waste.length }));
`;

describe("real-time priority", () => {
  test.skipIf(rootMissing)("all threads get it, children do not", () => {
    const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
    });
    const { ok, own, child } = JSON.parse(output);
    expect(ok).toBe(true);
    expect(own.length).toBeGreaterThan(4);
    for (const thread of own) expect(thread.trim()).toMatch(/^FF\s+7$/);
    expect(child).toBe("TS");
  });

  test.each([0, 100, 1.5])("priority %d is none", (priority) => {
    const outcome = takeRealTimePriority(priority);
    expect(!outcome.ok && outcome.fault.code).toBe("badInput");
  });
});
