/** The read barrier under a real file server, on a disk that can be slow and can fail. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fileServiceSchema, renderConfiguration } from "../../hal/linux/ganesha/config.ts";
import { durableReads, noRegistrations, readBarrier } from "../../hal/linux/native-build.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { must } from "./block-lab.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";
import {
  killed,
  type NfsAnswer,
  type NfsClient,
  openUnrulyDisk,
  startNfsClient,
  type UnrulyDisk,
} from "./read-barrier-lab.ts";

const address = "10.9.0.1";

describe.runIf(labIsPossible)("read barrier", () => {
  let lab: Lab;
  let node: LabNode;
  let disk: UnrulyDisk;
  let mountPoint: string;
  let client: NfsClient | undefined;
  let bare: ChildProcess | undefined;

  /** What needs the disk must not block this process, which is the disk. */
  const inNode = (...words: string[]) =>
    must("nsenter", "-t", String(node.pid), "-n", "-m", "--", ...words);
  const spec = () => ({
    addresses: [address],
    exports: [{ id: 1, path: mountPoint, pseudo: "/vol1" }],
    recoveryDir: `${mountPoint}/.dyad`,
  });
  const serve = async () => {
    expect((await node.ask({ op: "start", spec: spec() })).value).toMatchObject({ ok: true });
    await probe();
  };
  const probe = async () => {
    const probed = await node.ask({ op: "probe", deadlineMs: limitsMs.condition });
    expect(probed.value).toMatchObject({ ok: true });
    client = await startNfsClient(node.pid, address, "/vol1");
  };
  const stop = async () => {
    await client?.end();
    await node.ask({ op: "stop", timeoutMs: limitsMs.condition });
  };
  /** The same server, of the same configuration, started with other libraries. */
  const serveBare = async (libraries: readonly string[], environment = {}) => {
    await serve(); // For the recovery directory.
    await stop();
    // Our port mapper takes no registrations, and a server that cannot register ends.
    const quiet = await noRegistrations();
    if (!quiet.ok) throw new Error(quiet.fault.message);
    const preloaded = { LD_PRELOAD: [quiet.value, ...libraries].join(" "), ...environment };
    const configuration = join(lab.directory, "bare.conf");
    writeFileSync(configuration, renderConfiguration(fileServiceSchema.parse(spec())));
    const options = ["-F", "-L", "/dev/null", "-f", configuration, "-p", `${configuration}.pid`];
    const words = ["-t", String(node.pid), "-n", "-m", "--", "ganesha.nfsd", ...options];
    bare = spawn("nsenter", words, { stdio: "ignore", env: { ...process.env, ...preloaded } });
    await until(
      "the bare server listens",
      () => node.run("ss", "-Htln", "sport = :2049 or sport = :20048").split("\n").length > 2,
    );
    client = await startNfsClient(node.pid, address, "/vol1");
  };

  const ask = (command: object): Promise<NfsAnswer> => {
    if (client === undefined) throw new Error("no client yet");
    return client.ask(command);
  };
  const write = (name: string, offset: number, text: string, stable = false) =>
    ask({ op: "write", name, offset, text, stable });
  const read = (name: string, offset = 0, count = 16_384) =>
    ask({ op: "read", name, offset, count });
  const good = { ok: true };
  const ioError = { ok: false, status: "NFS3ERR_IO" };
  /** A file whose content is on the disk, read once. */
  const settled = async (name: string, text: string) => {
    expect(await ask({ op: "create", name })).toMatchObject(good);
    expect(await write(name, 0, text, true)).toMatchObject(good);
    expect(await read(name)).toMatchObject({ ok: true, text });
    expect(disk.afterCrash(name)).toBe(text);
  };
  /** Reads while the disk takes no writes; `early` tells whether the answer came nevertheless. */
  const readWhileHeld = async (name: string): Promise<NfsAnswer & { early: boolean }> => {
    let early = false;
    const reading = read(name).then((answer) => {
      early = disk.device.waiting > 0 || !released;
      return answer;
    });
    let released = false;
    await Promise.race([
      reading,
      until("the disk is asked to write", () => disk.device.waiting > 0),
    ]);
    released = true;
    disk.device.release();
    return { ...(await reading), early };
  };

  beforeEach(async () => {
    lab = await openLab();
    node = await lab.addNode("a");
    disk = await openUnrulyDisk(lab.directory);
    mountPoint = join(lab.directory, "v1");
    mkdirSync(mountPoint);
    // With five seconds between two commits of the journal, as is usual, a slow test would meet one that nobody asked for.
    const options = "noatime,errors=remount-ro,data=ordered,commit=1000";
    await inNode("mount", "-o", options, disk.path, mountPoint);
    node.run("ip", "addr", "add", `${address}/24`, "dev", "eth0");
  });
  afterEach(async () => {
    disk.device.release();
    await client?.end();
    client = undefined;
    if (bare !== undefined) await killed(bare);
    bare = undefined;
    await node.ask({ op: "stop", timeoutMs: limitsMs.condition });
    await inNode("umount", mountPoint);
    await disk.close();
    await lab.close();
  });

  it("without it a reader sees what no disk has", async () => {
    await serveBare([]);
    await settled("f", "old");
    disk.device.hold();
    expect(await write("f", 0, "new")).toMatchObject(good);
    // The disk takes nothing before the test ends, whoever asks for a sync.
    expect(await read("f")).toMatchObject({ text: "new" });
    expect(disk.afterCrash("f")).toBe("old");
  });

  it("with it an overwrite is answered once it is on the disk", async () => {
    await serve();
    await settled("f", "old");
    disk.device.hold();
    expect(await write("f", 0, "new")).toMatchObject(good);
    expect(await readWhileHeld("f")).toMatchObject({ text: "new", early: false });
    expect(disk.afterCrash("f")).toBe("new");
  });

  it("a reader of other bytes, or of settled ones, does not wait for the disk", async () => {
    await serve();
    await settled("f", "a".repeat(8192));
    expect(await write("f", 4096, "b")).toMatchObject(good);
    disk.device.hold();
    expect(await read("f", 0, 4096)).toMatchObject({ text: "a".repeat(4096) });
    disk.device.release();
    expect(await ask({ op: "commit", name: "f" })).toMatchObject(good);
    disk.device.hold();
    expect(await read("f", 4096, 1)).toMatchObject({ text: "b" });
  });

  it("waits for a write that is under way: its page may not be dirty yet", async () => {
    const barrier = await readBarrier();
    if (!barrier.ok) throw new Error(barrier.fault.message);
    const slow = join(lab.directory, "slow.so");
    const source = join(import.meta.dirname, "read-barrier-slow.c");
    await must("cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", slow, source);
    const hold = join(lab.directory, "hold");
    await serveBare([barrier.value, slow], { SLOW_PWRITE: hold });
    await settled("f", "old");
    writeFileSync(hold, "");
    const writing = write("f", 0, "new");
    await until("the write is under way", () => existsSync(`${hold}.inside`));
    let answered = false;
    const reading = read("f").finally(() => {
      answered = true;
    });
    // What is asked later and takes longer than the read would, were it not to wait.
    for (let round = 0; round < 5; round += 1) {
      expect(await ask({ op: "create", name: `later${round}` })).toMatchObject(good);
      expect(await ask({ op: "commit", name: `later${round}` })).toMatchObject(good);
    }
    expect(answered).toBe(false);
    rmSync(hold);
    expect(await writing).toMatchObject(good);
    expect(await reading).toMatchObject({ text: "new" });
    expect(disk.afterCrash("f")).toBe("new");
  });

  it("appended bytes, new files, holes and shorter files are there after a crash, too", async () => {
    await serve();
    await settled("appended", "one ");
    await settled("shorter", "a long text");
    await settled("emptied", "a text");
    await settled("sparse", "x");
    await write("appended", 4, "two");
    expect(await read("appended")).toMatchObject({ text: "one two" });
    expect(disk.afterCrash("appended")).toBe("one two");
    await ask({ op: "create", name: "fresh" });
    await write("fresh", 0, "text");
    expect(await read("fresh")).toMatchObject({ text: "text" });
    expect(disk.afterCrash("fresh")).toBe("text");
    await write("sparse", 9000, "y");
    expect(await read("sparse", 5000, 3)).toMatchObject({ text: "\0\0\0" });
    expect(disk.afterCrash("sparse")).toHaveLength(9001);
    await ask({ op: "truncate", name: "shorter", size: 6 });
    expect(await read("shorter")).toMatchObject({ text: "a long" });
    expect(disk.afterCrash("shorter")).toBe("a long");
    await ask({ op: "create", name: "emptied", size: 0 });
    expect(await read("emptied")).toMatchObject({ text: "" });
    expect(disk.afterCrash("emptied")).toBe("");
  });

  it("what an earlier server left unwritten is written before the next one's first answer", async () => {
    await serve();
    await settled("f", "old");
    await write("f", 0, "new and longer");
    await stop();
    await serve();
    expect(await read("f")).toMatchObject({ text: "new and longer" });
    expect(disk.afterCrash("f")).toBe("new and longer");
  });

  it("what somebody else has written it does not know, unless it asks the kernel", async () => {
    const [barrier, durable] = await Promise.all([readBarrier(), durableReads()]);
    if (!barrier.ok || !durable.ok) throw new Error("not compiled");
    const others = (text: string) =>
      inNode(
        "sh",
        "-c",
        'printf %s "$0" | dd of="$1" conv=notrunc status=none',
        text,
        `${mountPoint}/f`,
      );
    await serveBare([barrier.value]);
    await settled("f", "old");
    await others("two");
    expect(await read("f")).toMatchObject({ text: "two" });
    expect(disk.afterCrash("f")).toBe("old");
    await client?.end();
    if (bare !== undefined) await killed(bare);
    await serveBare([barrier.value, durable.value]);
    // The first read has everything written, whoever wrote it.
    expect(await read("f")).toMatchObject({ text: "two" });
    await others("six");
    expect(await read("f")).toMatchObject({ text: "six" });
    expect(disk.afterCrash("f")).toBe("six");
  });

  it("a disk that fails turns the read into an error, for good, and COMMIT and only that file", async () => {
    await serve();
    await settled("f", "old");
    await settled("other", "text");
    await write("f", 0, "new");
    disk.device.failing = true;
    expect(await read("f")).toMatchObject(ioError);
    disk.device.failing = false;
    expect(await read("f")).toMatchObject(ioError);
    expect(await ask({ op: "commit", name: "f" })).toMatchObject(ioError);
    expect(await read("other")).toMatchObject({ text: "text" });
  });
});

