/**
 * The configuration of one controller (`dyad.toml`; keys there are written in snake_case). The part under `shared` words
 * must be the same on both: its CRC travels in every beat, and controllers that disagree do not pair.
 */
import { z } from "zod";
import { virtualServersMax } from "./beat.ts";
import { shareName, smbSettings } from "./config-smb.ts";
import { contradictions } from "./contradictions.ts";
import { controllerIdSchema, virtualServerNameSchema } from "./ids.ts";
import { bareAddress, parsePrefix } from "./ip-address.ts";

const path = z.string().min(1).max(255).startsWith("/", "expected an absolute path");
const milliseconds = (min: number, max: number) => z.number().int().min(min).max(max);
const serial = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,32}$/, "expected a disk serial: 1 to 32 letters, digits, dots, dashes");
const ip = z.union([z.ipv4(), z.ipv6()]);

/** Whether a text is an IP address with a prefix length of at least `bitsMin`. */
function isPrefix(text: string, bitsMin: number): boolean {
  const parsed = parsePrefix(text);
  return (
    parsed !== undefined && parsed.length >= bitsMin && ip.safeParse(bareAddress(text)).success
  );
}

/** `address/prefix` of a floating address. */
const floatingAddress = z
  .string()
  .max(64)
  .refine(
    (text) => isPrefix(text, 1),
    "expected an address with its prefix length, as in 10.0.0.100/24",
  );

const prefix = z
  .string()
  .max(64)
  .refine((text) => isPrefix(text, 0), "expected a prefix, as in 10.0.0.0/24");

/** iproute2 numbers its own tables from 253 on; larger ones have no name. */
const routingTable = z.number().int().min(1).max(252);

/** Volumes of one virtual server, and the largest id of one. */
export const volumesMax = 8;

const volume = z.strictObject({
  /**
   * What file handles and sessions know it by; it stays the same for as long as the volume is there, whatever becomes of its neighbours in the list.
   * Absent: one is chosen (`withIds`).
   */
  id: z.number().int().min(1).max(volumesMax).optional(),
  disk: serial,
  /** Path under which clients mount the volume by NFS; the same on both controllers. Absent: it is not offered by NFS. */
  export: path.max(64).optional(),
  /** Name under which clients find it by SMB. Absent: it is not offered by SMB. */
  share: shareName.optional(),
});

/**
 * Gives an id to each volume that has none: one more than the largest there is or, when that is the largest possible, the lowest free one. A list without any
 * is numbered from 1. A volume that is added gets the id of one that has gone as late as possible: clients may still hold handles of that one.
 */
function withIds<V extends { id?: number | undefined }>(volumes: V[]): (V & { id: number })[] {
  const taken = new Set(volumes.flatMap(({ id }) => id ?? []));
  let last = Math.max(0, ...taken);
  return volumes.map((each) => {
    if (each.id !== undefined) return { ...each, id: each.id };
    last += 1;
    let id = last;
    if (id > volumesMax) for (id = 1; taken.has(id); ) id += 1;
    taken.add(id);
    return { ...each, id };
  });
}

/** `address/prefix`, or `default`. */
const destination = z.union([z.literal("default"), prefix]);

/** One entry of a virtual server's own routing table (US 7,200,622 claim 1: path information). */
const route = z.strictObject({
  to: destination,
  /** The gateway. Absent: what it leads to is on the link itself. */
  via: ip.optional(),
  /** Number of the table; absent: the main one. Rules choose among tables. */
  table: routingTable.optional(),
});

/** Packets from these addresses are routed by that table. */
const routingRule = z.strictObject({ from: prefix, table: routingTable });

/**
 * What a virtual server may take of its controller (US 7,200,622: resource allocation is part of a virtual file server's configuration). Absent:
 * as much as there is. The bounds below keep a file server able to start within the time that a move allows it.
 */
