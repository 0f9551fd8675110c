import { spawn } from "node:child_process";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { SessionReading } from "../../bench/clients/session.ts";
import type { GaneshaState } from "../../hal/linux/ganesha.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";

const clientsPath = new URL("../../bench/clients/main.ts", import.meta.url).pathname;
const address = "10.9.0.1";

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
  let image: string;
  let mountPoint: string;

  const mount = (node: LabNode) => node.run("mount", "-o", "loop", image, mountPoint);
  const takeOver = async (node: LabNode) => {
    mount(node);
    await announce(node);
  };
  const announce = async (node: LabNode) => {
    node.run("ip", "addr", "add", `${address}/24`, "dev", "eth0");
    await serve(node);
    // What a gratuitous ARP does on a real wire.
    lab.runInClient("ip", "neigh", "flush", "dev", "br0");
  };
  const serve = async (node: LabNode) => {
    const exports = [{ id: 1, path: mountPoint, pseudo: "/vol1" }];
    const spec = { addresses: [address], exports, recoveryDir: `${mountPoint}/.dyad` };
    await node.ask({ op: "start", spec });
    const probed = await node.ask({ op: "probe", deadlineMs: limitsMs.condition });
    expect(probed.value).toMatchObject({ ok: true });
  };
  const release = async (node: LabNode) => {
    await node.ask({ op: "stop", timeoutMs: limitsMs.condition });
    node.run("ip", "addr", "del", `${address}/24`, "dev", "eth0");
    node.run("umount", mountPoint);
  };
  const killServer = async (node: LabNode) => {
    const { pid } = (await node.ask({ op: "state" })).value as GaneshaState;
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
    running.send({ cmd: "report" });
    return await reported;
  };
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
    image = lab.makeVolume("v1");
    mountPoint = join(lab.directory, "v1");
    await takeOver(a);
  });
  afterEach(async () => {
    await clients?.end();
    clients = undefined;
    await lab?.close();
  });

  it("lose nothing and read nothing stale when the file server is killed under load", async () => {
    clients = startClients(lab);
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
    clients = startClients(lab);
    await progress(clients);
    await release(a);
    const older = join(lab.directory, "older.img");
    copyFileSync(image, older);
    await takeOver(a);
    await progress(clients);
    await release(a);
    copyFileSync(older, image);
    await takeOver(a);
    await progress(clients);
    const line = await report(clients);
    expect(line.lostAckedWrites + line.staleReads).toBeGreaterThan(0);
    expect(line.lostAckedWrites, "the log's tail").toBeGreaterThan(0);
    expect(line.staleReads).toBeGreaterThan(0);
    for (const { verdict } of line.engines) expect(verdict.findings.length).toBeGreaterThan(0);
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
