/**
 * The mirror beside QEMU's two, on the same files, links and clients: quorum, which writes to both children, and the mirror job in its
 * write-blocking mode. Two processes each: one with the partner's file, one with the local file and the mirror. fio's NBD client asks all
 * of them in turn, in one run, because a shared machine has good and bad minutes. No TLS, since QEMU is asked for none.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

export interface MirrorLine {
  readonly workload: string;
  readonly transport: Transport;
  readonly iops: number;
  readonly mbPerSecond: number;
  readonly peer: string;
  readonly peerIops: number;
  /** Ours by the peer's. Of the peer `remote`, our own remote device without a mirror, the inverse is the mirror's overhead. */
  readonly ratio: number;
}

type Transport = "unix" | "tcp";

const workloads = [
  { name: "randwrite-4k-qd1", options: ["--rw=randwrite", "--bs=4k", "--iodepth=1"] },
  { name: "randwrite-4k-qd16", options: ["--rw=randwrite", "--bs=4k", "--iodepth=16"] },
  { name: "randread-4k-qd16", options: ["--rw=randread", "--bs=4k", "--iodepth=16"] },
  { name: "write-1M-qd4", options: ["--rw=write", "--bs=1M", "--iodepth=4"] },
] as const;

const sizeBytes = 256 * 1024 * 1024;
const readyMs = 20_000;
/** A Debian program, not a package of ours. */
const client = "fio";
const qemu = "qemu-storage-daemon";

/** Where a process listens, in the words of each program. */
interface Place {
  readonly own: string;
  readonly uri: string;
  readonly server: string;
  readonly listen: string;
}

interface Subject {
  readonly name: string;
  readonly uri: string;
}

class Setup {
  readonly #folder: string;
  readonly #transport: Transport;
  readonly #children: ChildProcess[] = [];
  #places = 0;

  constructor(folder: string, transport: Transport) {
    this.#folder = folder;
    this.#transport = transport;
  }

  async stop(): Promise<void> {
    for (const child of this.#children.splice(0).reverse()) {
      if (child.exitCode !== null) continue;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
    }
  }

  async all(): Promise<Subject[]> {
    return [...(await this.#ours()), await this.#quorum(), await this.#mirrorJob()];
  }

  async #ours(): Promise<Subject[]> {
    const [replica, mirror, remote] = [
      await this.#place(),
      await this.#place(),
      await this.#place(),
    ];
    const [here, there] = [await this.#file("dyad-here"), await this.#file("dyad-there")];
    await this.#node("replica", replica.own, there);
    await this.#node("mirror", mirror.own, here, replica.own);
    await this.#node("remote", remote.own, replica.own);
    return [
      { name: "dyad", uri: mirror.uri },
      { name: "remote", uri: remote.uri },
    ];
  }

  async #quorum(): Promise<Subject> {
    const served = await this.#place();
    const partner = await this.#partnerOf("quorum");
    await this.#qemu(served, [
      ...(await this.#fileNode("quorum-here", "local")),
      ...["--blockdev", `driver=nbd,node-name=remote,${partner.server},export=disk`],
      "--blockdev",
      "driver=quorum,node-name=disk,vote-threshold=1,read-pattern=fifo,children.0=local,children.1=remote",
      ...exported(served),
    ]);
    return { name: "qemu-quorum", uri: served.uri };
  }

  async #mirrorJob(): Promise<Subject> {
    const served = await this.#place();
    const partner = await this.#partnerOf("job");
    const monitor = join(this.#folder, `${this.#transport}-job.qmp`);
    await this.#qemu(served, [
      ...(await this.#fileNode("job-here", "disk")),
      ...["--blockdev", `driver=nbd,node-name=remote,${partner.server},export=disk`],
      ...exported(served),
      ...["--chardev", `socket,id=qmp,path=${monitor},server=on,wait=off`],
      ...["--monitor", "chardev=qmp"],
    ]);
    await startMirrorJob(monitor);
    return { name: "qemu-mirror", uri: served.uri };
  }

  async #partnerOf(name: string): Promise<Place> {
    const place = await this.#place();
    await this.#qemu(place, [
      ...(await this.#fileNode(`${name}-there`, "disk")),
      ...exported(place),
    ]);
    return place;
  }

  async #fileNode(name: string, node: string): Promise<string[]> {
    const file = await this.#file(name);
    return [
      ...["--blockdev", `driver=file,node-name=${node}-file,filename=${file},aio=io_uring`],
      ...["--blockdev", `driver=raw,node-name=${node},file=${node}-file`],
    ];
  }

  async #file(name: string): Promise<string> {
    const file = join(this.#folder, `${this.#transport}-${name}.img`);
    await writeFile(file, "");
    await truncate(file, sizeBytes);
    return file;
  }

  async #place(): Promise<Place> {
    this.#places += 1;
    if (this.#transport === "unix") {
      const path = join(this.#folder, `${this.#places}.sock`);
      return {
        own: path,
        uri: `nbd+unix:///disk?socket=${path}`,
        server: `server.type=unix,server.path=${path}`,
        listen: `addr.type=unix,addr.path=${path}`,
      };
    }
    const port = await freePort();
    return {
      own: `${port}`,
      uri: `nbd://127.0.0.1:${port}/disk`,
      server: `server.type=inet,server.host=127.0.0.1,server.port=${port}`,
      listen: `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`,
    };
  }

  async #node(...options: string[]): Promise<void> {
    const child = spawn(process.execPath, ["scripts/perf-mirror-serve.ts", ...options], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#children.push(child);
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", () => resolve());
      child.once("exit", (code) => reject(new Error(`perf: ${options[0]} ended with ${code}`)));
    });
  }

  async #qemu({ own }: Place, options: readonly string[]): Promise<void> {
    const child = spawn(qemu, options, { stdio: "ignore" });
    this.#children.push(child);
    await connected(Number(own) > 0 ? { host: "127.0.0.1", port: Number(own) } : { path: own });
  }
}

