/**
 * A gate on a wire of its own: namespace `server` holds the floating addresses, `client` watches. What the client's end of the wire hears is the only
 * witness.
 */
import { setImmediate as turn } from "node:timers/promises";
import { createGate } from "../../../hal/linux/gate.ts";
import { PacketSocket } from "../../../hal/linux/packet-socket.ts";
import type { Gate } from "../../../hal/port/gate.ts";
import { limitsMs } from "../../support/limits.ts";
import * as frames from "./frames.ts";
import { joinedNamespaces, type Namespace } from "./namespaces.ts";

export const floating4 = "10.9.0.50";
export const other4 = "10.9.0.51";
export const floating6 = "fd09::50";
export const all = [floating4, other4, floating6];
/** The server's own, which no gate rules. */
export const own4 = "10.9.0.1";

/** A lease that no test outlasts: the longest that there is. */
export const longMs = 60_000;

/**
 * Probes the floating addresses every millisecond and notes who spoke for them, and when last. It is an ordinary process
 * and may itself be held up: a frame came after it last found the wire empty, and before it took the frame. The kernel's
 * network threads may be held up, too: then not even the address that no gate rules answers.
 */
export class Witness {
  readonly #wire: PacketSocket;
  readonly #probes: readonly Uint8Array[];
  readonly heard = new Map<frames.Speech, number>();
  /** The last word came between these two. */
  lastAfterMs = 0;
  lastBeforeMs = 0;
  /** Longest time in which it did not listen, or in which the server answered nobody. */
  gapMs = 0;
  #emptyAtMs = performance.now();
  #answeredAtMs = performance.now();

  constructor(wire: PacketSocket, probes: readonly Uint8Array[]) {
    this.#wire = wire;
    this.#probes = probes;
  }

  get total(): number {
    return [...this.heard.values()].reduce((sum, count) => sum + count, 0);
  }

  listen(): void {
    for (let frame = this.#wire.receive(); frame; frame = this.#wire.receive()) {
      if (frames.speaksFor(frame, own4)) this.#answeredAtMs = performance.now();
      const speech =
        frames.speaksFor(frame, floating4) ??
        frames.speaksFor(frame, other4) ??
        frames.speaksFor(frame, floating6);
      if (!speech) continue;
      this.heard.set(speech, (this.heard.get(speech) ?? 0) + 1);
      this.lastAfterMs = this.#emptyAtMs;
      this.lastBeforeMs = performance.now();
    }
    const now = performance.now();
    // Without probes nobody has to answer.
    const answeredAtMs = this.#probes.length === 0 ? now : this.#answeredAtMs;
    this.gapMs = Math.max(this.gapMs, now - this.#emptyAtMs, now - answeredAtMs);
    this.#emptyAtMs = now;
  }

  async watch(ms: number, untilHeard: () => boolean = () => false): Promise<void> {
    const end = performance.now() + ms;
    let next = 0;
    while (performance.now() < end && !untilHeard()) {
      if (performance.now() >= next) {
        next = performance.now() + 1;
        for (const probe of this.#probes) this.#wire.send(probe);
      }
      this.listen();
      await turn();
    }
    // It may have been held up since then, beyond the end.
    this.listen();
  }
}

export interface GateWire {
  readonly server: Namespace;
  readonly client: Namespace;
  readonly wire: PacketSocket;
  /** One for each way of speaking, of which the last is for the address that no gate rules. */
  readonly probes: readonly Uint8Array[];
  /** A ping to an address of the server. */
  ping(address: string): Uint8Array;
  /** A gate that has closed all floating addresses, when nothing is on its way any more. */
  closedGate(): Promise<Gate>;
  /** Waits until nothing is on its way any more that was said before: a busy machine may deliver it late. */
  quiet(ms: number): Promise<void>;
  remove(): Promise<void>;
}

/** `label` tells the namespaces of two test files apart. */
export function openGateWire(label: string): GateWire {
  const [server, client] = joinedNamespaces([`${label}-s`, `${label}-c`]);
  for (const address of [`${own4}/24`, `${floating4}/24`, `${other4}/24`]) {
    server.ip("addr", "add", address, "dev", "wire0");
  }
  server.ip("addr", "add", `${floating6}/64`, "dev", "wire0", "nodad");
  client.ip("addr", "add", "10.9.0.2/24", "dev", "wire0");
  client.ip("addr", "add", "fd09::2/64", "dev", "wire0", "nodad");
  const mac = (end: Namespace) => frames.macOf(end.exec("cat", "/sys/class/net/wire0/address"));
  const toMac = mac(server);
  const from4 = { mac: mac(client), address: "10.9.0.2" };
  const from6 = { mac: mac(client), address: "fd09::2" };
  const ping = (address: string) => frames.echo4(from4, toMac, address);
  const probes = [
    frames.arpRequest(from4, floating4),
    ping(floating4),
    frames.solicitation(from6, floating6),
    frames.echo6(from6, toMac, floating6),
    ping(own4),
  ];
  const opened = client.inside(() => PacketSocket.open("wire0", { listen: true }));
  if (!opened.ok) throw new Error(opened.fault.message);
  const wire = opened.value;
  // The kernel limits its echo answers; a probe a millisecond is above that limit.
  server.exec("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0");
  server.exec("sysctl", "-qw", "net.ipv4.icmp_msgs_per_sec=100000");

  const quiet = async (ms: number) => {
    const fromMs = performance.now();
    for (;;) {
      const witness = new Witness(wire, []);
      await witness.watch(ms);
      if (witness.total === 0) return;
      if (performance.now() - fromMs > limitsMs.condition) throw new Error("it is never quiet");
    }
  };
  return {
    server,
    client,
    wire,
    probes,
    ping,
    quiet,
    async closedGate() {
      const created = server.inside(() => createGate());
      if (!created.ok) throw new Error(created.fault.message);
      const closed = server.inside(() => created.value.setUp("wire0", all));
      if (!closed.ok) throw new Error(closed.fault.message);
      await quiet(20);
      return created.value;
    },
    async remove() {
      wire.close();
      await server.remove();
      await client.remove();
    },
  };
}
