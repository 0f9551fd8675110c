/** PERSISTENT RESERVE IN and OUT, clause by clause (SPC-4 5.12, 6.15, 6.16), and the table of conflicts. */
import { beforeEach, describe, expect, test } from "vitest";
import { Asc, SenseKey, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import type { Command } from "../../firmware-ts/wire/scsi/command.ts";
import {
  decodeCapabilities,
  decodeReadKeys,
  decodeReadReservation,
  ReservationType,
  ReserveIn,
} from "../../firmware-ts/wire/scsi/reservation.ts";
import type { Disk } from "../../hal/shelf/disk/disk.ts";
import { MemoryMedium } from "../../hal/shelf/disk/medium.ts";
import { REGISTRATIONS_MAX } from "../../hal/shelf/disk/reservations.ts";
import { BLOCK, BLOCKS, block, Client, newDisk, type Sent } from "../support/shelf-disk.ts";

const T = ReservationType;
const A = 0xaaan;
const B = 0xbbbn;
const C = 0xcccn;

let disk: Disk;
let a: Client;
let b: Client;
let c: Client;

beforeEach(() => {
  disk = newDisk(new MemoryMedium(BLOCK * BLOCKS));
  a = new Client(disk, "a");
  b = new Client(disk, "b");
  c = new Client(disk, "c");
});

const good = (sent: Sent) => expect(sent.result).toMatchObject({ status: Status.good });
const conflict = (sent: Sent) =>
  expect(sent.result).toMatchObject({ status: Status.reservationConflict });
const illegal = (sent: Sent, code: number) =>
  expect(sent.result).toMatchObject({
    status: Status.checkCondition,
    sense: { key: SenseKey.illegalRequest, code },
  });

const readIn = (client: Client, action: number): Buffer =>
  client.send({ name: "persistentReserveIn", action, allocationBytes: 4096 }).result?.data ??
  Buffer.alloc(0);

const keys = () => {
  const value = decodeReadKeys(readIn(c, ReserveIn.readKeys));
  if (!value.ok) throw new Error(value.problem);
  return value.value;
};

const reservation = () => {
  const value = decodeReadReservation(readIn(c, ReserveIn.readReservation));
  if (!value.ok) throw new Error(value.problem);
  return value.value.reservation;
};

const registerAll = () => {
  good(a.register(A));
  good(b.register(B));
  good(c.register(C));
};

describe("REGISTER (SPC-4 5.12.7)", () => {
  test("an unregistered nexus registers with key zero and no other", () => {
    conflict(a.reserveOut("register", { key: 1n, target: A }));
    expect(keys().generation).toBe(0);
    good(a.reserveOut("register", { key: 0n, target: A }));
    expect(keys()).toMatchObject({ generation: 1, keys: [A] });
  });

  test("a registered nexus changes or drops its key only under that key", () => {
    good(a.register(A));
    conflict(a.reserveOut("register", { key: B, target: B }));
    good(a.reserveOut("register", { key: A, target: B }));
    expect(keys().keys).toEqual([B]);
    good(a.reserveOut("register", { key: B, target: 0n }));
    expect(keys()).toMatchObject({ generation: 3, keys: [] });
  });

  test("REGISTER AND IGNORE EXISTING KEY ignores it", () => {
    good(a.reserveOut("registerAndIgnore", { key: 99n, target: A }));
    good(a.reserveOut("registerAndIgnore", { key: 99n, target: B }));
    expect(keys().keys).toEqual([B]);
    good(a.reserveOut("registerAndIgnore", { target: 0n }));
    good(a.reserveOut("registerAndIgnore", { target: 0n }));
    expect(keys().keys).toEqual([]);
  });

  test("ALL_TG_PT registers the initiator port at every target port", () => {
    good(a.reserveOut("registerAndIgnore", { target: A }, { allTargetPorts: true }));
    expect(a.fullStatus().entries).toMatchObject([
      { key: A, allTargetPorts: true, targetPort: 1, initiator: { name: "iqn.2026-11.test:a" } },
      { key: A, allTargetPorts: true, targetPort: 2, initiator: { name: "iqn.2026-11.test:a" } },
    ]);
    const other = new Client(disk, "a", 2);
    good(other.reserveOut("reserve", { key: A }, { type: T.exclusiveAccess }));
    conflict(a.write(0, block(1)));
    good(other.write(0, block(1)));
  });

  test("SPEC_I_PT, REGISTER AND MOVE and reserved actions are refused", () => {
    const port = { specifyInitiatorPorts: true };
    illegal(a.reserveOut("register", { target: A }, port), Asc.invalidFieldInParameterList);
    illegal(a.reserveOut("registerAndMove", { target: A }), Asc.invalidFieldInCdb);
    const command = { name: "persistentReserveOut", action: 9, scope: 0, type: 0 } as const;
    illegal(a.send({ ...command, parameterBytes: 24 }, Buffer.alloc(24)), Asc.invalidFieldInCdb);
    illegal(
      a.send({ ...command, action: 0, parameterBytes: 23 }, Buffer.alloc(23)),
      Asc.parameterListLength,
    );
    illegal(
      a.send({ ...command, action: 0, parameterBytes: 24 }, Buffer.alloc(20)),
      Asc.informationUnitInvalid,
    );
  });

  test("there is a limit to registrations", () => {
    for (let index = 0; index < REGISTRATIONS_MAX; index++) {
      good(new Client(disk, `x${index}`).register(BigInt(index + 1)));
    }
    illegal(a.register(A), Asc.insufficientRegistrationResources);
    expect(keys().keys.length).toBe(REGISTRATIONS_MAX);
  });
});

describe("RESERVE and RELEASE (SPC-4 5.12.9, 5.12.11.2.2)", () => {
  test("needs a registration and its key", () => {
    conflict(a.reserve(A, T.writeExclusive));
    good(a.register(A));
    conflict(a.reserve(B, T.writeExclusive));
    good(a.reserve(A, T.writeExclusive));
    expect(reservation()).toEqual({ key: A, scope: 0, type: T.writeExclusive });
  });

  test("is good again for the holder with the same type, a conflict with another and for others", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusive));
    good(a.reserve(A, T.writeExclusive));
    conflict(a.reserve(A, T.exclusiveAccess));
    conflict(b.reserve(B, T.writeExclusive));
    expect(keys().generation).toBe(3);
  });

  test("wrong scope or type is an invalid field", () => {
    good(a.register(A));
    for (const type of [0, 2, 4, 9, 15]) {
      illegal(a.reserveOut("reserve", { key: A }, { type }), Asc.invalidFieldInCdb);
    }
    illegal(a.reserveOut("reserve", { key: A }, { type: 1, scope: 2 }), Asc.invalidFieldInCdb);
  });

  test("RELEASE by a registrant that does not hold is good and changes nothing", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusive));
    good(b.reserveOut("release", { key: B }, { type: T.writeExclusive }));
    conflict(b.reserveOut("release", { key: A }, { type: T.writeExclusive }));
    expect(reservation()?.key).toBe(A);
  });

  test("RELEASE with another type is an invalid release", () => {
    good(a.register(A));
    good(a.reserve(A, T.writeExclusive));
    illegal(a.reserveOut("release", { key: A }, { type: T.exclusiveAccess }), Asc.invalidRelease);
  });

  test.each([
    [T.writeExclusive, []],
    [T.exclusiveAccess, []],
    [T.writeExclusiveRegistrantsOnly, [Asc.reservationsReleased]],
    [T.exclusiveAccessRegistrantsOnly, [Asc.reservationsReleased]],
    [T.writeExclusiveAllRegistrants, [Asc.reservationsReleased]],
    [T.exclusiveAccessAllRegistrants, [Asc.reservationsReleased]],
  ])("RELEASE of type %i tells the other registrants %j", (type, codes) => {
    good(a.register(A));
    good(b.register(B));
    good(a.reserve(A, type));
    good(a.reserveOut("release", { key: A }, { type }));
    expect(reservation()).toBeNull();
    expect(a.attentions()).toEqual([]);
    expect(b.attentions()).toEqual(codes);
    expect(c.attentions()).toEqual([]);
  });

  test.each([
    [T.writeExclusive, null, []],
    [T.exclusiveAccessRegistrantsOnly, null, [Asc.reservationsReleased]],
    [T.writeExclusiveAllRegistrants, 0n, []],
  ])("a holder of type %i that unregisters leaves %s and tells %j", (type, left, codes) => {
    good(a.register(A));
    good(b.register(B));
    good(a.reserve(A, type));
    good(a.register(0n));
    expect(reservation()?.key ?? null).toBe(left);
    expect(b.attentions()).toEqual(codes);
    good(b.register(0n));
    expect(reservation()).toBeNull();
  });
});

