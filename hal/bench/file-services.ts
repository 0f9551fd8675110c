/** The file services of a controller: one nfs-ganesha for each virtual server, with a spare waiting for the next start. */
import { rmSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import {
  bareAddresses,
  type Config,
  type VirtualServerConfig,
} from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { FileServiceSpec } from "../linux/ganesha/config.ts";
import { explainEnd } from "../linux/ganesha/instance.ts";
import { killLeftovers } from "../linux/ganesha/leftovers.ts";
import { createPortMapper, type PortMapper } from "../linux/ganesha/port-mapper.ts";
import { createGanesha, filesIn, type Ganesha } from "../linux/ganesha.ts";
import { programsOf } from "../linux/place/programs.ts";
import type { FileServices, Machine, MachineHandlers } from "../port/machine.ts";
import { exportIdOf } from "./numbering.ts";
import type { Places } from "./places.ts";

/** Where ganesha keeps the records of NFSv4 clients, on the first volume of the virtual server. */
const recoveryDir = ".dyad/nfs4";

/** A move has better things to do with the processors than to get ready for the next. */
const spareAfterMs = 1000;

/** A spare that has not come to its hold by then holds up the next no longer. */
const spareMsMax = 3000;

/** Time for what an earlier life left to die. */
const leftoversMs = 2000;

export interface BenchServices extends FileServices {
  /**
   * Makes the service of a virtual server, or lets its next start be another one: what runs goes on as it is. `prepare` replaces a spare of the former kind. Its
   * place must be there. Idempotent.
   */
  define(definition: Definition): void;
  /** Ends it, its spare and its port mapper. Idempotent. Fault `timeout`: something of it lives. */
  forget(name: string, limitMs: number): Promise<Outcome>;
}

/** Kills what an earlier life left behind, of every name, also those that are no more. */
export async function openFileServices(
  config: Config,
  handlers: MachineHandlers,
  mountPath: Machine["mountPath"],
  places: ProgramPlaces,
): Promise<BenchServices> {
  const runDir = `${config.controller.runDir}/services`;
  const cleaned = await killLeftovers(filesIn(runDir), leftoversMs);
  if (cleaned.ok) rmSync(runDir, { recursive: true, force: true });
  else handlers.log(explain(cleaned.fault));
  return new GaneshaServices(runDir, handlers, mountPath, places);
}

interface Entry {
  definition: Definition;
  readonly ganesha: Ganesha;
  readonly portMapper: PortMapper;
  /** When its next spare is made. */
  waiting: NodeJS.Timeout | undefined;
}

/** Of all that a virtual server's place is, what its programs need. */
type ProgramPlaces = Pick<Places, "of" | "folder" | "groups">;

class GaneshaServices implements BenchServices {
  readonly #runDir: string;
  readonly #handlers: MachineHandlers;
  readonly #mountPath: Machine["mountPath"];
  readonly #places: ProgramPlaces;
  readonly #entries = new Map<string, Entry>();
  readonly #spares = new SpareLine();

  constructor(
    runDir: string,
    handlers: MachineHandlers,
    mountPath: Machine["mountPath"],
    places: ProgramPlaces,
  ) {
    this.#runDir = runDir;
    this.#handlers = handlers;
    this.#mountPath = mountPath;
    this.#places = places;
  }

  define(definition: Definition): void {
    const { name } = definition.server;
    const entry = this.#entries.get(name);
    if (entry) entry.definition = definition;
    else this.#entries.set(name, this.#make(definition));
  }

  #make(definition: Definition): Entry {
    const { name } = definition.server;
    const { groups, folder } = this.#places;
    const place = programsOf(this.#places.of(name), folder, name, () => groups.joinPaths(name));
    const portMapper = createPortMapper(place);
    const ganesha = createGanesha({
      name,
      runDir: this.#runDir,
      portMapper,
      place,
      log: (message) => this.#handlers.log(`${name}: ${message}`),
      onEnd: (end) => {
        if (!end.expected) {
          this.#handlers.log(`${name}: the file service ended: ${JSON.stringify(end)}`);
          this.#handlers.serviceExited(name, explainEnd(end));
        }
        this.#prepareSoon(name);
      },
      onHung: (reason) => this.#handlers.serviceHung(name, reason),
    });
    return { definition, ganesha, portMapper, waiting: undefined };
  }

  async forget(name: string, limitMs: number): Promise<Outcome> {
    const entry = this.#entries.get(name);
    if (!entry) return done;
    clearTimeout(entry.waiting);
    const closed = await entry.ganesha.close({ timeoutMs: limitMs });
    if (!closed.ok) return closed;
    await entry.portMapper.stop();
    // Its end was told in the meantime, which made it get ready once more.
    clearTimeout(entry.waiting);
    this.#entries.delete(name);
    return done;
  }

  #find(name: string): Entry {
    const entry = this.#entries.get(name);
    if (!entry) throw new Error(`file service ${name} is no virtual server's`);
    return entry;
  }

  prepare(name: string): Promise<Outcome> {
    return this.#spares.next(
      () => this.#prepareNow(name),
      () => this.#entries.get(name)?.ganesha.spareHeld() ?? Promise.resolve(),
    );
  }

  /** All that a spare is told is in the definition: where its volumes will be mounted, too. */
  async #prepareNow(name: string): Promise<Outcome> {
    const entry = this.#entries.get(name);
    // It may have gone while it stood in line.
    if (!entry) return done;
    const { server } = entry.definition;
    const paths = server.volumes.map(({ disk }) => this.#mountPath(server, disk));
    const spec = specOf(entry.definition.number, server, paths);
    return spec.ok ? await entry.ganesha.prepare(spec.value) : spec;
  }

  #prepareSoon(name: string): void {
    const entry = this.#entries.get(name);
    if (!entry) return;
    clearTimeout(entry.waiting);
    entry.waiting = setTimeout(() => void this.prepare(name), spareAfterMs);
  }

  async start(
    server: VirtualServerConfig,
    mountPaths: readonly string[],
    limitMs: number,
  ): Promise<Outcome> {
    const { ganesha, definition } = this.#find(server.name);
    const spec = specOf(definition.number, server, mountPaths);
    if (!spec.ok) return spec;
    // Whatever ends next, this one or the next move's, is followed by a start that cannot wait.
    this.#prepareSoon(server.name);
    return await startProved(ganesha, spec.value, limitMs, this.#handlers.log);
  }

  kill(name: string): void {
    this.#find(name).ganesha.kill();
  }

  async stop(name: string, limitMs: number): Promise<Outcome> {
    const { ganesha } = this.#find(name);
    const startedAt = performance.now();
    // At once, also when a start is under way; then wait until the kernel has let go of everything.
    ganesha.kill();
    const stopped = await ganesha.stop({ timeoutMs: limitMs });
    if (!stopped.ok) return stopped;
    // Whatever else runs in its place would hold the volume.
    const leftMs = limitMs - (performance.now() - startedAt);
    return await this.#places.groups.empty(name, () => ganesha.processes(), leftMs);
  }

  async close(): Promise<void> {
    for (const { waiting } of this.#entries.values()) clearTimeout(waiting);
    for (const { ganesha } of this.#entries.values())
      await ganesha.close({ timeoutMs: leftoversMs });
    for (const { portMapper } of this.#entries.values()) await portMapper.stop();
  }
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

function specOf(
  number: number,
  server: VirtualServerConfig,
  mountPaths: readonly string[],
): Outcome<FileServiceSpec> {
  const [first] = mountPaths;
  if (first === undefined) return failed("badInput", `file service ${server.name}`, "no volume");
  return good({
    addresses: bareAddresses(server),
    exports: server.volumes.map((volume, i) => ({
      id: exportIdOf(number, volume.id),
      path: mountPaths[i] ?? first,
      pseudo: volume.export,
    })),
    recoveryDir: `${first}/${recoveryDir}`,
  });
}
