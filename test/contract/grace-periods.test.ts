/** Who drives the kernel's grace periods goes before the beats, which wait for them. */
import { execFileSync } from "node:child_process";
import { afterAll, describe, expect, test } from "vitest";
import {
  gracePeriodThreads,
  lowerGracePeriods,
  raiseGracePeriods,
} from "../../hal/linux/grace-periods.ts";
import { rootMissing } from "./support/namespaces.ts";

const threads = gracePeriodThreads();
const scheduled = (format: string) =>
  threads.map((pid) =>
    execFileSync("ps", ["-o", format, "-p", String(pid)], { encoding: "utf8" }).trim(),
  );

describe.skipIf(rootMissing || threads.length === 0)("threads of grace periods", () => {
  const before = scheduled("cls=");
  afterAll(() => {
    if (before.includes("TS")) lowerGracePeriods();
  });

  test("are threads of the kernel, normal and expedited, and none of its other ones", () => {
    const names = scheduled("comm=");
    expect(names.some((name) => /^rcu_(preempt|sched)/.test(name))).toBe(true);
    expect(names.filter((name) => /tasks|callback|kworker/.test(name))).toEqual([]);
    expect(scheduled("ppid=").filter((parent) => parent !== "2")).toEqual([]);
  });

  test("are of real time when they are raised, and ordinary when they are lowered", () => {
    expect(raiseGracePeriods(21)).toMatchObject({ ok: true });
    expect(scheduled("cls=,rtprio=").map((line) => line.split(/\s+/))).toEqual(
      threads.map(() => ["FF", "21"]),
    );
    expect(lowerGracePeriods()).toMatchObject({ ok: true });
    expect(scheduled("cls=")).toEqual(threads.map(() => "TS"));
  });

  test("a priority that there is not is refused, and nothing changes", () => {
    const was = scheduled("cls=,rtprio=");
    expect(raiseGracePeriods(1000)).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(scheduled("cls=,rtprio=")).toEqual(was);
  });
});
