/** The iSCSI target over TCP: login, transfers, windows, faults, silence, and what comes over the wire broken. */
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { RESERVED_TAG, TaskFunction } from "../../firmware-ts/wire/iscsi/pdu.ts";
import { decodeText, encodeText } from "../../firmware-ts/wire/iscsi/text.ts";
import { Asc, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import { type Shelf, startShelf } from "../../hal/shelf/target/shelf.ts";
import { seeded } from "../../hal/sim/timeline.ts";
import { Initiator, TARGET, writeCommand } from "../support/shelf-initiator.ts";
import { until } from "../support/until.ts";

const WERO = ReservationType.writeExclusiveRegistrantsOnly;
const block = (fill: number, blocks = 1) => Buffer.alloc(512 * blocks, fill);
const MEBIBYTE = 1024 * 1024;

let shelf: Shelf;
let open: Initiator[] = [];

const start = (more: object = {}) =>
  startShelf({
    listen: { port: 0 },
    disks: [
      { serial: "D0", lun: 0, sizeBytes: 4 * MEBIBYTE },
      { serial: "D1", lun: 1, sizeBytes: 4 * MEBIBYTE },
    ],
    ...more,
  });

const login = async (name: string) => {
  const initiator = await Initiator.login(shelf.port, name, [0, 1]);
  open.push(initiator);
  return initiator;
};

const connect = async (name: string, isid?: string) => {
  const initiator = await Initiator.connect(shelf.port, name, isid);
  open.push(initiator);
  return initiator;
};

beforeEach(async () => {
  shelf = await start();
});

afterEach(async () => {
  vi.useRealTimers();
  for (const initiator of open) initiator.end();
  open = [];
  await shelf.close();
});

describe("login (RFC 7143 clause 6)", () => {
  test("names must be there and right", async () => {
    const cases: [readonly [string, string][], number][] = [
      [[["InitiatorName", "iqn.2026-11.test:a"]], 0x0207],
      [[["TargetName", TARGET]], 0x0207],
      [
        [
          ["InitiatorName", "iqn.2026-11.test:a"],
          ["TargetName", "iqn.2026-11.dyad:other"],
        ],
        0x0203,
      ],
      [
        [
          ["InitiatorName", "nonsense"],
          ["TargetName", TARGET],
        ],
        0x0200,
      ],
      [
        [
          ["InitiatorName", "iqn.2026-11.test:a"],
          ["TargetName", TARGET],
          ["AuthMethod", "CHAP"],
        ],
        0x0201,
      ],
      [
        [
          ["InitiatorName", "iqn.2026-11.test:a"],
          ["TargetName", TARGET],
          ["MaxBurstLength", "1"],
        ],
        0x0200,
      ],
    ];
    for (const [pairs, status] of cases) {
      const initiator = await connect("a");
      expect(await initiator.logIn(pairs)).toMatchObject({ op: "loginResponse", status });
      expect(await initiator.receive()).toBeNull();
    }
    expect(shelf.status().sessions).toEqual([]);
  });

  test("anything but a login first ends the connection", async () => {
    const initiator = await connect("a");
    initiator.start({ name: "testUnitReady" });
    expect(await initiator.receive()).toBeNull();
    expect(shelf.status().endings).toEqual({ "protocol: no login": 1 });
  });

  test("a login of the same name and ISID ends the older session; registrations stay", async () => {
    const first = await login("a");
    await first.reserveOut("registerAndIgnore", { target: 7n });
    const second = await login("a");
    expect(await first.receive()).toBeNull();
    expect(shelf.status().endings).toEqual({ reinstated: 1 });
    expect(shelf.status().disks[0]?.registrations).toMatchObject([{ key: "0x7" }]);
    expect((await second.reserveOut("reserve", { key: 7n }, { type: WERO }))?.status).toBe(0);
  });

  test("a second ISID is another nexus", async () => {
    const first = await login("a");
    await first.reserveOut("registerAndIgnore", { target: 7n });
    const second = await connect("a", "400001370001");
    await second.logIn();
    await second.command({ name: "testUnitReady" });
    expect((await second.reserveOut("reserve", { key: 7n }, { type: WERO }))?.status).toBe(
      Status.reservationConflict,
    );
  });

  test("discovery lists the target, and takes no commands", async () => {
    const initiator = await connect("a");
    const pairs = [
      ["InitiatorName", initiator.name],
      ["SessionType", "Discovery"],
    ] as const;
    expect(await initiator.logIn(pairs)).toMatchObject({ status: 0 });
    initiator.send(
      {
        op: "textRequest",
        immediate: false,
        final: true,
        more: false,
        lun: 0,
        taskTag: 5,
        transferTag: RESERVED_TAG,
        cmdSn: initiator.cmdSn++,
        expStatSn: 0,
      },
      encodeText([["SendTargets", "All"]]),
    );
    const answer = await initiator.receive();
    expect(decodeText(answer?.data ?? Buffer.alloc(0))).toEqual({
      ok: true,
      value: [
        ["TargetName", TARGET],
        ["TargetAddress", `127.0.0.1:${shelf.port},1`],
      ],
    });
    initiator.start({ name: "testUnitReady" });
    expect(await initiator.receive()).toBeNull();
  });
});

describe("transfers", () => {
  test("a write larger than immediate data and burst comes by R2T, and reads back", async () => {
    const initiator = await login("a");
    const data = randomBytes(MEBIBYTE);
    const written = await initiator.command(writeCommand(8, data), { data, immediateBytes: 5120 });
    expect(written?.status).toBe(Status.good);
    expect((await initiator.read(8, 2048))?.data.equals(data)).toBe(true);
  });

  test("commands in flight are answered each on its own", async () => {
    const initiator = await login("a");
    const tags = Array.from({ length: 100 }, (_, index) =>
      initiator.start(writeCommand(index, block(index)), { data: block(index) }),
    );
    const ends = await Promise.all(tags.map((tag) => initiator.finish(tag)));
    expect(ends.every((end) => end?.status === Status.good)).toBe(true);
    expect((await initiator.read(99))?.data).toEqual(block(99));
  });

  test("data out of sequence fails its command and nothing else", async () => {
    const initiator = await login("a");
    const data = block(3, 4);
    const tag = initiator.start(writeCommand(0, data), { data, immediateBytes: 512 });
    const want = await initiator.receive();
    if (want?.op !== "readyToTransfer") throw new Error("no R2T");
    initiator.sendData(tag, want.transferTag, want.offset + 512, data, 512);
    expect((await initiator.finish(tag))?.sense?.code).toBe(Asc.dataPhaseError);
    expect((await initiator.read(0))?.data).toEqual(block(0));
    expect(shelf.status().sessions[0]?.badTransfers).toBe(1);
  });

  test("requests outside the window are ignored", async () => {
    const initiator = await login("a");
    const { cmdSn } = initiator;
    for (const wrong of [cmdSn - 1, cmdSn + 1000]) {
      initiator.cmdSn = wrong;
      initiator.start({ name: "testUnitReady" });
    }
    initiator.cmdSn = cmdSn;
    expect((await initiator.command({ name: "testUnitReady" }))?.status).toBe(Status.good);
    expect(initiator.unread).toEqual([]);
    expect(shelf.status().sessions[0]?.ignoredRequests).toBe(2);
  });

  test("requests that come early wait for those before them", async () => {
    const initiator = await login("a");
    const first = initiator.cmdSn;
    initiator.cmdSn = first + 1;
    const late = initiator.start({ name: "readCapacity10" });
    initiator.cmdSn = first;
    const early = initiator.start({ name: "testUnitReady" });
    const order = [await initiator.receive(), await initiator.receive()];
    expect(order.map((pdu) => pdu !== null && "taskTag" in pdu && pdu.taskTag)).toEqual([
      early,
      late,
    ]);
  });

  test("header and data digests", async () => {
    const initiator = await connect("a");
    initiator.offer = { ...initiator.offer, digests: "require" };
    await initiator.logIn();
    const pdu = {
      op: "nopOut",
      immediate: true,
      lun: 0,
      taskTag: 9,
      transferTag: RESERVED_TAG,
      cmdSn: 1,
      expStatSn: 0,
    } as const;
    initiator.useDigests({ header: true, data: true });
    initiator.send(pdu, Buffer.from("abc"), { header: true, data: true });
    expect((await initiator.receive())?.data.toString()).toBe("abc");
    initiator.send(pdu, Buffer.from("abc"), { header: false, data: true });
    expect(await initiator.receive()).toBeNull();
    expect(shelf.status().endings).toEqual({ "framing: headerDigest": 1 });
  });

  test("unknown units answer INQUIRY and REPORT LUNS, and nothing else", async () => {
    const initiator = await login("a");
    const lun = 77;
    const inquiry = await initiator.command(
      { name: "inquiry", page: null, allocationBytes: 96 },
      { lun },
    );
    expect(inquiry?.data[0]).toBe(0x7f);
    expect((await initiator.command({ name: "testUnitReady" }, { lun }))?.sense?.code).toBe(
      Asc.logicalUnitNotSupported,
    );
  });

  test("task management: ABORT TASK, LOGICAL UNIT RESET and their answers", async () => {
    const initiator = await login("a");
    const other = await login("b");
    const data = block(3, 4);
    const tag = initiator.start(writeCommand(0, data), { data, immediateBytes: 0 });
    await initiator.receive((pdu) => pdu.op === "readyToTransfer");
    const victim = other.start(writeCommand(0, data), { data, immediateBytes: 0 });
    await other.receive((pdu) => pdu.op === "readyToTransfer");
    const manage = async (what: number, referencedTag: number, lun = 0) => {
      initiator.send({
        op: "taskRequest",
        immediate: true,
        function: what,
        lun,
        taskTag: 5000,
        referencedTag,
        cmdSn: initiator.cmdSn,
        expStatSn: 0,
        refCmdSn: 0,
      });
      const answer = await initiator.receive((pdu) => pdu.op === "taskResponse");
      return answer?.op === "taskResponse" ? answer.response : null;
    };
    expect(await manage(TaskFunction.abortTask, tag)).toBe(0);
    expect(await manage(TaskFunction.abortTask, tag)).toBe(1);
    expect(await manage(TaskFunction.logicalUnitReset, RESERVED_TAG)).toBe(0);
    expect((await other.finish(victim))?.status).toBe(Status.taskAborted);
    expect(await manage(TaskFunction.logicalUnitReset, RESERVED_TAG, 9)).toBe(2);
    expect(await manage(TaskFunction.clearAca, RESERVED_TAG)).toBe(5);
    expect((await other.command({ name: "testUnitReady" }))?.sense?.code).toBe(
      Asc.logicalUnitReset,
    );
  });
});

describe("silence", () => {
  test("an initiator that does not answer a ping is given up; one that does stays", async () => {
    await shelf.close();
    // Looks are taken when the test says so: between two of them an answer has all the time that it needs.
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    shelf = await start({ pingAfterMs: 50, pingTimeoutMs: 50 });
    const look = async () => {
      const fromMs = performance.now();
      await until("more than both limits", () => performance.now() > fromMs + 51);
      vi.advanceTimersToNextTimer();
    };
    const frozen = await login("frozen");
    const alive = await login("alive");
    for (let pings = 0; pings < 3; pings += 1) {
      await look();
      const ping = await alive.receive((pdu) => pdu.op === "nopIn");
      if (ping?.op !== "nopIn") throw new Error("given up");
      alive.send({
        op: "nopOut",
        immediate: true,
        lun: 0,
        taskTag: RESERVED_TAG,
        transferTag: ping.transferTag,
        cmdSn: alive.cmdSn,
        expStatSn: 0,
      });
      // Its echo says that the answer has arrived.
      await alive.ping();
    }
    await until("the silent one sees it", () => frozen.closed);
    expect(shelf.status().endings).toEqual({ silent: 1 });
    expect(shelf.status().sessions.map(({ initiator }) => initiator)).toEqual([alive.name]);
  });

  test("a login that does not come to an end is ended", async () => {
    await shelf.close();
    shelf = await start({ loginTimeoutMs: 60 });
    const initiator = await connect("a");
    expect(await initiator.receive()).toBeNull();
    expect(shelf.status().endings).toEqual({ loginTimeout: 1 });
  });
});

describe("faults", () => {
  const set = (request: Parameters<Shelf["setFault"]>[0]) => shelf.setFault(request);

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
    expect(shelf.clearFault(id)).toEqual([id]);
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
    shelf.clearFault(id);
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
    shelf.clearFault(id);
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
    shelf.clearFault(id);
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
    shelf.clearFault(id);
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
    await until("the stranger's login is in", () => shelf.connectionCount() === 3);
    expect([a.unread.length, a.closed, second.closed]).toEqual([0, false, false]);
    shelf.clearFault(id);
    expect((await a.finish(tag))?.sense?.code).toBe(Asc.registrationsPreempted);
    expect((await a.write(0, block(9)))?.status).toBe(Status.reservationConflict);
    expect(await stuck).toBeNull();
    expect((await b.read(0))?.data).toEqual(block(0));
  });

  test("a lost disk is not there, a hanging one does not answer, its neighbours do", async () => {
    const a = await login("a");
    const gone = set({ disk: "D0", action: { kind: "diskLoss", mode: "gone" } });
    expect((await a.read(0))?.sense?.code).toBe(Asc.logicalUnitNotSupported);
    shelf.clearFault(gone);
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
    await until("all of them are gone", () => shelf.connectionCount() === 1);
    expect(shelf.status().sessions.length).toBe(1);
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
    expect(shelf.status().endings).toEqual({ "framing: dataTooLong": 1 });
  });
});
