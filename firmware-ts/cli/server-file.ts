/** Where a virtual server is described for `create` and `modify`: in a file, or on the command line. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { VirtualServerInput } from "../schema/config.ts";
import { CliError, exitCodes } from "./exit.ts";

/** Reads a description from a file, `-` from standard input. */
export async function readServerFile(path: string): Promise<VirtualServerInput> {
  const { parseServerBytes, serverBytesMax } = await import("../schema/server-text.ts");
  const bytes = await readAtMost(path, serverBytesMax + 1);
  const parsed = parseServerBytes(bytes, path === "-" ? "standard input" : path);
  if (parsed.ok) return parsed.value;
  throw new CliError(exitCodes.failure, "badFile", parsed.fault.message);
}

async function readAtMost(path: string, bytesMax: number): Promise<Uint8Array> {
  try {
    // Without O_NONBLOCK the opening of a named pipe would wait for a writer.
    const file = await open(
      path === "-" ? "/dev/stdin" : path,
      constants.O_RDONLY | (path === "-" ? 0 : constants.O_NONBLOCK),
    );
    try {
      const buffer = new Uint8Array(bytesMax);
      let length = 0;
      while (length < bytesMax) {
        const { bytesRead } = await file.read(buffer, length, bytesMax - length, null);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      return buffer.subarray(0, length);
    } finally {
      await file.close();
    }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new CliError(exitCodes.failure, "badFile", `${path}: cannot be read: ${message}`);
  }
}

type Volume = VirtualServerInput["volumes"][number];
type SmbUser = NonNullable<VirtualServerInput["smb"]>["users"][number];

/** Volumes by `DISK=EXPORT` and `DISK=SHARE`; what both name is one volume. */
export function volumesOf(exports: readonly string[], shares: readonly string[]): Volume[] {
  const volumes: Volume[] = exports.map((word) => {
    const [disk, path] = halvesOf(word, "DISK=EXPORT, as in data-3=/gamma");
    return { disk, export: path };
  });
  for (const word of shares) {
    const [disk, share] = halvesOf(word, "DISK=SHARE, as in data-3=Projects");
    const at = volumes.findIndex((each) => each.disk === disk && each.share === undefined);
    const known = volumes[at];
    if (known) volumes[at] = { ...known, share };
    else volumes.push({ disk, share });
  }
  return volumes;
}

function halvesOf(word: string, expected: string): [string, string] {
  const [first = "", second] = word.split(/=(.*)/s);
  if (second === undefined) usage(`expected ${expected}; found ${word}`);
  return [first, second];
}

/** `NAME=UID`, or `NAME=UID:GID`. */
export function userOf(word: string): SmbUser {
  const found = /^([^=]+)=(\d{1,10})(?::(\d{1,10}))?$/.exec(word);
  if (!found) usage(`expected NAME=UID or NAME=UID:GID, as in anna=1001:100; found ${word}`);
  const [, name = "", uid, gid] = found;
  return { name, uid: Number(uid), ...(gid === undefined ? {} : { gid: Number(gid) }) };
}

/** `DESTINATION [via GATEWAY] [table NUMBER]`, as in ip-route(8). */
export function routeOf(text: string): VirtualServerInput["routes"][number] {
  const found = /^(\S+)(?: via (\S+))?(?: table (\d{1,9}))?$/.exec(text.trim());
  if (!found) usage(`expected DESTINATION [via GATEWAY] [table NUMBER]; found ${text}`);
  const [, to = "", via, table] = found;
  return {
    to,
    ...(via === undefined ? {} : { via }),
    ...(table === undefined ? {} : { table: Number(table) }),
  };
}

/** `PREFIX table NUMBER`, as in ip-rule(8). */
export function ruleOf(text: string): VirtualServerInput["rules"][number] {
  const found = /^(?:from )?(\S+) table (\d{1,9})$/.exec(text.trim());
  if (!found) usage(`expected PREFIX table NUMBER, as in 10.0.0.0/24 table 7; found ${text}`);
  return { from: found[1] ?? "", table: Number(found[2]) };
}

function usage(message: string): never {
  throw new CliError(exitCodes.usage, "usage", message);
}
