/** The gate against a real kernel, as the wire hears it. */
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createAddresses } from "../../hal/linux/addresses.ts";
import { createGate } from "../../hal/linux/gate.ts";
import type { PacketSocket } from "../../hal/linux/packet-socket.ts";
import { realTimeFlag } from "../../hal/linux/realtime.ts";
import type { Gate } from "../../hal/port/gate.ts";
import { attempts, TooLate } from "../support/attempts.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import {
  all,
  floating4,
  floating6,
  type GateWire,
  longMs,
  openGateWire,
  other4,
  Witness,
} from "./support/gate-wire.ts";
import { endProcess, type Namespace, rootMissing } from "./support/namespaces.ts";

describe.skipIf(rootMissing)("address gate", () => {
  let lab: GateWire;
  let server: Namespace;
  let client: Namespace;
  let gate: Gate;
  let wire: PacketSocket;
  let probes: readonly Uint8Array[];
  const quiet = (ms: number) => lab.quiet(ms);

  beforeAll(() => {
    lab = openGateWire("gate");
    ({ server, client, wire, probes } = lab);
  });

  beforeEach(async () => {
    gate = await lab.closedGate();
  });

  afterAll(() => lab?.remove());

  test("closed: no ARP, no ND, no packet in either family", async () => {
    const witness = new Witness(wire, probes);
    await witness.watch(100);
    expect(Object.fromEntries(witness.heard)).toEqual({});
  });

  test("open: everything is answered; closed again: nothing from the next moment on", async () => {
    expect(gate.open([floating4, floating6], longMs).ok).toBe(true);
    const witness = new Witness(wire, probes);
    await witness.watch(limitsMs.condition, () => witness.heard.size === 4);
    expect([...witness.heard.keys()].sort()).toEqual(["arp", "ip4", "ip6", "nd"]);
    expect(gate.close([floating4, floating6]).ok).toBe(true);
    await quiet(50);
    const after = new Witness(wire, probes);
    await after.watch(100);
    expect(Object.fromEntries(after.heard)).toEqual({});
  });

  test("one address open does not open its neighbour", async () => {
    expect(gate.open([other4], longMs).ok).toBe(true);
    const witness = new Witness(wire, probes);
    await witness.watch(50);
    expect(witness.total).toBe(0);
    gate.close([other4]);
  });

  test.each([120, 150, 300])("a lease of %i ms ends by itself and on time", async (leaseMs) => {
    await attempts(300, async () => {
      expect(gate.close([floating4]).ok).toBe(true);
      await quiet(20);
      const opened = gate.open([floating4], leaseMs);
      await new Witness(wire, probes).watch(40);
      const askedMs = performance.now();
      const renewed = opened.ok ? gate.renew([floating4], leaseMs) : opened;
      if (!renewed.ok) {
        expect(renewed.fault.code).toBe("gateExpired");
        throw new TooLate("the lease was over before it could be renewed");
      }
      const renewedMs = performance.now();
      const witness = new Witness(wire, probes);
      await witness.watch(leaseMs + 60);
      expect(witness.lastAfterMs - renewedMs).toBeLessThan(leaseMs + 1);
      // An early end would be an outage of our own making. Who has not listened for so long can tell nothing of that.
      if (witness.gapMs > leaseMs / 3) throw new TooLate("the witness was held up");
      const lastMs = witness.lastBeforeMs - askedMs;
      console.log(`lease ${leaseMs} ms: last answer ${lastMs.toFixed(1)} ms after the renewal`);
      expect(lastMs).toBeGreaterThan(leaseMs - 20 - 2 * witness.gapMs);
    });
  });

  test("an expired lease cannot be renewed, even before the kernel has swept it up", async () => {
    expect(gate.open([floating4, floating6], 300).ok).toBe(true);
    await until("lease over", () => {
      const leases = gate.read();
      return leases.ok && leases.value.size === 0;
    });
    const renewed = gate.renew([floating4], 1000);
    expect(!renewed.ok && renewed.fault.code).toBe("gateExpired");
    const mixed = gate.open([floating4], longMs).ok && gate.renew([floating4, floating6], longMs);
    expect(mixed && !mixed.ok && mixed.fault.code).toBe("gateExpired");
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()]).toEqual([floating4]);
  });

  test("a refused renewal changes nothing: the other lease runs on unchanged", () => {
    expect(gate.open([floating4], longMs / 2).ok).toBe(true);
    expect(gate.renew([floating4, other4], longMs).ok).toBe(false);
    const leases = gate.read();
    expect(leases.ok && leases.value.get(floating4)).toBeLessThanOrEqual(longMs / 2);
  });

  /** A process that opens the gate and renews it every 10 ms, until it is frozen; and what it says. */
  async function startHolder(leaseMs: number) {
    const script = new URL("./support/gate-holder.ts", import.meta.url).pathname;
    const words = [realTimeFlag, script, "wire0", String(leaseMs), ...all];
    const holder = server.spawn(process.execPath, ...words);
    let said = "";
    holder.stdout?.on("data", (text) => {
      said += text;
    });
    await until("holder opens", () => said.includes("open") || holder.exitCode !== null);
    if (holder.exitCode !== null) throw new TooLate("the lease was over before it began");
    return { holder, said: () => said };
  }

  describe("stopped between deciding and the kernel's counting", () => {
    /** A gate whose process is stopped for `sleepMs` within the call: the clock has jumped when it looks again. */
    function interrupted(sleepMs: number): Gate {
      let readings = 0;
      const now = () => performance.now() + (readings++ === 0 ? 0 : sleepMs);
      const created = server.inside(() => createGate("dyad-gate", now));
      if (!created.ok) throw new Error(created.fault.message);
      const second = created.value;
      expect(server.inside(() => second.setUp("wire0", all)).ok).toBe(true);
      return second;
    }

    test("a lease loses the time that was slept", () => {
      const second = interrupted(longMs / 2);
      const fromMs = performance.now();
      expect(second.open([floating4, floating6], longMs).ok).toBe(true);
      const leases = second.read();
      const passedMs = performance.now() - fromMs;
      for (const address of [floating4, floating6]) {
        expect(leases.ok && leases.value.get(address)).toBeLessThanOrEqual(longMs / 2);
        // And no more than that; the kernel counts in steps of up to 10 ms.
        expect(leases.ok && leases.value.get(address)).toBeGreaterThan(longMs / 2 - passedMs - 20);
      }
    });

    test("a lease that was slept away is closed", () => {
      const second = interrupted(5000);
      const outcome = second.open([floating4], 5000);
      expect(!outcome.ok && outcome.fault.code).toBe("gateExpired");
      const leases = second.read();
      expect(leases.ok && leases.value.size).toBe(0);
    });

    test("a lease counts from the decision that the caller names", () => {
      expect(gate.open([floating4], longMs).ok).toBe(true);
      const decidedAtMs = performance.now() - longMs / 2;
      expect(gate.renew([floating4], longMs, decidedAtMs).ok).toBe(true);
      const leases = gate.read();
      expect(leases.ok && leases.value.get(floating4)).toBeLessThanOrEqual(longMs / 2);
      const over = gate.renew([floating4], 5000, performance.now() - 6000);
      expect(!over.ok && over.fault.code).toBe("gateExpired");
      const none = gate.read();
      expect(none.ok && none.value.size).toBe(0);
    });
  });

  test("a frozen holder falls silent within the lease, and thawed it stays silent", async () => {
    const leaseMs = 120;
    await attempts(100, async () => {
      const { holder, said } = await startHolder(leaseMs);
      try {
        const before = new Witness(wire, probes);
        await before.watch(300);
        if (said().includes("gateExpired")) throw new TooLate("the holder itself was held up");
        expect(before.lastBeforeMs).toBeGreaterThan(performance.now() - 20 - 2 * before.gapMs);
        holder.kill("SIGSTOP");
        await until("the holder stands still", () => standsStill(holder.pid ?? 0));
        const frozenMs = performance.now();
        const frozen = new Witness(wire, probes);
        await frozen.watch(leaseMs + 100);
        expect(frozen.lastAfterMs - frozenMs).toBeLessThan(leaseMs + 1);
        if (frozen.gapMs > leaseMs / 3) throw new TooLate("the witness was held up");
        await quiet(20);
        holder.kill("SIGCONT");
        const thawed = new Witness(wire, probes);
        await thawed.watch(limitsMs.condition, () => said().includes("gateExpired"));
        await thawed.watch(50);
        expect(said()).toContain("gateExpired");
        expect(thawed.total).toBe(0);
      } finally {
        await endProcess(holder);
      }
    });
  });

  test("a connection of a closed address sends nothing, not even a retransmission", async () => {
    const script = new URL("./support/chatter.ts", import.meta.url).pathname;
    const chatter = server.spawn(process.execPath, script, floating4, "4000");
    await once(chatter.stdout ?? chatter, "data");
    expect(gate.open([floating4], longMs).ok).toBe(true);
    const reader = client.spawn("socat", "-u", `TCP:${floating4}:4000`, "OPEN:/dev/null");
    const before = new Witness(wire, []);
    await before.watch(limitsMs.condition, () => before.total > 100);
    expect(before.total).toBeGreaterThan(100);
    gate.close([floating4]);
    await quiet(20);
    const after = new Witness(wire, []);
    const tries = () =>
      Number(/ segs_out:(\d+)/.exec(server.exec("ss", "-tinH", "sport = :4000"))?.[1]);
    // It does try: the gate, not an idle connection, keeps it silent.
    const triesBefore = tries();
    await after.watch(limitsMs.condition, () => tries() > triesBefore + 1);
    expect(tries()).toBeGreaterThan(triesBefore + 1);
    await after.watch(50);
    expect(Object.fromEntries(after.heard)).toEqual({});
    await endProcess(reader);
    await endProcess(chatter);
  });

  test("an announcement passes the gate too: closed, it fails and nobody hears it", async () => {
    const created = server.inside(() => createAddresses());
    if (!created.ok) throw new Error(created.fault.message);
    for (const address of [floating4, floating6]) {
      const announce = () => server.inside(() => created.value.announce("wire0", address, 1));
      const closed = await announce();
      expect(!closed.ok && closed.fault.code).toBe("addressFailed");
      const silence = new Witness(wire, []);
      await silence.watch(50);
      expect(silence.total).toBe(0);
      expect(gate.open([address], longMs).ok).toBe(true);
      expect((await announce()).ok).toBe(true);
      const witness = new Witness(wire, []);
      await witness.watch(limitsMs.condition, () => witness.total > 0);
      expect(witness.total).toBeGreaterThan(0);
      expect(gate.close([address]).ok).toBe(true);
      await quiet(20);
    }
  });

  test("a closed controller still hears where the address went", async () => {
    server.ip("addr", "del", `${other4}/24`, "dev", "wire0");
    server.ip("neigh", "replace", other4, "lladdr", "02:00:00:00:00:99", "dev", "wire0");
    server.ip("neigh", "change", other4, "nud", "stale", "dev", "wire0");
    try {
      const partner = client.inside(() => createAddresses());
      if (!partner.ok) throw new Error(partner.fault.message);
      await client.inside(() => partner.value.announce("wire0", other4, 1));
      const mac = client.exec("cat", "/sys/class/net/wire0/address").trim();
      await until("it is known", () => server.ip("neigh", "show", other4).includes(mac));
    } finally {
      server.ip("addr", "add", `${other4}/24`, "dev", "wire0");
    }
  });

  test("open on open is a fault; closing twice is none", () => {
    expect(gate.open([floating4], longMs).ok).toBe(true);
    const again = gate.open([floating4, other4], longMs);
    expect(!again.ok && again.fault.code).toBe("gateFailed");
    const leases = gate.read();
    expect(leases.ok && [...leases.value.keys()]).toEqual([floating4]);
    expect(gate.close(all).ok).toBe(true);
    expect(gate.close(all).ok).toBe(true);
    const none = gate.read();
    expect(none.ok && none.value.size).toBe(0);
  });

  test("set up again removes what an earlier run left open", async () => {
    expect(gate.open([floating4], longMs).ok).toBe(true);
    expect(server.inside(() => gate.setUp("wire0", all)).ok).toBe(true);
    const witness = new Witness(wire, probes);
    await witness.watch(30);
    expect(witness.total).toBe(0);
  });

  test.each([
    ["an address that the gate does not rule", () => gate.open(["10.9.0.99"], 100)],
    ["no address at all", () => gate.open(["x"], 100)],
    ["a lease of nothing", () => gate.open([floating4], 0)],
    ["a lease of half a millisecond", () => gate.renew([floating4], 0.5)],
    ["a lease of hours", () => gate.open([floating4], 60_001)],
  ])("%s is refused", (_, action) => {
    const outcome = action();
    expect(!outcome.ok && outcome.fault.code).toBe("badInput");
  });

  test("a missing NIC is a fault that names it", () => {
    const outcome = server.inside(() => gate.setUp("nosuchnic", all));
    expect(!outcome.ok && outcome.fault.message).toContain("nosuchnic");
  });

  test("a table that somebody has removed is a fault to every call, never a success", () => {
    expect(gate.open([floating4], longMs).ok).toBe(true);
    server.exec("nft", "flush", "ruleset");
    expect(gate.renew([floating4], 100).ok).toBe(false);
    expect(gate.close([floating4]).ok).toBe(false);
    expect(gate.read().ok).toBe(false);
  });

  test("sealed: nothing is open, and a gate that somebody has removed stands again", async () => {
    expect(gate.open(all, longMs).ok).toBe(true);
    expect(server.inside(() => gate.seal()).ok).toBe(true);
    expect(gate.read()).toEqual({ ok: true, value: new Map() });
    server.exec("nft", "flush", "ruleset");
    expect(server.inside(() => gate.seal()).ok).toBe(true);
    expect(gate.read()).toEqual({ ok: true, value: new Map() });
    // What was said while there was no gate at all, by this test's own hand, may still be on the wire.
    await quiet(20);
    const witness = new Witness(wire, probes);
    await witness.watch(300);
    expect(witness.total).toBe(0);
    expect(gate.open([floating4], 1000).ok).toBe(true);
  });

  test("renewed again and again, the lease is the last one's", () => {
    expect(gate.open(all, longMs).ok).toBe(true);
    const spent: number[] = [];
    for (let i = 1; i <= 500; i++) {
      const start = performance.now();
      expect(gate.renew(all, longMs - i * 50).ok).toBe(true);
      spent.push(performance.now() - start);
    }
    const leases = gate.read();
    for (const address of all)
      expect(leases.ok && leases.value.get(address)).toBeLessThanOrEqual(longMs - 500 * 50);
    spent.sort((a, b) => a - b);
    console.log(`renewal of 3 addresses: median ${((spent[250] ?? 0) * 1000).toFixed(0)} us`);
  });
});

/** Whether every thread of a process has stopped (proc_pid_stat(5)). */
function standsStill(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) =>
    / T /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8")),
  );
}
