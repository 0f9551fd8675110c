/** The works of a stop, against a machine that only notes what is asked of it. */
import { describe, expect, test } from "vitest";
import type { Work } from "../../firmware-ts/core/effects.ts";
import { createPerformer } from "../../firmware-ts/daemon/performer.ts";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Machine } from "../../hal/port/machine.ts";

const config = {
  virtualServers: [
    { name: "alpha", addresses: ["10.0.0.100/24"], volumes: [{ disk: "d1" }, { disk: "d2" }] },
  ],
  data: { nic: "data0" },
} as unknown as Config;

function machine(seal: (path: string) => Outcome = () => done) {
  const asked: string[] = [];
  const note = (what: string) => {
    asked.push(what);
    return Promise.resolve(done);
  };
  const parts = {
    servicePorts: () => [2049],
    mountPath: (_server: unknown, disk: string) => disk,
    addresses: { connections: () => Promise.resolve(good([])) },
    services: {
      kill: (name: string) => void note(`kill ${name}`),
      stop: (name: string) => note(`stop ${name}`),
    },
    block: { refuse: (disk: string) => void note(`refuse ${disk}`) },
    fileSystems: {
      flush: (path: string) => note(`flush ${path}`),
      seal: (path: string) => note(`seal ${path}`).then(() => seal(path)),
    },
  };
  const performer = createPerformer(config, parts as unknown as Machine, () => undefined);
  const perform = (work: Work) =>
    new Promise<Outcome<string | undefined>>((settle) =>
      performer.perform("alpha", work, 100, settle),
    );
  return { asked, performer, perform };
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
