/**
 * The address probe: builds its two C programs (a timer of one millisecond that holds under load needs more than Node has), runs them, and
 * parses what they say.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";

const sourceDir = import.meta.dirname;
const owner = z.string().max(7);

const counts = {
  sent: z.number(),
  answered: z.number(),
  late: z.number(),
  doubles: z.number(),
  owner,
  gapMs: z.number(),
  longestGapMs: z.number(),
  realtime: z.boolean(),
};

/** Of which of the prober's addresses it is told. */
const address = z.string().max(45);

/** Times (`atMs`, `fromMs`, `toMs`) are CLOCK_MONOTONIC in milliseconds. */
export const probeEventSchema = z.discriminatedUnion("t", [
  /** Every 200 ms; `gapMs` is the silence at this moment, `longestGapMs` the longest since the start. */
  z.object({ t: z.literal("tick"), address, ...counts }),
  z.object({ t: z.literal("end"), address, ...counts }),
  /** A time without answers, told when it is over. `before` and `after`: who answered. */
  z.object({
    t: z.literal("gap"),
    address,
    ms: z.number(),
    fromMs: z.number(),
    toMs: z.number(),
    before: owner,
    after: owner,
    /** The longest time within the gap in which the probe itself sent nothing. */
    sendHoleMs: z.number(),
  }),
  z.object({ t: z.literal("switch"), address, from: owner, to: owner, atMs: z.number() }),
  /** Two controllers answered: `answers` came from `by` while `owner` owned the address. */
  z.object({
    t: z.literal("double"),
    address,
    by: owner,
    owner,
    answers: z.number(),
    atMs: z.number(),
  }),
]);
export type ProbeEvent = z.infer<typeof probeEventSchema>;

export interface ProbePrograms {
  readonly probe: string;
  readonly echo: string;
}

/** Compiles what is not there or older than its source into `directory`; needs gcc. */
export function buildProbePrograms(directory: string): ProbePrograms {
  const header = join(sourceDir, "wire.h");
  const of = (name: string) =>
    buildProgram(directory, `dyad-${name}`, [join(sourceDir, `${name}.c`), header]);
  return { probe: of("probe"), echo: of("echo") };
}

/** Compiles a program of the bench, unless it is newer than its sources: the first is what is compiled. */
export function buildProgram(
  directory: string,
  name: string,
  sources: readonly [string, ...string[]],
): string {
  mkdirSync(directory, { recursive: true });
  const program = join(directory, name);
  const newestMs = Math.max(...sources.map((source) => statSync(source).mtimeMs));
  const builtMs = statSync(program, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (builtMs > newestMs) return program;
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", program];
  execFileSync("cc", [...flags, sources[0]], { stdio: "inherit" });
  return program;
}

/** A running program of the two. `prefix` is how to run something in a namespace: `["nsenter", "-t", pid, "-n", "--"]`. */
export interface Running {
  readonly child: ChildProcess;
  /** Ends it in good order and settles when it has ended. */
  end(): Promise<void>;
}

/** What a prober asks, and how often. */
export interface ProbeOptions {
  readonly addresses: readonly string[];
  readonly port: number;
  /** Longer silences are told. */
  readonly gapMs: number;
  /** From one question to an address to the next, 0.1 to 999. */
  readonly intervalMs: number;
}

/** The prober's command line. */
export function probeWords(programs: ProbePrograms, options: ProbeOptions): string[] {
  const { port, gapMs, intervalMs, addresses } = options;
  return [programs.probe, ...[port, gapMs, intervalMs].map(String), ...addresses];
}

/** An address that is answered; in the network of this file, as soon as that is there, or else in the program's own. */
export interface Answered {
  readonly address: string;
  readonly network?: string;
}

/** An answerer's command line, for a controller of at most 7 letters. It says one line when it answers at all of them. */
export function echoWords(
  programs: ProbePrograms,
  port: number,
  controller: string,
  answered: readonly Answered[],
): string[] {
  const targets = answered.map(({ address, network }) =>
    network === undefined ? address : `${address}@${network}`,
  );
  return [programs.echo, String(port), controller, ...targets];
}

/** Starts the prober; `onEvent` gets each line it says. */
export function startProbe(
  programs: ProbePrograms,
  prefix: readonly string[],
  options: ProbeOptions,
  onEvent: (event: ProbeEvent) => void,
): Running {
  const child = start([...prefix, ...probeWords(programs, options)]);
  lines(child, (line) => onEvent(probeEventSchema.parse(JSON.parse(line))));
  return { child, end: () => end(child) };
}

/** Starts an answerer; settles when it is bound everywhere. */
export async function startEcho(
  programs: ProbePrograms,
  prefix: readonly string[],
  port: number,
  controller: string,
  answered: readonly Answered[],
): Promise<Running> {
  const child = start([...prefix, ...echoWords(programs, port, controller, answered)]);
  await new Promise<void>((resolve, reject) => {
    lines(child, () => resolve());
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`echo ended with ${code}`)));
  });
  return { child, end: () => end(child) };
}

function start(words: readonly string[]): ChildProcess {
  const [program, ...args] = words;
  if (program === undefined) throw new Error("no program to start");
  return spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
}

function lines(child: ChildProcess, onLine: (line: string) => void): void {
  if (child.stdout === null) throw new Error("the program has no output");
  createInterface({ input: child.stdout }).on("line", onLine);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("close", resolve));
  child.stdin?.end();
  await ended;
}
