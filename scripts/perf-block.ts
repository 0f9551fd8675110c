/**
 * The block path beside other people's NBD servers: fio's NBD client over unix sockets, all servers interleaved in one run, because a
 * shared machine has good and bad minutes. The servers that share a method share a medium: a file in /dev/shm.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { BlockServiceClient } from "../hal/block/service/client.ts";

export interface PerfLine {
  readonly workload: string;
  readonly server: string;
  readonly unit: "IOPS" | "MB/s";
  readonly runs: number;
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

const workloads = [
  { name: "randwrite-4k-qd1", options: ["--rw=randwrite", "--bs=4k", "--iodepth=1"], unit: "IOPS" },
  {
    name: "randwrite-4k-qd16",
    options: ["--rw=randwrite", "--bs=4k", "--iodepth=16"],
    unit: "IOPS",
  },
  { name: "write-1M-qd4", options: ["--rw=write", "--bs=1M", "--iodepth=4"], unit: "MB/s" },
] as const;

interface Server {
  readonly name: string;
  readonly uri: string;
  readonly stop: () => Promise<void>;
}

const sizeBytes = 256 * 1024 * 1024;
const readyMs = 10_000;

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + readyMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`perf: ${what}: not ready in ${readyMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function stopper(child: ChildProcess): () => Promise<void> {
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return async () => {
    child.kill("SIGKILL");
    await ended;
  };
}

/** A program that serves one file at one socket. */
async function program(
  folder: string,
  name: string,
  exportName: string,
  command: (file: string, socket: string) => readonly string[],
): Promise<Server> {
  const file = join(folder, `${name}.img`);
  const socket = join(folder, `${name}.sock`);
  await writeFile(file, "");
  await truncate(file, sizeBytes);
  const [executable = "", ...options] = command(file, socket);
  const child = spawn(executable, options, { stdio: ["ignore", "ignore", "inherit"] });
  const stop = stopper(child);
  await until(() => existsSync(socket), name);
  return { name, uri: `nbd+unix:///${exportName}?socket=${socket}`, stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("perf: no port");
  return address.port;
}

/** NBD → block service → iSCSI → shelf on a file: three processes of ours between fio and the medium. */
async function chain(folder: string): Promise<Server> {
  const targetName = "iqn.2026-11.dyad:perf";
  const port = await freePort();
  const config = join(folder, "shelf.json");
  const disk = { serial: "PERF", lun: 0, sizeBytes, backingFile: join(folder, "shelf.img") };
  const listen = { host: "127.0.0.1", port };
  await writeFile(config, JSON.stringify({ listen, targets: [targetName], disks: [disk] }));
  const shelf = spawn(process.execPath, ["hal/shelf/main.ts", config], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const stopShelf = stopper(shelf);
  await new Promise((resolve) => createInterface({ input: shelf.stdout }).once("line", resolve));
  const socket = join(folder, "chain.sock");
  const service = await BlockServiceClient.start(socket);
  if (!service.ok) throw new Error(service.fault.message);
  const identity = { targetName, initiatorName: "iqn.2026-11.dyad:perf-a", isid: "4000d1ad0001" };
  const opened = await service.value.open(
    { serial: "PERF", host: "127.0.0.1", port, ...identity, exported: true },
    readyMs,
  );
  if (!opened.ok || !opened.value.up) throw new Error("perf: the shelf's disk did not come up");
  const allowed = await service.value.allow("PERF", undefined, readyMs);
  if (!allowed.ok) throw new Error(allowed.fault.message);
  return {
    name: "dyad-chain",
    uri: `nbd+unix:///PERF?socket=${socket}`,
    stop: async () => {
      await service.value.close();
      await stopShelf();
    },
  };
}

async function startAll(folder: string): Promise<Server[]> {
  const node = process.execPath;
  const has = (command: string) => spawnSync("which", [command]).status === 0;
  const serve = (io: string) => (file: string, socket: string) => [
    ...[node, "scripts/perf-serve.ts", file, socket, io],
  ];
  const servers = [
    await program(folder, "dyad-file", "disk", serve("threads")),
    await program(folder, "dyad-inline", "disk", serve("inline")),
    await chain(folder),
  ];
  if (has("nbdkit"))
    servers.push(
      await program(folder, "nbdkit-file", "", (file, socket) => [
        ...["nbdkit", "-f", "-U", socket, "file", file],
      ]),
    );
  else console.error("perf: nbdkit is not installed, so it is left out");
  if (has("qemu-nbd"))
    servers.push(
      await program(folder, "qemu-nbd-file", "", (file, socket) => [
        ...["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", socket, file],
      ]),
    );
  return servers;
}

/** A Debian program, not a package of ours. */
const client = "fio";

/** One fio run; IOPS or MB/s. */
function measure(server: Server, workload: (typeof workloads)[number], seconds: number) {
  const options = [
    ...["--name=perf", "--ioengine=nbd", `--uri=${server.uri}`, ...workload.options],
    ...["--time_based", `--runtime=${seconds}`, `--size=${sizeBytes}`, "--output-format=json"],
  ];
  return new Promise<number>((resolve, reject) => {
    execFile(client, options, { maxBuffer: 16 * 1024 * 1024 }, (error, stdout) => {
      if (error) return reject(new Error(`perf: fio on ${server.name}: ${error.message}`));
      const { iops, bw_bytes: bytes } = JSON.parse(stdout.slice(stdout.indexOf("{"))).jobs[0].write;
      return resolve(Math.round(workload.unit === "IOPS" ? iops : bytes / 1e6));
    });
  });
}

/** Measures every workload on every server, `runs` times around, `seconds` each. */
export async function measureBlock(runs: number, seconds: number): Promise<PerfLine[]> {
  const folder = await mkdtemp(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "dyad-perf-"));
  const servers: Server[] = [];
  try {
    servers.push(...(await startAll(folder)));
    const figures = new Map<string, number[]>();
    for (let run = 0; run < runs; run += 1)
      for (const workload of workloads)
        for (const server of servers) {
          const id = `${workload.name} ${server.name}`;
          const figure = await measure(server, workload, seconds);
          figures.set(id, [...(figures.get(id) ?? []), figure]);
        }
    return workloads.flatMap(({ name, unit }) =>
      servers.map((server) => {
        const sorted = (figures.get(`${name} ${server.name}`) ?? []).sort((a, b) => a - b);
        const at = (index: number) => sorted[index] ?? 0;
        const spread = { min: at(0), median: at(sorted.length >> 1), max: at(sorted.length - 1) };
        return { workload: name, server: server.name, unit, runs, ...spread };
      }),
    );
  } finally {
    for (const server of servers) await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
