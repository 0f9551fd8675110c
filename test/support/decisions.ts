/**
 * What one life of a controller decided, in words that two worlds have in common: the bench and the simulator. Times, tokens, names and
 * addresses of a world are left out, and of epochs only by how much they rise is kept. Everything else that was decided is a word.
 */
import type { Mandate } from "../../firmware-ts/core/beat-types.ts";
import type { Effect, Report } from "../../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import { parseKey } from "../../firmware-ts/core/keys.ts";
import { disksOf } from "../../firmware-ts/core/vserver-types.ts";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { decodeMessage } from "../../firmware-ts/schema/messages.ts";
import { noServers, setHas } from "../../firmware-ts/schema/server-set.ts";

export type Subject = "controller" | "server" | "coordinator" | "light";

export interface Decision {
  readonly subject: Subject;
  /** Which one of its kind: the home of a virtual server, the number of a coordinator, the name of what is only told. */
  readonly name: string;
  readonly what: string;
  readonly atMs: number;
}

export interface Moment {
  readonly event: ControllerEvent;
  readonly effects: readonly Effect[];
}

/** One life of a process: from its boot to its end. */
export interface Life {
  readonly config: Config;
  readonly moments: readonly Moment[];
}

type Word = Omit<Decision, "atMs">;

const ofController = (what: string): Word => ({ subject: "controller", name: "", what });

/** What a life decided, in the order in which it did. */
export function decisionsOf({ config, moments }: Life): Decision[] {
  const words = new Words(config);
  return moments.flatMap(({ event, effects }) =>
    words.of(event, effects).map((word) => ({ ...word, atMs: event.nowMs })),
  );
}

class Words {
  readonly #config: Config;
  readonly #me: ControllerId;
  /** The highest epoch that this life has heard of. */
  #epoch = 0;
  #said: Mandate | undefined;
  #messageSaid: number | undefined;
  #registered = new Set<string>();

  constructor(config: Config) {
    this.#config = config;
    this.#me = config.controller.id;
  }

  of(event: ControllerEvent, effects: readonly Effect[]): Word[] {
    this.#learn(event);
    for (const effect of effects)
      if (effect.kind === "report" && effect.report.code === "coordinator.registered")
        this.#registered.add(diskOfToken(event));
    // The disk beyond the majority is preempted in the step that wins if it was ready by then: nobody waits for it.
    const won = effects.some((each) => each.kind === "report" && each.report.code === "race.won");
    const isLeftOver = (each: Effect) =>
      won && each.kind === "reserve" && this.#isCoordinator(each.serial);
    return effects
      .filter((each) => !isLeftOver(each))
      .flatMap((effect) => this.#wordsOf(effect, event));
  }

  #learn(event: ControllerEvent): void {
    const epochs: number[] = [];
    if (event.kind === "boot") epochs.push(event.record.epoch);
    if (event.kind === "seen" && event.observation.kind === "epoch")
      epochs.push(event.observation.epoch);
    if (event.kind === "seen" && event.observation.kind === "partner")
      epochs.push(event.observation.view.epoch);
    if (event.kind === "reserved" && event.answer.status === "keys")
      epochs.push(...event.answer.keys.map((key) => parseKey(key)?.epoch ?? 0));
    this.#epoch = Math.max(this.#epoch, ...epochs);
  }

