/**
 * What the tests of the read barrier stand on: a disk whose writes can be held or failed, an ext4 file system on it in a laboratory's
 * node, and an NFS client that tells every status.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { Attachment } from "../../hal/block/attach.ts";
import type { BlockDevice } from "../../hal/block/device.ts";
import { FileDevice } from "../../hal/block/file-device.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";

const sizeBytes = 32 * 1024 * 1024;
const agentPath = new URL("./read-barrier-agent.ts", import.meta.url).pathname;

/** A file device whose changes, or reads, wait while they are held; changes fail while it is failing. */
export class UnrulyDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly #file: FileDevice;
  #held: PromiseWithResolvers<void> | undefined;
  #heldReads: PromiseWithResolvers<void> | undefined;
  failing = false;
  /** Changes and reads that wait. */
  waiting = 0;

  constructor(file: FileDevice) {
    this.#file = file;
    this.sizeBytes = file.sizeBytes;
    this.blockSizeBytes = file.blockSizeBytes;
  }

  hold(): void {
    this.#held ??= Promise.withResolvers<void>();
  }

  holdReads(): void {
    this.#heldReads ??= Promise.withResolvers<void>();
  }

  release(): void {
    this.#held?.resolve();
    this.#heldReads?.resolve();
    this.#held = undefined;
    this.#heldReads = undefined;
  }

  async read(offset: number, length: number): Promise<Outcome<Buffer>> {
    await this.#wait(this.#heldReads);
    return await this.#file.read(offset, length);
  }
  write(offset: number, data: Buffer, options: { fua: boolean }): Promise<Outcome> {
    return this.#change(() => this.#file.write(offset, data, options));
  }
  writeZeroes(
    offset: number,
    length: number,
    options: { fua: boolean; mayTrim: boolean },
  ): Promise<Outcome> {
    return this.#change(() => this.#file.writeZeroes(offset, length, options));
  }
  flush(): Promise<Outcome> {
    return this.#change(() => this.#file.flush());
  }
  trim(offset: number, length: number): Promise<Outcome> {
    return this.#change(() => this.#file.trim(offset, length));
  }
  close(): Promise<void> {
    return this.#file.close();
  }

  async #change(action: () => Promise<Outcome>): Promise<Outcome> {
    await this.#wait(this.#held);
    return this.failing ? failed("diskError", "write", "told to fail") : await action();
  }

  async #wait(held: PromiseWithResolvers<void> | undefined): Promise<void> {
    if (held === undefined) return;
    this.waiting += 1;
    await held.promise;
    this.waiting -= 1;
  }
}

export interface UnrulyDisk {
  readonly device: UnrulyDevice;
  /** `/dev/loopN`, with an ext4 file system on it. */
  readonly path: string;
  /** What a survivor would find in the file if the controller died now; undefined when there is no such file. */
  afterCrash(file: string): string | undefined;
  close(): Promise<void>;
}

/** A block device on an image file in `folder`, through NBD, FUSE and a loop device, all of which end with this process. */
export async function openUnrulyDisk(folder: string): Promise<UnrulyDisk> {
  const image = join(folder, "unruly.img");
  writeFileSync(image, "");
  truncateSync(image, sizeBytes);
  // Nothing is left for the kernel to initialise behind the test's back.
  const eager = "lazy_itable_init=0,lazy_journal_init=0";
  execFileSync("mkfs.ext4", ["-q", "-F", "-E", eager, image]);
  const opened = await FileDevice.open(image, { blockSizeBytes: 512, io: "inline" });
  if (!opened.ok) throw new Error(opened.fault.message);
  const device = new UnrulyDevice(opened.value);
  const server = new NbdServer();
  server.add({ name: "disk", device });
  const nbdSocketPath = join(folder, "nbd");
  await server.listen({ path: nbdSocketPath });
  mkdirSync(join(folder, "attach"));
  const name = `barrier-${process.pid}`;
  const parts = { name, nbdSocketPath, exportName: "disk", folder: join(folder, "attach") };
  const attachment = new Attachment({ ...parts, sizeBytes, blockSizeBytes: 512 });
  const attached = await attachment.attach();
  if (!attached.ok) throw new Error(JSON.stringify(attached.fault));
  return {
    device,
    path: attached.value,
    afterCrash(file) {
      const copy = join(folder, "crashed.img");
      copyFileSync(image, copy);
      // Replays the journal, as the survivor's mount does; 1 says that it had to.
      const checked = spawnSync("e2fsck", ["-fp", copy], { encoding: "utf8" });
      if ((checked.status ?? 8) > 1) throw new Error(checked.stdout + checked.stderr);
      const words = ["-R", `cat /${file}`, copy];
      const { stdout, stderr } = spawnSync("debugfs", words, { encoding: "utf8" });
      return stderr.includes("File not found") ? undefined : stdout;
    },
    async close() {
      device.failing = false;
      device.release();
      const closed = await attachment.close();
      await server.close();
      await device.close();
      if (!closed.ok) throw new Error(JSON.stringify(closed.fault));
    },
  };
}

export interface NfsAnswer {
  readonly ok: boolean;
  readonly status?: string;
  readonly text?: string;
}

export interface NfsClient {
  ask(command: object): Promise<NfsAnswer>;
  end(): Promise<void>;
}

/** A client in the network namespace of the process `pid`. */
export async function startNfsClient(
  pid: number,
  host: string,
  pseudo: string,
): Promise<NfsClient> {
  const words = ["-t", String(pid), "-n", "--", process.execPath, agentPath, host, pseudo];
  const child = spawn("nsenter", words, { stdio: ["pipe", "pipe", "inherit"] });
  const waiting = new Map<number, (answer: NfsAnswer) => void>();
  const { promise: ready, resolve: isReady, reject } = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { id, ...answer } = JSON.parse(line) as { id?: number } & NfsAnswer;
    if (id === undefined) isReady();
    else waiting.get(id)?.(answer);
  });
  child.once("exit", (code) => reject(new Error(`the NFS client ended with ${code}`)));
  await ready;
  let count = 0;
  return {
    ask: (command) =>
      new Promise((resolve) => {
        count += 1;
        waiting.set(count, resolve);
        child.stdin.write(`${JSON.stringify({ id: count, ...command })}\n`);
      }),
    async end() {
      child.stdin.end();
      await killed(child);
    },
  };
}

export async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await ended;
}