describe("CLEAR (SPC-4 5.12.11.2.7)", () => {
  test("removes everything and tells the others that reservations were preempted", () => {
    registerAll();
    good(a.reserve(A, T.exclusiveAccess));
    conflict(b.reserveOut("clear", { key: A }));
    good(b.reserveOut("clear", { key: B }));
    expect(a.attentions()).toEqual([Asc.reservationsPreempted]);
    expect(b.attentions()).toEqual([]);
    expect(c.attentions()).toEqual([Asc.reservationsPreempted]);
    expect(keys()).toMatchObject({ generation: 4, keys: [] });
    expect(reservation()).toBeNull();
  });
});

describe.each(["preempt", "preemptAndAbort"] as const)("%s (SPC-4 5.12.11.2.4 ff.)", (action) => {
  test("needs a registration, its key, and a victim", () => {
    registerAll();
    const stranger = new Client(disk, "stranger");
    conflict(stranger.reserveOut(action, { key: A, target: B }, { type: T.writeExclusive }));
    conflict(a.reserveOut(action, { key: B, target: B }, { type: T.writeExclusive }));
    conflict(a.reserveOut(action, { key: A, target: 0xdddn }, { type: T.writeExclusive }));
    illegal(
      a.reserveOut(action, { key: A, target: 0n }, { type: T.writeExclusive }),
      Asc.invalidFieldInParameterList,
    );
    expect(keys()).toMatchObject({ generation: 3, keys: [A, B, C] });
  });

  test("without a reservation takes registrations away, and scope and type do not count", () => {
    registerAll();
    good(a.reserveOut(action, { key: A, target: B }, { type: 0xf, scope: 7 }));
    expect(reservation()).toBeNull();
    expect(b.attentions()).toEqual([Asc.registrationsPreempted]);
    expect(c.attentions()).toEqual([]);
    expect(keys()).toMatchObject({ generation: 4, keys: [A, C] });
  });

  test("of a registrant leaves the holder's reservation alone", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusiveRegistrantsOnly));
    good(b.reserveOut(action, { key: B, target: C }, { type: T.exclusiveAccess }));
    expect(c.attentions()).toEqual([Asc.registrationsPreempted]);
    expect(reservation()).toEqual({ key: A, scope: 0, type: T.writeExclusiveRegistrantsOnly });
    expect(b.fullStatus().entries.map(({ key }) => key)).toEqual([A, B]);
    expect(a.attentions()).toEqual([]);
  });

  test("of the holder takes its reservation with the new type and tells who remains", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusiveRegistrantsOnly));
    good(b.reserveOut(action, { key: B, target: A }, { type: T.exclusiveAccessRegistrantsOnly }));
    expect(a.attentions()).toEqual([Asc.registrationsPreempted]);
    expect(b.attentions()).toEqual([]);
    expect(c.attentions()).toEqual([Asc.reservationsReleased]);
    expect(reservation()).toEqual({ key: B, scope: 0, type: T.exclusiveAccessRegistrantsOnly });
    conflict(a.write(0, block(1)));
    good(c.write(0, block(1)));
  });

  test("of the holder with the same type tells nobody but the holder", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusive));
    good(b.reserveOut(action, { key: B, target: A }, { type: T.writeExclusive }));
    expect(a.attentions()).toEqual([Asc.registrationsPreempted]);
    expect(c.attentions()).toEqual([]);
    conflict(a.write(0, block(1)));
  });

  test("of the holder with a wrong type or scope is an invalid field and changes nothing", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusive));
    illegal(b.reserveOut(action, { key: B, target: A }, { type: 2 }), Asc.invalidFieldInCdb);
    expect(reservation()?.key).toBe(A);
  });

  test("of one's own key as holder changes the type and keeps the registration", () => {
    good(a.register(A));
    good(b.register(A));
    good(a.reserve(A, T.writeExclusive));
    good(a.reserveOut(action, { key: A, target: A }, { type: T.exclusiveAccess }));
    expect(a.fullStatus().entries).toMatchObject([
      { initiator: { name: "iqn.2026-11.test:a" }, held: { type: T.exclusiveAccess } },
    ]);
    expect(b.attentions()).toEqual([Asc.registrationsPreempted]);
  });

  test("with all registrants: zero takes everything, another key only its registrations", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusiveAllRegistrants));
    good(a.reserveOut(action, { key: A, target: B }, { type: T.writeExclusiveAllRegistrants }));
    expect(reservation()).toEqual({ key: 0n, scope: 0, type: T.writeExclusiveAllRegistrants });
    good(c.reserveOut(action, { key: C, target: 0n }, { type: T.writeExclusive }));
    expect(reservation()).toEqual({ key: C, scope: 0, type: T.writeExclusive });
    expect(c.fullStatus().entries.map(({ key }) => key)).toEqual([C]);
    expect(a.attentions()).toEqual([Asc.registrationsPreempted]);
  });

  test("after which the loser's own preempt and reserve are conflicts", () => {
    registerAll();
    good(a.reserve(A, T.writeExclusiveRegistrantsOnly));
    good(b.reserveOut(action, { key: B, target: A }, { type: T.writeExclusiveRegistrantsOnly }));
    a.attentions();
    conflict(a.reserveOut(action, { key: A, target: B }, { type: T.writeExclusive }));
    conflict(a.reserve(A, T.writeExclusive));
  });
});

