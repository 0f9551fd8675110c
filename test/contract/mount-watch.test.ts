/** Volumes that fail while they are mounted: an error that ext4 finds, a mount that somebody changes or takes away. */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { createFileSystems } from "../../hal/linux/filesystems.ts";
import { MountWatch, watchedFileSystems } from "../../hal/linux/mount-watch.ts";
import { Readiness } from "../../hal/linux/readiness.ts";
import { ioctlLater } from "../../hal/linux/syscalls.ts";
import type { FileSystems } from "../../hal/port/storage.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { makeLoopFolder, removeLoopFolder } from "./support/loop-folder.ts";
import { rootMissing, run } from "./support/namespaces.ts";

/** EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_LOGFLUSH (<linux/ext4.h>). */
function shut(path: string): void {
  const root = openSync(path, "r");
  void ioctlLater(root, 0x8004587d, Buffer.from([1, 0, 0, 0])).then(() => closeSync(root));
}

const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

describe.skipIf(rootMissing)("watched file systems", () => {
  let folder: string;
  let readiness: Readiness;
  let watch: MountWatch;
  let fileSystems: FileSystems;
  let told: { path: string; reason: string }[];
  const devices: Record<string, string> = {};
  const pathOf = (name: string) => join(folder, `on-${name}`);

  async function mount(name: string): Promise<void> {
    value(await fileSystems.mount({ path: devices[name] ?? "", writeCache: true }, pathOf(name)));
  }

  beforeAll(() => {
    folder = makeLoopFolder();
  });
  afterAll(() => {
    removeLoopFolder(folder);
  });

  beforeEach(async () => {
    told = [];
    readiness = value(Readiness.open());
    watch = value(
      MountWatch.open(readiness, (message) => {
        throw new Error(message);
      }),
    );
    fileSystems = watchedFileSystems(createFileSystems(limitsMs.condition), watch, (path, reason) =>
      told.push({ path, reason }),
    );
    for (const name of ["one", "two"]) {
      const image = join(folder, name);
      writeFileSync(image, "");
      truncateSync(image, 32 << 20);
      run("mkfs.ext4", "-q", "-F", image);
      devices[name] = run("losetup", "-f", "--show", image).trim();
      await mount(name);
    }
  });

  afterEach(async () => {
    for (const [name, device] of Object.entries(devices)) {
      await until("abandoned", async () => (await fileSystems.abandon(pathOf(name))).ok);
      run("losetup", "-d", device);
    }
    watch.close();
    readiness.close();
  });

  const findError = (name: string) =>
    writeFileSync(`/sys/fs/ext4/${basename(devices[name] ?? "")}/trigger_fs_error`, "injected");

  test.each<[string, () => void, RegExp]>([
    [
      "in which the kernel finds an error",
      () => findError("one"),
      /^it is read-only.*\(errors so far: 1, the last in \w+\)$/,
    ],
    [
      "that somebody mounts read-only",
      () => run("mount", "-o", "remount,ro", pathOf("one")),
      /^it is read-only$/,
    ],
    [
      "whose mount alone somebody makes read-only",
      () => run("mount", "-o", "remount,bind,ro", pathOf("one")),
      /^it is read-only$/,
    ],
    ["that somebody unmounts", () => run("umount", pathOf("one")), /^it is not mounted any more$/],
    [
      "over which somebody mounts something",
      () => run("mount", "-t", "tmpfs", "over", pathOf("one")),
      /^over is mounted over it$/,
    ],
    ["that somebody shuts by ioctl", () => shut(pathOf("one")), /^it was shut down$/],
  ])("one %s is told of once, and its neighbour is not", async (_, befall, reason) => {
    befall();
    await until("it is told", () => told.length > 0);
    // A change of mounts that is no fault makes everything be looked at again.
    value(await fileSystems.abandon(pathOf("one")));
    await until("it is looked at", () => {
      findError("two");
      return told.some(({ path }) => path === pathOf("two"));
    });
    expect(told.map(({ path }) => path)).toEqual([pathOf("one"), pathOf("two")]);
    expect(told[0]?.reason).toMatch(reason);
  });

  test("one that is sealed or abandoned is nobody's business any more", async () => {
    value(await fileSystems.seal(pathOf("one")));
    value(await fileSystems.abandon(pathOf("one")));
    findError("two");
    await until("two is told", () => told.length > 0);
    expect(told.map(({ path }) => path)).toEqual([pathOf("two")]);
  });

  test("one that remembers an error is checked, mounted again, and watched anew", async () => {
    findError("one");
    await until("it is told", () => told.length === 1);
    value(await fileSystems.abandon(pathOf("one")));
    await mount("one");
    writeFileSync(join(pathOf("one"), "file"), "written");
    const count = `/sys/fs/ext4/${basename(devices.one ?? "")}/errors_count`;
    expect(Number(readFileSync(count, "utf8"))).toBe(0);
    findError("one");
    await until("it is told again", () => told.length === 2);
  });
});
