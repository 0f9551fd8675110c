/** Addresses that somebody takes from a place, or the interface beneath them: noticed, and put back under connections that live on. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { silenceAll } from "../../hal/bench/places.ts";
import { NetlinkSocket } from "../../hal/linux/netlink.ts";
import { Place, placeNic } from "../../hal/linux/place/place.ts";
import { Readiness } from "../../hal/linux/readiness.ts";
import { until } from "../support/until.ts";
import { carrierIn } from "./support/carrier.ts";
import { joinedNamespaces, type Namespace, rootMissing, run } from "./support/namespaces.ts";

const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

const addresses = [
  ["10.6.0.10", 24],
  ["10.6.0.11", 24],
  ["fd06::10", 64],
] as const;

describe.skipIf(rootMissing)("addresses of a place that are watched", () => {
  let controller: Namespace;
  let client: Namespace;
  let folder: string;
  let readiness: Readiness;
  let place: Place;
  let told: string[];
  let children: ChildProcess[] = [];

  const inPlace = (...words: [string, ...string[]]) => place.inside(() => run(...words));
  const putBack = async () => {
    value(controller.inside(() => place.restore()));
    for (const [address, length] of addresses)
      value(await place.addresses.add(placeNic, address, length));
    value(place.route([{ to: "default", via: "10.6.0.1" }], []));
  };
  const present = async () => value(await place.addresses.list(placeNic)).length;

  beforeAll(() => {
    [controller, client] = joinedNamespaces(["watch", "peer"]);
    folder = mkdtempSync(join(tmpdir(), "dyad-watch-"));
    client.ip("address", "add", "10.6.0.1/24", "dev", "wire0");
    readiness = value(Readiness.open());
  });
  afterAll(async () => {
    readiness?.close();
    await silenceAll(folder, () => true);
    await controller?.remove();
    await client?.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  beforeEach(async () => {
    told = [];
    const mac = Uint8Array.of(2, 0xdd, 0, 0, 0, 1);
    const carrier = carrierIn(controller, "wire0");
    const spec = { name: "one", carrier, mac, holdPath: join(folder, "one") };
    place = value(controller.inside(() => Place.open(spec)));
    value(place.watchAddresses(readiness, (reason) => told.push(reason)));
    await putBack();
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
    await place.remove();
    children = [];
  });

  test.each<[string, () => string, string]>([
    [
      "an address",
      () => inPlace("ip", "address", "del", "10.6.0.11/24", "dev", placeNic),
      "10.6.0.11/24 is gone",
    ],
    [
      "an address of IPv6",
      () => inPlace("ip", "address", "del", "fd06::10/64", "dev", placeNic),
      "fd06::10/64 is gone",
    ],
    [
      "all of them",
      () => inPlace("ip", "address", "flush", "dev", placeNic),
      "10.6.0.10/24, 10.6.0.11/24, fd06::10/64 are gone",
    ],
    [
      "the interface, set down",
      () => inPlace("ip", "link", "set", placeNic, "down"),
      `${placeNic} is down`,
    ],
    ["the interface itself", () => inPlace("ip", "link", "del", placeNic), `${placeNic} is gone`],
    ["the loopback, set down", () => inPlace("ip", "link", "set", "lo", "down"), "lo is down"],
  ])("%s is told of, and put back", async (_, take, reason) => {
    take();
    await until("it is told", () => told.length > 0);
    // What goes in several steps is told of at the first.
    await until("all of it is told", () => told.some((each) => each.includes(reason)));
    await putBack();
    expect(await present()).toBe(addresses.length);
    const before = told.length;
    // It is looked at again with the next change, which is none of ours.
    inPlace("ip", "link", "add", "dummy0", "type", "veth");
    inPlace("ip", "link", "del", "dummy0");
    await until("the client reaches it", () => client.reaches("10.6.0.11"));
    expect(told.length).toBe(before);
    expect(inPlace("ip", "route")).toContain("default via 10.6.0.1");
  });

  test("an interface that is made anew has the limit of bandwidth that it had", async () => {
    const limits = () => [
      inPlace("tc", "qdisc", "show", "dev", placeNic).includes("rate 30Mbit"),
      inPlace("nft", "list", "ruleset").includes("limit rate over"),
    ];
    value(place.limitBandwidth(30));
    expect(limits()).toEqual([true, true]);
    inPlace("ip", "link", "del", placeNic);
    await until("it is told", () => told.length > 0);
    await putBack();
    expect(limits()).toEqual([true, true]);
    value(place.limitBandwidth(undefined));
    expect(limits()).toEqual([false, false]);
  });

  test("what is missing is told again and again, until somebody puts it back", async () => {
    inPlace("ip", "address", "del", "10.6.0.11/24", "dev", placeNic);
    await until("it is told again", () => told.length > 2);
    await putBack();
    const before = told.length;
    inPlace("ip", "address", "add", "10.6.0.99/24", "dev", placeNic);
    await until("it is looked at", async () => (await present()) > addresses.length);
    expect(told.length).toBe(before);
  });

  test("what goes while an older answer is on its way is told, too", async () => {
    const RTM_GETADDR = 22;
    const heard = vi.spyOn(NetlinkSocket.prototype, "drain");
    const ask = NetlinkSocket.prototype.transactLater;
    let isTaken = false;
    const late = vi
      .spyOn(NetlinkSocket.prototype, "transactLater")
      .mockImplementation(async function (this: NetlinkSocket, request, sequence) {
        const answer = await ask.call(this, request, sequence);
        if (isTaken || Buffer.from(request).readUInt16LE(4) !== RTM_GETADDR) return answer;
        isTaken = true;
        const before = heard.mock.calls.length;
        inPlace("ip", "address", "del", "10.6.0.11/24", "dev", placeNic);
        await until("it is heard", () => heard.mock.calls.length > before);
        return answer;
      });
    try {
      // Up again, which is why the kernel is asked.
      inPlace("ip", "link", "set", "lo", "down");
      inPlace("ip", "link", "set", "lo", "up");
      await until("it is told", () => told.some((each) => each.includes("10.6.0.11/24 is gone")));
      expect(isTaken).toBe(true);
    } finally {
      late.mockRestore();
      heard.mockRestore();
    }
  });

  test("what is taken away by whoever put it there is nobody's business, nor is a cable", async () => {
    for (const [address, length] of addresses)
      value(await place.addresses.remove(placeNic, address, length));
    value(await place.addresses.add(placeNic, "10.6.0.10", 24));
    client.ip("link", "set", "wire0", "down");
    controller.ip("link", "set", "wire0", "down");
    await until("it has no carrier", () =>
      inPlace("ip", "link", "show", placeNic).includes("NO-CARRIER"),
    );
    controller.ip("link", "set", "wire0", "up");
    client.ip("link", "set", "wire0", "up");
    await until("it has one again", () =>
      inPlace("ip", "link", "show", placeNic).includes("LOWER_UP"),
    );
    expect(told).toEqual([]);
  });

  test.each<[string, () => string]>([
    ["its address", () => inPlace("ip", "address", "del", "10.6.0.10/24", "dev", placeNic)],
    ["its interface", () => inPlace("ip", "link", "del", placeNic)],
  ])("a connection lives on when %s is put back", async (_, take) => {
    const server = place.inside(() =>
      spawn("socat", ["TCP-LISTEN:7000,bind=10.6.0.10,reuseaddr", "PIPE"], { stdio: "ignore" }),
    );
    children.push(server);
    await until("it listens", () => inPlace("ss", "-Hltn").includes(":7000"));
    const talker = client.spawn("socat", "STDIO", "TCP:10.6.0.10:7000");
    children.push(talker);
    let heard = "";
    talker.stdout?.on("data", (text) => {
      heard += text;
    });
    talker.stdin?.write("before\n");
    await until("it answers", () => heard === "before\n");
    take();
    await until("it is told", () => told.length > 0);
    talker.stdin?.write("after\n");
    await putBack();
    await until("it answers again", () => heard === "before\nafter\n");
  });

  test("an interface is not made anew on another NIC of that name, which has no gate", async () => {
    const other = ["spare0", "spare1"] as const;
    controller.ip("link", "add", other[0], "type", "veth", "peer", "name", other[1]);
    const mac = Uint8Array.of(2, 0xdd, 0, 0, 0, 2);
    const carrier = carrierIn(controller, other[0]);
    const spec = { name: "two", carrier, mac, holdPath: join(folder, "two") };
    const second = value(controller.inside(() => Place.open(spec)));
    controller.ip("link", "del", other[0]);
    controller.ip("link", "add", other[0], "type", "veth", "peer", "name", other[1]);
    const outcome = controller.inside(() => second.restore());
    expect(!outcome.ok && outcome.fault.message).toContain("has no gate");
    expect(second.inside(() => run("ip", "link"))).not.toContain(placeNic);
    await second.remove();
    controller.ip("link", "del", other[0]);
  });
});
