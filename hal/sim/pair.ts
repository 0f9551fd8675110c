/**
 * Two production controllers in virtual time, the shelf between them, and everything that can befall them. A test gives orders
 * (start, freeze, cut, …), lets time go by, and reads the trace; invariants are checked after every event.
 */
import { deriveTiming, type Timing, timingFaults } from "../../firmware-ts/core/timing.ts";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { PersistentRecord } from "../../firmware-ts/schema/journal.ts";
import { Client } from "./client.ts";
import { Clock } from "./clock.ts";
import { type ConfigSetup, configOf, serversOf } from "./configs.ts";
import { Controller, type Journalled, type Stepped } from "./controller.ts";
import type { Operation } from "./history.ts";
import {
  checkChange,
  checkNow,
  epochsOnlyRiseInRecords,
  Violation,
  type Watched,
} from "./invariants.ts";
import { Kernel } from "./kernel.ts";
import { Lan } from "./lan.ts";
import { Ledger } from "./ledger.ts";
import { type Machines, productionMachines } from "./machines.ts";
import { RecordDisk } from "./record-disk.ts";
import { Shelf } from "./shelf.ts";
import { spareAddress, spareDisk } from "./spares.ts";
import type { StepWatch } from "./steps.ts";
import { Channel, seeded, Timeline } from "./timeline.ts";
import { Wires } from "./wires.ts";

export const ids = ["a", "b"] as const;

export interface PairSetup extends ConfigSetup {
  readonly seed?: number;
  /** Delays vary with the seed; otherwise they are the same every time. */
  readonly jitter?: boolean;
  readonly coordinators?: number;
  /** Addresses and disks that no virtual server has at first. */
  readonly spares?: number;
  readonly onTrace?: (line: string) => void;
  /** Nothing is written down: neither a trace nor journals nor frames. */
  readonly silent?: boolean;
  /** How much faster than the world the two clocks run, parts per million, and where they begin. */
  readonly clocks?: Readonly<
    Record<ControllerId, { readonly ppm: number; readonly originMs: number }>
  >;
  /** Clients of each virtual server, and the time between their operations; patient ones have the timers of a kernel. */
  readonly clients?: ClientsSetup | undefined;
  /** Works and announcements are told in the trace. */
  readonly tellsWorks?: boolean;
  /** Off only to see that it is needed. */
  readonly readBarrier?: boolean;
  readonly stepped?: (step: Stepped) => void;
  readonly watch?: StepWatch | undefined;
}

export interface ClientsSetup {
  readonly perServer: number;
  readonly thinkMs: number;
  readonly patient?: boolean;
}

/** A stretch of time in which nobody answered at an address. */
export interface Dark {
  readonly address: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** One life of a controller: from its start to its death. */
export interface Life {
  readonly controller: Controller;
  readonly journal: readonly Journalled[];
}

export class Pair {
  readonly timeline = new Timeline();
  /** Whoever starts from now on decides with these: a test may put broken ones in. */
  machines: Machines = productionMachines;
  readonly timing: Timing;
  readonly shelf: Shelf;
  readonly wires: Wires;
  readonly kernels: Record<ControllerId, Kernel>;
  readonly controllers: Partial<Record<ControllerId, Controller>> = {};
  readonly lives: Life[] = [];
  readonly trace: string[] = [];
  readonly dark: Dark[] = [];
  readonly dataLinks: Record<ControllerId, boolean> = { a: true, b: true };
  readonly coordinators: readonly string[];
  readonly addresses: readonly string[];
  readonly dataDisks: readonly string[];
  /** With those that changes may give to a virtual server. */
  readonly allAddresses: readonly string[];
  readonly allDisks: readonly string[];
  readonly ledger: Ledger;
  /** What was taken from a virtual server last, to be given to another. */
  inHand: string | undefined;
  #setup: PairSetup;
  readonly #random: () => number;
  readonly #records: Record<ControllerId, RecordDisk> = {
    a: new RecordDisk(),
    b: new RecordDisk(),
  };
  readonly #configs: Partial<Record<ControllerId, Config>> = {};
  readonly lan: Lan;
  readonly clients: Client[] = [];
  readonly history: Operation[] = [];
  readonly #known = new Map<string, Set<number>>();
  #instances = 0;
  readonly #endedMs: Partial<Record<ControllerId, number>> = {};
  readonly #gateLookMs: Partial<Record<ControllerId, number>> = {};
  readonly #darkSince = new Map<string, number>();
  #configurationOfB = 0;
  #checkedAt = -1;
  readonly #check = () => this.check();

