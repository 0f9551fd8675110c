/** What is mounted where, from /proc/self/mountinfo (proc(5)): the kernel's word, for the caller's mount namespace. */
import { readFileSync } from "node:fs";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

export interface MountEntry {
  readonly path: string;
  readonly source: string;
  readonly type: string;
  /** Major and minor number of the device, as in `7:1`. */
  readonly device: string;
  /** Of the mount, and of the file system itself. */
  readonly options: readonly string[];
  readonly superOptions: readonly string[];
}

/**
 * Entries in the kernel's order: of several on one path, the last covers the others. Only those whose path is wanted are made: a controller with many virtual
 * servers has hundreds, and looks at one of them many times in a takeover.
 */
export function parseMountTable(
  text: string,
  isWanted: (path: string) => boolean = () => true,
): MountEntry[] {
  const entries: MountEntry[] = [];
  for (let from = 0; from < text.length; ) {
    const newline = text.indexOf("\n", from);
    const end = newline < 0 ? text.length : newline;
    const path = pathIn(text, from, end);
    const entry =
      path !== undefined && isWanted(path) ? parseEntry(text.slice(from, end), path) : undefined;
    if (entry) entries.push(entry);
    from = end + 1;
  }
  return entries;
}

/** The fifth of the fields, which one space each separates. */
function pathIn(text: string, from: number, end: number): string | undefined {
  let at = from;
  for (let field = 0; field < 4; field += 1) {
    at = text.indexOf(" ", at) + 1;
    if (at === 0 || at > end) return undefined;
  }
  const space = text.indexOf(" ", at);
  return space < 0 || space > end ? undefined : unescaped(text.slice(at, space));
}

function parseEntry(line: string, path: string): MountEntry | undefined {
  // Any number of optional fields ends with a lone dash.
  const [head = "", tail = ""] = line.split(" - ");
  const [, , device = "", , , options = ""] = head.split(" ");
  const [type, source, superOptions = ""] = tail.split(" ");
  if (type === undefined || source === undefined) return undefined;
  return {
    path,
    source: unescaped(source),
    type,
    device,
    options: options.split(","),
    superOptions: superOptions.split(","),
  };
}

/** Space, tab, newline and backslash are written as octal numbers. */
function unescaped(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** The mount that is visible at the path, or undefined. Fault `ioError`. */
export function mountAt(path: string): Outcome<MountEntry | undefined> {
  const found = mountsAt(new Set([path]));
  return found.ok ? good(found.value.get(path)) : found;
}

type Paths = Pick<ReadonlySet<string>, "has">;

/** The mounts that are visible at these paths. Fault `ioError`. */
export function mountsAt(paths: Paths): Outcome<ReadonlyMap<string, MountEntry>> {
  return visible((path) => paths.has(path));
}

/** The mounts that are visible below a path. Fault `ioError`. */
export function mountsBelow(path: string): Outcome<MountEntry[]> {
  const found = visible((below) => below.startsWith(`${path}/`));
  return found.ok ? good([...found.value.values()]) : found;
}

function visible(isWanted: (path: string) => boolean): Outcome<ReadonlyMap<string, MountEntry>> {
  try {
    const entries = parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"), isWanted);
    return good(new Map(entries.map((each) => [each.path, each])));
  } catch (error) {
    return failed("ioError", "read mount table", "cannot read /proc/self/mountinfo", error);
  }
}
