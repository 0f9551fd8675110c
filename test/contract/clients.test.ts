import { spawn } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type EngineName,
  logKey,
  logRecordBytes,
  registerKey,
} from "../../bench/clients/protocol.ts";
import { decodeRecord } from "../../bench/clients/record.ts";
import type { SessionReading } from "../../bench/clients/session.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";
import { address, Mover } from "./clients-mover.ts";

const clientsPath = new URL("../../bench/clients/main.ts", import.meta.url).pathname;
/** What the clients' program takes when it is told nothing else. */
const recordBytes = 4096;
/** Those of clients that are told nothing else. */
const engineNames: readonly EngineName[] = ["nfs3", "libnfs"];
const ofEngine = (engine: EngineName) => ({ name: "client", engine });
const registers = engineNames.flatMap((engine) =>
  [0, 1, 2, 3].map((i) => registerKey(ofEngine(engine), i)),
);
/** The first segment of each log. */
const logs = engineNames.map((engine) => `${logKey(ofEngine(engine))}-0`);

interface Line {
  t: string;
  verified?: boolean;
  lostAckedWrites: number;
  staleReads: number;
  phantomReads: number;
  corruptReads: number;
  ackedWrites: number;
  reads: number;
  engines: SessionReading[];
}

interface Clients {
  readonly lines: Line[];
  send(command: object): void;
  /** The next line of that kind that satisfies the condition. */
  next(kind: string, condition?: (line: Line) => boolean): Promise<Line>;
  /** Ends the process and settles with its exit code. */
  end(): Promise<number | null>;
}

function startClients(lab: Lab, ...options: string[]): Clients {
  const words = [clientsPath, "--server", address, "--export", "/vol1", ...options];
  const prefix = ["-t", String(lab.clientPid), "-n", "--", process.execPath];
  const child = spawn("nsenter", [...prefix, ...words], { stdio: ["pipe", "pipe", "inherit"] });
  const lines: Line[] = [];
  const waiting = new Set<(line: Line) => void>();
  createInterface({ input: child.stdout }).on("line", (text) => {
    const line = JSON.parse(text) as Line;
    lines.push(line);
    for (const wake of waiting) wake(line);
  });
  return {
    lines,
    send: (command) => child.stdin.write(`${JSON.stringify(command)}\n`),
    next: (kind, condition = () => true) =>
      new Promise((resolve, reject) => {
        const late = () => reject(new Error(`no ${kind} line in time`));
        const timer = setTimeout(late, 2 * limitsMs.condition);
        const wake = (line: Line) => {
          if (line.t !== kind || !condition(line)) return;
          clearTimeout(timer);
          waiting.delete(wake);
          resolve(line);
        };
        waiting.add(wake);
      }),
    end: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null) resolve(child.exitCode);
        child.once("close", (code) => resolve(code));
        child.stdin.end();
      }),
  };
}