const exported = ({ listen }: Place) => [
  ...["--nbd-server", listen],
  ...["--export", "nbd,id=export,node-name=disk,name=disk,writable=on"],
];

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("perf: no port");
  return address.port;
}

/** Waits until somebody listens there. */
async function connected(where: { path: string } | { host: string; port: number }): Promise<void> {
  const end = performance.now() + readyMs;
  while (performance.now() < end) {
    const is = await new Promise<boolean>((resolve) => {
      const socket = createConnection(where);
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (is) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`perf: nobody listens at ${JSON.stringify(where)}`);
}

/** Starts QEMU's mirror job over its monitor, and waits until both files are the same (docs/interop/live-block-operations of QEMU). */
async function startMirrorJob(monitor: string): Promise<void> {
  await connected({ path: monitor });
  const socket: Socket = createConnection({ path: monitor });
  const arguments_ = {
    ...{ "job-id": "job", device: "disk", target: "remote", sync: "full" },
    "copy-mode": "write-blocking",
  };
  socket.write(`${JSON.stringify({ execute: "qmp_capabilities" })}\n`);
  socket.write(`${JSON.stringify({ execute: "blockdev-mirror", arguments: arguments_ })}\n`);
  const timer = setTimeout(() => socket.destroy(), readyMs);
  for await (const line of createInterface({ input: socket })) {
    const message = JSON.parse(line) as { event?: string; error?: { desc: string } };
    if (message.error) throw new Error(`perf: ${message.error.desc}`);
    if (message.event !== "BLOCK_JOB_READY") continue;
    clearTimeout(timer);
    socket.destroy();
    return;
  }
  throw new Error("perf: QEMU's mirror job did not become ready");
}

interface Figure {
  readonly iops: number;
  readonly bytesPerSecond: number;
}

function measure(uri: string, options: readonly string[], seconds: number): Promise<Figure> {
  const all = [
    ...["--name=perf", "--ioengine=nbd", `--uri=${uri}`, ...options],
    ...["--time_based", `--runtime=${seconds}`, `--size=${sizeBytes}`, "--output-format=json"],
  ];
  return new Promise((resolve, reject) => {
    execFile(client, all, { maxBuffer: 16 * 1024 * 1024 }, (error, stdout) => {
      if (error) return reject(new Error(`perf: fio on ${uri}: ${error.message}`));
      const [job] = JSON.parse(stdout.slice(stdout.indexOf("{"))).jobs;
      const side = job.write.iops > 0 ? job.write : job.read;
      return resolve({ iops: side.iops, bytesPerSecond: side.bw_bytes });
    });
  });
}

function median(figures: readonly Figure[]): Figure {
  const sorted = [...figures].sort((a, b) => a.iops - b.iops);
  return sorted[sorted.length >> 1] ?? { iops: 0, bytesPerSecond: 0 };
}

async function measureOver(
  folder: string,
  transport: Transport,
  runs: number,
  seconds: number,
): Promise<MirrorLine[]> {
  const setup = new Setup(folder, transport);
  try {
    const subjects = await setup.all();
    const figures = new Map<string, Figure[]>();
    for (let run = 0; run < runs; run += 1)
      for (const { name: workload, options } of workloads)
        for (const { name, uri } of subjects) {
          const figure = await measure(uri, options, seconds);
          const id = `${workload} ${name}`;
          figures.set(id, [...(figures.get(id) ?? []), figure]);
        }
    const of = (workload: string, name: string) => median(figures.get(`${workload} ${name}`) ?? []);
    return workloads.flatMap(({ name: workload }) =>
      subjects.slice(1).map(({ name: peer }) => {
        const [own, other] = [of(workload, "dyad"), of(workload, peer)];
        return {
          ...{ workload, transport, iops: Math.round(own.iops), peer },
          mbPerSecond: Math.round(own.bytesPerSecond / 1e6),
          peerIops: Math.round(other.iops),
          ratio: Math.round((own.iops / other.iops) * 100) / 100,
        };
      }),
    );
  } finally {
    await setup.stop();
  }
}

/** Measures every workload on every mirror over both transports, `runs` times around, `seconds` each. */
export async function measureMirror(runs: number, seconds: number): Promise<MirrorLine[]> {
  const lines: MirrorLine[] = [];
  for (const transport of ["unix", "tcp"] as const) {
    // A folder each, since the images of the first would take memory from the second.
    const where = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    const folder = await mkdtemp(join(where, "dyad-perf-"));
    try {
      lines.push(...(await measureOver(folder, transport, runs, seconds)));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return lines;
}
