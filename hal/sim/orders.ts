/** The orders of scenario scripts, one line each: what befalls the pair, what goes by, and what is shown. */
import { makeKey, parseKey } from "../../firmware-ts/core/keys.ts";
import { statusOf } from "../../firmware-ts/core/show.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { orderChange } from "./change-order.ts";
import { strike } from "./chaos.ts";
import type { Client } from "./client.ts";
import { ids, type Pair } from "./pair.ts";
import { breakVolume, loseAddresses, loseDevice, muteService } from "./served-faults.ts";
import type { Wire } from "./wires.ts";
import type { WorkName } from "./works.ts";

type Words = readonly string[];

const orders: Readonly<Record<string, (pair: Pair, words: Words) => void>> = {
  start: (pair, whos) => each(whos, (who) => pair.start(who)),
  kill: (pair, whos) => each(whos, (who) => pair.kill(who)),
  crash: (pair, whos) => each(whos, (who) => pair.crash(who)),
  power: (pair, whos) => each(whos, (who) => pair.power(who)),
  forget: (pair, whos) => each(whos, (who) => pair.forget(who)),
  shutdown: (pair, whos) =>
    each(whos, (who) => alive(pair, who).happen({ kind: "shutdown", reason: "asked to stop" })),
  freeze: (pair, [who, what]) => pair.freeze(whoOf(who), partOf(what)),
  thaw: (pair, [who, what]) => pair.thaw(whoOf(who), partOf(what)),
  disagree: (pair) => pair.disagree(1),
  cut: (pair, words) => wires(pair, words, true),
  mend: (pair, words) => wires(pair, words, false),
  path: path,
  blind: (pair, whos) => each(whos, (who) => pair.shelf.setBlind(who, true)),
  see: (pair, whos) => each(whos, (who) => pair.shelf.setBlind(who, false)),
  disk: (pair, [serial, how]) => pair.shelf.setAlive(text(serial), how === "alive"),
  device: (pair, [who, serial]) => loseDevice(pair, whoOf(who), text(serial)),
  unaddress: (pair, [who, name]) => loseAddresses(pair, whoOf(who), serverOf(pair, name).name),
  break: (pair, [who, serial]) => breakVolume(pair, whoOf(who), text(serial)),
  nic: (pair, [who, how]) => pair.dataLink(whoOf(who), how === "up"),
  die: (pair, [who, name]) =>
    strike(pair, { do: "die", who: whoOf(who), server: serverOf(pair, name).name }),
  mute: (pair, [who, name]) => muteService(pair, whoOf(who), serverOf(pair, name).name),
  fail: (pair, [who, op, count]) =>
    alive(pair, whoOf(who)).works.trouble.set(op as WorkName, {
      kind: "fail",
      left: Number(count ?? 1),
    }),
  hang: (pair, [who, op]) =>
    alive(pair, whoOf(who)).works.trouble.set(op as WorkName, { kind: "hang" }),
  release: (pair, [who, op]) => alive(pair, whoOf(who)).works.release(op as WorkName),
  takeover: (pair, words) => command(pair, "takeover", words),
  giveback: (pair, words) => command(pair, "giveback", words),
  transfer: (pair, words) => command(pair, "transfer", words),
  change: (pair, [who, ...words]) => orderChange(pair, whoOf(who), words),
  definitions: (pair, whos) => each(whos, (who) => definitions(pair, who)),
  volume: (pair, disks) => {
    for (const disk of disks) volume(pair, disk);
  },
  replay: replay,
  hold: (pair, [link, , to]) => pair.wires.hold(wireOf(link), whoOf(to)),
  let: letGo,
  stranger: stranger,
  refused: (pair, whos) => each(whos, (who) => refused(pair, who)),
  keys: (pair, [disk]) => keys(pair, text(disk)),
  port: (pair, [who, how]) => {
    pair.lan.ports[whoOf(who)] = how === "open";
  },
  arp: (pair, [who, how]) => pair.lan.keep(whoOf(who), how === "held"),
  clients: clients,
  newcomer: (pair, [name]) => pair.newClient(addressOf(pair, name)),
  gone: (pair, numbers) => {
    for (const id of numbers) clientOf(pair, id).stop();
  },
  events: (pair, [count]) => pair.runEvents(Number(text(count))),
  run: (pair, [time]) => pair.run(milliseconds(time)),
  until: until,
  show: (pair) => show(pair),
  status: (pair, whos) => each(whos, (who) => status(pair, who)),
};