describe("PERSISTENT RESERVE IN (SPC-4 6.15)", () => {
  test("REPORT CAPABILITIES", () => {
    good(a.register(A, { aptpl: true }));
    expect(decodeCapabilities(readIn(a, ReserveIn.reportCapabilities))).toEqual({
      ok: true,
      value: {
        compatibleReservationHandling: false,
        specifyInitiatorPorts: false,
        allTargetPorts: true,
        persistThroughPowerLoss: true,
        persistActivated: true,
        allowCommands: 0,
        types: [1, 3, 5, 6, 7, 8],
      },
    });
  });

  test("READ FULL STATUS shows each nexus, and who holds", () => {
    registerAll();
    good(b.reserve(B, T.writeExclusiveRegistrantsOnly));
    expect(a.fullStatus().entries.map(({ key, held }) => [key, held?.type ?? null])).toEqual([
      [A, null],
      [B, 5],
      [C, null],
    ]);
  });

  test("unknown service actions are invalid fields", () => {
    const command = { name: "persistentReserveIn", action: 4, allocationBytes: 100 } as const;
    illegal(a.send(command), Asc.invalidFieldInCdb);
  });
});

/** Commands by what they need, as SPC-4 tables 48 and 49 and SBC-3 table 13 class them. */
const range = { lba: 0, blocks: 1 };
const access = { protect: 0, dpo: false, fua: false, ...range };
const commands: readonly [Command, "always" | "read" | "write", Buffer?][] = [
  [{ name: "testUnitReady" }, "always"],
  [{ name: "inquiry", page: null, allocationBytes: 96 }, "always"],
  [{ name: "reportLuns", select: 0, allocationBytes: 96 }, "always"],
  [{ name: "requestSense", descriptor: false, allocationBytes: 96 }, "always"],
  [{ name: "readCapacity10" }, "always"],
  [{ name: "readCapacity16", allocationBytes: 32 }, "always"],
  [{ name: "persistentReserveIn", action: 0, allocationBytes: 96 }, "always"],
  [startStop(true), "always"],
  [startStop(false), "write"],
  [{ name: "read", cdbBytes: 6, ...access }, "read"],
  [{ name: "read", cdbBytes: 16, ...access }, "read"],
  [{ name: "verify", cdbBytes: 10, protect: 0, dpo: false, byteCheck: 0, ...range }, "read"],
  [{ name: "prefetch", cdbBytes: 10, immediate: false, ...range }, "read"],
  [
    {
      name: "modeSense",
      cdbBytes: 6,
      noBlockDescriptors: true,
      longLba: false,
      control: 0,
      page: 0x3f,
      subpage: 0,
      allocationBytes: 96,
    },
    "read",
  ],
  [
    {
      name: "reportSupportedOpcodes",
      timeouts: false,
      options: 0,
      opcode: 0,
      action: 0,
      allocationBytes: 96,
    },
    "read",
  ],
  [{ name: "write", cdbBytes: 6, ...access }, "write", block(1)],
  [{ name: "write", cdbBytes: 12, ...access }, "write", block(1)],
  [{ name: "compareAndWrite", ...access, blocks: 0 }, "write"],
  [
    {
      name: "writeSame",
      cdbBytes: 10,
      protect: 0,
      anchor: false,
      unmap: false,
      noData: false,
      ...range,
    },
    "write",
    block(1),
  ],
  [{ name: "unmap", anchor: false, parameterBytes: 0 }, "write"],
  [{ name: "synchronizeCache", cdbBytes: 10, immediate: false, ...range }, "write"],
];

