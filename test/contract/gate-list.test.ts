/** The gate's list of addresses changes while it stands, against a real kernel, as the wire hears it. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { PacketSocket } from "../../hal/linux/packet-socket.ts";
import type { Gate } from "../../hal/port/gate.ts";
import { attempts, TooLate } from "../support/attempts.ts";
import { limitsMs } from "../support/limits.ts";
import {
  all,
  floating4,
  floating6,
  type GateWire,
  longMs,
  openGateWire,
  other4,
  own4,
  Witness,
} from "./support/gate-wire.ts";
import { type Namespace, rootMissing } from "./support/namespaces.ts";

describe.skipIf(rootMissing)("the addresses of a gate that stands", () => {
  let lab: GateWire;
  let server: Namespace;
  let gate: Gate;
  let wire: PacketSocket;
  let probes: readonly Uint8Array[];
  const quiet = (ms: number) => lab.quiet(ms);

  beforeAll(() => {
    lab = openGateWire("gate-list");
    ({ server, wire, probes } = lab);
  });

  beforeEach(async () => {
    gate = await lab.closedGate();
  });

  afterAll(() => lab?.remove());

  const names = (witness: Witness) => Object.fromEntries(witness.heard);
  const answered = async (address: string) => {
    const probing = new Witness(wire, [lab.ping(address), lab.ping(own4)]);
    await probing.watch(limitsMs.condition, () => probing.total > 0);
    return probing.total > 0;
  };

  test("what becomes known is silent from then on, and can be opened; leases of others run on", async () => {
    expect(server.inside(() => gate.setUp("wire0", [other4])).ok).toBe(true);
    expect(gate.open([other4], longMs / 2).ok).toBe(true);
    const opened = performance.now();
    // What no gate knows passes.
    expect(await answered(floating4)).toBe(true);
    expect(gate.open([floating4], longMs).ok).toBe(false);
    expect(gate.know([floating6, other4, floating4]).ok).toBe(true);
    await quiet(20);
    const after = new Witness(wire, probes);
    await after.watch(100);
    expect(names(after)).toEqual({});
    expect(await answered(other4)).toBe(true);
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()]).toEqual([other4]);
    const leftMs = longMs / 2 - (performance.now() - opened);
    expect(leases.ok && leases.value.get(other4)).toBeLessThanOrEqual(longMs / 2);
    expect(leases.ok && leases.value.get(other4)).toBeGreaterThan(leftMs - 20);
    expect(gate.renew([other4], longMs).ok).toBe(true);
    expect(gate.open([floating4, floating6], longMs).ok).toBe(true);
    const open = new Witness(wire, probes);
    await open.watch(limitsMs.condition, () => open.heard.size === 4);
    expect(open.heard.size).toBe(4);
  });

  test("a lease of another address is not lengthened by a change: it ends on time", async () => {
    const leaseMs = 300;
    await attempts(300, async () => {
      gate.close(all);
      await quiet(20);
      expect(gate.know([floating4]).ok).toBe(true);
      const openedMs = performance.now();
      const opened = gate.open([floating4], leaseMs);
      if (!opened.ok) throw new TooLate("the lease was over before it began");
      const witness = new Witness(wire, probes.slice(1, 2));
      for (const list of [all, [floating4], all]) {
        await witness.watch(40);
        expect(gate.know(list).ok).toBe(true);
      }
      await witness.watch(leaseMs);
      expect(witness.total).toBeGreaterThan(0);
      expect(witness.lastAfterMs - openedMs).toBeLessThan(leaseMs + 2);
    });
  });

  test("what goes is closed first, can no longer be opened, and is nobody's then", async () => {
    expect(gate.open(all, longMs).ok).toBe(true);
    expect(gate.know([other4]).ok).toBe(true);
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()]).toEqual([other4]);
    const again = gate.open([floating4], longMs);
    expect(!again.ok && again.fault.code).toBe("badInput");
    const renewed = gate.renew([other4, floating6], longMs);
    expect(!renewed.ok && renewed.fault.code).toBe("badInput");
    // Known again, it is closed, although it was open when it went.
    expect(gate.know(all).ok).toBe(true);
    await quiet(20);
    const after = new Witness(wire, probes);
    await after.watch(50);
    expect(names(after)).toEqual({});
  });

  test("the same list, another order and another spelling change nothing", () => {
    expect(gate.open([floating6], longMs).ok).toBe(true);
    for (const list of [all, all.toReversed(), [floating4, other4, "FD09:0::50"]])
      expect(gate.know(list).ok).toBe(true);
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()]).toEqual(["FD09:0::50"]);
    expect(gate.renew([floating6], longMs).ok).toBe(true);
  });

  test("128 addresses come and go in a moment", () => {
    const many = Array.from({ length: 125 }, (_, i) => `10.9.1.${i + 1}`);
    expect(gate.open(all, longMs).ok).toBe(true);
    const fromMs = performance.now();
    expect(gate.know([...all, ...many]).ok).toBe(true);
    const middleMs = performance.now();
    expect(gate.open(many, longMs).ok).toBe(true);
    expect(gate.know(all).ok).toBe(true);
    const ms = [middleMs - fromMs, performance.now() - middleMs].map((each) => each.toFixed(1));
    console.log(`125 addresses become known in ${ms[0]} ms, opened and forgotten in ${ms[1]} ms`);
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()].sort()).toEqual([...all].sort());
    expect(server.exec("nft", "list", "set", "netdev", "dyad-gate", "floating4")).not.toContain(
      "10.9.1.",
    );
  });

  test("a kernel that does not do it is a fault: what was to change cannot be opened, what was there is ruled over", () => {
    expect(gate.know([other4, floating6]).ok).toBe(true);
    server.exec("nft", "flush", "ruleset");
    const known = gate.know([other4, floating4]);
    expect(!known.ok && known.fault.code).toBe("gateFailed");
    for (const address of [floating4, floating6])
      expect(gate.open([address], longMs).ok).toBe(false);
    // Standing again, it rules over all of them.
    expect(server.inside(() => gate.seal()).ok).toBe(true);
    const set = (name: string) => server.exec("nft", "list", "set", "netdev", "dyad-gate", name);
    expect(set("floating4")).toContain(other4);
    expect(set("floating6")).toContain(floating6);
    expect(gate.know([other4, floating4]).ok).toBe(true);
    expect(set("floating6")).not.toContain(floating6);
    expect(gate.open([floating4], longMs).ok).toBe(true);
  });

  test("what somebody has taken out of the kernel's list by hand is put back, and what he has put in is no fault", () => {
    const hand = (verb: string, address: string) =>
      server.exec("nft", verb, "element", "netdev", "dyad-gate", "floating4", `{ ${address} }`);
    expect(gate.know([floating4]).ok).toBe(true);
    hand("add", other4);
    hand("delete", floating4);
    expect(gate.know([other4]).ok).toBe(true);
    expect(gate.open([other4], longMs).ok).toBe(true);
  });

  test.each([
    ["what is no address", ["x"]],
    ["more than anybody has", Array.from({ length: 1025 }, (_, i) => `10.${i >> 8}.${i & 255}.1`)],
  ])("%s is refused, and nothing changes", (_, list) => {
    expect(gate.open([floating4], longMs).ok).toBe(true);
    const known = gate.know(list);
    expect(!known.ok && known.fault.code).toBe("badInput");
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()]).toEqual([floating4]);
    expect(gate.renew([floating4], longMs).ok).toBe(true);
  });
});
