/** The serial cable between the controllers; see hal/bench/serial-relay.ts. */
import { join } from "node:path";
import { z } from "zod";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Cgroup } from "./cgroup.ts";
import { BenchError } from "./error.ts";
import { limitMs, waitFor } from "./exec.ts";
import { realTimeNode } from "./firmware.ts";
import { type Layout, repoDir } from "./layout.ts";
import { planPaths } from "./plan.ts";
import type { Processes, Started } from "./processes.ts";

export type SerialMode = "pass" | "cut" | "corrupt" | "babble";

/** What the relay says after each command. */
const stateSchema = z.object({
  mode: z.enum(["pass", "cut", "corrupt", "babble"]),
  carried: z.number(),
  dropped: z.number(),
  overruns: z.number(),
});
export type CableState = z.infer<typeof stateSchema>;

export class SerialCable {
  readonly #process: Started;
  readonly #states: CableState[] = [];
  #asked = 0;

  private constructor(layout: Layout, processes: Processes, cgroup: Cgroup) {
    const { serial } = planPaths(layout);
    this.#process = processes.start({
      role: "serial",
      cgroup,
      // A wire does not wait for a processor: it comes before every process of the controllers (beats have 20).
      argv: realTimeNode(30, join(repoDir, "hal/bench/serial-relay.ts"), serial.a, serial.b),
      input: true,
      onLine: (line) => this.#states.push(stateSchema.parse(JSON.parse(line))),
    });
  }

  static async start(layout: Layout, processes: Processes, cgroup: Cgroup): Promise<SerialCable> {
    const cable = new SerialCable(layout, processes, cgroup);
    cable.#asked = 1;
    await cable.#answer(1);
    return cable;
  }

  /** Settles when the cable is in that state; the answer counts the bytes since its begin. */
  set(mode: SerialMode): Promise<CableState> {
    return this.#ask({ mode });
  }

  /** What the other side sent while this controller was off was heard by nobody. */
  async forget(id: ControllerId): Promise<void> {
    await this.#ask({ forget: id });
  }

  /** Same as `set`, without waiting: for faults whose parts happen together. */
  setNow(mode: SerialMode): void {
    this.#tell({ mode });
  }

  #tell(command: object): number {
    this.#asked += 1;
    this.#process.child.stdin?.write(`${JSON.stringify(command)}\n`);
    return this.#asked;
  }

  #ask(command: object): Promise<CableState> {
    return this.#answer(this.#tell(command));
  }

  /** Every line is the answer to one command, the first that to the start. */
  async #answer(number: number): Promise<CableState> {
    return await waitFor(
      "serial cable",
      () => {
        if (!this.#process.alive())
          throw new BenchError("worldBroken", "serial cable", "its process has ended");
        return this.#states[number - 1];
      },
      { deadlineMs: limitMs, intervalMs: 2 },
    );
  }
}
