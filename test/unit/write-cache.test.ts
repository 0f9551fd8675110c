/** Disks with and without a volatile write cache: what they say, what is believed, and what follows for writes and mounts. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { decodeModeData, encodeModeData } from "../../firmware-ts/wire/scsi/parameters.ts";
import { encodeFullStatus, ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import { hasWriteCache } from "../../hal/block/iscsi/caching.ts";
import { IscsiDisk } from "../../hal/block/iscsi/disk.ts";
import type { Verdict } from "../../hal/block/iscsi/verdict.ts";
import { answerModeSense, type Identity } from "../../hal/shelf/disk/identity.ts";
import { type Medium, MemoryMedium, writeThrough } from "../../hal/shelf/disk/medium.ts";
import { limitsMs, patientDisk } from "../support/limits.ts";
import { type Received, ScriptedTarget, serial } from "./initiator-target.ts";

const caching = (flags: number) => {
  const body = Buffer.alloc(18);
  body[0] = flags;
  const pages = [{ page: 0x08, subpage: 0, body }];
  return encodeModeData({ writeProtected: false, dpoFua: true, pages }, 10);
};

describe("what the disk says", () => {
  const good = (data: Buffer): Verdict => ({ kind: "good", data });
  test.each<[string, Verdict, boolean]>([
    ["WCE = 0", good(caching(0)), false],
    ["WCE = 1", good(caching(0x04)), true],
    ["other bits of the page", good(caching(0xfb)), false],
    [
      "no caching page",
      good(encodeModeData({ writeProtected: false, dpoFua: false, pages: [] }, 10)),
      true,
    ],
    ["data cut short", good(caching(0).subarray(0, 8)), true],
    ["nothing", good(Buffer.alloc(0)), true],
    ["RESERVATION CONFLICT", { kind: "conflict" }, true],
    ["no path", { kind: "transport", failure: "down", reason: "down" }, true],
  ])("%s", async (_, verdict, expected) => {
    expect(await hasWriteCache(() => Promise.resolve(verdict), 100)).toBe(expected);
  });

  test.each([true, false])("our shelf's disks with writeCache %s", (writeCache) => {
    const identity: Identity = {
      ...{ serial, vendor: "DYAD", product: "T", revision: "1", blockBytes: 512, blocks: 8 },
      ...{ targetNames: [], writeCache },
    };
    const asked = { control: 0, page: 0x08, subpage: 0, allocationBytes: 255 };
    const result = answerModeSense(identity, {
      ...{ name: "modeSense", cdbBytes: 10, noBlockDescriptors: true, longLba: false, ...asked },
    });
    const mode = decodeModeData(result.data ?? Buffer.alloc(0), 10);
    expect(mode.ok && mode.value.pages[0]?.body[0]).toBe(writeCache ? 0x04 : 0);
  });
});

test("a medium that writes through has flushed when a write is done", () => {
  const order: string[] = [];
  const memory = new MemoryMedium(4096);
  const medium: Medium = {
    sizeBytes: 4096,
    read: (offset, target, done) => memory.read(offset, target, done),
    write: (offset, data, done) => {
      order.push("write");
      memory.write(offset, data, done);
    },
    zero: (offset, bytes, done) => {
      order.push("zero");
      memory.zero(offset, bytes, done);
    },
    flush: (done) => {
      order.push("flush");
      done(order.length > 4 ? new Error("worn out") : null);
    },
  };
  const through = writeThrough(medium);
  through.write(0, Buffer.from("abc"), (error) => order.push(`done ${error}`));
  through.zero(0, 1, (error) => order.push(`done ${error?.message}`));
  expect(order).toEqual(["write", "flush", "done null", "zero", "flush", "done worn out"]);
});

describe("what the initiator makes of it", () => {
  const key = "00000000000a0001";
  const port = { name: "iqn.2026-11.test:i", isid: "4000d1ad0001" };
  const hold = { key, type: "exclusiveAccessRegistrantsOnly" } as const;
  let target: ScriptedTarget;
  let disk: IscsiDisk;
  let seen: string[];
  let flags: number;
  let wornOut = false;

  beforeEach(async () => {
    seen = [];
    target = await ScriptedTarget.start();
    target.onCommand = answer;
    disk = new IscsiDisk({
      ...{ host: "127.0.0.1", port: target.port, targetName: "iqn.2026-11.test:t", serial },
      ...{ initiatorName: port.name, isid: port.isid },
      timing: patientDisk,
    });
    expect(await disk.whenUp(limitsMs.condition)).toBe(true);
  });
  afterEach(async () => {
    await disk.close();
    await target.close();
  });

  function answer({ pdu, command, connection }: Received): void {
    if (command.name === "modeSense") return connection.dataIn(pdu.taskTag, caching(flags));
    if (command.name === "write" || command.name === "synchronizeCache") seen.push(command.name);
    if (command.name === "synchronizeCache" && wornOut)
      return connection.status(pdu.taskTag, Status.busy);
    if (command.name !== "persistentReserveIn") return connection.status(pdu.taskTag, Status.good);
    const held = { scope: 0, type: ReservationType[hold.type] };
    const entry = { key: BigInt(`0x${key}`), allTargetPorts: false, held, targetPort: 1 };
    const entries = [{ ...entry, initiator: port }];
    connection.dataIn(pdu.taskTag, encodeFullStatus({ generation: 1, entries }));
  }

  const write = async () => {
    expect(await disk.write(0, Buffer.alloc(512), { fua: false })).toMatchObject({ ok: true });
  };

  test("a cache that appears after durable writes were promised is flushed before I/O flows again and after each write", async () => {
    flags = 0;
    expect(await disk.verify(hold, limitsMs.condition)).toMatchObject({ ok: true });
    expect(disk.writeCache).toBe(false);
    await write();
    flags = 0x04;
    expect(await disk.verify(hold, limitsMs.condition)).toMatchObject({ ok: true });
    expect(disk.writeCache).toBe(true);
    expect(seen).toEqual(["write", "synchronizeCache"]);
    await write();
    expect(seen).toEqual(["write", "synchronizeCache", "write", "synchronizeCache"]);
  });

  test("a cache that was there from the start is left to those who flush", async () => {
    flags = 0x04;
    expect(disk.writeCache).toBe(true);
    expect(await disk.verify(hold, limitsMs.condition)).toMatchObject({ ok: true });
    expect(disk.writeCache).toBe(true);
    await write();
    expect(seen).toEqual(["write"]);
  });

  test("a cache that cannot be flushed lets nothing flow", async () => {
    flags = 0;
    expect(await disk.verify(hold, limitsMs.condition)).toMatchObject({ ok: true });
    expect(disk.writeCache).toBe(false);
    flags = 0x04;
    wornOut = true;
    expect(await disk.verify(hold, 300)).toMatchObject({ ok: false });
    expect(await disk.verify(hold, 300)).toMatchObject({ ok: false });
    wornOut = false;
    expect(await disk.verify(hold, limitsMs.condition)).toMatchObject({ ok: true });
    expect(seen).toContain("synchronizeCache");
  });

  test("a disk given up while it was being verified stays closed", async () => {
    flags = 0;
    const verifying = disk.verify(hold, limitsMs.condition);
    disk.revoke();
    expect(await verifying).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(disk.status().permission).toBe("closed");
  });
});
