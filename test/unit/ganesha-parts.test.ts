import { describe, expect, it } from "vitest";
import { fileServiceSchema, renderConfiguration } from "../../hal/linux/ganesha/config.ts";
import { graceAfter, isGraceCount, messageOf, noGrace } from "../../hal/linux/ganesha/log-lines.ts";
import {
  decodeReply,
  encodeCall,
  RecordReader,
  recordBytesMax,
} from "../../hal/linux/ganesha/rpc.ts";
import { XdrError, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";
import { createLineCutter, explainEnd } from "../../hal/linux/service-process.ts";

const spec = {
  addresses: ["10.0.0.1"],
  exports: [{ id: 1, path: "/mnt/v1", pseudo: "/vol1" }],
  recoveryDir: "/mnt/v1/.dyad",
};

describe("ganesha configuration", () => {
  it("names every export with its ids, its path here and its path for clients", () => {
    const text = renderConfiguration(fileServiceSchema.parse(spec));
    expect(text).toContain("Bind_Addr = 10.0.0.1;");
    expect(text).toMatch(
      /EXPORT \{\n {2}Export_Id = 1;\n {2}Path = "\/mnt\/v1";\n {2}Pseudo = "\/vol1";/,
    );
    expect(text).toContain('RecoveryRoot = "/mnt/v1/.dyad";');
  });

  it("binds its one address, and all of its place when there are several", () => {
    const several = { ...spec, addresses: ["10.0.0.1", "fd00::1"] };
    expect(renderConfiguration(fileServiceSchema.parse(several))).not.toContain("Bind_Addr");
    expect(fileServiceSchema.safeParse({ ...spec, addresses: [] }).success).toBe(false);
  });

  it.each(['/a"; } EXPORT {', "/a\nb", "/a\\b", "/$HOME", "relative"])(
    "refuses the path %j, which could end a string or a block",
    (path) => {
      const bad = { ...spec, exports: [{ id: 1, path, pseudo: "/v" }] };
      expect(fileServiceSchema.safeParse(bad).success).toBe(false);
      expect(fileServiceSchema.safeParse({ ...spec, recoveryDir: path }).success).toBe(false);
    },
  );

  it("refuses export id 0, which is the pseudo root's, an unknown key, and no export at all", () => {
    const zero = { ...spec, exports: [{ id: 0, path: "/a", pseudo: "/a" }] };
    for (const bad of [zero, { ...spec, other: 1 }, { ...spec, exports: [] }]) {
      expect(fileServiceSchema.safeParse(bad).success).toBe(false);
    }
  });
});

describe("ganesha log", () => {
  const prefix = "21/11/2026 04:27:30 : epoch 00003039 : vm : nfs-ganesha-13790[main] ";

  it("tells when grace begins, who has reclaimed, and when it ends", () => {
    const began = graceAfter(
      noGrace,
      `${prefix}nfs_start_grace :STATE :EVENT :NFS Server Now IN GRACE, duration 10`,
    );
    const checked = graceAfter(
      began,
      `${prefix}nfs_try_lift_grace :STATE :EVENT :check grace:reclaim complete(1) clid count(2)`,
    );
    expect(checked).toEqual({ active: true, recorded: 2, reclaimed: 1 });
    const again = `${prefix}nfs_try_lift_grace :STATE :EVENT :check grace:reclaim complete(1) clid count(2)`;
    expect(graceAfter(checked, again)).toBe(checked);
    expect(isGraceCount(again)).toBe(true);
    const ended = graceAfter(checked, `${prefix}x :STATE :EVENT :NFS Server Now NOT IN GRACE`);
    expect(ended.active).toBe(false);
    expect(graceAfter(ended, `${prefix}anything else`)).toBe(ended);
    expect(isGraceCount(`${prefix}anything else`)).toBe(false);
  });

  it("drops the date and the host, and lines that only repeat the log's configuration", () => {
    expect(messageOf(`${prefix}main :MAIN :EVENT :hello`)).toBe("main :MAIN :EVENT :hello");
    expect(messageOf(`${prefix}f :LOG :NULL :LOG: Changing log level`)).toBeUndefined();
  });

  it("cuts lines across chunks and bounds one that never ends", () => {
    const cut = createLineCutter(8);
    expect(cut(Buffer.from("one\ntw"))).toEqual(["one"]);
    expect(cut(Buffer.from("o\n"))).toEqual(["two"]);
    expect(cut(Buffer.from("x".repeat(100)))).toEqual([]);
    expect(cut(Buffer.from("\n"))).toEqual(["xxxxxxxx"]);
  });
});

describe("RPC records (RFC 5531 section 11)", () => {
  const mark = (length: number, last: boolean) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(length + (last ? 0x8000_0000 : 0));
    return bytes;
  };
  const two = Buffer.concat([mark(3, true), Buffer.from("abc"), mark(2, true), Buffer.from("de")]);

  it("two records in one chunk, and one byte at a time", () => {
    expect(new RecordReader().push(two).map(String)).toEqual(["abc", "de"]);
    const reader = new RecordReader();
    const found = [...two].flatMap((byte) => reader.push(Buffer.from([byte])));
    expect(found.map(String)).toEqual(["abc", "de"]);
  });

  it("joins fragments", () => {
    const reader = new RecordReader();
    const bytes = [mark(2, false), Buffer.from("ab"), mark(1, true), Buffer.from("c")];
    expect(reader.push(Buffer.concat(bytes)).map(String)).toEqual(["abc"]);
  });

  it("takes a record of the greatest size and refuses one byte more, in one fragment or several", () => {
    const reader = new RecordReader();
    reader.push(mark(recordBytesMax, true));
    expect(reader.push(Buffer.alloc(recordBytesMax)).length).toBe(1);
    expect(() => new RecordReader().push(mark(recordBytesMax + 1, true))).toThrow(XdrError);
    const pieces = new RecordReader();
    pieces.push(Buffer.concat([mark(4, false), Buffer.alloc(4)]));
    expect(() => pieces.push(mark(recordBytesMax - 3, true))).toThrow(XdrError);
  });

  it("refuses an endless row of empty fragments", () => {
    expect(() => new RecordReader().push(mark(0, false))).toThrow(XdrError);
  });
});

describe("RPC messages (RFC 5531 section 9)", () => {
  const reply = (...words: number[]) => {
    const writer = new XdrWriter();
    for (const word of words) writer.uint32(word);
    return Buffer.from(writer.finish());
  };

  it("a call carries program, version, procedure and AUTH_SYS, and its own length", () => {
    const target = { program: 100003, version: 3, procedure: 6 };
    const call = encodeCall(5, target, { machine: "m", uid: 1, gid: 2 }, Buffer.from([9, 9, 9, 9]));
    expect(call.readUInt32BE(0)).toBe(0x8000_0000 + call.length - 4);
    const words = [4, 8, 12, 16, 20, 24, 28].map((at) => call.readUInt32BE(at));
    expect(words).toEqual([5, 0, 2, 100003, 3, 6, 1]);
    expect(call.subarray(-4)).toEqual(Buffer.from([9, 9, 9, 9]));
  });

  it("an accepted reply gives its results, a refusal its reason", () => {
    const good = decodeReply(reply(5, 1, 0, 0, 0, 0, 77));
    expect(good).toMatchObject({ xid: 5, ok: true });
    expect(good.ok && good.body.readUInt32BE(0)).toBe(77);
    expect(decodeReply(reply(5, 1, 0, 0, 0, 1))).toEqual({
      xid: 5,
      ok: false,
      reason: "program unavailable",
    });
    expect(decodeReply(reply(5, 1, 1, 1, 1))).toEqual({
      xid: 5,
      ok: false,
      reason: "authentication",
    });
  });

  it("refuses a call where a reply belongs, and a verifier beyond its 400 bytes", () => {
    expect(() => decodeReply(reply(5, 0, 2))).toThrow(XdrError);
    expect(() => decodeReply(reply(5, 1, 0, 0, 401))).toThrow(XdrError);
  });
});

describe("an end", () => {
  it("is told in words", () => {
    const end = { pid: 7, code: null, signal: "SIGKILL", lastWords: ["one", "two"] } as const;
    expect(explainEnd(end)).toBe("signal SIGKILL; its last words: two");
    expect(explainEnd({ ...end, code: 2, signal: null, lastWords: [] })).toBe("exit code 2");
  });
});
