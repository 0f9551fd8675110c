/**
 * Process entry: NFS clients that verify every byte. Run it inside a client's network namespace.
 *
 *     node bench/clients/main.ts --server 10.0.0.100 --export /vol1 [--engines nfs3,libnfs,nfs41] [--name c1] [--registers 4]
 *          [--record-bytes 4096] [--pace-ms 4] [--nfs-port 2049] [--mount-port 20048]
 *
 * On standard output, JSON lines: `{"t":"tick",…}` every 200 ms; in answer to commands (JSON lines on standard input)
 * `{"cmd":"mark","name":"run1"}` → `{"t":"mark",…}` and `{"cmd":"report","timeoutMs":30000}` → `{"t":"report",…}`, which comes after
 * everything has been read back; and at SIGTERM, SIGINT or the end of standard input `{"t":"summary",…}` and the end.
 */
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { z } from "zod";
import { engineNameSchema, workerSettingsSchema } from "./protocol.ts";
import { Session, type SessionReading } from "./session.ts";

const tickMs = 200;
const commandSchema = z.discriminatedUnion("cmd", [
  z.strictObject({ cmd: z.literal("mark"), name: z.string().max(64) }),
  z.strictObject({
    cmd: z.literal("report"),
    timeoutMs: z.number().min(1).max(600_000).default(30_000),
  }),
  z.strictObject({ cmd: z.literal("end") }),
]);

const { values } = parseArgs({
  options: {
    server: { type: "string" },
    export: { type: "string" },
    engines: { type: "string", default: "nfs3,libnfs" },
    name: { type: "string", default: "client" },
    registers: { type: "string", default: "4" },
    "record-bytes": { type: "string", default: "4096" },
    "pace-ms": { type: "string", default: "4" },
    "nfs-port": { type: "string", default: "2049" },
    "mount-port": { type: "string", default: "20048" },
  },
});
const settings = workerSettingsSchema.omit({ role: true, engine: true }).parse({
  target: {
    server: values.server,
    exportPath: values.export,
    nfsPort: Number(values["nfs-port"]),
    mountPort: Number(values["mount-port"]),
  },
  name: values.name,
  registers: Number(values.registers),
  recordBytes: Number(values["record-bytes"]),
  paceMs: Number(values["pace-ms"]),
});
const engines = z.array(engineNameSchema).min(1).parse(values.engines.split(","));

const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);
const sessions = engines.map(
  (engine) =>
    new Session({ ...settings, engine }, (reason) => {
      say({ t: "failure", reason });
      process.exitCode = 1;
      void finish();
    }),
);
let markName = "start";

/** Totals over the engines, under the names that the bench's result line uses. */
function totals(readings: readonly SessionReading[]) {
  const sum = (pick: (reading: SessionReading) => number) =>
    readings.reduce((total, reading) => total + pick(reading), 0);
  return {
    lostAckedWrites: sum(({ verdict }) => verdict.lostAckedWrites),
    staleReads: sum(({ verdict }) => verdict.staleReads),
    rolledBackReads: sum(({ verdict }) => verdict.rolledBackReads),
    phantomReads: sum(({ verdict }) => verdict.phantomReads),
    corruptReads: sum(({ corruptReads }) => corruptReads),
    ackedWrites: sum(({ verdict }) => verdict.ackedWrites),
    reads: sum(({ verdict }) => verdict.reads),
    opensReclaimed: sum(({ state }) => state.opensReclaimed),
    openFilesLost: sum(({ state }) => state.openFilesLost),
    locksReclaimed: sum(({ state }) => state.locksReclaimed),
    locksLost: sum(({ state }) => state.locksLost),
    refusals: sum(({ state }) => state.refusals),
  };
}

function state(newWindow: boolean) {
  const readings = sessions.map((session) => session.reading(newWindow));
  return { mark: markName, ...totals(readings), engines: readings };
}

let turn: Promise<unknown> = Promise.resolve();

async function report(timeoutMs: number): Promise<void> {
  // Gaps are read before the writer is stopped for the verification: that pause is not the server's.
  const gaps = sessions.map((session) => session.reading(false));
  const verified = await Promise.all(sessions.map((session) => session.verify(timeoutMs)));
  const after = state(false);
  const merged = after.engines.map((reading, i) => ({
    ...reading,
    write: gaps[i]?.write,
    read: gaps[i]?.read,
  }));
  say({ t: "report", verified: verified.every(Boolean), ...after, engines: merged });
}

function perform(line: string): Promise<void> | undefined {
  const parsed = commandSchema.safeParse(parseJson(line));
  if (!parsed.success) {
    say({ t: "error", message: `bad command: ${parsed.error.issues[0]?.message ?? "not JSON"}` });
    return undefined;
  }
  const command = parsed.data;
  switch (command.cmd) {
    case "mark":
      markName = command.name;
      for (const session of sessions) session.mark();
      say({ t: "mark", name: command.name });
      return undefined;
    case "report":
      return report(command.timeoutMs);
    case "end":
      return finish();
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

const ticker = setInterval(() => say({ t: "tick", ...state(true) }), tickMs);
let finishing: Promise<void> | undefined;

function finish(): Promise<void> {
  finishing ??= finishNow();
  return finishing;
}

async function finishNow(): Promise<void> {
  clearInterval(ticker);
  say({ t: "summary", ...state(false) });
  await Promise.all(sessions.map((session) => session.end()));
  process.exit();
}

process.on("SIGTERM", () => void finish());
process.on("SIGINT", () => void finish());
const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  turn = turn.then(() => perform(line));
});
input.on("close", () => void turn.then(finish));
