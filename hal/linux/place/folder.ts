/**
 * The folder of all places of a controller, one folder in it for each virtual server: its volumes are mounted there, and its device file is. Each is a mount of its own
 * that is shared, so that what is mounted in it appears in the namespaces of that virtual server's programs, and of nobody else (enter.c).
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { mountAt } from "../mount-table.ts";
import { bindMount, errorName, setPropagation } from "../syscalls.ts";
import { DeviceFolder } from "./devices.ts";

export class PlacesFolder {
  readonly path: string;

  /** `path` need not be there yet. */
  constructor(path: string) {
    this.path = path;
  }

  /** Makes the folder itself: a mount, so that a program can leave all of it at once; private, so that its mounts go nowhere by themselves. */
  prepare(): Outcome {
    return this.#mounted(this.path, "private");
  }

  /** Makes the folder of one virtual server, with nothing in its device file but what every program has. Fault `ioError`. */
  make(name: string): Outcome {
    const made = this.#mounted(join(this.path, name), "shared");
    return made.ok ? this.devices(name).prepare() : made;
  }

  /** The device file of one virtual server. */
  devices(name: string): DeviceFolder {
    return new DeviceFolder(join(this.path, name));
  }

  #mounted(path: string, propagation: "private" | "shared"): Outcome {
    const operation = `place ${path}`;
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
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
