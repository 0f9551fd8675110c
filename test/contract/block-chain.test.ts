/**
 * The whole block path below the file system: NBD → block service → iSCSI initiator → shelf, in three processes, with the
 * shelf dying under load and a second controller taking the disk away.
 */
import { createHash } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { ReservationType } from "../../firmware-ts/schema/reservation.ts";
import { BlockServiceClient, type BlockServiceHandlers } from "../../hal/block/service/client.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { fio, must, nbdUri, newFolder, run, ShelfProcess, target } from "./block-lab.ts";

const sizeBytes = 32 * 1024 * 1024;
const type: ReservationType = "exclusiveAccessRegistrantsOnly";
const keyA = "00000000000a0001";
const keyB = "00000000000b0002";
const serials = ["DATA-1", "DATA-2", "DATA-3"];
const waitMs = limitsMs.condition;

let shelf: ShelfProcess;
let folder: string;
const services: BlockServiceClient[] = [];

beforeAll(async () => {
  shelf = await ShelfProcess.start(serials, sizeBytes);
});
afterAll(() => shelf.close());
beforeEach(async () => {
  if (!shelf.isRunning) await shelf.restart();
  folder = await newFolder();
});
afterEach(async () => {
  await Promise.all(services.splice(0).map((service) => service.close()));
  await rm(folder, { recursive: true });
});

async function controller(name: string, handlers: BlockServiceHandlers = {}) {
  const path = join(folder, `${name}.nbd`);
  const started = await BlockServiceClient.start(path, handlers);
  if (!started.ok) throw new Error(started.fault.message);
  services.push(started.value);
  const open = async (serial: string) => {
    const spec = shelf.spec(serial, name);
    const timing = { ...spec.timing, reconnectMaxMs: 100 };
    const opened = await started.value.open({ ...spec, timing }, waitMs);
    if (!opened.ok) throw new Error(opened.fault.message);
    expect(opened.value).toMatchObject({ up: true, sizeBytes });
    return opened.value;
  };
  return { service: started.value, open, uri: (serial: string) => nbdUri(path, serial) };
}

/** Registers and reserves, removing whatever an earlier test left. */
async function own(service: BlockServiceClient, serial: string, key: string): Promise<void> {
  expect(await service.reserve(serial, { op: "register", key }, waitMs)).toEqual({
    status: "good",
  });
  const keys = await service.reserve(serial, { op: "readKeys" }, waitMs);
  if (keys.status !== "keys") throw new Error(JSON.stringify(keys));
  for (const victim of keys.keys.filter((other) => other !== key)) {
    const command = { op: "preempt", key, victim, type } as const;
    expect(await service.reserve(serial, command, waitMs)).toEqual({ status: "good" });
  }
  const reserved = await service.reserve(serial, { op: "reserve", key, type }, waitMs);
  expect(reserved).toEqual({ status: "good" });
  expect(await service.allow(serial, { key, type }, waitMs)).toMatchObject({ ok: true });
}

const hashOf = async (path: string) =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

