/** A daemon for the tests of what surrounds it: a status, a list of events, and a record of what was asked. */

import type { Change } from "../../firmware-ts/core/events.ts";
import { type Api, createApi } from "../../firmware-ts/daemon/api.ts";
import type { ApiBackend } from "../../firmware-ts/daemon/api-backend.ts";
import type { DefinitionView } from "../../firmware-ts/schema/api-change.ts";
import { virtualServerSchema } from "../../firmware-ts/schema/config.ts";
import {
  type CommandAnswer,
  type CommandRequest,
  type OperatorEvent,
  type PanelButton,
  type PanelView,
  type Status,
  statusSchema,
} from "../../firmware-ts/schema/status.ts";

/** A healthy pair as controller a sees it: alpha here, beta at the partner. */
export function healthyStatus(): Status {
  return statusSchema.parse({
    version: 1,
    controller: "a",
    mode: "paired",
    epoch: 7,
    health: "ok",
    statusText: "Both controllers serve their own virtual servers.",
    actionText: "None needed.",
    uptimeMs: 93_784_000,
    partner: { heard: true, mode: "paired", epoch: 7, dataLinkDown: false },
    dataLinkUp: true,
    links: [
      { name: "serial", colour: "green", silentMs: 4, malformed: 0 },
      { name: "network", colour: "green", silentMs: 6, malformed: 2 },
      { name: "disk", colour: "yellow", silentMs: 41, malformed: 0 },
    ],
    disks: [
      { serial: "coord-1", role: "coordinator", owner: "none", path: "up" },
      { serial: "data-1", role: "data", virtualServer: "alpha", owner: "a", epoch: 7, path: "up" },
      { serial: "data-2", role: "data", virtualServer: "beta", owner: "b", epoch: 6, path: "up" },
    ],
    virtualServers: [
      {
        name: "alpha",
        home: "a",
        owner: "a",
        state: "serving",
        addresses: ["10.0.0.100/24"],
        exports: ["/alpha"],
        limits: {
          cpuWeight: 50,
          cpuPercent: 150,
          memoryMb: 2048,
          processes: 512,
          bandwidthMbit: 100,
        },
        usage: {
          cpuSeconds: 81.5,
          throttledSeconds: 2.5,
          memoryMb: 341.2,
          processes: 23,
          oomKills: 1,
          forksRefused: 0,
        },
        lastStartMs: 61.5,
      },
      {
        name: "beta",
        home: "b",
        owner: "b",
        state: "elsewhere",
        addresses: ["10.0.0.101/24", "fd00::101/64"],
        exports: ["/beta"],
        limits: { cpuWeight: 100, processes: 512 },
        usage: { memoryMb: 6.2, processes: 4 },
      },
    ],
    takeover: { possible: true, vetoes: [] },
    giveback: {
      possible: false,
      vetoes: [{ code: "nothingToGive", severity: "hard", message: "every server is at home" }],
    },
    refusedFrames: { mac: 3 },
  });
}

/** Controller a alone: b is silent, its server runs here, one disk and one server are in trouble. */
export function troubledStatus(): Status {
  const status = healthyStatus();
  const [alpha, beta] = status.virtualServers;
  if (!alpha || !beta) throw new Error("two servers expected");
  return {
    ...status,
    mode: "alone",
    epoch: 8,
    health: "takenOver",
    statusText: "Controller b was lost; its virtual servers run here.",
    actionText: "Repair controller b, then run dyad giveback.",
    partner: { heard: false },
    links: status.links.map((link) => ({ ...link, colour: "red" as const, silentMs: 61_000 })),
    takeover: {
      possible: true,
      vetoes: [{ code: "linkRed", severity: "soft", message: "the serial link is red" }],
    },
    disks: status.disks.map((disk, i) => ({ ...disk, path: i === 0 ? "down" : "up" })),
    virtualServers: [
      { ...alpha, state: "failed", step: "mount", fault: "mount: device is gone" },
      { ...beta, owner: "a", state: "starting", step: "export" },
    ],
  };
}

