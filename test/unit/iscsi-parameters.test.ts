/** The keys of a session and their negotiation, clause by clause (RFC 7143 clauses 6.2 and 13). */
import { describe, expect, test } from "vitest";
import {
  acceptAnswers,
  answerOffer,
  DEFAULT_PARAMETERS,
  type OwnParameters,
  offerPairs,
  type SessionParameters,
} from "../../firmware-ts/wire/iscsi/parameters.ts";

const own: OwnParameters = {
  digests: "refuse",
  receiveDataBytesMax: 65_536,
  initialR2t: false,
  immediateData: true,
  maxBurstBytes: 8192,
  firstBurstBytes: 4096,
  outstandingR2tMax: 4,
};

/** The answer to one offered pair, and the parameters that change with it; the problem when the negotiation ends. */
const answered = (key: string, value: string, change: Partial<OwnParameters> = {}) => {
  const outcome = answerOffer([[key, value]], { ...own, ...change });
  if (!outcome.ok) return "ends";
  const { answers, parameters } = outcome.value;
  const changed = Object.entries(parameters).filter(
    ([name, now]) => now !== DEFAULT_PARAMETERS[name as keyof SessionParameters],
  );
  return [...answers.map((pair) => pair.join("=")), ...changed.flat()];
};

test("a session that negotiated nothing has the defaults of clause 13", () => {
  expect(DEFAULT_PARAMETERS).toEqual({
    headerDigest: false, // 13.1
    dataDigest: false,
    initialR2t: true, // 13.10
    immediateData: true, // 13.11
    sendDataBytesMax: 8192, // 13.12
    maxBurstBytes: 262_144, // 13.13
    firstBurstBytes: 65_536, // 13.14
    outstandingR2tMax: 1, // 13.17
  });
});

describe("a number", () => {
  test.each([
    ["13.2 MaxConnections: the smaller, and we have one", "MaxConnections", "8", "1"],
    ["13.13 MaxBurstLength: the smaller", "MaxBurstLength", "16384", "8192"],
    ["13.14 FirstBurstLength: the smaller", "FirstBurstLength", "512", "512"],
    ["13.15 DefaultTime2Wait: the larger, and we want 2 seconds", "DefaultTime2Wait", "0", "2"],
    ["13.15 DefaultTime2Wait: the larger, theirs", "DefaultTime2Wait", "3600", "3600"],
    ["13.16 DefaultTime2Retain: the smaller, and we keep nothing", "DefaultTime2Retain", "20", "0"],
    ["13.17 MaxOutstandingR2T: the smaller", "MaxOutstandingR2T", "65535", "4"],
    ["13.20 ErrorRecoveryLevel: the smaller, and we have none", "ErrorRecoveryLevel", "2", "0"],
  ])("%s", (_, key, offered, answer) => {
    expect(answered(key, offered)).toContain(`${key}=${answer}`);
  });

  test.each([
    ["13.2", "MaxConnections", 1, 65_535],
    ["13.12", "MaxRecvDataSegmentLength", 512, 2 ** 24 - 1],
    ["13.13", "MaxBurstLength", 512, 2 ** 24 - 1],
    ["13.14", "FirstBurstLength", 512, 2 ** 24 - 1],
    ["13.15", "DefaultTime2Wait", 0, 3600],
    ["13.16", "DefaultTime2Retain", 0, 3600],
    ["13.17", "MaxOutstandingR2T", 1, 65_535],
    ["13.20", "ErrorRecoveryLevel", 0, 2],
  ])("outside its range ends the negotiation: %s %s", (_, key, least, most) => {
    expect(answered(key, `${least}`)).not.toBe("ends");
    expect(answered(key, `${most}`)).not.toBe("ends");
    expect(answered(key, `${least - 1}`)).toBe("ends");
    expect(answered(key, `${most + 1}`)).toBe("ends");
  });

  test("may be written in hexadecimal digits, and is answered in decimal ones (6.1)", () => {
    expect(answered("MaxBurstLength", "0x400")).toEqual([
      "MaxBurstLength=1024",
      "maxBurstBytes",
      1024,
    ]);
    expect(answered("MaxBurstLength", "0X4aF")).toContain("MaxBurstLength=1199");
    expect(answered("MaxRecvDataSegmentLength", "0x400")).toContain(1024);
    expect(answered("MaxRecvDataSegmentLength", "0X4aF")).toContain(1199);
  });

  test.each([
    "",
    "1e3",
    "1024.0",
    "+1024",
    " 1024",
    "1024 ",
    "0x",
    "0x4g0",
    "0b101",
    "10 24",
    "Yes",
  ])("is nothing else: %j", (text) => {
    expect(answered("MaxBurstLength", text)).toBe("ends");
    expect(answered("MaxRecvDataSegmentLength", text)).toBe("ends");
  });
});

