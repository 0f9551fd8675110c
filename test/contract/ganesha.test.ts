import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { GaneshaState } from "../../hal/linux/ganesha.ts";
import { findLeftovers, killLeftovers } from "../../hal/linux/leftovers.ts";
import { limitsMs } from "../support/limits.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";

const address = "10.9.0.1";

interface Answered {
  ok: boolean;
  value?: number;
  fault?: { code: string; message: string };
}

describe.runIf(labIsPossible)("ganesha driver", () => {
  let lab: Lab;
  let node: LabNode;
  let mountPoint: string;
  let image: string;
  const specOf = (path: string, addresses = [address]) => ({
    addresses,
    exports: [{ id: 1, path, pseudo: "/vol1" }],
    recoveryDir: `${mountPoint}/.dyad`,
  });
  const ask = async (command: object) => (await node.ask(command)).value as Answered;
  const state = async () => (await node.ask({ op: "state" })).value as GaneshaState;
  const start = () => ask({ op: "start", spec: specOf(mountPoint) });
  const prepare = (path = mountPoint) => ask({ op: "prepare", spec: specOf(path) });
  /** The spare of this test, once it waits for its byte. */
  const heldSpare = async () => {
    const pid = await eventually(() =>
      findLeftovers("ganesha.nfsd", "/run/dyad-test/ganesha-vs1.").find((each) =>
        inNode(node, each),
      ),
    );
    // proc_pid_syscall(5): it sleeps in read(2), which is call 0 or 63, of its descriptor 3.
    await eventually(() => /^(0|63) 0x3 /.test(readFileSync(`/proc/${pid}/syscall`, "utf8")));
    return pid;
  };
  /** Local ends of the sockets of NFS and MOUNT that listen. */
  const listening = () =>
    node
      .run("ss", "-Hltn")
      .split("\n")
      .map((line) => (line.split(/ +/)[3] ?? "").replace(/^\[::ffff:(.*)\]/, "$1"))
      .filter((end) => /:(2049|20048)$/.test(end))
      .sort();
  const serve = async () => {
    expect(await start()).toMatchObject({ ok: true });
    expect(await ask({ op: "probe", deadlineMs: limitsMs.condition })).toMatchObject({ ok: true });
  };
  const stop = () => ask({ op: "stop", timeoutMs: limitsMs.condition });

  beforeAll(async () => {
    lab = await openLab();
    node = await lab.addNode("a");
    image = lab.makeVolume("v1");
    mountPoint = join(lab.directory, "v1");
    node.run("mount", "-o", "loop", image, mountPoint);
    node.run("ip", "addr", "add", `${address}/24`, "dev", "eth0");
  });
  afterAll(async () => {
    await lab?.close();
  });
  // A test that failed half-way must not decide about the next one.
  beforeEach(() => {
    const mounts = node.run("cat", "/proc/self/mountinfo");
    if (!mounts.includes(` ${mountPoint} `)) node.run("mount", "-o", "loop", image, mountPoint);
    node.run("ip", "link", "set", "eth0", "up");
    node.run("ip", "addr", "replace", `${address}/24`, "dev", "eth0");
  });
  afterEach(async () => {
    await ask({ op: "close", timeoutMs: limitsMs.condition });
  });

  it("answers for its export, and a stop leaves neither process, file nor holder of the mount", async () => {
    await serve();
    const { pid } = await state();
    expect(await stop()).toMatchObject({ ok: true });
    expect(existsSync(`/proc/${pid}`)).toBe(false);
    // Only the cache for libblkid stays, and the copy that it makes of that: overwritten by each start, and gone with the last.
    const files = () => node.run("ls", "/run/dyad-test").split("\n").filter(Boolean);
    expect(files().filter((file) => !/\.blkid(\.old)?$/.test(file))).toEqual([]);
    node.run("touch", "/run/dyad-test/ganesha-vs1.blkid.old");
    await ask({ op: "close", timeoutMs: limitsMs.condition });
    expect(files()).toEqual([]);
    const source = node.run("findmnt", "-no", "SOURCE", mountPoint).trim();
    node.run("umount", mountPoint);
    node.run("mount", "-o", "loop", image, mountPoint);
    expect(source).toMatch(/^\/dev\/loop/);
  });

  it("the port mapper knows the ports before and after, and no service speaks to it", async () => {
    const listed = () =>
      node
        .run("rpcinfo", "-p", address)
        .split("\n")
        .map((line) => line.trim().split(/ +/));
    await serve();
    const { pid } = await state();
    const lines = await listed();
    for (const [program, version, port] of [
      ["100003", "3", "2049"],
      ["100003", "4", "2049"],
      ["100005", "3", "20048"],
    ])
      expect(lines).toContainEqual(expect.arrayContaining([program, version, "tcp", port]));
    expect(readFileSync(`/proc/${pid}/maps`, "utf8")).toContain("dyad-registrations.so");
    await stop();
    expect(await listed()).toEqual(lines);
  });

  it("of several addresses, of both families, answers at each", async () => {
    const second = "fd09:2::1";
    node.run("ip", "addr", "add", `${second}/64`, "dev", "eth0", "nodad");
    const spec = specOf(mountPoint, [address, second]);
    expect(await ask({ op: "start", spec })).toMatchObject({ ok: true });
    expect(await ask({ op: "probe", deadlineMs: limitsMs.condition })).toMatchObject({ ok: true });
    node.run("ip", "addr", "del", `${second}/64`, "dev", "eth0");
    // The proof is of each address, not of any.
    expect(await ask({ op: "probe", deadlineMs: 500 })).toMatchObject({ ok: false });
  });

  it("a spare goes on and serves, at its address only", async () => {
    expect(await prepare()).toMatchObject({ ok: true });
    expect(await state()).toMatchObject({ spare: true, alive: false });
    expect(await ask({ op: "spareHeld" })).toMatchObject({ ok: true });
    const spare = await heldSpare();
    await serve();
    expect(await state()).toMatchObject({ spare: false, alive: true, pid: spare });
    expect(listening()).toEqual([`${address}:20048`, `${address}:2049`]);
    await stop();
  });

  it("a spare waits without volume, address or any address of that kind, and then serves what is there", async () => {
    node.run("umount", mountPoint);
    node.run("ip", "addr", "flush", "dev", "eth0");
    await prepare();
    const spare = await heldSpare();
    expect(readdirSync(mountPoint)).toEqual([]);
    expect(listening()).toEqual([]);
    const opened = readdirSync(`/proc/${spare}/fd`).map((fd) =>
      readlinkSync(`/proc/${spare}/fd/${fd}`),
    );
    expect(opened.filter((path) => path.startsWith(lab.directory))).toEqual([]);
    // What it would have seen then is not what it shall serve: another volume is here meanwhile, and gone again.
    node.run("mount", "-o", "loop", lab.makeVolume("other"), mountPoint);
    node.run("umount", mountPoint);
    node.run("mount", "-o", "loop", image, mountPoint);
    node.run("ip", "addr", "add", `${address}/24`, "dev", "eth0");
    await serve();
    expect((await state()).pid).toBe(spare);
    expect(listening()).toEqual([`${address}:20048`, `${address}:2049`]);
    expect(node.run("ls", join(mountPoint, ".dyad"))).toContain("clients");
    const [, uuid] = /UUID: *(\S+)/.exec(node.run("dumpe2fs", "-h", image)) ?? [];
    const source = node.run("findmnt", "-no", "SOURCE", mountPoint).trim();
    const told = readFileSync(`/proc/${node.pid}/root/run/dyad-test/ganesha-vs1.blkid`, "utf8");
    expect(told.split("\n").filter((line) => line.includes(`>${source}<`))).toEqual([
      expect.stringContaining(`UUID="${uuid}"`),
    ]);
    await stop();
  });

  it("a spare that died is no obstacle", async () => {
    await prepare();
    process.kill(await heldSpare(), "SIGKILL");
    await serve();
    await stop();
  });

  it("a spare of another specification is ended, by a start and by a preparation", async () => {
    await prepare(`${mountPoint}/lost+found`);
    const first = await heldSpare();
    await prepare();
    expect(existsSync(`/proc/${first}`)).toBe(false);
    const second = await heldSpare();
    expect(await prepare()).toMatchObject({ ok: true });
    expect(await heldSpare()).toBe(second);
    await prepare(`${mountPoint}/lost+found`);
    const third = await heldSpare();
    await serve();
    expect((await state()).spare).toBe(false);
    expect((await state()).pid).not.toBe(third);
    expect(existsSync(`/proc/${third}`)).toBe(false);
    await stop();
    expect(await ask({ op: "prepare", spec: specOf('/a"') })).toMatchObject({
      fault: { code: "badInput" },
    });
  });

  it("a spare ends when its controller is gone", async () => {
    const other = await lab.addNode("b", "vs2");
    const running = () => findLeftovers("ganesha.nfsd", "/run/dyad-test/ganesha-vs2.");
    try {
      await other.ask({ op: "prepare", spec: specOf(mountPoint) });
      const spares = () => running().filter((pid) => inNode(other, pid));
      const spare = await eventually(() => spares()[0]);
      expect(spares()).toEqual([spare]);
      process.kill(other.pid, "SIGKILL");
      await eventually(() => !running().includes(spare));
    } finally {
      await other.end();
    }
  });

  it("starting twice is one server; another specification or a bad one is refused", async () => {
    await serve();
    const { pid } = await state();
    expect(await start()).toEqual({ ok: true, value: pid });
    const other = await ask({ op: "start", spec: specOf(`${mountPoint}/lost+found`) });
    expect(other.fault?.code).toBe("refused");
    const bad = await ask({ op: "start", spec: specOf('/a"') });
    expect(bad.fault?.code).toBe("badInput");
    await stop();
  });

  it("two starts at once are one server", async () => {
    const [first, second] = await Promise.all([start(), start()]);
    expect(first).toEqual(second);
    await stop();
  });

  it("its death is reported at once, as not expected, and it can be started again", async () => {
    await serve();
    const { pid } = await state();
    if (pid === undefined) throw new Error("no pid");
    process.kill(pid, "SIGKILL");
    const end = await eventually(() =>
      node.events.find((each) => each.event === "end" && each.pid === pid),
    );
    expect(end).toMatchObject({ expected: false, signal: "SIGKILL" });
    await serve();
    expect((await state()).pid).not.toBe(pid);
    await stop();
  });

  it("leaves no half of a connection behind that swallows what clients say to the next owner", async () => {
    await serve();
    const talk = `require("node:net").connect(2049, "${address}").on("error", () => {})`;
    const inClient = [`--net=/proc/${lab.clientPid}/ns/net`, process.execPath, "-e", talk];
    const caller = spawn("nsenter", inClient, { stdio: "ignore" });
    const halves = () => node.run("ss", "-Htan", "sport", "=", ":2049");
    try {
      await eventually(() => halves().includes("ESTAB"));
      // As behind a closed gate: neither the end of the connection nor an answer to it gets through.
      node.run("ip", "link", "set", "eth0", "down");
      await stop();
      expect(node.run("ss", "-Htan", "sport", "=", ":2049")).toBe("");
    } finally {
      caller.kill("SIGKILL");
      node.run("ip", "link", "set", "eth0", "up");
    }
  });

  it("a kill while it starts leaves none behind", async () => {
    const starting = start();
    await node.ask({ op: "kill" });
    await starting;
    await eventually(async () => !(await state()).alive);
    expect(await stop()).toMatchObject({ ok: true });
  });

  it("does not count as serving when the export is not there", async () => {
    await ask({ op: "start", spec: specOf(`${mountPoint}/absent`) });
    const probed = await ask({ op: "probe", deadlineMs: 300 });
    expect(probed.ok).toBe(false);
    expect(["serviceSilent", "serviceFailed"]).toContain(probed.fault?.code);
    await stop();
  });

  it("does not inherit real-time scheduling", async () => {
    node.run("chrt", "-f", "-p", "5", String(node.pid));
    try {
      await serve();
      const { pid } = await state();
      expect(node.run("chrt", "-p", String(pid))).toContain("SCHED_OTHER");
    } finally {
      node.run("chrt", "-o", "-p", "0", String(node.pid));
      await stop();
    }
  });
});

