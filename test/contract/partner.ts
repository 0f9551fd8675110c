/** The partner of a mirror, as a process that is killed and started again at the same place, and the way to it. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { encodeReplicaName } from "../../firmware-ts/wire/nbd/replica-name.ts";
import type { NbdAddress } from "../../hal/block/nbd-server.ts";
import type { RemoteOptions } from "../../hal/block/remote/options.ts";
import { limitsMs } from "../support/limits.ts";
import { askingTls } from "../support/pair-tls.ts";

export class Partner {
  readonly file: string;
  readonly address: NbdAddress;
  #child: ChildProcess | undefined;

  constructor(file: string, address: NbdAddress) {
    this.file = file;
    this.address = address;
  }

  async start(): Promise<void> {
    const where = "path" in this.address ? this.address.path : `${this.address.port}`;
    const script = "test/contract/access-agent.ts";
    const child = spawn(process.execPath, [script, this.file, where], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", () => resolve());
      child.once("exit", (code) => reject(new Error(`the partner ended with ${code}`)));
    });
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  /** A remote device none of whose limits passes unless a test is about it. */
  options(more: Partial<RemoteOptions> = {}): RemoteOptions {
    return {
      address: this.address,
      exportName: (session) => encodeReplicaName({ volume: "home", generation: "g1", session }),
      tls: askingTls,
      timing: {
        ...{ connectTimeoutMs: limitsMs.condition, requestTimeoutMs: limitsMs.condition },
        ...{ backOffMs: 5, backOffMaxMs: 50 },
      },
      ...more,
    };
  }
}