  constructor(setup: PairSetup = {}) {
    this.#setup = setup;
    this.#random = seeded(setup.seed ?? 1);
    const names = Array.from({ length: setup.coordinators ?? 3 }, (_, i) => `c${i + 1}`);
    this.coordinators = names;
    const served = serversOf(setup);
    this.addresses = served.map(({ address }) => address);
    this.dataDisks = served.map(({ disk }) => disk);
    const spares = Array.from({ length: setup.spares ?? 0 }, (_, i) => i);
    this.allAddresses = [...this.addresses, ...spares.map(spareAddress)];
    this.allDisks = [...this.dataDisks, ...spares.map(spareDisk)];
    this.timing = deriveTiming(this.config("a").timing);
    const faults = timingFaults(this.timing);
    if (faults.length > 0) throw new Error(`pair: ${faults.join("; ")}`);
    this.shelf = new Shelf([...names, ...this.allDisks]);
    this.ledger = new Ledger(this.shelf, names);
    this.wires = new Wires(
      this.timeline,
      this.#random,
      { serial: 5.2, network: 0.3 },
      !setup.silent,
    );
    this.kernels = { a: this.#kernel("a"), b: this.#kernel("b") };
    this.lan = new Lan({
      ...this,
      random: this.#random,
      service: (who, address) => this.controllers[who]?.files?.service(address),
    });
    this.#join();
    this.#addClients();
  }

  /** What belongs to both controllers, put together. */
  #join(): void {
    // V8 takes a function that is written where it is put into an object for one of a long life, and makes it among the old ones: from
    // there it would keep a whole world alive, long after its end, in every collection of young ones. Hence each has a name first.
    const deliver: Wires["deliver"] = (to, link, beat) =>
      this.controllers[to]?.beat.frame(link, beat);
    const refuse: Wires["refuse"] = (to, reason) => this.controllers[to]?.beat.refuse(reason);
    const onFenced: Shelf["onFenced"] = (serial, victim) => {
      if (!this.allDisks.includes(serial)) return;
      const controller = this.controllers[victim];
      // The disk says so with the next command, and a mounted disk always has one.
      new Channel(this.timeline, () => 5).send(() => {
        if (!this.shelf.reachable(serial, victim)) return;
        controller?.block.give(() =>
          controller.happenLater({ kind: "diskFenced", serial, reason: "preempted" }),
        );
      });
    };
    const onAttention: Shelf["onAttention"] = (serial, who) => {
      const controller = this.controllers[who];
      this.timeline.after(1, () => controller?.block.give(() => controller.files?.refuse(serial)));
    };
    const onChange: Shelf["onChange"] = (change) => checkChange(this.#watched(), change);
    this.wires.deliver = deliver;
    this.wires.refuse = refuse;
    this.shelf.onFenced = onFenced;
    this.shelf.onAttention = onAttention;
    this.shelf.onChange = onChange;
    for (const address of this.addresses) this.#darkSince.set(address, 0);
  }

  #addClients(): void {
    const { perServer } = this.#setup.clients ?? { perServer: 0 };
    this.addresses.forEach((address, index) => {
      const peers = Array.from({ length: perServer }, (_, i) => index * perServer + i + 1);
      for (const id of peers) this.#addClient(id, address, peers);
    });
  }