describe("block chain", () => {
  test("QEMU's initiator and ours see the same disk, found by serial and not by number", async () => {
    const a = await controller("a");
    const disks = await Promise.all(serials.map(a.open));
    expect(disks.map(({ lun }) => lun)).toEqual([3, 2, 1]);
    for (const [index, serial] of serials.entries()) {
      expect(await a.service.allow(serial, undefined, waitMs)).toMatchObject({ ok: true });
      const pattern = `0x${(17 * (index + 1)).toString(16)}`;
      await must("qemu-io", "-f", "raw", "-c", `write -P ${pattern} 4k 2M`, a.uri(serial));
      const url = `iscsi://127.0.0.1:${shelf.port}/${target}/${disks[index]?.lun}`;
      const out = await must("qemu-io", "-f", "raw", "-c", `read -P ${pattern} 4k 2M`, url);
      expect(out).toMatch(/read 2097152\/2097152/);
      await must("qemu-io", "-f", "raw", "-c", "write -P 7 8M 1M", "-c", "discard 4k 4k", url);
      const back = await must("qemu-io", "-f", "raw", "-c", "read -P 7 8M 1M", a.uri(serial));
      expect(back).not.toMatch(/fail/);
    }
    await must(
      "qemu-io",
      ...["-f", "raw", "-c", "write -P 9 0 4M", "-c", "write -z 1M 1M", "-c", "read -P 0 1M 1M"],
      ...["-c", "write -z -u 2M 1M", "-c", "read -P 0 2M 1M", "-c", "discard 3M 1M", "-c", "flush"],
      ...["-c", "write -f -P 3 0 8M", "-c", "read -P 3 0 8M"],
      a.uri("DATA-1"),
    );
  });

  test("two sessions with one ISID would fight for the nexus: refused", async () => {
    const a = await controller("a");
    await a.open("DATA-1");
    const twin = { ...shelf.spec("DATA-1", "a"), serial: "DATA-2" };
    const opened = await a.service.open(twin, 100);
    expect(opened).toMatchObject({ ok: false, fault: { code: "badInput" } });
  });

  test("an export passes nothing before it is allowed, nothing after it is forbidden", async () => {
    const a = await controller("a");
    await a.open("DATA-1");
    const before = await hashOf(shelf.image("DATA-1"));
    const write = () => run("qemu-io", "-f", "raw", "-c", "write -P 0x77 0 64k", a.uri("DATA-1"));
    const read = () => run("qemu-io", "-f", "raw", "-c", "read 0 64k", a.uri("DATA-1"));
    expect((await write()).out).toMatch(/Input\/output error/);
    expect((await read()).out).toMatch(/Input\/output error/);
    expect(await hashOf(shelf.image("DATA-1"))).toBe(before);
    // Registered is not reserved: there is nothing yet to keep the partner out.
    await a.service.reserve("DATA-1", { op: "register", key: keyA }, waitMs);
    const early = await a.service.allow("DATA-1", { key: keyA, type }, waitMs);
    expect(early).toMatchObject({ ok: false, fault: { code: "fenced" } });
    expect((await write()).out).toMatch(/Input\/output error/);
    await own(a.service, "DATA-1", keyA);
    expect((await write()).out).toMatch(/wrote 65536/);
    expect(await a.service.forbid("DATA-1")).toMatchObject({ ok: true });
    expect((await write()).out).toMatch(/Input\/output error/);
    const status = await a.service.status();
    if (!status.ok) throw new Error("status");
    const [disk] = status.value.disks;
    expect(disk).toMatchObject({ permission: "closed", conflicts: 0 });
    expect(disk?.refused).toBeGreaterThan(2);
  });

  test.each([
    ["4k at depth 16", "--rw=randwrite", "--bs=4k", "--iodepth=16"],
    ["1 MiB", "--rw=write", "--bs=1M", "--iodepth=4"],
    ["odd sizes", "--rw=randrw", "--bsrange=512-300k", "--bs_unaligned=0", "--iodepth=8"],
  ])("fio verifies the whole chain: %s", async (_, ...options) => {
    const a = await controller("a");
    await a.open("DATA-2");
    await own(a.service, "DATA-2", keyA);
    const uri = a.uri("DATA-2");
    const size = `--size=${sizeBytes / 2}`;
    const ran = await fio(uri, ...options, size, "--verify=crc32c", "--verify_fatal=1");
    expect(ran.out).toMatch(/err= 0/);
  });

  test("the shelf dies and returns under load: nothing is lost, nobody notices", async () => {
    const seen: string[] = [];
    const verified: boolean[] = [];
    const a = await controller("a", {
      path: (serial, up, reason) => {
        seen.push(`${serial} ${up}`);
        // As an owner does it: no write passes in the new session before the registration was read back.
        if (up && seen.length > 1)
          void a.service
            .allow(serial, { key: keyA, type }, waitMs)
            .then(({ ok }) => verified.push(ok));
        expect(reason).not.toBe("");
      },
    });
    await a.open("DATA-3");
    await own(a.service, "DATA-3", keyA);
    const load = fio(
      a.uri("DATA-3"),
      ...["--rw=randwrite", "--bs=4k", "--iodepth=16", `--size=${sizeBytes}`, "--loops=3"],
      ...["--rate_iops=6000", "--verify=crc32c", "--verify_fatal=1"],
    );
    for (let round = 0; round < 3; round += 1) {
      const count = verified.length;
      const busy = async () => {
        const status = await a.service.status();
        return status.ok && (status.value.disks[0]?.writes ?? 0) > 1000 * (round + 1);
      };
      await until("writes are under way", busy);
      await shelf.kill();
      await shelf.restart();
      await until("the session was verified", () => verified.length > count);
    }
    const ran = await load;
    expect(ran.out).toMatch(/err= 0/);
    expect(verified).toEqual([true, true, true]);
    const status = await a.service.status();
    if (!status.ok) throw new Error("status");
    expect(status.value.disks[0]).toMatchObject({ logins: 4, losses: 3, failed: 0, conflicts: 0 });
  });

  test("preempted under load: told at once, and nothing of the old owner lands any more", async () => {
    let fenced = 0;
    const a = await controller("a", { fenced: () => (fenced += 1) });
    const b = await controller("b");
    await a.open("DATA-1");
    await b.open("DATA-1");
    await own(a.service, "DATA-1", keyA);
    const load = fio(
      a.uri("DATA-1"),
      ...["--rw=randwrite", "--bs=4k", "--iodepth=16", `--size=${sizeBytes}`],
      ...["--time_based", "--runtime=250"],
    );
    const busy = async () => {
      const status = await a.service.status();
      return status.ok && (status.value.disks[0]?.writes ?? 0) > 500;
    };
    await until("writes are under way", busy);
    await b.service.reserve("DATA-1", { op: "register", key: keyB }, waitMs);
    const command = { op: "preempt", key: keyB, victim: keyA, type } as const;
    expect(await b.service.reserve("DATA-1", command, waitMs)).toEqual({ status: "good" });
    const preemptedMs = performance.now();
    const told = until("the loser was told", () => fenced > 0).then(() =>
      console.log(`told ${(performance.now() - preemptedMs).toFixed(1)} ms after the preempt`),
    );
    const after = await hashOf(shelf.image("DATA-1"));
    // Before its clients were: whoever serves the disk has until then to close the gate.
    const toldFirst = load.then(() => fenced === 1);
    expect((await load).out).toMatch(/err=(?! 0)/);
    expect(await toldFirst).toBe(true);
    await told;
    for (let i = 0; i < 20; i += 1)
      await run("qemu-io", "-f", "raw", "-c", `write -P 0x66 ${i * 64}k 64k`, a.uri("DATA-1"));
    expect(await hashOf(shelf.image("DATA-1"))).toBe(after);
    const again = await a.service.allow("DATA-1", { key: keyA, type }, waitMs);
    expect(again).toMatchObject({ ok: false, fault: { code: "fenced" } });
    expect(await b.service.allow("DATA-1", { key: keyB, type }, waitMs)).toMatchObject({
      ok: true,
    });
    const out = await must("qemu-io", "-f", "raw", "-c", "write -P 1 0 64k", b.uri("DATA-1"));
    expect(out).toMatch(/wrote 65536/);
    const keys = await a.service.reserve("DATA-1", { op: "readKeys" }, waitMs);
    expect(keys).toMatchObject({ status: "keys", keys: [keyB] });
  });

  test("a controller preempted while its path was down does not write when it is back", async () => {
    const events: string[] = [];
    const a = await controller("a", { path: (_, up) => events.push(up ? "up" : "down") });
    const b = await controller("b");
    await a.open("DATA-2");
    await b.open("DATA-2");
    await own(a.service, "DATA-2", keyA);
    await shelf.kill();
    const held = run("qemu-io", "-f", "raw", "-c", "write -P 0x55 0 64k", a.uri("DATA-2"));
    await until("the loss was noticed", () => events.includes("down"));
    const before = await hashOf(shelf.image("DATA-2"));
    await shelf.restart();
    await until("a is back", () => events.at(-1) === "up");
    await b.service.reserve("DATA-2", { op: "register", key: keyB }, waitMs);
    const command = { op: "preempt", key: keyB, victim: keyA, type } as const;
    expect(await b.service.reserve("DATA-2", command, waitMs)).toEqual({ status: "good" });
    const verified = await a.service.allow("DATA-2", { key: keyA, type }, waitMs);
    expect(verified).toMatchObject({ ok: false, fault: { code: "fenced" } });
    await a.service.forbid("DATA-2");
    // The held write ended as refused by the reservation, not as a broken disk.
    expect((await held).out).toMatch(/Operation not permitted/);
    expect(await hashOf(shelf.image("DATA-2"))).toBe(before);
  });

  test("the service ends with its parent's channel, and its end is told", async () => {
    let ended = "";
    const a = await controller("a", { ended: (reason) => (ended = reason) });
    await a.open("DATA-1");
    process.kill(a.service.pid ?? 0, "SIGKILL");
    await until("the end was told", () => ended !== "");
    expect(ended).toMatch(/SIGKILL/);
    const answer = await a.service.reserve("DATA-1", { op: "readKeys" }, waitMs);
    expect(answer).toMatchObject({ status: "failed" });
    expect(await a.service.allow("DATA-1", undefined, waitMs)).toMatchObject({
      ok: false,
      fault: { code: "serviceFailed" },
    });
    const b = await controller("b");
    await b.service.close();
    expect(() => process.kill(b.service.pid ?? 0, 0)).toThrow(/ESRCH/);
  });
});
