/** The works of virtual servers that are there, come and go, against a machine that only notes what is asked of it. */
import { describe, expect, test } from "vitest";
import type { Lifecycle, Work } from "../../firmware-ts/core/effects.ts";
import { createPerformer } from "../../firmware-ts/daemon/performer.ts";
import { virtualServerSchema } from "../../firmware-ts/schema/config.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Machine } from "../../hal/port/machine.ts";

function definition(name: string, number: number, addresses: string[], ...disks: string[]) {
  const volumes = disks.map((disk) => ({ disk, export: `/${disk}` }));
  const server = virtualServerSchema.parse({ name, home: "a", addresses, volumes });
  return { number, sequence: 0, wanted: "started" as const, server };
}

const alpha = definition("alpha", 0, ["10.0.0.100/24"], "d1", "d2");

function machine(seal: (path: string) => Outcome = () => done) {
  const asked: string[] = [];
  const note = (what: string) => {
    asked.push(what);
    return Promise.resolve(done);
  };
  const parts = {
    servicePorts: () => [2049],
    states: { load: () => Promise.resolve({ state: { connections: [] } }) },
    mountPath: (_server: unknown, disk: string) => disk,
    define: ({ server }: typeof alpha) => note(`define ${server.name}`),
    forget: (number: number, name: string) => note(`forget ${number} ${name}`),
    place: (name: string) => ({
      nic: name,
      addresses: {
        connections: () => Promise.resolve(good([])),
        announce: (nic: string, address: string) => note(`announce ${nic} ${address}`),
        remove: (nic: string, address: string, prefixLength: number) =>
          note(`remove ${nic} ${address}/${prefixLength}`),
      },
    }),
    services: {
      kill: (name: string) => void note(`kill ${name}`),
      stop: (name: string) => note(`stop ${name}`),
    },
    block: {
      refuse: (disk: string) => void note(`refuse ${disk}`),
      attach: (disk: string) => note(`attach ${disk}`).then(() => good({ path: disk })),
    },
    fileSystems: {
      flush: (path: string) => note(`flush ${path}`),
      seal: (path: string) => note(`seal ${path}`).then(() => seal(path)),
    },
  };
  const performer = createPerformer([alpha], parts as unknown as Machine, () => undefined);
  const perform = (work: Work | Lifecycle, name = "alpha") =>
    new Promise<Outcome<string | undefined>>((settle) =>
      performer.perform(name, work, 100, settle),
    );
  return { asked, parts, performer, perform };
}

describe("a service whose volume is about to give errors", () => {
  test("is killed before a seal, while it still has good answers only", async () => {
    const { asked, performer, perform } = machine();
    await perform({ op: "flush", disk: "d1" });
    await perform({ op: "seal", disk: "d1" });
    expect(asked).toEqual(["flush d1", "kill alpha", "seal d1"]);
    performer.close();
  });

  test("is killed before its disks are refused, also when the seal has failed", async () => {
    const { asked, performer, perform } = machine(() =>
      failed("diskError", "seal", "not everything"),
    );
    const sealed = await perform({ op: "seal", disk: "d1" });
    expect(sealed.ok).toBe(false);
    asked.length = 0;
    await perform({ op: "killService" });
    expect(asked).toEqual(["kill alpha", "refuse d1", "refuse d2", "stop alpha"]);
    performer.close();
  });
});

describe("virtual servers that come, change and go", () => {
  test("one that has come is worked on like those of the start, one that has gone no more", async () => {
    const { asked, performer, perform } = machine();
    const beta = definition("beta", 7, ["10.0.0.101/24"], "d7");
    const before = await perform({ op: "stopService" }, "beta");
    expect(!before.ok && before.fault.code).toBe("ioError");
    expect((await perform({ op: "define", definition: beta }, "beta")).ok).toBe(true);
    expect((await perform({ op: "flush", disk: "d7" }, "beta")).ok).toBe(true);
    expect((await perform({ op: "forget", number: 7 }, "beta")).ok).toBe(true);
    expect((await perform({ op: "flush", disk: "d7" }, "beta")).ok).toBe(false);
    expect(asked).toEqual(["define beta", "flush d7", "forget 7 beta"]);
    performer.close();
  });

  test("an older word about its name does not take it away", async () => {
    const { performer, perform } = machine();
    expect((await perform({ op: "forget", number: 3 })).ok).toBe(true);
    expect((await perform({ op: "stopService" })).ok).toBe(true);
    performer.close();
  });

  test("a change waits for the works before it, and works after it go by it", async () => {
    const { asked, performer, perform } = machine();
    const changed = definition("alpha", 0, ["10.0.0.200/24"], "d3");
    const [stopped, defined, killed] = [
      perform({ op: "stopService" }),
      perform({ op: "define", definition: changed }),
      perform({ op: "announce" }),
    ];
    for (const outcome of await Promise.all([stopped, defined, killed]))
      expect(outcome.ok).toBe(true);
    expect(asked).toEqual(["stop alpha", "define alpha", "announce alpha 10.0.0.200"]);
    performer.close();
  });

  test("a change that the machine refuses changes nothing", async () => {
    const { asked, parts, performer, perform } = machine();
    parts.define = () => Promise.resolve(failed("stillMounted", "define", "in use"));
    const changed = definition("alpha", 0, ["10.0.0.200/24"], "d3");
    const refused = await perform({ op: "define", definition: changed });
    expect(!refused.ok && refused.fault.code).toBe("stillMounted");
    await perform({ op: "announce" });
    expect(asked).toEqual(["announce alpha 10.0.0.100"]);
    performer.close();
  });

  test("addresses are taken off whether it still has them or not", async () => {
    const { asked, performer, perform } = machine();
    const addresses = ["10.0.0.100/24", "10.0.0.99/16"];
    expect((await perform({ op: "removeAddresses", addresses })).ok).toBe(true);
    expect(asked).toEqual(["remove alpha 10.0.0.100/24", "remove alpha 10.0.0.99/16"]);
    performer.close();
  });

  test("a kill refuses the disks that are attached, also such as it is to have no more", async () => {
    const { asked, performer, perform } = machine();
    await perform({ op: "attach", disk: "d2" });
    await perform({ op: "define", definition: definition("alpha", 0, ["10.0.0.100/24"], "d1") });
    asked.length = 0;
    await perform({ op: "killService" });
    expect(asked).toEqual(["kill alpha", "refuse d1", "refuse d2", "stop alpha"]);
    performer.close();
  });
});
