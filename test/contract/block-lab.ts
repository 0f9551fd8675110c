/** What the block path's contract tests share: a shelf as a process, folders, and third parties' programs. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { DiskSpec } from "../../hal/block/service/protocol.ts";
import { freePort } from "../support/free-port.ts";
import { patientDisk } from "../support/limits.ts";

export const target = "iqn.2026-11.dyad:block-test";
const mebibyte = 1024 * 1024;

export interface Ran {
  readonly code: number;
  readonly out: string;
}

/** Runs a program to its end; its two outputs together. Never rejects for a failing program. */
export function run(command: string, ...args: string[]): Promise<Ran> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { maxBuffer: 64 * mebibyte }, (error, stdout, stderr) => {
      if (error && typeof error.code === "string") reject(error);
      else resolve({ code: error ? Number(error.code ?? 1) : 0, out: stdout + stderr });
    });
  });
}

/** Runs a program that must succeed. */
export async function must(command: string, ...args: string[]): Promise<string> {
  const ran = await run(command, ...args);
  if (ran.code !== 0) throw new Error(`${command} ${args.join(" ")}: ${ran.code}\n${ran.out}`);
  return ran.out;
}

export const newFolder = () => mkdtemp(join(tmpdir(), "dyad-block-"));

/** A shelf in a process of its own, on files: it can be killed and started again at the same port. */
export class ShelfProcess {
  readonly folder: string;
  readonly port: number;
  readonly #config: string;
  readonly #serials: readonly string[];
  #child: ChildProcess | undefined;

  private constructor(folder: string, port: number, config: string, serials: readonly string[]) {
    this.folder = folder;
    this.#serials = serials;
    this.port = port;
    this.#config = config;
  }

  static async start(serials: readonly string[], sizeBytes: number): Promise<ShelfProcess> {
    const folder = await newFolder();
    const port = await freePort();
    const config = join(folder, "shelf.json");
    // Unit numbers run against the serials' order: whoever counts units finds the wrong disk.
    const disks = serials.map((serial, index) => ({
      serial,
      lun: serials.length - index,
      sizeBytes,
      backingFile: join(folder, `${serial}.img`),
      aptplFile: join(folder, `${serial}.aptpl`),
    }));
    const listen = { host: "127.0.0.1", port };
    await writeFile(config, JSON.stringify({ listen, targets: [target], disks }));
    const shelf = new ShelfProcess(folder, port, config, serials);
    await shelf.restart();
    return shelf;
  }

  image(serial: string): string {
    return join(this.folder, `${serial}.img`);
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
    this.#child = undefined;
  }

  async restart(): Promise<void> {
    await this.kill();
    const child = spawn(process.execPath, ["hal/shelf/main.ts", this.#config], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#child = child;
    const lines = createInterface({ input: child.stdout });
    await new Promise<void>((resolve, reject) => {
      lines.once("line", () => resolve());
      child.once("exit", (code) => reject(new Error(`the shelf ended with ${code}`)));
    });
  }

  /** A disk as one of the controllers sees it, who is patient: only what a test does to the shelf ends a session. */
  spec(serial: string, controller: string): DiskSpec {
    const number = this.#serials.indexOf(serial);
    return {
      serial,
      host: "127.0.0.1",
      port: this.port,
      targetName: target,
      initiatorName: `iqn.2026-11.dyad:${controller}`,
      isid: `4000d1ad${number.toString(16).padStart(4, "0")}`,
      exported: true,
      timing: patientDisk,
    };
  }

  async close(): Promise<void> {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

export const nbdUri = (path: string, name: string) => `nbd+unix:///${name}?socket=${path}`;

/** The name that fio's verification of a job prints, and nothing else but its totals: an error ends it with a code. */
export function fio(uri: string, ...options: string[]): Promise<Ran> {
  return run("fio", "--name=job", "--ioengine=nbd", `--uri=${uri}`, ...options);
}

/** Lines of the kernel's mount list that name a path below the folder. */
export async function mountsBelow(folder: string): Promise<string[]> {
  const mounts = await readFile("/proc/self/mountinfo", "utf8");
  return mounts.split("\n").filter((line) => (line.split(" ")[4] ?? "").startsWith(folder));
}
