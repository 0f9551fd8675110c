import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { journalLine, openJournal, readJournalLine } from "../../firmware-ts/daemon/journal.ts";
import { openRecordStore } from "../../firmware-ts/daemon/record.ts";
import { replayJournal } from "../../firmware-ts/daemon/replay.ts";
import { jsonLines } from "../support/json-lines.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "dyad-journal-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const quiet = { log: () => undefined };
const header = {
  version: 1,
  startedAt: "now",
  config: {},
  configuration: 7,
  definitions: [],
} as const;

describe("journal", () => {
  test("bytes survive, also as a Buffer", () => {
    const entry = { one: new Uint8Array([0, 255, 7]), two: Buffer.from([1, 2]), three: [1] };
    expect(readJournalLine(journalLine(entry))).toEqual({
      one: new Uint8Array([0, 255, 7]),
      two: new Uint8Array([1, 2]),
      three: [1],
    });
  });

  test("a header begins each life, events follow in order", () => {
    const path = join(folder, "journal.jsonl");
    for (const life of [1, 2]) {
      const journal = openJournal(path, header, quiet);
      journal.write({ kind: "carrier", up: true, nowMs: life }, []);
      journal.write({ kind: "tick", nowMs: life + 0.5 }, [{ kind: "grant", on: true, contact: 1 }]);
      journal.close();
    }
    const lines = jsonLines(readFileSync(path, "utf8"));
    expect(lines.map((line) => line.event?.nowMs ?? "header")).toEqual([
      "header",
      1,
      1.5,
      "header",
      2,
      2.5,
    ]);
  });

  test("a full file is put aside, and the oldest is given up", () => {
    const path = join(folder, "journal.jsonl");
    const journal = openJournal(path, header, quiet);
    const large = "x".repeat(1024 * 1024);
    for (let i = 0; i < 90; i += 1) {
      journal.write({ kind: "shutdown", reason: large, nowMs: i }, []);
      journal.flush();
    }
    journal.close();
    expect(readdirSync(folder).sort()).toEqual([
      "journal.jsonl",
      "journal.jsonl.1",
      "journal.jsonl.2",
      "journal.jsonl.3",
      "journal.jsonl.4",
    ]);
    for (const name of readdirSync(folder))
      expect(readFileSync(join(folder, name), "utf8").startsWith('{"header"')).toBe(true);
  });

  test("a disk that takes nothing ends nobody: entries are dropped, which is told once, and a line says where", () => {
    const path = join(folder, "journal.jsonl");
    const told: string[] = [];
    let isFull = false;
    const journal = openJournal(path, header, {
      log: (message) => told.push(message),
      append(file, text) {
        if (!isFull) return writeSync(file, text);
        // A disk may take a part of it first.
        writeSync(file, text.slice(0, 10));
        throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
      },
    });
    const note = (nowMs: number) => {
      journal.write({ kind: "carrier", up: true, nowMs }, []);
      journal.flush();
    };
    note(1);
    isFull = true;
    for (const nowMs of [2, 3, 4]) note(nowMs);
    isFull = false;
    note(5);
    journal.close();
    expect(told).toHaveLength(2);
    expect(told[0]).toContain("ENOSPC");
    expect(told[1]).toContain("3 entries are missing");
    const lines = readFileSync(path, "utf8").split("\n");
    expect(lines.map((line) => line.slice(0, 12))).toContain('{"dropped":3');
    expect(lines.some((line) => line.includes('"nowMs":5'))).toBe(true);
    // Whoever replays it ends where something is missing.
    expect(replayJournal(lines.slice(1)).events).toBe(0);
  });

  test("a journal on a full disk from the start still lets the controller run", () => {
    const journal = openJournal("/dev/full", header, quiet);
    journal.write({ kind: "carrier", up: true, nowMs: 1 }, []);
    expect(() => journal.flush()).not.toThrow();
    expect(() => journal.close()).not.toThrow();
  });

  test("a replay notices a decision that comes out differently", () => {
    const config = {
      version: 1,
      controller: { id: "a" },
      pair: { id: 1, keyFile: "/k" },
      links: { network: { local: "10.0.0.1", partner: "10.0.0.2" } },
      data: { nic: "eth0" },
      shelf: { portal: "h:1", target: "t", initiatorName: "i", coordinators: ["C0"] },
      virtualServers: [
        {
          name: "vs1",
          home: "a",
          addresses: ["10.0.0.9/24"],
          volumes: [{ disk: "D", export: "/v" }],
        },
      ],
    };
    const boot = { kind: "boot", record: { version: 1, epoch: 3 }, nowMs: 1 };
    const lines = [
      JSON.stringify({ header: { ...header, config } }),
      JSON.stringify({ event: boot, effects: [] }),
    ];
    const replay = replayJournal(lines);
    expect(replay).toMatchObject({ lives: 1, events: 1 });
    expect(replay.differences[0]).toContain("controller.boot");
  });
});

describe("record", () => {
  test("what was written is read again; the newest wins", () => {
    openRecordStore(folder).write({ version: 1, epoch: 4 });
    openRecordStore(folder).write({ version: 1, epoch: 5 });
    expect(openRecordStore(folder).read()).toEqual({ version: 1, epoch: 5 });
  });

  test("a new controller begins at epoch 0", () => {
    expect(openRecordStore(join(folder, "new")).read()).toEqual({ version: 1, epoch: 0 });
  });

  test.each(["torn", "flipped", "empty"])("a %s slot leaves the other one", (how) => {
    const store = openRecordStore(folder);
    store.write({ version: 1, epoch: 8 });
    store.write({ version: 1, epoch: 9 });
    const newest = ["record.0", "record.1"].find((name) =>
      readFileSync(join(folder, name), "utf8").includes('"epoch":9'),
    );
    const path = join(folder, newest ?? "");
    const text = readFileSync(path, "utf8");
    const damaged =
      how === "torn"
        ? text.slice(0, text.length - 5)
        : how === "empty"
          ? ""
          : text.replace('"epoch":9', '"epoch":7');
    writeFileSync(path, damaged);
    expect(openRecordStore(folder).read()).toEqual({ version: 1, epoch: 8 });
    // The next write must not go to the good slot.
    openRecordStore(folder).write({ version: 1, epoch: 10 });
    expect(openRecordStore(folder).read()).toEqual({ version: 1, epoch: 10 });
  });
});
