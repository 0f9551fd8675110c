/**
 * The one model of state that API, CLI, MQTT, panel and live view show. It is made by the daemon from the decisions'
 * state; nothing in it is measured anew by those who show it.
 */
import { z } from "zod";
import { modes } from "./beat.ts";
import { controllerIdSchema, linkNameSchema } from "./ids.ts";

/** A link's light: on time, overdue, dead (see core/links). */
export const linkColourSchema = z.enum(["green", "yellow", "red", "absent"]);
export type LinkColour = z.infer<typeof linkColourSchema>;

/** Where a virtual server stands *on this controller*. */
export const virtualServerStateSchema = z.enum([
  "elsewhere", // the partner has it
  "nowhere", // nobody known has it
  "stopped", // as wanted
  "starting",
  "serving",
  "silent", // all is here, but the addresses are closed until it is proved again that this controller alone may answer
  "stopping",
  "failed",
]);

/** Severity of the whole: what the front panel's light shows. */
export const healthSchema = z.enum(["ok", "degraded", "takenOver", "notServing"]);

/** A reason why a takeover, giveback or transfer may not happen now. A soft one yields to `force`. */
export const vetoSchema = z.object({
  code: z.string(),
  severity: z.enum(["hard", "soft"]),
  message: z.string(),
});
export type Veto = z.infer<typeof vetoSchema>;

export const diskStatusSchema = z.object({
  serial: z.string(),
  role: z.enum(["coordinator", "data"]),
  /** The virtual server whose volume it is. */
  virtualServer: z.string().optional(),
  /** As last read from the disk: who holds it. */
  owner: z.enum(["a", "b", "none", "unknown"]),
  epoch: z.number().int().optional(),
  path: z.enum(["up", "down", "unknown"]),
});

/** What a virtual server may take here (`[virtual_servers.limits]`); absent: no limit. */
const limitsStatusSchema = z.object({
  cpuWeight: z.number().int(),
  cpuPercent: z.number().int().optional(),
  memoryMb: z.number().int().optional(),
  processes: z.number().int(),
  bandwidthMbit: z.number().int().optional(),
});

/** What its programs use and have used on this controller, read every few seconds; what the kernel does not tell is absent. */
const usageStatusSchema = z.object({
  cpuSeconds: z.number().optional(),
  /** Time in which its programs had to wait because of `cpuPercent`. */
  throttledSeconds: z.number().optional(),
  memoryMb: z.number().optional(),
  processes: z.number().int().optional(),
  /** Processes killed because of `memoryMb`. */
  oomKills: z.number().int().optional(),
  /** Processes and threads not made because of `processes`. */
  forksRefused: z.number().int().optional(),
});
export type UsageStatus = z.infer<typeof usageStatusSchema>;

export const virtualServerStatusSchema = z.object({
  name: z.string(),
  home: controllerIdSchema,
  /** Who owns it, as far as this controller knows. */
  owner: z.enum(["a", "b", "none"]),
  state: virtualServerStateSchema,
  /** The step under way, or where it failed: attach, mount, state, export, address. `queued`: as it is, until its turn to be moved comes. */
  step: z.string().optional(),
  addresses: z.array(z.string()),
  /** What clients mount by NFS. */
  exports: z.array(z.string()),
  /** What they find by SMB; absent: nothing. */
  shares: z.array(z.string()).optional(),
  limits: limitsStatusSchema.optional(),
  usage: usageStatusSchema.optional(),
  /** Duration of the last start on this controller, from decision to open address, ms. */
  lastStartMs: z.number().optional(),
  /** Failures here since it last served for a minute; absent: none. After more than three it moves to the partner. */
  failures: z.number().int().optional(),
  fault: z.string().optional(),
});

export const statusSchema = z.object({
  version: z.literal(1),
  controller: controllerIdSchema,
  mode: z.enum(modes),
  epoch: z.number().int(),
  health: healthSchema,
  /** One sentence for an operator: how things stand, and what to do about it (as zpool's status and action). */
  statusText: z.string(),
  actionText: z.string(),
  uptimeMs: z.number(),
  partner: z.object({
    heard: z.boolean(),
    mode: z.enum(modes).optional(),
    epoch: z.number().int().optional(),
    dataLinkDown: z.boolean().optional(),
  }),
  dataLinkUp: z.boolean(),
  links: z.array(
    z.object({
      name: linkNameSchema,
      colour: linkColourSchema,
      silentMs: z.number().optional(),
      malformed: z.number().int(),
    }),
  ),
  disks: z.array(diskStatusSchema),
  virtualServers: z.array(virtualServerStatusSchema),
  takeover: z
    .object({ possible: z.boolean(), vetoes: z.array(vetoSchema) })
    .describe("whether this controller could take its partner's virtual servers now, planned"),
  giveback: z.object({ possible: z.boolean(), vetoes: z.array(vetoSchema) }),
  /** Frames refused, by reason (mac, short, replay, …). */
  refusedFrames: z.record(z.string(), z.number().int()),
});
export type Status = z.infer<typeof statusSchema>;

/** One line of `dyad events`, of the SSE stream and of the MQTT event topic. */
export const eventSchema = z.object({
  sequence: z.number().int(),
  /** Wall-clock time, ISO 8601. */
  at: z.string(),
  controller: controllerIdSchema,
  severity: z.enum(["info", "warning", "error"]),
  /** Stable, dotted: "takeover.begin", "link.red", "vserver.serving". */
  code: z.string(),
  message: z.string(),
  detail: z.record(z.string(), z.unknown()).optional(),
});
export type OperatorEvent = z.infer<typeof eventSchema>;

/** `POST /v1/takeover`, `/v1/giveback`, `/v1/vservers/{name}/transfer`. */
export const commandRequestSchema = z.strictObject({
  dryRun: z.boolean().default(false),
  /** Overrides soft vetoes; recorded with the reason. */
  force: z.boolean().default(false),
  reason: z.string().max(200).default(""),
  /** Who asks, as the client says it: for the record of forced commands. The socket itself admits only root. */
  by: z.string().max(64).optional(),
});
export type CommandRequest = z.infer<typeof commandRequestSchema>;

export const commandAnswerSchema = z.object({
  accepted: z.boolean(),
  vetoes: z.array(vetoSchema),
  /** What would be done, or is being done, in order. */
  plan: z.array(
    z.object({ virtualServer: z.string(), action: z.string(), predictedMs: z.number() }),
  ),
});
export type CommandAnswer = z.infer<typeof commandAnswerSchema>;

/** Buttons of the front panel. */
export const panelButtonSchema = z.enum(["up", "down", "ok", "back"]);
export type PanelButton = z.infer<typeof panelButtonSchema>;

/** What the front panel shows: two lines of 20 characters and four lights. */
export const panelViewSchema = z.object({
  lines: z.tuple([z.string().length(20), z.string().length(20)]),
  lights: z.object({
    power: z.enum(["off", "green", "amber"]),
    health: z.enum(["off", "green", "amber", "red", "blinkRed"]),
    partner: z.enum(["off", "green", "amber", "red"]),
    activity: z.enum(["off", "green", "blinkGreen"]),
  }),
});
export type PanelView = z.infer<typeof panelViewSchema>;
