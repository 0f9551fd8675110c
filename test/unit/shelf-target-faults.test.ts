/** The iSCSI target over TCP: faults that are set on it, and what comes over the wire broken. */
import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { RESERVED_TAG, TaskFunction } from "../../firmware-ts/wire/iscsi/pdu.ts";
import { Asc, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import type { Shelf } from "../../hal/shelf/target/shelf.ts";
import { seeded } from "../../hal/sim/timeline.ts";
import { writeCommand } from "../support/shelf-initiator.ts";
import { twoDiskShelf } from "../support/two-disk-shelf.ts";
import { until } from "../support/until.ts";

const WERO = ReservationType.writeExclusiveRegistrantsOnly;
const block = (fill: number) => Buffer.alloc(512, fill);
const world = twoDiskShelf();
const { login, connect } = world;

describe("faults", () => {
  const set = (request: Parameters<Shelf["setFault"]>[0]) => world.shelf.setFault(request);

  test("an error befalls only its disk, initiator and kind of command", async () => {
    const a = await login("a");
    const b = await login("b");
    const id = set({
      disk: "D0",
      initiator: a.name,
      operations: "read",
      action: { kind: "error" },
    });
    expect((await a.read(0))?.sense).toMatchObject({ key: 3, code: 0x1100 });
    expect((await a.read(0, 1, 1))?.status).toBe(Status.good);
    expect((await a.write(0, block(1)))?.status).toBe(Status.good);
    expect((await b.read(0))?.status).toBe(Status.good);
    expect(world.shelf.clearFault(id)).toEqual([id]);
    expect((await a.read(0))?.status).toBe(Status.good);
  });

  test("a delayed write never lands after a preempt that completed meanwhile", async () => {
    const a = await login("a");
    const b = await login("b");
    await a.reserveOut("registerAndIgnore", { target: 10n });
    await b.reserveOut("registerAndIgnore", { target: 11n });
    await a.reserveOut("reserve", { key: 10n }, { type: WERO });
    const id = set({
      initiator: a.name,
      operations: "write",
      action: { kind: "delay", delayMs: 60_000 },
    });
    const tag = a.start(writeCommand(0, block(9)), { data: block(9) });
    await a.ping();
    const fence = await b.reserveOut("preemptAndAbort", { key: 11n, target: 10n }, { type: WERO });
    expect(fence?.status).toBe(Status.good);
    expect((await a.finish(tag))?.status).toBe(Status.taskAborted);
    world.shelf.clearFault(id);
    expect((await b.read(0))?.data).toEqual(block(0));
    expect((await a.write(0, block(9)))?.sense?.code).toBe(Asc.registrationsPreempted);
    expect((await a.write(0, block(9)))?.status).toBe(Status.reservationConflict);
    expect((await b.read(0))?.data).toEqual(block(0));
  });

  test("lifting a delay lets what it held go on at once", async () => {
    const a = await login("a");
    const id = set({ action: { kind: "delay", delayMs: 60_000 }, operations: "write" });
    const tag = a.start(writeCommand(0, block(9)), { data: block(9) });
    await a.ping();
    expect(a.unread).toEqual([]);
    world.shelf.clearFault(id);
    expect((await a.finish(tag))?.status).toBe(Status.good);
  });

  test("unsolicited data that comes before a delayed command asks is kept for it", async () => {
    const a = await connect("a");
    a.offer = { ...a.offer, initialR2t: false };
    await a.logIn();
    await a.command({ name: "testUnitReady" });
    const id = set({ action: { kind: "delay", delayMs: 60_000 }, operations: "write" });
    const data = randomBytes(4096);
    const tag = a.start(writeCommand(0, data), { data, immediateBytes: 1024, final: false });
    a.sendData(tag, RESERVED_TAG, 1024, data, 3072);
    await a.ping();
    world.shelf.clearFault(id);
    expect((await a.finish(tag))?.status).toBe(Status.good);
    expect((await a.read(0, 8))?.data).toEqual(data);
  });

  test("a cut path resets the connection and refuses the login until it is lifted", async () => {
    const a = await login("a");
    const b = await login("b");
    const id = set({ initiator: a.name, action: { kind: "pathLoss", mode: "cut" } });
    expect(await a.receive()).toBeNull();
    const again = await connect("a");
    expect(await again.logIn()).toBeNull();
    expect((await b.read(0))?.status).toBe(Status.good);
    world.shelf.clearFault(id);
    expect((await (await login("a")).read(0))?.status).toBe(Status.good);
  });

  test("a blackhole swallows both directions; what was under way arrives late, and hits the fence", async () => {
    const a = await login("a");
    const b = await login("b");
    await a.reserveOut("registerAndIgnore", { target: 10n });
    await b.reserveOut("registerAndIgnore", { target: 11n });
    await a.reserveOut("reserve", { key: 10n }, { type: WERO });
    const id = set({ initiator: a.name, action: { kind: "pathLoss", mode: "blackhole" } });
    const tag = a.start(writeCommand(0, block(9)), { data: block(9) });
    const second = await connect("a", "400001370009");
    const stuck = second.logIn();
    await b.reserveOut("preempt", { key: 11n, target: 10n }, { type: WERO });
    await until("the stranger's login is in", () => world.shelf.connectionCount() === 3);
    expect([a.unread.length, a.closed, second.closed]).toEqual([0, false, false]);
    world.shelf.clearFault(id);
    expect((await a.finish(tag))?.sense?.code).toBe(Asc.registrationsPreempted);
    expect((await a.write(0, block(9)))?.status).toBe(Status.reservationConflict);
    expect(await stuck).toBeNull();
    expect((await b.read(0))?.data).toEqual(block(0));
  });

  test("a lost disk is not there, a hanging one does not answer, its neighbours do", async () => {
    const a = await login("a");
    const gone = set({ disk: "D0", action: { kind: "diskLoss", mode: "gone" } });
    expect((await a.read(0))?.sense?.code).toBe(Asc.logicalUnitNotSupported);
    world.shelf.clearFault(gone);
    expect((await a.read(0))?.sense?.code).toBe(Asc.logicalUnitReset);
    set({ disk: "D0", action: { kind: "diskLoss", mode: "hang" } });
    const tag = a.start({ name: "testUnitReady" });
    expect((await a.read(0, 1, 1))?.status).toBe(Status.good);
    expect(a.unread).toEqual([]);
    a.send({
      op: "taskRequest",
      immediate: true,
      function: TaskFunction.abortTask,
      lun: 0,
      taskTag: 6000,
      referencedTag: tag,
      cmdSn: a.cmdSn,
      expStatSn: 0,
      refCmdSn: 0,
    });
    expect(await a.receive((pdu) => pdu.op === "taskResponse")).toMatchObject({ response: 0 });
  });

  test("wrong requests are refused with a reason", () => {
    expect(() => set({ operations: "read", action: { kind: "pathLoss", mode: "cut" } })).toThrow(
      /a lost path loses all operations/,
    );
    expect(() => set({ isid: "xyz", action: { kind: "error" } })).toThrow(/twelve hexadecimal/);
  });
});

describe("broken input", () => {
  /** Bytes of no meaning, the same in every run. */
  const draw = seeded(7143);
  const junk = (bytes: number) => Buffer.from(Array.from({ length: bytes }, () => draw() * 256));

  test("random bytes, before and after login, end connections and nothing else", async () => {
    const witness = await login("witness");
    for (let round = 0; round < 60; round++) {
      const initiator = round % 2 === 0 ? await connect("fuzz") : await login("fuzz");
      const header = junk(48);
      header.fill(0, 4, 6);
      // Half of them have an operation code that an initiator may send.
      if (round % 4 < 2) header[0] = (header[0] ?? 0) & 0x47;
      initiator.sendRaw(Buffer.concat([header, junk(200)]));
      initiator.sendRaw(junk(4096));
      initiator.end();
    }
    expect((await witness.write(0, block(1)))?.status).toBe(Status.good);
    await until("all of them are gone", () => world.shelf.connectionCount() === 1);
    expect(world.shelf.status().sessions.length).toBe(1);
  });

  test("every command with every first byte ends in a status", async () => {
    const a = await login("a");
    for (let opcode = 0; opcode < 256; opcode++) {
      const cdb = junk(16);
      cdb[0] = opcode;
      const tag = a.startRaw(cdb);
      expect(await a.finish(tag)).not.toBeNull();
    }
  });

  test("a write of more than any field can count is refused with the largest residual", async () => {
    const a = await login("a");
    const cdb = Buffer.alloc(16);
    cdb[0] = 0x8a;
    cdb.fill(0xff, 10, 14);
    const tag = a.startRaw(cdb);
    const response = await a.receive((pdu) => pdu.op === "scsiResponse" && pdu.taskTag === tag);
    expect(response).toMatchObject({ residual: { kind: "overflow", bytes: 0xffff_ffff } });
  });

  test("a segment that is too long ends the connection", async () => {
    const a = await login("a");
    const header = Buffer.alloc(48);
    header[0] = 0x40;
    header.writeUIntBE(0xff_ffff, 5, 3);
    a.sendRaw(header);
    expect(await a.receive()).toBeNull();
    expect(world.shelf.status().endings).toEqual({ "framing: dataTooLong": 1 });
  });
});
