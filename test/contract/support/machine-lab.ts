/**
 * One controller without decisions (machine-agent.ts), the shelf that it reaches, and a client on its data LAN: two namespaces joined by a wire. The
 * controller's mounts outlive its processes, as a kernel's do.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Lifecycle, Work } from "../../../firmware-ts/core/effects.ts";
import {
  type Config,
  configSchema,
  virtualServerSchema,
} from "../../../firmware-ts/schema/config.ts";
import type { Definition } from "../../../firmware-ts/schema/definition.ts";
import type { Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { ReservationAnswer } from "../../../firmware-ts/schema/reservation.ts";
import { controlGroupOf } from "../../../hal/bench/places.ts";
import { ControlGroup } from "../../../hal/linux/control-groups/group.ts";
import { removeControlGroups } from "../../../hal/linux/control-groups/groups.ts";
import { findHierarchies } from "../../../hal/linux/control-groups/hierarchies.ts";
import { limitsMs } from "../../support/limits.ts";
import { until } from "../../support/until.ts";
import { endProcess, joinedNamespaces, type Namespace } from "./namespaces.ts";

const scripts = {
  agent: new URL("./machine-agent.ts", import.meta.url).pathname,
  shelf: new URL("../../../hal/shelf/main.ts", import.meta.url).pathname,
  client: new URL("../../../bench/clients/main.ts", import.meta.url).pathname,
};

const target = "iqn.2026-11.dyad:machine-test";
const key = "00000000000a0001";
const type = "exclusiveAccessRegistrantsOnly";

/** `address/prefix` of virtual server `number`. */
export function definition(
  number: number,
  name: string,
  disks: readonly string[],
  more: object = {},
): Definition {
  const server = virtualServerSchema.parse({
    name,
    home: "a",
    addresses: [`10.5.0.${100 + number}/24`],
    volumes: disks.map((disk) => ({ disk, export: `/${disk}` })),
    ...more,
  });
  return { number, sequence: 0, wanted: "started", server };
}

/** What an NFS client that verifies every byte says when it is asked. */
export interface ClientReport {
  readonly verified: boolean;
  readonly lostAckedWrites: number;
  readonly engines: readonly {
    readonly read: { readonly longestGapMs: number };
    /** Connections lost, and calls repeated. */
    readonly repeats: number;
  }[];
}

export class LabClient {
  readonly #child: ChildProcess;
  readonly #lines: { t: string }[] = [];

