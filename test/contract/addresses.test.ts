/**
 * Floating addresses against a real kernel: a client with a switch (bridge), and two servers on it between which an
 * address moves.
 */
import type { ChildProcess } from "node:child_process";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createAddresses } from "../../hal/linux/addresses.ts";
import { prepareNic } from "../../hal/linux/nic.ts";
import { PacketSocket } from "../../hal/linux/packet-socket.ts";
import type { Addresses, Connection } from "../../hal/port/addresses.ts";
import { attempts, TooLate } from "../support/attempts.ts";
import { until } from "../support/until.ts";
import { speaksFor } from "./support/frames.ts";
import { endProcess, Namespace, removeLeftovers, rootMissing } from "./support/namespaces.ts";

const nic = "wire0";
/** Of the addresses of this file, those that do not belong to a machine. */
const isFloating = (address: string) => /^(10\.9\.0\.[5-7]|10\.9\.7\.|fd09::[5-7])/.test(address);
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
    // With an address of its own: else it takes a port's, changes it when that port goes, and forgets its neighbours.
    client.ip("link", "add", "switch", "address", "02:00:00:00:00:02", "type", "bridge");
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

  /** Whatever a test pulled, added or started is as it was for the next one, also when it failed half-way. */
  afterEach(async () => {
    client.ip("link", "set", "to-a", "master", "switch", "up");
    for (const [on, place] of [[onA, a] as const, [onB, b] as const]) {
      const listed = await within(place, () => on.list(nic));
      for (const { address, prefixLength } of listed.ok ? listed.value : []) {
        if (isFloating(address)) await on.remove(nic, address, prefixLength);
      }
    }
  });
  afterAll(async () => {
    for (const place of [client, a, b]) await place?.remove();
  });

  /** A process that ends with the test, whatever becomes of that. */
  const spawned = (place: Namespace, script: string, ...words: string[]): ChildProcess => {
    const child = place.spawn(process.execPath, script, ...words);
    onTestFinished(() => endProcess(child));
    return child;
  };
  /** A server that listens. */
  const serving = async (place: Namespace, name: string, address: string, port: string) => {
    let ready = false;
    spawned(place, serverScript, name, address, port).stdout?.once("data", () => {
      ready = true;
    });
    await until(`server ${name}`, () => ready);
  };
  /** What one end of a cable sends and receives. */
  const tap = (place: Namespace, name: string): PacketSocket => {
    const opened = within(place, () => PacketSocket.open(name, { listen: true }));
    if (!opened.ok) throw new Error(opened.fault.message);
    onTestFinished(() => opened.value.close());
    return opened.value;
  };

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
    "announcing %s once turns the client's cache",
    async (address) => {
      client.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "switch");
      client.ip("neigh", "change", address, "nud", "stale", "dev", "switch");
      expect((await within(a, () => onA.announce(nic, address, 1))).ok).toBe(true);
      const mac = a.exec("cat", `/sys/class/net/${nic}/address`).trim();
      await until("turned", () => client.ip("neigh", "show", address).includes(mac));
    },
  );

  test("an IPv6 client follows a move and back, though the last owner keeps the address, and nobody waits for duplicate address detection", async () => {
    const address = "fd09::52";
    const macOf = (place: Namespace) => place.exec("cat", `/sys/class/net/${nic}/address`).trim();
    // RFC 4861 7.2.5: only the override flag turns an entry that has just been confirmed.
    client.ip("neigh", "replace", address, "lladdr", macOf(a), "dev", "switch", "nud", "reachable");
    // A lives, behind its closed gate: its kernel has the address as long as its processes do not take it away.
    for (const [on, place] of [[onA, a] as const, [onB, b] as const, [onA, a] as const]) {
      expect((await on.add(nic, address, 64)).ok).toBe(true);
      expect((await within(place, () => on.announce(nic, address, 1))).ok).toBe(true);
      await until("it follows", () => client.ip("neigh", "show", address).includes(macOf(place)));
      client.ip("neigh", "change", address, "nud", "reachable", "dev", "switch");
      for (const flag of ["tentative", "dadfailed"])
        expect(place.ip("-o", "addr", "show", nic, flag)).not.toContain(address);
    }
    // Whoever is told by the other that it has the address now (4862 5.4.4) keeps it all the same: its gate decides.
    for (const place of [a, b]) expect(place.ip("-o", "addr", "show", nic)).toContain(address);
  });

  test("a stranger that wants the IPv6 address of ours finds out that it is taken", async () => {
    const address = "fd09::53";
    const stranger = new Namespace("addr-s");
    onTestFinished(() => stranger.remove());
    const port = ["peer", "name", "stranger0", "netns", stranger.name];
    client.ip("link", "add", "to-s", "type", "veth", ...port);
    client.ip("link", "set", "to-s", "master", "switch", "up");
    stranger.ip("link", "set", "stranger0", "up");
    await onA.add(nic, address, 64);
    stranger.ip("addr", "add", `${address}/64`, "dev", "stranger0");
    await until("it has found out", () =>
      stranger.ip("-o", "addr", "show", "stranger0", "dadfailed").includes(address),
    );
    expect(a.ip("-o", "addr", "show", nic)).toContain(address);
  });

  test.each(["10.9.0.50", "fd09::50"])(
    "%s is announced before the call returns, as often as asked, and not after its removal",
    async (address) => {
      // At the sender's end: what is on its way is not counted twice, nor late.
      const wire = tap(a, nic);
      let said = 0;
      const listen = () => {
        for (let f = wire.receive(); f; f = wire.receive()) if (speaksFor(f, address)) said++;
        return said;
      };
      const perRound = address.includes(":") ? 1 : 2;
      const announced = within(a, () => onA.announce(nic, address, 3));
      expect(listen(), "the first leaves before the call returns").toBe(perRound);
      expect((await announced).ok).toBe(true);
      await until("three rounds", () => listen() === 3 * perRound);
      // An address that went elsewhere must not be announced again.
      expect((await within(a, () => onA.announce(nic, address, 20))).ok).toBe(true);
      await onA.remove(nic, address, address.includes(":") ? 64 : 24);
      const before = listen();
      await expect(until("one more", () => listen() > before, 150)).rejects.toThrow("one more");
    },
  );

  test.each([
    ["10.9.0.50", 24, ["route", "change", "10.9.0.0/24", "dev", "switch", "src", "10.9.0.2"]],
    ["fd09::50", 64, ["-6", "route", "change", "fd09::/64", "dev", "switch", "metric", "256"]],
  ] as const)(
    "a tickled client of %s comes back before its timer",
    async (address, prefix, route) => {
      // On B it listens before the address is there: prepareNic allows that.
      for (const [name, place] of [["A", a] as const, ["B", b] as const])
        await serving(place, name, address, "4000");
      // The client's timer is as slow as that of one that has long been without an answer, and it sends no probe before.
      client.ip(...route, "rto_min", "50s");
      onTestFinished(() => void client.ip(...route));
      client.exec("sysctl", "-qw", "net.ipv4.tcp_early_retrans=0");
      await onA.add(nic, address, prefix);
      expect((await within(a, () => onA.announce(nic, address, 1))).ok).toBe(true);
      let said = "";
      spawned(client, clientScript, address, "4000").stdout?.on("data", (text) => {
        said += text;
      });
      await until("connected to A", () => said.includes("A"));
      const known = await within(a, () => onA.connections([address], 4000));
      const connections: readonly Connection[] = known.ok ? known.value : [];
      expect(connections).toHaveLength(1);
      expect(connections[0]).toMatchObject({ localAddress: address, localPort: 4000 });
      // A dies with its cable, and what the client sends is not answered any more.
      client.ip("link", "set", "to-a", "nomaster");
      // That connection of the client's, and none of a client that was killed.
      const socket = () =>
        client.exec("ss", "-tinoH", `sport = :${connections[0]?.remotePort} and dport = :4000`);
      // It has sent what it may without an answer: from now on its timer alone lets it speak.
      const isStuck = () => {
        const [, cwnd, unacked] = / cwnd:(\d+) .* unacked:(\d+) .*notsent:/.exec(socket()) ?? [];
        return cwnd !== undefined && Number(unacked) >= Number(cwnd);
      };
      await until("the client is stuck", isStuck);
      await onB.add(nic, address, prefix);
      expect((await within(b, () => onB.announce(nic, address, 1))).ok).toBe(true);
      const leftMs = 1000 * Number(/timer:\(on,(\d+)sec/.exec(socket())?.[1]);
      const start = performance.now();
      expect((await within(b, () => onB.tickle(nic, connections))).ok).toBe(true);
      await until("connected to B", () => said.includes("B"));
      const backMs = performance.now() - start;
      console.log(`${address}: back after ${backMs.toFixed(0)} ms, ${leftMs} ms before its timer`);
      expect(backMs).toBeLessThan(leftMs);
    },
  );

  test("IPv4 clients of a server that listens on :: are listed under their own addresses", async () => {
    await serving(a, "A", "::", "4001");
    spawned(client, clientScript, "10.9.0.11", "4001");
    const list = async (port: number, ...addresses: string[]) => {
      const outcome = await within(a, () => onA.connections(addresses, port));
      return outcome.ok ? outcome.value : [];
    };
    await until("listed", async () => (await list(4001, "10.9.0.11")).length === 1);
    expect((await list(4001, "10.9.0.11"))[0]).toMatchObject({ remoteAddress: "10.9.0.2" });
    expect(await list(4001, "10.9.0.12")).toEqual([]);
    expect(await list(4002, "10.9.0.11")).toEqual([]);
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
    const wire = tap(client, "to-a");
    const outcome = await within(a, () => onA.tickle(nic, [{ ...fine, ...change }, fine]));
    expect(!outcome.ok && outcome.fault.code).toBe("badInput");
    await until("the good one", () => {
      const frame = wire.receive();
      return frame !== undefined && speaksFor(frame, "10.9.0.11") === "ip4";
    });
  });

  test("carrier is told now, at each change, and no more after the end", async () => {
    const seen: boolean[] = [];
    const stop = within(a, () => onA.watchCarrier(nic, (up) => seen.push(up)));
    expect(seen).toEqual([true]);
    onTestFinished(stop);
    client.ip("link", "set", "to-a", "down");
    await until("down", () => seen.length === 2);
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
    onTestFinished(() => void client.ip("link", "del", "twin"));
    a.ip("link", "set", "twin0", "up");
    client.ip("link", "set", "twin", "up");
    let up: boolean | undefined;
    const stop = within(a, () =>
      onA.watchCarrier("twin0", (now) => {
        up = now;
      }),
    );
    onTestFinished(stop);
    const turn = async (to: boolean) => {
      client.ip("link", "set", "twin", to ? "up" : "down");
      await until(`told ${to}`, () => up === to);
      return performance.now();
    };
    await until("up", () => up === true);
    await attempts(20, async () => {
      const onceMs = await turn(false);
      await turn(true);
      const betweenMs = (await turn(false)) - onceMs;
      await turn(true);
      console.log(`told of a second loss ${betweenMs.toFixed(0)} ms after the first`);
      if (betweenMs > 900) throw new TooLate("by then the kernel might have told by itself");
    });
  });

  test("a switch that forwards late learns the address all the same, and its clients come back", async () => {
    const address = "10.9.0.51";
    client.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:99", "dev", "switch");
    client.ip("neigh", "change", address, "nud", "reachable", "dev", "switch");
    client.ip("link", "set", "to-a", "nomaster");
    const sent = tap(a, nic);
    let rounds = 0;
    const listen = () => {
      for (let f = sent.receive(); f; f = sent.receive())
        if (speaksFor(f, address) === "ip4") rounds++;
      return rounds;
    };
    await onA.add(nic, address, 24);
    expect((await within(a, () => onA.announce(nic, address, 20))).ok).toBe(true);
    const lost = { localAddress: address, localPort: 4000 };
    const caller = { remoteAddress: "10.9.0.2", remotePort: 50_000 };
    expect((await within(a, () => onA.tickle(nic, [{ ...lost, ...caller }]))).ok).toBe(true);
    // Some rounds are lost, and some are still to come.
    await until("rounds that nobody hears", () => listen() > 2);
    const wire = tap(client, "to-a");
    client.ip("link", "set", "to-a", "master", "switch");
    const mac = a.exec("cat", `/sys/class/net/${nic}/address`).trim();
    await until("known", () => client.ip("neigh", "show", address).includes(mac));
    await until("tickled", () => {
      const frame = wire.receive();
      return frame !== undefined && speaksFor(frame, address) === "ip4";
    });
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
    onTestFinished(stop);
    await until("up", () => up === true);
    client.ip("link", "del", "brief");
    await until("gone", () => up === false);
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
