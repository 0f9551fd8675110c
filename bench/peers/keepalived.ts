/**
 * The peer: keepalived with 0.1 s adverts, one floating address, nothing behind it. It runs in a world of its own on the same
 * machine, is asked by the same prober, and fails in the same ways, so that its figures and ours can stand beside each other.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { AddressWatch } from "../campaign/address-watch.ts";
import { echoWords } from "../probe/programs.ts";
import { BenchError } from "../world/error.ts";
import { ipBatch, monotonicMs, waitFor } from "../world/exec.ts";
import { controllerIds } from "../world/layout.ts";
import { portsOf } from "../world/network.ts";
import { echoPort, World, type WorldOptions } from "../world/world.ts";

const address = "10.77.0.100";
const advertS = 0.1;
/** The master's adverts must have been heard for a while before its silence means anything: 4.5 of them. */
const settleMs = 1500;

function configuration(id: ControllerId): string {
  return `global_defs {
  router_id ${id}
  vrrp_version 3
  vrrp_garp_master_repeat 3
  vrrp_garp_master_delay 1
}
vrrp_instance dyad_peer {
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority ${id === "a" ? 150 : 149}
  advert_int ${advertS}
  nopreempt
  virtual_ipaddress { ${address}/24 dev eth0 }
}
`;
}

/** Faults that make sense for a pair that has only an address. */
export const peerFaults = ["kill9", "freeze", "power", "link", "term"] as const;
export type PeerFault = (typeof peerFaults)[number];

export class Keepalived {
  readonly #world: World;
  readonly #watch: AddressWatch;

  private constructor(world: World) {
    this.#world = world;
    this.#watch = new AddressWatch(world, [address]);
  }

  static async start(options: WorldOptions): Promise<Keepalived> {
    const world = await World.start({ ...options, withoutControllers: true, clientCount: 1 });
    const peer = new Keepalived(world);
    try {
      for (const id of controllerIds) peer.#startNode(id);
      await peer.#active();
      return peer;
    } catch (error) {
      world.keepLogs();
      await world.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.#world.stop();
  }

  /** One outage, ms: inject, wait for the other to answer, mend. */
  async oneRun(fault: PeerFault): Promise<number> {
    const victim = await this.#active();
    const survivor = partnerOf(victim);
    const since = monotonicMs();
    await waitFor("adverts were heard for a while", () => monotonicMs() - since > settleMs, {
      deadlineMs: 10_000,
      signal: this.#world.signal,
    });
    const injectedAtMs = monotonicMs();
    await this.#inject(fault, victim);
    await waitFor("the survivor answers", () => this.#watch.answers(address) === survivor, {
      deadlineMs: 20_000,
      intervalMs: 20,
      signal: this.#world.signal,
    });
    const { outageMs } = this.#watch.seen(injectedAtMs - 2, monotonicMs());
    await this.#repair(fault, victim);
    return outageMs;
  }

  /** Waits until exactly one has the address and it is answered; returns who. */
  async #active(): Promise<ControllerId> {
    return await waitFor("keepalived serves", () => this.#watch.answers(address), {
      deadlineMs: 20_000,
      signal: this.#world.signal,
    });
  }

  #startNode(id: ControllerId): void {
    const { runDir } = this.#world.machines[id].paths;
    const config = join(runDir, "keepalived.conf");
    writeFileSync(config, configuration(id), { mode: 0o600 });
    const answerer = echoWords(this.#world.programs, echoPort, id, [{ address }]);
    this.#world.machines[id].start("echo", answerer, { input: true, onLine: () => {} });
    this.#startKeepalived(id);
  }

  #startKeepalived(id: ControllerId): void {
    const { runDir } = this.#world.machines[id].paths;
    const pid = (name: string) => join(runDir, `${name}.pid`);
    // It takes the files of a killed life for a daemon that runs.
    for (const name of ["main", "vrrp"]) rmSync(pid(name), { force: true });
    this.#world.machines[id].start("keepalived", [
      ...["keepalived", "--dont-fork", "--log-console", "--vrrp"],
      ...["-f", join(runDir, "keepalived.conf"), "-p", pid("main"), "-r", pid("vrrp")],
    ]);
  }

  async #inject(fault: PeerFault, victim: ControllerId): Promise<void> {
    const world = this.#world;
    const machine = world.machines[victim];
    switch (fault) {
      case "kill9":
        machine.kill();
        return;
      case "freeze":
        machine.freeze();
        return;
      case "power":
        await world.network.setForwarding(portsOf(victim), false);
        await machine.powerOff()();
        return;
      case "link":
        await world.network.setCables([portsOf(victim)[0] ?? ""], false);
        return;
      case "term":
        for (const pid of machine.cgroup.processes())
          if (programOf(pid) === "keepalived") process.kill(pid, "SIGTERM");
        return;
    }
  }

  async #repair(fault: PeerFault, victim: ControllerId): Promise<void> {
    const world = this.#world;
    const machine = world.machines[victim];
    if (fault === "link") {
      await world.network.setCables([portsOf(victim)[0] ?? ""], true);
      return;
    }
    if (fault === "term") {
      await waitFor("end of keepalived", () => !machine.cgroup.processes().some(isKeepalived), {
        deadlineMs: 10_000,
      });
      this.#startKeepalived(victim);
      return;
    }
    if (fault === "power") {
      await world.network.renew(victim);
      await machine.powerOn();
      await world.network.setForwarding(portsOf(victim), true);
    } else {
      // Killed or frozen, it has left its address behind; thawed with it, two would answer.
      machine.cgroup.kill();
      machine.thaw();
      await machine.cgroup.empty(10_000);
      await ipBatch(machine.namespace, [`address del ${address}/24 dev eth0`], true).catch(
        () => {},
      );
    }
    this.#startNode(victim);
  }
}

function isKeepalived(pid: number): boolean {
  return programOf(pid) === "keepalived";
}

function programOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** Throws `badInput` for what keepalived cannot show. */
export function peerFaultNamed(name: string): PeerFault {
  const found = peerFaults.find((each) => each === name);
  if (found) return found;
  throw new BenchError("badInput", "compare", `expected ${peerFaults.join(", ")}, not "${name}"`);
}
