/** What is foreseen of a volume against what the kernel reads of it: on a loop device, whose reads the kernel counts. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Foreseen } from "../../firmware-ts/schema/range.ts";
import { foresee } from "../../hal/block/foresee.ts";
import { createFileSystems } from "../../hal/linux/filesystems.ts";
import type { LocalDevice } from "../../hal/port/storage.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { makeLoopFolder, removeLoopFolder } from "./support/loop-folder.ts";
import { rootMissing, run } from "./support/namespaces.ts";

const sizeBytesDefault = 128 << 20;
const fewClients = Array.from(
  { length: 5 },
  (_, i) => `::ffff:10.0.0.${i}-(44:Linux NFSv4.1 ${i})`,
);
const manyClients = Array.from({ length: 60 }, (_, i) => `${i}-${"name".repeat(50)}`);

interface Shape {
  readonly options: readonly string[];
  readonly sizeBytes?: number;
  readonly clients?: readonly string[];
  /** Groups whose bitmaps are not beside each other. */
  readonly prefetched?: number;
}

const shapes = {
  "blocks of 1 KiB": { options: ["-b", "1024"] },
  "blocks of 4 KiB": { options: ["-b", "4096"] },
  "many groups": { options: ["-b", "4096"], sizeBytes: 4 * 2 ** 30, prefetched: 4 },
  "small inodes": { options: ["-b", "1024", "-I", "128"] },
  "groups apart": { options: ["-b", "1024", "-O", "^flex_bg", "-N", "4096"], prefetched: 16 },
  "a hashed directory": { options: ["-b", "1024"], clients: manyClients },
} satisfies Record<string, Shape>;

