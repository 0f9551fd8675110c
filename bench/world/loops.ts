/** Loop devices belong to the whole machine, not to a namespace: they are told apart by the path of their file. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { run, waitFor } from "./exec.ts";

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
 * Detaches devices listed *before* their mount namespace went: afterwards the path of the file has lost its beginning, so
 * a device is taken for the same one when its path now is the end of the one recorded.
 */
export async function detachLoops(devices: readonly LoopDevice[]): Promise<void> {
  const left = () =>
    listLoops().filter((now) =>
      devices.some((was) => was.device === now.device && was.backing.endsWith(now.backing)),
    );
  await waitFor(
    "detach loop devices",
    async () => {
      const devicesLeft = left();
      if (devicesLeft.length === 0) return true;
      await Promise.allSettled(devicesLeft.map((each) => run("losetup", ["-d", each.device])));
      return left().length === 0;
    },
    { deadlineMs: 10_000, intervalMs: 5 },
  );
}
