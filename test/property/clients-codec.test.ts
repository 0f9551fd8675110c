import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as codec from "../../bench/clients/nfs3-codec.ts";
import { decodeRecord, encodeRecord } from "../../bench/clients/record.ts";
import { decodeMount } from "../../hal/linux/ganesha/probe.ts";
import { decodeReply, RecordReader } from "../../hal/linux/ganesha/rpc.ts";
import { XdrError, XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";

const bytes = (maxLength: number) =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

/** Runs a decoder on anything: it returns, or throws an XdrError. Any other exception is a bug. */
function survives(decode: (data: Buffer) => unknown, data: Buffer): void {
  try {
    decode(data);
  } catch (error) {
    expect(error).toBeInstanceOf(XdrError);
  }
}

describe("XDR", () => {
  it("reads back what was written", () => {
    const items = fc.tuple(fc.nat(), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), bytes(64));
    fc.assert(
      fc.property(items, fc.string({ maxLength: 32 }), ([word, long, data], text) => {
        const writer = new XdrWriter(1).uint32(word).uint64(long).opaque(data).string(text);
        const reader = new XdrReader(writer.finish());
        expect(reader.uint32()).toBe(word);
        expect(reader.uint64()).toBe(long);
        expect(reader.opaque(64)).toEqual(data);
        expect(reader.string(128)).toBe(Buffer.from(text, "utf8").toString("utf8"));
        expect(reader.remaining).toBe(0);
      }),
    );
  });

  it("bounds every opaque and notices every cut", () => {
    fc.assert(
      fc.property(bytes(64), fc.nat(80), (data, keep) => {
        const whole = new XdrWriter().opaque(data).finish();
        if (data.length > 0) {
          expect(() => new XdrReader(whole).opaque(data.length - 1)).toThrow(XdrError);
        }
        if (keep < whole.length) {
          expect(() => new XdrReader(whole.subarray(0, keep)).opaque(64)).toThrow(XdrError);
        }
      }),
    );
  });
});

describe("decoders survive anything", () => {
  const decoders: Record<string, (data: Buffer) => unknown> = {
    reply: decodeReply,
    lookup: codec.decodeLookup,
    read: codec.decodeRead,
    write: codec.decodeWrite,
    create: codec.decodeCreate,
    remove: codec.decodeRemove,
    commit: codec.decodeCommit,
    mount: (data) => decodeMount(data, "/x"),
    records: (data) => new RecordReader().push(data),
    record: (data) => decodeRecord("k", data, 64),
  };
  // Words of 0 and 1 lead further into a structure than random ones do.
  const words = fc
    .array(fc.oneof(fc.constantFrom(0, 1, 2, 3, 8), fc.nat()), { maxLength: 48 })
    .map((array) => {
      const writer = new XdrWriter();
      for (const word of array) writer.uint32(word);
      return Buffer.from(writer.finish());
    });

  it.each(Object.keys(decoders))("%s", (name) => {
    const decode = decoders[name];
    if (decode === undefined) throw new Error(name);
    fc.assert(fc.property(fc.oneof(bytes(256), words), (data) => survives(decode, data)));
  });
});

describe("NFSv3 results", () => {
  it("READ gives the data, whatever the attributes before it", () => {
    fc.assert(
      fc.property(bytes(512), fc.boolean(), fc.boolean(), (data, attributes, end) => {
        const writer = new XdrWriter().uint32(0).uint32(attributes ? 1 : 0);
        if (attributes) writer.fixed(Buffer.alloc(84, 7));
        writer
          .uint32(data.length)
          .uint32(end ? 1 : 0)
          .opaque(data);
        const result = codec.decodeRead(Buffer.from(writer.finish()));
        expect(result).toEqual({ ok: true, value: { data, endOfFile: end } });
      }),
    );
  });

  it("WRITE gives count, stability and verifier, whatever the attributes before it", () => {
    const verifier = Buffer.from("verifier");
    fc.assert(
      fc.property(fc.boolean(), fc.boolean(), fc.nat(1 << 20), (before, after, count) => {
        const writer = new XdrWriter().uint32(0).uint32(before ? 1 : 0);
        if (before) writer.fixed(Buffer.alloc(24, 7));
        writer.uint32(after ? 1 : 0);
        if (after) writer.fixed(Buffer.alloc(84, 7));
        writer.uint32(count).uint32(2).fixed(verifier);
        const result = codec.decodeWrite(Buffer.from(writer.finish()));
        expect(result).toEqual({ ok: true, value: { count, committed: 2, verifier } });
      }),
    );
  });

  it("a failed call gives its status by name", () => {
    const stale = Buffer.from(new XdrWriter().uint32(70).finish());
    expect(codec.decodeLookup(stale)).toEqual({ ok: false, status: "NFS3ERR_STALE" });
  });
});

describe("records", () => {
  it("any key, number and size reads back; any two differ", () => {
    const size = fc.integer({ min: 4, max: 64 }).map((eights) => eights * 8);
    fc.assert(
      fc.property(fc.string(), fc.nat(2 ** 40), size, (key, seq, length) => {
        const record = encodeRecord(key, seq, length);
        expect(decodeRecord(key, record, length)).toEqual({ ok: true, seq });
        expect(record.equals(encodeRecord(key, seq + 1, length))).toBe(false);
      }),
    );
  });
});
