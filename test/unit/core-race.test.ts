/**
 * Arbitration, exhaustively: every order in which the commands and answers of two racers can happen on three disks of the SPC-4 model.
 * Never do both win; and whenever a majority answers, one of them does.
 */
import { describe, expect, test } from "vitest";
import {
  type Race,
  raceAnswer,
  raceDeadline,
  raceDisk,
  raceSummary,
  raceTurns,
  raceVerdict,
  startRace,
} from "../../firmware-ts/core/arbitration.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import { makeKey } from "../../firmware-ts/core/keys.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import { NO_RESERVATIONS, type Reservations } from "../../hal/shelf/disk/reservations.ts";
import { performOn } from "../../hal/sim/shelf.ts";

const pairId = 17;
const coordinators = ["c1", "c2", "c3"];
const keys = {
  a: makeKey({ controller: "a", pairId, epoch: 3 }),
  b: makeKey({ controller: "b", pairId, epoch: 4 }),
};
const type = "writeExclusiveAllRegistrants";

/** A command on its way to a disk, or its answer on the way back. */
interface Errand {
  readonly who: ControllerId;
  readonly serial: string;
  readonly command?: ReservationCommand;
  readonly answer?: ReservationAnswer;
  /** Of a registration, not of a race. */
  readonly apart?: boolean;
}

interface World {
  readonly races: Readonly<Partial<Record<ControllerId, Race>>>;
  readonly disks: Readonly<Record<string, Reservations>>;
  readonly errands: readonly Errand[];
  /** What the racers' clocks say. Time goes by only when nothing else can happen: the disks are faster than every wait. */
  readonly nowMs: number;
}

function registered(...whos: ControllerId[]): Reservations {
  let reservations = NO_RESERVATIONS;
  for (const who of whos) {
    const register = { op: "register", key: keys[who] } as const;
    const reserve = { op: "reserve", key: keys[who], type } as const;
    reservations = performOn(reservations, who, register).reservations;
    reservations = performOn(reservations, who, reserve).reservations;
  }
  return reservations;
}

function errandsOf(who: ControllerId, race: Race, effects: readonly Effect[]): Errand[] {
  return effects.map((effect) => {
    if (effect.kind !== "reserve") throw new Error(`a race asked for ${effect.kind}`);
    expect(raceDisk(race, effect.token)).toBe(effect.serial);
    return { who, serial: effect.serial, command: effect.command };
  });
}

function begin(racers: readonly ControllerId[]): World {
  const disks = Object.fromEntries(coordinators.map((serial) => [serial, registered("a", "b")]));
  const races: Partial<Record<ControllerId, Race>> = {};
  const errands: Errand[] = [];
  for (const who of racers) {
    const setup = {
      id: 1,
      me: who,
      pairId,
      key: keys[who],
      coordinators,
      nowMs: 0,
      timeoutMs: 500,
    };
    const [race, effects] = startRace(setup);
    races[who] = race;
    errands.push(...errandsOf(who, race, effects));
  }
  return { races, disks, errands, nowMs: 0 };
}

/** What happens on a dead disk, or one that keeps silent. */
type Ill = Readonly<Record<string, "dead" | "silent">>;

/** One errand goes one step further. */
function advance(world: World, errand: Errand, ill: Ill): World {
  const rest = world.errands.filter((each) => each !== errand);
  const { who, serial } = errand;
  if (errand.command) {
    if (ill[serial] === "dead") {
      const answer = { status: "failed", reason: "dead" } as const;
      return { ...world, errands: [...rest, { who, serial, answer }] };
    }
    const disk = world.disks[serial] ?? NO_RESERVATIONS;
    const { reservations, answer } = performOn(disk, who, errand.command);
    const disks = { ...world.disks, [serial]: reservations };
    return { ...world, disks, errands: [...rest, { who, serial, answer }] };
  }
  const race = world.races[who];
  if (!race || !errand.answer) throw new Error("an answer for nobody");
  const [next, effects] = raceAnswer(race, serial, errand.answer, world.nowMs);
  return {
    ...world,
    races: { ...world.races, [who]: next },
    errands: [...rest, ...errandsOf(who, next, effects)],
  };
}

/** Time goes by for one racer. */
function tick(world: World, who: ControllerId, nowMs: number): World {
  const race = world.races[who];
  if (!race) return world;
  const [next, effects] = raceTurns(race, nowMs);
  const errands = [...world.errands, ...errandsOf(who, next, effects)];
  return { ...world, races: { ...world.races, [who]: next }, errands };
}

/** Longer than every wait of a race, and shorter than its deadline. */
const lateMs = 60;
const tickMs = 10;

