/**
 * What a virtual server offers by SMB, as the administrator says it, and the rules that no single key can break. Users are named here, with the
 * numbers that their files belong to, so that both controllers know them alike; their passwords lie on the volume and move with it.
 */
import { z } from "zod";

/** Sections of smb.conf(5) with a meaning of their own, and the share that every server has. */
const reservedShares = new Set(["global", "homes", "printers", "print$", "ipc$"]);

/** A name that needs no quoting anywhere: in smb.conf(5), in a path of a client, in a log. */
export const shareName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,30}\$?$/,
    "expected a share name: 1 to 32 letters, digits, dots, dashes, underscores, and $ at the end if it is to be hidden",
  )
  .refine(
    (name) => !reservedShares.has(name.toLowerCase()),
    "expected a share name that SMB has no other use for",
  );

/** Accounts that smbd itself needs; one of another name may not have their numbers. */
const reservedUsers = new Set(["root", "nobody"]);
const nobodyId = 65534;
const ownerId = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1)
  .refine((id) => id !== nobodyId, `expected another number: ${nobodyId} are the guests`);

const smbUser = z.strictObject({
  name: z
    .string()
    .regex(
      /^[a-z][a-z0-9_.-]{0,30}$/,
      "expected a user name: a lower-case letter, then at most 30 letters, digits, dots, dashes, underscores",
    )
    .refine((name) => !reservedUsers.has(name), "expected a user of whom the system has no need"),
  /** Owner of the user's files; the same person's number in NFS. */
  uid: ownerId,
  /** Their group; absent: a group of the same number. */
  gid: ownerId.optional(),
});

/** So many, with as much of everything else as there may be, have room in a record of the common volume. */
const smbUsersMax = 64;

/** SMB settings of one virtual server. */
export const smbSettings = z.strictObject({
  workgroup: z
    .string()
    .regex(
      /^[A-Z0-9][A-Z0-9-]{0,14}$/,
      "expected a workgroup: 1 to 15 upper-case letters, digits, dashes",
    )
    .default("WORKGROUP"),
  /** Whoever names no known user is let in as `nobody`. */
  guest: z.boolean().default(false),
  users: z.array(smbUser).max(smbUsersMax).default([]),
  /** Whether a write is acknowledged only when it is on the disk; if not, only what a client flushes survives a crash of the controller. */
  writeThrough: z.boolean().default(true),
});
export type SmbSettings = z.output<typeof smbSettings>;

interface Offer {
  readonly name: string;
  readonly smb?: SmbSettings | undefined;
  readonly volumes: readonly {
    readonly export?: string | undefined;
    readonly share?: string | undefined;
  }[];
}

/** A problem and the keys that lead to it, below the virtual server. */
export type OfferProblem = readonly [path: readonly (string | number)[], message: string];

/** What is wrong with how a virtual server offers its volumes. */
export function offerProblems({ name, smb, volumes }: Offer): OfferProblem[] {
  const problems: OfferProblem[] = [];
  const shares = new Set<string>();
  for (const [i, volume] of volumes.entries()) {
    if (volume.export === undefined && volume.share === undefined)
      problems.push([["volumes", i], "expected export or share, or nobody could reach the volume"]);
    if (volume.share === undefined) continue;
    // Clients do not tell apart what differs in its letters' case only.
    const key = volume.share.toLowerCase();
    if (shares.has(key))
      problems.push([["volumes", i, "share"], "is another volume's share already"]);
    shares.add(key);
  }
  if (shares.size > 0 && !smb?.guest && (smb?.users.length ?? 0) === 0)
    problems.push([["smb"], "expected guest = true or users, or nobody could use the shares"]);
  if (smb === undefined) return problems;
  if (shares.size === 0)
    problems.push([["smb"], "expected a volume with a share, or there is nothing to set"]);
  if (smb.workgroup === name.toUpperCase())
    problems.push([["smb", "workgroup"], "expected another name than the virtual server's"]);
  const seen = new Set<string | number>();
  for (const [i, user] of smb.users.entries())
    for (const key of ["name", "uid"] as const) {
      if (seen.has(user[key])) problems.push([["smb", "users", i, key], "is another user's"]);
      seen.add(user[key]);
    }
  return problems;
}
