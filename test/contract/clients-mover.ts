/** One file server on one volume at one address, which moves between the nodes of a laboratory. */
import { join } from "node:path";
import { expect } from "vitest";
import type { FileServiceSpec } from "../../hal/linux/ganesha/config.ts";
import type { GaneshaState } from "../../hal/linux/ganesha.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import type { Lab, LabNode } from "./clients-lab.ts";

export const address = "10.9.0.1";

export class Mover {
  readonly mountPoint: string;
  readonly image: string;
  readonly #lab: Lab;
  readonly #times: Pick<FileServiceSpec, "leaseSeconds" | "graceSeconds">;

  constructor(lab: Lab, times: Pick<FileServiceSpec, "leaseSeconds" | "graceSeconds"> = {}) {
    this.#lab = lab;
    this.#times = times;
    this.image = lab.makeVolume("v1");
    this.mountPoint = join(lab.directory, "v1");
  }

  mount(node: LabNode): void {
    node.run("mount", "-o", "loop", this.image, this.mountPoint);
  }

  /** Mounts, takes the address and serves. */
  async takeOver(node: LabNode): Promise<void> {
    this.mount(node);
    await this.announce(node);
  }

  async announce(node: LabNode): Promise<void> {
    node.run("ip", "addr", "add", `${address}/24`, "dev", "eth0");
    await this.serve(node);
    // What a gratuitous ARP does on a real wire.
    this.#lab.runInClient("ip", "neigh", "flush", "dev", "br0");
  }

  async serve(node: LabNode): Promise<void> {
    const spec = {
      addresses: [address],
      exports: [{ id: 1, path: this.mountPoint, pseudo: "/vol1" }],
      recoveryDir: `${this.mountPoint}/.dyad`,
      ...this.#times,
    };
    await node.ask({ op: "start", spec });
    const probed = await node.ask({ op: "probe", deadlineMs: limitsMs.condition });
    expect(probed.value).toMatchObject({ ok: true });
  }

  async stop(node: LabNode): Promise<void> {
    await node.ask({ op: "stop", timeoutMs: limitsMs.condition });
  }

  async release(node: LabNode): Promise<void> {
    await this.stop(node);
    node.run("ip", "addr", "del", `${address}/24`, "dev", "eth0");
    node.run("umount", this.mountPoint);
    // While its loop device is there, a mount would find the same file system again, with everything that it remembers.
    await until("the volume is let go", () => node.run("losetup", "-j", this.image) === "");
  }

  async state(node: LabNode): Promise<GaneshaState> {
    return (await node.ask({ op: "state" })).value as GaneshaState;
  }

  /** Names of client records: of those who are here, or of those who are waited for. */
  records(node: LabNode, folder: "clients" | "clients-before"): string[] {
    const listed = node.run("ls", join(this.mountPoint, ".dyad", folder));
    return listed.split("\n").filter((name) => name !== "");
  }
}
