/** The services of one kind (NFS, SMB) on a controller, one for each virtual server that offers something by it, each with a spare for its next start. */
import { setTimeout as delay } from "node:timers/promises";
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { done, explain, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { explainEnd, type ProcessEnd } from "../linux/service-process.ts";
import type { FileServices, MachineHandlers } from "../port/machine.ts";

/** A move has better things to do with the processors than to get ready for the next. */
const spareAfterMs = 1000;

/** A spare that has not come to its hold by then holds up the next no longer. */
const spareMsMax = 3000;

/** Time for what runs when the controller ends. */
const closeMs = 2000;

/** The driver of one service; what it does is said in `service-driver.ts`. */
export interface Driver<S> {
  prepare(spec: S): Promise<Outcome>;
  spareHeld(): Promise<void>;
  start(spec: S): Promise<Outcome<number>>;
  probe(deadlineMs: number): Promise<Outcome<number>>;
  stop(timeoutMs: number): Promise<Outcome>;
  kill(): void;
  killCount(): number;
  close(timeoutMs: number): Promise<Outcome>;
}

export interface ServicePart extends FileServices {
  serves(name: string): boolean;
}

interface Member<S> {
  readonly driver: Driver<S>;
  /** All that it is told is in the configuration: where its volumes will be mounted, too. */
  readonly spec: Outcome<S>;
}

interface PartOptions<S> {
  readonly servers: readonly VirtualServerConfig[];
  readonly line: SpareLine;
  readonly log: (message: string) => void;
  /** What a virtual server has served, and by whom. `onEnd` is to be told of each end of it. */
  readonly member: (
    server: VirtualServerConfig,
    onEnd: (end: ProcessEnd & { readonly expected: boolean }) => void,
  ) => Member<S>;
  readonly serviceExited: MachineHandlers["serviceExited"];
}

export function openPart<S>(options: PartOptions<S>): ServicePart {
  const { servers, line, log, serviceExited } = options;
  const members = new Map<string, Member<S>>();
  const waiting = new Map<string, NodeJS.Timeout>();
  const find = (name: string): Member<S> => {
    const member = members.get(name);
    if (!member) throw new Error(`file service ${name} is not in the configuration`);
    return member;
  };
  const prepare = (name: string): Promise<Outcome> => {
    const { driver, spec } = find(name);
    return line.next(
      () => (spec.ok ? driver.prepare(spec.value) : Promise.resolve(spec)),
      () => driver.spareHeld(),
    );
  };
  const prepareSoon = (name: string): void => {
    clearTimeout(waiting.get(name));
    waiting.set(
      name,
      setTimeout(() => void prepare(name), spareAfterMs),
    );
  };
  for (const server of servers) {
    const { name } = server;
    const member = options.member(server, (end) => {
      if (!end.expected) {
        log(`${name}: the file service ended: ${JSON.stringify(end)}`);
        serviceExited(name, explainEnd(end));
      }
      prepareSoon(name);
    });
    members.set(name, member);
  }
  return {
    serves: (name) => members.has(name),
    async start({ name }, limitMs) {
      const { driver, spec } = find(name);
      if (!spec.ok) return spec;
      // Whatever ends next, this one or the next move's, is followed by a start that cannot wait.
      prepareSoon(name);
      return await startProved(driver, spec.value, limitMs, log);
    },
    kill: (name) => find(name).driver.kill(),
    stop(name, limitMs) {
      const { driver } = find(name);
      // At once, also when a start is under way; then wait until the kernel has let go of everything.
      driver.kill();
      return driver.stop(limitMs);
    },
    prepare,
    async close() {
      for (const timer of waiting.values()) clearTimeout(timer);
      await Promise.all([...members.values()].map(({ driver }) => driver.close(closeMs)));
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