/** The first words of all lines that a script may have, but for the comments and the set-up. */
export const orderNames: readonly string[] = Object.keys(orders);

/** Carries out one line of a script. */
export function obey(pair: Pair, [order, ...words]: Words): void {
  const run = orders[order ?? ""];
  if (!run) throw new Error(`script: no command ${order}`);
  run(pair, words);
}

function text(word: string | undefined): string {
  if (word === undefined) throw new Error("script: a word is missing");
  return word;
}

function whoOf(word: string | undefined): ControllerId {
  if (word !== "a" && word !== "b") throw new Error(`script: expected a or b, found ${word}`);
  return word;
}

function each(words: Words, act: (who: ControllerId) => void): void {
  for (const word of words) act(whoOf(word));
}

function alive(pair: Pair, who: ControllerId) {
  const controller = pair.controllers[who];
  if (!controller) throw new Error(`script: ${who} was not started`);
  return controller;
}

function partOf(word: string | undefined): "all" | "main" | "beat" {
  if (word === undefined || word === "all") return "all";
  if (word !== "main" && word !== "beat") throw new Error(`script: cannot freeze ${word}`);
  return word;
}

function milliseconds(word: string | undefined): number {
  const match = /^(\d+(?:\.\d+)?)(s?)$/.exec(text(word));
  if (!match) throw new Error(`script: no duration: ${word}`);
  return Number(match[1]) * (match[2] === "s" ? 1000 : 1);
}

/** `cut serial`, `cut network to a`, `cut links`. */
function wires(pair: Pair, [what, , to]: Words, cut: boolean): void {
  const links = what === "links" ? (["serial", "network"] as const) : [text(what)];
  for (const link of links) {
    if (link !== "serial" && link !== "network") throw new Error(`script: no wire ${link}`);
    for (const who of to === undefined ? ids : [whoOf(to)]) pair.cut(link, who, cut);
  }
}

/** `path a down d1`, `path b up all`, `path a down coordinators`. */
function path(pair: Pair, [who, how, what]: Words): void {
  const groups: Record<string, readonly string[]> = {
    all: [...pair.coordinators, ...pair.dataDisks],
    coordinators: pair.coordinators,
  };
  for (const serial of groups[text(what)] ?? [text(what)])
    pair.path(whoOf(who), serial, how === "up");
}

function command(pair: Pair, kind: "takeover" | "giveback" | "transfer", words: Words): void {
  const [who, ...rest] = words;
  const virtualServer = kind === "transfer" ? { virtualServer: text(rest[0]) } : {};
  const request = {
    dryRun: rest.includes("dry"),
    force: rest.includes("force"),
    reason: rest.includes("force") ? "the operator insists" : "",
  };
  alive(pair, whoOf(who)).command({ kind, ...virtualServer, request });
}

/** Gives a controller everything again that its wires brought it lately. */
function replay(pair: Pair, [who]: Words): void {
  const to = whoOf(who);
  const controller = alive(pair, to);
  const counts = { ...controller.beat.refusedFrames };
  let frames = 0;
  for (const frame of [...pair.wires.recorded]) {
    if (frame.to !== to) continue;
    controller.beat.frame(frame.link, frame.beat);
    frames += 1;
  }
  pair.run(20);
  const refused = Object.values(controller.beat.refusedFrames).reduce((sum, n) => sum + n, 0);
  const before = Object.values(counts).reduce((sum, n) => sum + n, 0);
  pair.say(to, `replayed: ${refused - before} of ${frames} frames refused`);
}

/** `until a alone`, `until answers 10.0.0.100 b`: runs until it holds, at most a minute. */
function until(pair: Pair, [first, second, third]: Words): void {
  const holds =
    first === "answers"
      ? () => pair.answers(text(second)) === third
      : () => pair.controllers[whoOf(first)]?.state.mode === second;
  if (!pair.runUntil(holds, 60_000)) pair.say("-", `never: ${[first, second, third].join(" ")}`);
}

