/** What is foreseen of a volume against what the kernel reads of it: on a loop device, whose reads the kernel counts. */
import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Foreseen } from "../../firmware-ts/schema/range.ts";
import { foresee } from "../../hal/block/foresee.ts";
import { createFileSystems } from "../../hal/linux/filesystems.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { makeLoopFolder, removeLoopFolder } from "./support/loop-folder.ts";
import { rootMissing, run } from "./support/namespaces.ts";

const imageBytes = 128 << 20;
const clients = Array.from({ length: 5 }, (_, i) => `::ffff:10.0.0.${i}-(44:Linux NFSv4.1 ${i})`);

describe.skipIf(rootMissing)("a volume whose reads are foreseen", () => {
  const fileSystems = createFileSystems(limitsMs.condition);
  let folder: string;
  let path: string;
  let device: string;

  const states = (...names: string[]) => join(path, ".dyad", "nfs4", ...names);
  const abandoned = () =>
    until("abandoned", async () => (await fileSystems.abandon(path)).ok === true);

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

  async function volume(...options: string[]): Promise<void> {
    const file = join(folder, "image");
    writeFileSync(file, "");
    truncateSync(file, imageBytes);
    run("mkfs.ext4", "-q", "-F", "-J", "size=4", ...options, file);
    device = run("losetup", "-f", "--show", file).trim();
    expect(await fileSystems.mount({ path: device, writeCache: true }, path)).toMatchObject({
      ok: true,
    });
    for (let i = 0; i < 20; i += 1) mkdirSync(join(path, `share-${i}`, "below"), { recursive: true });
    for (const name of ["clients", "clients-before"]) mkdirSync(states(name), { recursive: true });
    for (const client of clients) mkdirSync(states("clients", client));
    expect(await fileSystems.seal(path)).toMatchObject({ ok: true });
    await abandoned();
  }

  async function foreseen(): Promise<Foreseen | undefined> {
    const file = await open(device, "r");
    try {
      return await foresee({ sizeBytes: imageBytes, read: readerOf(file) }, limitsMs.condition);
    } finally {
      await file.close();
    }
  }

  /** What a start does: it looks at all records, makes new ones, and moves those of the last grace. */
  function start(): void {
    for (const name of readdirSync(states(), { recursive: true })) statSync(states(String(name)));
    mkdirSync(states("clients-before", "new"));
    readdirSync(states("clients-before", "new"));
  }

  /** Reads during the start after a mount, when all has come that was asked for in advance. */
  async function readsOfStart(hints: Promise<Foreseen | undefined> | undefined): Promise<number> {
    run("blockdev", "--flushbufs", device);
    const local = { path: device, writeCache: true, ...(hints ? { foreseen: hints } : {}) };
    expect(await fileSystems.mount(local, path)).toMatchObject({ ok: true });
    await until("read", async () => {
      const before = requests();
      await new Promise((resolve) => setTimeout(resolve, 100));
      return before.underWay === 0 && requests().reads === before.reads;
    });
    const { reads } = requests();
    start();
    return requests().reads - reads;
  }

  test.each([
    ["blocks of 1 KiB", ["-b", "1024"]],
    ["blocks of 4 KiB", ["-b", "4096"]],
    ["groups apart", ["-b", "1024", "-O", "^flex_bg", "-N", "4096"]],
  ])("%s: the start of a file service reads next to nothing", async (_, options) => {
    await volume(...options);
    const without = await readsOfStart(undefined);
    run("rmdir", states("clients-before", "new"));
    await fileSystems.seal(path);
    await abandoned();
    const hints = await foreseen();
    const within = await readsOfStart(Promise.resolve(hints));
    console.log(without, within, hints);
    expect(without).toBeGreaterThan(5);
    expect(within).toBeLessThanOrEqual(1);
  });
});

function readerOf(file: FileHandle) {
  return async (fromBytes: number, lengthBytes: number) => {
    const bytes = Buffer.alloc(lengthBytes);
    const { bytesRead } = await file.read(bytes, 0, lengthBytes, fromBytes);
    return bytesRead === lengthBytes ? bytes : undefined;
  };
}
