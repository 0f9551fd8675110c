import { describe, expect, it } from "vitest";
import { HistoryChecker, type Operation } from "../../bench/clients/history.ts";

const write = (seq: number, completedAtMs: number): Operation => ({
  kind: "write",
  key: "r0",
  seq,
  completedAtMs,
});
const read = (seq: number, invokedAtMs: number, completedAtMs: number): Operation => ({
  kind: "read",
  key: "r0",
  seq,
  invokedAtMs,
  completedAtMs,
});

function judge(...operations: Operation[]) {
  const checker = new HistoryChecker();
  for (const operation of operations) checker.add(operation);
  return checker;
}

describe("history checker: what is allowed", () => {
  it("a read that returns the last acknowledged write", () => {
    const verdict = judge(write(1, 10), read(1, 11, 12), write(2, 20), read(2, 21, 22)).verdict();
    expect(verdict).toMatchObject({ ackedWrites: 2, reads: 2, staleReads: 0, phantomReads: 0 });
  });

  it("a read that overlaps a write returns the old or the new value", () => {
    const old = judge(write(1, 10), write(2, 20), read(1, 15, 25)).verdict();
    const newer = judge(write(1, 10), read(2, 11, 15), write(2, 20)).verdict();
    expect([old.staleReads, newer.phantomReads]).toEqual([0, 0]);
  });

  it("a read that began at the very instant of an acknowledgement is concurrent with it", () => {
    expect(judge(write(1, 10), write(2, 20), read(1, 20, 21)).verdict().staleReads).toBe(0);
  });

  it("a register before its first write reads as 0", () => {
    expect(judge(read(0, 1, 2), write(1, 3)).verdict()).toMatchObject({ staleReads: 0, reads: 1 });
  });
});

describe("history checker: what is caught", () => {
  it("a read that began after an acknowledgement and returned less", () => {
    const verdict = judge(write(1, 10), write(2, 20), read(1, 21, 22)).verdict();
    expect(verdict.staleReads).toBe(1);
    expect(verdict.findings[0]).toContain("read 1");
  });

  it("a read that returned less than an earlier read, though the write was never acknowledged", () => {
    // The first read saw write 2 in flight: only the death of the server explains the second.
    const verdict = judge(write(1, 10), read(2, 11, 12), read(1, 13, 14), write(2, 30)).verdict();
    expect(verdict).toMatchObject({ rolledBackReads: 1, staleReads: 0 });
  });

  it("a read that returned less than an earlier read, once that write was acknowledged or by more than it", () => {
    const after = judge(write(1, 10), read(2, 11, 12), write(2, 13), read(1, 12.5, 14)).verdict();
    const deep = judge(write(1, 9), write(2, 10), read(3, 11, 12), read(1, 13, 14)).verdict();
    for (const verdict of [after, deep])
      expect(verdict).toMatchObject({ rolledBackReads: 0, staleReads: 1 });
  });

  it("a read of something that nobody can have written yet", () => {
    expect(judge(write(1, 10), read(3, 11, 12)).verdict().phantomReads).toBe(1);
  });

  it("an acknowledged write that a final read does not find", () => {
    const checker = judge(write(1, 10), write(2, 20), write(3, 30));
    checker.addFinalRead("r0", 1);
    expect(checker.verdict().lostAckedWrites).toBe(2);
  });

  it("a register that is gone altogether", () => {
    const checker = judge(write(1, 10));
    checker.addFinalRead("r0", 0);
    expect(checker.verdict().lostAckedWrites).toBe(1);
  });

  it("acknowledged log records that are missing", () => {
    const checker = judge(write(1, 10));
    checker.addLostRecords("log", 3);
    checker.addLostRecords("log", 0);
    expect(checker.verdict().lostAckedWrites).toBe(3);
  });

  it("a history that skips an acknowledgement is not judged but refused", () => {
    expect(() => judge(write(1, 10), write(3, 20))).toThrow(/write 3 acknowledged after 1/);
  });

  it("registers are judged apart", () => {
    const checker = judge(write(1, 10), write(2, 20));
    checker.add({ kind: "read", key: "r1", seq: 0, invokedAtMs: 30, completedAtMs: 31 });
    expect(checker.verdict().staleReads).toBe(0);
  });
});

describe("history checker: limits", () => {
  it("still catches a stale read after more writes than it remembers", () => {
    const checker = new HistoryChecker();
    const writes = 200_000;
    for (let seq = 1; seq <= writes; seq += 1) checker.add(write(seq, seq));
    checker.add(read(writes - 10, writes + 1, writes + 2));
    expect(checker.verdict()).toMatchObject({ staleReads: 1, unjudgedReads: 0 });
  });

  it("counts a read older than its memory as not judged", () => {
    const checker = new HistoryChecker();
    for (let seq = 1; seq <= 200_000; seq += 1) checker.add(write(seq, seq));
    checker.add(read(5, 10, 200_001));
    expect(checker.verdict()).toMatchObject({ staleReads: 0, unjudgedReads: 1 });
  });

  it("keeps only the first findings in words", () => {
    const checker = judge(write(1, 10), write(2, 20));
    for (let i = 0; i < 100; i += 1) checker.add(read(1, 30 + i, 30 + i));
    expect(checker.verdict().staleReads).toBe(100);
    expect(checker.verdict().findings.length).toBe(20);
  });
});
