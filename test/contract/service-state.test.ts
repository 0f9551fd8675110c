/** The service state on a volume: what the last owner saved is there for the next one, also when it had no time for anything more. */
import { mkdirSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createFileSystems } from "../../hal/linux/filesystems.ts";
import { createServiceStates } from "../../hal/linux/service-state.ts";
import type { ServiceState } from "../../hal/port/machine.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { makeLoopFolder, removeLoopFolder } from "./support/loop-folder.ts";
import { rootMissing, run } from "./support/namespaces.ts";

const imageBytes = 32 << 20;
const states = createServiceStates();
const stateOf = (...ports: readonly number[]): ServiceState => ({
  connections: ports.map((remotePort) => ({
    localAddress: "10.0.0.100",
    localPort: 2049,
    remoteAddress: "10.0.0.1",
    remotePort,
  })),
});

describe.skipIf(rootMissing)("service state", () => {
  const fileSystems = createFileSystems(limitsMs.condition);
  let folder: string;
  let device: string;
  let path: string;

  beforeAll(() => {
    folder = makeLoopFolder();
    path = join(folder, "volume");
  });
  afterAll(() => {
    removeLoopFolder(folder);
  });
  beforeEach(async () => {
    const file = join(folder, "disk");
    writeFileSync(file, "");
    truncateSync(file, imageBytes);
    run("mkfs.ext4", "-q", "-F", file);
    device = run("losetup", "-f", "--show", file).trim();
    await mount();
    mkdirSync(join(path, ".dyad"));
    run("sync", "-f", path);
  });
  afterEach(async () => {
    await abandoned();
    run("losetup", "-d", device);
  });

  const mount = async () =>
    expect(await fileSystems.mount({ path: device, writeCache: true }, path)).toMatchObject({
      ok: true,
    });
  /** As a crash leaves it: nothing more is written, not even what the journal holds in memory. */
  const abandoned = () => until("abandoned", async () => (await fileSystems.abandon(path)).ok);

  test("that was saved is on the disk, every time: a crash right afterwards does not lose it", async () => {
    for (const state of [stateOf(700), stateOf(700, 701), stateOf()]) {
      expect(await states.save(path, state)).toMatchObject({ ok: true });
      await abandoned();
      await mount();
      expect(await states.load(path)).toEqual({ state });
    }
    expect(readdirSync(join(path, ".dyad"))).toEqual(["service-state.json"]);
  });

  test("that is missing or damaged is empty, and says so", async () => {
    expect(await states.load(path)).toEqual({ state: stateOf() });
    for (const [text, note] of [
      ["{", "not readable"],
      ['{"connections":[{"remotePort":1}]}', "malformed"],
      [`"${"x".repeat(1024 * 1024)}"`, "too long"],
    ] as const) {
      writeFileSync(join(path, ".dyad", "service-state.json"), text);
      const loaded = await states.load(path);
      expect([loaded.state, loaded.note]).toEqual([stateOf(), expect.stringContaining(note)]);
    }
  });

  test("that cannot be saved is told", async () => {
    run("mount", "-o", "remount,ro", path);
    const saved = await states.save(path, stateOf(700));
    expect(!saved.ok && saved.fault.code).toBe("ioError");
  });
});
