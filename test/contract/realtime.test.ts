import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  giveRealTimePriority,
  realTimeFlag,
  takeBackRealTimePriority,
  takeRealTimePriority,
} from "../../hal/linux/realtime.ts";
import { limitsMs } from "../support/limits.ts";
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

/**
 * What such a process starts: the command line's first program, which a script stands for here, says how it is scheduled before it goes on, and
 * the last one does.
 */
const starting = `
  import { execFileSync, spawn } from "node:child_process";
  import { startOrdinary } from "${new URL("../../hal/linux/ordinary.ts", import.meta.url)}";
  import { takeRealTimePriority } from "${new URL("../../hal/linux/realtime.ts", import.meta.url)}";
  const started = (words) => new Promise((resolve) => {
    const child = startOrdinary(words, (program, args) => spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] }));
    let said = "";
    child.stdout.on("data", (chunk) => { said += chunk; });
    child.once("close", () => resolve(said.trim().split(/\\s*\\n\\s*/)));
  });
  const say = ["sh", "-c", "ps -o cls=,rtprio= -p $$"];
  const before = await started(say);
  takeRealTimePriority(7);
  const during = await started(say);
  const own = execFileSync("chrt", ["-p", String(process.pid)], { encoding: "utf8" });
  console.log(JSON.stringify({ before, during, own }));
`;
/** Stands for chrt(1). */
const chrt = `#!/bin/sh
PATH=${process.env.PATH}
[ "$1" = -p ] || ps -o cls=,rtprio= -p $$
exec chrt "$@"
`;

/** Garbage of V8's heap and of the C++ objects that hang on it (cppgc); then how busy a process is that has nothing to do. */
const idle = `
  let waste = [];
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 30; i++) waste = Array.from({ length: 1e5 }, () => ({ i }));
    for (let i = 0; i < 300; i++) waste.push(new AbortController(), new URL("http://a/" + i), new TextDecoder());
    await pause(20);
  }
  await pause(100);
  const before = process.cpuUsage();
  const beganAt = performance.now();
  await pause(500);
  const { user, system } = process.cpuUsage(before);
  console.log((user + system) / 1000 / (performance.now() - beganAt));
`;

function node(flags: readonly string[], text: string, under: readonly string[] = []): string {
  const words = [...under, process.execPath, ...flags, "--input-type=module", "-e", text];
  return execFileSync(words[0] ?? "", words.slice(1), {
    encoding: "utf8",
    timeout: 2 * limitsMs.condition,
  });
}

describe("real-time priority", () => {
  test.skipIf(rootMissing)("all threads get it, children do not", () => {
    const { ok, own, child } = JSON.parse(node([realTimeFlag], script));
    expect(ok).toBe(true);
    expect(own.length).toBeGreaterThan(4);
    for (const thread of own) expect(thread.trim()).toMatch(/^FF\s+7$/);
    expect(child).toBe("TS");
  });

  test.skipIf(rootMissing)("a program has it until it has given it away, and not after", () => {
    const folder = mkdtempSync(join(tmpdir(), "dyad-chrt-"));
    try {
      writeFileSync(join(folder, "chrt"), chrt);
      chmodSync(join(folder, "chrt"), 0o755);
      const path = `${folder}:${process.env.PATH}`;
      const said = JSON.parse(node([realTimeFlag], starting, ["env", `PATH=${path}`]));
      expect(said.before).toEqual([expect.stringMatching(/^TS\s+-$/)]);
      // The first of them is what is waited for by whoever starts it.
      expect(said.during).toEqual([
        expect.stringMatching(/^FF\s+7$/),
        expect.stringMatching(/^TS\s+-$/),
      ]);
      expect(said.own).toContain("SCHED_FIFO|SCHED_RESET_ON_FORK");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([0, 100, 1.5])("priority %d is none", (priority) => {
    const outcome = takeRealTimePriority(priority);
    expect(!outcome.ok && outcome.fault.code).toBe("badInput");
  });

  test("a process that could wait for starved helpers does not get it", () => {
    const outcome = takeRealTimePriority(7);
    expect(outcome).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(!outcome.ok && outcome.fault.message).toContain(realTimeFlag);
  });

  test.skipIf(rootMissing)(
    "another process can be given it, with the threads that it makes later",
    async () => {
      // Its pool of threads is made at the first use.
      const later = `process.on("message", () => require("fs").stat("/", () => process.send("done"))); process.send("ready")`;
      const child = spawn(process.execPath, [realTimeFlag, "-e", later], {
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      });
      try {
        const told = () => once(child, "message");
        await told();
        const { pid = 0 } = child;
        const threads = () =>
          execFileSync("ps", ["-L", "-p", String(pid), "-o", "cls=,rtprio="], { encoding: "utf8" })
            .trim()
            .split("\n");
        const before = threads().length;
        expect(giveRealTimePriority(pid, 3)).toEqual({ ok: true, value: undefined });
        const answered = told();
        child.send("go");
        await answered;
        expect(threads().length).toBeGreaterThan(before);
        for (const thread of threads()) expect(thread.trim()).toMatch(/^FF\s+3$/);
        expect(takeBackRealTimePriority(pid).ok).toBe(true);
        for (const thread of threads()) expect(thread.trim()).toMatch(/^TS\s+-$/);
      } finally {
        child.kill("SIGKILL");
        await once(child, "exit");
      }
      const gone = giveRealTimePriority(child.pid ?? 0, 3);
      expect(!gone.ok && gone.fault.code).toBe("ioError");
    },
  );

  test.skipIf(rootMissing)("alone on a processor it is idle after collecting garbage", () => {
    // As on two processors that both have such a process: no helper ever runs. Without the flag it is 90 % busy, for ever.
    const alone = ["taskset", "-c", "0", "chrt", "-f", "10"];
    expect(Number(node([realTimeFlag], idle, alone))).toBeLessThan(0.3);
  });
});
