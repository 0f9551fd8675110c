/** A claim sends its commands together: what is read was read behind the change, however often the disk had to be asked. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startClaim } from "../../firmware-ts/core/ownership.ts";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import type { ServiceMessage } from "../../hal/block/service/protocol.ts";
import type { BlockServiceCore } from "../../hal/block/service/service.ts";
import { limitsMs } from "../support/limits.ts";
import { answersIn, key, openService } from "./block-service-world.ts";
import { ScriptedTarget, serial } from "./initiator-target.ts";

let folder: string;
let target: ScriptedTarget;
let core: BlockServiceCore;
let said: ServiceMessage[];
/** What reached the disk. */
let order: string[];
/** What the disk answers to changes, in turn; undefined: nothing. */
let toChanges: (number | undefined)[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "dyad-order-"));
  said = [];
  order = [];
  toChanges = [];
  target = await ScriptedTarget.start();
  target.onCommand = ({ pdu, command, connection }) => {
    if (command.name === "persistentReserveIn") {
      order.push(`read ${command.action}`);
      // Both readings: a header of eight bytes and nothing behind it.
      connection.dataIn(pdu.taskTag, Buffer.alloc(8));
    } else {
      const answer = command.name === "persistentReserveOut" ? toChanges.shift() : Status.good;
      if (command.name === "persistentReserveOut") order.push(`change ${answer ?? "unanswered"}`);
      if (answer !== undefined) connection.status(pdu.taskTag, answer);
    }
  };
  core = await openService(folder, target, said);
});

afterEach(async () => {
  await core.close();
  await target.close();
  rmSync(folder, { recursive: true });
});

const claim = (deadlineMs: number) =>
  Promise.all(
    startClaim(key)[1].map((command, index) =>
      core.handle({ op: "reserve", id: 10 + index, serial, command, deadlineMs }),
    ),
  );

test("readings wait for a registration that is repeated", async () => {
  toChanges = [Status.busy, Status.busy, Status.good];
  await claim(limitsMs.condition);
  expect(order).toEqual([
    ...[`change ${Status.busy}`, `change ${Status.busy}`, `change ${Status.good}`],
    ...["read 0", "read 1"],
  ]);
  expect(answersIn(said)).toEqual(["good", "keys", "reservation"]);
});

test("behind a registration that is never answered, nothing is read", async () => {
  await claim(100);
  expect(order).toEqual(["change unanswered"]);
  expect(answersIn(said)).toEqual(["failed", "failed", "failed"]);
});
