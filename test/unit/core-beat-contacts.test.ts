/** Sessions and contacts: what a partner's new life may not inherit, and which beats begin or end a contact. */
import { beforeEach, describe, expect, test } from "vitest";
import { type Mode, modes } from "../../firmware-ts/schema/beat.ts";
import { linkNames } from "../../firmware-ts/schema/ids.ts";
import { BeatBench, me, timing } from "../support/beat-bench.ts";

const { gateTimeoutMs, soloGateTimeoutMs } = timing;

let beat: BeatBench;
const seen = () => beat.seen().map(({ kind }) => kind);
const refusals = () =>
  beat.seen().flatMap((each) => (each.kind === "frameRefused" ? [each.reason] : []));

beforeEach(() => {
  beat = new BeatBench();
  beat.say({ mode: "paired", ground: "acknowledged" }, 0);
});

describe("numbers of beats", () => {
  test("count on each link by themselves: a beat that came by another way is heard there too", () => {
    beat.hear({ sequence: 5 }, 1, "network");
    beat.hear({ sequence: 5 }, 2, "serial");
    beat.hear({ sequence: 4 }, 3, "disk");
    expect(linkNames.map((name) => beat.state.links[name].lastHeardMs)).toEqual([2, 1, 3]);
    for (const name of ["network", "serial"] as const) {
      beat.hear({ sequence: 5 }, 4, name);
      expect(refusals()).toEqual(["replay"]);
    }
  });

  test("begin anew with a session, on every link", () => {
    for (const name of linkNames) beat.hear({ sequence: 50 }, 1, name);
    beat.say({}, 2);
    for (const name of linkNames) {
      beat.hear({ session: 333, sequence: 1 }, 2, name);
      expect(refusals()).toEqual([]);
    }
    expect(beat.state.heard).toEqual({ session: 333, sequence: 1 });
  });

  test("that are older than the newest teach nothing but that their link lives", () => {
    beat.hear({ sequence: 5, owned: "1" }, 1, "network");
    beat.hear({ sequence: 4, owned: "01", granting: true }, 2, "serial");
    expect(beat.effects).toEqual([]);
    expect(beat.state.partner?.owned).toBe("1");
    expect(beat.state.ackLeaseMs).toBe(0);
  });
});

describe("sessions that have ended", () => {
  test("leave no message number behind: the next session begins with its own", () => {
    const body = new Uint8Array([1]);
    beat.hear({ message: { id: 7, body }, messageAck: 4 }, 1);
    beat.say({}, 2);
    beat.hear({ session: 333, sequence: 1, message: { id: 1, body }, messageAck: 1 }, 3);
    expect(seen()).toEqual(["partnerLost", "partner", "message", "messageAcked"]);
  });

  test("leave no candidate behind", () => {
    beat.hear({ session: 333, sequence: 1, ack: { session: 0, sequence: 0 } }, 1);
    expect(beat.state.candidate).toEqual({ session: 333, sequence: 1 });
    beat.say({}, 2);
    beat.hear({ session: 333, sequence: 2 }, 3);
    expect(beat.state.candidate).toBeUndefined();
    expect(beat.state.heard).toEqual({ session: 333, sequence: 2 });
  });
});

describe("a message", () => {
  const body = new Uint8Array([1]);

  test("is new when its number is higher than all before; so is an acknowledgement", () => {
    beat.hear({ message: { id: 2, body }, messageAck: 2 }, 1);
    expect(seen()).toEqual(["epoch", "partner", "message", "messageAcked"]);
    beat.hear({ message: { id: 1, body }, messageAck: 1 }, 2);
    expect(seen()).toEqual([]);
    beat.hear({ message: { id: 3, body }, messageAck: 2 }, 3);
    expect(beat.seen()).toEqual([{ kind: "message", id: 3, body }]);
    beat.hear({ message: { id: 3, body }, messageAck: 3 }, 4);
    expect(beat.seen()).toEqual([{ kind: "messageAcked", id: 3 }]);
  });

  test("in a beat that was overtaken is taken while its sender shows the same mode and epoch", () => {
    const message = { id: 1, body };
    beat.hear({ sequence: 5, mode: "paired", epoch: 4 }, 1, "network");
    beat.hear({ sequence: 4, mode: "paired", epoch: 4, message, messageAck: 1 }, 2, "serial");
    expect(seen()).toEqual(["message", "messageAcked"]);
  });

  test.each([
    ["fallen out, and is a guest", { mode: "joining", epoch: 4 }],
    ["fallen out, and is of the pair again", { mode: "paired", epoch: 5 }],
  ] as const)("in a beat that was overtaken is void when its sender has %s", (_, since) => {
    const message = { id: 1, body };
    beat.hear({ sequence: 3, mode: "joining", epoch: 3 }, 1, "network");
    beat.hear({ sequence: 9, ...since }, 2, "network");
    beat.hear({ sequence: 4, mode: "paired", epoch: 4, message, messageAck: 1 }, 3, "serial");
    expect(seen()).toEqual([]);
    beat.hear({ sequence: 10, ...since, message: { id: 2, body } }, 4, "network");
    expect(beat.seen()).toEqual([{ kind: "message", id: 2, body }]);
  });
});

