/** The commands that a user types, from outside: their lines, their exit status, and that they leave nothing. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cleanPrefix } from "../../bench/world/world.ts";
import { openPty } from "../../hal/bench/pty.ts";
import { leftovers } from "../bench/support/leftovers.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";

const prefix = "be2e";
const entry = new URL("../../bench/main.ts", import.meta.url).pathname;

// Also what a run left that was killed as a whole.
beforeEach(async () => {
  await cleanPrefix(prefix);
});
afterEach(async () => {
  await cleanPrefix(prefix);
});

function bench(...words: string[]) {
  const child = spawn(process.execPath, [entry, ...words, "--prefix", prefix], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = { out: "", err: "" };
  child.stdout.on("data", (data: Buffer) => {
    said.out += String(data);
  });
  child.stderr.on("data", (data: Buffer) => {
    said.err += String(data);
  });
  return { child, said, ended: endOf(child) };
}

function endOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once("close", (code) => resolve(code)));
}

/** What a command printed, which must be one line, of something in which nothing went wrong. */
async function figuresOf({ said, ended }: ReturnType<typeof bench>) {
  const code = await ended;
  expect(said.out.trim().split("\n"), said.err).toHaveLength(1);
  const result = JSON.parse(said.out);
  const problems: string[] = result.problems;
  // How fast is the campaign's question, on a machine that does nothing else.
  const slow = /^(run \d+: )?(median outage|silent for|settled after|a neighbour was silent for) /;
  const wrong = problems.filter((problem) => !slow.test(problem));
  expect(wrong, said.err).toEqual([]);
  expect(code).toBe(problems.length === 0 ? 0 : 1);
  expect(result).toMatchObject({ lostAckedWrites: 0, staleReads: 0, doubleAnswers: 0 });
  return result;
}

describe("bench failover", () => {
  it.each(["kill9", "split"])("prints one line of figures for %s", async (fault) => {
    const words = ["failover", "--fault", fault, "--runs", "1", "--json"];
    const result = await figuresOf(bench(...words));
    expect(result).toMatchObject({ fault, runs: 1 });
    expect(result.addressOutageMs.median).toBeGreaterThan(0);
    expect(result.nfsReadGapMs.max).toBeGreaterThan(0);
    expect(result.ackedWrites).toBeGreaterThan(0);
    expect(await leftovers(prefix)).toEqual([]);
  });

  // What befalls one virtual server: it is restarted or repaired in place, or moves, and its neighbour on the same controller is not touched.
  it.each([
    ["hang", "both", 1500],
    ["address", "both", 0],
    ["readonly", ["a", "b"], 0],
  ] as const)("%s: only the first virtual server notices", async (fault, winner, gapMsMin) => {
    const words = ["--fault", fault, "--servers", "4", "--clients", "4", "--runs", "1", "--json"];
    const result = await figuresOf(bench("failover", ...words));
    expect([winner].flat()).toContain(result.winner);
    // It was really struck: a hang is noticed by two questions of a second each, which its clients have waited.
    expect(result.nfsReadGapMs.max).toBeGreaterThan(gapMsMin);
    expect(result.neighbourGapMs.max).toBeLessThan(1500);
    expect(await leftovers(prefix)).toEqual([]);
  });

  it("refuses a fault that there is not, as usage", async () => {
    const { said, ended } = bench("failover", "--fault", "flood");
    expect(await ended).not.toBe(0);
    expect(said.err).toContain("kill9");
  });
});

describe("bench vserver", () => {
  it("moves several virtual servers while clients work, and their neighbours stay where they are", async () => {
    const words = [
      "vserver",
      "transfer",
      "--count",
      "2",
      "--runs",
      "1",
      "--clients",
      "4",
      "--json",
    ];
    const result = await figuresOf(bench(...words));
    expect(result).toMatchObject({ test: "vserver transfer", count: 2, servers: 4, runs: 1 });
    expect(result.clientGapMs.min).toBeGreaterThan(0);
    expect(result.ackedWrites).toBeGreaterThan(0);
    expect(await leftovers(prefix)).toEqual([]);
  });
});

describe("bench run", () => {
  it("without a terminal prints events and a line of state per second, and ends with its script", async () => {
    const { said, ended } = bench("run", "--script", "1s serial; 6s repair; 10s quit");
    expect(await ended, said.err).toBe(0);
    expect(said.out).toContain("link.red: serial link: red");
    expect(said.out).toMatch(/a paired e\d+ .*vs1@a \| vs2@b/);
    expect(said.out).toContain("broken: serial");
    expect(await leftovers(prefix)).toEqual([]);
  });

  it("on a terminal draws 80×24, obeys keys, and gives the terminal back", async () => {
    const directory = mkdtempSync(join(tmpdir(), "dyad-e2e-"));
    let screen = "";
    const pty = openPty(join(directory, "tty"), (data) => {
      screen += String(data);
    });
    execFileSync("stty", ["-F", pty.path, "cols", "80", "rows", "24"]);
    const tty = openSync(pty.path, "r+");
    const child = spawn(process.execPath, [entry, "run", "--prefix", prefix], {
      stdio: [tty, tty, "pipe"],
    });
    const ended = endOf(child);
    try {
      await until("the view", () => screen.includes("controller a"), 2 * limitsMs.condition);
      pty.write(Buffer.from("b"));
      await until("the key", () => screen.includes("keys now mean controller b"));
      pty.write(Buffer.from("q"));
      expect(await ended).toBe(0);
      expect(screen).toContain("\x1b[?1049h");
      expect(screen.trimEnd().endsWith("\x1b[?1049l")).toBe(true);
      expect(screen).toContain("vs1");
    } finally {
      child.kill("SIGKILL");
      pty.close();
      rmSync(directory, { recursive: true, force: true });
    }
    expect(await leftovers(prefix)).toEqual([]);
  });

  it("interrupted while it starts, leaves nothing", async () => {
    const { child, ended } = bench("run");
    await until("a beginning", async () => (await leftovers(prefix)).length > 3);
    child.kill("SIGINT");
    expect(await ended).not.toBe(0);
    expect(await leftovers(prefix)).toEqual([]);
  });

  it("without root says in one line what needs it", () => {
    let said = "";
    try {
      execFileSync("setpriv", ["--reuid=65534", "--clear-groups", process.execPath, entry, "run"], {
        stdio: ["ignore", "pipe", "pipe"],
        encoding: "utf8",
      });
    } catch (error) {
      said = String((error as { stderr?: string }).stderr);
    }
    expect(said.trim().split("\n")).toHaveLength(1);
    expect(said).toContain("needs root");
    expect(readFileSync("/proc/self/status", "utf8")).toContain("Uid:\t0");
  });
});
