/** Watches the floating addresses from a client: silences, changes of who answers, and whether two ever answer at once. */
import { appendFile } from "node:fs";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { type ProbeEvent, probeEventSchema, probeWords } from "../probe/programs.ts";
import { BenchError } from "../world/error.ts";
import type { Started } from "../world/processes.ts";
import { echoPort, type World } from "../world/world.ts";

type Gap = Extract<ProbeEvent, { t: "gap" }>;
type Tick = Extract<ProbeEvent, { t: "tick" }>;

interface Watched {
  readonly address: string;
  tick: Tick | undefined;
  readonly gaps: Gap[];
  readonly switches: Extract<ProbeEvent, { t: "switch" }>[];
  readonly doubles: Extract<ProbeEvent, { t: "double" }>[];
}

/** What was seen of all addresses between two instants of CLOCK_MONOTONIC. */
export interface Seen {
  /** Longest silence of any address, ms; 0 when none was longer than the probe's 5 ms. */
  readonly outageMs: number;
  readonly outagesMs: { readonly [address: string]: number };
  readonly switches: { readonly [address: string]: number };
  readonly doubleAnswers: number;
}

/** Events kept per address: an hour of a fault every second. */
const eventsMax = 10_000;

/** An answer younger than this means that the address is answered now (ticks come every 200 ms). */
const answeredGapMsMax = 50;

/** Questions to all addresses together, each ms: more of them would load the machine that they measure. */
const questionsPerMs = 4;
/** A silence that is told has several questions in it. */
const gapMsMin = 5;
const gapQuestionsMin = 3;

export class AddressWatch {
  /** From one question to an address to the next: what a figure may be wrong by. */
  readonly intervalMs: number;
  readonly #watched: ReadonlyMap<string, Watched>;
  readonly #process: Started;

  constructor(
    world: World,
    addresses: readonly string[] = world.layout.servers.map(({ address }) => address),
  ) {
    const [namespace] = world.layout.namespaces.clients;
    this.intervalMs = Math.max(1, addresses.length / questionsPerMs);
    const gapMs = Math.max(gapMsMin, gapQuestionsMin * this.intervalMs);
    const watched = addresses.map(
      (address): Watched => ({ address, tick: undefined, gaps: [], switches: [], doubles: [] }),
    );
    this.#watched = new Map(watched.map((each) => [each.address, each]));
    const options = { addresses, port: echoPort, gapMs, intervalMs: this.intervalMs };
    const role = "probe";
    this.#process = world.processes.start({
      role,
      cgroup: world.infra,
      inside: namespace,
      argv: probeWords(world.programs, options),
      input: true,
      onLine: (line) => {
        const event = probeEventSchema.parse(JSON.parse(line));
        const about = this.#watched.get(event.address);
        if (about) note(about, event);
        // For whoever reads the logs of a run that was not as it must be; nothing depends on it.
        if (event.t !== "tick") appendFile(world.processes.logPath(role), `${line}\n`, () => {});
      },
    });
  }

  /** Who answers at an address now. */
  answers(address: string): ControllerId | undefined {
    if (!this.#process.alive())
      throw new BenchError("worldBroken", "probe", "the prober has ended");
    const tick = this.#watched.get(address)?.tick;
    if (!tick || tick.gapMs > answeredGapMsMax) return undefined;
    return tick.owner === "a" || tick.owner === "b" ? tick.owner : undefined;
  }

  /** Silence of an address at this moment, ms. */
  gapMs(address: string): number | undefined {
    return this.#watched.get(address)?.tick?.gapMs;
  }

  seen(fromMs: number, toMs: number): Seen {
    const within = (atMs: number) => atMs >= fromMs && atMs <= toMs;
    const watched = [...this.#watched.values()];
    const outages = watched.map((each) => {
      const gaps = each.gaps.filter((gap) => gap.toMs >= fromMs && gap.fromMs <= toMs);
      // A silence in which the probe itself was mostly held up says nothing about the address.
      const real = gaps.filter((gap) => gap.sendHoleMs < gap.ms / 2);
      return [each.address, Math.max(0, ...real.map((gap) => gap.ms))] as const;
    });
    const switches = watched.map(
      (each) => [each.address, each.switches.filter((one) => within(one.atMs)).length] as const,
    );
    const doubles = watched.flatMap((each) => each.doubles.filter((one) => within(one.atMs)));
    return {
      outageMs: Math.max(...outages.map(([, ms]) => ms)),
      outagesMs: Object.fromEntries(outages),
      switches: Object.fromEntries(switches),
      doubleAnswers: doubles.reduce((sum, each) => sum + each.answers, 0),
    };
  }

  stop(): void {
    this.#process.child.stdin?.end();
  }
}

function note(watched: Watched, event: ProbeEvent): void {
  const keep = <T>(list: T[], item: T) => {
    list.push(item);
    if (list.length > eventsMax) list.shift();
  };
  switch (event.t) {
    case "tick":
      watched.tick = event;
      return;
    case "gap":
      keep(watched.gaps, event);
      return;
    case "switch":
      keep(watched.switches, event);
      return;
    case "double":
      keep(watched.doubles, event);
      return;
    case "end":
      return;
  }
}
