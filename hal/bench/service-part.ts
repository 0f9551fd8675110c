/** The services of one kind (NFS, SMB) on a controller, one for each virtual server that offers something by it, each with a spare for its next start. */
import { setTimeout as delay } from "node:timers/promises";
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, explain, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { type ProgramPlace, programsOf } from "../linux/place/programs.ts";
import { explainEnd, type ProcessEnd } from "../linux/service-process.ts";
import type { FileServices, Machine, MachineHandlers } from "../port/machine.ts";
import type { Places } from "./places.ts";

/**
 * A move has better things to do with the processors than to get ready for the next; so has a takeover of many, until the last of them is started: where that
 * takes longer than a second, spares of the first would be made while the others still wait.
 */
const spareAfterMs = 1000;
/** However long others go on starting, the next move may be that of this one. */
const spareAfterMsMax = 10_000;

/** A spare that has not come to its hold by then holds up the next no longer. */
const spareMsMax = 3000;

/** Time for what runs when the controller ends. */
const closeMs = 2000;

/** Of all that a virtual server's place is, what its programs need. */
export type ProgramPlaces = Pick<Places, "of" | "folder" | "groups">;

/** What all kinds of services are made from. */
export interface Surroundings {
  readonly handlers: MachineHandlers;
  readonly mountPath: Machine["mountPath"];
  readonly places: ProgramPlaces;
  readonly runDir: string;
  readonly line: SpareLine;
}

/** Where the programs of a virtual server run, in its control groups. */
export function placeOf({ places }: Pick<Surroundings, "places">, name: string): ProgramPlace {
  const { folder, groups } = places;
  return programsOf(places.of(name), folder, name, () => groups.joinPaths(name));
}

/** What of that the services of every kind need. */
interface PartSurroundings {
  readonly handlers: Pick<MachineHandlers, "log" | "serviceExited" | "serviceHung">;
  readonly line: SpareLine;
}

/** File services that come and go with the definitions of their virtual servers. */
export interface BenchServices extends FileServices {
  /**
   * Makes the service of a virtual server, or lets its next start be another one: what runs goes on as it is. `prepare` replaces a spare of the former kind. Its
   * place must be there. Idempotent.
   */
  define(definition: Definition): void;
  /** Ends it, its spare and what belongs to it. Idempotent. Fault `timeout`: something of it lives. */
  forget(name: string, limitMs: number): Promise<Outcome>;
  /** What runs of it, spares included: the first process of each; others are of the same process group. */
  processes(name: string): readonly number[];
}

/** The driver of one service; what it does is said in `service-driver.ts`. */
export interface Driver<S> {
  prepare(spec: S): Promise<Outcome>;
  dropSpare(timeoutMs: number): Promise<Outcome>;
  spareHeld(): Promise<void>;
  start(spec: S): Promise<Outcome<number>>;
  probe(deadlineMs: number): Promise<Outcome<number>>;
  stop(timeoutMs: number): Promise<Outcome>;
  kill(): void;
  processes(): readonly number[];
  killCount(): number;
  /** Nothing of it is left when that settles well. */
  close(timeoutMs: number): Promise<Outcome>;
}

/** Who is to be told of what a service does by itself (`service-driver.ts`). */
export interface Listener {
  readonly log: (message: string) => void;
  readonly onEnd: (end: ProcessEnd & { readonly expected: boolean }) => void;
  readonly onHung: (reason: string) => void;
}

/** What differs from one kind of service to another. */
interface PartKind<S> {
  /** Whether a virtual server has anything for clients of this kind. */
  readonly offers: (server: VirtualServerConfig) => boolean;
  /** All that it is told is in the definition: where its volumes will be mounted, too. */
  readonly specOf: (definition: Definition) => Outcome<S>;
  readonly makeDriver: (name: string, listener: Listener) => Driver<S>;
}

interface Member<S> {
  definition: Definition;
  readonly driver: Driver<S>;
  /** When its next spare is made. */
  waiting: NodeJS.Timeout | undefined;
}

/** The services of one kind. What a virtual server does not offer by it succeeds at once, and whatever ran of it is ended by `stop` all the same. */
export class ServicePart<S> implements BenchServices {
  readonly #kind: PartKind<S>;
  readonly #line: SpareLine;
  readonly #handlers: Pick<MachineHandlers, "log" | "serviceExited" | "serviceHung">;
  readonly #members = new Map<string, Member<S>>();

  constructor(kind: PartKind<S>, { line, handlers }: PartSurroundings) {
    this.#kind = kind;
    this.#line = line;
    this.#handlers = handlers;
  }

