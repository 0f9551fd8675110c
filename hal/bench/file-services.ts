/** The file services of a controller: one nfs-ganesha for each virtual server, with a spare waiting for the next start. */
import { setTimeout as delay } from "node:timers/promises";
import {
  bareAddresses,
  type Config,
  type VirtualServerConfig,
} from "../../firmware-ts/schema/config.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { FileServiceSpec } from "../linux/ganesha/config.ts";
import { explainEnd } from "../linux/ganesha/instance.ts";
import { killLeftovers } from "../linux/ganesha/leftovers.ts";
import { createPortMapper, type PortMapper } from "../linux/ganesha/port-mapper.ts";
import { createGanesha, filesIn, type Ganesha } from "../linux/ganesha.ts";
import { programsOf } from "../linux/place/programs.ts";
import type { FileServices, Machine, MachineHandlers } from "../port/machine.ts";
import type { Places } from "./places.ts";

/** Where ganesha keeps the records of NFSv4 clients, on the first volume of the virtual server. */
const recoveryDir = ".dyad/nfs4";

/** A move has better things to do with the processors than to get ready for the next. */
const spareAfterMs = 1000;

/** A spare that has not come to its hold by then holds up the next no longer. */
const spareMsMax = 3000;

/** Time for what an earlier life left to die. */
const leftoversMs = 2000;

/** Kills what an earlier life left behind, starts the spares, and returns the services. */
export async function openFileServices(
  config: Config,
  handlers: MachineHandlers,
  mountPath: Machine["mountPath"],
  places: Places,
): Promise<FileServices> {
  const servers = new Map<string, Ganesha>();
  const runDir = `${config.controller.runDir}/services`;
  // Of every name, also those that the configuration has no more.
  const cleaned = await killLeftovers(filesIn(runDir), leftoversMs);
  if (!cleaned.ok) handlers.log(explain(cleaned.fault));
  const mappers: PortMapper[] = [];
  const exportIds = exportIdsOf(config);
  for (const server of config.virtualServers) {
    const { name } = server;
    const place = programsOf(places.of(name), places.folder, name);
    const portMapper = createPortMapper(place, bareAddresses(server));
    mappers.push(portMapper);
    const ganesha = createGanesha({
      name,
      runDir,
      portMapper,
      place,
      log: (message) => handlers.log(`${name}: ${message}`),
      onEnd: (end) => {
        if (!end.expected) {
          handlers.log(`${name}: the file service ended: ${JSON.stringify(end)}`);
          handlers.serviceExited(name, explainEnd(end));
        }
        prepareSoon(name);
      },
      onHung: (reason) => handlers.serviceHung(name, reason),
    });
    servers.set(name, ganesha);
  }

  const find = (name: string): Ganesha => {
    const ganesha = servers.get(name);
    if (!ganesha) throw new Error(`file service ${name} is not in the configuration`);
    return ganesha;
  };

  const spares = new SpareLine();
  const prepare = (name: string): Promise<Outcome> =>
    spares.next(
      () => prepareNow(name),
      () => find(name).spareHeld(),
    );

  /** All that a spare is told is in the configuration: where its volumes will be mounted, too. */
  async function prepareNow(name: string): Promise<Outcome> {
    const server = config.virtualServers.find((each) => each.name === name);
    if (!server) throw new Error(`file service ${name} is not in the configuration`);
    const paths = server.volumes.map(({ disk }) => mountPath(server, disk));
    const spec = specOf(server, paths, exportIds);
    return spec.ok ? await find(name).prepare(spec.value) : spec;
  }

  const waiting = new Map<string, NodeJS.Timeout>();
  function prepareSoon(name: string): void {
    clearTimeout(waiting.get(name));
    waiting.set(
      name,
      setTimeout(() => void prepare(name), spareAfterMs),
    );
  }

  async function start(
    server: VirtualServerConfig,
    mountPaths: readonly string[],
    limitMs: number,
  ): Promise<Outcome> {
    const ganesha = find(server.name);
    const spec = specOf(server, mountPaths, exportIds);
    if (!spec.ok) return spec;
    // Whatever ends next, this one or the next move's, is followed by a start that cannot wait.
    prepareSoon(server.name);
    return await startProved(ganesha, spec.value, limitMs, handlers.log);
  }

  return {
    start,
    kill: (name) => find(name).kill(),
    stop(name, limitMs) {
      const ganesha = find(name);
      // At once, also when a start is under way; then wait until the kernel has let go of everything.
      ganesha.kill();
      return ganesha.stop({ timeoutMs: limitMs });
    },
    prepare,
    async close() {
      for (const timer of waiting.values()) clearTimeout(timer);
      for (const ganesha of servers.values()) await ganesha.close({ timeoutMs: leftoversMs });
      for (const mapper of mappers) await mapper.stop();
    },
  };
}

/**
 * Spares are made one after another, each when the last has come to its hold: all at once, after a takeover of many, they would take the
 * processors from the services that have just been started, and from the takeover that may be next.
 */
export class SpareLine {
  readonly #msMax: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(msMax: number = spareMsMax) {
    this.#msMax = msMax;
  }

  /** The result is that of `begin`, which is called in its turn; the next waits for it and for `held`, for a limited time. */
  next<T>(begin: () => Promise<T>, held: () => Promise<void>): Promise<T> {
    const mine = this.#last.then(begin);
    const made = mine.then(held).catch(() => undefined);
    this.#last = this.#last.then(() =>
      Promise.race([made, delay(this.#msMax, undefined, { ref: false })]),
    );
    return mine;
  }
}

/**
 * Starts a service and proves that it answers. One that dies on the way is started once more: whoever kills a running service by its name
 * (an administrator, the kernel in want of memory) kills the spare with it, which is the next one to start.
 */
export async function startProved(
  ganesha: Pick<Ganesha, "start" | "probe" | "killCount">,
  spec: FileServiceSpec,
  limitMs: number,
  log: (message: string) => void,
): Promise<Outcome> {
  const kills = ganesha.killCount();
  for (let attempt = 1; ; attempt += 1) {
    const started = await ganesha.start(spec);
    if (!started.ok) return started;
    const answered = await ganesha.probe(limitMs);
    if (answered.ok) return done;
    const diedByItself = answered.fault.code === "serviceFailed" && kills === ganesha.killCount();
    if (attempt > 1 || !diedByItself) return answered;
    log(`started again: ${explain(answered.fault)}`);
  }
}

/** Numbers of exports are part of every file handle: from the configuration's order, which both controllers share. */
function exportIdsOf(config: Config): ReadonlyMap<string, number> {
  const volumes = config.virtualServers.flatMap((server) => server.volumes);
  return new Map(volumes.map((volume, i) => [volume.export, i + 1]));
}

function specOf(
  server: VirtualServerConfig,
  mountPaths: readonly string[],
  exportIds: ReadonlyMap<string, number>,
): Outcome<FileServiceSpec> {
  const [first] = mountPaths;
  if (first === undefined) return failed("badInput", `file service ${server.name}`, "no volume");
  return good({
    addresses: bareAddresses(server),
    exports: server.volumes.map((volume, i) => ({
      id: exportIds.get(volume.export) ?? i + 1,
      path: mountPaths[i] ?? first,
      pseudo: volume.export,
    })),
    recoveryDir: `${first}/${recoveryDir}`,
  });
}
