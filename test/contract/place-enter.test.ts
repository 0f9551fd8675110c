/**
 * What a program finds in its place of what is mounted there while it enters: at whichever step of that. A program that did not find a volume served the empty
 * folder beneath it (docs/design/0036-volume-beneath.md).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { done, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { deviceFree } from "../../hal/linux/device-free.ts";
import { PlacesFolder } from "../../hal/linux/place/folder.ts";
import type { Place } from "../../hal/linux/place/place.ts";
import { programsOf } from "../../hal/linux/place/programs.ts";
import { seesVolumes } from "../../hal/linux/place/sight.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { rootMissing, run } from "./support/namespaces.ts";

const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

/** Calls that enter.c makes of those that place-enter-slow.c stops, and with another folder to be seen one more. */
const callsOf = { plain: 12, instead: 13 } as const;

// The second is where a run folder is in a world of the bench, and of which a program has a copy in its own /dev.
describe.skipIf(rootMissing).each([
  ["a folder of the host", tmpdir()],
  ["shared memory", "/dev/shm"],
])("a program that enters its place in %s", (_, where) => {
  let folder: string;
  /** Not beside the places: their parent is out of sight for a moment. */
  let aside: string;
  let library: string;
  let disk: string;
  let places: PlacesFolder;
  /** Without a network of its own: only mounts are looked at here. */
  const nowhere = { inside: <T>(action: () => T) => action() } as Place;
  const children: ChildProcess[] = [];

  beforeAll(() => {
    folder = mkdtempSync(join(where, "dyad-enter-"));
    aside = mkdtempSync(join(tmpdir(), "dyad-enter-aside-"));
    library = join(aside, "slow.so");
    const source = join(import.meta.dirname, "place-enter-slow.c");
    run("cc", "-shared", "-fPIC", "-O1", "-o", library, source);
    disk = join(aside, "disk");
    writeFileSync(disk, "");
    truncateSync(disk, 4 << 20);
    run("mke2fs", "-q", "-F", disk);
    places = new PlacesFolder(join(folder, "places"));
    value(places.prepare());
    for (const name of ["one", "two"]) value(places.make(name));
  });
  afterAll(() => {
    for (const child of children) child.kill("SIGKILL");
    run("umount", "-R", places.path);
    for (const each of [folder, aside]) rmSync(each, { recursive: true, force: true });
  });

  /** Where a program may see its volumes too, as smbd does. */
  const elsewhere = "/srv";

  const wordsIn = async (name: string, script: string, isInstead = false) => {
    const instead = { target: elsewhere, source: join(places.path, name) };
    const program = programsOf(nowhere, places, name);
    return value(await program.command(["sh", "-c", script], isInstead ? [instead] : []));
  };

  /** Begins to enter and stops before that call; undefined when there are not so many. */
  async function enterSlowly(call: number, script: string, isInstead: boolean) {
    const slow = join(aside, `slow-${call}`);
    writeFileSync(slow, "");
    const [program = "", ...args] = await wordsIn("one", script, isInstead);
    const child = spawn(program, args, {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, LD_PRELOAD: library, SLOW_AT: String(call), SLOW_FILE: slow },
    });
    children.push(child);
    let heard = "";
    child.stdout.on("data", (text) => {
      heard += text;
    });
    await until("it stops, or is through", () => existsSync(`${slow}.inside`) || heard !== "");
    if (!existsSync(`${slow}.inside`)) {
      child.kill("SIGKILL");
      return undefined;
    }
    return {
      goOn: () => rmSync(slow),
      async hears(what: string, ask?: string) {
        if (ask !== undefined) {
          heard = "";
          child.stdin.write(`${ask}\n`);
        }
        await until(`it says "${what}" and not "${heard}"`, () => heard.trim() === what);
      },
      end: () => child.kill("SIGKILL"),
    };
  }

  describe.each([
    ["at its own path", false],
    ["at another one, too", true],
  ])("that sees its volumes %s", (__, isInstead) => {
    const calls = isInstead ? callsOf.instead : callsOf.plain;
    const seenBelow = () => (isInstead ? elsewhere : join(places.path, "one"));

    test("finds a volume that is mounted meanwhile, at every step, and loses it with everybody else", async () => {
      const volume = join(places.path, "one", "volume");
      const file = join(volume, "file");
      mkdirSync(volume, { recursive: true });
      for (let call = 1; call <= calls; call += 1) {
        const seen = join(seenBelow(), "volume/file");
        const script = `echo here; while read -r word; do cat ${seen} 2>/dev/null || echo none; done`;
        const entering = await enterSlowly(call, script, isInstead);
        expect(entering, `call ${call}`).toBeDefined();
        run("mount", "-t", "tmpfs", "later", volume);
        writeFileSync(file, `mounted at ${call}\n`);
        entering?.goOn();
        await entering?.hears("here");
        await entering?.hears(`mounted at ${call}`, "look");
        run("umount", volume);
        await entering?.hears("none", "look");
        entering?.end();
      }
      expect(await enterSlowly(calls + 1, "echo here", isInstead)).toBeUndefined();
    });

    test("keeps no volume that is unmounted meanwhile, its own or a neighbour's, at any step", async () => {
      const device = run("losetup", "-f", "--show", disk).trim();
      try {
        for (const owner of ["one", "two"]) {
          const volume = join(places.path, owner, "kept");
          mkdirSync(volume, { recursive: true });
          for (let call = 1; call <= calls; call += 1) {
            run("mount", device, volume);
            const entering = await enterSlowly(call, "echo here; read -r word", isInstead);
            expect(entering, `call ${call}`).toBeDefined();
            run("umount", volume);
            expect(await deviceFree(device, limitsMs.condition), `call ${call}`).toEqual(done);
            entering?.goOn();
            await entering?.hears("here");
            expect(await deviceFree(device, limitsMs.condition), `call ${call}`).toEqual(done);
            entering?.end();
          }
        }
      } finally {
        run("losetup", "-d", device);
      }
    });
  });

  test("cannot write beneath its volumes", async () => {
    const [program = "", ...args] = await wordsIn(
      "one",
      `exec 2>&1; echo x > ${places.path}/one/beneath; mkdir ${places.path}/one/folder; ls ${places.path}; true`,
    );
    const said = run(program, ...args);
    expect(said.match(/Read-only file system/g)).toHaveLength(2);
    expect(said.trim().split("\n").at(-1)).toBe("one");
  });
});

