/**
 * Scenario scripts: commands, then after `----` the complete trace that they must give. Lines that begin with # are for the reader.
 * `UPDATE=1` writes the traces anew: inspect the difference, and commit it only if you understand what caused it.
 */
import { statusOf } from "../../firmware-ts/core/show.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { ids, Pair, type PairSetup } from "./pair.ts";
import type { WorkName } from "./works.ts";

interface Block {
  readonly comment: readonly string[];
  readonly commands: readonly string[];
  readonly expected: readonly string[];
}

export function parseScript(text: string): Block[] {
  return text
    .trimEnd()
    .split(/\n\n+/)
    .map((part) => {
      const lines = part.split("\n");
      const bar = lines.indexOf("----");
      const head = bar < 0 ? lines : lines.slice(0, bar);
      return {
        comment: head.filter((line) => line.startsWith("#")),
        commands: head.filter((line) => line !== "" && !line.startsWith("#")),
        expected: bar < 0 ? [] : lines.slice(bar + 1),
      };
    });
}

/** Runs a script and gives it back with the traces that it really gave. */
export function runScript(text: string): { readonly text: string; readonly pair: Pair } {
  const blocks = parseScript(text);
  let pair: Pair | undefined;
  const parts: string[] = [];
  for (const { comment, commands } of blocks) {
    const before = pair?.trace.length ?? 0;
    for (const command of commands) {
      const words = command.split(/\s+/);
      if (words[0] === "pair") {
        if (pair) throw new Error("script: the pair comes first and once");
        pair = new Pair(setupOf(words.slice(1)));
      } else {
        pair ??= new Pair();
        obey(pair, words);
      }
    }
    const trace = pair?.trace.slice(before) ?? [];
    const body = commands.length === 0 ? comment : [...comment, ...commands, "----", ...trace];
    parts.push(body.join("\n"));
  }
  if (!pair) throw new Error("script: no commands");
  return { text: `${parts.join("\n\n")}\n`, pair };
}

function setupOf(words: readonly string[]): PairSetup {
  const has = (word: string) => words.includes(word);
  const coordinators = words.find((word) => word.startsWith("coordinators="));
  return {
    ...(coordinators ? { coordinators: Number(coordinators.split("=")[1]) } : {}),
    links: { serial: !has("no-serial") },
    autoGiveback: has("auto-giveback"),
  };
}

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
  nic: (pair, [who, how]) => pair.dataLink(whoOf(who), how === "up"),
  die: (pair, [who, name]) =>
    alive(pair, whoOf(who)).happen({
      kind: "serviceExited",
      virtualServer: text(name),
      reason: "signal 9",
    }),
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
  replay: replay,
  events: (pair, [count]) => pair.runEvents(Number(text(count))),
  run: (pair, [time]) => pair.run(milliseconds(time)),
  until: until,
  show: (pair) => show(pair),
  status: (pair, whos) => each(whos, (who) => status(pair, who)),
};

function obey(pair: Pair, [order, ...words]: Words): void {
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
    const phases = servers.map(({ config, phase }) => `${config.name} ${phase.kind}`).join(", ");
    pair.say(who, `is ${mode}, epoch ${epoch}: ${phases}`);
  }
  const answers = pair.addresses.map((each) => `${each} by ${pair.answers(each) ?? "nobody"}`);
  const owners = pair.dataDisks.map((each) => `${each} by ${ownerOf(pair, each)}`);
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
  for (const { name, state, fault } of virtualServers)
    pair.say(who, `status: ${name} ${state}${fault === undefined ? "" : `, ${fault}`}`);
}

function ownerOf(pair: Pair, disk: string): string {
  const holder = pair.shelf.holder(disk);
  return holder ? `${holder.by} at epoch ${Number.parseInt(holder.key.slice(8), 16)}` : "nobody";
}
