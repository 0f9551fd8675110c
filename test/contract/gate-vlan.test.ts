/**
 * The gate and VLANs: several devices under one gate, frames with tags, and VLANs themselves where the kernel has them. Where it has none, that is
 * told to the virtual server that wants one, and to nobody else.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { silenceAll } from "../../hal/bench/places.ts";
import { openCarriers, vlansPresent } from "../../hal/linux/carriers.ts";
import { createGate } from "../../hal/linux/gate.ts";
import { PacketSocket } from "../../hal/linux/packet-socket.ts";
import { Place, placeNic } from "../../hal/linux/place/place.ts";
import type { Gate } from "../../hal/port/gate.ts";
import { until } from "../support/until.ts";
import { carrierIn } from "./support/carrier.ts";
import { arpRequest, echo4, macOf, speaksFor } from "./support/frames.ts";
import { joinedNamespaces, type Namespace, rootMissing, run } from "./support/namespaces.ts";

const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

const vlan = 5;
/** Column of InEchos in the lines "Icmp:" of /proc/net/snmp. */
const inEchos = 9;

/** The kernel's word. */
const hasVlans = (() => {
  if (rootMissing) return false;
  try {
    // Not on the loopback, which takes none anywhere.
    run("ip", "link", "add", "dyadtag0", "type", "veth", "peer", "name", "dyadtag1");
    run("ip", "link", "add", "link", "dyadtag0", "name", "dyadvlan", "type", "vlan", "id", "5");
    return true;
  } catch {
    return false;
  } finally {
    run("sh", "-c", "ip link del dyadtag0 2>&1 || true");
  }
})();