describe("a Yes or No", () => {
  test.each([
    [
      "13.10 InitialR2T: Yes of either side wins",
      "InitialR2T",
      "initialR2t",
      ["No", "Yes", "Yes", "Yes"],
    ],
    [
      "13.11 ImmediateData: No of either side wins",
      "ImmediateData",
      "immediateData",
      ["No", "No", "No", "Yes"],
    ],
  ] as const)("%s", (_, key, name, outcomes) => {
    const cases = [
      [false, "No"],
      [false, "Yes"],
      [true, "No"],
      [true, "Yes"],
    ] as const;
    for (const [index, [ours, theirs]] of cases.entries()) {
      const outcome = answerOffer([[key, theirs]], { ...own, [name]: ours });
      expect(outcome).toMatchObject({
        value: {
          answers: [[key, outcomes[index]]],
          parameters: { [name]: outcomes[index] === "Yes" },
        },
      });
    }
  });

  test.each([
    ["13.18 DataPDUInOrder: we want order", "DataPDUInOrder", "Yes", "Yes"],
    ["13.19 DataSequenceInOrder: we want order", "DataSequenceInOrder", "Yes", "Yes"],
    ["13.25 OFMarker: obsolete, and refused", "OFMarker", "No", "No"],
    ["13.25 IFMarker: obsolete, and refused", "IFMarker", "No", "No"],
  ])("%s", (_, key, toNo, toYes) => {
    expect(answered(key, "No")).toEqual([`${key}=${toNo}`]);
    expect(answered(key, "Yes")).toEqual([`${key}=${toYes}`]);
  });

  test.each(["yes", "", "1", "Maybe", "Yes,No"])("is nothing else: %j", (text) => {
    expect(answered("InitialR2T", text)).toBe("ends");
    expect(answered("ImmediateData", text)).toBe("ends");
  });
});

describe("a digest (13.1): the first of the offered list that both have", () => {
  test.each([
    ["refuse", "CRC32C,None", "None"],
    ["refuse", "None", "None"],
    ["refuse", "CRC32C", undefined],
    ["allow", "CRC32C,None", "CRC32C"],
    ["allow", "None,CRC32C", "None"],
    ["allow", "Whirlpool,CRC32C", "CRC32C"],
    ["allow", "Whirlpool", undefined],
    ["require", "None,CRC32C", "CRC32C"],
    ["require", "None", undefined],
  ] as const)("we %s it, they offer %s: %s", (digests, offered, chosen) => {
    for (const [key, name] of [
      ["HeaderDigest", "headerDigest"],
      ["DataDigest", "dataDigest"],
    ] as const) {
      const changed = chosen === "CRC32C" ? [name, true] : [];
      expect(answered(key, offered, { digests })).toEqual(
        chosen === undefined ? "ends" : [`${key}=${chosen}`, ...changed],
      );
    }
  });
});

describe("answering an offer", () => {
  test("takes each key over into the session's parameters, and leaves the others as they were", () => {
    const before = { ...DEFAULT_PARAMETERS, outstandingR2tMax: 9, headerDigest: true };
    const offer = [
      ["HeaderDigest", "None"],
      ["MaxRecvDataSegmentLength", "1024"],
      ["MaxBurstLength", "4096"],
      ["FirstBurstLength", "2048"],
      ["InitialR2T", "No"],
      ["ImmediateData", "No"],
    ] as const;
    expect(answerOffer(offer, own, before)).toMatchObject({
      value: {
        parameters: {
          headerDigest: false,
          dataDigest: false,
          sendDataBytesMax: 1024,
          maxBurstBytes: 4096,
          firstBurstBytes: 2048,
          initialR2t: false,
          immediateData: false,
          outstandingR2tMax: 9,
        },
      },
    });
  });

  test("declares our own segment length for theirs, which is no negotiation (13.12)", () => {
    expect(answered("MaxRecvDataSegmentLength", "1024")).toEqual([
      "MaxRecvDataSegmentLength=65536",
      "sendDataBytesMax",
      1024,
    ]);
  });

  test.each([
    "InitiatorName",
    "InitiatorAlias",
    "TargetName",
    "TargetAlias",
    "TargetAddress",
    "TargetPortalGroupTag",
    "SessionType",
    "AuthMethod",
  ])("says nothing to %s, which names or describes", (key) => {
    expect(answered(key, "whatever")).toEqual([]);
  });

  test.each([
    "X-net.example.key",
    "TaskReporting",
    "Toaster",
    "constructor",
    "toString",
    "__proto__",
  ])("does not understand %s, and goes on (6.2)", (key) => {
    for (const value of ["Yes", "1", ""])
      expect(answered(key, value)).toEqual([`${key}=NotUnderstood`]);
  });

  test("ends at the first bad value, whatever follows", () => {
    const offer = [
      ["MaxBurstLength", "1"],
      ["FirstBurstLength", "512"],
    ] as const;
    expect(answerOffer(offer, own).ok).toBe(false);
  });
});

