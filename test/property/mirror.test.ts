/**
 * The mirror against a model: any interleaving of writes, reads and flushes, answers of the legs in any order, faults with and without
 * effect, lost power, decisions, and resyncs. What was acknowledged is on every leg in sync or dirty; no read is older than what was
 * acknowledged before it; in the end both legs are the same.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { MirrorDevice } from "../../hal/block/mirror/mirror-device.ts";
import type { LegName } from "../../hal/block/mirror/ports.ts";
import { Resync } from "../../hal/block/mirror/resync.ts";
import { MemoryActivity, MemoryDirty } from "../support/mirror-ports.ts";
import { ScriptedDevice } from "../support/scripted-device.ts";

const blockBytes = 512;
const blocks = 24;
const sizeBytes = blocks * blockBytes;
const grainBytes = 2048;

interface Written {
  readonly number: number;
  readonly first: number;
  readonly count: number;
  acknowledged: boolean;
}

const names: readonly LegName[] = ["local", "remote"];
const otherOf = (name: LegName): LegName => (name === "local" ? "remote" : "local");
/** Lets everything happen that needs nobody's answer. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** How resyncs have ended, in all worlds. */
const ends = new Set<string>();

class World {
  readonly legs: Record<LegName, ScriptedDevice>;
  readonly dirty = new MemoryDirty(sizeBytes, grainBytes);
  readonly activity = new MemoryActivity(4096);
  readonly mirror: MirrorDevice;
  readonly lost: LegName[] = [];
  readonly writes: Written[] = [{ number: 0, first: 0, count: blocks, acknowledged: true }];
  readonly open = new Set<Promise<unknown>>();
  failed = false;
  resync: { end: string | undefined; stop: () => void } | undefined;

  constructor() {
    this.legs = { local: this.#device(), remote: this.#device() };
    this.dirty.prompt = false;
    this.activity.prompt = false;
    const made = MirrorDevice.create({
      ...{ ...this.legs, sizeBytes, blockSizeBytes: blockBytes },
      ...{ dirty: this.dirty, activity: this.activity, unflushedGrainsMax: 5 },
      handlers: { legLost: (leg) => this.lost.push(leg) },
    });
    if (!made.ok) throw new Error(made.fault.message);
    this.mirror = made.value;
  }

  #device(): ScriptedDevice {
    const device = new ScriptedDevice(sizeBytes);
    device.onWrite = (offset, length) => {
      // SAFETY: whatever may be under way when the primary dies is found again.
      for (let at = offset; at < offset + length; at += grainBytes) {
        const range = { offset: at, length: 1 };
        const isDirty = this.dirty.durable.has(Math.floor(at / grainBytes));
        if (!isDirty && !this.activity.covers(range))
          throw new Error(`a write at ${at} unannounced`);
      }
    };
    return device;
  }

