/** A look ahead reads as a client does: only while I/O is allowed, and a disk is not given back under a read of it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { ReserveOut } from "../../firmware-ts/wire/scsi/reservation.ts";
import type { ServiceMessage } from "../../hal/block/service/protocol.ts";
import type { BlockServiceCore } from "../../hal/block/service/service.ts";
import { Ext4Image } from "../support/ext4-image.ts";
import { limitsMs } from "../support/limits.ts";
import { allow, heldByUs, key, openService, type } from "./block-service-world.ts";
import { ScriptedTarget, serial } from "./initiator-target.ts";

const blockBytes = 512;

let folder: string;
let target: ScriptedTarget;
let core: BlockServiceCore;
let said: ServiceMessage[];
/** What reached the disk, in turn. */
let order: string[];
/** Reads from this one on are held back, until each is let go. */
let heldFrom: number;
let held: (() => void)[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "dyad-foresee-"));
  said = [];
  order = [];
  held = [];
  heldFrom = Number.POSITIVE_INFINITY;
  const image = new Ext4Image().withRecords();
  let reads = 0;
  target = await ScriptedTarget.start();
  target.onCommand = ({ pdu, command, connection }) => {
    if (command.name === "read") {
      const from = command.lba * blockBytes;
      const bytes = image.bytes.subarray(from, from + command.blocks * blockBytes);
      const answer = () => {
        order.push("read");
        connection.dataIn(pdu.taskTag, bytes);
      };
      reads += 1;
      if (reads < heldFrom) answer();
      else held.push(answer);
    } else if (command.name === "persistentReserveIn") {
      connection.dataIn(pdu.taskTag, heldByUs());
    } else {
      if (command.name === "persistentReserveOut")
        order.push(command.action === ReserveOut.release ? "release" : "other");
      connection.status(pdu.taskTag, Status.good);
    }
  };
  core = await openService(folder, target, said);
});

afterEach(async () => {
  for (const answer of held) answer();
  await core.close();
  await target.close();
  rmSync(folder, { recursive: true });
});

const deadlineMs = limitsMs.condition;
const foresee = (limitMs: number = deadlineMs) =>
  core.handle({ op: "foresee", id: 4, serial, deadlineMs: limitMs });
const foreseen = () =>
  said.flatMap((each) => (each.kind === "foreseen" ? [each.foreseen?.ranges.length ?? 0] : []));

test("a disk that is not ours yet, or not any more, is not read", async () => {
  await foresee();
  await allow(core);
  await core.handle({ op: "forbid", id: 5, serial });
  await foresee();
  expect(foreseen()).toEqual([0, 0]);
  expect(order).toEqual([]);
});

test("a disk that nobody has opened is no fault", async () => {
  await core.handle({ op: "foresee", id: 4, serial: "OTHER", deadlineMs });
  expect(said.at(-1)).toEqual({ kind: "foreseen", id: 4 });
});

test("what a start will read", async () => {
  await allow(core);
  await foresee();
  expect(foreseen()).toEqual([expect.any(Number)]);
  expect(foreseen()[0]).toBeGreaterThan(5);
  expect(order).toEqual(Array.from({ length: 11 }, () => "read"));
});

test("a release waits for the read that is under way, and no other follows", async () => {
  heldFrom = 4;
  await allow(core);
  const looked = foresee();
  await expect.poll(() => held.length).toBe(1);
  const command = { op: "release", key, type } as const;
  const released = core.handle({ op: "reserve", id: 5, serial, command, deadlineMs });
  await new Promise((resolve) => setImmediate(resolve));
  expect(order).toEqual(["read", "read", "read"]);
  for (const answer of held.splice(0)) answer();
  await Promise.all([released, looked]);
  expect(order).toEqual(["read", "read", "read", "read", "release"]);
  expect(held).toEqual([]);
  // What was found before is told all the same.
  expect(foreseen()[0]).toBeGreaterThan(1);
});

test("a read that hangs: told at the deadline, and the disk is not given back under it", async () => {
  heldFrom = 1;
  await allow(core);
  await foresee(50);
  expect(foreseen()).toEqual([0]);
  const command = { op: "release", key, type } as const;
  await core.handle({ op: "reserve", id: 5, serial, command, deadlineMs: 50 });
  expect(said.at(-1)).toMatchObject({ kind: "answer", answer: { status: "failed" } });
  expect(order).toEqual([]);
});
