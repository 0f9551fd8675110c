/** Carries out what keys and scripts ask for, one at a time and in order, and remembers what is broken. */
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { Client } from "../campaign/clients.ts";
import type { Fault } from "../faults/fault.ts";
import { faultNamed, faults } from "../faults/index.ts";
import { explainError } from "../world/error.ts";
import type { World } from "../world/world.ts";
import type { Action } from "./keys.ts";

/** Faults that concern the pair and not one of the two. */
const common = new Set(["serial", "split", "broker"]);
/** Faults after which there is nothing to repair by hand. */
const momentary = new Set(["fileserver", "hang", "address", "device", "readonly"]);

export class Actions {
  selected: ControllerId = "a";
  note = "ready";
  readonly #world: World;
  readonly #clients: readonly Client[];
  readonly #changed: () => void;
  readonly #inForce = new Map<string, { readonly fault: Fault; readonly victim: ControllerId }>();
  #turn: Promise<void> = Promise.resolve();

  constructor(world: World, clients: readonly Client[], changed: () => void) {
    this.#world = world;
    this.#clients = clients;
    this.#changed = changed;
  }

  get faults(): string[] {
    return [...this.#inForce.keys()];
  }

  /** Queues an action (not `quit` and `shot`, which are not ours); what it did or why it could not stands in `note`. */
  perform(action: Action): void {
    if (action.kind === "select") {
      this.selected = action.id;
      this.#say(`keys now mean controller ${action.id}`);
      return;
    }
    this.#turn = this.#turn.then(async () => {
      try {
        await this.#do(action);
      } catch (error) {
        this.#say(explainError(error));
      }
    });
  }

  /** Settles when everything asked for so far has been tried. */
  idle(): Promise<void> {
    return this.#turn;
  }

  async #do(action: Action): Promise<void> {
    switch (action.kind) {
      case "fault":
        return await this.#fault(action);
      case "takeover": {
        const by = action.by ?? this.selected;
        const answer = await this.#world.apis[by].takeover();
        return this.#say(`${by} takes over: ${answer.accepted ? "accepted" : "refused"}`);
      }
      case "giveback":
        return await this.#giveback();
      case "repair":
        return await this.#repairAll();
      case "mark":
        for (const client of this.#clients) client.mark("live");
        return this.#say("gaps are counted anew");
      case "select":
      case "shot":
      case "quit":
        return;
    }
  }

  async #fault(action: Action & { kind: "fault" }): Promise<void> {
    const fault = faultNamed(action.fault);
    const victim = action.victim ?? this.selected;
    const name = common.has(fault.name) ? fault.name : `${fault.name} ${victim}`;
    if (this.#inForce.has(name)) {
      if (!action.toggle) return this.#say(`${name}: is so already`);
      return await this.#repair(name);
    }
    this.#say(`${name}: ${fault.description}`);
    await fault.inject(this.#world, victim);
    if (!momentary.has(fault.name)) this.#inForce.set(name, { fault, victim });
    this.#changed();
  }

  async #repair(name: string): Promise<void> {
    const entry = this.#inForce.get(name);
    if (!entry) return;
    this.#inForce.delete(name);
    this.#say(`${name}: repaired`);
    await entry.fault.repair(this.#world, entry.victim);
  }

  async #repairAll(): Promise<void> {
    if (this.#inForce.size === 0) return this.#say("nothing is broken");
    // In the order of a campaign, so that power comes before anything that needs it.
    const order = faults.map((each) => each.name);
    const names = [...this.#inForce].sort(
      ([, x], [, y]) => order.indexOf(x.fault.name) - order.indexOf(y.fault.name),
    );
    for (const [name] of names) await this.#repair(name);
    this.#say("everything is repaired; the pair mends itself");
  }

  async #giveback(): Promise<void> {
    for (const id of [this.selected, partnerOf(this.selected)]) {
      const status = await this.#world.apis[id].statusIfUp();
      const away = status?.virtualServers.some((each) => each.owner === id && each.home !== id);
      if (!away) continue;
      const answer = await this.#world.apis[id].giveback();
      return this.#say(`${id} gives back: ${answer.accepted ? "accepted" : "refused"}`);
    }
    this.#say("everything is at home");
  }

  #say(note: string): void {
    this.note = note;
    this.#changed();
  }
}
