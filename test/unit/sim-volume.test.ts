/** The common volume of a world: who may write, who may read, and what those leave who die in between. */
import { describe, expect, test } from "vitest";
import type { VolumeView, VolumeWritten } from "../../firmware-ts/schema/definition.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { Process } from "../../hal/sim/process.ts";
import { Channel } from "../../hal/sim/timeline.ts";
import { readVolume, writeRecord } from "../../hal/sim/volume.ts";
import { recordOf } from "../support/volume-records.ts";

/** Controllers that are nothing but their sessions to the coordinators. */
class World {
  readonly pair = new Pair();
  readonly processes = {
    a: new Process(this.pair.timeline),
    b: new Process(this.pair.timeline),
  };
  readonly #ways = new Map<string, Channel>();
  readonly told: string[] = [];

  constructor() {
    for (const serial of this.pair.coordinators) this.register(serial, "a", "1");
  }

  register(serial: string, who: ControllerId, key: string): void {
    this.pair.shelf.perform(serial, who, { op: "register", key: key.padStart(16, "0") });
    this.pair.shelf.perform(serial, who, {
      op: "reserve",
      key: key.padStart(16, "0"),
      type: "writeExclusiveAllRegistrants",
    });
  }

  side(who: ControllerId) {
    const { timeline, shelf } = this.pair;
    return { me: who, timeline, shelf, process: this.processes[who], diskMs: () => 0.4 };
  }

  way(name: string): Channel {
    const way = this.#ways.get(name) ?? new Channel(this.pair.timeline, () => 0.4);
    this.#ways.set(name, way);
    return way;
  }

  write(who: ControllerId, serial: string, generation: number, isWanted = () => true): void {
    const from = { ...this.side(who), way: this.way(`${who} ${serial}`) };
    writeRecord(from, serial, recordOf({ generation, owner: who }), isWanted, (result) =>
      this.told.push(`${serial} ${generation} ${result}`),
    );
  }

  read(
    who: ControllerId,
    limitMs = 1000,
    isThorough = false,
  ): () => Outcome<VolumeView> | undefined {
    let view: Outcome<VolumeView> | undefined;
    readVolume(
      {
        ...this.side(who),
        coordinators: this.pair.coordinators,
        way: (serial) => this.way(`${who} reads ${serial}`),
        after: (delayMs, run) => {
          this.pair.timeline.after(delayMs, run);
          return () => undefined;
        },
      },
      limitMs,
      isThorough,
      (outcome) => {
        view = outcome;
      },
    );
    return () => view;
  }

  run(ms: number): void {
    this.pair.timeline.runUntil(this.pair.timeline.nowMs + ms, () => undefined);
  }

  kinds(serial: string): string[] {
    return (this.pair.shelf.volumeOf(serial).get(3) ?? []).map((slot) =>
      slot.kind === "record" ? `${slot.record.generation}` : slot.kind,
    );
  }
}

const generationsOf = (view: Outcome<VolumeView> | undefined) =>
  view?.ok ? view.value.records.map(({ generation }) => generation) : view?.fault.code;

describe("writing", () => {
  test("goes to the slot beside the newest record", () => {
    const world = new World();
    for (const generation of [1, 2, 3]) {
      world.write("a", "c1", generation);
      world.run(10);
    }
    expect(world.told).toEqual(["c1 1 accepted", "c1 2 accepted", "c1 3 accepted"]);
    expect(world.kinds("c1")).toEqual(["3", "2"]);
  });

  test("is refused to a nexus that is not registered", () => {
    const world = new World();
    world.write("b", "c1", 1);
    world.run(10);
    expect(world.told).toEqual(["c1 1 refused"]);
    expect(world.kinds("c1")).toEqual([]);
  });

  test("does not happen when it is not wanted any more once the disk has been read", () => {
    const world = new World();
    world.write("a", "c1", 1, () => false);
    world.run(10);
    expect(world.told).toEqual(["c1 1 failed"]);
    expect(world.kinds("c1")).toEqual([]);
  });

  test("is refused after a preemption, and one that is under way then leaves a torn slot beside the old record", () => {
    const world = new World();
    const { shelf } = world.pair;
    world.write("a", "c1", 1);
    world.run(10);
    world.register("c1", "b", "2");
    world.write("a", "c1", 2);
    // On the disk since 1.2 ms (the pair read and answered, the write arrived), and for another tenth.
    world.run(1.25);
    shelf.perform("c1", "b", {
      op: "preempt",
      key: "2".padStart(16, "0"),
      victim: "1".padStart(16, "0"),
      type: "writeExclusiveAllRegistrants",
    });
    world.run(600);
    expect(world.kinds("c1")).toEqual(["1", "damaged"]);
    world.write("a", "c1", 3);
    world.run(10);
    expect(world.told).toEqual(["c1 1 accepted", "c1 2 failed", "c1 3 refused"]);
    expect(world.kinds("c1")).toEqual(["1", "damaged"]);
  });

  test("leaves what is newer alone", () => {
    const world = new World();
    world.write("a", "c1", 5);
    world.run(10);
    world.write("a", "c1", 4);
    world.run(10);
    expect(world.told.at(-1)).toBe("c1 4 overtaken");
    expect(world.kinds("c1")).toEqual(["5", "empty"]);
  });

  test.each([
    [0.3, []],
    [0.7, []],
    [1.1, ["damaged", "empty"]],
    [1.25, ["damaged", "empty"]],
    [1.4, ["1", "empty"]],
  ])("a writer that dies after %f ms leaves %j", (ms, left) => {
    const world = new World();
    world.write("a", "c1", 1);
    world.run(ms);
    world.processes.a.kill();
    world.run(1000);
    expect(world.kinds("c1")).toEqual(left);
    expect(world.told).toEqual([]);
  });

  test("a disk that dies in between keeps a torn slot, and answers nothing", () => {
    const world = new World();
    world.write("a", "c1", 1);
    world.run(1.25);
    world.pair.shelf.setAlive("c1", false);
    world.run(1000);
    expect(world.kinds("c1")).toEqual(["damaged", "empty"]);
    expect(world.told).toEqual(["c1 1 failed"]);
  });

  test("nothing of it happens on a slow disk once it was given up", () => {
    const world = new World();
    world.pair.shelf.setSlow("c1", 800);
    world.write("a", "c1", 1);
    world.run(600);
    expect(world.told).toEqual(["c1 1 failed"]);
    world.run(5000);
    expect(world.kinds("c1")).toEqual([]);
  });
});

