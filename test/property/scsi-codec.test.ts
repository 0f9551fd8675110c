/** Every SCSI codec is the inverse of itself, and none throws on bytes from outside. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeCdb, encodeCdb } from "../../firmware-ts/wire/scsi/cdb.ts";
import type { Command } from "../../firmware-ts/wire/scsi/command.ts";
import { transferOf } from "../../firmware-ts/wire/scsi/command.ts";
import * as inquiry from "../../firmware-ts/wire/scsi/inquiry.ts";
import * as lun from "../../firmware-ts/wire/scsi/lun.ts";
import * as parameters from "../../firmware-ts/wire/scsi/parameters.ts";
import * as reservation from "../../firmware-ts/wire/scsi/reservation.ts";
import { decodeSense, encodeSense } from "../../firmware-ts/wire/scsi/sense.ts";

const flag = fc.boolean();
const upTo = (max: number) => fc.integer({ min: 0, max });
const u8 = upTo(0xff);
const u16 = upTo(0xffff);
const u32 = upTo(0xffff_ffff);
const key = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
const bytes = (max: number) =>
  fc.uint8Array({ maxLength: max, size: "max" }).map((value) => Buffer.from(value));
const text = (max: number) =>
  fc
    .stringMatching(/^[!-~]*$/, { maxLength: max, size: "max" })
    .map((value) => value.slice(0, max));
const constant = <const T>(value: T) => fc.constant(value);
const type = fc.constantFrom(...Object.values(reservation.ReservationType));

/** The range of addresses and lengths that a block of this length can carry. */
const range = (cdbBytes: 6 | 10 | 12 | 16) =>
  ({
    6: { lba: upTo(0x1f_ffff), blocks: fc.integer({ min: 1, max: 256 }) },
    10: { lba: u32, blocks: u16 },
    12: { lba: u32, blocks: u32 },
    16: { lba: fc.maxSafeNat(), blocks: u32 },
  })[cdbBytes];

const access = (name: "read" | "write", cdbBytes: 6 | 10 | 12 | 16): fc.Arbitrary<Command> => {
  const none = cdbBytes === 6;
  return fc.record({
    name: constant(name),
    cdbBytes: constant(cdbBytes),
    protect: none ? constant(0) : upTo(7),
    dpo: none ? constant(false) : flag,
    fua: none ? constant(false) : flag,
    ...range(cdbBytes),
  });
};

const both = <T>(make: (cdbBytes: 10 | 16) => fc.Arbitrary<T>) => fc.oneof(make(10), make(16));

const command: fc.Arbitrary<Command> = fc.oneof(
  fc.constant<Command>({ name: "testUnitReady" }),
  fc.constant<Command>({ name: "readCapacity10" }),
  ...([6, 10, 12, 16] as const).flatMap((size) => [access("read", size), access("write", size)]),
  fc.record({ name: constant("requestSense"), descriptor: flag, allocationBytes: u8 }),
  fc.record({ name: constant("inquiry"), page: fc.option(u8), allocationBytes: u16 }),
  fc.record({ name: constant("reportLuns"), select: u8, allocationBytes: u32 }),
  fc.record({
    name: constant("reportSupportedOpcodes"),
    timeouts: flag,
    options: upTo(7),
    opcode: u8,
    action: u16,
    allocationBytes: u32,
  }),
  fc.record({
    name: constant("modeSense"),
    cdbBytes: constant(6),
    noBlockDescriptors: flag,
    longLba: constant(false),
    control: upTo(3),
    page: upTo(0x3f),
    subpage: u8,
    allocationBytes: u8,
  }),
  fc.record({
    name: constant("modeSense"),
    cdbBytes: constant(10),
    noBlockDescriptors: flag,
    longLba: flag,
    control: upTo(3),
    page: upTo(0x3f),
    subpage: u8,
    allocationBytes: u16,
  }),
  fc.record({
    name: constant("startStopUnit"),
    immediate: flag,
    powerCondition: upTo(15),
    noFlush: flag,
    loadEject: flag,
    start: flag,
  }),
  fc.record({ name: constant("readCapacity16"), allocationBytes: u32 }),
  ...([10, 12, 16] as const).map((size) =>
    fc.record({
      name: constant("verify"),
      cdbBytes: constant(size),
      protect: upTo(7),
      dpo: flag,
      byteCheck: upTo(3),
      ...range(size),
    }),
  ),
  fc.record({
    name: constant("compareAndWrite"),
    protect: upTo(7),
    dpo: flag,
    fua: flag,
    lba: fc.maxSafeNat(),
    blocks: u8,
  }),
  both((size) =>
    fc.record({
      name: constant("writeSame"),
      cdbBytes: constant(size),
      protect: upTo(7),
      anchor: flag,
      unmap: flag,
      noData: size === 16 ? flag : constant(false),
      ...range(size),
    }),
  ),
  fc.record({ name: constant("unmap"), anchor: flag, parameterBytes: u16 }),
  both((size) =>
    fc.record({
      name: constant("synchronizeCache"),
      cdbBytes: constant(size),
      immediate: flag,
      ...range(size),
    }),
  ),
  both((size) =>
    fc.record({
      name: constant("prefetch"),
      cdbBytes: constant(size),
      immediate: flag,
      ...range(size),
    }),
  ),
  fc.record({ name: constant("persistentReserveIn"), action: upTo(31), allocationBytes: u16 }),
  fc.record({
    name: constant("persistentReserveOut"),
    action: upTo(31),
    scope: upTo(15),
    type: upTo(15),
    parameterBytes: u32,
  }),
);