describe("what an initiator offers", () => {
  test("is each key that its limits speak about, markers not among them", () => {
    expect(offerPairs(own)).toEqual([
      ["HeaderDigest", "None"],
      ["DataDigest", "None"],
      ["MaxRecvDataSegmentLength", "65536"],
      ["MaxBurstLength", "8192"],
      ["FirstBurstLength", "4096"],
      ["MaxOutstandingR2T", "4"],
      ["MaxConnections", "1"],
      ["ErrorRecoveryLevel", "0"],
      ["DefaultTime2Wait", "2"],
      ["DefaultTime2Retain", "0"],
      ["InitialR2T", "No"],
      ["ImmediateData", "Yes"],
      ["DataPDUInOrder", "Yes"],
      ["DataSequenceInOrder", "Yes"],
    ]);
  });

  test.each([
    ["refuse", "None"],
    ["allow", "None,CRC32C"],
    ["require", "CRC32C"],
  ] as const)("when it would %s digests: %s (13.1)", (digests, list) => {
    expect(offerPairs({ ...own, digests }).slice(0, 2)).toEqual([
      ["HeaderDigest", list],
      ["DataDigest", list],
    ]);
  });
});

describe("what an initiator accepts as answer", () => {
  const accepted = (key: string, value: string, change: Partial<OwnParameters> = {}) => {
    const outcome = acceptAnswers([[key, value]], { ...own, ...change });
    return outcome.ok ? outcome.value : "ends";
  };

  test("is within what it offered, and counts from then on", () => {
    const answers = [
      ["HeaderDigest", "CRC32C"],
      ["DataDigest", "None"],
      ["MaxRecvDataSegmentLength", "131072"],
      ["MaxBurstLength", "0x1000"],
      ["FirstBurstLength", "512"],
      ["MaxOutstandingR2T", "2"],
      ["DefaultTime2Wait", "5"],
      ["DefaultTime2Retain", "0"],
      ["InitialR2T", "Yes"],
      ["ImmediateData", "No"],
      ["DataPDUInOrder", "Yes"],
    ] as const;
    expect(acceptAnswers(answers, { ...own, digests: "allow" })).toEqual({
      ok: true,
      value: {
        headerDigest: true,
        dataDigest: false,
        sendDataBytesMax: 131_072,
        maxBurstBytes: 4096,
        firstBurstBytes: 512,
        outstandingR2tMax: 2,
        initialR2t: true,
        immediateData: false,
      },
    });
  });

  test.each([
    ["more than was offered (13.13)", "MaxBurstLength", "8193"],
    ["more R2Ts than were offered (13.17)", "MaxOutstandingR2T", "5"],
    ["a shorter wait than was asked for (13.15)", "DefaultTime2Wait", "1"],
    ["a number out of range", "FirstBurstLength", "511"],
    ["a No where we said Yes and either suffices (13.18)", "DataPDUInOrder", "No"],
    ["a digest that was not offered (13.1)", "DataDigest", "CRC32C"],
    ["a list of digests, which leaves open which (6.2.1)", "HeaderDigest", "None,CRC32C"],
    ["a segment length out of range (13.12)", "MaxRecvDataSegmentLength", "511"],
    ["no Yes and no No", "ImmediateData", "Perhaps"],
    ["Reject, of a negotiated key (6.2)", "MaxBurstLength", "Reject"],
    ["Reject, of any key (6.2)", "TargetAlias", "Reject"],
  ])("is not %s", (_, key, value) => {
    expect(accepted(key, value)).toBe("ends");
  });

  test("is not a Yes to data that we do not send (13.11)", () => {
    expect(accepted("ImmediateData", "Yes", { immediateData: false })).toBe("ends");
  });

  test.each([
    ["a key that was not understood (6.2)", "MaxBurstLength", "NotUnderstood"],
    ["a key that does not matter beside another (6.2)", "FirstBurstLength", "Irrelevant"],
    ["a name", "TargetAlias", "shelf"],
    ["the portal group (13.9)", "TargetPortalGroupTag", "1"],
    ["a key of somebody else", "toString", "Yes"],
    ["another one", "constructor", "1"],
  ])("changes nothing by %s", (_, key, value) => {
    const before = { ...DEFAULT_PARAMETERS, maxBurstBytes: 777 };
    expect(acceptAnswers([[key, value]], own, before)).toEqual({ ok: true, value: before });
  });
});