function startStop(start: boolean): Command {
  return {
    name: "startStopUnit",
    immediate: false,
    powerCondition: 0,
    noFlush: false,
    loadEject: false,
    start,
  };
}

/** What the tables allow to: the holder, another registrant, a stranger. */
const rights = {
  [T.writeExclusive]: ["write", "read", "read"],
  [T.exclusiveAccess]: ["write", "always", "always"],
  [T.writeExclusiveRegistrantsOnly]: ["write", "write", "read"],
  [T.exclusiveAccessRegistrantsOnly]: ["write", "write", "always"],
  [T.writeExclusiveAllRegistrants]: ["write", "write", "read"],
  [T.exclusiveAccessAllRegistrants]: ["write", "write", "always"],
} as const;
const order = ["always", "read", "write"];

describe.each(Object.entries(rights))("conflicts under reservation type %s", (type, allowed) => {
  test.each(commands.map(([command, need, data]) => [command.name, need, command, data] as const))(
    "%s, which needs %s",
    (_, need, command, data) => {
      good(a.register(A));
      good(b.register(B));
      good(a.reserveOut("reserve", { key: A }, { type: Number(type) }));
      for (const [index, client] of [a, b, c].entries()) {
        const isAllowed = order.indexOf(need) <= order.indexOf(allowed[index] ?? "");
        const { result } = client.send(command, data);
        const isConflict = result?.status === Status.reservationConflict;
        expect([client.nexus.id, isConflict]).toEqual([client.nexus.id, !isAllowed]);
        expect(result?.status).not.toBe(Status.checkCondition);
      }
    },
  );
});
