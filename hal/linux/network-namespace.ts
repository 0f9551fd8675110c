/**
 * Network namespaces (network_namespaces(7)): a virtual server's own interfaces, addresses, routes and sockets. A namespace is held by a
 * bind mount of its file, as ip-netns(8) does it, so that it outlives the process that made it: a firmware that is killed leaves
 * its virtual servers' interfaces to the kernel, behind their gates.
 *
 * Obligations. Only one thread of this process ever enters one, for the length of one synchronous call: sockets and children that are made
 * there belong to it, everything else goes on outside. A thread that cannot get back ends the process.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  bindMount,
  CLONE_NEWNET,
  enterNamespace,
  errno,
  errorName,
  unbindMount,
  unshareNamespace,
} from "./syscalls.ts";

/** Where this thread is. */
const here = "/proc/thread-self/ns/net";

/**
 * ip-sysctl: size of the table of TCP connections that a namespace made from here gets; 0: it shares the table of the machine (since Linux 6.1). That has one row for
 * each 128 KiB of memory, and whoever asks for the connections of one virtual server makes the kernel go through all rows: 0.5 ms of a processor
 * on a machine of 24 GiB, 0.13 with a table of its own, five times a second for each virtual server. What the kernel derives from the table it makes smaller, too
 * (tcp_max_tw_buckets 8192, tcp_max_syn_backlog 128): enough for the clients of a file server.
 */
const tableSetting = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
const tableRows = "16384";

/** Unshares this thread's network; the new one has a table of its own. The setting is left as it was found; one that somebody made holds. */
function unshareWithOwnTable(): number {
  const setting = openSetting();
  if (setting === undefined) return unshareNamespace(CLONE_NEWNET);
  try {
    write(setting, tableRows);
    return unshareNamespace(CLONE_NEWNET);
  } finally {
    // Of the namespace that was left, as long as this descriptor is open.
    write(setting, "0");
    closeSync(setting);
  }
}

/** Undefined when it is not to be had (before Linux 6.1, or where it may not be written), or when somebody has set it: it only saves time. */
function openSetting(): number | undefined {
  try {
    if (readFileSync(tableSetting, "utf8").trim() !== "0") return undefined;
    return openSync(tableSetting, "w");
  } catch {
    return undefined;
  }
}

function write(setting: number, value: string): void {
  try {
    // From its beginning: what is behind that is no setting (sysctl_writes_strict).
    writeSync(setting, value, 0);
  } catch {
    // As above.
  }
}

/** Runs `action` elsewhere: `leave` takes this thread there, with a negative error number when it cannot. */
function elsewhere(leave: () => number, action: () => number): number {
  const home = openSync(here, "r");
  try {
    const left = leave();
    return left < 0 ? left : action();
  } finally {
    // Everything that follows would be done in the wrong network: addresses, gates, the partner's link.
    if (enterNamespace(home, CLONE_NEWNET) < 0) process.abort();
    closeSync(home);
  }
}

export class NetworkNamespace {
  readonly path: string;
  readonly #descriptor: number;

  private constructor(path: string, descriptor: number) {
    this.path = path;
    this.#descriptor = descriptor;
  }

  /** The namespace that is held at `path`; made, and held there, if there is none. Faults: `ioError`. */
  static make(path: string): Outcome<NetworkNamespace> {
    const operation = `network namespace ${path}`;
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      if (!existsSync(path)) writeFileSync(path, "", { mode: 0o600 });
    } catch (error) {
      return failed("ioError", operation, "no place to hold it at", error);
    }
    const found = NetworkNamespace.find(path);
    if (!found.ok) return found;
    if (found.value) return good(found.value);
    const held = elsewhere(unshareWithOwnTable, () => bindMount(here, path));
    if (held < 0) return failed("ioError", operation, errorName(held));
    const made = NetworkNamespace.find(path);
    if (!made.ok) return made;
    return made.value ? good(made.value) : failed("ioError", operation, "made, and not found");
  }

  /** The namespace that is held at `path`; undefined: none is. Faults: `ioError`: nobody knows. */
  static find(path: string): Outcome<NetworkNamespace | undefined> {
    const operation = `network namespace ${path}`;
    let descriptor: number;
    try {
      descriptor = openSync(path, "r");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return good(undefined);
      return failed("ioError", operation, "not opened", error);
    }
    const entered = elsewhere(
      () => enterNamespace(descriptor, CLONE_NEWNET),
      () => 0,
    );
    if (entered >= 0) return good(new NetworkNamespace(path, descriptor));
    closeSync(descriptor);
    // What the kernel does not take for a namespace is an ordinary file.
    if (entered === -errno.EINVAL) return good(undefined);
    return failed("ioError", operation, errorName(entered));
  }

  /** The descriptor that names it to the kernel: an interface is moved there by it. */
  get descriptor(): number {
    return this.#descriptor;
  }

  /** Does something synchronous inside: sockets that are opened there, and processes that are started, belong there. */
  inside<T>(action: () => T): T {
    let result: { readonly value: T } | undefined;
    const entered = elsewhere(
      () => enterNamespace(this.#descriptor, CLONE_NEWNET),
      () => {
        result = { value: action() };
        return 0;
      },
    );
    if (!result) throw new Error(`enter ${this.path}: ${errorName(entered)}`);
    return result.value;
  }

  /** It stays held. */
  close(): void {
    closeSync(this.#descriptor);
  }

  /** Lets go of it: it ends with the last process and socket in it, and its interfaces with it. After a fault it is still held, and open. */
  remove(): Outcome {
    const released = unbindMount(this.path);
    if (released < 0 && released !== -errno.EINVAL)
      return failed("ioError", `remove network namespace ${this.path}`, errorName(released));
    this.close();
    rmSync(this.path, { force: true });
    return done;
  }
}
