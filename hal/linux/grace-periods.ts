/**
 * RCU grace periods of the kernel. Whoever freezes or unmounts a file system, removes an address or changes the packet filter waits for
 * one or several; on a quiet machine each takes 10 ms and more, because the kernel batches them to save interrupts. Expedited ones take
 * a tenth of a millisecond on the few processors of a controller (kernel-parameters: rcupdate.rcu_expedited, also found in
 * /sys/kernel). Sealing a file system takes 2 ms instead of 45.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** Of the whole machine, not of a namespace. */
export const expeditedPath = "/sys/kernel/rcu_expedited";

/** From now on every grace period of this machine is expedited. Fault `refused`: everything works, planned moves take longer. */
export function expediteGracePeriods(path: string = expeditedPath): Outcome {
  try {
    if (readFileSync(path, "utf8").trim() !== "1") writeFileSync(path, "1");
    return done;
  } catch (error) {
    return failed("refused", "expedite grace periods", path, error);
  }
}