function later(world: World): World[] {
  const nowMs = world.nowMs + tickMs;
  if (nowMs > lateMs) return [];
  return (["a", "b"] as const).map((first) => {
    const second = first === "a" ? "b" : "a";
    return { ...tick(tick(world, first, nowMs), second, nowMs), nowMs };
  });
}

const verdict = (race: Race | undefined) => (race ? raceVerdict(race) : "lost");

/** Follows every order; `ended` is asked at each end, `always` everywhere. Gives the number of different worlds. */
function explore(
  start: World,
  ill: Ill,
  ended: (world: World) => void,
  more: (world: World) => World[] = () => [],
): number {
  const seen = new Set<string>();
  const waiting = [start];
  for (let world = waiting.pop(); world; world = waiting.pop()) {
    const name = JSON.stringify([
      world.nowMs,
      world.races,
      world.errands.map((e) => JSON.stringify(e)).toSorted(),
      registeredOn(world),
    ]);
    if (seen.has(name)) continue;
    seen.add(name);
    expect([verdict(world.races.a), verdict(world.races.b)]).not.toEqual(["won", "won"]);
    const moving = world.errands.filter((e) => !(e.command && ill[e.serial] === "silent"));
    for (const errand of moving) waiting.push(advance(world, errand, ill));
    const others = more(world);
    waiting.push(...others);
    if (moving.length > 0 || others.length > 0) continue;
    const after = later(world);
    waiting.push(...after);
    if (after.length === 0) ended(world);
  }
  return seen.size;
}

function registeredOn(world: World): string[] {
  return coordinators.map((serial) => {
    const held = world.disks[serial]?.registrations;
    return `${serial}=${[...(held ?? [])].map(([, { key }]) => key.toString(16)).join("+")}`;
  });
}

function oneWins(world: World): void {
  const races = [world.races.a, world.races.b].map(
    (race) => race && raceDeadline(race, Number.MAX_SAFE_INTEGER),
  );
  expect(races.map(verdict).toSorted()).toEqual(["lost", "won"]);
}

describe("two racers, three disks, every order", () => {
  test("all disks answer: exactly one wins", () => {
    expect(explore(begin(["a", "b"]), {}, oneWins)).toBeGreaterThan(1000);
  });

  test.each(coordinators)("%s is dead: exactly one wins", (serial) => {
    expect(explore(begin(["a", "b"]), { [serial]: "dead" }, oneWins)).toBeGreaterThan(100);
  });

  test.each(coordinators)("%s keeps silent: exactly one wins, without waiting for it", (serial) => {
    expect(explore(begin(["a", "b"]), { [serial]: "silent" }, oneWins)).toBeGreaterThan(100);
  });

  test("two disks are dead: nobody wins", () => {
    explore(begin(["a", "b"]), { c1: "dead", c3: "dead" }, (world) => {
      expect([verdict(world.races.a), verdict(world.races.b)]).toEqual(["lost", "lost"]);
    });
  });

  test("only one races: it wins", () => {
    explore(begin(["a"]), { c2: "dead" }, (world) => expect(verdict(world.races.a)).toBe("won"));
  });

  test("a partner that restarts meanwhile, under another key, does not make the racer lose", () => {
    const key = makeKey({ controller: "b", pairId, epoch: 9 });
    const again = (world: World) =>
      coordinators
        .filter((serial) => {
          const held = world.disks[serial]?.registrations ?? new Map();
          return ![...held.values()].some((each) => each.key === BigInt(`0x${key}`));
        })
        .map((serial) => {
          const disk = world.disks[serial] ?? NO_RESERVATIONS;
          const { reservations } = performOn(disk, "b", { op: "register", key });
          return { ...world, disks: { ...world.disks, [serial]: reservations } };
        })
        .filter(() => verdict(world.races.a) === "pending");
    explore(begin(["a"]), {}, (world) => expect(verdict(world.races.a)).toBe("won"), again);
  });
});

/**
 * a has no registration on c1 yet, b no path to c3, and a asks for its registration whenever it likes and races after it. b races whenever it
 * likes; until then it may say that it does not (a beat that grants). `counts` judges c1 for a by what a has heard.
 */
interface Fight extends World {
  readonly registration: "none" | "asked" | "answered";
  /** b has said so after a's registration was answered. */
  readonly peace: boolean;
}

