/**
 * The block device of the kernel: prepared, attached, detached, killed in every part; and ext4 on it when another
 * controller takes the disk away under load.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { open, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Attachment } from "../../hal/block/attach.ts";
import { FileDevice } from "../../hal/block/file-device.ts";
import type { NbdExport } from "../../hal/block/nbd-export.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";
import { BlockServiceClient } from "../../hal/block/service/client.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { mountsBelow, must, newFolder, run, ShelfProcess } from "./block-lab.ts";

const sizeBytes = 64 * 1024 * 1024;
const type = "exclusiveAccessRegistrantsOnly";
const keyA = "00000000000a0001";
const keyB = "00000000000b0002";

const privately = ["--mount", "--propagation", "private"];

const agents: ChildProcess[] = [];

let folder: string;
beforeEach(async () => {
  folder = await newFolder();
});
afterEach(async () => {
  for (const agent of agents.splice(0)) agent.kill("SIGKILL");
  // Nothing below the folder may survive a test: neither mounts nor devices. What ends with a process ends a moment after it.
  await expect.poll(() => mountsBelow(folder)).toEqual([]);
  await expect.poll(() => loopsOn(folder)).toEqual([]);
  await rm(folder, { recursive: true });
});

/** Loop devices whose file lies below the folder. */
async function loopsOn(path: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir("/sys/block")) {
    const file = `/sys/block/${name}/loop/backing_file`;
    const backing = await readFile(file, "utf8").catch(() => "");
    if (backing.startsWith(path)) found.push(`/dev/${name}`);
  }
  return found;
}

const median = (values: number[]) => [...values].sort((x, y) => x - y)[values.length >> 1] ?? 0;
const hashOf = async (path: string) =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

