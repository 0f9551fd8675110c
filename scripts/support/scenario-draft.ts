/**
 * From the journals of a pair to the draft of a scenario. Events that come from outside become orders at once (a command, a carrier, a path,
 * a service that died, a work that failed). What a controller only suffers is explained by its cause: a lost partner was killed,
 * crashed, frozen, or cut off. With the partner's journal the cause is known; without it, the likeliest is taken.
 */
import type { LossReason } from "../../firmware-ts/core/beat-types.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import { type Config, configSchema } from "../../firmware-ts/schema/config.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { muteNoticedMs } from "../../hal/sim/served-faults.ts";

export interface JournalEntry {
  readonly header?: { readonly config: unknown } | undefined;
  /** Wall clock, by which the journals of two machines are put side by side. */
  readonly at?: string | undefined;
  readonly event?: ControllerEvent | undefined;
  readonly effects?: readonly Effect[] | undefined;
}

export interface JournalOf {
  readonly who: ControllerId;
  readonly entries: readonly JournalEntry[];
}

interface Order {
  readonly atMs: number;
  readonly text: string;
}

/** One life of a process: from its header to the next one. */
interface Life {
  readonly who: ControllerId;
  readonly moments: readonly Moment[];
}

interface Moment {
  readonly atMs: number;
  readonly event: ControllerEvent;
  readonly effects: readonly Effect[];
}

/** A controller of the simulated world boots this long after its start. */
const bootMs = 20;

/** What is left running after the last order. */
const restMs = 3000;

export function draftScenario(journals: readonly JournalOf[], lastMs?: number): string {
  const config = configOf(journals);
  const lives = journals.flatMap(livesOf);
  if (!config || lives.length === 0) throw new Error("the journals hold no life of a controller");
  const names = new Names(config);
  const orders = lives.flatMap((life) => [...ordersOf(life, names), ...endOf(life, lives)]);
  orders.push(...survivedLosses(lives));
  const known = new Set(journals.map(({ who }) => who));
  for (const who of ["a", "b"] as const)
    if (!known.has(who)) orders.push(...guesses(partnerOf(who), lives));
  orders.sort((one, other) => one.atMs - other.atMs);
  return write(shortened(orders, lastMs), names, known);
}

function configOf(journals: readonly JournalOf[]): Config | undefined {
  for (const { entries } of journals)
    for (const { header } of entries) if (header) return configSchema.parse(header.config);
  return undefined;
}

function livesOf({ who, entries }: JournalOf): Life[] {
  const lives: { who: ControllerId; moments: Moment[] }[] = [];
  let offsetMs: number | undefined;
  for (const { header, at, event, effects } of entries) {
    // A file that was begun in the middle of a life has a header too; only a boot begins one.
    if (header) continue;
    if (!event) continue;
    if (event.kind === "boot") {
      lives.push({ who, moments: [] });
      offsetMs = undefined;
    }
    offsetMs ??= at === undefined ? 0 : Date.parse(at) - event.nowMs;
    lives.at(-1)?.moments.push({ atMs: event.nowMs + offsetMs, event, effects: effects ?? [] });
  }
  return lives.filter(({ moments }) => moments.length > 0);
}

/** The names of the simulated world for those of the field. */
class Names {
  readonly #servers = new Map<string, string>();
  readonly #disks = new Map<string, string>();
  readonly coordinators: number;
  readonly setup: readonly string[];
  readonly notes: string[] = [];

