/** The table of metrics: name, meaning, labels, and how each is read off the status or the counters. */
import { modes } from "../schema/beat.ts";
import {
  healthSchema,
  linkColourSchema,
  type Status,
  type UsageStatus,
  virtualServerStateSchema,
} from "../schema/status.ts";

/** What the parts around the daemon have counted since their start; an absent part has no series. */
export interface OutsideCounters {
  readonly api?:
    | {
        readonly requests: number;
        readonly errors: Readonly<Record<string, number | undefined>>;
        readonly streams: number;
        readonly streamsDropped: number;
      }
    | undefined;
  readonly mqtt?:
    | {
        readonly connected: boolean;
        readonly connects: number;
        readonly published: number;
        readonly dropped: number;
        readonly refused: number;
      }
    | undefined;
}

type Sample = readonly [labels: Record<string, string>, value: number];

interface Family {
  readonly name: string;
  readonly help: string;
  readonly kind: "gauge" | "counter";
  readonly labelNames: readonly string[];
  readonly samples: (status: Status, counters: OutsideCounters) => readonly Sample[];
}

const one = (value: number | boolean): Sample[] => [[{}, Number(value)]];

/** One 0/1 sample per possible state. */
function states(label: string, all: readonly string[], now: string, more = {}): Sample[] {
  return all.map((each) => [{ ...more, [label]: each }, Number(each === now)]);
}

function gauge(
  name: string,
  help: string,
  labelNames: readonly string[],
  samples: Family["samples"],
): Family {
  return { name: `dyad_${name}`, help, kind: "gauge", labelNames, samples };
}

function counter(
  name: string,
  help: string,
  labelNames: readonly string[],
  samples: Family["samples"],
): Family {
  return { name: `dyad_${name}_total`, help, kind: "counter", labelNames, samples };
}

const pair: readonly Family[] = [
  gauge("info", "Always 1; says which controller this is", ["controller"], (status) => [
    [{ controller: status.controller }, 1],
  ]),
  gauge("uptime_seconds", "Since the daemon's start", [], (status) => one(status.uptimeMs / 1000)),
  gauge("epoch", "Generation number of ownership", [], (status) => one(status.epoch)),
  gauge("mode", "1 for the mode of this controller", ["mode"], (status) =>
    states("mode", modes, status.mode),
  ),
  gauge("health", "1 for the health of the pair", ["health"], (status) =>
    states("health", healthSchema.options, status.health),
  ),
  gauge("partner_heard", "The partner is heard on some link", [], (status) =>
    one(status.partner.heard),
  ),
  gauge("data_link_up", "The NIC of the floating addresses has a carrier", [], (status) =>
    one(status.dataLinkUp),
  ),
  gauge("takeover_possible", "A planned takeover could happen now", [], (status) =>
    one(status.takeover.possible),
  ),
  gauge("giveback_possible", "A giveback could happen now", [], (status) =>
    one(status.giveback.possible),
  ),
  counter("refused_frames", "Heartbeat frames refused, by reason", ["reason"], (status) =>
    Object.entries(status.refusedFrames).map(([reason, count]) => [{ reason }, count]),
  ),
];

const parts: readonly Family[] = [
  gauge("link_colour", "1 for the light of a heartbeat link", ["link", "colour"], (status) =>
    status.links.flatMap(({ name, colour }) =>
      states("colour", linkColourSchema.options, colour, { link: name }),
    ),
  ),
  gauge("link_silence_seconds", "Since a beat was heard on a link", ["link"], (status) =>
    status.links.flatMap(({ name, silentMs }): Sample[] =>
      silentMs === undefined ? [] : [[{ link: name }, silentMs / 1000]],
    ),
  ),
  counter("link_malformed_frames", "Broken frames received on a link", ["link"], (status) =>
    status.links.map(({ name, malformed }) => [{ link: name }, malformed]),
  ),
  gauge("disk_path_up", "The path from here to a disk", ["disk", "role"], (status) =>
    status.disks.map(({ serial, role, path }) => [{ disk: serial, role }, Number(path === "up")]),
  ),
  gauge("disk_owner", "1 for who holds a disk", ["disk", "owner"], (status) =>
    status.disks.flatMap(({ serial, owner }) =>
      states("owner", ["a", "b", "none", "unknown"], owner, { disk: serial }),
    ),
  ),
  gauge("vserver_state", "1 for a virtual server's state here", ["vserver", "state"], (status) =>
    status.virtualServers.flatMap(({ name, state }) =>
      states("state", virtualServerStateSchema.options, state, { vserver: name }),
    ),
  ),
  gauge("vserver_at_home", "A virtual server is owned by its home", ["vserver"], (status) =>
    status.virtualServers.map(({ name, home, owner }) => [
      { vserver: name },
      Number(home === owner),
    ]),
  ),
  gauge("vserver_last_start_seconds", "Duration of the last start here", ["vserver"], (status) =>
    status.virtualServers.flatMap(({ name, lastStartMs }): Sample[] =>
      lastStartMs === undefined ? [] : [[{ vserver: name }, lastStartMs / 1000]],
    ),
  ),
  gauge(
    "vserver_failures",
    "Failures here since it last served for a minute",
    ["vserver"],
    (status) =>
      status.virtualServers.map(({ name, failures }) => [{ vserver: name }, failures ?? 0]),
  ),
];

