/**
 * A throw-away laboratory for the file service and the clients: anonymous network and mount namespaces that vanish with their
 * processes, joined by a bridge in the client's namespace, and volumes in files that are mounted through loop devices.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const agentPath = new URL("./clients-agent.ts", import.meta.url).pathname;

/** What the agent answered: the driver's value and how long the call took inside the agent. */
export interface Answer {
  readonly value: unknown;
  readonly ms: number;
}

export interface LabNode {
  readonly pid: number;
  readonly events: { event: string; [key: string]: unknown }[];
  /** Sends a command to the driver in this node and waits for its answer. */
  ask(command: object): Promise<Answer>;
  /** Runs a program in the node's namespaces and returns what it printed. */
  run(program: string, ...args: string[]): string;
  end(): Promise<void>;
}

export interface Lab {
  readonly directory: string;
  /** pid of the process that holds the clients' namespace. */
  readonly clientPid: number;
  runInClient(program: string, ...args: string[]): string;
  /** A controller: namespaces with `eth0` on the bridge, a private /run, and a driver agent. */
  addNode(name: string, driverName?: string): Promise<LabNode>;
  /** A file with an ext4 file system in it. */
  makeVolume(name: string): string;
  close(): Promise<void>;
}

/** True where these tests can run at all. */
export const labIsPossible = process.getuid?.() === 0;

export async function openLab(): Promise<Lab> {
  const directory = mkdtempSync(join(tmpdir(), "dyad-clients-"));
  const holder = spawn("unshare", ["--net", "sh", "-c", "echo; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const clientPid = await readyPid(holder);
  const runInClient = (program: string, ...args: string[]) =>
    enter(clientPid, ["-n"], program, args);
  for (const words of [
    "link set lo up",
    "link add br0 type bridge stp_state 0 forward_delay 0",
    "addr add 10.9.0.100/24 dev br0",
    "link set br0 up",
  ]) {
    runInClient("ip", ...words.split(" "));
  }
  const nodes: LabNode[] = [];
  return {
    directory,
    clientPid,
    runInClient,
    async addNode(name, driverName = "vs1") {
      const node = await startNode(clientPid, name, driverName);
      nodes.push(node);
      return node;
    },
    makeVolume(name) {
      const path = join(directory, `${name}.img`);
      writeFileSync(path, "");
      truncateSync(path, 128 * 1024 * 1024);
      execFileSync("mkfs.ext4", ["-q", "-F", path]);
      mkdirSync(join(directory, name));
      return path;
    },
    async close() {
      for (const node of nodes) await node.end();
      await endProcess(holder, "SIGKILL");
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function startNode(clientPid: number, name: string, driver: string): Promise<LabNode> {
  const script = 'mount -t tmpfs none /run && echo && exec "$0" "$@"';
  const words = ["--net", "--mount", "--propagation", "private", "sh", "-c", script];
  const child = spawn("unshare", [...words, process.execPath, agentPath, driver], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const pid = await readyPid(child);
  const port = `to-${name}`;
  enter(
    clientPid,
    ["-n"],
    "ip",
    `link add ${port} type veth peer name eth0 netns ${pid}`.split(" "),
  );
  enter(clientPid, ["-n"], "ip", `link set ${port} master br0 up`.split(" "));
  enter(pid, ["-n"], "ip", "link set lo up".split(" "));
  enter(pid, ["-n"], "ip", "link set eth0 up".split(" "));

  const events: LabNode["events"] = [];
  const waiting = new Map<number, (answer: Answer) => void>();
  let count = 0;
  if (child.stdout === null) throw new Error("the agent has no output");
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line === "") return;
    const message = JSON.parse(line) as { id?: number; event?: string } & Answer;
    if (message.id !== undefined) waiting.get(message.id)?.(message);
    else if (message.event !== undefined) events.push({ ...message, event: message.event });
  });
  return {
    pid,
    events,
    ask: (command) =>
      new Promise((resolve) => {
        count += 1;
        waiting.set(count, resolve);
        child.stdin?.write(`${JSON.stringify({ id: count, ...command })}\n`);
      }),
    run: (program, ...args) => enter(pid, ["-n", "-m"], program, args),
    async end() {
      child.stdin?.end();
      await endProcess(child, undefined);
    },
  };
}

function enter(pid: number, kinds: string[], program: string, args: string[]): string {
  return execFileSync("nsenter", ["-t", String(pid), ...kinds, "--", program, ...args], {
    encoding: "utf8",
  });
}

/** The pid once the process has printed its first line, that is, once its namespaces are there. */
async function readyPid(child: ChildProcess): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`namespace holder ended with ${code}`)));
    child.stdout?.once("data", () => resolve());
  });
  if (child.pid === undefined) throw new Error("a running process has no pid");
  return child.pid;
}

async function endProcess(child: ChildProcess, signal: NodeJS.Signals | undefined): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  if (signal !== undefined) child.kill(signal);
  await ended;
}