/** Of alpha, which was changed and has been served, and of beta as the file has it. */
function definitions(): DefinitionView[] {
  const define = (name: string, home: "a" | "b", more: object) =>
    virtualServerSchema.parse({
      name,
      home,
      addresses: ["10.0.0.100/24"],
      volumes: [{ disk: "data-1", export: `/${name}` }],
      ...more,
    });
  const routes = [{ to: "default", via: "10.0.0.1" }];
  const volumes = [{ id: 2, disk: "data-2", export: "/beta" }];
  const addresses = ["10.0.0.101/24", "fd00::101/64"];
  return [
    {
      number: 0,
      sequence: 3,
      wanted: "started",
      server: define("alpha", "a", { routes, limits: healthyStatus().virtualServers[0]?.limits }),
      lastStart: {
        owner: "a",
        epoch: 7,
        mounts: ["/dev/loop7 on /run/dyad/places/alpha/data-1 type ext4"],
        routes: ["10.0.0.0/24 dev data0 table main", "default via 10.0.0.1 dev data0 table main"],
        devices: [],
      },
    },
    {
      number: 1,
      sequence: 0,
      wanted: "started",
      server: define("beta", "b", { addresses, volumes }),
    },
  ];
}

export const emptyView: PanelView = {
  lines: ["A PAIRED          OK", "alpha serving       "],
  lights: { power: "green", health: "green", partner: "green", activity: "off" },
};

export interface FakeDaemon {
  readonly api: Api;
  readonly backend: ApiBackend;
  readonly asked: { kind: string; virtualServer: string | undefined; request: CommandRequest }[];
  readonly changes: { change: Change; request: CommandRequest }[];
  definitions: DefinitionView[];
  readonly pressed: PanelButton[];
  readonly logged: string[];
  readonly emit: (event: Partial<OperatorEvent>) => OperatorEvent;
  readonly listeners: () => number;
  status: Status;
  view: PanelView;
  /** What the next command is answered; may throw. */
  answer: (kind: string, request: CommandRequest) => Promise<CommandAnswer>;
}

/** A real API in front of a daemon that only remembers. */
export function fakeDaemon(): FakeDaemon {
  const events: OperatorEvent[] = [];
  const listeners = new Set<(event: OperatorEvent) => void>();
  const backend: ApiBackend = {
    status: () => fake.status,
    events: (after) => events.filter((event) => event.sequence > after),
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    command: (kind, virtualServer, request) => {
      fake.asked.push({ kind, virtualServer, request });
      return fake.answer(kind, request);
    },
    definitions: () => fake.definitions,
    change: (change, request) => {
      fake.changes.push({ change, request });
      return fake.answer(change.action, request);
    },
    panel: () => fake.view,
    press: (button) => {
      fake.pressed.push(button);
    },
    metrics: async () => "dyad_epoch 7\n",
    log: (message) => fake.logged.push(message),
  };
  const fake: FakeDaemon = {
    api: createApi(backend),
    backend,
    asked: [],
    changes: [],
    definitions: definitions(),
    pressed: [],
    logged: [],
    listeners: () => listeners.size,
    emit: (partial) => {
      const event: OperatorEvent = {
        sequence: events.length + 1,
        at: "2026-11-05T12:00:00.000Z",
        controller: "a",
        severity: "info",
        code: "test.event",
        message: `event ${events.length + 1}`,
        ...partial,
      };
      events.push(event);
      for (const listener of listeners) listener(event);
      return event;
    },
    status: healthyStatus(),
    view: emptyView,
    answer: async () => ({
      accepted: true,
      vetoes: [],
      plan: [{ virtualServer: "beta", action: "move to controller a", predictedMs: 60 }],
    }),
  };
  return fake;
}
