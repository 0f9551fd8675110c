/**
 * What an SMB service serves, and the configuration of smbd (smb.conf(5), Samba 4.17) that makes it so, with the accounts that it knows. Pure.
 *
 * Obligations: nothing a caller passes can end a line, begin a section, continue on the next line or be taken for a macro; both controllers render
 * the same, so that the server is the same to its clients wherever it is.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { shareName } from "../../../firmware-ts/schema/config-smb.ts";

/** Words that mean nothing but themselves in smb.conf(5): no macro, no quote, no backslash, no control character, no blank at an end. */
const verbatim = z
  .string()
  .max(255)
  .regex(
    /^\/(?:[^"\\%\p{Cc}]*[^"\\%\p{Cc}\s])?$/u,
    "expected an absolute path of plain characters",
  );
const userName = z.string().regex(/^[a-z][a-z0-9_.-]{0,30}$/);
const id = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1);

const shareSchema = z.strictObject({
  name: shareName,
  /** As smbd sees it. */
  path: verbatim,
  /** Whether NFS clients work in it too. */
  shared: z.boolean(),
});

export const smbServiceSchema = z.strictObject({
  /** Of the virtual server. */
  name: z.string().regex(/^[a-z0-9-]{1,15}$/),
  workgroup: z.string().regex(/^[A-Z0-9][A-Z0-9-]{0,14}$/),
  addresses: z
    .array(z.union([z.ipv4(), z.ipv6()]))
    .min(1)
    .max(8),
  port: z.number().int().min(1).max(65535).default(445),
  guest: z.boolean(),
  users: z.array(z.strictObject({ name: userName, uid: id, gid: id })).max(256),
  writeThrough: z.boolean(),
  shares: z.array(shareSchema).min(1).max(8),
  /** Where the passwords are, as smbd sees it: on the volume, so that they move with it. */
  passwordFile: verbatim,
});

/** As a caller writes it: what has a default may be absent. */
export type SmbServiceSpec = z.input<typeof smbServiceSchema>;
/** As the driver uses it. */
export type SmbService = z.output<typeof smbServiceSchema>;

/** Folders of one smbd, all below `folder`; nothing in them outlives it. */
export const foldersOf = (folder: string) =>
  ({
    private: `${folder}/private`,
    state: `${folder}/state`,
    lock: `${folder}/lock`,
    cache: `${folder}/cache`,
    pid: `${folder}/pid`,
    ncalrpc: `${folder}/ncalrpc`,
  }) as const;

const yesNo = (on: boolean) => (on ? "yes" : "no");

/** More clients of one server than this are sent away: each is a process. */
const clientsMax = 512;

/** The configuration file. Why each setting that is not Samba's default stands there is said in docs/design/0029-samba.md. */
export function renderConfiguration(service: SmbService, folder: string): string {
  const at = foldersOf(verbatim.parse(folder));
  const head = [
    "[global]",
    "  server role = standalone server",
    `  netbios name = ${service.name.toUpperCase()}`,
    `  workgroup = ${service.workgroup}`,
    `  server string = ${service.name}`,
    "  disable netbios = yes",
    `  smb ports = ${service.port}`,
    "  server min protocol = SMB2_10",
    "  server multi channel support = no",
    "  multicast dns register = no",
    "  name resolve order = host",
    "  host msdfs = no",
    "  load printers = no",
    "  printing = bsd",
    "  printcap name = /dev/null",
    "  disable spoolss = yes",
    "  usershare max shares = 0",
    `  max smbd processes = ${clientsMax}`,
    "  socket options = TCP_NODELAY SO_KEEPALIVE TCP_KEEPIDLE=60 TCP_KEEPINTVL=10 TCP_KEEPCNT=3",
    `  map to guest = ${service.guest ? "Bad User" : "Never"}`,
    `  restrict anonymous = ${service.guest ? 0 : 2}`,
    "  guest account = nobody",
    `  passdb backend = smbpasswd:${service.passwordFile}`,
    `  private dir = ${at.private}`,
    `  state directory = ${at.state}`,
    `  lock directory = ${at.lock}`,
    `  cache directory = ${at.cache}`,
    `  pid directory = ${at.pid}`,
    `  ncalrpc dir = ${at.ncalrpc}`,
    "  log level = 0",
    "  use sendfile = no",
    "  strict sync = yes",
    `  sync always = ${yesNo(service.writeThrough)}`,
    "  follow symlinks = no",
    "  wide links = no",
    "  veto files = /.dyad/",
    "  kernel oplocks = no",
    "  kernel share modes = no",
  ];
  const shares = service.shares.map((share) => renderShare(share, service.guest));
  return `${[...head, ...shares].join("\n")}\n`;
}

/** What only SMB clients see may be lent to them, and its locks need not be the kernel's; what others see too, not. */
function renderShare({ name, path, shared }: SmbService["shares"][number], guest: boolean): string {
  return [
    `[${name}]`,
    `  path = ${path}`,
    "  read only = no",
    `  guest ok = ${yesNo(guest)}`,
    `  oplocks = ${yesNo(!shared)}`,
    `  level2 oplocks = ${yesNo(!shared)}`,
    `  posix locking = ${yesNo(shared)}`,
    `  durable handles = ${yesNo(!shared)}`,
  ].join("\n");
}

/** passwd(5) as smbd sees it: root and the guests, whom it needs, and the users. */
export function renderPasswd({ users }: SmbService): string {
  const lines = [
    "root:x:0:0:root:/:/usr/sbin/nologin",
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin",
    ...users.map((user) => `${user.name}:x:${user.uid}:${user.gid}::/:/usr/sbin/nologin`),
  ];
  return `${lines.join("\n")}\n`;
}

/** group(5): a name for every number, since smbd does not take a number alone. */
export function renderGroup({ users }: SmbService): string {
  const lines = [
    "root:x:0:",
    "nogroup:x:65534:",
    ...[...new Set(users.map(({ gid }) => gid))].map((gid) => `gid${gid}:x:${gid}:`),
  ];
  return `${lines.join("\n")}\n`;
}

/** The security identifier of the server ([MS-DTYP] 2.4.2): of its name and its passwords' place, the same on both controllers and for ever. */
export function machineSid({ name: server, passwordFile }: SmbService): string {
  const hash = createHash("sha256").update(`dyad smb\0${server}\0${passwordFile}`).digest();
  return `S-1-5-21-${[0, 4, 8].map((at) => hash.readUInt32BE(at)).join("-")}`;
}