describe.runIf(labIsPossible)("leftovers of an earlier life", () => {
  it("are found by their own file names and killed; nothing else is", async () => {
    const directory = mkdtempSync(join(tmpdir(), "dyad-leftovers-"));
    const pretend = (word: string) =>
      spawn("bash", ["-c", `exec -a ganesha.nfsd tail -f /dev/null ${word}`], { stdio: "ignore" });
    const mine = pretend(`--pid=${process.pid} ${directory}/ganesha-vs1.1.conf`);
    const foreign = pretend(`--pid=${process.pid} ${directory}/ganesha-vs2.1.conf`);
    try {
      const prefix = `${directory}/ganesha-vs1.`;
      await eventually(() => findLeftovers("ganesha.nfsd", prefix).length === 1);
      await eventually(
        () => findLeftovers("ganesha.nfsd", `${directory}/ganesha-vs2.`).length === 1,
      );
      const ended = new Promise((resolve) => mine.once("exit", resolve));
      expect(await killLeftovers("ganesha.nfsd", prefix, limitsMs.condition)).toMatchObject({
        ok: true,
      });
      await ended;
      expect(foreign.exitCode).toBeNull();
      expect(foreign.signalCode).toBeNull();
    } finally {
      for (const child of [mine, foreign]) child.kill("SIGKILL");
      rmSync(directory, { recursive: true });
    }
  });
});

function inNode(node: LabNode, pid: number): boolean {
  try {
    const home = node.run("readlink", "/proc/self/ns/net");
    return node.run("readlink", `/proc/${pid}/ns/net`) === home;
  } catch {
    return false; // It ended meanwhile.
  }
}

async function eventually<T>(
  condition: () => T | Promise<T>,
  deadlineMs: number = limitsMs.condition,
): Promise<NonNullable<T>> {
  const startedAt = performance.now();
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() - startedAt > deadlineMs) throw new Error("it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
