/** When I/O may go to a disk, and what becomes of it when it may not any more; reservation commands. */
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import { LoginStatus, TaskResponse } from "../../firmware-ts/wire/iscsi/pdu.ts";
import { Asc, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { disk, events, inbox, open, stopTime, target, unit } from "./initiator-lab.ts";

describe("permission", () => {
  test("nothing flows before the first grant, and what is refused never reaches the disk", async () => {
    const commands = inbox();
    await open({ grant: false });
    expect(await disk.write(0, Buffer.alloc(512), { fua: false })).toMatchObject({
      ok: false,
      fault: { code: "refused" },
    });
    expect(disk.grant(2)).toMatchObject({ ok: false });
    expect(commands.seen).toHaveLength(0);
  });

  test("after a loss I/O waits for the grant of the new session, not of the old", async () => {
    const commands = inbox();
    await open({ grant: false });
    disk.grant(1);
    const writing = disk.write(0, Buffer.alloc(512, 4), { fua: false });
    const first = await commands.next();
    first.connection.socket.destroy();
    await expect.poll(() => events).toContain("up 2");
    expect(disk.grant(1)).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(disk.status()).toMatchObject({ permission: "held", up: true, session: 2 });
    expect(commands.seen).toHaveLength(1);
    expect(disk.grant(2)).toMatchObject({ ok: true });
    const second = await commands.next();
    second.connection.status(second.pdu.taskTag);
    expect(await writing).toMatchObject({ ok: true });
  });

  test("revoking ends what waits", async () => {
    const commands = inbox();
    await open({ grant: false });
    disk.grant(1);
    const writing = disk.write(0, Buffer.alloc(512), { fua: false });
    (await commands.next()).connection.socket.destroy();
    await expect.poll(() => events).toContain("up 2");
    disk.revoke();
    expect(await writing).toMatchObject({ ok: false, fault: { code: "refused" } });
  });

  test.each([
    ["RESERVATION CONFLICT", Status.reservationConflict, undefined],
    ["registrations preempted", Status.checkCondition, unit(Asc.registrationsPreempted)],
    ["reservations preempted", Status.checkCondition, unit(Asc.reservationsPreempted)],
  ])(
    "%s fences: told first, all I/O ends, silent commands are not waited for",
    async (_, status, sense) => {
      const commands = inbox();
      target.onOther = (pdu, _data, connection) => {
        if (pdu.op === "taskRequest")
          connection.send({
            op: "taskResponse",
            response: TaskResponse.noSuchTask,
            taskTag: pdu.taskTag,
          });
      };
      stopTime();
      await open({ timing: { fencedSilenceMs: 50 } });
      let answered = 0;
      const write = (lba: number) =>
        disk.write(lba * 512, Buffer.alloc(512), { fua: false }).finally(() => (answered += 1));
      // The first two were aborted by the disk without a word, as PREEMPT AND ABORT does.
      const silent = [0, 1].map(write);
      await commands.next();
      await commands.next();
      const writing = write(2);
      const third = await commands.next();
      third.connection.status(third.pdu.taskTag, status, sense);
      await until("fenced", () => disk.status().permission === "fenced");
      expect(answered).toBe(0);
      vi.advanceTimersByTime(50);
      for (const answer of await Promise.all([writing, ...silent]))
        expect(answer).toMatchObject({ ok: false, fault: { code: "fenced" } });
      expect(events.filter((event) => event.startsWith("fenced"))).toHaveLength(1);
      expect(await disk.read(0, 512)).toMatchObject({ ok: false, fault: { code: "fenced" } });
      expect(commands.seen).toHaveLength(3);
    },
  );

  test("what a fence refuses is not told before somebody has given up the disk", async () => {
    const commands = inbox();
    stopTime();
    await open({ timing: { fencedSilenceMs: 50_000 } });
    let answered = 0;
    const writes = [0, 1].map((lba) =>
      disk.write(lba * 512, Buffer.alloc(512), { fua: false }).finally(() => (answered += 1)),
    );
    const first = await commands.next();
    const second = await commands.next();
    first.connection.status(first.pdu.taskTag, Status.reservationConflict);
    second.connection.status(second.pdu.taskTag, Status.reservationConflict);
    await until("fenced", () => disk.status().permission === "fenced");
    const later = disk.read(0, 512).finally(() => (answered += 1));
    await vi.advanceTimersByTimeAsync(49_000);
    for (let turns = 0; turns < 5; turns += 1) await turn();
    expect(answered).toBe(0);
    disk.revoke();
    for (const answer of await Promise.all([...writes, later]))
      expect(answer).toMatchObject({ ok: false, fault: { code: "fenced" } });
    expect(commands.seen).toHaveLength(2);
  });

  test("what a fence has refused is never sent again, though the disk be granted anew", async () => {
    const commands = inbox();
    await open({ timing: { fencedSilenceMs: 60_000 } });
    const writing = disk.write(0, Buffer.alloc(512), { fua: false });
    const first = await commands.next();
    first.connection.status(first.pdu.taskTag, Status.reservationConflict);
    await until("fenced", () => disk.status().permission === "fenced");
    expect(disk.grant(1)).toMatchObject({ ok: true });
    expect(await writing).toMatchObject({ ok: false, fault: { code: "fenced" } });
    expect(commands.seen).toHaveLength(1);
  });

  test("a fence that nobody heeds is told in the end", async () => {
    const commands = inbox();
    stopTime();
    await open({ timing: { fencedSilenceMs: 40 } });
    let told = false;
    const writing = disk.write(0, Buffer.alloc(512), { fua: false }).finally(() => (told = true));
    const first = await commands.next();
    first.connection.status(first.pdu.taskTag, Status.reservationConflict);
    await until("fenced", () => disk.status().permission === "fenced");
    await vi.advanceTimersByTimeAsync(39);
    for (let turns = 0; turns < 5; turns += 1) await turn();
    expect(told).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(await writing).toMatchObject({ ok: false, fault: { code: "fenced" } });
    // What is asked after that is told at once: no time passes.
    expect(await disk.read(0, 512)).toMatchObject({ ok: false, fault: { code: "fenced" } });
  });

  test.each([
    ["power on", Asc.powerOnOrReset],
    ["logical unit reset", Asc.logicalUnitReset],
    ["reservations released", Asc.reservationsReleased],
    ["mode parameters changed", Asc.modeParametersChanged],
  ])("%s within a session holds the I/O until it was verified anew", async (_, code) => {
    const commands = inbox();
    await open({ grant: false });
    disk.grant(1);
    const writing = disk.write(0, Buffer.alloc(512), { fua: false });
    const first = await commands.next();
    first.connection.status(first.pdu.taskTag, Status.checkCondition, unit(code));
    await expect.poll(() => events).toContain("up 2");
    expect(commands.seen).toHaveLength(1);
    disk.grant(2);
    const second = await commands.next();
    second.connection.status(second.pdu.taskTag);
    expect(await writing).toMatchObject({ ok: true });
  });
});

describe("reservation commands", () => {
  test("attentions are retried, conflicts are answers, a lost path is none", async () => {
    const commands = inbox();
    await open({ grant: false });
    const key = "00000000000000a1";
    const asked = disk.reserve({ op: "register", key }, limitsMs.condition);
    const first = await commands.next();
    first.connection.status(first.pdu.taskTag, Status.checkCondition, unit(Asc.powerOnOrReset));
    const second = await commands.next();
    expect(second.data.toString("hex", 0, 24)).toBe(`0000000000000000${key}0000000001000000`);
    second.connection.status(second.pdu.taskTag);
    expect(await asked).toEqual({ status: "good" });

    const type = "writeExclusiveRegistrantsOnly" as const;
    const preempt = { op: "preempt", key, victim: "00000000000000b2", type } as const;
    const refused = disk.reserve(preempt, limitsMs.condition);
    const third = await commands.next();
    expect(third.command).toMatchObject({ action: 5, type: 5, scope: 0 });
    expect(third.data.toString("hex", 0, 16)).toBe(`${key}00000000000000b2`);
    third.connection.status(third.pdu.taskTag, Status.reservationConflict);
    expect(await refused).toEqual({ status: "conflict" });
    // A conflict of a reservation command is its answer; it says nothing about the I/O.
    expect(events.filter((event) => event.startsWith("fenced"))).toEqual([]);

    const lost = disk.reserve({ op: "readKeys" }, limitsMs.condition);
    (await commands.next()).connection.socket.destroy();
    expect(await lost).toMatchObject({ status: "failed" });
    target.loginStatus = LoginStatus.serviceUnavailable;
    target.last.socket.destroy();
    await expect.poll(() => disk.status().up).toBe(false);
    expect(await disk.reserve({ op: "readKeys" }, 50)).toMatchObject({ status: "failed" });
  });
});