function show(pair: Pair): void {
  for (const who of ids) {
    const controller = pair.controllers[who];
    if (!controller?.alive) {
      pair.say(who, "is down");
      continue;
    }
    const { mode, epoch, servers } = controller.state;
    const used = servers.filter(({ definition }) => definition.server.name !== "");
    const phases = used.map(({ definition: { server }, phase }) => `${server.name} ${phase.kind}`);
    pair.say(who, `is ${mode}, epoch ${epoch}: ${phases.join(", ")}`);
  }
  const answers = pair.allAddresses.map((each) => `${each} by ${pair.answers(each) ?? "nobody"}`);
  const owners = pair.allDisks.map((each) => `${each} by ${ownerOf(pair, each)}`);
  pair.say("-", `answered: ${answers.join(", ")}; held: ${owners.join(", ")}`);
}

/** What the operator of one controller is told. */
function status(pair: Pair, who: ControllerId): void {
  const counted = { uptimeMs: 0, links: {}, refusedFrames: {} };
  const { health, statusText, actionText, virtualServers } = statusOf(
    alive(pair, who).state,
    counted,
  );
  pair.say(who, `status: ${health}: ${statusText} ${actionText}`);
  for (const { name, state, step, fault } of virtualServers) {
    const queued = step === "queued" ? " (queued)" : "";
    pair.say(who, `status: ${name} ${state}${queued}${fault === undefined ? "" : `, ${fault}`}`);
  }
}

/** What a controller knows of each virtual server, and what it makes of it. */
function definitions(pair: Pair, who: ControllerId): void {
  for (const { definition, config, phase } of alive(pair, who).state.servers) {
    const { number, sequence, wanted, server } = definition;
    if (server.name === "") continue;
    const has = (each: typeof server) =>
      [...bareAddresses(each), ...each.volumes.map(({ disk }) => disk)].join(" ");
    const uses =
      phase.kind !== "off" && has(config) !== has(server) ? `, still with ${has(config)}` : "";
    pair.say(
      who,
      `knows: ${number} ${server.name} ${sequence} ${wanted} at ${server.home} with ${has(server)}; ${phase.kind}${uses}`,
    );
  }
}

/** What lies on a coordinator disk of the common volume, slot by slot. */
function volume(pair: Pair, disk: string): void {
  for (const [number, pairOfSlots] of pair.shelf.volumeOf(disk)) {
    const slots = pairOfSlots.map((slot) => {
      if (slot.kind !== "record") return slot.kind;
      const { definition, epoch, generation, owner } = slot.record;
      const { sequence, wanted, server } = definition;
      return `${epoch}.${generation} by ${owner}: ${server.name} ${sequence} ${wanted}`;
    });
    pair.say("-", `${disk} has of ${number}: ${slots.join("; ")}`);
  }
}

function ownerOf(pair: Pair, disk: string): string {
  const holder = pair.shelf.holder(disk);
  return holder ? `${holder.by} at epoch ${Number.parseInt(holder.key.slice(8), 16)}` : "nobody";
}

function wireOf(word: string | undefined): Wire {
  if (word !== "serial" && word !== "network") throw new Error(`script: no wire ${word}`);
  return word;
}

/** `let network to a`, `let network to a first 1`, `let network to a last 1`: what was held up comes now; what is not named is lost. */
function letGo(pair: Pair, [link, , to, which, some]: Words): void {
  const who = whoOf(to);
  const count = Number(some ?? 0);
  const late = pair.wires.let(wireOf(link), who, (held) => {
    if (which === undefined) return held;
    return which === "first" ? held.slice(0, count) : held.slice(held.length - count);
  });
  pair.say(who, `${late} frames that were held up on the ${link} come now`);
}