describe("reading", () => {
  test("needs no registration, and a majority", () => {
    const world = new World();
    for (const serial of ["c1", "c2"]) world.write("a", serial, 1);
    world.run(10);
    const all = world.read("b");
    world.run(10);
    expect(generationsOf(all())).toEqual([1]);
    world.pair.path("b", "c1", false);
    const two = world.read("b");
    world.run(100);
    expect(two()).toMatchObject({ ok: true, value: { thin: [3] } });
    world.pair.shelf.setAlive("c2", false);
    const one = world.read("b");
    world.run(100);
    expect(generationsOf(one())).toBe("diskLost");
  });

  test("does not wait for a slow disk, and for two of them not longer than its limit", () => {
    const world = new World();
    world.write("a", "c3", 1);
    world.run(10);
    world.pair.shelf.setSlow("c1", 400);
    const quick = world.read("a");
    world.run(10);
    expect(generationsOf(quick())).toEqual([1]);
    world.pair.shelf.setSlow("c2", 400);
    const slow = world.read("a", 100);
    world.run(99);
    expect(slow()).toBeUndefined();
    world.run(2);
    expect(generationsOf(slow())).toBe("timeout");
  });
});

describe("a controller of the world", () => {
  const writeAs = (pair: Pair, who: ControllerId, generation: number) => {
    const written: VolumeWritten[] = [];
    const record = recordOf({ generation, owner: who, number: 9 });
    pair.controllers[who]?.volume.write(record, 400, (each) => written.push(each));
    return written;
  };

  test("writes through its beat process, and reads what its partner wrote", () => {
    const pair = new Pair();
    pair.start("a");
    pair.start("b");
    pair.run(4000);
    const written = writeAs(pair, "a", 1);
    pair.run(50);
    expect(written).toEqual([{ accepted: 2, refused: 0, overtaken: 0, total: 3 }]);
    let view: Outcome<VolumeView> | undefined;
    pair.controllers.b?.volume.read(100, false, (outcome) => {
      view = outcome;
    });
    pair.run(50);
    expect(view).toMatchObject({ ok: true, value: { thin: [] } });
    const records = view?.ok ? view.value.records : [];
    expect(records.find(({ definition }) => definition.number === 9)).toMatchObject({
      generation: 1,
      owner: "a",
    });
  });

  test("is told after the limit when its beat process stands still; the word that comes late is forgotten", () => {
    const pair = new Pair();
    pair.start("a");
    pair.run(4000);
    pair.freeze("a", "beat");
    const written = writeAs(pair, "a", 1);
    pair.run(700);
    expect(written).toEqual([{ accepted: 0, refused: 0, overtaken: 0, total: 3 }]);
    pair.thaw("a", "beat");
    pair.run(1000);
    expect(written).toHaveLength(1);
  });

  test("the loser of a split can write nothing more, anywhere", () => {
    const pair = new Pair();
    pair.start("a");
    pair.start("b");
    pair.run(4000);
    pair.freeze("a");
    pair.run(3000);
    expect(pair.controllers.b?.state.mode).toBe("alone");
    const late = writeAs(pair, "a", 7);
    pair.thaw("a");
    const survivor = writeAs(pair, "b", 8);
    pair.run(1000);
    expect(late.flatMap(({ accepted }) => accepted)).not.toContain(2);
    expect(survivor).toEqual([{ accepted: 2, refused: 0, overtaken: 0, total: 3 }]);
    for (const serial of pair.coordinators) {
      const kept = pair.shelf.volumeOf(serial).get(9) ?? [];
      const generations = kept.map((slot) => slot.kind === "record" && slot.record.generation);
      expect(generations).toContain(8);
      expect(generations).not.toContain(7);
    }
  });
});
