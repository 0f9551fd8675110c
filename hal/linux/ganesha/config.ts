/**
 * What a file service serves, and the nfs-ganesha 4.3 configuration that makes it so (ganesha-config(8), ganesha-core-config(8),
 * ganesha-export-config(8)). Pure.
 *
 * Obligations: nothing a caller passes can end a quoted string or a block in the configuration; both controllers render the same
 * export with the same ids, so that file handles and NFSv4 state survive a move.
 */
import { z } from "zod";

/** Words that may stand inside a quoted string of the configuration: no quote, backslash, dollar, control character. */
const quotable = z
  .string()
  .max(255)
  .regex(/^\/[^"\\$%\p{Cc}]*$/u, "expected an absolute path without quotes or control characters");
const port = z.number().int().min(1).max(65535);

const exportSchema = z.strictObject({
  /**
   * Part of every file handle: the same on both controllers and never reused for another volume. 0 is ganesha's pseudo root.
   */
  id: z.number().int().min(1).max(65535),
  /** Where the volume is mounted here, or a directory in it. */
  path: quotable,
  /** What clients mount, in NFSv3 and NFSv4 alike. */
  pseudo: quotable,
});

export const fileServiceSchema = z.strictObject({
  /** They must be assigned here, behind a closed gate. */
  addresses: z
    .array(z.union([z.ipv4(), z.ipv6()]))
    .min(1)
    .max(8),
  port: port.default(2049),
  mountdPort: port.default(20048),
  exports: z.array(exportSchema).min(1).max(64),
  /** Where NFSv4 client records live: on the volume, so that they move with it. */
  recoveryDir: quotable,
  /** Whether somebody else writes to its volumes, too. */
  sharesWrites: z.boolean().default(false),
  /** An NFSv4 client that is silent for so long may lose its locks. */
  leaseSeconds: z.number().int().min(2).max(180).default(10),
  /** Longest wait of NFSv4 clients for recorded clients that never come back; at least the lease. */
  graceSeconds: z.number().int().min(2).max(270).default(10),
});

/** As a caller writes it: what has a default may be absent. */
export type FileServiceSpec = z.input<typeof fileServiceSchema>;
/** As the driver uses it. */
export type FileService = z.output<typeof fileServiceSchema>;

/**
 * The configuration file. Why each setting that is not ganesha's default stands there is said in
 * docs/design/0010-file-service.md.
 */
export function renderConfiguration(service: FileService): string {
  const [first, ...others] = service.addresses;
  const head = [
    "NFS_Core_Param {",
    "  Protocols = 3, 4;",
    // It binds one or all; all of its place are its own.
    ...(others.length === 0 ? [`  Bind_Addr = ${first};`] : []),
    `  NFS_Port = ${service.port};`,
    `  MNT_Port = ${service.mountdPort};`,
    "  Mount_Path_Pseudo = true;",
    "  Enable_NLM = false;",
    "  Enable_RQUOTA = false;",
    "  Enable_UDP = false;",
    "  Clustered = false;",
    "}",
    "NFSv4 {",
    "  RecoveryBackend = fs;",
    `  RecoveryRoot = "${service.recoveryDir}";`,
    "  RecoveryDir = clients;",
    "  RecoveryOldDir = clients-before;",
    `  Lease_Lifetime = ${service.leaseSeconds};`,
    `  Grace_Period = ${service.graceSeconds};`,
    "  Minor_Versions = 0, 1, 2;",
    "}",
    "NFS_KRB5 { Active_krb5 = false; }",
    "LOG { Components { STATE = EVENT; DBUS = NULL; NFS_CB = NULL; } }",
  ];
  return `${[...head, ...service.exports.map(renderExport)].join("\n")}\n`;
}

function renderExport(each: FileService["exports"][number]): string {
  return [
    "EXPORT {",
    `  Export_Id = ${each.id};`,
    `  Path = "${each.path}";`,
    `  Pseudo = "${each.pseudo}";`,
    `  Filesystem_Id = ${each.id}.${each.id};`,
    "  Access_Type = RW;",
    "  Squash = None;",
    "  SecType = sys;",
    "  FSAL { Name = VFS; }",
    "}",
  ].join("\n");
}