describe.runIf(labIsPossible)("clients that verify every byte", () => {
  let lab: Lab;
  let a: LabNode;
  let b: LabNode;
  let clients: Clients | undefined;
  let mover: Mover;
  let image: string;
  let mountPoint: string;

  const mount = (node: LabNode) => mover.mount(node);
  const takeOver = (node: LabNode) => mover.takeOver(node);
  const announce = (node: LabNode) => mover.announce(node);
  const serve = (node: LabNode) => mover.serve(node);
  const release = (node: LabNode) => mover.release(node);
  const killServer = async (node: LabNode) => {
    const { pid } = await mover.state(node);
    if (pid === undefined) throw new Error("no server to kill");
    process.kill(pid, "SIGKILL");
    const gone = () => node.events.some((each) => each.event === "end" && each.pid === pid);
    await until("its end is told", gone);
  };
  /** A tick by which every engine has written and read something since now. */
  const progress = async (running: Clients) => {
    const from = new Map<string, [number, number]>();
    await running.next("tick", (line) =>
      line.engines.every(({ engine, verdict }) => {
        const [writes, reads] = from.get(engine) ?? [verdict.ackedWrites, verdict.reads];
        from.set(engine, [writes, reads]);
        return verdict.ackedWrites > writes + 20 && verdict.reads > reads + 20;
      }),
    );
  };
  const report = async (running: Clients) => {
    const reported = running.next("report");
    running.send({ cmd: "report", timeoutMs: limitsMs.condition });
    return await reported;
  };
  /** How far each register, or each log, has come on the volume as the node sees it. */
  const registersOn = (node: LabNode) =>
    registers.map((key) => {
      const record = decodeRecord(key, readFileSync(pathOn(node, key)), recordBytes);
      return record.ok ? record.seq : Number.NaN;
    });
  const logsOn = (node: LabNode) =>
    logs.map((path) => statSync(pathOn(node, path)).size / logRecordBytes);
  const pathOn = (node: LabNode, path: string) => `/proc/${node.pid}/root${mountPoint}/${path}`;
  const expectFaultless = (line: Line) => {
    expect(line).toMatchObject({
      verified: true,
      lostAckedWrites: 0,
      staleReads: 0,
      phantomReads: 0,
      corruptReads: 0,
    });
  };

  beforeEach(async () => {
    lab = await openLab();
    a = await lab.addNode("a");
    b = await lab.addNode("b");
    mover = new Mover(lab);
    ({ image, mountPoint } = mover);
    await takeOver(a);
  });
  afterEach(async () => {
    await clients?.end();
    clients = undefined;
    await lab?.close();
  });

  it("lose nothing, hold what they hold and read nothing stale when the file server is killed under load", async () => {
    clients = startClients(lab, "--engines", "nfs3,libnfs,nfs41");
    await progress(clients);
    clients.send({ cmd: "mark", name: "kills" });
    for (let i = 0; i < 3; i += 1) {
      await killServer(a);
      await serve(a);
      await progress(clients);
    }
    const line = await report(clients);
    expectFaultless(line);
    for (const { engine, write, read } of line.engines) {
      // How long is the campaign's question, on a machine that does nothing else.
      console.log(`${engine}: gaps ${write.longestGapMs} ms (write), ${read.longestGapMs} (read)`);
      expect(write.longestGapMs, `${engine} write`).toBeGreaterThan(5);
    }
    const stateful = line.engines.find(({ engine }) => engine === "nfs41")?.state;
    expect(stateful).toMatchObject({ openFilesLost: 0, locksLost: 0 });
    // Its writer holds four registers, and its reader, the rival, asks for each of them.
    expect(stateful?.locksReclaimed).toBeGreaterThanOrEqual(3 * 4);
    expect(stateful?.refusals).toBeGreaterThan(0);
  });

  it("keep their file handles when the volume moves to the other controller and back", async () => {
    clients = startClients(lab);
    await progress(clients);
    const device = (node: LabNode) => node.run("findmnt", "-no", "SOURCE", mountPoint);
    const before = device(a);
    await release(a);
    // A handle made of device numbers would be stale on another loop device: others take up those that come first.
    mount(b);
    for (let i = 0; device(b) === before && i < 8; i += 1) {
      b.run("umount", mountPoint);
      b.run("mount", "-o", "loop", lab.makeVolume(`other${i}`), join(lab.directory, `other${i}`));
      mount(b);
    }
    expect(device(b)).not.toBe(before);
    await announce(b);
    await progress(clients);
    await release(b);
    await takeOver(a);
    await progress(clients);
    const line = await report(clients);
    expectFaultless(line);
    for (const { statuses } of line.engines) {
      expect(Object.keys(statuses).filter((status) => status !== "verifier changed")).toEqual([]);
    }
  });

  it("notice a volume that goes back in time", async () => {
    // At this pace a log fills its first segment in three minutes: it is not another file that goes back.
    clients = startClients(lab, "--pace-ms", "50");
    await progress(clients);
    await until("every file has been written", () => {
      const areThere = [...registers, ...logs].every((path) => existsSync(pathOn(a, path)));
      return areThere && [...registersOn(a), ...logsOn(a)].every((count) => count > 0);
    });
    await release(a);
    const older = join(lab.directory, "older.img");
    copyFileSync(image, older);
    mount(a);
    const then = [...registersOn(a), ...logsOn(a)];
    await announce(a);
    await until("every file has been written twice", () => {
      // Each has one write in flight: when the second one shows, the first has been acknowledged.
      const now = [...registersOn(a), ...logsOn(a)];
      return now.every((count, i) => count >= (then[i] ?? 0) + 2);
    });
    await release(a);
    copyFileSync(older, image);
    mount(a);
    // No register is written before it has been read: its writer is refused and goes on trying. The logs go on, with a gap.
    const paths = registers.map((key) => join(mountPoint, key));
    a.run("chattr", "+i", ...paths);
    const noticed = clients.next("tick", ({ engines }) =>
      engines.every(({ verdict }) => verdict.staleReads > 0),
    );
    await Promise.all([noticed, announce(a)]);
    a.run("chattr", "-i", ...paths);
    // Then what was lost is seen in the logs alone, which nobody repairs.
    const before = [...registersOn(a), ...logsOn(a)];
    await until("every file is written again", () =>
      [...registersOn(a), ...logsOn(a)].every((count, i) => count > (before[i] ?? 0)),
    );
    const line = await report(clients);
    expect(line.verified).toBe(true);
    for (const { engine, verdict } of line.engines) {
      expect(verdict.lostAckedWrites, `${engine}: the gap in the log`).toBeGreaterThan(0);
      expect(verdict.staleReads, engine).toBeGreaterThan(0);
      expect(verdict.findings.length, engine).toBeGreaterThan(1);
    }
    const sum = (pick: (reading: SessionReading) => number) =>
      line.engines.reduce((total, reading) => total + pick(reading), 0);
    expect(line.lostAckedWrites).toBe(sum(({ verdict }) => verdict.lostAckedWrites));
    expect(line.staleReads).toBe(sum(({ verdict }) => verdict.staleReads));
  });

  it("answer a bad command with an error, and end with a summary", async () => {
    clients = startClients(lab, "--engines", "nfs3", "--registers", "1");
    await progress(clients);
    const refused = clients.next("error");
    clients.send({ cmd: "unknown" });
    await refused;
    const summary = clients.next("summary");
    expect(await clients.end()).toBe(0);
    expectFaultless({ ...(await summary), verified: true });
  });
});