  /** One that offers nothing by this kind any more keeps its driver until it is forgotten: what runs is still to be ended. */
  define(definition: Definition): void {
    const { server } = definition;
    const member = this.#members.get(server.name);
    if (member) member.definition = definition;
    else if (this.#kind.offers(server)) this.#members.set(server.name, this.#make(definition));
  }

  async forget(name: string, limitMs: number): Promise<Outcome> {
    const member = this.#members.get(name);
    if (!member) return done;
    clearTimeout(member.waiting);
    const closed = await member.driver.close(limitMs);
    if (!closed.ok) return closed;
    // Its end was told in the meantime, which made it get ready once more.
    clearTimeout(member.waiting);
    this.#members.delete(name);
    return done;
  }

  prepare(name: string): Promise<Outcome> {
    return this.#line.next(
      () => this.#prepareNow(name),
      () => this.#members.get(name)?.driver.spareHeld() ?? Promise.resolve(),
    );
  }

  /** As it is asked for: what runs may be of an earlier definition than what has been made ready. */
  async start(server: VirtualServerConfig, limitMs: number): Promise<Outcome> {
    const { name } = server;
    if (!this.#kind.offers(server)) return done;
    const member = this.#members.get(name);
    if (!member) throw new Error(`file service ${name} is no virtual server's`);
    const spec = this.#kind.specOf({ ...member.definition, server });
    if (!spec.ok) return spec;
    this.#line.noteStart();
    // Whatever ends next, this one or the next move's, is followed by a start that cannot wait.
    this.#prepareSoon(name);
    return await startProved(member.driver, spec.value, limitMs, this.#handlers.log);
  }

  kill(name: string): void {
    this.#members.get(name)?.driver.kill();
  }

  async stop(name: string, limitMs: number): Promise<Outcome> {
    const driver = this.#members.get(name)?.driver;
    // At once, also when a start is under way; then wait until the kernel has let go of everything.
    driver?.kill();
    return driver ? await driver.stop(limitMs) : done;
  }

  processes(name: string): readonly number[] {
    return this.#members.get(name)?.driver.processes() ?? [];
  }

  async close(): Promise<void> {
    for (const { waiting } of this.#members.values()) clearTimeout(waiting);
    await Promise.all([...this.#members.values()].map(({ driver }) => driver.close(closeMs)));
  }

  #make(definition: Definition): Member<S> {
    const { name } = definition.server;
    const { serviceExited, serviceHung } = this.#handlers;
    const log = (message: string) => this.#handlers.log(`${name}: ${message}`);
    const driver = this.#kind.makeDriver(name, {
      log,
      onEnd: (end) => {
        if (!end.expected) {
          log(`the file service ended: ${JSON.stringify(end)}`);
          serviceExited(name, explainEnd(end));
        }
        this.#prepareSoon(name);
      },
      onHung: (reason) => serviceHung(name, reason),
    });
    return { definition, driver, waiting: undefined };
  }

  async #prepareNow(name: string): Promise<Outcome> {
    // It may have gone while it stood in line.
    const member = this.#members.get(name);
    if (!member) return done;
    if (!this.#kind.offers(member.definition.server)) return await member.driver.dropSpare(closeMs);
    const spec = this.#kind.specOf(member.definition);
    return spec.ok ? await member.driver.prepare(spec.value) : spec;
  }

  #prepareSoon(name: string): void {
    const member = this.#members.get(name);
    if (!member) return;
    clearTimeout(member.waiting);
    const latestMs = performance.now() + spareAfterMsMax;
    const whenQuiet = () => {
      const leftMs = Math.min(this.#line.startedMs + spareAfterMs, latestMs) - performance.now();
      if (leftMs > 0) member.waiting = setTimeout(whenQuiet, leftMs);
      else void this.prepare(name);
    };
    member.waiting = setTimeout(whenQuiet, spareAfterMs);
  }
}

/**
 * Spares are made one after another, each when the last has come to its hold: all at once, after a takeover of many, they would take the
 * processors from the services that have just been started, and from the takeover that may be next.
 */
export class SpareLine {
  readonly #msMax: number;
  #last: Promise<unknown> = Promise.resolve();
  #startedMs = Number.NEGATIVE_INFINITY;

  constructor(msMax: number = spareMsMax) {
    this.#msMax = msMax;
  }

  /** When a service of this controller was last started, of whatever kind and virtual server. */
  get startedMs(): number {
    return this.#startedMs;
  }

  noteStart(): void {
    this.#startedMs = performance.now();
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
export async function startProved<S>(
  service: Pick<Driver<S>, "start" | "probe" | "killCount">,
  spec: S,
  limitMs: number,
  log: (message: string) => void,
): Promise<Outcome> {
  const kills = service.killCount();
  for (let attempt = 1; ; attempt += 1) {
    const started = await service.start(spec);
    if (!started.ok) return started;
    const answered = await service.probe(limitMs);
    if (answered.ok) return done;
    const diedByItself = answered.fault.code === "serviceFailed" && kills === service.killCount();
    if (attempt > 1 || !diedByItself) return answered;
    log(`started again: ${explain(answered.fault)}`);
  }
}
