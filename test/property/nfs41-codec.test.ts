import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as nfs from "../../bench/clients/nfs41-codec.ts";
import { decodeCompound, encodeCompound, statusName } from "../../bench/clients/nfs41-compound.ts";
import { XdrError, XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";

const state = Buffer.concat([Buffer.alloc(4), Buffer.from("abcdefghijkl")]);
const owner = { clientId: 7n, name: "owner" };
const mode = { access: nfs.share.both, deny: nfs.share.write };
const range = { type: nfs.lockType.write, offset: 0n, length: nfs.toTheEnd };
const session = Buffer.alloc(nfs.sessionIdBytes, 9);

/** Every operation, with what a server might answer: the fields of its result as RFC 5662 has them. */
const change = (writer: XdrWriter) => writer.uint32(1).uint64(1n).uint64(2n);
const stateId = (writer: XdrWriter) => writer.uint32(3).fixed(state.subarray(4));
const channel = (writer: XdrWriter) => {
  for (const word of [0, 1, 1, 1, 8, 16, 0]) writer.uint32(word);
};
const opened = (writer: XdrWriter) => {
  change(stateId(writer)).uint32(0).uint32(2).uint32(0).uint32(2);
  return writer;
};
interface Case {
  readonly op: nfs.Op<unknown>;
  readonly result: (writer: XdrWriter) => unknown;
  readonly value: unknown;
}
const cases: Record<string, Case> = {
  exchangeId: {
    op: nfs.exchangeId("me", Buffer.alloc(8, 1)),
    result: (writer) => {
      writer.uint64(5n).uint32(6).uint32(0x8001_0000).uint32(0);
      writer.uint64(0n).string("server").string("scope");
      writer.uint32(1).string("domain").string("name").uint64(1n).uint32(2);
    },
    value: { clientId: 5n, sequence: 6, isConfirmed: true },
  },
  createSession: {
    op: nfs.createSession(5n, 6, 64),
    result: (writer) => {
      writer.fixed(session).uint32(6).uint32(0);
      channel(writer);
      channel(writer);
    },
    value: { id: session, slots: 16 },
  },
  sequence: {
    op: nfs.sequence(session, 2, 3, true),
    result: (writer) => {
      writer.fixed(session);
      for (const word of [3, 2, 9, 9, 0]) writer.uint32(word);
    },
    value: { session, sequence: 3, slot: 2 },
  },
  reclaimComplete: { op: nfs.reclaimComplete(), result: () => 0, value: undefined },
  destroySession: { op: nfs.destroySession(session), result: () => 0, value: undefined },
  destroyClientId: { op: nfs.destroyClientId(5n), result: () => 0, value: undefined },
  putRootHandle: { op: nfs.putRootHandle(), result: () => 0, value: undefined },
  putHandle: { op: nfs.putHandle(Buffer.from("handle")), result: () => 0, value: undefined },
  lookup: { op: nfs.lookup("vol1"), result: () => 0, value: undefined },
  getHandle: {
    op: nfs.getHandle(),
    result: (writer) => writer.string("handle"),
    value: Buffer.from("handle"),
  },
  remove: { op: nfs.remove("file"), result: change, value: undefined },
  open: {
    op: nfs.open("file", owner, mode, true),
    result: (writer) => opened(writer).uint32(3).uint32(1).uint32(0),
    value: state,
  },
  reclaimOpen: {
    op: nfs.reclaimOpen(owner, mode),
    result: (writer) => opened(writer).uint32(0),
    value: state,
  },
  close: { op: nfs.close(state), result: stateId, value: state },
  lock: { op: nfs.lock(state, owner, range, true), result: stateId, value: state },
  unlock: { op: nfs.unlock(state, range), result: stateId, value: state },
  read: {
    op: nfs.read(state, 0, 8),
    result: (writer) => writer.uint32(1).string("content"),
    value: { endOfFile: true, data: Buffer.from("content") },
  },
  write: {
    op: nfs.write(state, 0, Buffer.from("content"), nfs.stableHow.fileSync),
    result: (writer) => writer.uint32(7).uint32(2).fixed(Buffer.alloc(8, 5)),
    value: { count: 7, committed: 2, verifier: Buffer.alloc(8, 5) },
  },
  commit: {
    op: nfs.commit(),
    result: (writer) => writer.fixed(Buffer.alloc(8, 5)),
    value: Buffer.alloc(8, 5),
  },
};
const names = Object.keys(cases);
const caseOf = (name: string) => cases[name] as Case;

/** A reply to these operations, the last of which may have failed. */
function replyTo(chosen: readonly Case[], lastStatus = 0): Buffer {
  const writer = new XdrWriter().uint32(lastStatus).string("").uint32(chosen.length);
  for (const [i, { op, result }] of chosen.entries()) {
    const status = i === chosen.length - 1 ? lastStatus : 0;
    writer.uint32(op.number).uint32(status);
    if (status === 0) result(writer);
  }
  return Buffer.from(writer.finish());
}

function survives(body: Buffer, ops: readonly nfs.Op<unknown>[]): void {
  try {
    decodeCompound(body, ops);
  } catch (error) {
    expect(error).toBeInstanceOf(XdrError);
  }
}

const some = fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 6 });

