/** The iSCSI initiator against a target that does right and wrong on command. */
import { randomBytes } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import {
  LoginStatus,
  RESERVED_TAG,
  type Request,
  TaskResponse,
} from "../../firmware-ts/wire/iscsi/pdu.ts";
import { Asc, SenseKey, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { IscsiDisk } from "../../hal/block/iscsi/disk.ts";
import type { IscsiDiskTiming } from "../../hal/block/iscsi/disk-timing.ts";
import { until } from "../support/until.ts";
import { disk, events, inbox, open, stopTime, target, timing, unit } from "./initiator-lab.ts";
import { blocks, type Received, serial } from "./initiator-target.ts";

const dataOuts = () =>
  target.last.requests.flatMap(({ pdu, data }) => (pdu.op === "dataOut" ? [{ pdu, data }] : []));

describe("transfers", () => {
  test("a read is placed in order, piece by piece", async () => {
    const commands = inbox();
    await open();
    const reading = disk.read(4096, 4096);
    const { pdu, connection, command } = await commands.next();
    expect(command).toMatchObject({ name: "read", lba: 8, blocks: 8 });
    expect(pdu.lun).toBe(5);
    const data = randomBytes(4096);
    connection.dataIn(pdu.taskTag, data.subarray(0, 1000), 0, null);
    connection.dataIn(pdu.taskTag, data.subarray(1000, 4000), 1000, null);
    connection.dataIn(pdu.taskTag, data.subarray(4000), 4000);
    const answer = await reading;
    expect(answer.ok && answer.value.equals(data)).toBe(true);
  });

  test("a short read is an error, not data", async () => {
    const commands = inbox();
    await open();
    const reading = disk.read(0, 1024);
    const { pdu, connection } = await commands.next();
    connection.dataIn(pdu.taskTag, Buffer.alloc(512));
    expect(await reading).toMatchObject({ ok: false, fault: { code: "diskError" } });
  });

  test.each([
    ["immediate and unsolicited", true, false, 16_384, 65_536],
    ["immediate, then R2T", true, true, 8192, 65_536],
    ["R2T alone", false, true, 65_536, 65_536],
    ["unsolicited alone", false, false, 10_000, 30_000],
  ])("a write of 200 000 bytes: %s", async (_, immediateData, initialR2t, segment, firstBurst) => {
    target.parameters = {
      ...target.parameters,
      ...{ immediateData, initialR2t, receiveDataBytesMax: segment, firstBurstBytes: firstBurst },
    };
    const commands = inbox();
    await open();
    const data = randomBytes(390 * 512);
    const writing = disk.write(0, data, { fua: false });
    const { pdu, connection, data: immediate } = await commands.next();
    const copy = Buffer.alloc(data.length);
    immediate.copy(copy);
    expect(immediate.length).toBe(immediateData ? Math.min(segment, firstBurst) : 0);
    const unsolicited = initialR2t ? immediate.length : firstBurst;
    expect(pdu.final).toBe(unsolicited === immediate.length);
    const bytesOut = () => dataOuts().reduce((sum, one) => sum + one.data.length, immediate.length);
    await expect.poll(bytesOut).toBe(unsolicited);
    for (let at = unsolicited; at < data.length; at += 50_000) {
      const bytes = Math.min(50_000, data.length - at);
      connection.r2t(pdu.taskTag, at, bytes, at);
      await expect.poll(bytesOut).toBe(at + bytes);
    }
    for (const { pdu: out, data: part } of dataOuts()) {
      expect(part.length).toBeLessThanOrEqual(segment);
      part.copy(copy, out.offset);
      const isAsked = out.offset >= unsolicited;
      expect(out.transferTag === RESERVED_TAG).toBe(!isAsked);
    }
    expect(copy.equals(data)).toBe(true);
    connection.status(pdu.taskTag);
    expect(await writing).toMatchObject({ ok: true });
  });

  test("commands wait for the target's window, in order", async () => {
    const commands = inbox();
    await open();
    target.last.window = 2;
    // The window that the target opens now is told with its next answer.
    const first = disk.flush();
    const opener = await commands.next();
    opener.connection.status(opener.pdu.taskTag);
    await first;
    // The login had opened 32; narrow windows do not take back what was granted, so use that up.
    const granted = target.last.expCmdSn;
    const writes = Array.from({ length: 60 }, (_, index) =>
      disk.write(index * 512, Buffer.alloc(512, index), { fua: false }),
    );
    const numbers: number[] = [];
    for (let index = 0; index < 60; index += 1) {
      const { pdu, connection, command } = await commands.next();
      numbers.push(pdu.cmdSn);
      expect(command).toMatchObject({ lba: index });
      connection.status(pdu.taskTag);
    }
    expect(numbers).toEqual(numbers.map((_, index) => granted + index));
    for (const write of await Promise.all(writes)) expect(write.ok).toBe(true);
    expect(target.last.trespasses).toBe(0);
  });
});

describe("failures of commands", () => {
  test.each([
    ["BUSY", Status.busy, undefined],
    ["TASK SET FULL", Status.taskSetFull, undefined],
    ["ABORTED COMMAND", Status.checkCondition, { key: SenseKey.abortedCommand, code: 0 }],
    ["a unit attention of no concern", Status.checkCondition, unit(0x3f0e)],
  ])("%s is tried again", async (_, status, sense) => {
    const commands = inbox();
    await open();
    const writing = disk.write(512, Buffer.alloc(512, 9), { fua: true });
    const first = await commands.next();
    first.connection.status(first.pdu.taskTag, status, sense);
    const second = await commands.next();
    expect(second.command).toEqual(first.command);
    expect(second.data.equals(first.data)).toBe(true);
    second.connection.status(second.pdu.taskTag);
    expect(await writing).toMatchObject({ ok: true });
    expect(events).toEqual(["up 1"]);
  });

  test("a write that is not wanted any more is not tried again", async () => {
    const commands = inbox();
    await open();
    let isWanted = true;
    const how = { fua: true, isWanted: () => isWanted };
    const writing = disk.write(512, Buffer.alloc(512, 9), how);
    const first = await commands.next();
    isWanted = false;
    first.connection.status(first.pdu.taskTag, Status.busy);
    expect(await writing).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(await disk.write(512, Buffer.alloc(512, 9), how)).toMatchObject({ ok: false });
    const reading = disk.read(0, 512);
    const second = await commands.next();
    expect(second.command.name).toBe("read");
    second.connection.dataIn(second.pdu.taskTag, Buffer.alloc(512));
    expect(await reading).toMatchObject({ ok: true });
  });

  test.each([
    ["diskError", { key: SenseKey.mediumError, code: Asc.writeError }],
    ["badInput", { key: SenseKey.illegalRequest, code: Asc.lbaOutOfRange }],
  ])("%s is told upwards", async (code, sense) => {
    const commands = inbox();
    await open();
    const writing = disk.write(0, Buffer.alloc(512), { fua: false });
    const { pdu, connection } = await commands.next();
    connection.status(pdu.taskTag, Status.checkCondition, sense);
    expect(await writing).toMatchObject({ ok: false, fault: { code, operation: "write" } });
  });

  test("a command out of time is aborted, and repeated only when the abort is confirmed", async () => {
    const commands = inbox();
    stopTime();
    await open({ timing: { commandTimeoutMs: 40 } });
    const aborts: Request[] = [];
    target.onOther = (pdu) => aborts.push(pdu);
    const writing = disk.write(0, Buffer.alloc(512, 3), { fua: false });
    const first = await commands.next();
    vi.advanceTimersByTime(40);
    await until("the abort", () => aborts.length === 1);
    const [abort] = aborts;
    if (abort?.op !== "taskRequest") throw new Error("no abort");
    expect(abort).toMatchObject({ function: 1, referencedTag: first.pdu.taskTag });
    expect(commands.seen).toHaveLength(1);
    first.connection.send({
      op: "taskResponse",
      response: TaskResponse.complete,
      taskTag: abort.taskTag,
    });
    const second = await commands.next();
    expect(second.data.equals(first.data)).toBe(true);
    second.connection.status(second.pdu.taskTag);
    expect(await writing).toMatchObject({ ok: true });
    expect(target.connections).toHaveLength(1);
  });

  test("an answer that comes before the abort's counts", async () => {
    const commands = inbox();
    stopTime();
    await open({ timing: { commandTimeoutMs: 30 } });
    target.onOther = (pdu, _, connection) => {
      if (pdu.op !== "taskRequest") return;
      connection.status(pdu.referencedTag);
      connection.send({
        op: "taskResponse",
        response: TaskResponse.noSuchTask,
        taskTag: pdu.taskTag,
      });
    };
    const writing = disk.write(0, Buffer.alloc(512), { fua: false });
    await commands.next();
    vi.advanceTimersByTime(30);
    expect(await writing).toMatchObject({ ok: true });
    expect(commands.seen).toHaveLength(1);
  });

  test("an abort without answer ends the session: the new login kills what the old one left", async () => {
    const commands = inbox();
    let aborts = 0;
    target.onOther = () => (aborts += 1);
    stopTime();
    await open({ timing: { commandTimeoutMs: 30, abortTimeoutMs: 30 } });
    const writing = disk.write(0, Buffer.alloc(512), { fua: false });
    const first = await commands.next();
    vi.advanceTimersByTime(30);
    await until("the abort", () => aborts === 1);
    expect(target.connections).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(30);
    await vi.advanceTimersByTimeAsync(2);
    const second = await commands.next();
    expect(second.connection).not.toBe(first.connection);
    expect(second.connection).toMatchObject({ isid: "4000d1ad0001", tsih: 0 });
    second.connection.status(second.pdu.taskTag);
    expect(await writing).toMatchObject({ ok: true });
    expect(events.filter((event) => event.startsWith("up"))).toEqual(["up 1", "up 2"]);
  });
});

describe("bad targets", () => {
  test.each<[string, (received: Received) => void]>([
    ["data for an unknown task", ({ connection }) => connection.dataIn(999, Buffer.alloc(512))],
    [
      "data out of order",
      ({ connection, pdu }) => connection.dataIn(pdu.taskTag, Buffer.alloc(256), 256),
    ],
    [
      "more data than asked for",
      ({ connection, pdu }) => connection.dataIn(pdu.taskTag, Buffer.alloc(1024)),
    ],
    ["an R2T for a read", ({ connection, pdu }) => connection.r2t(pdu.taskTag, 0, 512)],
    ["garbage", ({ connection }) => void connection.socket.write(randomBytes(96).fill(0xff, 4, 8))],
    [
      "a reject",
      ({ connection }) => connection.send({ op: "reject", reason: 4, dataSn: 0 }, Buffer.alloc(48)),
    ],
    [
      "a request to drop the connection",
      ({ connection }) =>
        connection.send({
          ...{ op: "asyncMessage", lun: 0, event: 2, vendorCode: 0 },
          parameters: [0, 0, 0],
        }),
    ],
  ])("%s ends the session, the read is repeated in the next", async (_, misbehave) => {
    const commands = inbox();
    await open();
    const reading = disk.read(0, 512);
    misbehave(await commands.next());
    const second = await commands.next();
    expect(target.connections).toHaveLength(2);
    second.connection.dataIn(second.pdu.taskTag, Buffer.alloc(512, 8));
    const answer = await reading;
    expect(answer.ok && answer.value.equals(Buffer.alloc(512, 8))).toBe(true);
  });

  test("a target that says nothing any more is noticed without any I/O", async () => {
    stopTime();
    await open({ timing: { keepaliveMs: 20, keepaliveTimeoutMs: 30 } });
    // What was heard during the login counts until the first look.
    vi.advanceTimersByTime(40);
    const asked = () => target.connections[0]?.requests.some(({ pdu }) => pdu.op === "nopOut");
    await until("the ping", () => asked() === true);
    await vi.advanceTimersByTimeAsync(30);
    expect(events[1]).toMatch(/silent/);
    await vi.advanceTimersByTimeAsync(2);
    await until("the next session", () => events.includes("up 2"));
  });

  test("pings are answered, both ways", async () => {
    target.onOther = (pdu, _, connection) => {
      if (pdu.op === "nopOut" && pdu.taskTag !== RESERVED_TAG)
        connection.send({
          ...{ op: "nopIn", lun: 0, taskTag: pdu.taskTag },
          transferTag: RESERVED_TAG,
        });
    };
    stopTime();
    await open({ timing: { keepaliveMs: 20, keepaliveTimeoutMs: 30 } });
    target.last.send({ op: "nopIn", lun: 0, taskTag: RESERVED_TAG, transferTag: 4711 });
    const pings = () =>
      target.last.requests.flatMap(({ pdu }) => (pdu.op === "nopOut" ? [pdu] : []));
    const theirs = () => pings().find(({ transferTag }) => transferTag === 4711);
    await until("the answer to the target's ping", () => theirs() !== undefined);
    expect(theirs()?.taskTag).toBe(RESERVED_TAG);
    for (let asked = 1; asked <= 3; asked += 1) {
      // Silence is noticed at the look after the next, and what may be said then takes 30 ms more.
      vi.advanceTimersByTime(50);
      await until("a ping", () => pings().length === 1 + asked);
      // A command and its answer: what was on its way before, the answer to the ping, has arrived.
      await disk.flush();
    }
    expect(target.connections).toHaveLength(1);
  });

  test("refused logins are repeated ever more slowly", async () => {
    target.loginStatus = LoginStatus.serviceUnavailable;
    stopTime();
    const opening = openOther({ reconnectFirstMs: 5, reconnectMaxMs: 1000 }, serial, 200);
    let attempts = 1;
    for (const waitMs of [5, 10, 20, 40, 80]) {
      await until("the refusal", () => refusals() === attempts);
      await vi.advanceTimersByTimeAsync(waitMs - 1);
      await turn();
      expect(target.connections).toHaveLength(attempts);
      await vi.advanceTimersByTimeAsync(1);
      attempts += 1;
      await until("another attempt", () => target.connections.length === attempts);
    }
    await until("the refusal", () => refusals() === attempts);
    await vi.advanceTimersByTimeAsync(45);
    const refused = await opening;
    expect(refused).toMatchObject({ ok: false, fault: { code: "diskLost" } });
    expect(refused.ok ? "" : refused.fault.message).toMatch(/0x0301/);
  });

  test("a target that never answers the login", async () => {
    target.onLogin = () => true;
    stopTime();
    const opening = openOther({ loginTimeoutMs: 40 }, serial, 100);
    await until("the attempt", () => target.connections.length === 1);
    await vi.advanceTimersByTimeAsync(40);
    await vi.advanceTimersByTimeAsync(60);
    const opened = await opening;
    expect(opened.ok ? "" : opened.fault.message).toMatch(/no login in 40 ms/);
  });

  test("another disk under the known number is not taken for ours", async () => {
    stopTime();
    const opening = openOther({}, "SCRIPTED-2", 100);
    // The first session is given up as soon as it is known that the disk is not there.
    await until("the end of the session", () => refusals() === 1);
    await vi.advanceTimersByTimeAsync(100);
    const opened = await opening;
    expect(opened.ok ? "" : opened.fault.message).toMatch(/no unit has the serial/);
  });
});

/** Another disk at the same target, which is waited for `deadlineMs`. */
function openOther(more: Partial<IscsiDiskTiming>, wanted: string, deadlineMs: number) {
  const options = {
    ...{ host: "127.0.0.1", port: target.port, targetName: "iqn.2026-11.test:t" },
    ...{ initiatorName: "iqn.2026-11.test:i", isid: "4000d1ad0002", serial: wanted },
    timing: { ...timing, ...more },
  };
  return IscsiDisk.open(options, deadlineMs);
}

/** Attempts to log in that have come to their end. */
const refusals = () => target.connections.filter(({ socket }) => socket.closed).length;

test("ranges outside the disk are refused before they are sent", async () => {
  const commands = inbox();
  await open();
  for (const [offset, length] of [
    [blocks * 512, 512],
    [100, 512],
    [0, 100],
    [-512, 512],
  ] as const) {
    expect(await disk.read(offset, length)).toMatchObject({
      ok: false,
      fault: { code: "badInput" },
    });
    const write = await disk.write(offset, Buffer.alloc(length), { fua: false });
    expect(write).toMatchObject({ ok: false, fault: { code: "badInput" } });
    expect(await disk.trim(offset, length)).toMatchObject({ ok: false });
  }
  expect(commands.seen).toHaveLength(0);
});
