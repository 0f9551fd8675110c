/** Performs the works of virtual servers on the machine, in the order of loop/work-queue. Every work is idempotent. */

import type { Machine, ServerPlace } from "../../hal/port/machine.ts";
import type { LocalDevice } from "../../hal/port/storage.ts";
import type { Lifecycle, Work } from "../core/effects.ts";
import { WorkQueue } from "../loop/work-queue.ts";
import type { VirtualServerConfig } from "../schema/config.ts";
import type { Definition } from "../schema/definition.ts";
import { bareAddress } from "../schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../schema/outcome.ts";
import { ClientList } from "./clients.ts";

/**
 * Rounds of gratuitous ARP and tickles after a gate was opened: the first at once, the others over 7 s, against loss and against a
 * switch that does not yet forward from a port whose cable has just come.
 */
const announcements = 12;

/** How often the list of connected clients on the volume is brought up to date; looking takes 0.4 ms. */
const clientsEveryMs = 200;

/** How long a seal waits for a write of that list to end, which takes milliseconds unless the disk hangs. */
const clientsIdleMs = 500;
/** The same for a volume that is given up: its I/O has been refused before. */
const clientsRefusedMs = 100;

interface Bench {
  /** Its number; a name may be another one's later. */
  readonly number: number;
  server: VirtualServerConfig;
  /** Local device of each attached disk. */
  readonly devices: Map<string, LocalDevice>;
  readonly clients: ClientList;
}

export interface Performer {
  /** Performs one work, or a change of the whole; `settle` gets its outcome, or `timeout` when the limit ends first. */
  perform(
    name: string,
    work: Work | Lifecycle,
    limitMs: number,
    settle: (outcome: Outcome<string | undefined>) => void,
  ): void;
  close(): void;
}

/** `definitions`: of those that the machine was opened with. */
export function createPerformer(
  definitions: readonly Definition[],
  machine: Machine,
  log: (message: string) => void,
): Performer {
  const benches = new Map<string, Bench>();
  const add = ({ number, server }: Definition) => {
    const clients = new ClientList(machine, server, log);
    benches.set(server.name, { number, server, devices: new Map(), clients });
  };
  for (const each of definitions) if (each.wanted !== "deleted") add(each);
  const watch = setInterval(() => {
    for (const { clients } of benches.values()) void clients.save();
  }, clientsEveryMs);
  watch.unref();

  async function define(name: string, definition: Definition, limitMs: number): Promise<Outcome> {
    const defined = await machine.define(definition, limitMs);
    const bench = benches.get(name);
    if (!defined.ok) return defined;
    if (!bench) add(definition);
    else {
      bench.server = definition.server;
      bench.clients.change(definition.server);
    }
    return done;
  }

  async function forget(name: string, number: number, limitMs: number): Promise<Outcome> {
    const bench = benches.get(name);
    const isIts = bench?.number === number;
    if (isIts) await bench.clients.idle(clientsIdleMs);
    const forgotten = await machine.forget(number, name, limitMs);
    if (forgotten.ok && isIts) benches.delete(name);
    return forgotten;
  }

  /** A change of the whole takes its turn like a work: it never meets one of the parts half-way. */
  async function runAny(
    name: string,
    work: Work | Lifecycle,
    limitMs: number,
  ): Promise<Outcome<string | undefined>> {
    if (work.op === "define") return await define(name, work.definition, limitMs);
    if (work.op === "forget") return await forget(name, work.number, limitMs);
    const bench = benches.get(name);
    if (!bench) throw new Error(`perform: no virtual server ${name}`);
    return await run(machine, bench, work, limitMs);
  }

  const queue = new WorkQueue<Work | Lifecycle>({
    after(delayMs, then) {
      const timer = setTimeout(then, delayMs);
      return () => clearTimeout(timer);
    },
    run(name, work, limitMs, ended) {
      void runAny(name, work, limitMs)
        .catch((error: unknown) =>
          failed("ioError", work.op, "the driver failed unexpectedly", error),
        )
        .then(ended);
    },
  });

  return {
    perform: (name, work, limitMs, settle) => queue.perform(name, work, limitMs, settle),
    close: () => clearInterval(watch),
  };
}