  #track(operation: Promise<unknown>): void {
    this.open.add(operation);
    void operation.finally(() => this.open.delete(operation));
  }

  /** Which write a block of a leg is of. */
  holds(device: Buffer, block: number): number {
    return device.readUInt32BE(block * blockBytes);
  }

  write(first: number, count: number, fua: boolean, zero: boolean): void {
    const written: Written = { number: this.writes.length, first, count, acknowledged: false };
    // A write of zeroes is of no number: it is one write behind which the next of the block has to be higher.
    if (zero) {
      this.#track(
        this.mirror.writeZeroes(first * blockBytes, count * blockBytes, { fua, mayTrim: true }),
      );
      this.zeroed.add(first);
      for (let block = first; block < first + count; block += 1) this.zeroed.add(block);
      return;
    }
    this.writes.push(written);
    const data = Buffer.alloc(count * blockBytes);
    for (let block = 0; block < count; block += 1)
      data.writeUInt32BE(written.number, block * blockBytes);
    const answer = this.mirror.write(first * blockBytes, data, { fua });
    this.#track(answer.then((outcome) => this.#acknowledged(written, outcome)));
  }

  /** Blocks that zeroes were written to: nothing is said of their numbers any more. */
  readonly zeroed = new Set<number>();

  #acknowledged(written: Written, outcome: Outcome): void {
    if (!outcome.ok) {
      expect(this.failed).toBe(true);
      return;
    }
    written.acknowledged = true;
    for (const name of names) this.#check(name, written);
  }

  /** What was acknowledged is on every leg in sync, or dirty for one that is not. */
  #check(name: LegName, { number, first, count }: Written): void {
    const state = this.mirror.status.legs[name];
    for (let block = first; block < first + count; block += 1) {
      if (this.zeroed.has(block)) continue;
      const isThere = this.holds(this.legs[name].content, block) >= number;
      const isDirty = this.dirty.durable.has(Math.floor((block * blockBytes) / grainBytes));
      if (state === "out" ? isDirty : isThere || (state === "target" && isDirty)) continue;
      throw new Error(
        `write ${number} was acknowledged, and block ${block} of ${name} (${state}) lacks it`,
      );
    }
  }

  read(first: number, count: number): void {
    const least = this.writes.filter(({ acknowledged }) => acknowledged);
    const answer = this.mirror.read(first * blockBytes, count * blockBytes).then((outcome) => {
      if (!outcome.ok) return expect(this.failed).toBe(true);
      for (let block = first; block < first + count; block += 1) {
        if (this.zeroed.has(block)) continue;
        const of = least.filter((one) => one.first <= block && block < one.first + one.count);
        const got = outcome.value.readUInt32BE((block - first) * blockBytes);
        expect(got).toBeGreaterThanOrEqual(of.at(-1)?.number ?? 0);
      }
    });
    this.#track(answer);
  }

  flush(): void {
    this.#track(this.mirror.flush());
  }

  answer(name: LegName, which: number, how: number): void {
    const { held } = this.legs[name];
    if (held.length === 0) return;
    const one = this.legs[name].take(which % held.length);
    if (how > 1) one.succeed();
    else one.fail(how === 0 ? "effectUnknown" : "ioError", which % 2 === 0);
  }

  /** The controller of a leg is gone and back: what it had not flushed is forgotten, and nobody answers what was asked. */
  losePower(name: LegName): void {
    const device = this.legs[name];
    for (const one of device.held.splice(0)) one.fail("effectUnknown", false);
    device.losePower();
    this.mirror.lose(name, "power");
  }

  async decide(how: number): Promise<void> {
    const { legs } = this.mirror.status;
    const lost = names.find((name) => legs[name] === "lost");
    if (lost === undefined) return;
    if (legs[otherOf(lost)] !== "inSync") {
      expect((await this.mirror.continueWithout(lost)).ok).toBe(false);
      expect((await this.mirror.legBack(lost)).ok).toBe(false);
      this.failed = true;
      this.mirror.fail("both legs are lost");
    } else if (how % 2 === 0) this.#track(this.mirror.continueWithout(lost));
    else this.#track(this.mirror.legBack(lost));
  }

  attach(): void {
    const { legs } = this.mirror.status;
    const out = names.find((name) => legs[name] === "out");
    if (out === undefined || this.resync || legs[otherOf(out)] !== "inSync") return;
    // One that comes back has whatever it has: only what is dirty may differ.
    const mirror = this.mirror;
    const run = { end: undefined as string | undefined, stop: () => {} };
    this.resync = run;
    const works = mirror.attach(out, this.legs[out]).then(async (attached) => {
      const resync = new Resync({
        mirror,
        dirty: this.dirty,
        copyBytes: grainBytes,
        batchBytes: 4096,
      });
      run.stop = () => resync.stop();
      run.end = attached.ok ? await resync.run() : "lost";
      ends.add(run.end);
      if (run.end === "complete") mirror.joined(out);
      this.resync = undefined;
    });
    this.#track(works);
  }

  /** The remote leg answers the last write, loses its power and is attached again, all before the local leg answers. */
  async overtakeLocal(first: number, count: number): Promise<void> {
    const before = this.legs.remote.held.length;
    const { local, remote } = this.mirror.status.legs;
    if (local !== "inSync" || remote !== "inSync" || this.resync) return;
    this.write(first, count, false, false);
    this.persist();
    await turn();
    if (this.legs.remote.held.length > before) this.legs.remote.take(before).succeed();
    await turn();
    this.losePower("remote");
    await turn();
    await this.decide(0);
    await turn();
    while (this.dirty.waiting.length > 0) this.dirty.waiting.shift()?.();
    await turn();
    this.attach();
  }

  persist(): void {
    this.dirty.waiting.shift()?.();
    this.activity.waiting.shift()?.();
  }

  /** Everything answers from now on, and somebody decides, until nothing is left to be done. */
  async mend(): Promise<void> {
    for (const name of names) this.legs[name].prompt = true;
    this.dirty.prompt = true;
    this.activity.prompt = true;
    for (let round = 0; round < 2000; round += 1) {
      for (const name of names) for (const one of this.legs[name].held.splice(0)) one.succeed();
      for (const persist of this.dirty.waiting.splice(0)) persist();
      for (const persist of this.activity.waiting.splice(0)) persist();
      await turn();
      if (this.failed) {
        if (this.open.size === 0) return;
        continue;
      }
      const { legs } = this.mirror.status;
      if (names.some((name) => legs[name] === "lost")) await this.decide(round);
      else if (names.some((name) => legs[name] === "out")) this.attach();
      else if (names.some((name) => legs[name] === "target") && !this.resync) await this.#again();
      else if (this.open.size === 0) return;
    }
    throw new Error(`not mended: ${JSON.stringify(this.mirror.status)}, ${this.open.size} open`);
  }

  /** A resync that was stopped is begun again where it was. */
  async #again(): Promise<void> {
    const end = await new Resync({ mirror: this.mirror, dirty: this.dirty }).run();
    expect(end).toBe("complete");
    const target = names.find((name) => this.mirror.status.legs[name] === "target");
    if (target) expect(this.mirror.joined(target).ok).toBe(true);
  }
}

