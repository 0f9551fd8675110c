/**
 * The live view's loop: asks both controllers, watches clients and addresses, draws, and carries out keys and the script. Each
 * controller is asked by a loop of its own: one that is frozen must not hold up the picture of the other.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { OperatorEvent, PanelView, Status } from "../../firmware-ts/schema/status.ts";
import type { Stage } from "../campaign/one-run.ts";
import { BenchError } from "../world/error.ts";
import { controllerIds } from "../world/layout.ts";
import { type MemoryReading, readMemory } from "../world/memory.ts";
import { Actions } from "./actions.ts";
import { draw, heightMin } from "./draw.ts";
import { type Action, actionOf } from "./keys.ts";
import { plainEvent, plainStatus } from "./lines.ts";
import type { LiveModel } from "./model.ts";
import { Screen } from "./screen.ts";
import type { ScriptStep } from "./script.ts";
import { svgOf } from "./svg.ts";

const askIntervalMs = 200;
const memoryIntervalMs = 2000;
const lineIntervalMs = 1000;
const eventsKept = 200;
/** The size of pictures for documents. */
const shotWidth = 100;
const shotHeight = heightMin + 6;

interface Known {
  status: Status | undefined;
  panel: PanelView | undefined;
  memory: MemoryReading | undefined;
  memoryAtMs: number;
  newestEvent: number;
  uptimeMs: number;
}

const nothingKnown = (): Known => ({
  status: undefined,
  panel: undefined,
  memory: undefined,
  memoryAtMs: Number.NEGATIVE_INFINITY,
  newestEvent: 0,
  uptimeMs: 0,
});

export class Live {
  readonly #stage: Stage;
  readonly #actions: Actions;
  readonly #screen: Screen | undefined;
  readonly #ending = new AbortController();
  readonly #began = performance.now();
  readonly #known: { readonly [id in ControllerId]: Known } = {
    a: nothingKnown(),
    b: nothingKnown(),
  };
  #events: OperatorEvent[] = [];

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#actions = new Actions(stage.world, stage.clients, () => this.#draw());
    this.#screen =
      process.stdout.isTTY && process.stdin.isTTY
        ? new Screen(process.stdout, process.stdin)
        : undefined;
  }

  /** Settles when a key, the script or the world's signal ends it. */
  async run(script: readonly ScriptStep[]): Promise<void> {
    const { world, clients } = this.#stage;
    for (const client of clients) client.mark("live");
    const end = () => this.#ending.abort();
    world.signal?.addEventListener("abort", end, { once: true });
    this.#screen?.open(
      (key) => this.#key(key),
      () => this.#draw(),
    );
    try {
      await Promise.all([
        ...controllerIds.map((id) => this.#ask(id)),
        this.#follow(script),
        ...(this.#screen ? [] : [this.#printLines()]),
      ]);
      await this.#actions.idle();
    } finally {
      this.#screen?.close();
      world.signal?.removeEventListener("abort", end);
    }
  }

  #key(key: string): void {
    const action = actionOf(key);
    if (action) this.#perform(action);
  }

  #perform(action: Action): void {
    if (action.kind === "quit") this.#ending.abort();
    else if (action.kind === "shot") this.#shoot(action.path);
    else this.#actions.perform(action);
  }

  #shoot(path: string): void {
    mkdirSync(dirname(path), { recursive: true });
    const lines = draw(this.#model(), shotWidth, shotHeight);
    writeFileSync(path, svgOf(lines, "Dyad's live view of two controllers on the bench"));
  }

  async #pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#ending.signal }).catch(() => undefined);
  }

  get #ended(): boolean {
    return this.#ending.signal.aborted;
  }

  async #follow(script: readonly ScriptStep[]): Promise<void> {
    for (const { atMs, action } of script) {
      await this.#pause(Math.max(0, atMs - (performance.now() - this.#began)));
      if (this.#ended) return;
      this.#perform(action);
    }
  }

  async #ask(id: ControllerId): Promise<void> {
    const { world } = this.#stage;
    const known = this.#known[id];
    while (!this.#ended) {
      const asked = performance.now();
      const machine = world.machines[id];
      known.status = machine.powered ? await world.apis[id].statusIfUp() : undefined;
      known.panel = known.status ? await world.apis[id].panel().catch(() => undefined) : undefined;
      if (known.status) await this.#hearEvents(id, known.status);
      if (asked - known.memoryAtMs > memoryIntervalMs && machine.powered) {
        known.memory = readMemory(machine.cgroup);
        known.memoryAtMs = asked;
      }
      this.#draw();
      await this.#pause(Math.max(0, askIntervalMs - (performance.now() - asked)));
    }
  }

  async #hearEvents(id: ControllerId, status: Status): Promise<void> {
    const known = this.#known[id];
    // A new life counts its events from the beginning.
    if (status.uptimeMs < known.uptimeMs) known.newestEvent = 0;
    known.uptimeMs = status.uptimeMs;
    const fresh = await this.#stage.world.apis[id].events(known.newestEvent).catch(() => []);
    for (const event of fresh) {
      known.newestEvent = Math.max(known.newestEvent, event.sequence);
      if (!this.#screen) process.stdout.write(`${plainEvent(event)}\n`);
    }
    this.#events = [...this.#events, ...fresh]
      .sort((x, y) => x.at.localeCompare(y.at))
      .slice(-eventsKept);
  }

  async #printLines(): Promise<void> {
    let note = "";
    while (!this.#ended) {
      await this.#pause(lineIntervalMs);
      const model = this.#model();
      if (model.note !== note) process.stdout.write(`> ${model.note}\n`);
      note = model.note;
      process.stdout.write(`${plainStatus(model)}\n`);
    }
  }

  #draw(): void {
    if (!this.#screen || this.#ended) return;
    this.#screen.show(draw(this.#model(), this.#screen.width, this.#screen.height));
  }

  #model(): LiveModel {
    const { world, watch, clients } = this.#stage;
    const controller = (id: ControllerId) => {
      const { status, panel, memory } = this.#known[id];
      return { status, panel, memory, powered: world.machines[id].powered };
    };
    return {
      elapsedMs: performance.now() - this.#began,
      selected: this.#actions.selected,
      controllers: { a: controller("a"), b: controller("b") },
      clients: clients.map(({ name, virtualServer, last }) => ({
        name,
        virtualServer,
        state: last,
      })),
      servers: world.layout.servers.map(({ name, home, address }) => ({
        name,
        home,
        address,
        answeredBy: watch.answers(address),
        silentMs: watch.gapMs(address),
      })),
      faults: this.#actions.faults,
      events: this.#events,
      note: this.#actions.note,
    };
  }
}

/** Throws `notRoot` with what works without it. */
export function demandRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new BenchError(
    "notRoot",
    "run",
    "needs root for namespaces, mounts and cgroups; without it `make test-fast`, `make check` and `npm run -s dyad -- --help` work",
  );
}
