/** Namespaces, cables and the switch of one world; see layout.ts for the plan. */

import { z } from "zod";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { bridgeBatch, ipBatch, limitMs, run, waitFor } from "./exec.ts";
import {
  brokerAddress,
  clientAddress,
  controllerIds,
  customerClient,
  customerRouter,
  dataAddress,
  gatewayAddress,
  interconnectAddress,
  type Lan,
  type Layout,
  ownsNamespace,
  portName,
  shelfAddress,
  storageAddress,
} from "./layout.ts";

/** What `bridge -j link` tells of a port. */
const portListSchema = z.array(z.object({ ifname: z.string(), state: z.string() }));

interface Cable {
  readonly namespace: string;
  readonly nic: string;
  readonly address: string;
  /** Locally administered, and the same in every life of a machine, as if burnt in. */
  readonly mac: string;
  readonly port: string;
  readonly lan: Lan;
}

function cablesOf(layout: Layout): Cable[] {
  const of = layout.namespaces;
  const cable = (lan: Lan, machine: string, namespace: string, nic: string, address: string) => ({
    namespace,
    nic,
    address,
    mac: macOf(address),
    port: portName(lan, machine),
    lan,
  });
  return [
    ...controllerIds.flatMap((id) => [
      cable("d", id, of.controllers[id], "eth0", dataAddress(id)),
      cable("i", id, of.controllers[id], "ic0", interconnectAddress(id)),
      cable("s", id, of.controllers[id], "san0", storageAddress(id)),
    ]),
    cable("s", "shelf", of.shelf, "san0", shelfAddress),
    cable("d", "mq", of.broker, "eth0", brokerAddress),
    ...(of.routers.length > 0
      ? of.routers.map((name, i) => cable("d", `r${i + 1}`, name, "eth0", gatewayAddress(i)))
      : of.clients.map((name, i) => cable("d", `c${i + 1}`, name, "eth0", clientAddress(i)))),
  ];
}

function macOf(address: string): string {
  const bytes = address.split(".").map((part) => Number(part).toString(16).padStart(2, "0"));
  return ["02", "dd", ...bytes].join(":");
}

/** Namespaces of a world that exist now. */
export async function listNamespaces(prefix: string): Promise<string[]> {
  const text = await run("ip", ["netns", "list"]);
  return text
    .split("\n")
    .map((line) => line.split(" ")[0] ?? "")
    .filter((name) => ownsNamespace(prefix, name));
}

export class Network {
  readonly #layout: Layout;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** Builds everything: one process per namespace, all namespaces at once. */
  async create(): Promise<void> {
    const of = this.#layout.namespaces;
    const cables = cablesOf(this.#layout);
    const names = [of.switch, ...new Set(cables.map((each) => each.namespace))];
    await ipBatch(
      undefined,
      names.map((name) => `netns add ${name}`),
    );
    await ipBatch(
      undefined,
      cables.map((each) => addCable(each, of.switch)),
    );
    const bridges = ["d", "i", "s"].flatMap((lan) => [
      // No spanning tree and no forwarding delay: a port forwards from the moment its cable is in.
      `link add br-${lan} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      `link set br-${lan} up`,
    ]);
    const ports = cables.map((each) => `link set ${each.port} master br-${each.lan} up`);
    await Promise.all([
      ipBatch(of.switch, ["link set lo up", ...bridges, ...ports]),
      ...names
        .slice(1)
        .map((name) =>
          ipBatch(name, [
            "link set lo up",
            ...configure(cables.filter((each) => each.namespace === name)),
          ]),
        ),
    ]);
    await Promise.all(of.routers.map((router, i) => this.#connectCustomer(router, of.clients[i])));
  }

  /** A client's own LAN, which is one cable, and its way out. */
  async #connectCustomer(router: string, client: string | undefined): Promise<void> {
    if (client === undefined) return;
    await ipBatch(undefined, [
      `netns add ${client}`,
      `link add lan0 netns ${router} type veth peer name eth0 netns ${client}`,
    ]);
    await ipBatch(router, [`address add ${customerRouter}/24 dev lan0`, "link set lan0 up"]);
    await ipBatch(client, [
      "link set lo up",
      `address add ${customerClient}/24 dev eth0`,
      "link set eth0 up",
      `route add default via ${customerRouter}`,
    ]);
    const forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    await run("nsenter", [`--net=/run/netns/${router}`, "--", "sh", "-ec", forward]);
  }

  /** Takes a customer's router off the data LAN, or puts it back: the gateway of its virtual server is dead. */
  async setGateway(index: number, up: boolean): Promise<void> {
    await this.setCables([portName("d", `r${index + 1}`)], up);
  }

  /** Pulls cables or puts them back: both ends see the carrier go or come. */
  async setCables(ports: readonly string[], up: boolean): Promise<void> {
    const state = up ? "up" : "down";
    await ipBatch(
      this.#layout.namespaces.switch,
      ports.map((port) => `link set ${port} ${state}`),
    );
  }

  /** Stops or resumes forwarding on ports of the switch: packets vanish and nobody is told (BR_STATE 0 and 3). */
  async setForwarding(ports: readonly string[], on: boolean): Promise<void> {
    await bridgeBatch(
      this.#layout.namespaces.switch,
      ports.map((port) => `link set dev ${port} state ${on ? 3 : 0}`),
    );
  }

  /**
   * A controller's network as a boot finds it: no connection, neighbour, address or packet filter of the life before. Its ports do
   * not forward yet; `setForwarding` puts the cables in.
   */
  async renew(id: ControllerId): Promise<void> {
    const { switch: switchName, controllers } = this.#layout.namespaces;
    const name = controllers[id];
    const cables = cablesOf(this.#layout).filter((each) => each.namespace === name);
    // First the cables, which takes effect at once; the end of a namespace would remove them some time later.
    await ipBatch(
      switchName,
      cables.map((each) => `link del ${each.port}`),
    );
    await ipBatch(undefined, [
      `netns del ${name}`,
      `netns add ${name}`,
      ...cables.map((each) => addCable(each, switchName)),
    ]);
    await ipBatch(
      switchName,
      cables.map((each) => `link set ${each.port} master br-${each.lan} up`),
    );
    await ipBatch(name, ["link set lo up", ...configure(cables)]);
    // A port begins to forward when the bridge hears of its carrier, which a busy kernel tells some time later: it must not hear of it
    // after the port was told not to.
    await waitFor(`ports of ${id}`, () => this.#allForward(portsOf(id)), {
      deadlineMs: limitMs,
      intervalMs: 2,
    });
    await this.setForwarding(portsOf(id), false);
  }

  async #allForward(ports: readonly string[]): Promise<boolean> {
    const text = await run("bridge", ["-n", this.#layout.namespaces.switch, "-j", "link", "show"]);
    const links = portListSchema.parse(JSON.parse(text));
    return ports.every((port) =>
      links.some(({ ifname, state }) => ifname === port && state === "forwarding"),
    );
  }
}

function addCable(cable: Cable, switchName: string): string {
  const near = `${cable.nic} netns ${cable.namespace} address ${cable.mac}`;
  return `link add ${near} type veth peer name ${cable.port} netns ${switchName}`;
}

function configure(cables: readonly Cable[]): string[] {
  return cables.flatMap((each) => [
    `address add ${each.address}/24 dev ${each.nic}`,
    `link set ${each.nic} up`,
  ]);
}

/** Every port of a controller, on all LANs: what a power cut takes with it. */
export function portsOf(id: ControllerId): string[] {
  return [portName("d", id), portName("i", id), portName("s", id)];
}
