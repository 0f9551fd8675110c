/** The client's half of the NBD codec against the server's, however the bytes are cut, and against servers that speak something else. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type HandshakeStep,
  NbdClientHandshake,
} from "../../firmware-ts/wire/nbd/client-handshake.ts";
import {
  decodeInfoRequest,
  type ExportFacts,
  encodeGreeting,
  encodeInfoReplies,
  encodeOptionReply,
  transmissionFlags,
} from "../../firmware-ts/wire/nbd/handshake.ts";
import { type ClientRequest, NbdClientParser } from "../../firmware-ts/wire/nbd/parser.ts";
import {
  maxNameBytes,
  maxOptionReplies,
  maxOptionReplyBytes,
} from "../../firmware-ts/wire/nbd/protocol.ts";
import { decodeReplicaName, encodeReplicaName } from "../../firmware-ts/wire/nbd/replica-name.ts";
import { writeSimpleReply } from "../../firmware-ts/wire/nbd/replies.ts";
import { NbdReplyParser, writeRequest } from "../../firmware-ts/wire/nbd/reply-parser.ts";

const none = Buffer.alloc(0);
const facts: ExportFacts = {
  name: "disk",
  description: "",
  sizeBytes: 2 ** 40 + 4096,
  blockSizeBytes: 512,
  preferredBlockSizeBytes: 4096,
  maxPayloadBytes: 2 ** 20,
  readOnly: false,
  multiConn: true,
};

/** Hands over a stream in pieces cut at the given places. */
function* pieces(bytes: Buffer, cuts: readonly number[]): Generator<Buffer> {
  let from = 0;
  for (const to of [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort(
    (a, b) => a - b,
  )) {
    yield bytes.subarray(from, to);
    from = to;
  }
}

/** Everything that the handshake says to a stream; TLS begins when it asks for it. */
function hear(handshake: NbdClientHandshake, chunks: Iterable<Buffer>): HandshakeStep[] {
  const steps: HandshakeStep[] = [];
  for (const chunk of chunks) {
    handshake.push(chunk);
    for (let step = handshake.next(); step; step = handshake.next()) {
      steps.push(step);
      if (step.kind === "startTls") steps.push({ kind: "send", bytes: handshake.tlsStarted() });
    }
  }
  return steps;
}

/** What a server of ours makes of what the client sent. */
function parseSent(bytes: Buffer): NbdClientParser {
  const parser = new NbdClientParser();
  parser.push(bytes);
  return parser;
}

const anyName = fc
  .string({ maxLength: 60, unit: "grapheme", size: "max" })
  .filter((name) => !name.includes("\0"));
const cuts = fc.array(fc.nat(5000), { maxLength: 20, size: "max" });

describe("the handshake of a client", () => {
  test("comes to the server's facts, however the bytes are cut", () => {
    fc.assert(
      fc.property(anyName, cuts, (name, places) => {
        const replies = encodeInfoReplies(7, { ...facts, name, description: "a disk" }, [1, 2]);
        const stream = [encodeGreeting(), ...replies, encodeOptionReply(7, 1, none)];
        const handshake = new NbdClientHandshake(name, { tls: false });
        const steps = hear(handshake, pieces(Buffer.concat(stream), places));
        expect(steps.map(({ kind }) => kind)).toEqual(["send", "ready"]);
        expect(steps[1]).toEqual({
          kind: "ready",
          facts: {
            sizeBytes: facts.sizeBytes,
            flags: transmissionFlags(facts),
            blockSizeBytes: 512,
            maxPayloadBytes: 2 ** 20,
          },
        });
        const sent = parseSent(steps[0]?.kind === "send" ? steps[0].bytes : none);
        expect(sent.next()).toEqual({ kind: "flags", flags: 3 });
        const go = sent.next();
        if (go?.kind !== "option") throw new Error(`${go?.kind}`);
        expect(go.option).toBe(7);
        const text = Buffer.from(name).toString();
        expect(decodeInfoRequest(go.data)).toEqual({ name: text, asked: [3] });
      }),
    );
  });

  test("tells the name behind TLS only", () => {
    const handshake = new NbdClientHandshake("secret", { tls: true });
    const greeted = hear(handshake, [encodeGreeting()]);
    if (greeted[0]?.kind !== "send") throw new Error("nothing sent");
    expect(greeted).toHaveLength(1);
    expect(greeted[0].bytes.includes("secret")).toBe(false);
    const sent = parseSent(greeted[0].bytes);
    sent.next();
    expect(sent.next()).toEqual({ kind: "option", option: 5, data: none });
    const steps = hear(handshake, [encodeOptionReply(5, 1, none)]);
    expect(steps.map(({ kind }) => kind)).toEqual(["startTls", "send"]);
    const behind = [...encodeInfoReplies(7, facts, []), encodeOptionReply(7, 1, none)];
    expect(hear(handshake, behind).map(({ kind }) => kind)).toEqual(["ready"]);
  });

  test("does without no protection, whoever says that there is none", () => {
    for (const type of [0x80000001, 0x80000002, 0x80000005]) {
      const handshake = new NbdClientHandshake("secret", { tls: true });
      const steps = hear(handshake, [encodeGreeting(), encodeOptionReply(5, type, none)]);
      expect(steps[1]).toMatchObject({ kind: "refused", refusal: "tlsUnsupported" });
    }
    const injected = Buffer.concat([encodeOptionReply(5, 1, none), encodeOptionReply(7, 1, none)]);
    const handshake = new NbdClientHandshake("secret", { tls: true });
    expect(hear(handshake, [encodeGreeting(), injected]).at(-1)).toMatchObject({
      reason: "bytesBeforeTls",
    });
  });

  test.each([
    [0x80000002, "policy"],
    [0x80000005, "tlsRequired"],
    [0x80000006, "unknownExport"],
    [0x80000007, "shuttingDown"],
    [0x80000001, "other"],
  ] as const)(
    "a refusal of type %i is %s, with the server's sentence made fit for a log",
    (type, refusal) => {
      const handshake = new NbdClientHandshake("disk", { tls: false });
      const said = Buffer.from("no\u0000\u001b[31m\nway");
      expect(hear(handshake, [encodeGreeting(), encodeOptionReply(7, type, said)]).at(-1)).toEqual({
        kind: "refused",
        refusal,
        message: "no [31m way",
      });
    },
  );

  const info = (hex: string) =>
    encodeOptionReply(7, 3, Buffer.from(hex.replaceAll(" ", ""), "hex"));
  const exported = info("0000 0000000000100000 04ed");
  const ack = encodeOptionReply(7, 1, none);
  const oldGreeting = Buffer.from(encodeGreeting());
  oldGreeting.writeUInt16BE(0, 16);
  const long = Buffer.from(encodeOptionReply(7, 3, none));
  long.writeUInt32BE(maxOptionReplyBytes + 1, 16);

  test.each<[string, string, Buffer[]]>([
    ["another protocol", "badGreeting", [Buffer.from("220 mail.example ESMTP ready")]],
    ["the old handshake", "notFixedNewstyle", [oldGreeting]],
    ["an answer without its magic", "badOptionReply", [encodeGreeting(), Buffer.alloc(20, 1)]],
    [
      "an answer to another option",
      "badOptionReply",
      [encodeGreeting(), encodeOptionReply(6, 1, none)],
    ],
    [
      "a list that nobody asked for",
      "badOptionReply",
      [encodeGreeting(), encodeOptionReply(7, 2, none)],
    ],
    ["a long answer, before it arrives", "optionReplyTooLong", [encodeGreeting(), long]],
    [
      "answers without end",
      "tooManyOptionReplies",
      [encodeGreeting(), ...Array.from({ length: maxOptionReplies + 1 }, () => info("0009"))],
    ],
    ["nothing said of the export", "badExportInfo", [encodeGreeting(), ack]],
    ["an export in a word too few", "badExportInfo", [encodeGreeting(), info("0000 00000000")]],
    [
      "an export larger than 2^53",
      "badExportInfo",
      [encodeGreeting(), info("0000 0020000000000000 04ed")],
    ],
    [
      "an export without flags",
      "badExportInfo",
      [encodeGreeting(), info("0000 0000000000100000 0000")],
    ],
    ["an empty information", "badExportInfo", [encodeGreeting(), info("")]],
    [
      "blocks of 768 bytes",
      "badBlockSizes",
      [encodeGreeting(), info("0003 00000300 00001000 02000000")],
    ],
    [
      "blocks of 128 KiB",
      "badBlockSizes",
      [encodeGreeting(), info("0003 00020000 00020000 02000000")],
    ],
    ["no blocks", "badBlockSizes", [encodeGreeting(), info("0003 00000000 00001000 02000000")]],
    [
      "a bound below the block",
      "badBlockSizes",
      [encodeGreeting(), info("0003 00001000 00001000 00000800")],
    ],
    [
      "words before the first question",
      "bytesUnasked",
      [encodeGreeting(), exported, Buffer.concat([ack, Buffer.of(0)])],
    ],
  ])("%s ends it: %s", (_, reason, chunks) => {
    const handshake = new NbdClientHandshake("disk", { tls: false });
    const last = hear(handshake, chunks).at(-1);
    expect(last).toMatchObject({ kind: "violation", reason });
    handshake.push(encodeGreeting());
    expect(handshake.next()).toBeUndefined();
  });

  test("a server without a word about blocks, and one without a bound", () => {
    const bare = hear(new NbdClientHandshake("d", { tls: false }), [
      encodeGreeting(),
      exported,
      ack,
    ]);
    const least = { blockSizeBytes: 1, maxPayloadBytes: 32 * 1024 * 1024 };
    expect(bare.at(-1)).toMatchObject({ facts: least });
    const unbounded = info("0003 00000200 00001000 ffffffff");
    const steps = hear(new NbdClientHandshake("d", { tls: false }), [
      ...[encodeGreeting(), exported, unbounded, ack],
    ]);
    expect(steps.at(-1)).toMatchObject({ facts: { ...least, blockSizeBytes: 512 } });
  });

  test("whatever a server says, it ends once or goes on, and never throws", () => {
    const good = Buffer.concat([
      ...[encodeGreeting(), encodeOptionReply(5, 1, none)],
      ...[...encodeInfoReplies(7, facts, [1]), encodeOptionReply(7, 1, none)],
    ]);
    const flipped = fc
      .array(fc.record({ at: fc.nat(good.length - 1), to: fc.nat(255) }), { maxLength: 4 })
      .map((changes) => {
        const bytes = Buffer.from(good);
        for (const { at, to } of changes) bytes[at] = to;
        return bytes;
      });
    const garbage = fc.uint8Array({ maxLength: 400, size: "max" }).map((one) => Buffer.from(one));
    fc.assert(
      fc.property(fc.oneof(flipped, garbage), fc.boolean(), cuts, (bytes, tls, places) => {
        const steps = hear(new NbdClientHandshake("disk", { tls }), pieces(bytes, places));
        const ends = steps.filter(({ kind }) => kind !== "send" && kind !== "startTls");
        expect(ends.length).toBeLessThanOrEqual(1);
        expect(steps.indexOf(ends[0] as HandshakeStep)).toBe(
          ends.length === 0 ? -1 : steps.length - 1,
        );
      }),
      { numRuns: 2000 },
    );
  });

  test("steps out of turn, and a name that no server could hear, are broken invariants", () => {
    const handshake = new NbdClientHandshake("disk", { tls: true });
    expect(() => handshake.tlsStarted()).toThrow("TLS while greeting");
    const longest = "n".repeat(maxNameBytes);
    expect(() => new NbdClientHandshake(longest, { tls: false })).not.toThrow();
    expect(() => new NbdClientHandshake(`${longest}n`, { tls: false })).toThrow(RangeError);
  });
});

interface Asked {
  read: boolean;
  high: number;
  error: number;
  length: number;
}
const anyAsked: fc.Arbitrary<Asked> = fc.record({
  read: fc.boolean(),
  high: fc.nat(0xffff_ffff),
  error: fc.constantFrom(0, 0, 0, 5, 108),
  length: fc.integer({ min: 1, max: 3000 }),
});

describe("requests and replies", () => {
  test("a request is what the server hears", () => {
    const request = fc.record({
      command: fc.constantFrom(0, 2, 3, 4, 6),
      flags: fc.nat(7),
      cookieHigh: fc.nat(0xffff_ffff),
      cookieLow: fc.nat(0xffff_ffff),
      offset: fc.maxSafeNat(),
      length: fc.nat(0xffff_ffff),
    });
    fc.assert(
      fc.property(request, fc.nat(9), (asked, at) => {
        const out = Buffer.alloc(40, 0xee);
        expect(writeRequest(out, at, asked)).toBe(at + 28);
        const parser = parseSent(
          Buffer.concat([Buffer.from("00000003", "hex"), Buffer.from("IHAVEOPT"), Buffer.alloc(8)]),
        );
        parser.next();
        parser.next();
        parser.beginTransmission();
        parser.push(out.subarray(at, at + 28));
        const { kind: _, data: __, ...heard } = parser.next() as ClientRequest;
        expect(heard).toEqual(asked);
      }),
    );
  });

  test("replies in any order, cut anywhere, are those that were sent", () => {
    fc.assert(
      fc.property(
        fc.array(anyAsked, { maxLength: 20, size: "max" }),
        fc.array(fc.nat(60_000), { maxLength: 30, size: "max" }),
        (all, places) => {
          const cookie = (index: number) => ({
            cookieHigh: all[index]?.high ?? 0,
            cookieLow: index,
          });
          const data = all.map(({ length }, index) => Buffer.alloc(length, index + 1));
          const dataBytesOf = ({ read, length }: Asked) => (read ? length : 0);
          const stream = all.map((asked, index) => {
            const header = Buffer.alloc(16);
            writeSimpleReply(header, 0, cookie(index), asked.error);
            const body = asked.read && asked.error === 0 ? (data[index] ?? none) : none;
            return Buffer.concat([header, body]);
          });
          const parser = new NbdReplyParser(({ cookieHigh, cookieLow }) => {
            const asked = all[cookieLow];
            return asked && asked.high === cookieHigh ? dataBytesOf(asked) : undefined;
          });
          const heard: unknown[] = [];
          for (const piece of pieces(Buffer.concat(stream), places)) {
            parser.push(piece);
            for (let reply = parser.next(); reply; reply = parser.next()) heard.push(reply);
          }
          expect(heard).toEqual(
            all.map(({ read, error }, index) => ({
              ...{ kind: "reply", error, ...cookie(index) },
              data: read && error === 0 ? data[index] : none,
            })),
          );
          expect(parser.bufferedBytes).toBe(0);
        },
      ),
    );
  });

  test("what answers nothing is not waited for, and garbage ends it", () => {
    const header = Buffer.alloc(16);
    writeSimpleReply(header, 0, { cookieHigh: 7, cookieLow: 1 }, 0);
    const unknown = new NbdReplyParser(() => undefined);
    unknown.push(header);
    expect(unknown.next()).toMatchObject({ kind: "violation", reason: "unknownCookie" });
    unknown.push(Buffer.alloc(1000));
    expect(unknown.next()).toBeUndefined();
    expect(unknown.bufferedBytes).toBe(16);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 200 }), (bytes) => {
        fc.pre(Buffer.from(bytes).readUInt32BE(0) !== 0x67446698);
        const parser = new NbdReplyParser(() => 0);
        parser.push(Buffer.from(bytes));
        expect(parser.next()).toMatchObject({ kind: "violation", reason: "badReplyMagic" });
      }),
    );
  });

  test("an answer has no data but that of a read that succeeded", () => {
    const parser = new NbdReplyParser(() => 4);
    const header = Buffer.alloc(16);
    writeSimpleReply(header, 0, { cookieHigh: 0, cookieLow: 0 }, 5);
    parser.push(header);
    expect(parser.next()).toMatchObject({ error: 5, data: none });
  });
});

describe("the name of a replica", () => {
  const part = fc.stringMatching(/^[0-9A-Za-z._-]{1,64}$/);
  test("says volume, generation and session", () => {
    fc.assert(
      fc.property(part, part, part, (volume, generation, session) => {
        const name = { volume, generation, session };
        expect(decodeReplicaName(encodeReplicaName(name))).toEqual(name);
      }),
    );
  });

  test.each([
    ...["", "disk", "replica", "replica/a/b", "replica/a/b/", "replica/a/b/c/d", "other/a/b/c"],
    ...["replica//b/c", "replica/a/b/c ", `replica/${"a".repeat(65)}/b/c`, "replica/ä/b/c"],
  ])("%s is none", (name) => {
    expect(decodeReplicaName(name)).toBeUndefined();
  });

  test("cannot be made of parts that are none", () => {
    const name = { volume: "a/b", generation: "1", session: "s" };
    expect(() => encodeReplicaName(name)).toThrow(RangeError);
  });
});
