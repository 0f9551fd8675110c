/** Reads that wait for what others have written, on a disk that can be slow and can fail. Each tool is a process of its own, as smbd's are. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { durableReads } from "../../hal/linux/native-build.ts";
import { until } from "../support/until.ts";
import { must } from "./block-lab.ts";
import { killed, openUnrulyDisk, type UnrulyDisk } from "./read-barrier-lab.ts";
import { rootMissing } from "./support/namespaces.ts";

describe.skipIf(rootMissing)("durable reads", () => {
  let folder: string;
  let disk: UnrulyDisk;
  let mountPoint: string;
  let library: string;
  let tool: string;
  const children: ChildProcess[] = [];

  /** A process with the file `f` open; `ask` gives it one line and waits for one. */
  const open = (environment: object = {}, name = "f") => {
    const args = [join(mountPoint, name), join(mountPoint, "copy")];
    const env = { ...process.env, ...environment };
    const child = spawn(tool, args, { stdio: ["pipe", "pipe", "inherit"], env });
    children.push(child);
    const waiting: ((line: string) => void)[] = [];
    createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()?.(line));
    const ask = (line: string) =>
      new Promise<string>((resolve) => {
        waiting.push(resolve);
        child.stdin.write(`${line}\n`);
      });
    /** The function of the kernel in which it sleeps (proc(5)): by that one knows what it waits for. */
    const sleepsIn = () => readFileSync(`/proc/${child.pid}/wchan`, "utf8");
    return Object.assign(ask, { sleepsIn });
  };
  const reader = (more: object = {}) => open({ LD_PRELOAD: library, ...more });
  const writer = () => open();
  /** `old` on the disk, and a reader that has seen it. */
  const settled = async () => {
    const write = writer();
    expect(await write("w 0 old")).toBe("written");
    expect(await write("s")).toBe("synchronised");
    const read = reader();
    expect(await read("r 0 9")).toBe("old");
    expect(disk.afterCrash("f")).toBe("old");
    return { read, write };
  };
  /** Whether an answer comes while the disk does nothing; it is let go afterwards. */
  const early = async (answer: Promise<string>, isAsked: () => boolean) => {
    let answered = false;
    void answer.then(() => {
      answered = true;
    });
    await until("the disk is asked, or the answer is there", () => answered || isAsked());
    const wasEarly = answered;
    disk.device.release();
    return { text: await answer, early: wasEarly };
  };
  const isWaiting = () => disk.device.waiting > 0;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "dyad-durable-"));
    const built = await durableReads();
    if (!built.ok) throw new Error(built.fault.message);
    library = built.value;
    tool = join(folder, "tool");
    const source = join(import.meta.dirname, "durable-reads-tool.c");
    await must("cc", "-Wall", "-Wextra", "-Werror", "-o", tool, source);
    disk = await openUnrulyDisk(folder);
    mountPoint = join(folder, "volume");
    mkdirSync(mountPoint);
    // With five seconds between two commits of the journal, as is usual, a slow test would meet one that nobody asked for.
    await must("mount", "-o", "noatime,data=ordered,commit=1000", disk.path, mountPoint);
  });
  afterEach(async () => {
    disk.device.failing = false;
    disk.device.release();
    for (const child of children.splice(0)) await killed(child);
    await must("umount", mountPoint);
    await disk.close();
    rmSync(folder, { recursive: true });
  });

  it("without the library a reader sees what no disk has", async () => {
    const { write } = await settled();
    disk.device.hold();
    await write("w 0 new");
    expect(await open()("r 0 9")).toBe("new");
    expect(disk.afterCrash("f")).toBe("old");
  });

  it("with it what another process has written is answered once it is on the disk", async () => {
    const { read, write } = await settled();
    disk.device.hold();
    await write("w 0 new");
    expect(await early(read("r 0 9"), isWaiting)).toEqual({ text: "new", early: false });
    expect(disk.afterCrash("f")).toBe("new");
  });

  it("what was proved once is not proved again, until it is altered", async () => {
    const { read, write } = await settled();
    // A ctime that is the present one may be another alteration's, too; the coarse clock goes on in steps of 10 ms at most.
    const { ctimeMs } = statSync(join(mountPoint, "f"));
    await until("the clock has gone on", () => Date.now() > ctimeMs + 20);
    await read("r 0 9");
    disk.device.hold();
    // Something of another file waits for the disk: a sync of anything would have to wait with it.
    const other = open({}, "other");
    await other("w 0 text");
    const syncing = other("s");
    await until("the disk is asked", isWaiting);
    expect(await read("r 0 9")).toBe("old");
    await write("w 0 new");
    const reading = read("r 0 9");
    disk.device.release();
    expect(await reading).toBe("new");
    expect(await syncing).toBe("synchronised");
    expect(disk.afterCrash("f")).toBe("new");
  });

  it("appended bytes, a new file and a shorter one are there after a crash, too", async () => {
    const { read, write } = await settled();
    await write("w 3 er");
    expect(await read("r 0 9")).toBe("older");
    expect(disk.afterCrash("f")).toBe("older");
    await write("t 2");
    expect(await read("r 0 9")).toBe("ol");
    expect(disk.afterCrash("f")).toBe("ol");
    await open({}, "fresh")("w 0 text");
    expect(await open({ LD_PRELOAD: library }, "fresh")("r 0 9")).toBe("text");
    expect(disk.afterCrash("fresh")).toBe("text");
  });

  it("waits for a write that is under way, whose page may not be dirty yet", async () => {
    const { read, write } = await settled();
    // A part of a block that is not in memory, far from what is: the write waits for the disk to read it, with the lock of the file.
    await write(`w ${8 << 20} ${"x".repeat(100)}`);
    await write("s");
    expect(await write("d")).toBe("dropped");
    await read("r 0 9");
    disk.device.holdReads();
    const writing = write(`w ${(8 << 20) + 8} y`);
    await until("the disk is asked to read", isWaiting);
    let answered = false;
    const reading = read("r 0 9").finally(() => {
      answered = true;
    });
    // Not in its own sync, for which it would have to know of the write already.
    const waits = () => read.sleepsIn() === "ext4_llseek";
    await until("it waits for whoever writes, or has answered", () => answered || waits());
    expect(answered).toBe(false);
    disk.device.release();
    expect(await writing).toBe("written");
    expect((await reading).slice(0, 3)).toBe("old");
  });

  it("a disk that fails turns the read into an error, and nobody is shown what it has not", async () => {
    const { read, write } = await settled();
    await write("w 0 new");
    disk.device.failing = true;
    expect(await read("r 0 9")).toMatch(/^error: /);
    disk.device.failing = false;
    // The flush of the one who wrote is told of it, for all that the reader was.
    expect(await write("s")).toMatch(/^error: /);
    expect(await reader()("r 0 9")).toBe("old");
  });

  it("where smbd writes through, copies and sizes are synchronised, too, and otherwise not", async () => {
    await settled();
    const lazy = reader();
    expect(await lazy("c")).toBe("copied");
    expect(disk.afterCrash("copy") ?? "").toBe("");
    const through = reader({ DYAD_WRITE_THROUGH: "1" });
    expect(await through("c")).toBe("copied");
    expect(disk.afterCrash("copy")).toBe("old");
    expect(await through("t 1")).toBe("cut");
    expect(disk.afterCrash("f")).toBe("o");
  });
});