type Decode = (data: Buffer) => { readonly ok: boolean };

/** What was encoded is what is decoded, nothing less and nothing more; damaged on its way it is decoded or refused. */
const roundTrip = <T>(
  arbitrary: fc.Arbitrary<T>,
  encode: (value: T) => Buffer,
  decode: Decode,
  said: (value: T) => unknown = (value) => value,
) => {
  fc.assert(
    fc.property(arbitrary, (value) => {
      expect(decode(encode(value))).toEqual({ ok: true, value: said(value) });
    }),
  );
  survives(arbitrary.map(encode), decode);
};

/** A list that the allocation length has not cut. */
const whole = <T extends object>(value: T) => ({ ...value, complete: true });

/**
 * Decoding throws at nothing that such data can become: other bytes here and there, most of all at the beginning, where lengths and
 * types are, and an end that comes too early. Bytes drawn at random would hardly get past a first check.
 */
function survives(data: fc.Arbitrary<Buffer>, decode: Decode): void {
  const place = fc.oneof(upTo(24), fc.nat());
  const damage = fc.array(fc.tuple(place, fc.oneof(upTo(32), u8)), { maxLength: 4 });
  fc.assert(
    fc.property(data, damage, fc.option(fc.nat()), (valid, changes, cut) => {
      const damaged = Buffer.from(
        valid.subarray(0, cut === null ? valid.length : cut % (valid.length + 1)),
      );
      for (const [at, value] of changes)
        if (damaged.length > 0) damaged[at % damaged.length] = value;
      expect(typeof decode(damaged).ok).toBe("boolean");
    }),
  );
}