const step = fc.record({
  what: fc.integer({ min: 0, max: 99 }),
  at: fc.nat(blocks - 1),
  count: fc.integer({ min: 1, max: 6 }),
  leg: fc.constantFrom(...names),
  which: fc.nat(7),
  how: fc.nat(19),
});

async function perform(
  world: World,
  { what, at, count, leg, which, how }: typeof step extends fc.Arbitrary<infer T> ? T : never,
): Promise<void> {
  const length = Math.min(count, blocks - at);
  if (what < 25) world.write(at, length, how === 0, false);
  else if (what < 27) world.write(at, length, false, true);
  else if (what < 33) world.read(at, length);
  else if (what < 37) world.flush();
  else if (what < 72) world.answer(leg, which, how);
  else if (what < 84) world.persist();
  else if (what < 86) world.losePower(leg);
  else if (what < 92) await world.decide(how);
  else if (what < 97) world.attach();
  else if (what < 98) await world.overtakeLocal(at, length);
  else world.resync?.stop();
  await turn();
}

describe("the mirror, whatever happens", () => {
  test("loses nothing that it acknowledged, and its legs become the same", async () => {
    let [whole, failures] = [0, 0];
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 20, maxLength: 150, size: "max" }),
        async (steps) => {
          const world = new World();
          for (const one of steps) await perform(world, one);
          await world.mend();
          if (world.failed) {
            failures += 1;
            return;
          }
          whole += 1;
          expect((await world.mirror.flush()).ok).toBe(true);
          for (const name of names) world.legs[name].losePower();
          const { local, remote } = world.legs;
          expect(local.content.equals(remote.content)).toBe(true);
          expect(world.mirror.status).toMatchObject({ held: 0, active: 0, dirtyBytes: 0 });
          for (const written of world.writes)
            for (let block = written.first; block < written.first + written.count; block += 1)
              if (written.acknowledged && !world.zeroed.has(block))
                expect(world.holds(local.content, block)).toBeGreaterThanOrEqual(written.number);
        },
      ),
      { numRuns: 400 },
    );
    // Every end was come to: none is checked by accident only.
    expect([...ends].sort()).toEqual(["complete", "lost", "stopped"]);
    expect(whole).toBeGreaterThan(100);
    expect(failures).toBeGreaterThan(10);
  });
});