  constructor(config: Config) {
    const known = { a: ["alpha", "d1"], b: ["beta", "d2"] } as const;
    for (const { name, home, volumes } of config.virtualServers) {
      const [server, disk] = known[home];
      if ([...this.#servers.values()].includes(server)) {
        this.notes.push(`${name} is left out: this world has one virtual server for each home`);
        continue;
      }
      this.#servers.set(name, server);
      for (const volume of volumes) this.#disks.set(volume.disk, disk);
      this.notes.push(`${name} is ${server}`);
    }
    const { coordinators } = config.shelf;
    coordinators.forEach((serial, index) => void this.#disks.set(serial, `c${index + 1}`));
    this.coordinators = coordinators.length;
    this.setup = [
      ...(coordinators.length === 3 ? [] : [`coordinators=${coordinators.length}`]),
      ...(config.links.serial ? [] : ["no-serial"]),
      ...(config.autoGiveback ? ["auto-giveback"] : []),
    ];
  }

  server(name: string | undefined): string | undefined {
    return name === undefined ? undefined : this.#servers.get(name);
  }

  disk(serial: string): string | undefined {
    return this.#disks.get(serial);
  }
}

/** What the journal of one life shows. */
function ordersOf({ who, moments }: Life, names: Names): Order[] {
  const orders: Order[] = [];
  const works = new Map<string, string>();
  let carrier: boolean | undefined;
  for (const { atMs, event, effects } of moments) {
    const order = (text: string | undefined) => {
      if (text !== undefined) orders.push({ atMs, text });
    };
    if (event.kind === "boot") orders.push({ atMs: atMs - bootMs, text: `start ${who}` });
    else if (event.kind === "carrier") {
      // The first word is how the world begins: with a carrier.
      if (carrier !== undefined || !event.up) order(`nic ${who} ${event.up ? "up" : "down"}`);
      carrier = event.up;
    } else if (event.kind === "done") order(troubleOf(who, event, works.get(event.token)));
    else {
      const text = orderOf(who, event, names);
      const noticedMs = event.kind === "serviceHung" ? muteNoticedMs : 0;
      if (text !== undefined) orders.push({ atMs: atMs - noticedMs, text });
    }
    for (const effect of effects)
      if (effect.kind === "work") works.set(effect.token, effect.work.op);
  }
  return orders;
}

function orderOf(who: ControllerId, event: ControllerEvent, names: Names): string | undefined {
  switch (event.kind) {
    case "diskPath": {
      const disk = names.disk(event.serial);
      return disk && `path ${who} ${event.up ? "up" : "down"} ${disk}`;
    }
    case "deviceLost": {
      const disk = names.disk(event.serial);
      return disk && `device ${who} ${disk}`;
    }
    case "volumeFailed": {
      const disk = names.disk(event.serial);
      return disk && `break ${who} ${disk}`;
    }
    case "serviceExited": {
      const server = names.server(event.virtualServer);
      return server && `die ${who} ${server}`;
    }
    case "addressLost": {
      const server = names.server(event.virtualServer);
      return server && `unaddress ${who} ${server}`;
    }
    case "serviceHung": {
      const server = names.server(event.virtualServer);
      return server && `mute ${who} ${server}`;
    }
    case "shutdown":
      return `shutdown ${who}`;
    case "command": {
      // What an administrator changes has no order of its own: the script would need all of the definition.
      if (event.command.kind === "change") return undefined;
      const { kind, virtualServer, request } = event.command;
      const server = names.server(virtualServer);
      if (kind === "transfer" && server === undefined) return undefined;
      const flags = [...(request.dryRun ? ["dry"] : []), ...(request.force ? ["force"] : [])];
      return [kind, who, ...(server ? [server] : []), ...flags].join(" ");
    }
    default:
      return undefined;
  }
}

/** A work that failed by itself, not because the disk is another's by then. */
function troubleOf(
  who: ControllerId,
  { outcome }: Extract<ControllerEvent, { kind: "done" }>,
  op: string | undefined,
): string | undefined {
  if (outcome.ok || op === undefined || outcome.fault.code === "fenced") return undefined;
  return `# ${who}: ${op} failed here (${outcome.fault.code}: ${outcome.fault.message}); to have it fail, earlier: fail ${who} ${op} 1`;
}

/** How a life ended, if it ended: by its own exit, or struck down between two events. */
function endOf(life: Life, lives: readonly Life[]): Order[] {
  const last = life.moments.at(-1);
  if (!last || last.effects.some(({ kind }) => kind === "exit")) return [];
  const next = lives.find((each) => each.who === life.who && startOf(each) > startOf(life));
  const others = lives.filter(({ who }) => who !== life.who);
  const lost = others
    .flatMap(({ moments }) => moments)
    .find(({ atMs, event }) => isLoss(event) && atMs > last.atMs - restMs && atMs > startOf(life));
  if (!next && !lost) return [];
  // Beats are no events: it lived until shortly before it was missed, or until it was started again.
  const endMs = Math.min(lost ? lost.atMs - 100 : Infinity, next ? startOf(next) - 1 : Infinity);
  if (endMs < last.atMs && next === undefined) return [];
  // Only a beat process that outlives its main process has last words.
  const how = lost && reasonOf(lost.event) === "dyingGasp" ? "crash" : "kill";
  return [{ atMs: Math.max(last.atMs, endMs), text: `${how} ${life.who}` }];
}

/** A loss that both journals saw: two that lose each other are cut off, one that is lost and goes on had stopped. */
function survivedLosses(lives: readonly Life[]): Order[] {
  const orders: Order[] = [];
  let mendedMs = Number.NEGATIVE_INFINITY;
  const losses = lives.flatMap((life) =>
    life.moments.filter(({ event }) => isLoss(event)).map((moment) => ({ life, moment })),
  );
  losses.sort((one, other) => one.moment.atMs - other.moment.atMs);
  for (const { life, moment } of losses) {
    const lost = lives.find((each) => each.who !== life.who && livesThrough(each, moment.atMs));
    const reason = reasonOf(moment.event);
    if (!lost || moment.atMs < mendedMs || (reason !== "silent" && reason !== "stalled")) continue;
    const isMutual = lost.moments.some(
      ({ atMs, event }) => isLoss(event) && Math.abs(atMs - moment.atMs) < mutualMs,
    );
    const after = isMutual ? heardAfter(lives, moment.atMs) : afterOf(lost, moment.atMs);
    mendedMs = after?.atMs ?? Number.POSITIVE_INFINITY;
    const what = `${lost.who}${reason === "stalled" ? " main" : ""}`;
    const [texts, back] = isMutual
      ? [
          ["cut links", "blind a b"],
          ["mend links", "see a b"],
        ]
      : [[`freeze ${what}`], [`thaw ${what}`]];
    const fromMs = Math.max(moment.atMs - 100, isMutual ? 0 : beforeMs(lost, moment.atMs));
    orders.push(...texts.map((text) => ({ atMs: fromMs, text })));
    if (after) orders.push(...back.map((text) => ({ atMs: after.atMs - 1, text })));
  }
  return orders;
}

/** Two that are cut off lose each other within this time. */
const mutualMs = 300;

const livesThrough = ({ moments }: Life, atMs: number) =>
  (moments[0]?.atMs ?? Infinity) < atMs && (moments.at(-1)?.atMs ?? 0) > atMs;

const afterOf = ({ moments }: Life, atMs: number) => moments.find((each) => each.atMs > atMs);

const beforeMs = ({ moments }: Life, atMs: number) =>
  moments.findLast((each) => each.atMs < atMs)?.atMs ?? 0;

/** When either hears the other again. */
function heardAfter(lives: readonly Life[], atMs: number): Moment | undefined {
  const heard = lives
    .flatMap(({ moments }) => moments)
    .filter(({ event }) => event.kind === "seen" && event.observation.kind === "partner")
    .filter((each) => each.atMs > atMs);
  return heard.sort((one, other) => one.atMs - other.atMs)[0];
}

const startOf = ({ moments }: Life) => (moments[0]?.atMs ?? 0) - bootMs;

function reasonOf(event: ControllerEvent): LossReason | undefined {
  if (event.kind !== "seen" || event.observation.kind !== "partnerLost") return undefined;
  return event.observation.reason;
}

const isLoss = (event: ControllerEvent) => reasonOf(event) !== undefined;

/** What may have happened to a controller whose journal is not here, from what the other saw of it. */
function guesses(witness: ControllerId, lives: readonly Life[]): Order[] {
  const who = partnerOf(witness);
  const orders: Order[] = [];
  let session: number | undefined;
  let undo: string | undefined;
  const begunMs = Math.min(...lives.map(startOf));
  for (const { atMs, event } of lives.flatMap(({ moments }) => moments)) {
    if (event.kind !== "seen") continue;
    const { observation } = event;
    if (observation.kind === "partner" && undo !== undefined) {
      const same = session === observation.view.session;
      orders.push({ atMs: atMs - (same ? 1 : 2 * bootMs), text: same ? undo : `start ${who}` });
      undo = undefined;
    } else if (observation.kind === "partner" && session === undefined)
      orders.push({ atMs: Math.max(atMs - 2 * bootMs, begunMs), text: `start ${who}` });
    if (observation.kind === "partner") session = observation.view.session;
    if (observation.kind !== "partnerLost") continue;
    const heardAgain = lives
      .flatMap(({ moments }) => moments)
      .find((each) => each.atMs > atMs && isView(each.event, session));
    const [text, back] = causeOf(observation.reason, who, heardAgain !== undefined);
    orders.push({ atMs: atMs - (observation.reason === "silent" ? 100 : 1), text });
    undo = back;
  }
  return orders;
}

function isView(event: ControllerEvent, session: number | undefined): boolean {
  if (event.kind !== "seen" || event.observation.kind !== "partner") return false;
  return event.observation.view.session === session;
}

/** An order that gives a loss of this kind, and the one that ends it. */
function causeOf(
  reason: LossReason,
  who: ControllerId,
  comesBack: boolean,
): readonly [string, string] {
  switch (reason) {
    case "silent":
      return comesBack ? ["cut links", "mend links"] : [`kill ${who}`, `start ${who}`];
    case "stalled":
      return [`freeze ${who} main`, `thaw ${who} main`];
    case "dyingGasp":
      return [`crash ${who}`, `start ${who}`];
    case "goodbye":
      return [`shutdown ${who}`, `start ${who}`];
    case "restarted":
      return [`kill ${who}`, `start ${who}`];
    default:
      throw new Error(`unknown loss ${String(reason)}`);
  }
}

/** Only the end of a long story, after both have started. */
function shortened(orders: readonly Order[], lastMs: number | undefined): readonly Order[] {
  const endMs = orders.at(-1)?.atMs ?? 0;
  if (lastMs === undefined) return orders;
  const fromMs = endMs - lastMs;
  const starts = new Map<string, string>();
  for (const { atMs, text } of orders)
    if (atMs < fromMs && /^(start|kill|crash|shutdown) /.test(text))
      starts.set(text.slice(-1), text);
  const running = [...starts.values()].filter((text) => text.startsWith("start"));
  const settledMs = fromMs - restMs;
  const before = running.map((text) => ({ atMs: settledMs, text }));
  return [...before, ...orders.filter(({ atMs }) => atMs >= fromMs)];
}

function write(orders: readonly Order[], names: Names, known: ReadonlySet<ControllerId>): string {
  const lines = [`# Drafted from a journal of the field. ${names.notes.join("; ")}.`];
  if (known.size === 1)
    lines.push(
      `# Only the journal of ${[...known][0]} was there: what befell the other is a guess.`,
    );
  if (names.setup.length > 0) lines.push(`pair ${names.setup.join(" ")}`);
  let nowMs = orders[0]?.atMs ?? 0;
  for (const { atMs, text } of orders) {
    const waitMs = Math.round((atMs - nowMs) * 10) / 10;
    if (waitMs > 0) {
      lines.push(`run ${waitMs}`);
      nowMs += waitMs;
    }
    lines.push(text);
  }
  lines.push(`run ${restMs}`, "show");
  return lines.join("\n");
}