/** A later Samba may reach files by other calls; then the library has to learn them first. */
describe.skipIf(rootMissing)("smbd", () => {
  const relevant =
    /^(p(read|write)v?(64)?(v2|v64v2)?|f(data)?sync|copy_file_range|sendfile(64)?|splice|f?truncate(64)?|(posix_)?fallocate(64)?|aio_\w+|lio_\w+|io_uring\w*)$/;
  const called = (path: string) => {
    const listed = execFileSync("nm", ["-D", "--undefined-only", path], { encoding: "utf8" });
    const names = [...listed.matchAll(/ U (\w+)/g)].map(([, name = ""]) => name);
    return names.filter((name) => relevant.test(name));
  };

  it("alters and reads files by no call that the library does not know, or that leaves a ctime", () => {
    const libraries = execFileSync(
      "sh",
      ["-c", "ls /usr/lib/*/samba/libsmbd-base-samba4.so.0 /usr/lib/*/samba/libsys-rw-samba4.so.0"],
      { encoding: "utf8" },
    )
      .trim()
      .split("\n");
    expect(libraries).toHaveLength(2);
    const names = new Set(libraries.flatMap(called));
    expect([...names].sort()).toEqual(["copy_file_range", "fsync", "ftruncate", "pread", "pwrite"]);
  });
});
