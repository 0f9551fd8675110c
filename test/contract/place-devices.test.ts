/** What a program in the place of a virtual server sees of devices: those of every program, and its own volumes'. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { major, minor } from "../../hal/linux/place/devices.ts";
import { PlacesFolder } from "../../hal/linux/place/folder.ts";
import type { Place } from "../../hal/linux/place/place.ts";
import { programsOf } from "../../hal/linux/place/programs.ts";
import { until } from "../support/until.ts";
import { rootMissing, run } from "./support/namespaces.ts";

const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

describe.skipIf(rootMissing)("the device file of a virtual server", () => {
  let folder: string;
  let places: PlacesFolder;
  const loops: string[] = [];
  const children: ChildProcess[] = [];

  /** Without a network of its own: only mounts are looked at here. */
  const nowhere = { inside: <T>(action: () => T) => action() } as Place;

  const wordsIn = async (name: string, script: string) =>
    value(await programsOf(nowhere, places, name).command(["sh", "-c", script]));

  /** What a shell says in a place; errors are among it. */
  async function shell(name: string, script: string): Promise<string> {
    const [program = "", ...args] = await wordsIn(name, `exec 2>&1; ${script}; true`);
    return run(program, ...args).trim();
  }

  const loopOf = (name: string): string => {
    const file = join(folder, name);
    writeFileSync(file, `the disk of ${name}`);
    truncateSync(file, 1 << 20);
    const device = run("losetup", "-f", "--show", file).trim();
    loops.push(device);
    return device;
  };

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "dyad-devices-"));
    places = new PlacesFolder(join(folder, "places"));
    value(places.prepare());
    for (const name of ["one", "two"]) value(places.make(name));
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
    for (const device of loops.splice(0)) run("losetup", "-d", device);
  });
  afterAll(() => {
    run("umount", "-R", places.path);
    rmSync(folder, { recursive: true, force: true });
  });

  test("has what every program may use, which works, and nothing else", async () => {
    expect((await shell("one", "ls /dev")).split("\n").sort()).toEqual(
      [
        "fd",
        "full",
        "null",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "urandom",
        "zero",
      ].sort(),
    );
    const use =
      "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 5 /dev/urandom | wc -c";
    expect(await shell("one", use)).toBe("3\n5");
    expect(await shell("one", "head -c 1 /dev/zero > /dev/full")).toContain("No space left");
    expect(await shell("one", "echo through > /dev/stdout | cat")).toBe("through");
  });

  test("does not have the host's disks, by no way that leads over a device node", async () => {
    const device = loopOf("host");
    const { rdev } = statSync(device);
    expect(await shell("one", `head -c 8 ${device}`)).toMatch(/No such file/);
    const node = `b ${major(rdev)} ${minor(rdev)}`;
    expect(await shell("one", `mknod /dev/mine ${node}`)).toMatch(/Read-only file system/);
    // It may make a node elsewhere, as a client of NFS may ask it to; nobody opens a device by it.
    const made = join(folder, "made");
    expect(await shell("one", `mknod ${made} ${node} && head -c 8 ${made}`)).toMatch(
      /Permission denied/,
    );
    expect(run("head", "-c", "8", made)).toBe("the disk");
    rmSync(made);
  });

  test("gets the devices of its volumes while it runs, loses them again, and its neighbour never has them", async () => {
    const device = loopOf("volume");
    const [program = "", ...args] = await wordsIn(
      "one",
      `while read -r word; do head -c 8 ${device} 2>&1; echo; done`,
    );
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    children.push(child);
    let heard = "";
    child.stdout.on("data", (text) => {
      heard += text;
    });
    const ask = async (wanted: string) => {
      heard = "";
      child.stdin.write("look\n");
      await until(wanted, () => heard.includes(wanted) && heard.endsWith("\n"));
    };
    await ask("No such file");
    for (const _ of [1, 2]) value(places.devices("one").add(device));
    await ask("the disk");
    expect(await shell("two", `head -c 8 ${device}`)).toMatch(/No such file/);
    // Nor by the path of its neighbour's folder.
    const neighbours = join(places.path, "one", "@dev", basename(device));
    expect(existsSync(neighbours)).toBe(true);
    expect(await shell("two", `head -c 8 ${neighbours}`)).toMatch(/No such file/);
    for (const _ of [1, 2]) places.devices("one").remove(device);
    await ask("No such file");
  });

  test("is made anew by the next life, without what was left in it", async () => {
    const device = loopOf("left");
    value(places.devices("one").add(device));
    value(places.make("one"));
    expect(await shell("one", "ls /dev")).not.toContain(basename(device));
    expect(await shell("one", "echo x > /dev/null && echo well")).toBe("well");
  });

  test("keeps shared memory, where a run folder may be", async () => {
    const shared = mkdtempSync("/dev/shm/dyad-devices-");
    try {
      writeFileSync(join(shared, "file"), "shared");
      expect(await shell("one", `cat ${shared}/file`)).toBe("shared");
      // Also when the places themselves are there.
      const there = new PlacesFolder(join(shared, "places"));
      value(there.prepare());
      for (const name of ["one", "two"]) value(there.make(name));
      const volume = join(there.path, "one", "volume");
      mkdirSync(volume);
      const [program = "", ...args] = value(
        await programsOf(nowhere, there, "one").command([
          "sh",
          "-c",
          `ls ${there.path}; read -r word; cat ${volume}/file`,
        ]),
      );
      const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
      children.push(child);
      let heard = "";
      child.stdout.on("data", (text) => {
        heard += text;
      });
      await until("it sees its own folder only", () => heard === "one\n");
      // What is mounted later is seen there, too.
      run("mount", "-t", "tmpfs", "later", volume);
      writeFileSync(join(volume, "file"), "mounted later");
      child.stdin.write("look\n");
      await until("it sees what was mounted later", () => heard.endsWith("mounted later"));
      run("umount", volume);
      run("umount", "-R", there.path);
    } finally {
      rmSync(shared, { recursive: true, force: true });
    }
  });
});
