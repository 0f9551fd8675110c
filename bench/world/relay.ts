/** The serial cable between the controllers; see hal/bench/serial-relay.ts. */
import { join } from "node:path";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Cgroup } from "./cgroup.ts";
import { BenchError } from "./error.ts";
import { waitFor } from "./exec.ts";
import { type Layout, repoDir } from "./layout.ts";
import { planPaths } from "./plan.ts";
import type { Processes, Started } from "./processes.ts";

export type SerialMode = "pass" | "cut" | "corrupt" | "babble";

export class SerialCable {
  readonly #process: Started;
  #answers: number;

  private constructor(process: Started, counter: { lines: number }) {
    this.#process = process;
    this.#answers = counter.lines;
    this.#counter = counter;
  }

  readonly #counter: { lines: number };

  static async start(layout: Layout, processes: Processes, cgroup: Cgroup): Promise<SerialCable> {
    const { serial } = planPaths(layout);
    const counter = { lines: 0 };
    const process_ = processes.start({
      role: "serial",
      cgroup,
      // A wire does not wait for a processor: it comes before every process of the controllers.
      argv: [
        "chrt",
        "-f",
        "60",
        process.execPath,
        join(repoDir, "hal/bench/serial-relay.ts"),
        serial.a,
        serial.b,
      ],
      input: true,
      onLine: () => {
        counter.lines += 1;
      },
    });
    await waitFor(
      "serial cable",
      () => {
        if (process_.alive()) return counter.lines > 0;
        throw new BenchError("worldBroken", "serial cable", `see ${processes.logPath("serial")}`);
      },
      { deadlineMs: 10_000, intervalMs: 5 },
    );
    return new SerialCable(process_, counter);
  }

  /** Settles when the cable is in that state. */
  set(mode: SerialMode): Promise<void> {
    return this.#ask({ mode });
  }

  /** What the other side sent while this controller was off was heard by nobody. */
  forget(id: ControllerId): Promise<void> {
    return this.#ask({ forget: id });
  }

  /** Same as `set`, without waiting: for faults whose parts happen together. */
  setNow(mode: SerialMode): void {
    this.#answers += 1;
    this.#process.child.stdin?.write(`${JSON.stringify({ mode })}\n`);
  }

  async #ask(command: object): Promise<void> {
    this.#answers += 1;
    const wanted = this.#answers;
    this.#process.child.stdin?.write(`${JSON.stringify(command)}\n`);
    await waitFor("serial cable", () => this.#counter.lines >= wanted, {
      deadlineMs: 5000,
      intervalMs: 1,
    });
  }
}