const limits = z.strictObject({
  /** Its share of the processors where there are not enough for all, against 100 of the others (cpu.weight of cgroups(7), version 2). */
  cpuWeight: z.number().int().min(1).max(10_000).default(100),
  /** Most processor time, in per cent of one processor. */
  cpuPercent: z.number().int().min(5).max(25_600).optional(),
  /** Most memory of its programs, what the kernel keeps of its files included. */
  memoryMb: z.number().int().min(64).max(1_048_576).optional(),
  /** Most processes and threads: nobody asks for a limit before it is needed. A file server has 20, and up to 250 when many clients ask at once. */
  processes: z.number().int().min(256).max(32_768).default(512),
  /** Most traffic of its interface, in each direction. */
  bandwidthMbit: z.number().int().min(1).max(100_000).optional(),
});

export type LimitsConfig = z.infer<typeof limits>;
/** Of whoever says nothing about them. */
export const defaultLimits: LimitsConfig = limits.parse({});

/** As somebody writes it: volumes may be without ids. */
export const virtualServerInputSchema = z.strictObject({
  name: virtualServerNameSchema,
  home: controllerIdSchema,
  addresses: z.array(floatingAddress).min(1).max(8),
  /** IEEE 802.1Q: its interface is on that VLAN of the data NIC. Absent: on the NIC itself. */
  vlan: z.number().int().min(1).max(4094).optional(),
  routes: z.array(route).max(16).default([]),
  rules: z.array(routingRule).max(16).default([]),
  volumes: z.array(volume).min(1).max(volumesMax),
  limits: limits.prefault({}),
  /** Who may come by SMB, and how; there is none without a share. */
  smb: smbSettings.optional(),
});
export type VirtualServerInput = z.infer<typeof virtualServerInputSchema>;

export const virtualServerSchema = virtualServerInputSchema.extend({
  volumes: virtualServerInputSchema.shape.volumes.transform(withIds),
});

/**
 * What an administrator may turn. Everything else is derived in core/timing, which also refuses combinations
 * that break the safety argument.
 */
const timing = z.strictObject({
  beatIntervalMs: milliseconds(5, 1000).default(10),
  diskBeatIntervalMs: milliseconds(10, 2000).default(20),
  /** Silence on the serial and network links after which they are red. */
  linkSilenceMs: milliseconds(20, 5000).default(60),
  /** Silence on the disk link after which it is red. */
  diskSilenceMs: milliseconds(40, 10000).default(90),
  gateTimeoutMs: milliseconds(60, 20000).default(150),
  soloGateTimeoutMs: milliseconds(100, 30000).default(400),
  /** Covers the granularity of the kernel's timer and the drift of two clocks over one gate timeout. */
  clockMarginMs: milliseconds(5, 1000).default(15),
  /** Age of the main loop's last progress at which the controller counts as hung. */
  progressTimeoutMs: milliseconds(50, 10000).default(500),
  /** How long a starting controller listens for a partner before it arbitrates alone. */
  startupWaitMs: milliseconds(100, 60000).default(1500),
});

