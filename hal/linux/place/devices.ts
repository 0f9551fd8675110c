/**
 * The device file of a virtual server (US 7,200,622, claim 1): what its programs see as /dev (enter.c). It has what every program may use, and the
 * block devices of its own volumes while they are attached, each under the name that it has in the firmware's /dev.
 *
 * A file service needs those: the UUID in its file handles is found by the device node of its volume (docs/design/0010-file-service.md).
 */
import { mkdirSync, readdirSync, rmSync, statSync, symlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { mountAt } from "../mount-table.ts";
import { errno, errorName, makeNode, mountMemory, unbindMount } from "../syscalls.ts";

/** In the folder of a virtual server, where its volumes are, too: no disk is called so (schema/config). */
const folderName = "@dev";

/** Of every program: name, and number of its character device (Documentation/admin-guide/devices.txt, major 1). */
const common = { null: 3, zero: 5, full: 7, random: 8, urandom: 9 } as const;
const commonMajor = 1;
const links = {
  fd: "/proc/self/fd",
  stdin: "fd/0",
  stdout: "fd/1",
  stderr: "fd/2",
} as const;

/** <linux/stat.h> */
const characterDevice = 0o020000;
const blockDevice = 0o060000;

export class DeviceFolder {
  readonly path: string;

  /** `place`: the folder of a virtual server. */
  constructor(place: string) {
    this.path = join(place, folderName);
  }

  /** Makes it; what an earlier life left in it goes. Fault `ioError`. */
  prepare(): Outcome {
    const operation = `make ${this.path}`;
    try {
      mkdirSync(this.path, { recursive: true, mode: 0o755 });
      const found = mountAt(this.path);
      if (!found.ok) return found;
      const mounted = found.value ? 0 : mountMemory("dyad-devices", this.path, "size=64k,mode=755");
      if (mounted < 0) return failed("ioError", operation, `not mounted: ${errorName(mounted)}`);
      for (const name of readdirSync(this.path))
        rmSync(join(this.path, name), { recursive: true, force: true });
      mkdirSync(join(this.path, "shm"));
      for (const [name, target] of Object.entries(links))
        symlinkSync(target, join(this.path, name));
    } catch (error) {
      return failed("ioError", operation, "not made", error);
    }
    for (const [name, minor] of Object.entries(common)) {
      const made = makeNode(join(this.path, name), characterDevice | 0o666, commonMajor, minor);
      if (made < 0) return failed("ioError", operation, `${name}: ${errorName(made)}`);
    }
    return done;
  }

  /** Adds the node of a block device; one that is there already is a success. Fault `ioError`. */
  add(device: string): Outcome {
    const operation = `add ${device} to ${this.path}`;
    let number: number;
    try {
      number = statSync(device).rdev;
    } catch (error) {
      return failed("ioError", operation, "not there", error);
    }
    this.remove(device);
    const made = makeNode(this.#nodeOf(device), blockDevice | 0o600, major(number), minor(number));
    if (made >= 0 || made === -errno.EEXIST) return done;
    return failed("ioError", operation, errorName(made));
  }

  /** Takes it away; one that is not there is a success. */
  remove(device: string): void {
    rmSync(this.#nodeOf(device), { force: true });
  }

  /** Unmounts it; one that is not there is a success. Fault `ioError`: a program has something of it open. */
  end(): Outcome {
    const found = mountAt(this.path);
    if (!found.ok) return found;
    const undone = found.value ? unbindMount(this.path) : 0;
    return undone < 0 ? failed("ioError", `remove ${this.path}`, errorName(undone)) : done;
  }

  #nodeOf(device: string): string {
    return join(this.path, basename(device));
  }
}

/** gnu_dev_major and gnu_dev_minor of <sys/sysmacros.h>, as far as 32 bits go: the kernel's own numbers have no more. */
export const major = (number: number): number => (number >>> 8) & 0xfff;
export const minor = (number: number): number => (number & 0xff) | ((number >>> 12) & 0xfff00);
