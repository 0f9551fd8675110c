/** A claim sends its commands together: what is read was read behind the change, however often the disk had to be asked. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startClaim } from "../../firmware-ts/core/ownership.ts";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import type { ServiceMessage } from "../../hal/block/service/protocol.ts";
import { BlockServiceCore } from "../../hal/block/service/service.ts";
import { limitsMs, patientDisk } from "../support/limits.ts";
import { ScriptedTarget, serial } from "./initiator-target.ts";

const key = "00000000000a0001";

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
  core = new BlockServiceCore((message) => said.push(message));
  await core.handle({ op: "listen", id: 1, path: join(folder, "nbd.sock") });
  await core.handle({
    ...({ op: "open", id: 2, waitMs: limitsMs.condition } as const),
    disk: {
      ...{ serial, host: "127.0.0.1", port: target.port, targetName: "iqn.2026-11.test:t" },
      ...{ initiatorName: "iqn.2026-11.test:i", isid: "4000d1ad0001", exported: true },
      timing: patientDisk,
    },
  });
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
const answers = () => said.flatMap((each) => (each.kind === "answer" ? [each.answer.status] : []));

test("readings wait for a registration that is repeated", async () => {
  toChanges = [Status.busy, Status.busy, Status.good];
  await claim(limitsMs.condition);
  expect(order).toEqual([
    ...[`change ${Status.busy}`, `change ${Status.busy}`, `change ${Status.good}`],
    ...["read 0", "read 1"],
  ]);
  expect(answers()).toEqual(["good", "keys", "reservation"]);
});

test("behind a registration that is never answered, nothing is read", async () => {
  await claim(100);
  expect(order).toEqual(["change unanswered"]);
  expect(answers()).toEqual(["failed", "failed", "failed"]);
});