export const configSchema = z
  .strictObject({
    version: z.literal(1),
    controller: z.strictObject({
      id: controllerIdSchema,
      stateDir: path.default("/var/lib/dyad"),
      runDir: path.default("/run/dyad"),
    }),
    pair: z.strictObject({ id: z.number().int().min(1).max(65535), keyFile: path }),
    timing: timing.prefault({}),
    links: z.strictObject({
      serial: z
        .strictObject({ path, baudRate: z.number().int().min(9600).max(4_000_000).default(115200) })
        .optional(),
      network: z
        .strictObject({
          local: ip,
          partner: ip,
          port: z.number().int().min(1).max(65535).default(7411),
        })
        .optional(),
      /** Not a choice: a controller that is alone proves by these writes that nobody has preempted it. The key is there to be read. */
      disk: z
        .literal(
          true,
          "expected true, because a controller that is alone may answer only on the ground of its beats on the coordinator disks",
        )
        .default(true),
    }),
    data: z.strictObject({
      nic: z.string().regex(/^[a-zA-Z0-9._-]{1,15}$/, "expected a NIC name"),
    }),
    shelf: z.strictObject({
      portal: z.string().regex(/^[^\s]+:\d{1,5}$/, "expected host:port of the shelf"),
      target: z.string().min(1).max(223),
      initiatorName: z.string().min(1).max(200),
      coordinators: z.array(serial).min(1).max(7),
    }),
    virtualServers: z.array(virtualServerSchema).max(virtualServersMax).default([]),
    mqtt: z
      .strictObject({
        url: z
          .string()
          .regex(/^mqtts?:\/\/[^\s]+$/, "expected mqtt://host:port or mqtts://host:port"),
        topicPrefix: z
          .string()
          .regex(/^[^+#\s]{1,64}$/)
          .default("dyad"),
        username: z.string().max(64).optional(),
        passwordFile: path.optional(),
        caFile: path.optional(),
      })
      .optional(),
    api: z.strictObject({ socket: path.default("/run/dyad/dyad.sock") }).prefault({}),
    /** Return virtual servers to their home as soon as the partner has been back and healthy for a while. */
    autoGiveback: z.boolean().default(false),
  })
  .superRefine(refuseContradictions);

export type Config = z.infer<typeof configSchema>;
export type VirtualServerConfig = Config["virtualServers"][number];
export type TimingConfig = Config["timing"];

/** Whether a virtual server has anything for NFS clients. */
export function offersNfs({ volumes }: VirtualServerConfig): boolean {
  return volumes.some((volume) => volume.export !== undefined);
}

/** Whether it has anything for SMB clients. */
export function offersSmb({ volumes }: VirtualServerConfig): boolean {
  return volumes.some(({ share }) => share !== undefined);
}

/** Addresses without their prefix. */
export function bareAddresses({ addresses }: VirtualServerConfig): string[] {
  return addresses.map(bareAddress);
}

/** <linux/if.h>: IFNAMSIZ, without the zero that ends it. */
const nicNameMax = 15;

/** The VLANs of the data NIC that virtual servers are on. */
export function vlansOf(
  servers: readonly Pick<VirtualServerConfig, "vlan">[],
): ReadonlySet<number> {
  return new Set(servers.flatMap(({ vlan }) => vlan ?? []));
}

/** The name of a VLAN of the data NIC. */
export function vlanName(nic: string, vlan: number): string {
  return `${nic}.${vlan}`;
}

/** Rules that span several keys: an odd number of coordinators, and nothing used twice. */
function refuseContradictions(
  config: {
    shelf: { coordinators: string[] };
    virtualServers: z.infer<typeof virtualServerSchema>[];
    data: { nic: string };
    links: { serial?: unknown; network?: unknown; disk: boolean };
  },
  context: z.RefinementCtx,
): void {
  const complain = (path: (string | number)[], message: string) =>
    context.addIssue({ code: "custom", path, message });
  if (config.shelf.coordinators.length % 2 === 0)
    complain(["shelf", "coordinators"], "expected an odd number of coordinator disks");
  if (!config.links.serial && !config.links.network)
    complain(["links"], "expected at least one of links.serial and links.network");
  const { coordinators } = config.shelf;
  coordinators.forEach((disk, i) => {
    if (coordinators.indexOf(disk) < i)
      complain(["shelf", "coordinators", i], `disk ${disk} is already used by shelf.coordinators`);
  });
  config.virtualServers.forEach(({ vlan }, i) => {
    if (vlan !== undefined && vlanName(config.data.nic, vlan).length > nicNameMax)
      complain(
        ["virtualServers", i, "vlan"],
        `the name of ${vlanName(config.data.nic, vlan)} is longer than ${nicNameMax} characters: the data NIC needs a shorter one`,
      );
  });
  for (const { server, path, message } of contradictions(coordinators, config.virtualServers))
    complain(["virtualServers", ...(server === -1 ? [] : [server]), ...path], message);
}
