/** Whether the kernel has let go of a block device. */
import { constants, open } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { errno, errnoOf } from "./syscalls.ts";

/** Between two looks. */
const lookAgainMs = 2;

/** A device that no longer exists is held by nobody. */
const isGone: readonly number[] = [errno.ENOENT, errno.ENXIO, errno.ENODEV];

/**
 * An exclusive open succeeds only when no file system has claimed the block device, in whatever namespace. Looked at again for up to `limitMs`. An
 * open that fails for any other reason shows nothing, and what is not shown is not free (SAFETY releaseOnlyWhenGone).
 */
export async function deviceFree(device: string, limitMs: number): Promise<Outcome> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    const error = await exclusiveOpen(device);
    if (error === undefined || isGone.includes(errnoOf(error))) return done;
    if (performance.now() > endMs) return held(device, error);
    await pause(lookAgainMs);
  }
}

async function exclusiveOpen(device: string): Promise<unknown> {
  try {
    await (await open(device, constants.O_RDONLY | constants.O_EXCL)).close();
    return undefined;
  } catch (error) {
    return error;
  }
}

function held(device: string, error: unknown): Outcome {
  if (errnoOf(error) !== errno.EBUSY)
    return failed("ioError", "abandon", `${device}: nothing shows that it is free`, error);
  const reason = "open files or another mount namespace still hold it";
  return failed("stillMounted", "abandon", `${device} is not free: ${reason}`);
}