describe("attachment over a file", () => {
  let server: NbdServer;
  let device: FileDevice;
  let exported: NbdExport;
  let attachment: Attachment;
  let lost: string[];

  beforeEach(async () => {
    lost = [];
    const image = join(folder, "image");
    const file = await open(image, "w");
    await file.truncate(sizeBytes);
    await file.close();
    const opened = await FileDevice.open(image, { blockSizeBytes: 512 });
    if (!opened.ok) throw new Error(opened.fault.message);
    device = opened.value;
    server = new NbdServer();
    const added = server.add({ name: "disk", device, on: false });
    if (!added.ok) throw new Error(added.fault.message);
    exported = added.value;
    await server.listen({ path: join(folder, "nbd") });
    attachment = newAttachment();
  });
  afterEach(async () => {
    expect(await attachment.close()).toEqual({ ok: true, value: undefined });
    await server.close();
    await device.close();
  });

  const newAttachment = () =>
    new Attachment({
      name: `test-${process.pid}`,
      nbdSocketPath: join(folder, "nbd"),
      exportName: "disk",
      folder: join(folder, "attach"),
      sizeBytes,
      blockSizeBytes: 512,
      onLost: (reason) => lost.push(reason),
    });
  const attach = async () => {
    const attached = await attachment.attach();
    if (!attached.ok) throw new Error(JSON.stringify(attached));
    return attached.value;
  };

  test("preparing reads nothing, and nothing can be read before the export is on", async () => {
    expect(await attachment.prepare()).toMatchObject({ ok: true });
    expect(exported.counters).toMatchObject({ reads: 0, refused: 0 });
    const file = await open(join(folder, "attach", `test-${process.pid}.disk`), "r");
    await expect(file.read(Buffer.alloc(512), 0, 512, 0)).rejects.toThrow(/EIO/);
    await file.close();
    expect(exported.counters.reads).toBe(0);
    expect(exported.counters.refused).toBeGreaterThan(0);
  });

  test("what another wrote meanwhile is seen: no page of the disk is kept anywhere", async () => {
    exported.turnOn();
    for (let round = 1; round <= 3; round += 1) {
      const path = await attach();
      await must("dd", `if=${path}`, "of=/dev/null", "bs=1M", "count=4");
      await attachment.detach();
      // The other controller's write, behind the back of this one.
      await device.write(0, Buffer.alloc(1024 * 1024, round), { fua: false });
      const again = await open(await attach(), "r");
      const { buffer } = await again.read(Buffer.alloc(1024 * 1024), 0, 1024 * 1024, 0);
      await again.close();
      expect(buffer.every((byte) => byte === round)).toBe(true);
      const cached = await must(
        "fincore",
        "-bno",
        "RES",
        join(folder, "attach", `test-${process.pid}.disk`),
      );
      expect(cached.trim()).toBe("0");
      await attachment.detach();
    }
  });

  test("attaching what is prepared and detaching it, again and again; both ways are idempotent", async () => {
    await attachment.prepare();
    exported.turnOn();
    const attachMs: number[] = [];
    const detachMs: number[] = [];
    for (let round = 0; round < 15; round += 1) {
      const start = performance.now();
      const path = await attach();
      const between = performance.now();
      expect(await attach()).toBe(path);
      const before = performance.now();
      expect(await attachment.detach()).toMatchObject({ ok: true });
      attachMs.push(between - start);
      detachMs.push(performance.now() - before);
      expect(await attachment.detach()).toMatchObject({ ok: true });
      expect(attachment.device).toBeUndefined();
    }
    console.log(JSON.stringify({ attachMs: median(attachMs), detachMs: median(detachMs) }));
  });

  test("concurrent writes of many sizes arrive unmixed", async () => {
    exported.turnOn();
    const ran = await run(
      "fio",
      ...["--name=job", "--ioengine=libaio", "--direct=1", `--filename=${await attach()}`],
      ...["--rw=randwrite", "--bsrange=4k-1M", "--iodepth=16", `--size=${sizeBytes}`],
      ...["--verify=crc32c", "--verify_fatal=1"],
    );
    expect(ran.out).toMatch(/err= 0/);
  });

  test("a mounted device is not let go, and is afterwards", async () => {
    exported.turnOn();
    const path = await attach();
    const mnt = join(folder, "mnt");
    await must("mkdir", mnt);
    await must("mkfs.ext4", "-q", "-F", path);
    // In a namespace of its own: a namespace that anybody makes meanwhile would keep a copy of the mount.
    const script =
      'mount "$0" "$1" && dd if=/dev/zero of="$1/f" bs=1M count=8 conv=fsync && echo ok && read x; umount "$1"';
    const holder = spawn("unshare", [...privately, "sh", "-c", script, path, mnt], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    const ended = new Promise((resolve) => holder.once("exit", resolve));
    await new Promise((resolve) => createInterface({ input: holder.stdout }).once("line", resolve));
    const busy = await attachment.detach();
    expect(busy).toMatchObject({ ok: false, fault: { code: "stillMounted" } });
    expect(attachment.device).toBe(path);
    holder.stdin.end("\n");
    await ended;
    expect(await attachment.detach()).toMatchObject({ ok: true });
  });

  test("the FUSE server dies: errors, told, and attaching anew works", async () => {
    exported.turnOn();
    const path = await attach();
    attachment.invalidate();
    await until("the loss was told", () => lost.length > 0);
    expect(
      (await run("dd", `if=${path}`, "of=/dev/null", "count=1", "iflag=direct")).code,
    ).not.toBe(0);
    const out = await must("dd", `if=${await attach()}`, "of=/dev/null", "count=1", "iflag=direct");
    expect(out).toMatch(/1\+0 records in/);
  });

  test("the NBD server dies under a mount: errors instead of endless waiting", async () => {
    exported.turnOn();
    const path = await attach();
    await server.close();
    const reading = run("dd", `if=${path}`, "of=/dev/null", "count=1", "iflag=direct");
    expect((await reading).code).not.toBe(0);
  });
});

describe("attachment over the shelf", () => {
  let shelf: ShelfProcess;
  beforeEach(async () => {
    shelf = await ShelfProcess.start(["DATA-1"], sizeBytes);
  });
  afterEach(() => shelf.close());

  /** A controller as a process; `wrap` may put it into namespaces of its own. */
  async function agent(name: string, key: string, mount = "", wrap: readonly string[] = []) {
    const [command = process.execPath, ...options] = [...wrap, process.execPath];
    const spec = JSON.stringify(shelf.spec("DATA-1", name));
    const script = "test/contract/block-attach-agent.ts";
    const child = spawn(
      command,
      [...options, script, folder, `agent-${process.pid}-${name}`, spec, key, mount],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    agents.push(child);
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    const line = await new Promise<string>((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", resolve);
      child.once("exit", (code) => reject(new Error(`the agent ended with ${code}`)));
    });
    const said: { device: string; pid: number; service: number } = JSON.parse(line);
    return { ...said, child, ended };
  }

  const isAlive = (pid: number) => {
    try {
      process.kill(pid, 0);
      return true;
    } catch {
      return false;
    }
  };

  test("a controller killed with -9 leaves nothing that the next run does not remove", async () => {
    const first = await agent("a", keyA);
    first.child.kill("SIGKILL");
    await first.ended;
    await until("the service ended with its parent", () => !isAlive(first.service));
    await until("the loop device went by itself", async () => (await loopsOn(folder)).length === 0);
    // The killed FUSE server's mount is what is left.
    expect(await mountsBelow(folder)).toHaveLength(1);
    const second = await agent("a", keyA);
    expect(await mountsBelow(folder)).toHaveLength(1);
    second.child.kill("SIGTERM");
    await second.ended;
    expect(await mountsBelow(folder)).toEqual([]);
  });

  test("in a mount namespace of its own nothing shows outside, and all goes with it", async () => {
    const inside = await agent("a", keyA, "mount", ["unshare", ...privately]);
    expect(await mountsBelow(folder)).toEqual([]);
    inside.child.kill("SIGKILL");
    await inside.ended;
    await until("the loop device is gone", async () => (await loopsOn(folder)).length === 0);
  });

  test("ext4 on a preempted disk: writes fail, the journal aborts, nothing more lands", async () => {
    const a = await agent("a", keyA, "mount", ["unshare", ...privately]);
    const inside = (...command: string[]) =>
      run("nsenter", `--mount=/proc/${a.pid}/ns/mnt`, ...command);
    const mnt = join(folder, "mnt");
    const load = inside(
      "fio",
      ...["--name=job", `--directory=${mnt}`, "--rw=randwrite", "--bs=16k", "--size=24M"],
      ...["--fsync=4", "--time_based", "--runtime=250"],
    );
    const started = await BlockServiceClient.start(join(folder, "b.nbd"));
    if (!started.ok) throw new Error(started.fault.message);
    const b = started.value;
    await b.open(shelf.spec("DATA-1", "b"), limitsMs.condition);
    const name = a.device.replace("/dev/", "");
    const written = async () =>
      Number((await readFile(`/sys/block/${name}/stat`, "utf8")).trim().split(/\s+/)[4]);
    const from = await written();
    await until("fio writes", async () => (await written()) > from + 200);
    await b.reserve("DATA-1", { op: "register", key: keyB }, limitsMs.condition);
    const command = { op: "preempt", key: keyB, victim: keyA, type } as const;
    expect(await b.reserve("DATA-1", command, limitsMs.condition)).toEqual({ status: "good" });
    const after = await hashOf(shelf.image("DATA-1"));
    const ran = await load;
    expect(ran.out).toMatch(/Input\/output error|Read-only file system/);
    // The next commit of the journal meets the disk's refusal and aborts it; ext4 goes read-only for good.
    await inside("touch", join(mnt, "new"));
    await inside("sync", "-f", mnt);
    expect((await inside("touch", join(mnt, "newer"))).out).toMatch(/Read-only|Input\/output/);
    expect(await hashOf(shelf.image("DATA-1"))).toBe(after);
    // Unmounting a fenced file system writes nothing either.
    a.child.kill("SIGTERM");
    await a.ended;
    expect(await hashOf(shelf.image("DATA-1"))).toBe(after);
    // What the new owner finds is a file system that its journal makes whole.
    const fsck = await run("e2fsck", "-fy", shelf.image("DATA-1"));
    expect(fsck.code).toBeLessThan(4);
    await b.close();
  });
});