/** One sample for each virtual server of which the kernel tells it. */
function used(pick: (usage: UsageStatus) => number | undefined): Family["samples"] {
  return ({ virtualServers }) =>
    virtualServers.flatMap(({ name, usage }): Sample[] => {
      const value = usage && pick(usage);
      return value === undefined ? [] : [[{ vserver: name }, value]];
    });
}

const usages: readonly Family[] = [
  counter(
    "vserver_cpu_seconds",
    "Processor time of a virtual server's programs here",
    ["vserver"],
    used((usage) => usage.cpuSeconds),
  ),
  counter(
    "vserver_cpu_throttled_seconds",
    "Time in which they waited because of cpu_percent",
    ["vserver"],
    used((usage) => usage.throttledSeconds),
  ),
  gauge(
    "vserver_memory_bytes",
    "Memory that they hold here, cached files included",
    ["vserver"],
    used(({ memoryMb }) => (memoryMb === undefined ? undefined : memoryMb * 1024 * 1024)),
  ),
  gauge(
    "vserver_processes",
    "Processes and threads of them here",
    ["vserver"],
    used((usage) => usage.processes),
  ),
  counter(
    "vserver_oom_kills",
    "Processes killed because of memory_mb",
    ["vserver"],
    used((usage) => usage.oomKills),
  ),
  counter(
    "vserver_forks_refused",
    "Processes and threads not made because of processes",
    ["vserver"],
    used((usage) => usage.forksRefused),
  ),
];

const outside: readonly Family[] = [
  counter("api_requests", "Requests to the local API", [], (_, { api }) =>
    api ? one(api.requests) : [],
  ),
  counter("api_errors", "Requests answered with an error, by code", ["code"], (_, { api }) =>
    Object.entries(api?.errors ?? {}).map(([code, count]) => [{ code }, count ?? 0]),
  ),
  gauge("api_event_streams", "Event streams that are open", [], (_, { api }) =>
    api ? one(api.streams) : [],
  ),
  counter("api_event_streams_dropped", "Streams cut off for slowness", [], (_, { api }) =>
    api ? one(api.streamsDropped) : [],
  ),
  gauge("mqtt_connected", "A session with the MQTT broker stands", [], (_, { mqtt }) =>
    mqtt ? one(mqtt.connected) : [],
  ),
  counter("mqtt_connects", "Sessions with the MQTT broker", [], (_, { mqtt }) =>
    mqtt ? one(mqtt.connects) : [],
  ),
  counter("mqtt_published", "Messages that the broker acknowledged", [], (_, { mqtt }) =>
    mqtt ? one(mqtt.published) : [],
  ),
  counter("mqtt_dropped", "Events dropped because the queue was full", [], (_, { mqtt }) =>
    mqtt ? one(mqtt.dropped) : [],
  ),
  counter("mqtt_refused", "Messages that the broker refused", [], (_, { mqtt }) =>
    mqtt ? one(mqtt.refused) : [],
  ),
  gauge("resident_memory_bytes", "Memory of the daemon", [], () => one(process.memoryUsage.rss())),
  counter("cpu_seconds", "Processor time of the daemon", [], () => {
    const { user, system } = process.cpuUsage();
    return one((user + system) / 1e6);
  }),
];

export const families: readonly Family[] = [...pair, ...parts, ...usages, ...outside];
