/**
 * Floating addresses against a real kernel: a client with a switch (bridge), and two servers on it between which an
 * address moves.
 */
import type { ChildProcess } from "node:child_process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAddresses } from "../../hal/linux/addresses.ts";
import { prepareNic } from "../../hal/linux/nic.ts";
import { PacketSocket } from "../../hal/linux/packet-socket.ts";
import type { Addresses, Connection } from "../../hal/port/addresses.ts";
import { speaksFor } from "./support/frames.ts";
import { Namespace, removeLeftovers, rootMissing } from "./support/namespaces.ts";
import { until } from "./support/until.ts";

const nic = "wire0";
const serverScript = new URL("./support/server.ts", import.meta.url).pathname;
const clientScript = new URL("./support/reconnector.ts", import.meta.url).pathname;

describe.skipIf(rootMissing)("floating addresses", () => {
  let client: Namespace;
  let a: Namespace;
  let b: Namespace;
  let onA: Addresses;
  let onB: Addresses;

  const create = (place: Namespace) => {
    const created = place.inside(() => createAddresses());
    if (!created.ok) throw new Error(created.fault.message);
    return created.value;
  };
  /** Everything of the drivers that opens something runs inside the namespace, as in a controller's own process. */
  const within = <T>(place: Namespace, action: () => T) => place.inside(action);

  beforeAll(() => {
    removeLeftovers();
    [client, a, b] = [new Namespace("addr-c"), new Namespace("addr-a"), new Namespace("addr-b")];
    client.ip("link", "add", "switch", "type", "bridge");
    client.exec("sysctl", "-qw", "net.ipv6.conf.switch.accept_dad=0");
    client.ip("link", "set", "switch", "up");
    for (const [port, server] of [["to-a", a] as const, ["to-b", b] as const]) {
      client.ip("link", "add", port, "type", "veth", "peer", "name", nic, "netns", server.name);
      client.ip("link", "set", port, "master", "switch", "up");
      expect(within(server, () => prepareNic(nic))).toEqual({ ok: true, value: undefined });
      server.ip("link", "set", nic, "up");
    }
    client.ip("addr", "add", "10.9.0.2/24", "dev", "switch");
    client.ip("addr", "add", "fd09::2/64", "dev", "switch", "nodad");
    a.ip("addr", "add", "10.9.0.11/24", "dev", nic);
    b.ip("addr", "add", "10.9.0.12/24", "dev", nic);
    a.ip("addr", "add", "fd09::11/64", "dev", nic, "nodad");
    b.ip("addr", "add", "fd09::12/64", "dev", nic, "nodad");
    [onA, onB] = [create(a), create(b)];
  });

  afterAll(async () => {
    for (const place of [client, a, b]) await place?.remove();
  });

  test("adding and removing are idempotent, in both families, and the list is the kernel's", async () => {
    for (const [address, prefix] of [["10.9.0.60", 24] as const, ["fd09::60", 64] as const]) {
      for (const _ of [1, 2]) expect((await onA.add(nic, address, prefix)).ok).toBe(true);
      const added = await onA.list(nic);
      expect(added.ok && added.value).toContainEqual({ address, prefixLength: prefix });
      expect(a.ip("-o", "addr", "show", nic)).toContain(`${address}/${prefix}`);
      expect(a.ip("-o", "addr", "show", nic, "tentative")).not.toContain(address);
      for (const _ of [1, 2]) expect((await onA.remove(nic, address, prefix)).ok).toBe(true);
      const removed = await onA.list(nic);
      expect(removed.ok && removed.value).not.toContainEqual({ address, prefixLength: prefix });
    }
  });

  test("removing the first address of a subnet leaves the others", async () => {
    for (const last of [70, 71]) await onA.add(nic, `10.9.7.${last}`, 24);
    await onA.remove(nic, "10.9.7.70", 24);
    const left = await onA.list(nic);
    expect(left.ok && left.value).toContainEqual({ address: "10.9.7.71", prefixLength: 24 });
    await onA.remove(nic, "10.9.7.71", 24);
  });

  test("several removals at once each get their own answer", async () => {
    const addresses = ["10.9.0.61", "10.9.0.62", "10.9.0.63"];
    for (const address of addresses) await onA.add(nic, address, 24);
    const removals = await Promise.all(addresses.map((address) => onA.remove(nic, address, 24)));
    expect(removals.map(({ ok }) => ok)).toEqual([true, true, true]);
    const left = await onA.list(nic);
    const names = left.ok ? left.value.map(({ address }) => address) : [];
    expect(names.filter((address) => addresses.includes(address))).toEqual([]);
  });

  test.each([
    ["no address", () => onA.add(nic, "10.9.0", 24), "badInput"],
    ["no prefix", () => onA.add(nic, "10.9.0.60", 33), "badInput"],
    ["no NIC", () => onA.add("nosuchnic", "10.9.0.60", 24), "addressFailed"],
    ["no count", () => onA.announce(nic, "10.9.0.60", 0), "badInput"],
    ["no NIC to announce on", () => onA.announce("nosuchnic", "10.9.0.60", 1), "addressFailed"],
  ])("%s is a fault", async (_, action, code) => {
    const outcome = await action();
    expect(!outcome.ok && outcome.fault.code).toBe(code);
  });

  test.each(["10.9.0.50", "fd09::50"])(
    "announcing %s turns the client's cache at once",
    async (address) => {
      client.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "switch");
      client.ip("neigh", "change", address, "nud", "stale", "dev", "switch");
      const wire = within(client, () => PacketSocket.open("to-a", { listen: true }));
      if (!wire.ok) throw new Error(wire.fault.message);
      const mac = a.exec("cat", `/sys/class/net/${nic}/address`).trim();
      let heard = 0;
      const listen = () => {
        for (let f = wire.value.receive(); f; f = wire.value.receive()) {
          if (speaksFor(f, address)) heard++;
        }
        return heard;
      };
      const announced = within(a, () => onA.announce(nic, address, 3));
      expect(listen(), "the first leaves before the call returns").toBeGreaterThan(0);
      expect((await announced).ok).toBe(true);
      expect(client.ip("neigh", "show", address)).toContain(mac);
      const perRound = address.includes(":") ? 1 : 2;
      await until("three rounds", () => listen() === 3 * perRound);
      // Removal ends the repetition: an address that went elsewhere must not be announced again.
      expect((await within(a, () => onA.announce(nic, address, 20))).ok).toBe(true);
      await onA.remove(nic, address, address.includes(":") ? 64 : 24);
      const before = listen();
      await expect(until("one more", () => listen() > before, 150)).rejects.toThrow("one more");
      wire.value.close();
    },
  );

  test.each([
    ["10.9.0.50", 24],
    ["fd09::50", 64],
  ] as const)(
    "a tickled client of %s comes back long before its timer",
    async (address, prefix) => {
      const servers: ChildProcess[] = [];
      for (const [name, place] of [["A", a] as const, ["B", b] as const]) {
        // On B it listens before the address is there: prepareNic allows that.
        const server = place.spawn(process.execPath, serverScript, name, address, "4000");
        servers.push(server);
        let ready = false;
        server.stdout?.once("data", () => {
          ready = true;
        });
        await until(`server ${name}`, () => ready);
      }
      await onA.add(nic, address, prefix);
      expect((await within(a, () => onA.announce(nic, address, 1))).ok).toBe(true);
      const caller = client.spawn(process.execPath, clientScript, address, "4000");
      let said = "";
      caller.stdout?.on("data", (text) => {
        said += text;
      });
      await until("connected to A", () => said.includes("A"));
      const known = await within(a, () => onA.connections([address], 4000));
      const connections: readonly Connection[] = known.ok ? known.value : [];
      expect(connections).toHaveLength(1);
      expect(connections[0]).toMatchObject({ localAddress: address, localPort: 4000 });
      // A dies with its cable. The client's timer backs off until the next try is more than a second away.
      client.ip("link", "set", "to-a", "nomaster");
      const rto = () =>
        Number(/\brto:(\d+)/.exec(client.exec("ss", "-tinH", "dport = :4000"))?.[1] ?? 0);
      await until("the client's timer backed off", () => rto() > 1000);
      await onB.add(nic, address, prefix);
      expect((await within(b, () => onB.announce(nic, address, 1))).ok).toBe(true);
      const start = performance.now();
      expect((await within(b, () => onB.tickle(nic, connections))).ok).toBe(true);
      await until("connected to B", () => said.includes("B"));
      const backMs = performance.now() - start;
      console.log(`${address}: back ${backMs.toFixed(0)} ms after the tickle`);
      expect(backMs).toBeLessThan(500);
      for (const child of [...servers, caller]) child.kill("SIGKILL");
      client.ip("link", "set", "to-a", "master", "switch");
      await onA.remove(nic, address, prefix);
      await onB.remove(nic, address, prefix);
    },
    30_000,
  );

  test("IPv4 clients of a server that listens on :: are listed under their own addresses", async () => {
    const server = a.spawn(process.execPath, serverScript, "A", "::", "4001");
    let ready = false;
    server.stdout?.once("data", () => {
      ready = true;
    });
    await until("server", () => ready);
    const caller = client.spawn(process.execPath, clientScript, "10.9.0.11", "4001");
    const list = async (port: number, ...addresses: string[]) => {
      const outcome = await within(a, () => onA.connections(addresses, port));
      return outcome.ok ? outcome.value : [];
    };
    await until("listed", async () => (await list(4001, "10.9.0.11")).length === 1);
    expect((await list(4001, "10.9.0.11"))[0]).toMatchObject({ remoteAddress: "10.9.0.2" });
    expect(await list(4001, "10.9.0.12")).toEqual([]);
    expect(await list(4002, "10.9.0.11")).toEqual([]);
    for (const child of [server, caller]) child.kill("SIGKILL");
  });

  test.each([
    ["two families", { localAddress: "10.9.0.1", remoteAddress: "fd09::2" }],
    ["no port", { localPort: 0 }],
    ["no address", { remoteAddress: "x" }],
  ])("a connection of %s cannot be tickled; the others are", async (_, change) => {
    const fine = {
      localAddress: "10.9.0.11",
      localPort: 4000,
      remoteAddress: "10.9.0.2",
      remotePort: 50_000,
    };
    const wire = within(client, () => PacketSocket.open("to-a", { listen: true }));
    if (!wire.ok) throw new Error(wire.fault.message);
    const outcome = await within(a, () => onA.tickle(nic, [{ ...fine, ...change }, fine]));
    expect(!outcome.ok && outcome.fault.code).toBe("badInput");
    await until("the good one", () => {
      const frame = wire.value.receive();
      return frame !== undefined && speaksFor(frame, "10.9.0.11") === "ip4";
    });
    wire.value.close();
  });

  test("carrier is told now, at each change, and no more after the end", async () => {
    const seen: boolean[] = [];
    const stop = within(a, () => onA.watchCarrier(nic, (up) => seen.push(up)));
    expect(seen).toEqual([true]);
    const start = performance.now();
    client.ip("link", "set", "to-a", "down");
    await until("down", () => seen.length === 2);
    expect(performance.now() - start).toBeLessThan(1000);
    client.ip("link", "set", "to-a", "up");
    await until("up", () => seen.length === 3);
    expect(seen).toEqual([true, false, true]);
    stop();
    stop();
    client.ip("link", "set", "to-a", "down");
    await expect(until("told", () => seen.length > 3, 50)).rejects.toThrow("told");
    client.ip("link", "set", "to-a", "up");
  });

  test("a carrier that goes is told at once, though the kernel told of one a moment ago", async () => {
    // A pair of one index looks to the kernel like a real NIC: its changes wait for the second after the last one
    // (linkwatch_urgent_event in net/core/link_watch.c).
    client.ip(
      ...["link", "add", "name", "twin", "index", "99", "type", "veth"],
      ...["peer", "name", "twin0", "index", "99", "netns", a.name],
    );
    a.ip("link", "set", "twin0", "up");
    client.ip("link", "set", "twin", "up");
    let up: boolean | undefined;
    const stop = within(a, () =>
      onA.watchCarrier("twin0", (now) => {
        up = now;
      }),
    );
    await until("up", () => up === true);
    for (const _ of [1, 2, 3]) {
      const start = performance.now();
      client.ip("link", "set", "twin", "down");
      await until("down", () => up === false);
      expect(performance.now() - start).toBeLessThan(300);
      client.ip("link", "set", "twin", "up");
      await until("up", () => up === true);
    }
    stop();
    client.ip("link", "del", "twin");
  });

  test("a switch that forwards late learns the address all the same, and its clients come back", async () => {
    const address = "10.9.0.51";
    client.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "switch");
    client.ip("neigh", "change", address, "nud", "reachable", "dev", "switch");
    client.ip("link", "set", "to-a", "nomaster");
    await onA.add(nic, address, 24);
    expect((await within(a, () => onA.announce(nic, address, 12))).ok).toBe(true);
    const lost = { localAddress: address, localPort: 4000 };
    const caller = { remoteAddress: "10.9.0.2", remotePort: 50_000 };
    expect((await within(a, () => onA.tickle(nic, [{ ...lost, ...caller }]))).ok).toBe(true);
    const start = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 400));
    const wire = within(client, () => PacketSocket.open("to-a", { listen: true }));
    if (!wire.ok) throw new Error(wire.fault.message);
    client.ip("link", "set", "to-a", "master", "switch");
    const mac = a.exec("cat", `/sys/class/net/${nic}/address`).trim();
    await until("known", () => client.ip("neigh", "show", address).includes(mac));
    await until("tickled", () => {
      const frame = wire.value.receive();
      return frame !== undefined && speaksFor(frame, address) === "ip4";
    });
    expect(performance.now() - start).toBeLessThan(2000);
    wire.value.close();
    await onA.remove(nic, address, 24);
  });

  test("a NIC that vanishes has no carrier", async () => {
    client.ip(
      ...["link", "add", "brief", "type", "veth", "peer", "name", "brief0", "netns", a.name],
    );
    a.ip("link", "set", "brief0", "up");
    client.ip("link", "set", "brief", "up");
    let up: boolean | undefined;
    const stop = within(a, () =>
      onA.watchCarrier("brief0", (now) => {
        up = now;
      }),
    );
    await until("up", () => up === true);
    client.ip("link", "del", "brief");
    await until("gone", () => up === false, 2000);
    stop();
  });

  test("a NIC that is not there has no carrier, and cannot be prepared", () => {
    const seen: boolean[] = [];
    within(a, () => onA.watchCarrier("nosuchnic", (up) => seen.push(up)))();
    expect(seen).toEqual([false]);
    const prepared = within(a, () => prepareNic("nosuchnic"));
    expect(!prepared.ok && prepared.fault.code).toBe("addressFailed");
    const strange = within(a, () => prepareNic("../all"));
    expect(!strange.ok && strange.fault.code).toBe("badInput");
  });
});
