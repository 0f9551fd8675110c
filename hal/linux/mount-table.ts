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

/** Entries in the kernel's order: of several on one path, the last covers the others. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    // Any number of optional fields ends with a lone dash.
    const [head = "", tail = ""] = line.split(" - ");
    const [, , device = "", , path, options = ""] = head.split(" ");
    const [type, source, superOptions = ""] = tail.split(" ");
    if (path === undefined || type === undefined || source === undefined) continue;
    entries.push({
      path: unescaped(path),
      source: unescaped(source),
      type,
      device,
      options: options.split(","),
      superOptions: superOptions.split(","),
    });
  }
  return entries;
}

/** Space, tab, newline and backslash are written as octal numbers. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** The mount that is visible at the path, or undefined. Fault `ioError`. */
export function mountAt(path: string): Outcome<MountEntry | undefined> {
  const found = mountsAt([path]);
  return found.ok ? good(found.value.get(path)) : found;
}

/** The mounts that are visible at these paths. Fault `ioError`. */
export function mountsAt(paths: readonly string[]): Outcome<ReadonlyMap<string, MountEntry>> {
  const table = mountTable();
  if (!table.ok) return table;
  return good(
    new Map(
      table.value.filter(({ path }) => paths.includes(path)).map((each) => [each.path, each]),
    ),
  );
}

/** The mounts that are visible at these paths or above one of them. Fault `ioError`. */
export function mountsAbove(paths: readonly string[]): Outcome<MountEntry[]> {
  const table = mountTable();
  if (!table.ok) return table;
  const visible = new Map(table.value.map((entry) => [entry.path, entry]));
  const isAbove = (above: string) => (path: string) =>
    `${path}/`.startsWith(above.endsWith("/") ? above : `${above}/`);
  return good([...visible.values()].filter((entry) => paths.some(isAbove(entry.path))));
}

/** The mounts that are visible below a path. Fault `ioError`. */
export function mountsBelow(path: string): Outcome<MountEntry[]> {
  const table = mountTable();
  if (!table.ok) return table;
  const visible = new Map(table.value.map((entry) => [entry.path, entry]));
  return good([...visible.values()].filter((entry) => entry.path.startsWith(`${path}/`)));
}

/** Everything that is mounted. Fault `ioError`. */
export function mountTable(): Outcome<MountEntry[]> {
  try {
    return good(parseMountTable(readFileSync("/proc/self/mountinfo", "utf8")));
  } catch (error) {
    return failed("ioError", "read mount table", "cannot read /proc/self/mountinfo", error);
  }
}