describe.skipIf(rootMissing)("the gate on what carries virtual servers", () => {
  let controller: Namespace;
  let client: Namespace;
  let folder: string;
  const address = "10.6.0.10";
  const other = "10.6.0.20";

  const mac = (last: number) => Uint8Array.of(2, 0xdd, 0, 0, 0, last);
  const newGate = (): Gate => controller.inside(() => value(createGate("dyad-vlan-test")));
  const reaches = (target: string): boolean => client.reaches(target);

  beforeAll(() => {
    [controller, client] = joinedNamespaces(["vlan", "peer"]);
    folder = mkdtempSync(join(tmpdir(), "dyad-vlan-"));
    client.ip("address", "add", "10.6.0.1/24", "dev", "wire0");
  });
  afterAll(async () => {
    await silenceAll(folder, () => true);
    await controller?.remove();
    await client?.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  const open = (name: string, last: number, nic: string) =>
    value(
      controller.inside(() =>
        Place.open({
          name,
          carrier: carrierIn(controller, nic),
          mac: mac(last),
          holdPath: join(folder, name),
        }),
      ),
    );

  test("rules over places on each of several devices, for all of them at once", async () => {
    controller.ip(
      "link",
      "add",
      "wire1",
      "type",
      "veth",
      "peer",
      "name",
      "wire1",
      "netns",
      client.name,
    );
    controller.ip("link", "set", "wire1", "up");
    client.ip("link", "set", "wire1", "up");
    client.ip("address", "add", "10.7.0.1/24", "dev", "wire1");
    const gate = newGate();
    value(controller.inside(() => gate.setUp("wire0", [address, "10.7.0.10"], ["wire1"])));
    const [one, two] = [open("one", 1, "wire0"), open("two", 2, "wire1")];
    value(await one.addresses.add(placeNic, address, 24));
    value(await two.addresses.add(placeNic, "10.7.0.10", 24));
    expect([reaches(address), reaches("10.7.0.10")]).toEqual([false, false]);
    value(gate.open(["10.7.0.10"], 60_000));
    await until("the second answers", () => reaches("10.7.0.10"));
    expect(reaches(address)).toBe(false);
    value(controller.inside(() => gate.seal()));
    expect(reaches("10.7.0.10")).toBe(false);
    value(gate.open([address, "10.7.0.10"], 60_000));
    await until("both answer", () => reaches(address) && reaches("10.7.0.10"));
    // One that is gone does not keep the rest from being closed.
    client.ip("link", "del", "wire1");
    value(controller.inside(() => gate.seal()));
    expect(reaches(address)).toBe(false);
    await one.remove();
    await two.remove();
  });

  test("lets nothing through that hides behind tags", async () => {
    const gate = newGate();
    value(controller.inside(() => gate.setUp("wire0", [address, other])));
    const place = open("tagged", 3, "wire0");
    // The place asks for its client by the first of them, which must be open.
    value(await place.addresses.add(placeNic, other, 24));
    value(await place.addresses.add(placeNic, address, 24));
    const wire = client.inside(() => value(PacketSocket.open("wire0", { listen: true })));
    const from = {
      mac: macOf(client.exec("cat", "/sys/class/net/wire0/address")),
      address: "10.6.0.1",
    };
    const echoes = () =>
      place.inside(() => {
        const [, values = ""] = readFileSync("/proc/thread-self/net/snmp", "utf8")
          .split("\n")
          .filter((line) => line.startsWith("Icmp:"));
        return Number(values.split(" ")[inEchos]);
      });
    const tagged = (frame: Buffer, tags: readonly number[]) =>
      Buffer.concat([
        frame.subarray(0, 12),
        ...tags.map((id) => Buffer.from([0x81, 0x00, id >> 8, id & 0xff])),
        frame.subarray(12),
      ]);
    const tags = [[], [0], [vlan], [0, 0], [0, vlan], [vlan, 0], [0, 0, 0]];
    const ask = (target: string) => {
      for (const each of tags) {
        value(wire.send(tagged(echo4(from, Buffer.from(mac(3)), target), each)));
        value(wire.send(tagged(arpRequest(from, target), each)));
      }
    };
    /** The open address is asked behind the closed one, on the same wire: what has not come by then does not come. */
    const answersOf = async (opened: string) => {
      let answered = 0;
      let strange = 0;
      await until("the open one answers", () => {
        value(wire.send(echo4(from, Buffer.from(mac(3)), opened)));
        for (let frame = wire.receive(); frame; frame = wire.receive()) {
          if (speaksFor(frame, opened)) answered += 1;
          if (speaksFor(frame, opened === address ? other : address)) strange += 1;
        }
        return answered > 3;
      });
      return strange;
    };
    value(gate.open([other], 60_000));
    await answersOf(other);
    const before = echoes();
    ask(address);
    const sentAfter = echoes();
    expect(await answersOf(other)).toBe(0);
    // Nothing of it has reached the place: all that was counted there since is what the open address was asked.
    expect(sentAfter).toBe(before);
    wire.close();
    await place.remove();
  });

  test.skipIf(hasVlans)(
    "a kernel without VLANs says so to whoever wants one, and to nobody else",
    async () => {
      const carriers = value(await controller.inside(() => openCarriers("wire0", new Set([vlan]))));
      expect(controller.inside(() => vlansPresent("wire0", new Set([vlan])))).toEqual([]);
      const refused = carriers.of(vlan);
      expect(!refused.ok && refused.fault).toMatchObject({
        code: "notSupported",
        operation: "make wire0.5",
      });
      const spec = (name: string, last: number, carrier: ReturnType<typeof carriers.of>) => ({
        name,
        carrier,
        mac: mac(last),
        holdPath: join(folder, name),
      });
      const without = value(controller.inside(() => Place.open(spec("without", 6, refused))));
      const restored = controller.inside(() => without.restore());
      expect(!restored.ok && restored.fault.code).toBe("notSupported");
      expect(without.inside(() => run("ip", "link"))).not.toContain(placeNic);
      const gate = newGate();
      value(
        controller.inside(() =>
          gate.setUp("wire0", [address], vlansPresent("wire0", new Set([vlan]))),
        ),
      );
      value(gate.open([address], 60_000));
      const beside = value(
        controller.inside(() => Place.open(spec("beside", 7, carriers.of(undefined)))),
      );
      value(await beside.addresses.add(placeNic, address, 24));
      await until("its neighbour is served", () => reaches(address));
      await without.remove();
      await beside.remove();
    },
  );

  test.runIf(hasVlans)(
    "a VLAN carries places behind their gate, for as long as one of them wants it",
    async () => {
      client.ip("link", "add", "link", "wire0", "name", "v5", "type", "vlan", "id", String(vlan));
      client.ip("link", "set", "v5", "up");
      client.ip("address", "add", "10.8.0.1/24", "dev", "v5");
      controller.ip("link", "add", "link", "wire0", "name", "wire0.9", "type", "vlan", "id", "9");
      const want = async (...ids: number[]) =>
        value(await controller.inside(() => openCarriers("wire0", new Set(ids))));
      const carriers = await want(vlan, 6);
      const names = controller.inside(() => vlansPresent("wire0", new Set([vlan, 6])));
      expect(names).toEqual(["wire0.5", "wire0.6"]);
      const gate = newGate();
      value(controller.inside(() => gate.setUp("wire0", ["10.8.0.10", "10.8.0.11"], names)));
      const places = [10, 11].map((last) =>
        value(
          controller.inside(() =>
            Place.open({
              name: `v${last}`,
              carrier: carriers.of(vlan),
              mac: mac(last),
              holdPath: join(folder, `v${last}`),
            }),
          ),
        ),
      );
      for (const [i, place] of places.entries())
        value(await place.addresses.add(placeNic, `10.8.0.${10 + i}`, 24));
      expect(reaches("10.8.0.10")).toBe(false);
      value(gate.open(["10.8.0.10"], 60_000));
      await until("it answers on its VLAN", () => reaches("10.8.0.10"));
      expect(reaches("10.8.0.11")).toBe(false);
      value(gate.close(["10.8.0.10"]));
      expect(reaches("10.8.0.10")).toBe(false);
      for (const place of places) await place.remove();
      // The next life wants one of them, and does not touch what is somebody else's.
      await want(vlan);
      const left = controller.ip("-br", "link");
      expect([
        left.includes("wire0.5"),
        left.includes("wire0.6"),
        left.includes("wire0.9"),
      ]).toEqual([true, false, true]);
    },
  );
});