describe("an answer", () => {
  const proves = (sequence: number, session: number, nowMs: number) => {
    beat.hear({ ack: { session, sequence } }, nowMs);
    return beat.state.partner !== undefined;
  };

  test("to what an earlier life of ours said proves nothing, though this one has used the same number", () => {
    expect(proves(beat.state.sequence, me + 1, 1)).toBe(false);
    expect(proves(beat.state.sequence, me, 1)).toBe(true);
  });

  test("is fresh for its time, and not longer", () => {
    const { freshAckMs } = timing;
    expect(proves(beat.state.sequence, me, freshAckMs + 1)).toBe(false);
    expect(proves(beat.state.sequence, me, freshAckMs)).toBe(true);
  });

  test.each([
    ["to what we have not said yet", 0, 99],
    ["to what an earlier life of ours said", 1, 0],
  ])("%s shows no turn of ours as heard", (_, earlier, ahead) => {
    beat.hear({}, 1);
    beat.say({ mode: "alone", turn: 4 }, 2);
    const { heardAck } = beat.state;
    const ack = { session: me + earlier, sequence: beat.state.sequence + ahead };
    beat.hear({ mode: "joining", ack }, 3);
    expect(beat.state.heardAck).toBe(heardAck);
    expect(beat.state.partner?.answersTurn).not.toBe(4);
  });
});

describe("our word", () => {
  test("is not given to a stranger, even one that comes in the moment before a loss is noticed", () => {
    beat.hear({}, 1);
    beat.grant(2);
    // Silent for longer than any limit, and no tick yet that says so.
    const nowMs = 2 + timing.lossMs;
    beat.hear({ session: 333, sequence: 1, ack: { session: 0, sequence: 0 } }, nowMs);
    expect(beat.state).toMatchObject({ granting: true, candidate: { session: 333 } });
    expect(beat.say({}, nowMs + 1)).toMatchObject({ ack: { session: 333 }, granting: false });
  });

  test("is taken back when the main loop says so", () => {
    beat.hear({}, 1);
    beat.grant(2);
    expect(beat.say({}, 3).granting).toBe(true);
    beat.step({ kind: "grant", nowMs: 4, on: false, contact: beat.state.contact });
    expect(beat.say({}, 5).granting).toBe(false);
  });

  test("is given to nobody while nobody is heard, even when the contact is the same", () => {
    beat.grant(1);
    expect(beat.effects).toEqual([]);
    beat.hear({}, 2);
    expect(beat.say({}, 3).granting).toBe(false);
  });

  test("bounds the partner's gates by the beat that it answered, and is not moved by what it did not", () => {
    beat.hear({}, 1);
    beat.grant(2);
    beat.say({}, 3);
    beat.step({ kind: "grant", nowMs: 4, on: false, contact: beat.state.contact });
    beat.hear({}, 5);
    beat.say({}, 6);
    expect(beat.state.lastGrantedMs).toBe(1);
  });
});

