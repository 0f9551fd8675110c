/**
 * The file service of one virtual server: one nfs-ganesha, started where the volumes are mounted and the address is (a controller's
 * own network and mount namespaces).
 *
 * Glossary: *spare*: a process that is held short of its volume and its address (see `ganesha/instance.ts`). *Leftover*: a process of an earlier life.
 *
 * Obligations: at most one server of this name serves; none serves after `stop` or `kill` has settled well; the death of a server is
 * reported at once; a service counts as serving only after `probe` has had an answer for every export.
 *
 * It is stopped by SIGKILL, always. What NFS has acknowledged as stable is in the file system, what it has not the client sends again,
 * and NFSv4 records lie on the volume; so a kill loses nothing, needs a quarter of the time of an orderly end, and leaves the
 * registrations of the port mapper alone that other virtual servers share.
 */

import { mkdirSync, rmSync } from "node:fs";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { writeBlkidCache } from "./ganesha/blkid-cache.ts";
import { readyClientRecords } from "./ganesha/client-records.ts";
import {
  type FileService,
  type FileServiceSpec,
  fileServiceSchema,
  renderConfiguration,
} from "./ganesha/config.ts";
import { HealthMonitor } from "./ganesha/health.ts";
import { type Instance, type InstanceEnd, startInstance } from "./ganesha/instance.ts";
import { type GraceView, noGrace } from "./ganesha/log-lines.ts";
import type { PortMapper } from "./ganesha/port-mapper.ts";
import { askHealth, type Proof, probeService } from "./ganesha/probe.ts";
import { standingOf, ticksOf } from "./ganesha/standing.ts";
import { graceEnd } from "./native-build.ts";
import type { ProgramPlace } from "./place/programs.ts";

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
  readonly onEnd: (end: InstanceEnd & { readonly expected: boolean }) => void;
  /** Called, again and again, while a server that has been proved lives and does not answer (`ganesha/health.ts`). */
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

interface Spare {
  readonly instance: Instance;
  readonly configuration: string;
}

interface Serving {
  readonly instance: Instance;
  readonly service: FileService;
  stopping: boolean;
  health?: HealthMonitor | undefined;
}

