/** The iSCSI target over TCP: login, transfers, windows, silence. */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, test, vi } from "vitest";
import { RESERVED_TAG, TaskFunction } from "../../firmware-ts/wire/iscsi/pdu.ts";
import { decodeText, encodeText } from "../../firmware-ts/wire/iscsi/text.ts";
import { Asc, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import { TARGET, writeCommand } from "../support/shelf-initiator.ts";
import { twoDiskShelf } from "../support/two-disk-shelf.ts";
import { until } from "../support/until.ts";

const WERO = ReservationType.writeExclusiveRegistrantsOnly;
const block = (fill: number, blocks = 1) => Buffer.alloc(512 * blocks, fill);
const MEBIBYTE = 1024 * 1024;

const world = twoDiskShelf();
const { login, connect } = world;
afterEach(() => void vi.useRealTimers());

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
    expect(world.shelf.status().sessions).toEqual([]);
  });

  test("anything but a login first ends the connection", async () => {
    const initiator = await connect("a");
    initiator.start({ name: "testUnitReady" });
    expect(await initiator.receive()).toBeNull();
    expect(world.shelf.status().endings).toEqual({ "protocol: no login": 1 });
  });

  test("a login of the same name and ISID ends the older session; registrations stay", async () => {
    const first = await login("a");
    await first.reserveOut("registerAndIgnore", { target: 7n });
    const second = await login("a");
    expect(await first.receive()).toBeNull();
    expect(world.shelf.status().endings).toEqual({ reinstated: 1 });
    expect(world.shelf.status().disks[0]?.registrations).toMatchObject([{ key: "0x7" }]);
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
        ["TargetAddress", `127.0.0.1:${world.shelf.port},1`],
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
    expect(world.shelf.status().sessions[0]?.badTransfers).toBe(1);
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
    expect(world.shelf.status().sessions[0]?.ignoredRequests).toBe(2);
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
    expect(world.shelf.status().endings).toEqual({ "framing: headerDigest": 1 });
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
    await world.close();
    // Looks are taken when the test says so: between two of them an answer has all the time that it needs.
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    await world.start({ pingAfterMs: 50, pingTimeoutMs: 50 });
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
    expect(world.shelf.status().endings).toEqual({ silent: 1 });
    expect(world.shelf.status().sessions.map(({ initiator }) => initiator)).toEqual([alive.name]);
  });

  test("a login that does not come to an end is ended", async () => {
    await world.close();
    await world.start({ loginTimeoutMs: 60 });
    const initiator = await connect("a");
    expect(await initiator.receive()).toBeNull();
    expect(world.shelf.status().endings).toEqual({ loginTimeout: 1 });
  });
});
