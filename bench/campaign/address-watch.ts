/** Watches the floating addresses from a client: silences, changes of who answers, and whether two ever answer at once. */
import { appendFile } from "node:fs";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { type ProbeEvent, probeEventSchema } from "../probe/programs.ts";
import { BenchError } from "../world/error.ts";
import type { Started } from "../world/processes.ts";
import { echoPort, type World } from "../world/world.ts";

type Gap = Extract<ProbeEvent, { t: "gap" }>;
type Tick = Extract<ProbeEvent, { t: "tick" }>;

interface Watched {
  readonly address: string;
  readonly process: Started;
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
  readonly #watched: readonly Watched[];

  constructor(
    world: World,
    addresses: readonly string[] = world.layout.servers.map(({ address }) => address),
  ) {
    const [namespace] = world.layout.namespaces.clients;
    this.intervalMs = Math.max(1, addresses.length / questionsPerMs);
    const gapMs = Math.max(gapMsMin, gapQuestionsMin * this.intervalMs);
    this.#watched = addresses.map((address, i) => {
      const role = `probe-${i + 1}`;
      const process = world.processes.start({
        role,
        cgroup: world.infra,
        inside: namespace,
        argv: [world.programs.probe, address, ...[echoPort, gapMs, this.intervalMs].map(String)],
        input: true,
        onLine: (line) => {
          const event = probeEventSchema.parse(JSON.parse(line));
          note(watched, event);
          // For whoever reads the logs of a run that was not as it must be; nothing depends on it.
          if (event.t !== "tick") appendFile(world.processes.logPath(role), `${line}\n`, () => {});
        },
      });
      const watched: Watched = {
        address,
        process,
        tick: undefined,
        gaps: [],
        switches: [],
        doubles: [],
      };
      return watched;
    });
  }

  /** Who answers at an address now. */
  answers(address: string): ControllerId | undefined {
    const watched = this.#watched.find((each) => each.address === address);
    if (!watched?.process.alive())
      throw new BenchError("worldBroken", "probe", `the probe of ${address} has ended`);
    const { tick } = watched;
    if (!tick || tick.gapMs > answeredGapMsMax) return undefined;
    return tick.owner === "a" || tick.owner === "b" ? tick.owner : undefined;
  }

  /** Silence of an address at this moment, ms. */
  gapMs(address: string): number | undefined {
    return this.#watched.find((each) => each.address === address)?.tick?.gapMs;
  }

  seen(fromMs: number, toMs: number): Seen {
    const within = (atMs: number) => atMs >= fromMs && atMs <= toMs;
    const outages = this.#watched.map((each) => {
      const gaps = each.gaps.filter((gap) => gap.toMs >= fromMs && gap.fromMs <= toMs);
      // A silence in which the probe itself was mostly held up says nothing about the address.
      const real = gaps.filter((gap) => gap.sendHoleMs < gap.ms / 2);
      return [each.address, Math.max(0, ...real.map((gap) => gap.ms))] as const;
    });
    const switches = this.#watched.map(
      (each) => [each.address, each.switches.filter((one) => within(one.atMs)).length] as const,
    );
    const doubles = this.#watched.flatMap((each) => each.doubles.filter((one) => within(one.atMs)));
    return {
      outageMs: Math.max(...outages.map(([, ms]) => ms)),
      outagesMs: Object.fromEntries(outages),
      switches: Object.fromEntries(switches),
      doubleAnswers: doubles.reduce((sum, each) => sum + each.answers, 0),
    };
  }

  stop(): void {
    for (const { process } of this.#watched) process.child.stdin?.end();
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