describe("a lease", () => {
  test("of the partner is never shortened by a newer beat that answers an older one of ours", () => {
    const older = beat.state.sequence;
    beat.say({}, 20);
    beat.hear({ granting: true }, 21);
    expect(beat.state.ackLeaseMs).toBe(20 + gateTimeoutMs);
    beat.hear({ granting: true, ack: { session: me, sequence: older } }, 22);
    expect(beat.state.ackLeaseMs).toBe(20 + gateTimeoutMs);
    expect(beat.state.heardAck).toBe(beat.state.sequence);
  });

  test("is none when it answers nothing that we said lately", () => {
    const older = beat.state.sequence;
    beat.say({}, timing.freshAckMs);
    beat.hear({}, timing.freshAckMs);
    beat.hear({ granting: true, ack: { session: me, sequence: older } }, timing.freshAckMs + 1);
    expect(beat.state.ackLeaseMs).toBe(0);
  });

  test.each(modes)(
    "is refused to one that is registered, and nobody is told otherwise: %s",
    (mode) => {
      beat.say({ mode }, 1);
      beat.step({ kind: "written", nowMs: 9, sentAtMs: 9, accepted: 0, refused: 3, total: 3 });
      const isRegistered = ["joining", "paired", "alone"].includes(mode);
      expect(seen()).toEqual(isRegistered ? ["soloRefused"] : []);
    },
  );

  test.each([
    [1, 1, 0],
    [3, 2, 1],
    [5, 3, 2],
  ])("of %i coordinators needs %i, and is refused by as many", (total, majority, less) => {
    const written = (sentAtMs: number, accepted: number, refused: number) => {
      const one = new BeatBench();
      one.say({ mode: "joining" }, 0);
      one.step({ kind: "written", nowMs: sentAtMs, sentAtMs, accepted, refused, total });
      return [one.state.soloLeaseMs, one.seen().map(({ kind }) => kind)];
    };
    expect(written(9, majority, 0)).toEqual([9 + soloGateTimeoutMs, []]);
    expect(written(9, less, 0)).toEqual([0, []]);
    expect(written(9, 0, majority)).toEqual([0, ["soloRefused"]]);
    expect(written(9, 0, less)).toEqual([0, []]);
  });

  test("of the coordinators is not shortened by the outcome of an older write that comes later", () => {
    const written = (sentAtMs: number) =>
      beat.step({ kind: "written", nowMs: 90, sentAtMs, accepted: 3, refused: 0, total: 3 });
    written(50);
    written(40);
    expect(beat.state.soloLeaseMs).toBe(50 + soloGateTimeoutMs);
  });
});

describe("a contact", () => {
  const hearAs = (mode: Mode, nowMs: number) => beat.hear({ mode }, nowMs);

  test("begins with an answer to what we said lately; a beat without one is only noted", () => {
    beat.hear({}, 1);
    beat.hear({ goodbye: true }, 2);
    const late = 2 * timing.freshAckMs;
    beat.hear({}, late);
    expect(seen()).toEqual([]);
    expect(beat.state).toMatchObject({ partner: undefined, heardAtMs: late });
    beat.say({}, late + 1);
    beat.hear({}, late + 2);
    expect(seen()).toEqual(["partner"]);
  });

  test("that has ended is not ended again", () => {
    beat.hear({}, 1);
    const { contact } = beat.state;
    beat.hear({ goodbye: true }, 2);
    expect([seen(), beat.state.contact]).toEqual([["partnerLost"], contact + 1]);
    beat.hear({ goodbye: true }, 3);
    expect([seen(), beat.state.contact]).toEqual([[], contact + 1]);
    expect(beat.state.heardAtMs).toBe(3);
  });

  test.each(modes)(
    "with a partner that is %s and then a guest has ended, if it was a member",
    (mode) => {
      hearAs(mode, 1);
      const isHeard = mode !== "starting" && mode !== "out";
      expect(beat.state.partner?.mode).toBe(isHeard ? mode : undefined);
      hearAs("joining", 2);
      const isMember = isHeard && mode !== "joining";
      expect(seen()).toEqual(isMember ? ["partnerLost"] : mode === "joining" ? [] : ["partner"]);
    },
  );

  test("of one that was never alone is bounded from the beginning, and of one that was, from its turn", () => {
    const bound = () =>
      beat.seen().flatMap((each) => (each.kind === "partnerLost" ? [each.soloBoundMs] : []));
    hearAs("joining", 1);
    hearAs("paired", 20);
    beat.hear({ goodbye: true }, 30);
    expect(bound()).toEqual([1 + timing.soloSilentMs]);
    hearAs("alone", 40);
    hearAs("paired", 50);
    hearAs("alone", 60);
    beat.hear({ goodbye: true }, 70);
    expect(bound()).toEqual([Number.MAX_SAFE_INTEGER]);
  });

  test("whose partner gave no lease tells so when it ends", () => {
    beat.hear({}, 1);
    beat.hear({ goodbye: true }, 2);
    expect(beat.seen()).toMatchObject([{ leasedAtMs: undefined, lastGrantedMs: undefined }]);
  });
});
