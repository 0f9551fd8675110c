/** Loop devices belong to the whole machine, not to a namespace: they are told apart by the path of their file. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { limitMs, run, waitFor } from "./exec.ts";

export interface LoopDevice {
  readonly device: string;
  /** Path of the file behind it, as its own mount namespace names it while that exists. */
  readonly backing: string;
}

/** All loop devices in use. */
export function listLoops(): LoopDevice[] {
  return readdirSync("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .flatMap((name) => {
      try {
        const backing = readFileSync(join("/sys/block", name, "loop/backing_file"), "utf8").trim();
        return [{ device: `/dev/${name}`, backing }];
      } catch {
        return [];
      }
    });
}

export function loopsBelow(directory: string): LoopDevice[] {
  return listLoops().filter((each) => each.backing.startsWith(`${directory}/`));
}

/**
 * Whether a device is still the one that was recorded *before* its mount namespace went: afterwards the path of the file has lost its
 * beginning, and of a file that was a mount of its own, as FUSE makes it, nothing is left but the root.
 */
export function isSameLoop(was: LoopDevice, now: LoopDevice): boolean {
  return was.device === now.device && (now.backing === "/" || was.backing.endsWith(now.backing));
}

/** Detaches devices, whether their mount namespaces are there or not; settles when the kernel has let go of them. */
export async function detachLoops(devices: readonly LoopDevice[]): Promise<void> {
  const left = () => listLoops().filter((now) => devices.some((was) => isSameLoop(was, now)));
  await waitFor(
    "detach loop devices",
    async () => {
      const devicesLeft = left();
      if (devicesLeft.length === 0) return true;
      await Promise.allSettled(devicesLeft.map((each) => run("losetup", ["-d", each.device])));
      return left().length === 0;
    },
    { deadlineMs: limitMs, intervalMs: 5 },
  );
}
