/**
 * The folder of all places of a controller, one folder in it for each virtual server: its volumes are mounted there, and its device file is. Each is a mount of its own
 * that is shared, so that what is mounted in it appears in the namespaces of that virtual server's programs, and of nobody else (enter.c).
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { type MountEntry, mountAt, mountsBelow } from "../mount-table.ts";
import { bindMount, errno, errorName, setPropagation, unbindMount } from "../syscalls.ts";
import { DeviceFolder } from "./devices.ts";

export class PlacesFolder {
  readonly path: string;

  /** `path` need not be there yet. */
  constructor(path: string) {
    this.path = path;
  }

  /** Makes the folder itself: a mount, so that a program can leave all of it at once; private, so that its mounts go nowhere by themselves. */
  prepare(): Outcome {
    return this.#mounted(this.path, "private", 0o700);
  }

  /**
   * Makes the folder of one virtual server, with nothing in its device file but what every program has. Users of its programs get through it to what is
   * mounted there; on the controller nobody gets as far as to it. Fault `ioError`.
   */
  make(name: string): Outcome {
    const made = this.#mounted(join(this.path, name), "shared", 0o711);
    return made.ok ? this.devices(name).prepare() : made;
  }

  /** The device file of one virtual server. */
  devices(name: string): DeviceFolder {
    return new DeviceFolder(join(this.path, name));
  }

  /** What is mounted in the folder of one virtual server beside its device file. Fault `ioError`. */
  volumes(name: string): Outcome<MountEntry[]> {
    const below = mountsBelow(join(this.path, name));
    if (!below.ok) return below;
    const devices = this.devices(name).path;
    return good(below.value.filter(({ path }) => path !== devices));
  }

  /**
   * Removes the folder of one virtual server, with the empty folders in it; not there is a success. Faults: `stillMounted`, `ioError`: something
   * is in it, and nothing of that is touched.
   */
  remove(name: string): Outcome {
    const path = join(this.path, name);
    const operation = `remove place ${path}`;
    const volumes = this.volumes(name);
    if (!volumes.ok) return volumes;
    const [first] = volumes.value;
    if (first)
      return failed("stillMounted", operation, `${first.source} is mounted at ${first.path}`);
    try {
      if (!existsSync(path)) return done;
      const undone = this.devices(name).end();
      if (!undone.ok) return undone;
      // Its own mount, on itself: the file system beneath it is that of the run directory.
      for (const each of readdirSync(path)) rmdirSync(join(path, each));
      const unbound = unbindMount(path);
      if (unbound < 0 && unbound !== -errno.EINVAL)
        return failed("ioError", operation, errorName(unbound));
      rmdirSync(path);
    } catch (error) {
      return failed("ioError", operation, "not removed", error);
    }
    return done;
  }

  /** Removes a folder in one of them where there is one that is empty, as that of a volume that is no more. */
  removeEmpty(path: string): void {
    try {
      rmdirSync(join(this.path, path));
    } catch {
      // It goes with the place; until then it is in nobody's way.
    }
  }

  #mounted(path: string, propagation: "private" | "shared", mode: number): Outcome {
    const operation = `place ${path}`;
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      // Also one of an earlier release, whatever the mask of this process.
      chmodSync(path, mode);
    } catch (error) {
      return failed("ioError", operation, "not made", error);
    }
    const found = mountAt(path);
    if (!found.ok) return found;
    if (!found.value) {
      const bound = bindMount(path, path);
      if (bound < 0) return failed("ioError", operation, `not bound: ${errorName(bound)}`);
    }
    const set = setPropagation(path, propagation);
    return set < 0 ? failed("ioError", operation, `not ${propagation}: ${errorName(set)}`) : done;
  }
}