const prefix = (text: string) => Number(text.split("/")[1] ?? 32);

async function run(
  machine: Machine,
  bench: Bench,
  work: Work,
  limitMs: number,
): Promise<Outcome<string | undefined>> {
  const { server, clients } = bench;
  const path = (disk: string) => machine.mountPath(server, disk);
  switch (work.op) {
    case "attach": {
      const attached = await machine.block.attach(work.disk);
      if (!attached.ok) return attached;
      bench.devices.set(work.disk, attached.value);
      return done;
    }
    case "detach":
      bench.devices.delete(work.disk);
      return await machine.block.detach(work.disk);
    case "mount": {
      const device = bench.devices.get(work.disk);
      if (device === undefined) return failed("mountFailed", `mount ${work.disk}`, "not attached");
      clients.mounted();
      return await machine.fileSystems.mount(device, path(work.disk));
    }
    case "flush":
      await clients.finish();
      return await machine.fileSystems.flush(path(work.disk));
    case "seal":
      await clients.idle(clientsIdleMs);
      // Its files give errors from now on, and an answer that waits in a socket outlives its process and its address: it would be
      // sent when the gate opens here again. A thread that was killed within a call never sees what the call returns.
      machine.services.kill(server.name);
      return await machine.fileSystems.seal(path(work.disk));
    case "abandon":
      await clients.idle(clientsRefusedMs);
      return await machine.fileSystems.abandon(path(work.disk));
    case "startService": {
      const started = await machine.services.start(server, limitMs);
      clients.serve(started.ok);
      return started;
    }
    case "killService":
      return await kill(machine, bench, limitMs);
    case "stopService":
      await clients.cutOff();
      return await machine.services.stop(server.name, limitMs);
    case "addAddresses": {
      const { addresses, nic, restore, route } = machine.place(server.name);
      const restored = restore();
      if (!restored.ok) return restored;
      const added = await eachAddress(server.addresses, (address, length) =>
        addresses.add(nic, address, length),
      );
      // Gateways are found by the addresses.
      return added.ok ? await route() : added;
    }
    case "removeAddresses": {
      const { addresses, nic } = machine.place(server.name);
      return await eachAddress(work.addresses, (address, length) =>
        addresses.remove(nic, address, length),
      );
    }
    case "announce":
      return await announce(machine.place(server.name), bench, work.clients);
    default:
      throw new Error(`perform: unknown work ${JSON.stringify(work)}`);
  }
}

/** Value: clients that the volume does not know of. */
async function kill(
  machine: Machine,
  { server, clients, devices }: Bench,
  limitMs: number,
): Promise<Outcome<string | undefined>> {
  const unsaved = await clients.unsaved();
  clients.serve(false);
  // Killed first, so that no client is ever answered with the error of the refusal (see "seal").
  machine.services.kill(server.name);
  // The volume is given up: a service that waits for its disk would not even die.
  const disks = new Set([...server.volumes.map(({ disk }) => disk), ...devices.keys()]);
  for (const disk of disks) machine.block.refuse(disk);
  const stopped = await machine.services.stop(server.name, limitMs);
  return stopped.ok ? good(unsaved) : stopped;
}

async function eachAddress(
  list: readonly string[],
  change: (address: string, prefixLength: number) => Promise<Outcome>,
): Promise<Outcome> {
  for (const text of list) {
    const outcome = await change(bareAddress(text), prefix(text));
    if (!outcome.ok) return outcome;
  }
  return done;
}

/**
 * The switch and the clients learn where the address is; clients of the last owner learn that they must reconnect. Who they are is
 * read only now: nobody waits for that file before the address answers.
 */
async function announce(
  { addresses, nic }: ServerPlace,
  { server, clients }: Bench,
  lastWord: string | undefined,
): Promise<Outcome> {
  let announced: Outcome = done;
  for (const text of server.addresses) {
    const outcome = await addresses.announce(nic, bareAddress(text), announcements);
    if (!outcome.ok) announced = outcome;
  }
  // Read in any case: from now on the list on the volume is ours to write.
  const inherited = await clients.inherit(lastWord);
  const tickled = inherited.length === 0 ? done : await addresses.tickle(nic, inherited);
  return announced.ok ? tickled : announced;
}