/** How long `start` waits for a server that was killed a moment before. */
const lastEndMs = 2000;
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
  #spare: Spare | undefined;
  #serving: Serving | undefined;
  /** Raised by `kill`, so that a start under way does not bring up what was just killed. */
  #killCount = 0;
  /** All but `kill` wait for each other: two starts at once would be two servers on one volume. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: GaneshaOptions) {
    this.#options = options;
    this.#prefix = `${filesIn(options.runDir)}${options.name}.`;
    this.#blkidFile = `${this.#prefix}blkid`;
  }

  prepare(spec: FileServiceSpec): Promise<Outcome> {
    return this.#parsed(spec, "prepare", (service) => this.#prepare(service));
  }

  spareHeld(): Promise<void> {
    return this.#spare?.instance.atHold ?? Promise.resolve();
  }

  start(spec: FileServiceSpec): Promise<Outcome<number>> {
    return this.#parsed(spec, "start", (service) => this.#start(service));
  }

  async probe(deadlineMs: number): Promise<Outcome<number>> {
    const mine = this.#serving;
    if (mine === undefined) {
      return failed("serviceFailed", `probe ${this.#options.name}`, "not started");
    }
    const stillUseful = () => mine.instance.alive();
    const { place } = this.#options;
    const proved = await probeService(mine.service, { deadlineMs, stillUseful, place });
    if (!proved.ok) return proved;
    this.#watch(mine, proved.value);
    return good(proved.value.tookMs);
  }

  stop({ timeoutMs }: { timeoutMs: number }): Promise<Outcome> {
    return this.#inTurn(() => this.#stop(timeoutMs));
  }

  kill(): void {
    this.#killCount += 1;
    if (this.#serving === undefined) return;
    letEnd(this.#serving);
    this.#serving.instance.kill();
  }

  processes(): readonly number[] {
    return [this.#serving, this.#spare].flatMap((each) => each?.instance.pid ?? []);
  }

  killCount(): number {
    return this.#killCount;
  }

  state(): GaneshaState {
    return {
      alive: this.#serving !== undefined,
      pid: this.#serving?.instance.pid,
      spare: this.#spare !== undefined,
      grace: this.#serving?.instance.grace() ?? noGrace,
    };
  }

  close({ timeoutMs }: { timeoutMs: number }): Promise<Outcome> {
    return this.#inTurn(async () => {
      await this.#endSpare(timeoutMs);
      const stopped = await this.#stop(timeoutMs);
      if (stopped.ok) rmSync(this.#blkidFile, { force: true });
      return stopped;
    });
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(action);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  #parsed<T>(
    spec: FileServiceSpec,
    verb: string,
    action: (service: FileService) => Promise<Outcome<T>>,
  ): Promise<Outcome<T>> {
    const parsed = fileServiceSchema.safeParse(spec);
    if (parsed.success) return this.#inTurn(() => action(parsed.data));
    const operation = `${verb} file service ${this.#options.name}`;
    return Promise.resolve(failed("badInput", operation, parsed.error.message));
  }

  async #prepare(service: FileService): Promise<Outcome> {
    const configuration = renderConfiguration(service);
    if (this.#spare?.configuration === configuration) return done;
    const ended = await this.#endSpare(lastEndMs);
    if (!ended.ok) return ended;
    const launched = await this.#launch(service, { held: true });
    if (!launched.ok) return launched;
    const spare = { instance: launched.value, configuration };
    this.#spare = spare;
    void spare.instance.ended.then(() => {
      if (this.#spare === spare) this.#spare = undefined;
    });
    return done;
  }

  async #endSpare(timeoutMs: number): Promise<Outcome> {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare === undefined) return done;
    return await end(spare.instance, `end spare of ${this.#options.name}`, timeoutMs);
  }

  async #start(service: FileService): Promise<Outcome<number>> {
    const operation = `start file service ${this.#options.name}`;
    const killsBefore = this.#killCount;
    const current = this.#serving;
    if (current?.stopping) {
      const ended = await end(current.instance, operation, lastEndMs);
      if (!ended.ok) return ended;
    } else if (current !== undefined) {
      if (JSON.stringify(current.service) === JSON.stringify(service)) {
        return good(current.instance.pid);
      }
      return failed("refused", operation, "it serves something else");
    }
    const ready = await this.#makeReady(service);
    if (!ready.ok) return ready;
    const launched = await this.#launchReady(service);
    if (!launched.ok) return launched;
    this.#adopt(launched.value, service);
    if (killsBefore === this.#killCount) return good(launched.value.pid);
    this.kill();
    return failed("refused", operation, "it was killed while it started");
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

  async #launchReady(service: FileService): Promise<Outcome<Instance>> {
    const spare = this.#spare;
    if (spare?.configuration === renderConfiguration(service)) {
      this.#spare = undefined;
      const released = await spare.instance.release();
      if (released.ok) return good(spare.instance);
      this.#options.log(`the spare file service is of no use: ${released.fault.message}`);
      const ended = await end(spare.instance, "end a broken spare", lastEndMs);
      if (!ended.ok) return ended;
    }
    const ended = await this.#endSpare(lastEndMs);
    return ended.ok ? await this.#launch(service, { held: false }) : ended;
  }

  #launch(service: FileService, { held }: { held: boolean }): Promise<Outcome<Instance>> {
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
      place,
      log,
    });
  }

  #adopt(instance: Instance, service: FileService): void {
    const mine: Serving = { instance, service, stopping: false };
    this.#serving = mine;
    void instance.ended.then((ending) => {
      mine.health?.stop();
      if (this.#serving === mine) this.#serving = undefined;
      this.#options.onEnd({ ...ending, expected: mine.stopping });
    });
  }

  #watch(mine: Serving, { handles }: Proof): void {
    if (mine.stopping) return;
    const { place, log, onHung } = this.#options;
    const { service, instance } = mine;
    mine.health?.stop();
    mine.health = new HealthMonitor({
      ask: (question) => {
        const address = service.addresses[question % service.addresses.length] ?? "";
        return askHealth(service, address, handles, place, healthMsMax);
      },
      look: () => {
        const ticks = ticksOf(instance.pid);
        return () => standingOf(instance.pid, ticks);
      },
      onHung,
      log,
    });
  }

  async #stop(timeoutMs: number): Promise<Outcome> {
    if (this.#serving === undefined) return done;
    letEnd(this.#serving);
    return await end(this.#serving.instance, `stop file service ${this.#options.name}`, timeoutMs);
  }
}

/** Whatever becomes of it from now on is what we asked for. */
function letEnd(serving: Serving): void {
  serving.stopping = true;
  serving.health?.stop();
}

async function end(instance: Instance, operation: string, timeoutMs: number): Promise<Outcome> {
  instance.kill();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Outcome>((resolve) => {
    timer = setTimeout(() => {
      resolve(failed("timeout", operation, `process ${instance.pid} lives after ${timeoutMs} ms`));
    }, timeoutMs);
  });
  const outcome = await Promise.race([instance.ended.then(() => done), late]);
  clearTimeout(timer);
  return outcome;
}
