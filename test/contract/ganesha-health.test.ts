/**
 * The failure monitor of a file service against the real one: stopped, starved, and waiting for a disk. How the kernel shows these is what is
 * tested here; what follows from it, and when, is in test/unit/ganesha-health.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { GaneshaState } from "../../hal/linux/ganesha.ts";
import { missesMax } from "../../hal/linux/health.ts";
import { standingOf, ticksOf } from "../../hal/linux/standing.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";

const address = "10.9.0.1";

const children: ChildProcess[] = [];
const begin = (program: string, ...args: string[]): number => {
  const child = spawn(program, args, { stdio: "ignore" });
  children.push(child);
  if (child.pid === undefined) throw new Error(`${program} was not started`);
  return child.pid;
};

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

describe.runIf(labIsPossible)("the failure monitor", () => {
  let lab: Lab;
  let node: LabNode;
  const hung = () => node.events.filter(({ event }) => event === "hung");
  const pidOf = async () => {
    const { pid } = (await node.ask({ op: "state" })).value as GaneshaState;
    if (pid === undefined) throw new Error("no server runs");
    return pid;
  };

  beforeAll(async () => {
    lab = await openLab();
    node = await lab.addNode("a");
    const mountPoint = join(lab.directory, "v1");
    node.run("mount", "-o", "loop", lab.makeVolume("v1"), mountPoint);
    node.run("ip", "addr", "add", `${address}/24`, "dev", "eth0");
    const spec = {
      addresses: [address],
      exports: [{ id: 1, path: mountPoint, pseudo: "/vol1" }],
      recoveryDir: `${mountPoint}/.dyad`,
    };
    expect(await node.ask({ op: "start", spec })).toMatchObject({ value: { ok: true } });
    const probe = { op: "probe", deadlineMs: limitsMs.condition };
    expect(await node.ask(probe)).toMatchObject({ value: { ok: true } });
  });
  afterAll(async () => {
    await lab?.close();
  });

  test("tells of a service that is stopped, and no more when it goes on", async () => {
    const pid = await pidOf();
    process.kill(pid, "SIGSTOP");
    try {
      await until("it is told", () => hung().length > 0);
      expect(hung()[0]?.reason).toContain("stands still");
    } finally {
      process.kill(pid, "SIGCONT");
    }
    // A question that goes unanswered is told of within a second: none is, once two have been answered.
    await until("it answers again", async () => {
      const before = hung().length;
      await new Promise((resolve) => setTimeout(resolve, 2500));
      return hung().length === before;
    });
  });

  test("is silent about a service that has almost no processor, for as long as a dead one would have been told of twice", async () => {
    const pid = await pidOf();
    const before = hung().length;
    // Everybody on one processor, it last of all.
    execFileSync("taskset", ["-a", "-c", "-p", "0", String(pid)], { stdio: "ignore" });
    execFileSync("renice", ["-n", "19", "-p", String(pid)], { stdio: "ignore" });
    for (let i = 0; i < 8; i += 1) begin("taskset", "-c", "0", "sh", "-c", "while :; do :; done");
    await new Promise((resolve) => setTimeout(resolve, 2 * (missesMax.still + 1) * 1000));
    expect(hung().length).toBe(before);
    execFileSync("taskset", ["-a", "-c", "-p", "0-7", String(pid)], { stdio: "ignore" });
  });
});

describe.runIf(labIsPossible)("a process", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "dyad-standing-"));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const stateOf = (pid: number) => readFileSync(`/proc/${pid}/stat`, "utf8");

  test("that sleeps, or is stopped, or is gone, stands still", async () => {
    const pid = begin("sleep", "600");
    await until("it sleeps", () => stateOf(pid).includes("(sleep) S"));
    expect(standingOf(pid, ticksOf(pid))).toBe("still");
    process.kill(pid, "SIGSTOP");
    await until("it is stopped", () => stateOf(pid).includes("(sleep) T"));
    expect(standingOf(pid, ticksOf(pid))).toBe("still");
    const [child] = children;
    const ended = new Promise((resolve) => child?.once("exit", resolve));
    child?.kill("SIGKILL");
    await ended;
    expect(standingOf(pid, 0)).toBe("still");
  });

  test("that runs, or has run since the question, works", async () => {
    const pid = begin("sh", "-c", "while :; do :; done");
    await until("it has had some time", () => ticksOf(pid) > 5);
    expect(standingOf(pid, ticksOf(pid))).toBe("works");
    process.kill(pid, "SIGSTOP");
    await until("it is stopped", () => stateOf(pid).includes("(sh) T"));
    expect(standingOf(pid, 0)).toBe("works");
    expect(standingOf(pid, ticksOf(pid))).toBe("still");
  });

  test("is as busy as those that it has started, and theirs, and waits with them", async () => {
    const busy = "sh -c 'while :; do :; done' & wait";
    const pid = begin("sh", "-c", `sh -c "$0" & wait`, busy);
    const children = (of: number) =>
      readFileSync(`/proc/${of}/task/${of}/children`, "utf8").trim().split(" ").map(Number);
    let child = 0;
    let last = 0;
    await until("they run", () => {
      [child = 0] = children(pid);
      [last = 0] = child > 0 ? children(child) : [];
      return last > 0 && ticksOf(last) > 5;
    });
    // On a busy machine a parent may not have come to its `wait` before its child has had its time.
    await until("the others wait", () =>
      [pid, child].every((each) => stateOf(each).includes(") S")),
    );
    expect(standingOf(pid, ticksOf(pid))).toBe("works");
    process.kill(last, "SIGSTOP");
    await until("it is stopped", () => stateOf(last).includes(") T"));
    // Its parent is told of that, and may still be about to go back to its `wait`.
    await until("none of them works", () => standingOf(pid, ticksOf(pid)) === "still");
    process.kill(last, "SIGKILL");
  });

  test("with a thread that no signal reaches waits for a disk", async () => {
    // vfork(2): the parent is in the kernel, as one that reads from a disk, until the child has ended.
    const source = join(folder, "waits.c");
    writeFileSync(source, "#include <unistd.h>\nint main(void) { if (vfork() == 0) pause(); }\n");
    execFileSync("cc", ["-o", join(folder, "waits"), source]);
    const pid = begin(join(folder, "waits"));
    await until("it waits", () => stateOf(pid).includes("(waits) D"));
    expect(standingOf(pid, 0)).toBe("disk");
    const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    process.kill(Number(child), "SIGKILL");
  });
});