function fight(counts: (world: Fight) => boolean): { both: number; onlyA: number } {
  const disks = { c1: registered("b"), c2: registered("a", "b"), c3: registered("a", "b") };
  const start: Fight = {
    races: {},
    disks,
    errands: [],
    nowMs: 0,
    registration: "none",
    peace: false,
  };
  const seen = new Set<string>();
  const waiting = [start];
  const found = { both: 0, onlyA: 0 };
  for (let world = waiting.pop(); world; world = waiting.pop()) {
    const { races, errands, registration, peace } = world;
    const name = JSON.stringify([
      world.nowMs,
      races,
      errands.map((e) => JSON.stringify(e)).toSorted(),
      registration,
      peace,
      registeredOn(world),
    ]);
    if (seen.has(name)) continue;
    seen.add(name);
    const won = { a: verdict(races.a) === "won", b: verdict(races.b) === "won" };
    if (won.a && won.b) found.both += 1;
    if (won.a && !races.b) found.onlyA += 1;
    waiting.push(...movesOf(world, counts));
  }
  return found;
}

function movesOf(world: Fight, counts: (world: Fight) => boolean): Fight[] {
  const { races, registration } = world;
  const moves = world.errands.map((errand) => fightOn(world, errand, counts));
  for (const who of ["a", "b"] as const)
    if (!races[who] && (who === "b" || registration === "answered")) {
      const began = begin([who]);
      const errands = [...world.errands, ...began.errands];
      moves.push({ ...world, races: { ...races, ...began.races }, errands });
    }
  const register: Errand = {
    who: "a",
    serial: "c1",
    command: { op: "register", key: keys.a },
    apart: true,
  };
  if (registration === "none")
    moves.push({ ...world, registration: "asked", errands: [...world.errands, register] });
  if (registration === "answered" && !races.a && !races.b && !world.peace)
    moves.push({ ...world, peace: true });
  return moves.length > 0 ? moves : later(world).map((each) => ({ ...world, ...each }));
}

function fightOn(world: Fight, errand: Errand, counts: (world: Fight) => boolean): Fight {
  const rest = world.errands.filter((each) => each !== errand);
  if (errand.apart && errand.answer) return { ...world, registration: "answered", errands: rest };
  if (errand.apart) {
    const { serial, who } = errand;
    const command = { op: "register", key: keys.a } as const;
    const { reservations, answer } = performOn(
      world.disks[serial] ?? NO_RESERVATIONS,
      who,
      command,
    );
    const disks = { ...world.disks, [serial]: reservations };
    return { ...world, disks, errands: [...rest, { who, serial, answer, apart: true }] };
  }
  if (errand.who === "b" && errand.serial === "c3")
    return { ...world, ...advance(world, errand, { c3: "dead" }) };
  const young = errand.who === "a" && errand.serial === "c1" && errand.answer && !counts(world);
  if (!young) return { ...world, ...advance(world, errand, {}) };
  const answer = { status: "failed", reason: "registered too lately" } as const;
  const failing = { ...errand, answer };
  const errands = [...rest, failing];
  return { ...world, ...advance({ ...world, errands }, failing, {}) };
}

describe("a registration made while the partner may race, every order", () => {
  test("both win if it counts as soon as it is answered", () => {
    expect(fight(({ registration }) => registration === "answered").both).toBeGreaterThan(0);
  });

  test("at most one wins if it counts once the partner has granted something after it", () => {
    const { both, onlyA } = fight(({ peace }) => peace);
    expect(both).toBe(0);
    expect(onlyA).toBeGreaterThan(0);
  });
});

describe("a race", () => {
  test("refuses an even number of coordinators", () => {
    const setup = { id: 1, me: "a", pairId, key: keys.a, nowMs: 0, timeoutMs: 500 } as const;
    expect(() => startRace({ ...setup, coordinators: ["c1", "c2"] })).toThrow("even");
  });

  test("counts answers after the deadline for nobody", () => {
    const race = begin(["a"]).races.a;
    if (!race) throw new Error("no race");
    expect(raceDeadline(race, 499)).toBe(race);
    const late = raceDeadline(race, 500);
    expect(raceVerdict(late)).toBe("lost");
    const [after, effects] = raceAnswer(late, "c1", { status: "good" }, 501);
    expect([after, effects]).toEqual([late, []]);
    expect(raceSummary(late)).toMatchObject({ c1: "failed: no answer in time" });
  });

  test("knows its own tokens only", () => {
    const race = begin(["a"]).races.a;
    if (!race) throw new Error("no race");
    expect(raceDisk(race, "race:1:c2")).toBe("c2");
    expect(raceDisk(race, "race:2:c2")).toBeUndefined();
  });

  test("learns the highest epoch in the keys", () => {
    explore(begin(["a"]), {}, (world) => expect(world.races.a?.epochSeen).toBe(4));
  });
});
