/** The decisions of one controller, order by order: what an operator may ask for, and what is refused. */
import { describe, expect, test } from "vitest";
import { mirrorStep } from "../../firmware-ts/core/mirror/volume.ts";
import { startMirror } from "../../firmware-ts/core/mirror/volume-state.ts";
import type {
  MirrorEffect,
  MirrorEvent,
  MirrorState,
  Resolution,
} from "../../firmware-ts/core/mirror/volume-types.ts";
import { mirrorView } from "../../firmware-ts/core/mirror/volume-view.ts";
import type { Arbiter, ReplicaMetadata } from "../../firmware-ts/schema/mirror.ts";
import { generation, replicaAt } from "../support/replicas.ts";

const by = { who: "operator", why: "the other building burns" };

/** Controller a with its replica; what is to be written is written at once, and the partner's access ends at once. */
class Controller {
  state: MirrorState;
  effects: MirrorEffect[] = [];
  #fresh = 100;

  constructor(metadata: ReplicaMetadata, arbiter: Arbiter = "witness") {
    this.state = startMirror("a", arbiter);
    this.tell({ kind: "booted", metadata });
  }

  tell(event: MirrorEvent): this {
    const [state, effects] = mirrorStep(this.state, event, generation(++this.#fresh));
    this.state = state;
    this.effects = effects.slice();
    for (const effect of effects) {
      const before = this.effects;
      if (effect.kind === "persist") this.tell({ kind: "persisted", ok: true });
      else if (effect.kind === "refuseAccess") this.tell({ kind: "fenced" });
      else continue;
      this.effects = [...before, ...this.effects];
    }
    return this;
  }

  meet(theirs: ReplicaMetadata, contact = "c1"): this {
    this.tell({ kind: "met", contact });
    return this.hear(theirs, contact);
  }

  hear(theirs: ReplicaMetadata, contact = "c1"): this {
    const metadata = { ...theirs, controller: "b" } as const;
    return this.tell({ kind: "told", contact, word: { kind: "metadata", metadata } });
  }

  promote(): this {
    return this.tell({ kind: "promoteAsked", epoch: 3 });
  }

  override(): this {
    return this.tell({ kind: "overrideAsked", epoch: 3, ...by });
  }

  resolve(resolution: Resolution): this {
    return this.tell({ kind: "resolveAsked", resolution });
  }

  /** What it has refused in answer to the last event. */
  get refused(): string | undefined {
    for (const effect of this.effects)
      if (effect.kind === "report" && effect.code === "mirrorRefused") return effect.message;
    return undefined;
  }

  get kinds(): string[] {
    return this.effects.map(({ kind }) => kind);
  }
}

/** Went on alone from generation 1. */
const alone = (current: number, change: Partial<ReplicaMetadata> = {}) =>
  replicaAt(current, { base: generation(1), isSole: true, ...change });

describe("a divergence is resolved", () => {
  test("the last complete copy is not given up for one that is incomplete", () => {
    const half = alone(3, { isComplete: false, isSole: false });
    const controller = new Controller(alone(2)).meet(half);
    controller.resolve({ way: "keepTheirs", ...by });
    expect(controller.refused).toContain("not complete");
    expect(controller.state.disk).toMatchObject({ isComplete: true, isSole: true });
    const word = { kind: "yield", to: generation(3), ...by } as const;
    controller.tell({ kind: "told", contact: "c1", word });
    expect(controller.refused).toContain("not complete");
    expect(controller.state.disk?.isComplete).toBe(true);
  });

  test("the partner is not asked to yield to a copy that is incomplete", () => {
    const half = alone(3, { isComplete: false, isSole: false });
    const controller = new Controller(half).meet(alone(2));
    controller.resolve({ way: "keepMine", ...by });
    expect(controller.refused).toContain("not complete");
    expect(controller.kinds).not.toContain("tell");
  });

  test("of two that are whole, one is given up for the other", () => {
    const controller = new Controller(alone(2)).meet(alone(3));
    controller.resolve({ way: "keepMine", ...by });
    expect(controller.effects).toContainEqual(
      expect.objectContaining({ kind: "tell", word: { kind: "yield", to: generation(2), ...by } }),
    );
    controller.resolve({ way: "keepTheirs", ...by });
    expect(controller.state.disk).toMatchObject({ isComplete: false, replacedBy: generation(3) });
  });

  test("of two that were primary in one generation, too", () => {
    const crashed = replicaAt(1, { isPrimary: true });
    const controller = new Controller(crashed).meet(crashed);
    controller.resolve({ way: "keepTheirs", ...by });
    expect(controller.state.disk).toMatchObject({ isComplete: false, replacedBy: generation(1) });
  });

  test("a copy becomes a volume of its own only while nobody writes to it", () => {
    const detach = { way: "detach", volume: generation(70), ...by } as const;
    const controller = new Controller(alone(2)).promote().meet(alone(3));
    controller.resolve(detach);
    expect(controller.refused).toContain("demote it");
    expect(controller.state.disk?.volume).toBe(replicaAt(1).volume);
    controller
      .tell({ kind: "demoteAsked" })
      .tell({ kind: "drained", task: controller.state.drainTask ?? 0, isClean: true });
    controller.resolve(detach);
    expect(controller.state.disk?.volume).toBe(generation(70));
  });
});

describe("two that have diverged, and the partner is primary", () => {
  const primary = alone(3, { isPrimary: true });

  test("a primary stops, also when it does not hear the other any more, until somebody decides", () => {
    const controller = new Controller(alone(2)).promote();
    expect(controller.state.writes).toBe("alone");
    controller.meet(primary);
    expect(controller.state.writes).toBe("held");
    expect(controller.kinds).toContain("holdWrites");
    controller.tell({ kind: "parted", contact: "c1" });
    expect(controller.state.writes).toBe("held");
    controller.meet(alone(3), "c2");
    expect(controller.state.writes).toBe("alone");
  });

  test("an override lets it go on when the other is not heard, and not before", () => {
    const controller = new Controller(alone(2)).promote().meet(primary).override();
    expect(controller.refused).toContain("is primary");
    expect(controller.state.writes).toBe("held");
    controller.tell({ kind: "parted", contact: "c1" }).override();
    expect(controller.state.writes).toBe("alone");
  });

  test.each([
    ["diverged", primary],
    ["unrelated", replicaAt(9, { isPrimary: true })],
  ])("a secondary does not become primary: %s", (_kind, theirs) => {
    const controller = new Controller(alone(2)).meet(theirs).promote();
    expect(controller.state.role).toBe("secondary");
    controller.hear({ ...theirs, isPrimary: false });
    expect(controller.state.role).toBe("primary");
  });
});

describe("an override", () => {
  test.each<readonly [string, MirrorEvent]>([
    ["a demotion", { kind: "demoteAsked" }],
    ["leaving", { kind: "leaveAsked" }],
    ["a promotion without one", { kind: "promoteAsked", epoch: 3 }],
  ])("does not outlive %s", (_what, order) => {
    // Asked for while it cannot be used: the end of what is in flight is waited for.
    const controller = new Controller(replicaAt(2)).override();
    const disk = replicaAt(2, { isPrimary: true });
    controller.state = { ...controller.state, disk, draining: "underWay" };
    controller.override();
    expect(controller.state.proof?.proof.kind).toBe("override");
    controller.tell(order);
    expect(controller.state.proof).toBeUndefined();
  });

  test("is refused while the partner is heard, and its copy is newer", () => {
    const controller = new Controller(replicaAt(1)).meet(alone(2)).override();
    expect(controller.refused).toContain("newer");
    expect(controller.state).toMatchObject({ role: "secondary", wanted: "secondary" });
    expect(controller.state.disk?.current).toBe(generation(1));
    controller.tell({ kind: "parted", contact: "c1" }).override();
    expect(controller.state.disk?.continued?.proof.kind).toBe("override");
  });
});

describe("a partner whose copy is no copy of ours", () => {
  test.each([
    ["of another size", { dataBytes: 2 ** 31 }],
    ["of another granularity", { granularityBytes: 4096 }],
  ])("is not let in, and not taken for one that has the same: %s", (_what, change) => {
    const controller = new Controller(replicaAt(1)).meet(replicaAt(1, change));
    expect(controller.state.access).toBe("closed");
    expect(controller.state.isContinuous).toBe(false);
    controller.meet(replicaAt(1), "c2");
    expect(controller.state).toMatchObject({ access: "open", isContinuous: true });
  });

  test.each([
    ["unrelated", alone(2, { isSole: false }), replicaAt(9)],
    ["diverged", alone(2, { isSole: false }), alone(3)],
    ["neither", replicaAt(1), { ...alone(2, { isComplete: false }), replacedBy: generation(4) }],
  ])("is the reason why it is not primary: %s", (kind, mine, theirs) => {
    const { state } = new Controller(mine).meet(theirs).promote();
    const { frozen, trouble } = mirrorView(state);
    expect(trouble, kind).toBeDefined();
    expect(frozen).toBe(trouble);
  });

  test("a conflict is the reason also when the partner is not heard any more", () => {
    const controller = new Controller(alone(2)).promote().meet(alone(3, { isPrimary: true }));
    controller.tell({ kind: "parted", contact: "c1" });
    expect(mirrorView(controller.state).frozen).toContain("was primary with data of its own");
  });
});

describe("the arbiter is asked", () => {
  const asked = (controller: Controller) => {
    const effect = controller.effects.find(({ kind }) => kind === "askProof");
    if (effect?.kind !== "askProof") throw new Error("nobody is asked");
    return effect;
  };

  test("for the generation that will begin, and it begins with that", () => {
    const controller = new Controller(replicaAt(1)).promote();
    const { ask, generation: of, next, epoch } = asked(controller);
    expect({ of, epoch }).toEqual({ of: generation(1), epoch: 3 });
    const proof = { kind: "witness", generation: of, next } as const;
    controller.tell({
      kind: "proofArrived",
      ask,
      proof: { ...proof, next: generation(50) },
    });
    expect(controller.state.role).toBe("secondary");
    controller.tell({ kind: "proofArrived", ask, proof });
    expect(controller.state.disk).toMatchObject({
      current: next,
      base: of,
      epoch,
      continued: { epoch, proof },
    });
    expect(controller.kinds).not.toContain("dropQuestion");
  });

  test.each<readonly [string, MirrorEvent]>([
    ["a demotion", { kind: "demoteAsked" }],
    ["leaving", { kind: "leaveAsked" }],
    ["a contact", { kind: "met", contact: "c1" }],
    ["the loss of the disk", { kind: "diskError", reason: "gone" }],
    ["an override", { kind: "overrideAsked", epoch: 3, ...by }],
  ])("no longer after %s, and is told so once", (_what, event) => {
    const controller = new Controller(replicaAt(1)).promote();
    const { ask } = asked(controller);
    controller.tell(event);
    expect(controller.effects.filter(({ kind }) => kind === "dropQuestion")).toEqual([
      { kind: "dropQuestion", ask },
    ]);
    controller.tell({ kind: "retryDue" });
    expect(controller.kinds).not.toContain("dropQuestion");
  });
});

describe("what an earlier task still answers changes nothing", () => {
  const taskOf = (controller: Controller, name: MirrorEffect["kind"]): number => {
    const effect = controller.effects.find(({ kind }) => kind === name);
    if (!effect || !("task" in effect)) throw new Error(`no ${name}`);
    return effect.task;
  };

  test("a leg that was opened before", () => {
    const controller = new Controller(replicaAt(1)).meet(replicaAt(1)).promote();
    const old = taskOf(controller, "openLeg");
    controller.tell({ kind: "parted", contact: "c1" });
    controller.meet(replicaAt(1), "c2");
    const now = taskOf(controller, "openLeg");
    controller.tell({ kind: "legOpened", task: old });
    expect(controller.state.leg).toBe("opening");
    controller.tell({ kind: "legOpened", task: now });
    expect(controller.state).toMatchObject({ leg: "open", role: "primary", writes: "both" });
    controller.tell({ kind: "legLost", task: old, reason: "late" });
    expect(controller.state.writes).toBe("both");
    controller.tell({ kind: "demoteAsked" });
    const draining = taskOf(controller, "drainWrites");
    controller.tell({ kind: "drained", task: draining - 1, isClean: true });
    expect(controller.state.draining).toBe("underWay");
    controller.tell({ kind: "drained", task: draining, isClean: true });
    expect(controller.state.role).toBe("secondary");
  });

  test("marks that were fetched, and a copy that was finished, for an earlier resync", () => {
    const target = replicaAt(1, { isPrimary: true });
    const controller = new Controller(alone(2)).meet(target);
    const from = generation(2);
    controller.hear({ ...target, isComplete: false, replacedBy: from });
    controller.tell({ kind: "told", contact: "c1", word: { kind: "ready", from } });
    controller.tell({ kind: "legOpened", task: taskOf(controller, "openLeg") });
    const fetching = taskOf(controller, "fetchMarks");
    controller.tell({ kind: "marksFetched", task: fetching - 1 });
    expect(controller.state.sync?.at).toBe("fetching");
    controller.tell({ kind: "marksFetched", task: fetching });
    const copying = taskOf(controller, "startResync");
    controller.tell({ kind: "resyncProgress", task: fetching, dirtyBits: 7 });
    controller.tell({ kind: "resyncCopied", task: fetching });
    expect(controller.state.sync).toMatchObject({ at: "copying", task: copying });
    expect(controller.state.sync).not.toHaveProperty("dirtyBits");
    controller.tell({ kind: "resyncCopied", task: copying });
    expect(controller.state.sync).toMatchObject({ at: "finished" });
  });
});
