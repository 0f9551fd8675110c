/**
 * Places of virtual servers on one controller: two namespaces are controller and client, joined by a wire; the places are made on the
 * controller's end of it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { silenceAll } from "../../hal/bench/places.ts";
import { createPortMapper } from "../../hal/linux/ganesha/port-mapper.ts";
import { createGate } from "../../hal/linux/gate.ts";
import { receivingOf, sendingOf } from "../../hal/linux/place/bandwidth.ts";
import type { PlacesFolder } from "../../hal/linux/place/folder.ts";
import { Place, placeNic } from "../../hal/linux/place/place.ts";
import { programsOf } from "../../hal/linux/place/programs.ts";
import { until } from "../support/until.ts";
import { carrierIn } from "./support/carrier.ts";
import { joinedNamespaces, type Namespace, rootMissing, run } from "./support/namespaces.ts";

const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

describe.skipIf(rootMissing)("places", () => {
  let controller: Namespace;
  let client: Namespace;
  let folder: string;
  let one: Place;
  let two: Place;
  const children: ChildProcess[] = [];

  /** An earlier life has a folder of its own, all of which is silenced. */
  const holdOf = (name: string) =>
    join(folder, name === "gone" || name === "moved" ? "later" : "now", name);

  const specOf = (name: string, last: number, nic: string) => ({
    name,
    carrier: carrierIn(controller, nic),
    mac: Uint8Array.of(2, 0xdd, 0, 0, 0, last),
    holdPath: holdOf(name),
  });

  const open = (name: string, last: number, nic = "wire0") =>
    value(controller.inside(() => Place.open(specOf(name, last, nic))));

  const addressesOf = async (place: Place) =>
    value(await place.addresses.list(placeNic)).map(({ address }) => address);

  /** Something that answers with its name at every address of its place. */
  const serve = (place: Place, name: string) => {
    const words = ["TCP6-LISTEN:7000,fork,reuseaddr,ipv6only=0", `SYSTEM:echo ${name}`];
    const child = place.inside(() => spawn("socat", words, { stdio: "ignore" }));
    children.push(child);
  };

  /** Who answers a client at an address; empty when nobody does. */
  const ask = (address: string, option = "connect-timeout=1"): string => {
    const where = `TCP:${address}:7000,connect-timeout=1,${option}`;
    try {
      return client.exec("socat", "-T1", "-", where).trim();
    } catch {
      return "";
    }
  };

  beforeAll(() => {
    [controller, client] = joinedNamespaces(["place", "peer"]);
    folder = mkdtempSync(join(tmpdir(), "dyad-place-"));
    client.ip("address", "add", "10.6.0.1/24", "dev", "wire0");
    client.ip("address", "add", "10.7.0.1/24", "dev", "wire0");
    one = open("one", 1);
    two = open("two", 2);
  });

  afterAll(async () => {
    for (const child of children) child.kill("SIGKILL");
    await one?.remove();
    await two?.remove();
    // Also what a test that failed half-way has left.
    for (const each of ["now", "later"]) await silenceAll(join(folder, each), () => true);
    await controller?.remove();
    await client?.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  test("each has its own addresses, and answers at them with what runs in it", async () => {
    expect((await one.addresses.add(placeNic, "10.6.0.10", 24)).ok).toBe(true);
    expect((await two.addresses.add(placeNic, "10.6.0.20", 24)).ok).toBe(true);
    expect(await addressesOf(one)).toContain("10.6.0.10");
    expect(await addressesOf(one)).not.toContain("10.6.0.20");
    serve(one, "one");
    serve(two, "two");
    await until("one answers", () => ask("10.6.0.10") === "one");
    await until("two answers", () => ask("10.6.0.20") === "two");
  });

  test("they do not see each other, not even where both are of one subnet", () => {
    const answer = one.inside(() => {
      try {
        return run("socat", "-T1", "-", "TCP:10.6.0.20:7000,connect-timeout=1");
      } catch {
        return "nobody";
      }
    });
    expect(answer).toBe("nobody");
    // Not even the question for its hardware address was answered.
    const neighbour = one.inside(() => run("ip", "neigh", "show", "10.6.0.20"));
    expect(neighbour).toMatch(/INCOMPLETE|FAILED|^$/);
  });

  test("a router on the wire does not change its ways", () => {
    const setting = (name: string) =>
      one.inside(() => readFileSync(`/proc/sys/net/${name}`, "utf8").trim());
    // ICMP redirects of IPv4 are believed if one of the two says so (ip-sysctl).
    expect(setting("ipv4/conf/all/accept_redirects")).toBe("0");
    expect(setting(`ipv4/conf/${placeNic}/accept_redirects`)).toBe("0");
    expect(setting(`ipv6/conf/${placeNic}/accept_redirects`)).toBe("0");
    expect(setting(`ipv6/conf/${placeNic}/accept_ra`)).toBe("0");
  });

  test("the same private subnet with different gateways: each takes its own way out", () => {
    expect(one.route([{ to: "default", via: "10.6.0.1" }], []).ok).toBe(true);
    expect(two.route([{ to: "default", via: "10.6.0.254" }], []).ok).toBe(true);
    const way = (place: Place) => place.inside(() => run("ip", "route", "get", "192.0.2.1"));
    expect(way(one)).toContain("via 10.6.0.1 ");
    expect(way(two)).toContain("via 10.6.0.254 ");
    // Once more changes nothing.
    expect(one.route([{ to: "default", via: "10.6.0.1" }], []).ok).toBe(true);
  });

  test("a rule chooses the table by the source", async () => {
    expect((await one.addresses.add(placeNic, "10.7.0.10", 24)).ok).toBe(true);
    const routes = [
      { to: "default", via: "10.6.0.1" },
      { to: "default", via: "10.7.0.1", table: 7 },
    ];
    expect(one.route(routes, [{ from: "10.7.0.10/32", table: 7 }]).ok).toBe(true);
    const way = (from: string) =>
      one.inside(() => run("ip", "route", "get", "192.0.2.1", "from", from));
    expect(way("10.7.0.10")).toContain("via 10.7.0.1 ");
    expect(way("10.6.0.10")).toContain("via 10.6.0.1 ");
  });

  test("its routing table is read back from the kernel, as ip-route shows it", () => {
    expect(value(one.routes()).toSorted()).toEqual([
      `10.6.0.0/24 dev ${placeNic}`,
      `10.7.0.0/24 dev ${placeNic}`,
      `default via 10.6.0.1 dev ${placeNic}`,
      `default via 10.7.0.1 dev ${placeNic} table 7`,
    ]);
    expect(value(two.routes()).join()).not.toContain("10.7.0");
  });

  test("routes and rules that are changed are put right, and what stays is left alone", async () => {
    const shown = (...words: string[]) => one.inside(() => run("ip", ...words));
    const [stays, table7] = [
      { to: "default", via: "10.6.0.1" },
      { to: "default", via: "10.7.0.1", table: 7 },
    ];
    const monitor = one.inside(() => spawn("ip", ["monitor", "route"], { stdio: "pipe" }));
    children.push(monitor);
    let told = "";
    monitor.stdout.on("data", (text) => {
      told += text;
    });
    const onLink = [{ to: "192.0.2.0/24" }, { to: "198.51.100.0/24", via: "192.0.2.9" }];
    const changed = [stays, { ...table7, via: "10.7.0.2" }, ...onLink];
    const rule = { from: "10.7.0.0/24", table: 7 };
    await until("changes are told", () => {
      shown("route", "replace", "203.0.113.0/24", "dev", placeNic, "table", "99");
      return told.includes("203.0.113.0");
    });
    expect(one.route(changed, [rule]).ok).toBe(true);
    expect(shown("route", "show", "table", "7")).toContain("via 10.7.0.2 ");
    expect(shown("route", "show", "table", "7")).not.toContain("10.7.0.1");
    expect(shown("rule")).toMatch(/from 10\.7\.0\.0\/24 lookup 7/);
    expect(shown("rule")).not.toMatch(/from 10\.7\.0\.10 /);
    expect(shown("route")).toContain("198.51.100.0/24 via 192.0.2.9");
    // In the opposite order of their coming: the gateway of one is reached by the other.
    expect(one.route([stays], []).ok).toBe(true);
    expect(shown("rule")).not.toContain("lookup 7");
    expect(shown("route")).not.toContain("192.0.2");
    expect(shown("route", "show", "table", "7")).toBe("");
    await until("the last change is told", () => /Deleted 192\.0\.2\.0\/24/.test(told));
    expect(told).not.toMatch(/via 10\.6\.0\.1 /);
  });

  test("routes of an address that went and came are there, and those of one that went for good are not", async () => {
    const routes = [{ to: "192.0.2.0/24", via: "10.7.0.1" }];
    const way = () => one.inside(() => run("ip", "route", "show", "192.0.2.0/24"));
    expect(one.route(routes, []).ok).toBe(true);
    expect((await one.addresses.remove(placeNic, "10.7.0.10", 24)).ok).toBe(true);
    expect((await one.addresses.add(placeNic, "10.7.0.10", 24)).ok).toBe(true);
    expect(one.route(routes, []).ok).toBe(true);
    expect(way()).toContain("via 10.7.0.1 ");
    expect((await one.addresses.remove(placeNic, "10.7.0.10", 24)).ok).toBe(true);
    expect(one.route([], []).ok).toBe(true);
    expect(way()).toBe("");
  });

  test("a route that makes no sense is refused in words", () => {
    for (const route of [{ to: "default" }, { to: "10.0.0.0/33", via: "10.6.0.1" }, { to: "x" }]) {
      const outcome = one.route([route], []);
      expect(!outcome.ok && outcome.fault.code).toBe("badInput");
    }
  });

  test("the gate on the NIC beneath rules over the addresses in a place, both ways", async () => {
    const gate = controller.inside(() => value(createGate("dyad-place-test")));
    expect(controller.inside(() => gate.setUp("wire0", ["10.6.0.10"])).ok).toBe(true);
    client.ip("neigh", "flush", "all");
    expect(ask("10.6.0.10")).toBe("");
    await until("the other one answers on", () => ask("10.6.0.20") === "two");
    expect(gate.open(["10.6.0.10"], 60_000).ok).toBe(true);
    await until("it answers again", () => ask("10.6.0.10") === "one");
    expect(gate.close(["10.6.0.10"]).ok).toBe(true);
    expect(ask("10.6.0.10")).toBe("");
    controller.exec("nft", "delete", "table", "netdev", "dyad-place-test");
  });

  test("an announcement leaves by its interface, with its address of hardware", async () => {
    client.ip("neigh", "flush", "all");
    client.exec("sysctl", "-qw", "net.ipv4.conf.wire0.arp_accept=1");
    expect((await two.addresses.announce(placeNic, "10.6.0.20", 1)).ok).toBe(true);
    await until("the client has learnt it", () =>
      client.ip("neigh", "show", "10.6.0.20").includes("02:dd:00:00:00:02"),
    );
  });

  describe("traffic of a place", () => {
    const bytes = 6_000_000;
    /** Seconds that so many bytes take at a rate, but for what may go at once. */
    const leastS = (mbit: number, burstBytes: number) =>
      ((bytes - burstBytes) * 8) / (mbit * 1_000_000);
    /** What the place is asked for, or takes, by a client at its address; seconds. */
    const transfer = (way: "sends" | "receives"): number => {
      const port = way === "sends" ? 7001 : 7002;
      const beganAt = performance.now();
      const remote = `TCP:10.6.0.20:${port},connect-timeout=10`;
      const words =
        way === "sends"
          ? `socat -u ${remote} - | wc -c`
          : `head -c ${bytes} /dev/zero | socat -t60 - ${remote}`;
      expect(client.exec("sh", "-c", words).trim()).toBe(String(bytes));
      return (performance.now() - beganAt) / 1000;
    };

    beforeAll(async () => {
      await two.addresses.add(placeNic, "10.6.0.20", 24);
      const listeners = [
        ["7001", `head -c ${bytes} /dev/zero`],
        ["7002", "wc -c"],
      ];
      for (const [port, command] of listeners) {
        const words = [`TCP6-LISTEN:${port},fork,reuseaddr,ipv6only=0`, `SYSTEM:${command}`];
        children.push(two.inside(() => spawn("socat", words, { stdio: "ignore" })));
      }
      await until("they listen", () =>
        listeners.every(([port]) => two.inside(() => run("ss", "-tln")).includes(`:${port} `)),
      );
    });

    test("is bounded in each direction, while it flows, and not that of its neighbour", () => {
      expect(two.limitBandwidth(20).ok).toBe(true);
      const [sentS, receivedS] = [transfer("sends"), transfer("receives")];
      const rates = [sentS, receivedS].map((seconds) => ((bytes * 8e-6) / seconds).toFixed(1));
      console.log(`a limit of 20 Mbit/s: ${rates.join(" Mbit/s out, ")} Mbit/s in`);
      expect(sentS).toBeGreaterThan(leastS(20, sendingOf(20).burstBytes));
      expect(receivedS).toBeGreaterThan(leastS(20, receivingOf(20).burstBytes));
      // Another limit takes the place of the first.
      expect(two.limitBandwidth(40).ok).toBe(true);
      const queue = (place: Place) =>
        place.inside(() => run("tc", "qdisc", "show", "dev", placeNic));
      expect(queue(two)).toMatch(/^qdisc tbf .* rate 40Mbit burst /);
      expect(queue(two).trim().split("\n")).toHaveLength(1);
      expect(queue(one)).not.toContain("tbf");
      expect(transfer("sends")).toBeGreaterThan(leastS(40, sendingOf(40).burstBytes));
    });

    test("has no bound any more when it is taken away; there may have been none", () => {
      for (let i = 0; i < 2; i += 1) {
        expect(two.limitBandwidth(undefined).ok).toBe(true);
        const queue = two.inside(() => run("tc", "qdisc", "show", "dev", placeNic));
        const rules = two.inside(() => run("nft", "list", "ruleset"));
        expect(queue).not.toContain("tbf");
        expect(rules).not.toContain("dyad-limits");
      }
      transfer("sends");
      transfer("receives");
    });

    test("at 100 Gbit/s is told to the kernel by 64 bits", () => {
      expect(two.limitBandwidth(100_000).ok).toBe(true);
      const queue = two.inside(() => run("tc", "qdisc", "show", "dev", placeNic));
      expect(queue).toContain("rate 100Gbit");
      expect(two.limitBandwidth(undefined).ok).toBe(true);
    });
  });

  test("its port mapper answers rpcinfo, by stream and datagram, in every version", async () => {
    const folder = { path: "/nowhere" } as PlacesFolder;
    const mapper = createPortMapper(programsOf(one, folder, "one"));
    expect((await mapper.ensure(["10.6.0.10", "10.6.0.12"])).ok).toBe(true);
    // An address that comes later is heard, too.
    expect((await mapper.ensure(["10.6.0.10", "10.6.0.11"])).ok).toBe(true);
    const heard = one.inside(() => run("ss", "-Hlun", "sport = :111")).match(/10\.6\.0\.\d+/g);
    expect(heard?.sort()).toEqual(["10.6.0.10", "10.6.0.11"]);
    // The mapper is of this process, which must go on while the client asks.
    const rpcinfo = (...words: string[]) => client.later("rpcinfo", ...words);
    expect(await rpcinfo("-p", "10.6.0.10")).toMatch(/100003 +3 +tcp +2049/);
    for (const version of ["2", "3", "4"])
      for (const transport of ["tcp", "udp"])
        expect(await rpcinfo("-T", transport, "10.6.0.10", "100000", version)).toContain(
          `version ${version} ready and waiting`,
        );
    expect(await rpcinfo("10.6.0.10")).toMatch(/100005 +3 +tcp +10\.6\.0\.10\.78\.80/);
    // By datagram, the answer comes from the address that was asked; xid 7, CALL, RPC 2, NULL of version 2, no credentials.
    expect((await one.addresses.add(placeNic, "10.6.0.11", 24)).ok).toBe(true);
    const words = [7, 0, 2, 100000, 2, 0, 0, 0, 0, 0];
    const call = Buffer.from(Uint32Array.from(words).buffer).swap32();
    const octal = [...call].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
    const socat = "socat -t10 - UDP:10.6.0.11:111,readbytes=24";
    const answer = await client.later("sh", "-c", `printf '${octal}' | ${socat} | od -An -tx1 -N4`);
    expect(answer.trim()).toBe("00 00 00 07");
    await mapper.stop();
  });

  test("nobody is reached at an address that no gate knows: the interface has none of its own", () => {
    const shown = one.inside(() => run("ip", "-6", "address", "show", "dev", placeNic));
    expect(shown).not.toContain("inet6");
  });

  test("over IPv6, and by a gateway that has an address of the link only, it answers all the same", async () => {
    client.ip("address", "add", "fd06::1/64", "dev", "wire0", "nodad");
    const router =
      /inet6 (fe80:\S+)\//.exec(client.ip("-6", "address", "show", "wire0"))?.[1] ?? "";
    client.ip("address", "add", "fd66::1/128", "dev", "lo", "nodad");
    expect((await two.addresses.add(placeNic, "fd06::20", 64)).ok).toBe(true);
    expect(two.route([{ to: "default", via: router }], []).ok).toBe(true);
    await until("two answers a neighbour", () => ask("[fd06::20]") === "two");
    await until("two answers by its gateway", () => ask("[fd06::20]", "bind=[fd66::1]") === "two");
    expect(value(two.routes())).toEqual(
      expect.arrayContaining([
        `fd06::/64 dev ${placeNic}`,
        `default via ${router} dev ${placeNic}`,
      ]),
    );
  });

  test("the interface of an earlier life goes, whatever NIC it is on, and its number may be another's", async () => {
    controller.ip("link", "add", "spare0", "type", "veth", "peer", "name", "spare1");
    const gone = open("gone", 21);
    const moved = open("moved", 22, "spare0");
    expect((await gone.addresses.add(placeNic, "10.6.0.21", 24)).ok).toBe(true);
    expect((await moved.addresses.add(placeNic, "10.6.0.22", 24)).ok).toBe(true);
    expect(moved.route([], [{ from: "10.6.0.22/32", table: 9 }]).ok).toBe(true);
    serve(gone, "gone");
    await until("it answers", () => ask("10.6.0.21") === "gone");

    // The next configuration knows only the second of them, which is the first now.
    expect((await silenceAll(join(folder, "later"))).ok).toBe(true);
    expect(ask("10.6.0.21")).toBe("");
    expect((await silenceAll(join(folder, "later"), (name) => name === "gone")).ok).toBe(true);
    expect(existsSync(holdOf("gone"))).toBe(false);
    const again = open("moved", 21);
    expect(await addressesOf(again)).toEqual([]);
    expect(again.inside(() => run("ip", "rule"))).not.toContain("lookup 9");
    expect((await again.addresses.add(placeNic, "10.6.0.22", 24)).ok).toBe(true);
    serve(again, "moved");
    await until("it answers on today's NIC", () => ask("10.6.0.22") === "moved");
    expect((await again.remove()).ok).toBe(true);
  });

  test("where nothing is held there is nothing to silence; where nobody can look, it is not taken for silent", async () => {
    const odd = join(folder, "odd");
    mkdirSync(odd);
    writeFileSync(join(odd, "empty"), "");
    expect((await silenceAll(odd)).ok).toBe(true);
    symlinkSync("loop", join(odd, "loop"));
    const outcome = await silenceAll(odd);
    expect(!outcome.ok && outcome.fault.code).toBe("ioError");
  });

  test("an interface that was not silenced is refused: nobody knows what NIC is beneath it", () => {
    const outcome = controller.inside(() => Place.open(specOf("one", 1, "wire0")));
    expect(!outcome.ok && outcome.fault.code).toBe("addressFailed");
  });

  test("a removed place is gone, and a new one of its name is empty", async () => {
    const third = open("three", 3);
    expect((await third.addresses.add(placeNic, "10.6.0.30", 24)).ok).toBe(true);
    expect((await third.remove()).ok).toBe(true);
    expect(existsSync(holdOf("three"))).toBe(false);
    // The hardware address is free again, too.
    const fresh = open("three", 3);
    expect(await addressesOf(fresh)).not.toContain("10.6.0.30");
    expect((await fresh.remove()).ok).toBe(true);
  });
});
