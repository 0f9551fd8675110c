/**
 * The virtual servers that are ready to be served on this controller, and how they come, change and go while it runs. Each is made of three parts, in this
 * order: its place, its disks, its file service; they go in the opposite order.
 *
 * Obligations: nothing is taken from a virtual server that another one has; what is in use is refused before anything is touched; whatever fails, the others
 * are left alone, and the same call again goes on where it failed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, explain, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { Turns } from "../linux/turns.ts";
import type { DataDisks } from "./data-disks.ts";
import { openWaitMs } from "./data-disks.ts";
import type { Places } from "./places.ts";
import type { BenchServices } from "./service-part.ts";

export interface RosterParts {
  readonly places: Places;
  readonly services: BenchServices;
  readonly disks: DataDisks;
  readonly log: (message: string) => void;
}

/**
 * Those that can be here side by side: what two definitions both name, one of them is to be served with, and the other waits for. What is left out is told.
 */
export function sideBySide(
  definitions: readonly Definition[],
  log: (message: string) => void,
): Definition[] {
  const known = new Map<number, Definition>();
  const wanted = definitions.filter((each) => each.wanted !== "deleted");
  for (const each of wanted.toSorted((one, other) => rankOf(one) - rankOf(other))) {
    const contradiction = contradictionOf(each, known);
    if (contradiction === undefined) known.set(each.number, each);
    else log(`${each.server.name} is not made ready here: ${contradiction}`);
  }
  return [...known.values()];
}

const rankOf = ({ wanted, number }: Definition) => number + (wanted === "started" ? 0 : 1000);

/** In words, why a definition cannot be here beside the others. */
function contradictionOf(
  { number, server }: Definition,
  known: ReadonlyMap<number, Definition>,
): string | undefined {
  const former = known.get(number);
  if (former && former.server.name !== server.name)
    return `number ${number} is still ${former.server.name} here`;
  for (const other of known.values()) {
    if (other.number === number) continue;
    if (other.server.name === server.name)
      return `${server.name} is still number ${other.number} here`;
    const common = disksOf(other).find((disk) => server.volumes.some((each) => each.disk === disk));
    if (common !== undefined) return `disk ${common} still belongs to ${other.server.name} here`;
  }
  return undefined;
}

export class Roster {
  readonly #parts: RosterParts;
  /** By number; also what was begun and failed, which has to be taken away again. */
  readonly #known: Map<number, Definition>;
  /** What one call has begun goes on after its limit, and the next one waits for it. */
  readonly #turns = new Turns();

  /** `definitions` are ready already. */
  constructor(parts: RosterParts, definitions: readonly Definition[]) {
    this.#parts = parts;
    this.#known = new Map(definitions.map((each) => [each.number, each]));
  }

  /** The virtual server that a disk belongs to. */
  ownerOf(serial: string): string | undefined {
    return [...this.#known.values()].find((each) => disksOf(each).includes(serial))?.server.name;
  }

  define(definition: Definition, limitMs: number): Promise<Outcome> {
    return this.#turns.take(String(definition.number), "define", limitMs, () =>
      this.#define(definition, limitMs),
    );
  }

  forget(number: number, name: string, limitMs: number): Promise<Outcome> {
    return this.#turns.take(String(number), "forget", limitMs, () =>
      this.#forget(number, name, limitMs),
    );
  }

  async #define(definition: Definition, limitMs: number): Promise<Outcome> {
    const { name } = definition.server;
    const contradiction = contradictionOf(definition, this.#known);
    if (contradiction !== undefined) return failed("refused", `define ${name}`, contradiction);
    const former = this.#known.get(definition.number);
    const wanted = disksOf(definition);
    const unwanted = former ? disksOf(former).filter((disk) => !wanted.includes(disk)) : [];
    const unused = this.#unused(`define ${name}`, name, (disk) => unwanted.includes(disk));
    if (!unused.ok) return unused;
    const { places, services, disks, log } = this.#parts;
    // Known from now on, disks of both: until it is whole, nobody else may have any part of it.
    this.#known.set(definition.number, definition);
    const placed = await places.define(definition);
    if (!placed.ok) return placed;
    const opened = await disks.define(definition, Math.min(openWaitMs, limitMs / 2));
    if (!opened.ok) return opened;
    for (const disk of unwanted) places.folder.removeEmpty(join(name, disk));
    services.define(definition);
    void services.prepare(name).then((prepared) => {
      if (!prepared.ok) log(`${name}: ${explain(prepared.fault)}`);
    });
    return done;
  }

  async #forget(number: number, name: string, limitMs: number): Promise<Outcome> {
    const known = this.#known.get(number);
    if (known && known.server.name !== name)
      return failed("refused", `forget ${name}`, `number ${number} is ${known.server.name} here`);
    const namesake = this.#namesake(number, name);
    if (!namesake) {
      const unused = this.#unused(`forget ${name}`, name, () => true);
      if (!unused.ok) return unused;
      const ended = await this.#parts.services.forget(name, limitMs / 2);
      if (!ended.ok) return ended;
    }
    const closed = await this.#parts.disks.forget(number);
    if (!closed.ok) return closed;
    const removed = namesake ? done : await this.#parts.places.forget(name);
    if (removed.ok) this.#known.delete(number);
    return removed;
  }

  #namesake(number: number, name: string): Definition | undefined {
    return [...this.#known.values()].find(
      (each) => each.number !== number && each.server.name === name,
    );
  }

  /** Whether none of these disks is mounted for that virtual server. */
  #unused(operation: string, name: string, which: (disk: string) => boolean): Outcome {
    const { folder } = this.#parts.places;
    if (!existsSync(join(folder.path, name))) return done;
    const volumes = folder.volumes(name);
    if (!volumes.ok) return volumes;
    for (const { path, source } of volumes.value) {
      const disk = path.slice(join(folder.path, name).length + 1);
      if (which(disk)) return failed("stillMounted", operation, `${source} is mounted at ${path}`);
    }
    return done;
  }
}

const disksOf = ({ server }: Definition) => server.volumes.map(({ disk }) => disk);
