/**
 * The folder of all places of a controller, one folder in it for each virtual server: its volumes are mounted there. Each is a mount of its own
 * that is shared, so that what is mounted in it appears in the namespaces of that virtual server's programs, and of nobody else (enter.c).
 */
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { mountAt } from "../mount-table.ts";
import { bindMount, errorName, setPropagation } from "../syscalls.ts";

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
   * Makes the folder of one virtual server. Users of its programs get through it to what is mounted there; on the controller nobody gets as
   * far as to it. Idempotent. Fault `ioError`.
   */
  make(name: string): Outcome {
    return this.#mounted(join(this.path, name), "shared", 0o711);
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