describe("command descriptor blocks", () => {
  test("decoding is the inverse of encoding", () => {
    fc.assert(
      fc.property(command, (value) => {
        expect(decodeCdb(encodeCdb(value))).toEqual({ ok: true, command: value });
      }),
      { numRuns: 2000 },
    );
  });

  test("garbage is decoded or refused, and what is decoded can be encoded again", () => {
    fc.assert(
      fc.property(bytes(20), (cdb) => {
        const result = decodeCdb(cdb);
        if (!result.ok) return;
        expect(decodeCdb(encodeCdb(result.command))).toEqual(result);
        expect(transferOf(result.command, 512).out).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 5000 },
    );
  });

  test("addresses above what a number holds stay beyond every disk", () => {
    const cdb = Buffer.alloc(16, 0xff);
    cdb[0] = 0x88;
    cdb[15] = 0;
    const result = decodeCdb(cdb);
    expect(result.ok && "lba" in result.command && result.command.lba).toBe(
      Number.MAX_SAFE_INTEGER,
    );
  });
});

describe("sense data", () => {
  const sense = fc.record(
    { key: upTo(15), code: u16, information: u32, deferred: constant(true) },
    { requiredKeys: ["key", "code"] },
  );

  test("fixed format", () => roundTrip(sense, (value) => encodeSense(value, "fixed"), decodeSense));
  test("descriptor format", () =>
    roundTrip(sense, (value) => encodeSense(value, "descriptor"), decodeSense));
  test("garbage never throws", () => {
    fc.assert(fc.property(bytes(64), (data) => typeof decodeSense(data).ok === "boolean"));
  });
});

describe("persistent reservations", () => {
  const { isReservationType } = reservation;
  const initiator = fc.record({
    name: fc.stringMatching(/^iqn\.[a-z0-9.:-]{1,60}$/, { size: "max" }),
    isid: fc.stringMatching(/^[0-9a-f]{12}$/),
  });

  test("OUT parameter list", () =>
    roundTrip(
      fc.record({
        key,
        serviceActionKey: key,
        specifyInitiatorPorts: flag,
        allTargetPorts: flag,
        aptpl: flag,
      }),
      reservation.encodeReserveOut,
      reservation.decodeReserveOut,
    ));
  test("READ KEYS", () =>
    roundTrip(
      fc.record({ generation: u32, keys: fc.array(key, { maxLength: 40, size: "max" }) }),
      reservation.encodeReadKeys,
      reservation.decodeReadKeys,
      whole,
    ));
  test("READ KEYS cut by the allocation length says so", () => {
    const data = reservation.encodeReadKeys({ generation: 7, keys: [1n, 2n, 3n] });
    expect(reservation.decodeReadKeys(data.subarray(0, 24))).toEqual({
      ok: true,
      value: { generation: 7, keys: [1n, 2n], complete: false },
    });
  });
  test("READ RESERVATION", () =>
    roundTrip(
      fc.record({
        generation: u32,
        reservation: fc.option(fc.record({ key, scope: upTo(15), type })),
      }),
      reservation.encodeReadReservation,
      reservation.decodeReadReservation,
    ));
  test("REPORT CAPABILITIES", () => {
    const all = Object.values(reservation.ReservationType);
    roundTrip(
      fc.record({
        compatibleReservationHandling: flag,
        specifyInitiatorPorts: flag,
        allTargetPorts: flag,
        persistThroughPowerLoss: flag,
        persistActivated: flag,
        allowCommands: upTo(7),
        types: fc.option(fc.subarray(all)),
      }),
      reservation.encodeCapabilities,
      reservation.decodeCapabilities,
    );
  });
  test("TransportID", () =>
    roundTrip(initiator, reservation.encodeTransportId, reservation.decodeTransportId));
  test("READ FULL STATUS", () => {
    const entry = fc.record({
      key,
      allTargetPorts: flag,
      held: fc.option(fc.record({ scope: upTo(15), type })),
      targetPort: u16,
      initiator,
    });
    roundTrip(
      fc.record({ generation: u32, entries: fc.array(entry, { maxLength: 8 }) }),
      reservation.encodeFullStatus,
      reservation.decodeFullStatus,
      whole,
    );
  });
  test("garbage never throws", () => {
    fc.assert(
      fc.property(bytes(200), (data) => {
        for (const decode of [
          reservation.decodeReserveOut,
          reservation.decodeReadKeys,
          reservation.decodeReadReservation,
          reservation.decodeCapabilities,
          reservation.decodeTransportId,
          reservation.decodeFullStatus,
        ]) {
          expect(typeof decode(data).ok).toBe("boolean");
        }
      }),
    );
  });
  test("there are six types", () => {
    const valid = Array.from({ length: 16 }, (_, value) => value).filter(isReservationType);
    expect(valid).toEqual([1, 3, 5, 6, 7, 8]);
  });
});

describe("INQUIRY data", () => {
  test("standard", () =>
    roundTrip(
      fc.record({
        deviceType: upTo(31),
        qualifier: upTo(7),
        vendor: text(8),
        product: text(16),
        revision: text(4),
        versions: fc.array(fc.integer({ min: 1, max: 0xffff }), { maxLength: 8 }),
      }),
      inquiry.encodeStandardInquiry,
      inquiry.decodeStandardInquiry,
    ));
  test("vital product data", () =>
    roundTrip(
      fc.record({ deviceType: upTo(31), page: u8, body: bytes(300) }),
      ({ page, body, deviceType }) => inquiry.encodeVpd(page, body, deviceType),
      inquiry.decodeVpd,
    ));
  test("designators", () =>
    roundTrip(
      fc.array(
        fc.record({ association: upTo(2), type: upTo(15), codeSet: upTo(3), value: bytes(255) }),
        { maxLength: 6 },
      ),
      inquiry.encodeDesignators,
      inquiry.decodeDesignators,
    ));
  test("block limits", () =>
    roundTrip(
      fc.record({
        writeSameNonZero: flag,
        compareAndWriteBlocksMax: u8,
        optimalGranularityBlocks: u16,
        transferBlocksMax: u32,
        transferBlocksOptimal: u32,
        prefetchBlocksMax: u32,
        unmapBlocksMax: u32,
        unmapDescriptorsMax: u32,
        unmapGranularityBlocks: u32,
        writeSameBlocksMax: fc.maxSafeNat(),
      }),
      inquiry.encodeBlockLimits,
      inquiry.decodeBlockLimits,
    ));
  test("characteristics", () =>
    roundTrip(u16, inquiry.encodeCharacteristics, inquiry.decodeCharacteristics));
  test("provisioning", () =>
    roundTrip(
      fc.record({
        unmap: flag,
        writeSame16: flag,
        writeSame10: flag,
        readsZeros: flag,
        anchors: flag,
        type: upTo(7),
      }),
      inquiry.encodeProvisioning,
      inquiry.decodeProvisioning,
    ));
});

describe("other parameter data", () => {
  const page = fc.oneof(
    fc.record({ page: upTo(0x3f), subpage: constant(0), body: bytes(40) }),
    fc.record({
      page: upTo(0x3f),
      subpage: fc.integer({ min: 1, max: 255 }),
      body: bytes(40),
    }),
  );
  const mode = fc.record({
    writeProtected: flag,
    dpoFua: flag,
    // A page shorter than the four bytes of a long header cannot be told from the end of the list.
    pages: fc.array(
      page.filter(({ body }) => body.length >= 2),
      { maxLength: 5 },
    ),
  });

  test("READ CAPACITY (16)", () =>
    roundTrip(
      fc.record({
        blocks: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
        blockBytes: u32,
        physicalExponent: upTo(15),
        thin: flag,
        unmappedReadsZeros: flag,
      }),
      parameters.encodeCapacity16,
      parameters.decodeCapacity16,
    ));
  test("READ CAPACITY (10) of a disk too large for it", () => {
    const capacity = {
      blocks: 2 ** 33,
      blockBytes: 512,
      physicalExponent: 0,
      thin: true,
      unmappedReadsZeros: true,
    };
    expect(parameters.decodeCapacity10(parameters.encodeCapacity10(capacity))).toEqual({
      ok: true,
      value: { blocks: null, blockBytes: 512 },
    });
  });
  test("UNMAP", () =>
    roundTrip(
      fc.array(fc.record({ lba: fc.maxSafeNat(), blocks: u32 }), { maxLength: 64, size: "max" }),
      parameters.encodeUnmap,
      parameters.decodeUnmap,
    ));
  test("MODE SENSE (6) and (10)", () => {
    for (const size of [6, 10] as const) {
      roundTrip(
        mode,
        (value) => parameters.encodeModeData(value, size),
        (data) => parameters.decodeModeData(data, size),
      );
    }
  });
  test("REPORT SUPPORTED OPERATION CODES", () => {
    const entry = fc.record({ opcode: u8, action: fc.option(u16), cdbBytes: u16 });
    for (const timeouts of [false, true]) {
      roundTrip(
        fc.array(entry, { maxLength: 40, size: "max" }),
        (value) => parameters.encodeSupportedOpcodes(value, timeouts),
        parameters.decodeSupportedOpcodes,
      );
    }
  });
  test("REPORT LUNS", () => {
    fc.assert(
      fc.property(fc.array(upTo(lun.LUN_MAX), { maxLength: 64, size: "max" }), (luns) => {
        expect(lun.decodeReportLuns(lun.encodeReportLuns(luns))).toEqual({
          ok: true,
          value: { luns, complete: true },
        });
      }),
    );
  });
  test("garbage never throws", () => {
    fc.assert(
      fc.property(bytes(200), (data) => {
        for (const decode of [
          parameters.decodeCapacity10,
          parameters.decodeCapacity16,
          parameters.decodeUnmap,
          parameters.decodeSupportedOpcodes,
          (value: Buffer) => parameters.decodeModeData(value, 6),
          (value: Buffer) => parameters.decodeModeData(value, 10),
          lun.decodeReportLuns,
          inquiry.decodeStandardInquiry,
          inquiry.decodeVpd,
          inquiry.decodeDesignators,
          inquiry.decodeBlockLimits,
          inquiry.decodeCharacteristics,
          inquiry.decodeProvisioning,
        ]) {
          expect(typeof decode(data).ok).toBe("boolean");
        }
      }),
    );
  });
});
