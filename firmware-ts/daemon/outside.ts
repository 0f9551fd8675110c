/**
 * The outside of a controller: API, metrics, front panel, and telemetry. It shows what the decisions' state says and hands wishes to
 * the loop; nothing here can delay or change a decision.
 */
import { performance } from "node:perf_hooks";
import type { ControllerState } from "../core/controller-state.ts";
import type { Command } from "../core/events.ts";
import { initialPanel, type PanelEffect, type PanelEvent, panelStep } from "../core/panel.ts";
import { view } from "../core/panel-view.ts";
import { type Counted, definitionsOf, statusOf } from "../core/show.ts";
import type { Config } from "../schema/config.ts";
import { explain } from "../schema/outcome.ts";
import type { CommandAnswer, Status } from "../schema/status.ts";
import { createMetrics } from "../telemetry/metrics.ts";
import type { Publisher } from "../telemetry/mqtt.ts";
import { createApi } from "./api.ts";
import type { EventRing } from "./events.ts";

/** How often what is shown is looked at for changes. */
const publishEveryMs = 250;

/** Commands whose answer is still to come. */
const waitingMax = 64;

/** A command before it has its number. */
type Wish = Command extends infer C ? (C extends { id: number } ? Omit<C, "id"> : never) : never;

export interface OutsideSetup {
  readonly config: Config;
  readonly log: (message: string) => void;
  readonly events: EventRing;
  readonly state: () => ControllerState;
  readonly counted: () => Counted;
  readonly command: (command: Command) => void;
}

export interface Outside {
  /** Begins to listen and to publish. A socket that cannot be opened is logged: serving goes on without it. */
  open(): Promise<void>;
  /** The decisions' answer to a command. */
  answered(id: number, answer: CommandAnswer): void;
  close(): Promise<void>;
}

export function openOutside(setup: OutsideSetup): Outside {
  const { config, events } = setup;
  const metrics = createMetrics();
  const waiting = new Map<number, (answer: CommandAnswer) => void>();
  let nextId = 1;
  let panel = initialPanel(performance.now());
  let publisher: Publisher | undefined;
  let timer: NodeJS.Timeout | undefined;
  const status = (): Status => statusOf(setup.state(), setup.counted());

  function command(wish: Wish): Promise<CommandAnswer> {
    const id = nextId;
    nextId += 1;
    return new Promise((resolve) => {
      // The decisions answer each command, within seconds; what is left over was asked of a loop that ended.
      if (waiting.size >= waitingMax) waiting.clear();
      waiting.set(id, resolve);
      setup.command({ ...wish, id });
    });
  }

  function panelEvent(event: PanelEvent): void {
    const step = panelStep(panel, event);
    panel = step.state;
    for (const effect of step.effects) void ask(effect);
  }

  async function ask({ command: kind }: PanelEffect): Promise<void> {
    const request = { dryRun: false, force: false, reason: "asked at the front panel" };
    const answer = await command({ kind, request, by: "panel" });
    panelEvent({ kind: "answer", answer, nowMs: performance.now() });
  }

  const api = createApi({
    status,
    events: (after) => events.after(after),
    subscribe: (listener) => events.subscribe(listener),
    command: (kind, virtualServer, request) =>
      command({
        kind,
        ...(virtualServer ? { virtualServer } : {}),
        request,
        by: request.by ?? "api",
      }),
    definitions: () => definitionsOf(setup.state()),
    change: (change, request) =>
      command({ kind: "change", change, request, by: request.by ?? "api" }),
    panel: () => view(panel, status()),
    press: (button) =>
      panelEvent({ kind: "button", button, status: status(), nowMs: performance.now() }),
    metrics: () =>
      metrics.render(status(), {
        api: api.counters,
        ...(publisher ? { mqtt: publisher.counters() } : {}),
      }),
    log: setup.log,
  });

  events.subscribe((event) => {
    publisher?.event(event);
    const startMs = event.detail?.startMs;
    if (event.code === "vserver.serving" && typeof startMs === "number")
      metrics.observeTakeover(setup.state().mode === "alone" ? "failure" : "planned", startMs);
  });

  return {
    async open() {
      const listening = await api.listen(config.api.socket);
      if (!listening.ok) setup.log(explain(listening.fault));
      if (config.mqtt) {
        // Loaded only where it is used: 8 MB.
        const { createPublisher } = await import("../telemetry/mqtt.ts");
        publisher = createPublisher({
          config,
          clientId: `dyad-${config.pair.id}-${config.controller.id}`,
          log: setup.log,
        });
      }
      timer = setInterval(() => {
        panelEvent({ kind: "tick", nowMs: performance.now() });
        publisher?.publish(status());
      }, publishEveryMs);
    },
    answered(id, answer) {
      waiting.get(id)?.(answer);
      waiting.delete(id);
    },
    async close() {
      clearInterval(timer);
      await Promise.all([api.close(), publisher?.close()]);
    },
  };
}
