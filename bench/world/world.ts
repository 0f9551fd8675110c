/**
 * The one-machine world: two controllers, a shelf, a broker, a serial cable, a switch and room for clients, under one prefix.
 * `World.start` builds it, `stop` removes it; whatever happens between, the next run's start removes it by name.
 *
 * Order of a start, where each line runs at once: lock, clean · network | disks, keys, configurations | programs ·
 * shelf | serial cable | broker | mount namespaces · controllers.
 */
import { randomBytes } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import type { Server } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { formatConfig } from "../../firmware-ts/schema/config-text.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { Status } from "../../firmware-ts/schema/status.ts";
import { bundledFirmware } from "../../scripts/bundle.ts";
import { inSources } from "../../scripts/positions.ts";
import { buildProbePrograms, echoWords, type ProbePrograms } from "../probe/programs.ts";
import { ControllerApi } from "./api.ts";
import { prepareBroker, startBroker } from "./broker.ts";
import { Cgroup, findCgroup } from "./cgroup.ts";
import { type Cleaned, cleanWorld } from "./clean.ts";
import { BenchError } from "./error.ts";
import { limitMs, waitFor } from "./exec.ts";
import { firmwareWords } from "./firmware.ts";
import { rememberSettings } from "./kernel-settings.ts";
import { controllerIds, type Layout, type LayoutOptions, layoutOf, repoDir } from "./layout.ts";
import { Ledger, lockPrefix } from "./ledger.ts";
import { Machine } from "./machine.ts";
import { Network, portsOf } from "./network.ts";
import { configOf, type PlanOptions, planPaths } from "./plan.ts";
import { Processes, type Started } from "./processes.ts";
import { SerialCable } from "./relay.ts";
import { prepareShelf, type Shelf, startShelf } from "./shelf.ts";

/** As `RestartSec=` of systemd.service(5) is by default. */
const restartDelayMs = 100;

/** Port of the answerers that the address probe asks. */
export const echoPort = 7007;

export interface WorldOptions extends PlanOptions, LayoutOptions {
  readonly prefix: string;
  readonly diskMb?: number;
  /** Build everything but start no daemon: for tests of the world itself, and for the peers. */
  readonly withoutControllers?: boolean;
  readonly signal?: AbortSignal;
}

/** What a start took, ms since its begin. */
export interface StartTimes {
  readonly builtMs: number;
  readonly servingMs: number;
}

interface Parts {
  readonly options: WorldOptions;
  readonly layout: Layout;
  readonly lock: Server;
  readonly ledger: Ledger;
  readonly processes: Processes;
  readonly cgroup: Cgroup;
  readonly infra: Cgroup;
  readonly network: Network;
}

interface Daemon {
  process: Started | undefined;
  supervised: boolean;
  restarts: number;
}

/** What a build adds to the parts. */
interface Pieces {
  readonly programs: ProbePrograms;
  /** Path of the bundled daemon. */
  readonly firmware: string;
  readonly machines: { readonly [id in ControllerId]: Machine };
  readonly shelf: Shelf;
  readonly serial: SerialCable;
  readonly brokerConfig: string;
  readonly times: StartTimes;
}

/** Throws `notRoot`, `alreadyRunning`, `badInput`. Cleans up what an earlier run left. */
async function openParts(options: WorldOptions): Promise<Parts> {
  const { prefix } = options;
  const layout = layoutOf(prefix, options);
  if (process.getuid?.() !== 0)
    throw new BenchError("notRoot", "bench", "needs root for namespaces, mounts and cgroups");
  const lock = await lockPrefix(prefix);
  await cleanWorld(layout);
  const ledger = new Ledger(prefix);
  ledger.begin();
  rememberSettings(ledger);
  mkdirSync(layout.baseDir, { recursive: true, mode: 0o711 });
  const cgroup = new Cgroup(findCgroup(), layout.cgroupName);
  const infra = cgroup.child("infra");
  infra.create();
  cgroup.handDown();
  const processes = new Processes(ledger, layout.logDir);
  return { options, layout, lock, ledger, processes, cgroup, infra, network: new Network(layout) };
}

/** Removes what a run with this prefix left behind. Throws `alreadyRunning` if it runs still. */
export async function cleanPrefix(prefix: string): Promise<Cleaned> {
  const lock = await lockPrefix(prefix);
  try {
    return await cleanWorld(layoutOf(prefix));
  } finally {
    lock.close();
  }
}

