/**
 * SMB clients of a world: each an `smbclient` session that puts one small file after another, with a pause in between, and begins a new session when one ends. Everything that was
 * acknowledged is read back and compared.
 */
import { randomBytes } from "node:crypto";
import { appendFile, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BenchError } from "../world/error.ts";
import { limitMs, monotonicMs, run, waitFor } from "../world/exec.ts";
import type { PlannedServer } from "../world/layout.ts";
import type { Started } from "../world/processes.ts";
import type { World } from "../world/world.ts";
import { tenth } from "./figures.ts";

/** Names that are written over and over: inodes of the bench's volumes are few. */
const names = 64;
const fileBytes = 4096;

/** A session that is refused at once is not begun anew more often than that. */
const restartMs = 20;

/** A client counts as going on while it has put a file within this time; to begin a session takes a good part of it. */
const livelyMsMax = 1000;

interface Name {
  /** What was acknowledged last. */
  acked: Buffer | undefined;
  /** A put that nobody has acknowledged may have been done, or half of it. */
  open: boolean;
}

export class SmbClient {
  readonly name: string;
  readonly server: PlannedServer;
  readonly #world: World;
  readonly #namespace: string;
  readonly #folder: string;
  readonly #paceMs: number;
  readonly #files: Name[] = Array.from({ length: names }, () => ({
    acked: undefined,
    open: false,
  }));
  #session: Started | undefined;
  /** The session that has put something. */
  #served: Started | undefined;
  #heard: ((answer: "put" | "trouble") => void) | undefined;
  #lastPutMs = monotonicMs();
  #longestGapMs = 0;
  #puts = 0;
  #stopped = false;
  /** Set while nothing is to be put; and whether that is so. */
  #pause: Promise<void> | undefined;
  #paused = false;
  readonly #ended: Promise<void>;

  /** Client number `index` works on the share of virtual server number `index`. */
  constructor(world: World, index: number, paceMs: number) {
    const server = world.layout.servers[index];
    const { clients } = world.layout.namespaces;
    const namespace = clients[index % clients.length];
    if (server?.share === undefined || namespace === undefined)
      throw new BenchError("badInput", "SMB client", `there is no share ${index}`);
    this.name = `s${index + 1}`;
    this.server = server;
    this.#world = world;
    this.#namespace = namespace;
    this.#paceMs = paceMs;
    this.#folder = join(world.layout.baseDir, `smb-${this.name}`);
    mkdirSync(this.#folder, { recursive: true });
    this.#ended = this.#work();
  }

  get puts(): number {
    return this.#puts;
  }

  /** Begins a new measurement. */
  mark(): void {
    this.#longestGapMs = 0;
  }

  /** Between two acknowledged puts since the mark, or since the last one, ms. */
  longestGapMs(): number {
    return Math.max(this.#longestGapMs, monotonicMs() - this.#lastPutMs);
  }

  lively(): boolean {
    return monotonicMs() - this.#lastPutMs < livelyMsMax;
  }

  /** Names whose acknowledged content is not there. Nothing is put meanwhile: a file that is being put cannot be read. */
  async lost(): Promise<string[]> {
    const pause = Promise.withResolvers<void>();
    this.#pause = pause.promise;
    try {
      await waitFor(`${this.name} pauses`, () => this.#paused, { deadlineMs: limitMs });
      return await this.#compare();
    } finally {
      this.#pause = undefined;
      pause.resolve();
      // It was the bench that waited.
      this.#lastPutMs = monotonicMs();
    }
  }

  async #compare(): Promise<string[]> {
    const wanted = this.#files.flatMap(({ acked, open }, i) =>
      acked === undefined || open ? [] : [{ file: `f${i}`, acked }],
    );
    const into = join(this.#folder, "back");
    rmSync(into, { recursive: true, force: true });
    mkdirSync(into);
    const input = wanted.map(({ file }) => `get ${file} ${join(into, file)}\n`).join("");
    await run("nsenter", [`--net=/run/netns/${this.#namespace}`, ...this.#words()], { input });
    return wanted.flatMap(({ file, acked }) => {
      const path = join(into, file);
      return existsSync(path) && readFileSync(path).equals(acked) ? [] : [file];
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#session?.child.kill("SIGKILL");
    await this.#ended;
  }

  #words(...more: string[]): string[] {
    const { address, share } = this.server;
    return ["smbclient", "-N", `//${address}/${share}`, ...more];
  }

  async #work(): Promise<void> {
    for (let i = 0; !this.#stopped; i += 1) {
      this.#paused = true;
      await this.#pause;
      this.#paused = false;
      this.#session ??= this.#begin();
      if (await this.#put(i % names)) {
        await delay(this.#paceMs);
        continue;
      }
      this.#session.child.kill("SIGKILL");
      await this.#session.ended;
      this.#session = undefined;
      await delay(restartMs);
    }
  }

  #begin(): Started {
    const session = this.#world.processes.start({
      role: `smb-${this.name}`,
      cgroup: this.#world.infra,
      inside: this.#namespace,
      // Into a pipe it would tell of an error only when it ends, which is when it has had nothing to do for seconds.
      argv: ["sh", "-c", 'exec stdbuf -oL "$0" "$@" 2>&1', ...this.#words()],
      input: true,
      onLine: (line) => {
        if (line.includes("putting file")) return this.#heard?.("put");
        if (!/NT_STATUS_|connection|rror/.test(line)) return;
        this.#note(line);
        this.#heard?.("trouble");
      },
    });
    void session.ended.then(() => this.#heard?.("trouble"));
    this.#note("begins a session");
    return session;
  }

  /** For whoever reads the logs of a run that was not as it must be; nothing depends on it. */
  #note(text: string): void {
    const line = `${tenth(monotonicMs())} ${text}\n`;
    appendFile(this.#world.processes.logPath(`smb-${this.name}`), line, () => {});
  }

  async #put(index: number): Promise<boolean> {
    const file = this.#files[index];
    const session = this.#session;
    if (!file || !session?.alive()) return false;
    const content = randomBytes(fileBytes);
    const path = join(this.#folder, "next");
    writeFileSync(path, content);
    file.open = true;
    const answered = new Promise<"put" | "trouble">((resolve) => {
      this.#heard = resolve;
    });
    session.child.stdin?.write(`put ${path} f${index}\n`);
    const answer = await answered;
    this.#heard = undefined;
    if (answer === "trouble") return false;
    if (session !== this.#served) this.#note("puts its first file");
    this.#served = session;
    Object.assign(file, { acked: content, open: false });
    const nowMs = monotonicMs();
    this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastPutMs);
    this.#lastPutMs = nowMs;
    this.#puts += 1;
    return true;
  }
}

/** One for each virtual server, all of which have put something. */
export async function startSmbClients(world: World, paceMs: number): Promise<SmbClient[]> {
  const clients = world.layout.servers.map((_, i) => new SmbClient(world, i, paceMs));
  await allPutting(clients, world.signal);
  return clients;
}

/** Waits until each has put something again. */
export async function allPutting(
  clients: readonly SmbClient[],
  signal?: AbortSignal,
): Promise<void> {
  const before = clients.map(({ puts }) => puts);
  const going = () =>
    clients.every((client, i) => client.lively() && client.puts > (before[i] ?? 0));
  await waitFor("SMB clients put files", going, { deadlineMs: 2 * limitMs, signal });
}
