/** A disk is given back when no I/O of ours is under way: a late write would land under the next owner. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { ReserveIn, ReserveOut } from "../../firmware-ts/wire/scsi/reservation.ts";
import type { ServiceMessage } from "../../hal/block/service/protocol.ts";
import type { BlockServiceCore } from "../../hal/block/service/service.ts";
import { limitsMs } from "../support/limits.ts";
import {
  allow,
  answersIn,
  heldByUs,
  key,
  nbdPath,
  openService,
  type,
} from "./block-service-world.ts";
import { ScriptedTarget, serial } from "./initiator-target.ts";
import { RawNbdClient } from "./nbd-raw-client.ts";

let folder: string;
let target: ScriptedTarget;
let core: BlockServiceCore;
let client: RawNbdClient;
let said: ServiceMessage[];
/** What reached the disk, and the write that it holds back. */
let order: string[];
let finishWrite: (() => void) | undefined;
/** Whether keys that are read come only when the test says so. */
let holdsKeys: boolean;
let finishKeys: (() => void) | undefined;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "dyad-release-"));
  said = [];
  order = [];
  finishWrite = undefined;
  holdsKeys = false;
  finishKeys = undefined;
  target = await ScriptedTarget.start();
  target.onCommand = ({ pdu, command, connection }) => {
    if (command.name === "write") {
      finishWrite = () => {
        order.push("written");
        connection.status(pdu.taskTag);
      };
    } else if (command.name === "persistentReserveIn" && command.action === ReserveIn.readKeys) {
      finishKeys = () => connection.dataIn(pdu.taskTag, Buffer.alloc(8));
      if (!holdsKeys) finishKeys();
    } else if (command.name === "persistentReserveIn") {
      connection.dataIn(pdu.taskTag, heldByUs());
    } else {
      if (command.name === "persistentReserveOut")
        order.push(command.action === ReserveOut.release ? "release" : "unregister");
      connection.status(pdu.taskTag, Status.good);
    }
  };
  core = await openService(folder, target, said);
  await allow(core);
  client = new RawNbdClient({ path: nbdPath(folder) });
  await client.go(serial);
  client.request(1, 1, 0, 512, Buffer.alloc(512));
  await expect.poll(() => finishWrite).toBeDefined();
  // What the kernel does when the FUSE server dies: nobody waits for that write any more.
  client.socket.destroy();
});

afterEach(async () => {
  finishWrite?.();
  await core.close();
  await target.close();
  rmSync(folder, { recursive: true });
});

/** A write of a client of its own; the error number of its answer. */
async function write(): Promise<number> {
  const other = new RawNbdClient({ path: nbdPath(folder) });
  await other.go(serial);
  other.request(1, 1, 0, 512, Buffer.alloc(512));
  const answer = await other.read(16);
  other.socket.destroy();
  return answer.readUInt32BE(4);
}

const giveBack = (deadlineMs: number) =>
  Promise.all([
    core.handle({
      op: "reserve",
      id: 5,
      serial,
      command: { op: "release", key, type },
      deadlineMs,
    }),
    core.handle({ op: "reserve", id: 6, serial, command: { op: "unregister" }, deadlineMs }),
  ]);

test("a write that is under way is awaited", async () => {
  const given = giveBack(limitsMs.condition);
  await new Promise((resolve) => setImmediate(resolve));
  expect(order).toEqual([]);
  finishWrite?.();
  await given;
  expect(order).toEqual(["written", "release", "unregister"]);
  expect(answersIn(said)).toEqual(["good", "good"]);
});

test("a write that does not end keeps the disk from being given back", async () => {
  await giveBack(100);
  expect(order).toEqual([]);
  expect(answersIn(said)).toEqual(["failed", "failed"]);
});

/** What was asked before a release is answered late. */
async function releaseBehindKeys() {
  finishWrite?.();
  finishWrite = undefined;
  holdsKeys = true;
  const deadlineMs = limitsMs.condition;
  const read = core.handle({
    op: "reserve",
    id: 4,
    serial,
    command: { op: "readKeys" },
    deadlineMs,
  });
  await expect.poll(() => finishKeys).toBeDefined();
  return Promise.all([read, giveBack(deadlineMs)]);
}

test("a release that waits for its turn lets nothing through from the moment in which it is asked for", async () => {
  const given = releaseBehindKeys();
  await expect.poll(() => finishKeys).toBeDefined();
  expect(await write()).not.toBe(0);
  expect(order).toEqual(["written"]);
  finishKeys?.();
  await given;
  expect(order).toEqual(["written", "release", "unregister"]);
});

test("what was allowed while a release waited is taken back when its turn comes, and awaited", async () => {
  const given = releaseBehindKeys();
  await expect.poll(() => finishKeys).toBeDefined();
  await allow(core);
  const written = write();
  await expect.poll(() => finishWrite).toBeDefined();
  finishKeys?.();
  await expect.poll(() => answersIn(said)).toContain("keys");
  expect(order).toEqual(["written"]);
  expect(await write()).not.toBe(0);
  finishWrite?.();
  expect(await written).toBe(0);
  await given;
  expect(order).toEqual(["written", "written", "release", "unregister"]);
});
