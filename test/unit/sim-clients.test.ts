/**
 * The clients of the simulated world feel what clients feel: what an announcement, a tickle, a lease and an order of steps are good for can
 * be seen by leaving them out.
 */
import { describe, expect, test } from "vitest";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import { strike } from "../../hal/sim/chaos.ts";
import { type Machines, productionMachines } from "../../hal/sim/machines.ts";
import { Pair } from "../../hal/sim/pair.ts";

/** A healthy pair whose clients have the timers of a kernel; the last is the only one of beta. */
function patientPair(): Pair {
  const clients = { perServer: 1, thinkMs: 40, patient: true };
  const pair = new Pair({ clients, silent: true });
  pair.start("a");
  pair.start("b");
  pair.run(2000);
  for (const client of pair.clients) client.look();
  return pair;
}

const ofBeta = (pair: Pair) => {
  const client = pair.clients.at(-1);
  if (!client) throw new Error("beta has no client");
  return client;
};

/** How long the client of beta waits at most in the time to come, what it waits for at the end included. */
function longestMs(pair: Pair, withinMs: number): number {
  pair.run(withinMs);
  const { met, waitsMs } = ofBeta(pair).look();
  return Math.max(met.longestMs, waitsMs);
}

describe("a client whose request a kernel has taken that never answers", () => {
  test("comes back as soon as it is tickled", () => {
    const pair = patientPair();
    pair.freeze("b");
    expect(longestMs(pair, 5000)).toBeLessThan(pair.timing.partnerSilentMs + 200);
  });

  test("waits for its own timer when nobody tickles it", () => {
    const pair = patientPair();
    pair.lan.tickle = () => undefined;
    pair.freeze("b");
    expect(longestMs(pair, 90_000)).toBeGreaterThan(59_000);
  });
});

describe("a client whose switch forwards the new owner's frames late", () => {
  const moved = (pair: Pair) => {
    pair.dataLink("b", false);
    pair.run(1000);
    pair.lan.ports.b = false;
    pair.dataLink("b", true);
    pair.run(100);
    const request = { dryRun: false, force: false, reason: "" };
    pair.controllers.a?.command({ kind: "giveback", request });
    pair.run(1000);
    pair.lan.ports.b = true;
  };

  test("is found by a later round of the announcement", () => {
    const pair = patientPair();
    moved(pair);
    expect(longestMs(pair, 5000)).toBeLessThan(3000);
  });

  test("goes on to send to the old owner when there is only one round", () => {
    const pair = patientPair();
    const announce = pair.lan.announce.bind(pair.lan);
    pair.lan.announce = (who, address, isRepeated) =>
      isRepeated ? false : announce(who, address, isRepeated);
    moved(pair);
    expect(longestMs(pair, 60_000)).toBeGreaterThan(20_000);
  });
});

describe("a client", () => {
  test("is refused where a gate is open and nobody listens, and waits for three seconds then", () => {
    const pair = patientPair();
    pair.kill("b");
    pair.run(20_000);
    const { met } = ofBeta(pair).look();
    expect(met.refused).toBe(1);
    expect(met.longestMs).toBeGreaterThan(3000);
    expect(met.longestMs).toBeLessThan(3200);
  });

  /** How often clients are refused while beta is handed over, cannot be started there, and is taken back. */
  const refusedInMove = (machines: Machines): number => {
    const pair = new Pair({ clients: { perServer: 40, thinkMs: 100 }, silent: true });
    pair.machines = machines;
    pair.start("a");
    pair.start("b");
    // With so many, and so long pauses, there is always one that asks.
    pair.run(1000);
    strike(pair, { do: "fail", who: "a", op: "startService", count: 1 });
    strike(pair, { do: "transfer", who: "b", server: "beta" });
    pair.run(1000);
    expect(pair.answers("10.0.0.101")).toBe("b");
    return pair.clients.reduce((sum, client) => sum + client.look().met.refused, 0);
  };

  test("is refused by no gate that opens in its turn", () => {
    expect(refusedInMove(productionMachines)).toBe(0);
  });

  test("is refused by a gate that opens before the export", () => {
    const early: Machines = {
      ...productionMachines,
      controller: (state, event) => {
        const [after, effects] = productionMachines.controller(state, event);
        return [after, effects.flatMap((each) => [...gateBefore(each, after), each])];
      },
    };
    expect(refusedInMove(early)).toBeGreaterThan(0);
  });
});

/** The mistake: the address is opened with the order to export what is behind it. */
function gateBefore(effect: Effect, { servers }: ControllerState): Effect[] {
  if (effect.kind !== "work" || effect.work.op !== "startService") return [];
  const server = servers.find(({ config }) => config.name === effect.virtualServer);
  const addresses = server ? bareAddresses(server.config) : [];
  const command = { kind: "gateOpen", token: "early", addresses, notBeforeMs: 0 } as const;
  return [{ kind: "gate", command }];
}