describe.skipIf(rootMissing)("what is seen through a program", () => {
  test("is whether it has the volume, or what is beneath it, or is there at all", async () => {
    const volume = mkdtempSync(join(tmpdir(), "dyad-sight-"));
    const sights = [{ here: volume, there: volume }];
    // Not a follower: what is mounted later is not mounted there.
    const apart = spawn("unshare", ["--mount", "sh", "-c", "echo here; read -r word"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    try {
      await new Promise((resolve) => apart.stdout.once("data", resolve));
      const pid = apart.pid ?? 0;
      expect(await seesVolumes(pid, sights, limitsMs.condition)).toEqual(done);
      run("mount", "-t", "tmpfs", "later", volume);
      const fault = { code: "serviceFailed", message: expect.stringContaining("beneath") };
      expect(await seesVolumes(pid, sights, limitsMs.condition)).toMatchObject({
        ok: false,
        fault,
      });
      expect(await seesVolumes(process.pid, sights, limitsMs.condition)).toEqual(done);
      const nowhere = [{ here: volume, there: "/no/such/folder" }];
      expect(await seesVolumes(pid, nowhere, limitsMs.condition)).toMatchObject({
        fault: { code: "serviceFailed" },
      });
    } finally {
      apart.kill("SIGKILL");
      await new Promise((resolve) => apart.once("exit", resolve));
      run("umount", volume);
      rmSync(volume, { recursive: true });
    }
    expect(
      await seesVolumes(apart.pid ?? 0, [{ here: "/", there: "/" }], limitsMs.condition),
    ).toMatchObject({
      fault: { code: "serviceFailed" },
    });
  });
});