describe.skipIf(rootMissing)("a volume whose reads are foreseen", () => {
  const fileSystems = createFileSystems(limitsMs.condition);
  let folder: string;
  let path: string;
  let device: string;

  const states = (...names: string[]) => join(path, ".dyad", "nfs4", ...names);
  const abandoned = () => until("abandoned", async () => (await fileSystems.abandon(path)).ok);

  /** Requests that the device has begun and those under way: what was asked for in advance has come when there are none. */
  function requests() {
    const text = readFileSync(`/sys/block/${device.split("/").at(-1)}/stat`, "utf8");
    const [reads = 0, ...rest] = text.trim().split(/\s+/).map(Number);
    return { reads, underWay: rest[7] ?? 0 };
  }

  beforeAll(() => {
    folder = makeLoopFolder();
    path = join(folder, "volume");
  });
  afterAll(() => removeLoopFolder(folder));
  beforeEach(() => {
    device = "";
  });
  afterEach(async () => {
    await abandoned();
    if (device !== "") run("losetup", "-d", device);
  });

  async function volume({ options, sizeBytes, clients }: Shape): Promise<void> {
    const file = join(folder, "image");
    writeFileSync(file, "");
    truncateSync(file, sizeBytes ?? sizeBytesDefault);
    run("mkfs.ext4", "-q", "-F", "-J", "size=4", ...options, file);
    device = run("losetup", "-f", "--show", file).trim();
    await mounted();
    // Directories of the root are scattered over the groups; so is what a volume has been used for.
    for (let i = 0; i < 20; i += 1)
      mkdirSync(join(path, `share-${i}`, "below"), { recursive: true });
    for (const name of ["clients", "clients-before"]) mkdirSync(states(name), { recursive: true });
    for (const client of clients ?? fewClients) mkdirSync(states("clients", client));
    await putAway();
  }

  async function mounted(foreseen?: LocalDevice["foreseen"]): Promise<void> {
    const local = { path: device, writeCache: true, ...(foreseen ? { foreseen } : {}) };
    expect(await fileSystems.mount(local, path)).toMatchObject({ ok: true });
  }

  async function putAway(): Promise<void> {
    expect(await fileSystems.seal(path)).toMatchObject({ ok: true });
    await abandoned();
    run("blockdev", "--flushbufs", device);
  }

  async function look(): Promise<Foreseen | undefined> {
    const file = await open(device, "r");
    try {
      const { size: sizeBytes } = statSync(join(folder, "image"));
      return await foresee({ sizeBytes, read: readerOf(file) }, limitsMs.condition);
    } finally {
      await file.close();
      run("blockdev", "--flushbufs", device);
    }
  }

  /** What was asked for in advance has come when nothing is read any more. */
  async function quiet(): Promise<void> {
    await until("read", async () => {
      const before = requests();
      await new Promise((resolve) => setTimeout(resolve, 100));
      return before.underWay === 0 && requests().reads === before.reads;
    });
  }

  /**
   * Reads that an action waits for or asks for. Others look at loop devices, too (whoever makes a file system, say), and this thread may have to read
   * its own program: what counts is what both the device and the thread have seen.
   */
  function readsOf(action: () => void): number {
    const ofThread = () =>
      Number(/^read_bytes: (\d+)/m.exec(readFileSync("/proc/thread-self/io", "utf8"))?.[1]);
    const [bytes, { reads }] = [ofThread(), requests()];
    action();
    return Math.min(Math.ceil((ofThread() - bytes) / 1024), requests().reads - reads);
  }

  /** While a start looks through the records, then while it makes new ones. */
  function readsOfStart(): { readonly looking: number; readonly making: number } {
    const looking = readsOf(() => {
      for (const name of readdirSync(states(), { recursive: true })) statSync(states(String(name)));
    });
    const making = readsOf(() => {
      mkdirSync(states("clients-before", "new"));
      readdirSync(states("clients-before", "new"));
    });
    return { looking, making };
  }

  test.each(Object.entries<Shape>(shapes))(
    "%s: a start reads next to nothing",
    async (_, shape) => {
      await volume(shape);
      await mounted();
      await quiet();
      const without = readsOfStart();
      run("rmdir", states("clients-before", "new"));
      await putAway();
      await mounted(Promise.resolve(await look()));
      await quiet();
      const within = readsOfStart();
      expect(without.looking).toBeGreaterThan(3);
      // None, but for pages that the kernel needed elsewhere meanwhile.
      expect(within.looking).toBeLessThanOrEqual(without.looking / 10);
      // The kernel asks for the bitmaps of other groups in advance, and waits for none of them (ext4_mb_prefetch).
      expect(within.making).toBeLessThanOrEqual(shape.prefetched ?? 0);
    },
  );

  test("many names are hashed, as the test takes it", async () => {
    await volume(shapes["a hashed directory"]);
    const [flags] =
      /Flags: 0x\w+/.exec(run("debugfs", "-R", "stat /.dyad/nfs4/clients", device)) ?? [];
    expect(Number(flags?.split(" ").at(-1)) & 0x1000).toBe(0x1000);
  });

  test.each([
    ["blocks of 1 KiB", "1024"],
    ["blocks of 4 KiB", "4096"],
  ])("%s: what comes after the mount is read all the same", async (_, size) => {
    await volume({ options: ["-b", size] });
    const found = await look();
    let tell = (_: Foreseen | undefined) => {};
    await mounted(new Promise<Foreseen | undefined>((resolve) => (tell = resolve)));
    tell(found);
    await quiet();
    expect(readsOfStart().looking).toBeLessThanOrEqual(1);
  });

  test("out of date: what was foreseen of another volume", async () => {
    await volume({ options: ["-b", "4096"] });
    const found = await look();
    run("mkfs.ext4", "-q", "-F", "-b", "1024", device);
    await mounted(Promise.resolve(found));
    mkdirSync(states(), { recursive: true });
    await putAway();
    run("e2fsck", "-fn", device);
  });

  test("what never comes holds up neither the mount nor its end", async () => {
    await volume({ options: ["-b", "1024"] });
    await mounted(new Promise(() => {}));
    const number = statSync(device).rdev;
    const isOpen = () =>
      readdirSync("/proc/self/fd").some((each) => {
        const status = statSync(`/proc/self/fd/${each}`, { throwIfNoEntry: false });
        return status?.isBlockDevice() && status.rdev === number;
      });
    expect(isOpen()).toBe(true);
    await putAway();
    await until("closed", () => !isOpen());
  });
});

function readerOf(file: FileHandle) {
  return async (fromBytes: number, lengthBytes: number) => {
    const bytes = Buffer.alloc(lengthBytes);
    const { bytesRead } = await file.read(bytes, 0, lengthBytes, fromBytes);
    return bytesRead === lengthBytes ? bytes : undefined;
  };
}