  #addClient(id: number, address: string, peers: readonly number[]): void {
    const { thinkMs, patient } = this.#setup.clients ?? { thinkMs: 0 };
    this.clients.push(
      new Client({
        ...this,
        id,
        address,
        peers,
        thinkMs,
        patient,
        random: this.#random,
        violation: (text) => {
          throw new Violation(text);
        },
      }),
    );
  }

  /** One more client of an address, that nobody has met before. */
  newClient(address: string): void {
    const id = this.clients.length + 1;
    this.#addClient(id, address, [id]);
  }

  #sessionsOf(server: string): Set<number> {
    const known = this.#known.get(server) ?? new Set<number>();
    this.#known.set(server, known);
    return known;
  }

  #kernel(who: ControllerId): Kernel {
    return new Kernel({
      opened: (address) => {
        this.say(who, `gate open ${address}`);
        const since = this.#darkSince.get(address);
        this.#darkSince.delete(address);
        if (since !== undefined)
          this.dark.push({ address, fromMs: since, toMs: this.timeline.nowMs });
      },
      ended: (address, how, atMs) => {
        this.say(who, `gate ${how} ${address}`);
        this.#darkSince.set(address, atMs);
      },
      ungated: (address) => {
        throw new Violation(`neverUngated: ${address} is on an interface of ${who}`);
      },
    });
  }

  #watched(): Watched {
    const { allAddresses: addresses, allDisks: dataDisks } = this;
    return { ...this, addresses, dataDisks, nowMs: this.timeline.nowMs };
  }

  say(who: string, text: string): void {
    if (this.#setup.silent) return;
    const line = `${this.timeline.nowMs.toFixed(1).padStart(9)} ${who} ${text}`;
    this.trace.push(line);
    this.#setup.onTrace?.(line);
  }

  config(who: ControllerId): Config {
    this.#configs[who] ??= configOf(who, this.#setup, this.coordinators);
    return this.#configs[who];
  }

  /** Between half and one and a half times `ms` when delays vary. */
  about(ms: number): number {
    return this.#setup.jitter ? ms * (0.5 + this.#random()) : ms;
  }

  start(who: ControllerId): void {
    if (this.controllers[who]?.alive) return;
    // A supervisor ends what is left of an earlier life first: a beat process in its last words, or a frozen one.
    this.controllers[who]?.kill();
    delete this.#endedMs[who];
    const { ppm, originMs } = this.#setup.clocks?.[who] ?? { ppm: 0, originMs: 0 };
    this.shelf.newSessions(who);
    const controller = new Controller({
      config: this.config(who),
      timing: this.timing,
      machines: this.machines,
      configuration: who === "b" ? this.#configurationOfB : 0,
      session: 1 + Math.floor(this.#random() * 0xffff_fffe),
      record: this.#records[who].read(),
      timeline: this.timeline,
      clock: new Clock(this.timeline, ppm, originMs),
      kernel: this.kernels[who],
      shelf: this.shelf,
      wires: this.wires,
      diskMs: () => this.about(0.4),
      ipcMs: () => this.about(0.1),
      stretch: () => this.about(1),
      dataLinkUp: () => this.dataLinks[who],
      persist: (record) => this.#persist(who, record),
      say: (text) => this.say(who, text),
      exited: (code, reason) => {
        this.#endedMs[who] = this.timeline.nowMs;
        this.say(who, `exit ${code}: ${reason}`);
      },
      gateUntil: (atMs) => this.#lookAtGates(who, atMs),
      stepped: (step) => {
        this.ledger.stepped(step);
        this.#setup.stepped?.(step);
      },
      journalled: !this.#setup.silent,
      tellsWorks: this.#setup.tellsWorks ?? false,
      watch: this.#setup.watch,
      data: this.#setup.clients && {
        lan: this.lan,
        known: (name) => this.#sessionsOf(name),
        newInstance: () => ++this.#instances,
        readBarrier: this.#setup.readBarrier ?? true,
      },
    });
    this.controllers[who] = controller;
    this.lives.push({ controller, journal: controller.journal });
  }

  /** An event at the instant at which the first gate ends, so that nothing is seen too late; renewals only move it. */
  #lookAtGates(who: ControllerId, atMs: number): void {
    if ((this.#gateLookMs[who] ?? Number.POSITIVE_INFINITY) <= atMs) return;
    this.#gateLookMs[who] = atMs;
    this.timeline.at(atMs, () => {
      delete this.#gateLookMs[who];
      this.kernels[who].expire(this.timeline.nowMs);
      const nextMs = this.kernels[who].firstEndMs;
      if (nextMs !== Number.POSITIVE_INFINITY) this.#lookAtGates(who, nextMs);
    });
  }

  #persist(who: ControllerId, record: PersistentRecord): void {
    epochsOnlyRiseInRecords(who, this.#records[who].read().epoch, record.epoch);
    this.#records[who].write(record);
  }

  /** When a controller ended by itself; undefined when it runs, or was struck down. */
  endedMs(who: ControllerId): number | undefined {
    return this.#endedMs[who];
  }

  /** Every process dies at once; the kernel keeps what it has. */
  kill(who: ControllerId): void {
    this.controllers[who]?.kill();
    this.say(who, "killed");
  }

  /** The main process dies; the beat process lives a little longer. */
  crash(who: ControllerId): void {
    this.controllers[who]?.crash();
    this.say(who, "main process killed");
  }

  power(who: ControllerId): void {
    this.say(who, "power off");
    // Silence first: nobody is told anything by a kernel without power.
    this.kernels[who].losePower(this.timeline.nowMs);
    this.controllers[who]?.kill();
  }

  /** The power fails while the record is being written. */
  tear(who: ControllerId, length: number): void {
    const { epoch } = this.#records[who].read();
    this.power(who);
    this.#records[who].tear({ version: 1, epoch: epoch + 1 }, length);
  }

  freeze(who: ControllerId, what: "all" | "main" | "beat" = "all"): void {
    this.controllers[who]?.freeze(what);
    this.say(who, `frozen (${what})`);
  }

  thaw(who: ControllerId, what: "all" | "main" | "beat" = "all"): void {
    this.say(who, `thawed (${what})`);
    this.controllers[who]?.thaw(what);
  }

  /** A record that was lost: a replaced system disk. */
  forget(who: ControllerId): void {
    this.#records[who].forget();
  }

  remembers(who: ControllerId): PersistentRecord {
    return this.#records[who].read();
  }

  /** From its next start, b has another configuration. */
  disagree(crc: number): void {
    this.#configurationOfB = crc;
  }

  cut(link: "serial" | "network", to: ControllerId, cut: boolean): void {
    this.wires.wire(link, to).cut = cut;
  }

  path(who: ControllerId, serial: string, up: boolean): void {
    this.shelf.setPath(serial, who, up);
    if (!this.allDisks.includes(serial)) return;
    const reason = up ? "back" : "no path";
    this.timeline.after(10, () =>
      this.controllers[who]?.block.give(() =>
        this.controllers[who]?.happenLater({ kind: "diskPath", serial, up, reason }),
      ),
    );
    // What happened to the registration while the path was down is told by the first command after it.
    if (
      up &&
      !this.shelf.isRegistered(serial, who) &&
      this.shelf.holder(serial)?.by === partnerOf(who)
    )
      this.shelf.onFenced(serial, who);
  }

  dataLink(who: ControllerId, up: boolean): void {
    this.dataLinks[who] = up;
    this.controllers[who]?.happenLater({ kind: "carrier", up });
  }

  /** Looks at the invariants when something has changed that they speak of. */
  check(): void {
    const { timeline, shelf, kernels, controllers } = this;
    const { a, b } = kernels;
    const { nowMs } = timeline;
    if (nowMs >= a.firstEndMs) a.expire(nowMs);
    if (nowMs >= b.firstEndMs) b.expire(nowMs);
    const modeChanges = (controllers.a?.modeChanges ?? 0) + (controllers.b?.modeChanges ?? 0);
    const changes = shelf.changes + a.changes + b.changes + modeChanges;
    if (changes === this.#checkedAt) return;
    this.#checkedAt = changes;
    checkNow(this.#watched());
  }

  /** Runs a number of events: a way to stop between any two of them. */
  runEvents(count: number): void {
    for (let i = 0; i < count; i += 1) {
      if (!this.timeline.step(this.timeline.nowMs + 1000)) return;
      this.check();
    }
  }

  run(ms: number): void {
    this.timeline.runUntil(this.timeline.nowMs + ms, this.#check);
  }

  /** Runs until a condition holds; false when it did not within `limitMs`. */
  runUntil(holds: () => boolean, limitMs: number): boolean {
    const endMs = this.timeline.nowMs + limitMs;
    while (!holds()) {
      if (!this.timeline.step(endMs)) return false;
      this.check();
    }
    return true;
  }

  /** Who answers at an address now. */
  answers(address: string): ControllerId | undefined {
    return ids.find((who) => this.kernels[who].isOpen(address, this.timeline.nowMs));
  }

  /** Time without an answer that is not over yet, ms. */
  darkMs(address: string): number {
    const since = this.#darkSince.get(address);
    return since === undefined ? 0 : this.timeline.nowMs - since;
  }
}