  #wordsOf(effect: Effect, event: ControllerEvent): Word[] {
    switch (effect.kind) {
      case "persist": {
        const rise = effect.record.epoch - this.#epoch;
        this.#epoch = Math.max(this.#epoch, effect.record.epoch);
        return [ofController(`keep an epoch ${rise} above the highest known`)];
      }
      case "gate":
        // What the gate knows is a list of all, and decides nothing.
        if (effect.command.kind === "gateKnow") return [ofController("gateKnow")];
        return effect.command.addresses.map((address) => ({
          ...this.#serverAt(address),
          what: effect.command.kind,
        }));
      case "reserve":
        return [this.#reserve(effect)];
      case "work": {
        const { work } = effect;
        const disk = "disk" in work ? ` disk ${this.#diskNumber(work.disk)}` : "";
        return [{ ...this.#server(effect.virtualServer), what: `${work.op}${disk}` }];
      }
      case "mandate":
        return this.#mandate(effect.mandate);
      case "grant":
        return [ofController(effect.on ? "grant" : "grant nothing")];
      case "answer": {
        const { accepted, vetoes, plan } = effect.answer;
        const moves = plan.map((each) => `${this.#home(each.virtualServer)} ${each.action}`);
        const why = vetoes.map(({ severity, code }) => `${severity}:${code}`);
        const parts = [accepted ? "accepted" : "refused", ...why, ...moves];
        return [ofController(`answer: ${parts.join(", ")}`)];
      }
      case "report":
        return [this.#report(effect.report, event)];
      // Nobody waits for what is read and written there while nothing is changed.
      case "volumeRead":
      case "volumeWrite":
        return [];
      case "define":
        return [{ ...this.#server(effect.definition.server.name), what: "define" }];
      case "forget":
        return [{ ...this.#server(effect.name), what: "forget" }];
      case "exit":
        return [ofController(`exit ${effect.code}`)];
      default:
        throw new Error(`decisions: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  #isCoordinator(serial: string): boolean {
    return this.#config.shelf.coordinators.includes(serial);
  }

  #reserve({ serial, command }: Extract<Effect, { kind: "reserve" }>): Word {
    const owner = "victim" in command ? parseKey(command.victim)?.controller : undefined;
    const whose =
      owner === this.#me ? " our own key" : owner === undefined ? "" : " the partner's key";
    const what = `${command.op}${whose}`;
    if (this.#isCoordinator(serial)) return { ...this.#coordinator(serial), what };
    return { ...this.#serverOfDisk(serial), what: `${what} disk ${this.#diskNumber(serial)}` };
  }

  #coordinator(serial: string): Omit<Word, "what"> {
    const number = this.#config.shelf.coordinators.indexOf(serial) + 1;
    return { subject: "coordinator", name: String(number) };
  }

  /** A virtual server goes by its home: both worlds have one for each controller. */
  #home(name: string): string {
    const server = this.#config.virtualServers.find((each) => each.name === name);
    if (!server) throw new Error(`decisions: no virtual server ${name}`);
    return `server of ${server.home}`;
  }

  #server(name: string): Omit<Word, "what"> {
    return { subject: "server", name: this.#home(name) };
  }

  #serverAt(address: string): Omit<Word, "what"> {
    const { virtualServers } = this.#config;
    const server = virtualServers.find((each) => bareAddresses(each).includes(address));
    return this.#server(server?.name ?? address);
  }

  #serverOfDisk(serial: string): Omit<Word, "what"> {
    const server = this.#config.virtualServers.find((each) => disksOf(each).includes(serial));
    return this.#server(server?.name ?? serial);
  }

  /** Place of a data disk among those of its virtual server. */
  #diskNumber(serial: string): number {
    const server = this.#config.virtualServers.find((each) => disksOf(each).includes(serial));
    return 1 + (server ? disksOf(server).indexOf(serial) : -1);
  }

  /** What is said anew: of the controller, of each virtual server, and at most one message. */
  #mandate(mandate: Mandate): Word[] {
    const before = this.#said;
    this.#said = mandate;
    const words: Word[] = [];
    if (mandate.mode !== before?.mode) words.push(ofController(this.#mode(mandate)));
    if (mandate.ground !== before?.ground)
      words.push(ofController(`the ground of the gates: ${mandate.ground}`));
    if (mandate.goodbye && !before?.goodbye) words.push(ofController("say goodbye"));
    if (mandate.dataLinkDown !== before?.dataLinkDown)
      words.push(ofController(`say: the data link is ${mandate.dataLinkDown ? "down" : "up"}`));
    this.#config.virtualServers.forEach(({ name }, index) => {
      for (const what of ["owned", "serving"] as const) {
        const bit = (of: Mandate | undefined) => setHas(of?.[what] ?? noServers, index);
        if (bit(mandate) !== bit(before))
          words.push({
            ...this.#server(name),
            what: `say: ${bit(mandate) ? "" : "not "}${what === "owned" ? "ours" : "served"}`,
          });
      }
    });
    return [...words, ...this.#message(mandate.message)];
  }

  #mode({ mode }: Mandate): string {
    if (mode === "starting") this.#registered.clear();
    if (mode !== "joining") return `say ${mode}`;
    const { coordinators } = this.#config.shelf;
    const isMajority = 2 * this.#registered.size > coordinators.length;
    return `say ${mode}, registered on ${isMajority ? "a majority" : "too few"}`;
  }

  /** A message is said until it is acknowledged; only its first time is a decision. */
  #message(message: Mandate["message"]): Word[] {
    if (!message || message.id === this.#messageSaid) return [];
    this.#messageSaid = message.id;
    const decoded = decodeMessage(message.body);
    const number = decoded && ("server" in decoded ? decoded.server : decoded.number);
    const server = this.#config.virtualServers[number ?? -1];
    if (!decoded || !server) throw new Error(`decisions: message ${message.id} is malformed`);
    const urgent = decoded.type === "offer" && decoded.urgent ? ", urgent" : "";
    return [{ ...this.#server(server.name), what: `message ${decoded.type}${urgent}` }];
  }

  #report(report: Report, event: ControllerEvent): Word {
    const { code, detail, message } = report;
    const what = `report ${code}`;
    if (code.startsWith("link."))
      return { subject: "light", name: `${String(detail?.link)} link`, what };
    if (code.startsWith("solo.")) return { subject: "light", name: "solo", what };
    if (code === "partner.heard") return { subject: "light", name: "partner", what };
    if (code.startsWith("coordinator.")) return { ...this.#coordinator(diskOfToken(event)), what };
    if (event.kind === "diskPath" && code.startsWith("disk."))
      return { ...this.#serverOfDisk(event.serial), what };
    if (code === "vserver.starting") {
      const waits = Number(detail?.addressWaitMs) > 0;
      const when = waits ? "its address waits" : "its address does not wait";
      return { ...this.#ofServer(message), what: `${what}, ${when}` };
    }
    if (/^(vserver|transfer)\./.test(code)) return { ...this.#ofServer(message), what };
    if (
      event.kind === "seen" &&
      event.observation.kind === "partnerLost" &&
      code === "partner.lost"
    )
      return ofController(`${what}: ${event.observation.reason}`);
    return ofController(what);
  }

  /** The virtual server of which a sentence speaks. */
  #ofServer(sentence: string): Omit<Word, "what"> {
    const words = sentence.split(/[\s:,]+/);
    const server = this.#config.virtualServers.find(({ name }) => words.includes(name));
    return server ? this.#server(server.name) : { subject: "controller", name: "" };
  }
}

/** The disk that has answered: the last part of its token. */
function diskOfToken(event: ControllerEvent): string {
  return event.kind === "reserved" ? (event.token.split(":").at(-1) ?? "") : "";
}