  constructor(child: ChildProcess) {
    this.#child = child;
    if (!child.stdout) throw new Error("the client has no output");
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.#lines.push(JSON.parse(line));
    });
  }

  /** Whether it has read something since the mark. */
  async reads(): Promise<void> {
    const from = this.#lines.length;
    await until("the client reads", () =>
      this.#lines.slice(from).some((line) => "reads" in line && Number(line.reads) > 0),
    );
  }

  mark(): void {
    this.#child.stdin?.write('{"cmd":"mark","name":"now"}\n');
  }

  async report(): Promise<ClientReport> {
    const isReport = ({ t }: { t: string }) => t === "report";
    const before = this.#lines.filter(isReport).length;
    this.#child.stdin?.write('{"cmd":"report"}\n');
    await until("the client reports", () => this.#lines.filter(isReport).length > before);
    return this.#lines.findLast(isReport) as unknown as ClientReport;
  }

  end(): Promise<void> {
    return endProcess(this.#child);
  }
}

export class MachineLab {
  readonly controller: Namespace;
  readonly client: Namespace;
  readonly folder: string;
  readonly events: { event: string; [key: string]: unknown }[] = [];
  readonly #config: Config;
  readonly #holder: ChildProcess;
  readonly #shelf: ChildProcess;
  #agent: ChildProcess | undefined;
  #asked = 0;
  readonly #waiting = new Map<number, (value: unknown) => void>();

  private constructor(folder: string, serials: readonly string[]) {
    this.folder = folder;
    [this.controller, this.client] = joinedNamespaces(["machine", "machine-c"]);
    this.controller.ip("address", "add", "10.5.0.1/24", "dev", "wire0");
    this.client.ip("address", "add", "10.5.0.2/24", "dev", "wire0");
    const disks = serials.map((serial, lun) => this.#makeDisk(serial, lun));
    const shelf = join(folder, "shelf.json");
    const listen = { host: "127.0.0.1", port: 3260 };
    writeFileSync(shelf, JSON.stringify({ listen, targets: [target], disks }));
    this.#shelf = this.controller.spawn(process.execPath, scripts.shelf, shelf);
    this.#holder = this.controller.spawn(
      ...(["unshare", "--mount", "--propagation", "private", "sh", "-c"] as const),
      "mount -t tmpfs none /run && echo && exec cat",
    );
    this.#config = configSchema.parse({
      version: 1,
      controller: { id: "a", stateDir: join(folder, "state"), runDir: this.runDir },
      pair: { id: 1, keyFile: join(folder, "key") },
      links: { network: { local: "127.0.0.1", partner: "127.0.0.2" } },
      data: { nic: "wire0" },
      shelf: {
        portal: "127.0.0.1:3260",
        target,
        initiatorName: "iqn.2026-11.dyad:a",
        coordinators: ["C1"],
      },
      virtualServers: [definition(0, "unused", ["unused"]).server],
    });
    writeFileSync(join(folder, "config.json"), JSON.stringify(this.#config));
  }

  static async open(serials: readonly string[]): Promise<MachineLab> {
    const lab = new MachineLab(mkdtempSync(join(tmpdir(), "dyad-machine-")), serials);
    for (const child of [lab.#shelf, lab.#holder])
      await new Promise((resolve) => child.stdout?.once("data", resolve));
    return lab;
  }

  /** The control group of a virtual server. */
  groupOf(name: string): ControlGroup {
    const found = findHierarchies(String(this.#agent?.pid));
    if (!found.ok) throw new Error(JSON.stringify(found.fault));
    return new ControlGroup(found.value.hierarchies, join(controlGroupOf(this.#config), name));
  }

  get runDir(): string {
    return join(this.folder, "run");
  }

  #makeDisk(serial: string, lun: number) {
    const backingFile = join(this.folder, `${serial}.img`);
    const sizeBytes = 64 * 1024 * 1024;
    writeFileSync(backingFile, "");
    truncateSync(backingFile, sizeBytes);
    execFileSync("mkfs.ext4", ["-q", "-F", backingFile]);
    return {
      serial,
      lun,
      sizeBytes,
      backingFile,
      aptplFile: `${backingFile}.pr`,
      writeCache: false,
    };
  }

  /** A life of the firmware begins, with these virtual servers. */
  async start(definitions: readonly Definition[]): Promise<void> {
    const path = join(this.folder, "definitions.json");
    writeFileSync(path, JSON.stringify(definitions));
    mkdirSync(this.runDir, { recursive: true });
    const words = ["-t", String(this.#holder.pid), "-n", "-m", "--", process.execPath];
    const arguments_ = [scripts.agent, join(this.folder, "config.json"), path];
    const agent = spawn("nsenter", [...words, ...arguments_], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#agent = agent;
    this.events.length = 0;
    createInterface({ input: agent.stdout }).on("line", (line) => {
      const said = JSON.parse(line) as { id?: number; value?: unknown; event?: string };
      if (said.id !== undefined) this.#waiting.get(said.id)?.(said.value);
      else if (said.event !== undefined) this.events.push({ ...said, event: said.event });
    });
    await until("the machine is open", () => {
      if (agent.exitCode !== null)
        throw new Error(`the agent ended: ${JSON.stringify(this.events)}`);
      return this.events.some(({ event }) => event === "open");
    });
  }

  /** SIGKILL: the kernel keeps what it was given. */
  async kill(): Promise<void> {
    if (this.#agent) await endProcess(this.#agent);
  }

  #ask(command: object): Promise<unknown> {
    this.#asked += 1;
    const id = this.#asked;
    this.#agent?.stdin?.write(`${JSON.stringify({ id, ...command })}\n`);
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  async work(name: string, work: Work | Lifecycle): Promise<Outcome<string | undefined>> {
    return (await this.#ask({ op: "work", name, work })) as Outcome<string | undefined>;
  }

  async must(name: string, work: Work | Lifecycle): Promise<void> {
    const outcome = await this.work(name, work);
    if (!outcome.ok) throw new Error(`${name}: ${JSON.stringify([work, outcome.fault])}`);
  }

  define(what: Definition): Promise<Outcome<string | undefined>> {
    return this.work(what.server.name, { op: "define", definition: what });
  }

  forget({ number, server }: Definition): Promise<Outcome<string | undefined>> {
    return this.work(server.name, { op: "forget", number });
  }

  async reserve(serial: string, command: object): Promise<ReservationAnswer> {
    return (await this.#ask({ op: "reserve", serial, command })) as ReservationAnswer;
  }

  /** As the decisions start one: the disks are claimed, then made ours, then served. */
  async serve({ server: { name, volumes } }: Definition): Promise<void> {
    for (const { disk } of volumes) {
      const answers = [
        await this.reserve(disk, { op: "register", key }),
        await this.reserve(disk, { op: "reserve", key, type }),
      ];
      if (answers.some(({ status }) => status !== "good"))
        throw new Error(`${disk}: ${JSON.stringify(answers)}`);
      await this.must(name, { op: "attach", disk });
      await this.must(name, { op: "mount", disk });
    }
    await this.must(name, { op: "addAddresses" });
    await this.must(name, { op: "startService" });
  }

  /** As the decisions stop one that is to be given up. */
  async stop({ server: { name, addresses, volumes } }: Definition): Promise<void> {
    await this.must(name, { op: "removeAddresses", addresses });
    await this.must(name, { op: "stopService" });
    for (const { disk } of volumes) {
      for (const op of ["seal", "abandon", "detach"] as const) await this.must(name, { op, disk });
      const answers = [
        await this.reserve(disk, { op: "release", key, type }),
        await this.reserve(disk, { op: "unregister" }),
      ];
      if (answers.some(({ status }) => status !== "good"))
        throw new Error(`${disk}: ${JSON.stringify(answers)}`);
    }
  }

  /** An NFS client that reads and writes all the time. */
  connect({ server }: Definition, address = server.addresses[0]?.split("/")[0] ?? ""): LabClient {
    const [volume] = server.volumes;
    const words = ["--server", address, "--export", volume?.export ?? "", "--engines", "nfs3"];
    const name = ["--name", server.name];
    return new LabClient(this.client.spawn(process.execPath, scripts.client, ...words, ...name));
  }

  /** Runs a program on the controller, in its network and among its mounts. */
  run(program: string, ...words: readonly string[]): string {
    const enter = ["-t", String(this.#holder.pid), "-n", "-m", "--", program, ...words];
    return execFileSync("nsenter", enter, { encoding: "utf8" });
  }

  /** Mounts, processes and files of this lab's controller that name something, as lines. */
  traces(what: string): string[] {
    const mounts = this.run("cat", "/proc/self/mountinfo").split("\n");
    const processes = execFileSync("ps", ["-eo", "args"], { encoding: "utf8" }).split("\n");
    const files = execFileSync("find", [this.runDir], { encoding: "utf8" }).split("\n");
    const loops = execFileSync("sh", [
      "-c",
      "cat /sys/block/loop*/loop/backing_file 2>/dev/null || :",
    ]);
    const ours = [...mounts, ...processes, ...files, ...String(loops).split("\n")].filter((line) =>
      line.includes(this.folder),
    );
    return ours.filter((line) => line.includes(what));
  }

  async close(): Promise<void> {
    if (this.#agent && this.#agent.exitCode === null) {
      this.#agent.stdin?.end();
      const ended = this.#agent;
      await until("the agent ends", () => ended.exitCode !== null || ended.signalCode !== null);
    }
    await removeControlGroups(controlGroupOf(this.#config), limitsMs.condition);
    await endProcess(this.#holder);
    await endProcess(this.#shelf);
    await this.controller.remove();
    await this.client.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