/** Another system: `stranger says 40 on network to b with id`, `stranger takes d2 as b of 17 at 9`, `stranger leaves d2`. */
function stranger(pair: Pair, [what, ...rest]: Words): void {
  if (what === "says") return strangerSays(pair, rest);
  const [serial, , controller, , pairId, , epoch] = rest;
  const disk = text(serial);
  if (what === "leaves") {
    pair.shelf.stranger(disk, { op: "unregister" });
    return pair.say("-", `a stranger leaves ${disk}`);
  }
  const key = makeKey({
    controller: whoOf(controller),
    pairId: Number(text(pairId)),
    epoch: Number(text(epoch)),
  });
  pair.shelf.stranger(disk, { op: "register", key });
  if (what === "registers") return pair.say("-", `a stranger registers ${key} on ${disk}`);
  if (what !== "takes") throw new Error(`script: a stranger cannot ${what}`);
  const type = "exclusiveAccessRegistrantsOnly";
  const holder = pair.shelf.holder(disk);
  const command = holder
    ? ({ op: "preempt", key, victim: holder.key, type } as const)
    : ({ op: "reserve", key, type } as const);
  const { status } = pair.shelf.stranger(disk, command);
  pair.say("-", `a stranger takes ${disk} with key ${key}: ${status}`);
}

/** Frames of another pair: one that lives, and hears its own partner. */
function strangerSays(pair: Pair, [count, , link, , to, , kinship]: Words): void {
  const who = whoOf(to);
  const wire = wireOf(link);
  if (kinship !== "id" && kinship !== "key" && kinship !== "both")
    throw new Error(`script: a stranger has nothing like ${kinship}`);
  for (let i = 1; i <= Number(text(count)); i += 1)
    pair.timeline.after(10 * i, () =>
      pair.wires.stranger(wire, who, strangerBeat(partnerOf(who), i), kinship),
    );
}

const strangerSession = 0x5712a;

function strangerBeat(sender: ControllerId, sequence: number): Beat {
  return {
    sender,
    session: strangerSession,
    sequence,
    ack: { session: strangerSession + 1, sequence },
    granting: true,
    mode: "paired",
    epoch: 9,
    configuration: 0,
    progressAgeMs: 0,
    goodbye: false,
    dyingGasp: false,
    dataLinkDown: false,
    owned: "11",
    serving: "11",
    messageAck: 0,
  };
}

/** What a controller has refused so far. */
function refused(pair: Pair, who: ControllerId): void {
  const counts = Object.entries(alive(pair, who).beat.refusedFrames).sort();
  const list = counts.map(([reason, count]) => `${count} ${reason}`).join(", ");
  pair.say(who, `has refused: ${list || "nothing"}`);
}

function keys(pair: Pair, disk: string): void {
  const list = pair.shelf.keys(disk).map((key) => {
    const owner = parseKey(key);
    return owner ? `${owner.controller} of ${owner.pairId} at ${owner.epoch}` : key;
  });
  const holder = pair.shelf.holder(disk);
  const held = holder ? `held by ${holder.by === "stranger" ? "the stranger" : holder.by}` : "free";
  pair.say("-", `${disk}: registered are ${list.join(", ") || "none"}; ${held}`);
}

function serverOf(pair: Pair, word: string | undefined) {
  const server = pair.config("a").virtualServers.find(({ name }) => name === word);
  if (!server) throw new Error(`script: no virtual server ${word}`);
  return server;
}

function addressOf(pair: Pair, name: string | undefined): string {
  const [address] = bareAddresses(serverOf(pair, name));
  if (address === undefined) throw new Error(`script: ${name} has no address`);
  return address;
}

function clientOf(pair: Pair, id: string): Client {
  const client = pair.clients.find((each) => each.id === Number(id));
  if (!client) throw new Error(`script: no client ${id}`);
  return client;
}

/** What each client met since this was asked last. */
function clients(pair: Pair): void {
  for (const client of pair.clients) {
    if (client.isGone) continue;
    const { met, waitsMs, at } = client.look();
    const { done, longestMs, resets, ...others } = met;
    const answers = Object.entries({ ...others, reset: resets })
      .filter(([, count]) => count > 0)
      .map(([what, count]) => `${count} × ${what}`);
    const served = `${done} operations, the longest ${longestMs.toFixed(1)} ms`;
    const waits = waitsMs > longestMs ? [`now waiting for ${waitsMs.toFixed(1)} ms`] : [];
    const where = `has ${client.address} at ${at ?? "nobody"}`;
    pair.say("-", `client ${client.id}: ${[served, ...answers, ...waits, where].join("; ")}`);
  }
}
