/** SMB 2, byte by byte ([MS-SMB2] 2.2, [MS-NLMP] 2.2.1), and what is not taken for it. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  command,
  dialectOf,
  encodeNegotiate,
  encodeSessionSetup,
  encodeTreeConnect,
  isChallenge,
  MessageReader,
  messageBytesMax,
  ntlmAnonymous,
  ntlmNegotiate,
} from "../../hal/linux/samba/smb2.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(/\s/g, ""), "hex");

/** A header of an answer, with its length before it. */
function answer(body: Buffer, { flags = 1, id = 0xfe534d42, message = 7n } = {}): Buffer {
  const head = Buffer.alloc(4 + 64);
  head.writeUInt32BE(64 + body.length, 0);
  head.writeUInt32BE(id, 4);
  head.writeUInt16LE(64, 8);
  head.writeUInt32LE(0xc0000022, 12);
  head.writeUInt16LE(command.treeConnect, 16);
  head.writeUInt32LE(flags, 20);
  head.writeBigUInt64LE(message, 28);
  head.writeBigUInt64LE(0x1122334455667788n, 44);
  return Buffer.concat([head, body]);
}

describe("a request", () => {
  test("to negotiate offers 2.0.2 and 2.1", () => {
    expect(encodeNegotiate(bytes("000102030405060708090a0b0c0d0e0f"))).toEqual(
      bytes(`
        00000068
        fe534d42 4000 0000 00000000 0000 0100 00000000 00000000 0000000000000000
        00000000 00000000 0000000000000000 00000000000000000000000000000000
        2400 0200 0100 0000 00000000 000102030405060708090a0b0c0d0e0f 0000000000000000 0202 1002`),
    );
  });

  test("for a session carries its token where it says", () => {
    const request = encodeSessionSetup({ messageId: 1, sessionId: 0x0102n }, bytes("aabbcc"));
    expect(request.subarray(0, 4)).toEqual(bytes("0000005b"));
    expect(request.subarray(16, 18)).toEqual(bytes("0100"));
    expect(request.subarray(28, 36)).toEqual(bytes("0100000000000000"));
    expect(request.subarray(44, 52)).toEqual(bytes("0201000000000000"));
    expect(request.subarray(68)).toEqual(
      bytes("1900 00 01 00000000 00000000 5800 0300 0000000000000000 aabbcc"),
    );
  });

  test("for a share names it in UTF-16", () => {
    const request = encodeTreeConnect({ messageId: 3, sessionId: 1n }, "1.2", "a$");
    expect(request.subarray(68)).toEqual(
      bytes("0900 0000 4800 1000 5c00 5c00 3100 2e00 3200 5c00 6100 2400"),
    );
  });

  test("without a name says nothing but one zero byte", () => {
    const message = ntlmAnonymous();
    expect(message.subarray(0, 12)).toEqual(bytes("4e544c4d53535000 03000000"));
    expect(message.subarray(12, 20)).toEqual(bytes("0100 0100 40000000"));
    for (const at of [20, 28, 36, 44, 52])
      expect(message.subarray(at, at + 8)).toEqual(bytes("0000 0000 40000000"));
    // Flag A: NTLMSSP_NEGOTIATE_ANONYMOUS.
    expect(message.readUInt32LE(60) & 0x800).toBe(0x800);
    expect(message.subarray(64)).toEqual(bytes("00"));
    expect(ntlmNegotiate().subarray(0, 12)).toEqual(bytes("4e544c4d53535000 01000000"));
  });
});

describe("an answer", () => {
  const body = bytes("1000 01");
  const decoded = {
    command: 3,
    messageId: 7,
    status: 0xc0000022,
    sessionId: 0x1122334455667788n,
    body,
  };

  test("is read however it is cut", () => {
    const stream = Buffer.concat([answer(body), answer(Buffer.alloc(0)), answer(body)]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 20 }), (sizes) => {
        const reader = new MessageReader();
        const replies = [];
        let at = 0;
        for (let i = 0; at < stream.length; i += 1) {
          const end = at + (sizes[i % sizes.length] ?? 1);
          replies.push(...reader.push(stream.subarray(at, end)));
          at = end;
        }
        expect(replies).toEqual([decoded, { ...decoded, body: Buffer.alloc(0) }, decoded]);
      }),
      { numRuns: 200 },
    );
  });

  test.each([
    ["another protocol", answer(body, { id: 0xff534d42 })],
    ["a request", answer(body, { flags: 0 })],
    ["a header that is cut", bytes("00000004 fe534d42")],
    ["a keep-alive of NetBIOS", bytes("85000000")],
    ["a length that nobody answers with", Buffer.from([0, 0x7f, 0xff, 0xff])],
  ])("is not %s", (_, message) => {
    expect(() => new MessageReader().push(message)).toThrow();
  });

  test("is kept waiting for no longer than its length, and no number is rounded", () => {
    const reader = new MessageReader();
    const head = Buffer.alloc(4);
    head.writeUInt32BE(messageBytesMax, 0);
    expect(reader.push(head)).toEqual([]);
    const far = new MessageReader().push(answer(body, { message: 2n ** 64n - 1n }));
    expect(far[0]?.messageId).toBe(-1);
  });

  test("names its dialect, if that was offered", () => {
    const negotiated = (dialect: string, size = "4100") =>
      Buffer.concat([bytes(`${size} 0100 ${dialect}`), Buffer.alloc(58)]);
    expect(dialectOf(negotiated("1002"))).toBe(0x0210);
    expect(dialectOf(negotiated("0202"))).toBe(0x0202);
    expect(dialectOf(negotiated("1103"))).toBeUndefined();
    expect(dialectOf(negotiated("1002", "0900"))).toBeUndefined();
    expect(dialectOf(negotiated("1002").subarray(0, 63))).toBeUndefined();
  });

  test("is a challenge, if its token is one and lies in it", () => {
    const token = bytes("4e544c4d53535000 02000000");
    const setUp = (at: string, length: string, rest: Buffer) =>
      Buffer.concat([bytes(`0900 0000 ${at} ${length}`), rest]);
    expect(isChallenge(setUp("4800", "0c00", token))).toBe(true);
    // In the wrapping of SPNEGO.
    expect(isChallenge(setUp("4800", "0e00", Buffer.concat([bytes("a181"), token])))).toBe(true);
    expect(isChallenge(setUp("4800", "0d00", token))).toBe(false);
    expect(isChallenge(setUp("4000", "0c00", token))).toBe(false);
    expect(isChallenge(setUp("4800", "0c00", bytes("4e544c4d53535000 03000000")))).toBe(false);
    expect(isChallenge(setUp("4800", "0800", bytes("4e544c4d53535000")))).toBe(false);
    expect(isChallenge(bytes("0900"))).toBe(false);
  });

  test("of any bytes is read without harm", () => {
    const any = fc.uint8Array({ maxLength: 300, size: "max" });
    fc.assert(
      fc.property(any, (noise) => {
        const whole = answer(Buffer.from(noise));
        for (const { body: read } of new MessageReader().push(whole)) {
          expect(typeof isChallenge(read)).toBe("boolean");
          expect([undefined, 0x0202, 0x0210]).toContain(dialectOf(read));
        }
        try {
          new MessageReader().push(noise);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
    );
  });
});