describe("the barrier's library", () => {
  it("a sync that succeeds beside one that fails is not believed: the kernel has told the other", async () => {
    const barrier = await readBarrier();
    if (!barrier.ok) throw new Error(barrier.fault.message);
    const folder = mkdtempSync(join(tmpdir(), "dyad-barrier-"));
    try {
      const made = (name: string, ...options: string[]) => {
        const source = join(import.meta.dirname, `read-barrier-${name}.c`);
        return must("cc", "-Wall", "-Werror", "-o", join(folder, name), ...options, source);
      };
      await made("told-once", "-shared", "-fPIC");
      await made("reader", "-pthread");
      writeFileSync(join(folder, "file"), "old");
      const said = execFileSync(join(folder, "reader"), [join(folder, "file")], {
        env: { ...process.env, LD_PRELOAD: `${barrier.value} ${join(folder, "told-once")}` },
        encoding: "utf8",
      });
      expect(said.trim().split("\n").sort()).toEqual([
        "read: Input/output error",
        "sync: Input/output error",
      ]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** A later ganesha may reach files by other calls; then the barrier has to learn them first. */
describe.runIf(labIsPossible)("the VFS FSAL", () => {
  it("alters and reads files by no call that the barrier does not know", () => {
    const found = execFileSync("find", ["/usr/lib", "-name", "libfsalvfs.so"], {
      encoding: "utf8",
    });
    const [path = ""] = found.trim().split("\n");
    const listed = execFileSync("nm", ["-D", "--undefined-only", path], { encoding: "utf8" });
    const names = [...listed.matchAll(/ U (\w+)/g)].map(([, name = ""]) => name);
    const relevant =
      /^(p?(read|write)v?(64)?(v2|v64v2)?|f?(data)?sync|sync\w*|copy_file_range|sendfile(64)?|splice|mmap(64)?|f?truncate(64)?|(posix_)?fallocate(64)?|open(at)?(64|2)?|open_by_handle_at|creat(64)?|aio_\w+|lio_\w+|io_\w+|syscall|ioctl)$/;
    const known = ["fallocate64", "fsync", "ftruncate64", "open64", "open_by_handle_at"];
    expect(names.filter((name) => relevant.test(name)).sort()).toEqual(
      [...known, "openat64", "preadv64", "pwritev64"].sort(),
    );
  });
});
