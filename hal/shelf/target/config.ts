/** The shelf's configuration: where it listens, which targets it shows, and its disks. */
import { z } from "zod";
import { ShelfError } from "./errors.ts";

export const DISKS_MAX = 256;
export const TARGETS_MAX = 16;
const DISK_BYTES_MAX = 2 ** 44;

const disk = z
  .strictObject({
    /** Unique; the NAA identifier of VPD page 83h is derived from it. */
    serial: z.string().regex(/^[!-~]{1,32}$/, "1 to 32 printable ASCII characters"),
    lun: z.int().min(0).max(255),
    sizeBytes: z.int().min(4096).max(DISK_BYTES_MAX),
    blockBytes: z.union([z.literal(512), z.literal(4096)]).default(512),
    /** The medium; memory when absent. */
    backingFile: z.string().min(1).optional(),
    /**
     * Whether the disk has a volatile write cache, and says so (WCE). Disks of arrays with two controllers are
     * commonly sold and run without: then each write is on stable storage before its status is sent.
     */
    writeCache: z.boolean().default(true),
    /** Where registrations outlive the shelf (APTPL); kept in memory when absent. */
    aptplFile: z.string().min(1).optional(),
  })
  .refine(({ sizeBytes, blockBytes }) => sizeBytes % blockBytes === 0, {
    message: "must be a multiple of blockBytes",
    path: ["sizeBytes"],
  });

const isUnique = (values: readonly unknown[]) => new Set(values).size === values.length;
const iscsiName = z.string().regex(/^iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.:-]{1,200}$/, "an iqn name");

export const shelfConfig = z.strictObject({
  listen: z
    .strictObject({
      host: z.string().min(1).default("127.0.0.1"),
      /** 0 takes a free port. */
      port: z.int().min(0).max(65_535).default(3260),
    })
    .prefault({}),
  /** Each target is one port of the shelf and shows all disks. */
  targets: z
    .array(iscsiName)
    .min(1)
    .max(TARGETS_MAX)
    .refine(isUnique, "names must differ")
    .default(["iqn.2026-11.dyad:shelf"]),
  disks: z
    .array(disk)
    .min(1)
    .max(DISKS_MAX)
    .refine((disks) => isUnique(disks.map(({ serial }) => serial)), "serials must differ")
    .refine((disks) => isUnique(disks.map(({ lun }) => lun)), "luns must differ"),
  /** Unix socket for control commands; see `control.ts`. */
  controlSocket: z.string().min(1).max(107).optional(),
  /** Header and data digests, if the initiator asks for them. */
  digests: z.enum(["refuse", "allow", "require"]).default("allow"),
  initialR2t: z.boolean().default(false),
  immediateData: z.boolean().default(true),
  /** A silent initiator is asked for a sign of life after the first time, and given up after the second. */
  pingAfterMs: z.int().min(50).max(600_000).default(5_000),
  pingTimeoutMs: z.int().min(50).max(600_000).default(10_000),
  loginTimeoutMs: z.int().min(50).max(600_000).default(10_000),
});

/** What a caller writes. */
export type ShelfConfig = z.input<typeof shelfConfig>;
export type ShelfSettings = z.output<typeof shelfConfig>;

/** Checks a configuration. Throws ShelfError that names each wrong field. */
export const parseShelfConfig = (value: unknown): ShelfSettings => {
  const parsed = shelfConfig.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new ShelfError("CONFIG", `shelf configuration:\n${z.prettifyError(parsed.error)}`);
};
