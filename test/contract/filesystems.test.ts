/** ext4 on loop devices over image files; the hanging device is the block path of a controller whose disk does not answer. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Attachment } from "../../hal/block/attach.ts";
import { createFileSystems } from "../../hal/linux/filesystems.ts";
import type { FileSystems } from "../../hal/port/storage.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { makeLoopFolder, removeLoopFolder } from "./support/loop-folder.ts";
import { endProcess, rootMissing, run } from "./support/namespaces.ts";

const imageBytes = 32 << 20;
const agentPath = new URL("./nbd-file-agent.ts", import.meta.url).pathname;

describe.skipIf(rootMissing)("file systems", () => {
  let folder: string;
  let device: string;
  let path: string;
  let fileSystems: FileSystems;

  function image(name: string): string {
    const file = join(folder, name);
    writeFileSync(file, "");
    truncateSync(file, imageBytes);
    run("mkfs.ext4", "-q", "-F", file);
    return file;
  }

  /** What the image behind a loop device holds. */
  function contentsOf(name: string): Buffer {
    return readFileSync(run("losetup", "-n", "-O", "BACK-FILE", name).trim());
  }

  const local = (path: string) => ({ path, writeCache: true });
  const attach = (file: string) => run("losetup", "-f", "--show", file).trim();
  const code = (outcome: { ok: boolean }) =>
    "fault" in outcome ? (outcome.fault as { code: string }).code : "ok";
  /** The kernel may let go of a device a while after it was taken away; whoever is told so asks again. */
  const abandoned = (by = fileSystems) =>
    until("abandoned", async () => code(await by.abandon(path)) === "ok");

  beforeAll(() => {
    folder = makeLoopFolder();
  });

  afterAll(() => {
    removeLoopFolder(folder);
  });

  beforeEach(() => {
    fileSystems = createFileSystems(limitsMs.condition);
    device = attach(image("disk"));
    path = join(folder, "volume");
  });

  afterEach(async () => {
    await abandoned();
    run("losetup", "-d", device);
  });

  test.each([
    [true, false],
    [false, true],
  ])("with write cache %s: flushes are left out: %s", async (writeCache, leftOut) => {
    expect(code(await fileSystems.mount({ path: device, writeCache }, path))).toBe("ok");
    const line = readFileSync("/proc/mounts", "utf8")
      .split("\n")
      .find((each) => each.includes(path));
    expect(line?.includes("nobarrier")).toBe(leftOut);
  });

  test("mount, mount again, look, seal and abandon, each again", async () => {
    expect(await fileSystems.mount(local(device), path)).toEqual({ ok: true, value: undefined });
    expect(code(await fileSystems.mount(local(device), path))).toBe("ok");
    expect(readFileSync("/proc/self/mountinfo", "utf8").split(` ${path} `)).toHaveLength(2);
    expect(fileSystems.mountedFrom(path)).toEqual({ ok: true, value: device });
    writeFileSync(join(path, "file"), "kept");
    for (const _ of [1, 2]) expect(code(await fileSystems.seal(path))).toBe("ok");
    await abandoned();
    for (const step of ["abandon", "seal"] as const)
      expect(code(await fileSystems[step](path))).toBe("ok");
    expect(fileSystems.mountedFrom(path)).toEqual({ ok: true, value: undefined });
    expect(readdirSync(path)).toEqual([]);
    await fileSystems.mount(local(device), path);
    expect(readFileSync(join(path, "file"), "utf8")).toBe("kept");
  });

  test("the options are those of a volume that fails over", async () => {
    await fileSystems.mount(local(device), path);
    const line = readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .find((entry) => entry.includes(` ${path} `));
    expect(line).toMatch(/ rw,nosuid,nodev,noexec,noatime /);
    expect(line).toContain("errors=remount-ro");
    // Defaults are listed here only.
    const name = device.split("/").at(-1);
    const options = readFileSync(`/proc/fs/ext4/${name}/options`, "utf8").split("\n");
    expect(options).toContain("barrier");
    expect(options).toContain("data=ordered");
  });

  test("flushed: what is written is at its place, and the journal is empty, while work goes on", async () => {
    await fileSystems.mount(local(device), path);
    const journalStart = () => /^Journal start:\s+(\d+)$/m.exec(run("dumpe2fs", "-h", device))?.[1];
    const file = openSync(join(path, "file"), "w");
    writeSync(file, "kept");
    fsyncSync(file);
    expect(Number(journalStart())).toBeGreaterThan(0);
    expect(code(await fileSystems.flush(path))).toBe("ok");
    expect(journalStart()).toBe("0");
    writeSync(file, "more");
    fsyncSync(file);
    closeSync(file);
  });

  test("sealed under an open file: all of it is on the disk, marked clean, and nothing is written any more", async () => {
    await fileSystems.mount(local(device), path);
    const file = openSync(join(path, "file"), "w");
    writeSync(file, "kept");
    expect(code(await fileSystems.seal(path))).toBe("ok");
    const before = contentsOf(device);
    expect(() => writeSync(file, "stale")).toThrow("EIO");
    expect(() => writeFileSync(join(path, "new"), "stale")).toThrow("EIO");
    expect(run("dumpe2fs", "-h", device)).not.toContain("needs_recovery");
    closeSync(file);
    await abandoned();
    // The superblock alone, whose time of the last write is brought up to date.
    expect(contentsOf(device).subarray(2048).equals(before.subarray(2048))).toBe(true);
    await fileSystems.mount(local(device), path);
    expect(readFileSync(join(path, "file"), "utf8")).toBe("kept");
    expect(existsSync(join(path, "new"))).toBe(false);
  });

  test("a copy of the mount in another namespace is found out", async () => {
    await fileSystems.mount(local(device), path);
    const holder = spawn("unshare", ["--mount", "sh", "-c", "echo held; exec sleep 600"]);
    let held = false;
    holder.stdout.once("data", () => {
      held = true;
    });
    await until("held", () => held);
    expect(code(await fileSystems.abandon(path))).toBe("stillMounted");
    expect(fileSystems.mountedFrom(path)).toEqual({ ok: true, value: undefined });
    // Asking again does not make it free.
    expect(code(await fileSystems.abandon(path))).toBe("stillMounted");
    await endProcess(holder);
    await abandoned();
  });

  test("another device's mount is not taken for ours", async () => {
    const other = attach(image("other"));
    try {
      await fileSystems.mount(local(other), path);
      expect(code(await fileSystems.mount(local(device), path))).toBe("mountFailed");
      expect(fileSystems.mountedFrom(path)).toEqual({ ok: true, value: other });
    } finally {
      await abandoned();
      run("losetup", "-d", other);
    }
  });

  test.each([
    ["no device", "/dev/dyad-nothing"],
    ["no block device", "/dev/null"],
  ])("%s is a fault that names it", async (_, name) => {
    const outcome = await fileSystems.mount(local(name), path);
    expect(outcome).toMatchObject({ ok: false, fault: { code: "mountFailed" } });
    expect(!outcome.ok && outcome.fault.message).toContain(name);
  });

  test("a device without a file system is a fault", async () => {
    run("dd", "if=/dev/zero", `of=${device}`, "bs=1M", "count=1", "status=none", "conv=fsync");
    expect(code(await fileSystems.mount(local(device), path))).toBe("mountFailed");
  });

  test("abandoned: what was synced is there after the replay, what was not is not written", async () => {
    await fileSystems.mount(local(device), path);
    const kept = openSync(join(path, "kept"), "w");
    writeSync(kept, "kept");
    fsyncSync(kept);
    closeSync(kept);
    writeFileSync(join(path, "lost"), Buffer.alloc(1 << 20, 1));
    await abandoned();
    expect(code(await fileSystems.abandon(path))).toBe("ok");
    expect(run("dumpe2fs", "-h", device)).toContain("needs_recovery");
    expect(code(await fileSystems.mount(local(device), path))).toBe("ok");
    expect(readFileSync(join(path, "kept"), "utf8")).toBe("kept");
    expect(existsSync(join(path, "lost"))).toBe(false);
  });

  /** What the kernel reads of the device in a mount, after `lines` transactions that nobody has brought home. */
  async function readsAfter(lines: number) {
    await fileSystems.mount(local(device), path);
    const file = openSync(join(path, "file"), "w");
    for (let i = 0; i < lines; i += 1) {
      writeSync(file, `line ${i}\n`);
      fsyncSync(file);
    }
    closeSync(file);
    await abandoned();
    const statistics = `/sys/block/${device.split("/").at(-1)}/stat`;
    const reads = () => {
      const [count = 0, , sectors = 0] = readFileSync(statistics, "utf8")
        .trim()
        .split(/\s+/)
        .map(Number);
      return { count, sectors };
    };
    const before = reads();
    expect(code(await fileSystems.mount(local(device), path))).toBe("ok");
    const after = reads();
    expect(readFileSync(join(path, "file"), "utf8").split("\n")).toHaveLength(lines + 1);
    return { count: after.count - before.count, sectors: after.sectors - before.sectors };
  }

  test("a journal that has to be recovered is read in a few large pieces, not block by block", async () => {
    const { count, sectors } = await readsAfter(200);
    // A transaction of each line takes three blocks at least.
    expect(sectors).toBeGreaterThan(200 * 3 * 2);
    expect(count).toBeLessThan(30);
  });

  test("of a journal that is mostly old, only the beginning is read", async () => {
    const { count, sectors } = await readsAfter(5);
    expect(count).toBeLessThan(30);
    expect(sectors).toBeLessThan(800);
  });

  describe("a file system that remembers an error", () => {
    const log: string[] = [];
    beforeEach(() => {
      log.length = 0;
      fileSystems = createFileSystems(limitsMs.condition, (line) => log.push(line));
    });

    /** As the kernel does it, which goes on with it read-only. */
    async function failOnce() {
      await fileSystems.mount(local(device), path);
      writeFileSync(join(path, "kept"), "kept");
      run("sync", "-f", path);
      writeFileSync(`/sys/fs/ext4/${device.split("/").at(-1)}/trigger_fs_error`, "a test");
      await abandoned();
    }
    const state = () => /Filesystem state: +(.*)/.exec(run("dumpe2fs", "-h", device))?.[1];

    test("is checked before it is mounted, once", async () => {
      await failOnce();
      expect(code(await fileSystems.mount(local(device), path))).toBe("ok");
      expect(log.join("\n")).toMatch(/remembers an error.*\n.*is checked: /);
      expect(readFileSync(join(path, "kept"), "utf8")).toBe("kept");
      writeFileSync(join(path, "new"), "taken");
      expect(state()).toBe("clean");
      await abandoned();
      log.length = 0;
      await fileSystems.mount(local(device), path);
      expect(log).toEqual([]);
    });

    test("is not mounted when what is wrong needs an answer", async () => {
      await fileSystems.mount(local(device), path);
      for (const name of ["one", "other"])
        writeFileSync(join(path, name), Buffer.alloc(1 << 16, name));
      await fileSystems.seal(path);
      await abandoned();
      // Both files claim one block; nobody but the owner of the data knows whose it is.
      const claim = (name: string) => run("debugfs", "-R", `ex /${name}`, device);
      const block = /\d+ +- +\d+ +(\d+) +- +\d+/.exec(claim("one"))?.[1];
      run("debugfs", "-w", "-R", `sif /other block[5] ${block}`, device);
      run("debugfs", "-w", "-R", "ssv state 2", device);
      const outcome = await fileSystems.mount(local(device), path);
      expect(outcome).toMatchObject({ ok: false, fault: { code: "mountFailed" } });
      expect(!outcome.ok && outcome.fault.message).toMatch(
        /run e2fsck on its disk by hand: .*RUN fsck MANUALLY/,
      );
      expect(fileSystems.mountedFrom(path)).toEqual({ ok: true, value: undefined });
    });
  });

  test("abandoned under an open file: out of the tree, every write fails, the device is reported held", async () => {
    await fileSystems.mount(local(device), path);
    const file = openSync(join(path, "file"), "w");
    expect(code(await fileSystems.abandon(path))).toBe("stillMounted");
    expect(fileSystems.mountedFrom(path)).toEqual({ ok: true, value: undefined });
    expect(() => writeSync(file, "stale")).toThrow("EIO");
    closeSync(file);
    await abandoned();
  });

  describe("on a device that hangs", () => {
    let server: ChildProcess;
    let attachment: Attachment;
    let hanging: string;

    beforeEach(async () => {
      const file = image("slow");
      const nbdSocketPath = join(folder, "nbd.sock");
      // A process of its own: it can be stopped, and calls of this one on the device do not wait for themselves.
      server = spawn(
        "setpriv",
        ["--pdeathsig", "KILL", process.execPath, agentPath, file, nbdSocketPath],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      let ready = false;
      server.stdout?.once("data", () => {
        ready = true;
      });
      await until("ready", () => ready);
      attachment = new Attachment({
        ...{ name: `fs-${process.pid}`, nbdSocketPath, exportName: "disk", folder },
        ...{ sizeBytes: imageBytes, blockSizeBytes: 512 },
      });
      const attached = await attachment.attach();
      if (!attached.ok) throw new Error(attached.fault.message);
      hanging = attached.value;
    });

    afterEach(async () => {
      server.kill("SIGCONT");
      await abandoned();
      expect(await attachment.close()).toMatchObject({ ok: true });
      await endProcess(server);
    });

    test("sealing times out without holding up the process, and succeeds later", async () => {
      const hasty = createFileSystems(300);
      expect(code(await fileSystems.mount(local(hanging), path))).toBe("ok");
      mkdirSync(join(path, "folder"));
      server.kill("SIGSTOP");
      // A call that held up this process would hold up the timers that end the wait, for as long as the disk hangs.
      let turns = 0;
      const timer = setInterval(() => turns++, 5);
      expect(code(await hasty.seal(path))).toBe("timeout");
      // The next one waits for the one that hangs; it does not pile another call upon it.
      expect(code(await hasty.seal(path))).toBe("timeout");
      clearInterval(timer);
      expect(turns).toBeGreaterThan(1);
      server.kill("SIGCONT");
      await until("sealed", async () => code(await hasty.seal(path)) === "ok");
      expect(() => mkdirSync(join(path, "another"))).toThrow("EIO");
      await abandoned(hasty);
      expect(hasty.mountedFrom(path)).toEqual({ ok: true, value: undefined });
    });

    test("what the disk did not take is not sealed, but can be abandoned", async () => {
      expect(code(await fileSystems.mount(local(hanging), path))).toBe("ok");
      writeFileSync(join(path, "file"), "dirty");
      await endProcess(server);
      expect(code(await fileSystems.seal(path))).toBe("diskError");
      await abandoned();
    });

    test("a mount that is given up does not stay when it succeeds after all", async () => {
      const hasty = createFileSystems(200);
      run("blockdev", "--flushbufs", hanging);
      server.kill("SIGSTOP");
      expect(code(await hasty.mount(local(hanging), path))).toBe("timeout");
      server.kill("SIGCONT");
      // An operation on the same path has its turn only when the late mount has been dealt with.
      await until("dealt with", async () => code(await hasty.seal(path)) === "ok");
      expect(hasty.mountedFrom(path)).toEqual({ ok: true, value: undefined });
      expect(code(await fileSystems.mount(local(hanging), path))).toBe("ok");
    });
  });
});
