/** What virtual servers use: looked at by turns, a few at a time. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { watchUsage } from "../../firmware-ts/daemon/usage.ts";
import { parseConfigText } from "../../firmware-ts/schema/config-text.ts";

const text = readFileSync(join(import.meta.dirname, "../../docs/dyad.toml.example"), "utf8");

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("each is looked at once in ten seconds, one at a time, and the last look is shown", () => {
  const outcome = parseConfigText(text, "f");
  if (!outcome.ok) throw new Error(outcome.fault.message);
  const looks: string[] = [];
  const { seen } = watchUsage(outcome.value, (name) => {
    looks.push(name);
    return { processes: looks.length };
  });
  expect(seen.size).toBe(0);
  vi.advanceTimersByTime(5000);
  expect(looks).toEqual(["alpha"]);
  vi.advanceTimersByTime(10_000);
  expect(looks).toEqual(["alpha", "beta", "alpha"]);
  expect([...seen]).toEqual([
    ["alpha", { processes: 3 }],
    ["beta", { processes: 2 }],
  ]);
});