export class World {
  readonly layout: Layout;
  readonly network: Network;
  readonly processes: Processes;
  readonly programs: ProbePrograms;
  readonly machines: { readonly [id in ControllerId]: Machine };
  readonly apis: { readonly [id in ControllerId]: ControllerApi };
  readonly shelf: Shelf;
  readonly serial: SerialCable;
  readonly signal: AbortSignal | undefined;
  readonly times: StartTimes;
  readonly #parts: Parts;
  readonly #firmware: string;
  readonly #brokerConfig: string;
  #broker: Started;
  readonly #daemons: { readonly [id in ControllerId]: Daemon } = {
    a: { process: undefined, supervised: false, restarts: 0 },
    b: { process: undefined, supervised: false, restarts: 0 },
  };
  #stopping = false;

  private constructor(parts: Parts, pieces: Pieces) {
    this.#parts = parts;
    this.layout = parts.layout;
    this.network = parts.network;
    this.processes = parts.processes;
    this.signal = parts.options.signal;
    this.programs = pieces.programs;
    this.machines = pieces.machines;
    this.shelf = pieces.shelf;
    this.serial = pieces.serial;
    this.times = pieces.times;
    this.#firmware = pieces.firmware;
    this.#brokerConfig = pieces.brokerConfig;
    this.apis = {
      a: new ControllerApi(pieces.machines.a.paths.socket),
      b: new ControllerApi(pieces.machines.b.paths.socket),
    };
    this.#broker = startBroker(parts.layout, parts.processes, parts.infra, pieces.brokerConfig);
  }

  /** Builds a world and waits until it serves. Whatever it had built is removed again when it fails. */
  static async start(options: WorldOptions): Promise<World> {
    const parts = await openParts(options);
    try {
      return await build(parts, (pieces) => new World(parts, pieces));
    } catch (error) {
      keepLogs(parts.layout);
      await cleanWorld(parts.layout);
      parts.lock.close();
      throw error;
    }
  }

  /** Ends everything and removes every trace. */
  async stop(): Promise<Cleaned> {
    this.#stopping = true;
    const cleaned = await cleanWorld(this.layout);
    this.#parts.lock.close();
    return cleaned;
  }

  /** Copies the logs to where they outlive the world; returns the place. */
  keepLogs(): string {
    return keepLogs(this.layout);
  }

  get infra(): Cgroup {
    return this.#parts.infra;
  }

  daemon(id: ControllerId): Started | undefined {
    const started = this.#daemons[id].process;
    return started?.alive() ? started : undefined;
  }

  /** How often the firmware of a controller ended by itself and was started again. */
  restarts(id: ControllerId): number {
    return this.#daemons[id].restarts;
  }

  /**
   * Starts the firmware of a controller that is powered on, and goes on to start it whenever it ends by itself, as its service
   * manager would; until `forsakeDaemon`.
   */
  startDaemon(id: ControllerId): void {
    const daemon = this.#daemons[id];
    daemon.supervised = true;
    const words = firmwareWords(this.#firmware, this.machines[id].paths.config);
    const started = this.machines[id].start("daemon", words);
    daemon.process = started;
    void started.ended.then(async () => {
      await delay(restartDelayMs);
      const due = daemon.supervised && daemon.process === started && this.machines[id].powered;
      if (!due || this.#stopping) return;
      daemon.restarts += 1;
      this.startDaemon(id);
    });
  }

  /** From now on the end of the firmware is meant: nobody starts it again. */
  forsakeDaemon(id: ControllerId): void {
    this.#daemons[id].supervised = false;
  }

  /** Starts the answerer of the probe: in the network of each virtual server, as soon as the firmware has made that. It ends with the controller's processes. */
  startEcho(id: ControllerId): void {
    const machine = this.machines[id];
    const networks = join(machine.paths.runDir, "networks");
    const answered = this.layout.servers.map(({ name, address }) => ({
      address,
      network: join(networks, name),
    }));
    machine.start("echo", echoWords(this.programs, echoPort, id, answered), {
      input: true,
      onLine: () => {},
    });
  }

  /** A machine that was off boots: clean mount namespace, clean NICs, its cables in again, its services started. */
  async boot(id: ControllerId): Promise<void> {
    await this.network.renew(id);
    await this.machines[id].powerOn();
    await this.serial.forget(id);
    await this.network.setForwarding(portsOf(id), true);
    this.startEcho(id);
    this.startDaemon(id);
  }

  get broker(): Started {
    return this.#broker;
  }

  restartBroker(): void {
    const { layout, processes, infra } = this.#parts;
    this.#broker = startBroker(layout, processes, infra, this.#brokerConfig);
  }

  async statuses(): Promise<{ [id in ControllerId]: Status | undefined }> {
    const [a, b] = await Promise.all([this.apis.a.statusIfUp(), this.apis.b.statusIfUp()]);
    return { a, b };
  }

  /** Waits until both controllers are paired over green links and every virtual server serves somewhere. */
  async whole(deadlineMs: number): Promise<void> {
    let last: string[] = [];
    try {
      await waitFor(
        "the pair is whole",
        async () => {
          last = missing(await this.statuses());
          return last.length === 0;
        },
        { deadlineMs, intervalMs: 25, signal: this.signal },
      );
    } catch (error) {
      this.signal?.throwIfAborted();
      throw new BenchError("timeout", "the pair is whole", last.join("; "), error);
    }
  }
}

/** What keeps the pair from being whole, in words. */
export function missing(statuses: { readonly [id in ControllerId]: Status | undefined }): string[] {
  return controllerIds.flatMap((id) => {
    const status = statuses[id];
    if (!status) return [`${id} does not answer`];
    const reds = status.links.filter((link) => link.colour !== "green" && link.colour !== "absent");
    const wrong: string[] = [];
    if (status.mode !== "paired") wrong.push(`${id} is ${status.mode}`);
    if (reds.length > 0)
      wrong.push(`${id}: links ${reds.map((each) => `${each.name} ${each.colour}`).join(", ")}`);
    for (const server of status.virtualServers) {
      const good =
        server.owner === id ? server.state === "serving" : server.owner === partnerOf(id);
      if (!good) wrong.push(`${id}: ${server.name} is ${server.state}, owner ${server.owner}`);
    }
    const { disks } = status;
    const lost = disks.filter((disk) => disk.path === "down").map((disk) => disk.serial);
    if (lost.length > 0) wrong.push(`${id}: no path to ${lost.join(", ")}`);
    return wrong;
  });
}

async function build(parts: Parts, make: (pieces: Pieces) => World): Promise<World> {
  const { options, layout, processes, infra } = parts;
  const began = performance.now();
  const password = randomBytes(12).toString("hex");
  writeFileSync(planPaths(layout).keyFile, randomBytes(32), { mode: 0o600 });
  for (const id of controllerIds) {
    mkdirSync(join(layout.baseDir, id), { mode: 0o711 });
    writeFileSync(
      join(layout.baseDir, id, "dyad.toml"),
      formatConfig(configOf(layout, id, options)),
    );
  }
  const [firmware, shelfConfig, brokerConfig, serial] = await Promise.all([
    bundledFirmware(),
    prepareShelf(layout, options.diskMb ?? 256),
    prepareBroker(layout, password, options.tls ?? false),
    SerialCable.start(layout, processes, infra),
    parts.network.create(),
  ]);
  options.signal?.throwIfAborted();
  const programs = buildProbePrograms(join(repoDir, "work", "probe"));
  const machines = { a: machineOf(parts, "a"), b: machineOf(parts, "b") };
  const [shelf] = await Promise.all([
    startShelf(layout, processes, infra, shelfConfig),
    machines.a.powerOn(),
    machines.b.powerOn(),
  ]);
  options.signal?.throwIfAborted();
  const times = { builtMs: performance.now() - began, servingMs: 0 };
  const world = make({ programs, firmware, machines, shelf, serial, brokerConfig, times });
  if (options.withoutControllers) return world;
  for (const id of controllerIds) {
    world.startEcho(id);
    world.startDaemon(id);
  }
  await world.whole(2 * limitMs);
  times.servingMs = performance.now() - began;
  return world;
}

function machineOf(parts: Parts, id: ControllerId): Machine {
  const { layout, processes, ledger, infra } = parts;
  return new Machine(id, { layout, processes, ledger, infra, cgroup: parts.cgroup.child(id) });
}

function keepLogs(layout: Layout): string {
  const place = join(repoDir, "work", "bench-logs", layout.prefix);
  rmSync(place, { recursive: true, force: true });
  mkdirSync(place, { recursive: true });
  if (existsSync(layout.logDir)) copyLogs(layout.logDir, place);
  for (const id of controllerIds) {
    const journal = join(layout.baseDir, id, "state", "journal.jsonl");
    if (existsSync(journal)) cpSync(journal, join(place, `${id}-journal.jsonl`));
  }
  return place;
}

/** Stack traces of the bundled firmware are told in terms of its sources. */
function copyLogs(from: string, to: string): void {
  for (const name of readdirSync(from))
    writeFileSync(join(to, name), inSources(readFileSync(join(from, name), "utf8")));
}