describe("NFSv4.1 compounds", () => {
  it("give every operation its result", () => {
    fc.assert(
      fc.property(some, (chosen) => {
        const these = chosen.map(caseOf);
        const ops = these.map(({ op }) => op);
        const answered = decodeCompound(replyTo(these), ops);
        expect(answered).toEqual({ ok: true, values: these.map(({ value }) => value) });
      }),
    );
  });

  it("say which operation failed, and with what; what comes with a failure is not looked at", () => {
    fc.assert(
      fc.property(some, fc.constantFrom(10, 10_013, 10_052, 4711), (chosen, status) => {
        const these = chosen.map(caseOf);
        const body = Buffer.concat([replyTo(these, status), Buffer.alloc(12, 1)]);
        const at = these.length - 1;
        const answered = decodeCompound(
          body,
          [...these, caseOf("read")].map(({ op }) => op),
        );
        expect(answered).toEqual({ ok: false, status: statusName(status), at });
      }),
    );
  });

  it("begin with tag, minor version 1 and the number of operations, each by its number", () => {
    for (const name of names) {
      const { op } = caseOf(name);
      const reader = new XdrReader(encodeCompound([op]));
      expect(reader.string(64), name).toBe("");
      expect([reader.uint32(), reader.uint32(), reader.uint32()], name).toEqual([1, 1, op.number]);
    }
  });

  it("survive any cut, any changed word and anything else, with an XdrError at worst", () => {
    const words = fc.array(fc.oneof(fc.constantFrom(0, 1, 2, 3, 16), fc.nat()), { maxLength: 40 });
    fc.assert(
      fc.property(some, fc.nat(), fc.nat(), words, (chosen, at, value, tail) => {
        const these = chosen.map(caseOf);
        const ops = these.map(({ op }) => op);
        const body = replyTo(these);
        survives(body.subarray(0, at % body.length), ops);
        const changed = Buffer.from(body);
        changed.writeUInt32BE(value % 2 ** 32, (at % (body.length / 4)) * 4);
        survives(changed, ops);
        const writer = new XdrWriter();
        for (const word of [0, 0, ops.length, ops[0]?.number ?? 0, 0, ...tail]) writer.uint32(word);
        survives(Buffer.from(writer.finish()), ops);
      }),
    );
  });

  it.each([
    [
      "results of more operations than there were",
      () => decodeCompound(replyTo([caseOf("remove"), caseOf("read")]), [caseOf("remove").op]),
    ],
    [
      "results of fewer, all well",
      () => decodeCompound(replyTo([caseOf("remove")]), [caseOf("remove").op, caseOf("read").op]),
    ],
    [
      "another operation's result",
      () => decodeCompound(replyTo([caseOf("remove")]), [caseOf("read").op]),
    ],
    [
      "bytes behind the last result",
      () =>
        decodeCompound(Buffer.concat([replyTo([caseOf("remove")]), Buffer.alloc(4)]), [
          caseOf("remove").op,
        ]),
    ],
    [
      "more data than were asked for",
      () =>
        decodeCompound(
          replyTo([
            { ...caseOf("read"), result: (writer) => writer.uint32(1).opaque(Buffer.alloc(9)) },
          ]),
          [caseOf("read").op],
        ),
    ],
    [
      "more data written than were sent",
      () =>
        decodeCompound(
          replyTo([
            {
              ...caseOf("write"),
              result: (writer) => writer.uint32(8).uint32(2).fixed(Buffer.alloc(8)),
            },
          ]),
          [caseOf("write").op],
        ),
    ],
    [
      "a delegation that nobody asked for",
      () =>
        decodeCompound(
          replyTo([{ ...caseOf("open"), result: (writer) => opened(writer).uint32(1) }]),
          [caseOf("open").op],
        ),
    ],
    [
      "state protection that nobody asked for",
      () =>
        decodeCompound(
          replyTo([
            {
              ...caseOf("exchangeId"),
              result: (writer) => writer.uint64(5n).uint32(6).uint32(0).uint32(1),
            },
          ]),
          [caseOf("exchangeId").op],
        ),
    ],
    ["a name that is too long", () => encodeCompound([nfs.lookup("x".repeat(256))])],
  ])("refuse %s", (_, action) => {
    expect(action).toThrow(XdrError);
  });
});
