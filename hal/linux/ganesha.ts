/**
 * The NFS service of one virtual server: one nfs-ganesha, started where its volumes are mounted and its addresses are (its place).
 *
 * Glossary: *spare*: a process that is held short of its volume and its address (see `ganesha/instance.ts`). *Leftover*: a process of an earlier life.
 *
 * Obligations: at most one server of this name serves; none serves after `stop` or `kill` has settled well; the death of a server is
 * reported at once; a service counts as serving only after `probe` has had an answer for every export.
 *
 * It is stopped by SIGKILL, always. What NFS has acknowledged as stable is in the file system, what it has not the client sends again,
 * and NFSv4 records lie on the volume; so a kill loses nothing, and needs a quarter of the time of an orderly end.
 */

import { mkdirSync, rmSync } from "node:fs";
import { explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { writeBlkidCache } from "./ganesha/blkid-cache.ts";
import { readyClientRecords } from "./ganesha/client-records.ts";
import {
  type FileService,
  type FileServiceSpec,
  fileServiceSchema,
  renderConfiguration,
} from "./ganesha/config.ts";
import { type Instance, startInstance } from "./ganesha/instance.ts";
import { type GraceView, noGrace } from "./ganesha/log-lines.ts";
import type { PortMapper } from "./ganesha/port-mapper.ts";
import { askHealth, probeService } from "./ganesha/probe.ts";
import { graceEnd } from "./native-build.ts";
import type { ProgramPlace } from "./place/programs.ts";
import { seesVolumes } from "./place/sight.ts";
import { ServiceDriver } from "./service-driver.ts";
import type { ProcessEnd } from "./service-process.ts";

export interface GaneshaOptions {
  /** Name of the virtual server: letters, digits, dashes. */
  readonly name: string;
  /** A directory in memory, private to this controller. */
  readonly runDir: string;
  readonly portMapper: PortMapper;
  /** Where it runs. */
  readonly place: ProgramPlace;
  readonly log: (message: string) => void;
  /** Called once for each server that ended; `expected` when `stop` or `kill` asked for it. */
  readonly onEnd: (end: ProcessEnd & { readonly expected: boolean }) => void;
  /** Called, again and again, while a server that has been proved lives and does not answer (`health.ts`). */
  readonly onHung: (reason: string) => void;
}

export interface GaneshaState {
  readonly alive: boolean;
  readonly pid: number | undefined;
  readonly spare: boolean;
  readonly grace: GraceView;
}

export interface Ganesha {
  /**
   * Starts a spare, so that the next `start` with the same specification is faster. Neither address nor volume need to be there. Does
   * nothing when there is such a spare; one of another specification is ended. Faults: `badInput`, `toolMissing`, `ioError`, `timeout`.
   */
  prepare(spec: FileServiceSpec): Promise<Outcome>;
  /** Ends the spare, should there be one. Fault `timeout`. */
  dropSpare(options: { timeoutMs: number }): Promise<Outcome>;
  /** Settles when the spare has done all that it can do in advance, or has ended, or there is none. */
  spareHeld(): Promise<void>;
  /**
   * Starts the server; value: its pid. It does not answer yet: `probe` tells. Already serving the same is a success. Faults: `refused`
   * (serves something else), `badInput`, `toolMissing`, `ioError`, `serviceFailed`, `timeout`.
   */
  start(spec: FileServiceSpec): Promise<Outcome<number>>;
  /**
   * Waits until every export answers; value: milliseconds. From then on the server is asked whether it still does, until it is stopped.
   * Faults: `serviceSilent`, `serviceFailed`.
   */
  probe(deadlineMs: number): Promise<Outcome<number>>;
  /** Ends the server; settles well only when the kernel has released everything it held. Fault: `timeout`. */
  stop(options: { timeoutMs: number }): Promise<Outcome>;
  /** Ends the server without waiting. */
  kill(): void;
  /** Its own processes: the server, and the spare. */
  processes(): readonly number[];
  /** How often `kill` was called: what dies between two equal answers was not ended by this driver. */
  killCount(): number;
  state(): GaneshaState;
  /** `stop`, and the spare too; nothing of it is left then. */
  close(options: { timeoutMs: number }): Promise<Outcome>;
}

/** A question whose answer is missed already is listened for that long. */
const healthMsMax = 5000;

/** All files of the processes in a folder begin so; it is how leftovers are recognised. */
export const filesIn = (runDir: string) => `${runDir}/ganesha-`;

/** The driver of one virtual server's file service; it touches nothing before the first call. */
export function createGanesha(options: GaneshaOptions): Ganesha {
  if (!/^[A-Za-z0-9-]{1,32}$/.test(options.name)) {
    throw new Error(`file service name "${options.name}"`);
  }
  return new Driver(options);
}

class Driver implements Ganesha {
  readonly #options: GaneshaOptions;
  readonly #prefix: string;
  /** libblkid's cache, shared by this driver's processes. */
  readonly #blkidFile: string;
  #count = 0;
  readonly #driver: ServiceDriver<FileService, Instance>;

  constructor(options: GaneshaOptions) {
    this.#options = options;
    this.#prefix = `${filesIn(options.runDir)}${options.name}.`;
    this.#blkidFile = `${this.#prefix}blkid`;
    const { name, place, log, onEnd, onHung } = options;
    this.#driver = new ServiceDriver<FileService, Instance>({
      name: `file service ${name}`,
      identify: (service) => JSON.stringify(service),
      launch: (service, { held }) => this.#launch(service, held),
      makeReady: (service) => this.#makeReady(service),
      sees({ exports, recoveryDir }, pid, deadlineMs) {
        const paths = [...exports.map(({ path }) => path), recoveryDir];
        const sights = paths.map((path) => ({ here: path, there: path }));
        return seesVolumes(pid, sights, deadlineMs);
      },
      async probe(service, deadlineMs, stillUseful) {
        const proved = await probeService(service, { deadlineMs, stillUseful, place });
        if (!proved.ok) return proved;
        const { tookMs, handles } = proved.value;
        const ask = (question: number) => {
          const address = service.addresses[question % service.addresses.length] ?? "";
          return askHealth(service, address, handles, place, healthMsMax);
        };
        return good({ tookMs, ask });
      },
      log,
      onEnd,
      onHung,
    });
  }

  prepare(spec: FileServiceSpec): Promise<Outcome> {
    return this.#parsed(spec, "prepare", (service) => this.#driver.prepare(service));
  }

  dropSpare({ timeoutMs }: { timeoutMs: number }): Promise<Outcome> {
    return this.#driver.dropSpare(timeoutMs);
  }

  spareHeld(): Promise<void> {
    return this.#driver.spareHeld();
  }

  start(spec: FileServiceSpec): Promise<Outcome<number>> {
    return this.#parsed(spec, "start", (service) => this.#driver.start(service));
  }

  probe(deadlineMs: number): Promise<Outcome<number>> {
    return this.#driver.probe(deadlineMs);
  }

  stop({ timeoutMs }: { timeoutMs: number }): Promise<Outcome> {
    return this.#driver.stop(timeoutMs);
  }

  kill(): void {
    this.#driver.kill();
  }

  processes(): readonly number[] {
    return this.#driver.processes();
  }

  killCount(): number {
    return this.#driver.killCount();
  }

  state(): GaneshaState {
    const { pid, sparePid } = this.#driver.state();
    return {
      alive: pid !== undefined,
      pid,
      spare: sparePid !== undefined,
      grace: this.#driver.process()?.grace() ?? noGrace,
    };
  }

  async close({ timeoutMs }: { timeoutMs: number }): Promise<Outcome> {
    const closed = await this.#driver.close(timeoutMs);
    // When libblkid finds out more than it was told, it writes the file anew and keeps the former one.
    const files = closed.ok ? [this.#blkidFile, `${this.#blkidFile}.old`] : [];
    for (const each of files) rmSync(each, { force: true });
    return closed;
  }

  #parsed<T>(
    spec: FileServiceSpec,
    verb: string,
    action: (service: FileService) => Promise<Outcome<T>>,
  ): Promise<Outcome<T>> {
    const parsed = fileServiceSchema.safeParse(spec);
    if (parsed.success) return action(parsed.data);
    const operation = `${verb} file service ${this.#options.name}`;
    return Promise.resolve(failed("badInput", operation, parsed.error.message));
  }

  /** What must be there before a server touches its volume; each part waits for something else. */
  async #makeReady({ recoveryDir, exports, addresses }: FileService): Promise<Outcome> {
    const paths = exports.map((each) => each.path);
    const { log } = this.#options;
    const hasGraceEnd = (await graceEnd()).ok;
    const [mapped, made] = await Promise.all([
      this.#options.portMapper.ensure(addresses),
      readyClientRecords(recoveryDir, { hasGraceEnd, log }),
      writeBlkidCache(this.#blkidFile, paths),
    ]);
    // Without a mapper kernel clients of NFSv3 cannot mount anew; everybody else is served.
    if (!mapped.ok) this.#options.log(explain(mapped.fault));
    return made;
  }

  #launch(service: FileService, held: boolean): Promise<Outcome<Instance>> {
    this.#count += 1;
    mkdirSync(this.#options.runDir, { recursive: true });
    const base = `${this.#prefix}${process.pid}.${this.#count}`;
    const { log, place } = this.#options;
    return startInstance({
      base,
      configuration: renderConfiguration(service),
      recoveryDir: service.recoveryDir,
      held,
      blkidFile: this.#blkidFile,
      sharesWrites: service.sharesWrites,
      place,
      log,
    });
  }
}
