/**
 * What operators were told of their changes, against what lies on the disks: a change that was acknowledged is never lost, whichever majority of the
 * coordinator disks is asked, and each further one is built on it.
 */
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { isSame } from "../../firmware-ts/schema/definition-digest.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { resolveVolume } from "../../firmware-ts/wire/volume-view.ts";
import type { Stepped } from "./controller.ts";
import { Violation } from "./invariants.ts";
import type { Shelf } from "./shelf.ts";

interface Acknowledged {
  readonly definition: Definition;
  readonly who: ControllerId;
}

const keyOf = (who: ControllerId, { number, sequence }: Definition) =>
  `${who} ${number} ${sequence}`;

export class Ledger {
  readonly #shelf: Shelf;
  readonly #coordinators: readonly string[];
  readonly #majorities: readonly (readonly string[])[];
  /** The last acknowledged definition of each number, and at which controller. */
  readonly #acknowledged = new Map<number, Acknowledged>();
  /** What each controller has taken over, by controller, number and sequence. */
  readonly #adopted = new Map<string, Definition>();
  /** Changes that were asked for, refused, and acknowledged. */
  asked = 0;
  refused = 0;
  acknowledged = 0;

  constructor(shelf: Shelf, coordinators: readonly string[]) {
    this.#shelf = shelf;
    this.#coordinators = coordinators;
    this.#majorities = majoritiesOf(coordinators);
  }

  /** Looks at a step of either controller. */
  readonly stepped = ({ who, event, before, after, effects }: Stepped): void => {
    if (after.servers !== before.servers)
      for (const { index, definition } of after.servers)
        if (definition !== before.servers[index]?.definition)
          this.#adopted.set(keyOf(who, definition), definition);
    if (event.kind === "command" && event.command.kind === "change") this.asked += 1;
    if (Object.keys(before.changes).length === 0) return;
    for (const effect of effects) if (effect.kind === "answer") this.#answered(who, before, effect);
  };

  #answered(
    who: ControllerId,
    { changes }: Stepped["before"],
    { id, answer }: Extract<Effect, { kind: "answer" }>,
  ): void {
    const change = Object.values(changes).find((each) => each.id === id);
    if (!change) return;
    if (!answer.accepted) {
      this.refused += 1;
      return;
    }
    // There was nothing to be changed any more.
    if (change.at === "reading") return;
    const { definition } = change;
    const last = this.#acknowledged.get(definition.number);
    this.acknowledged += 1;
    if (last && last.definition.sequence >= definition.sequence)
      return this.#late(last, definition);
    this.#acknowledged.set(definition.number, { definition, who });
    this.check();
  }

  /** Whoever stood still tells its operator late: what has been acknowledged meanwhile must have been built on that. */
  #late({ definition: last, who }: Acknowledged, definition: Definition): void {
    const known = this.#adopted.get(keyOf(who, definition));
    if (last.sequence > definition.sequence && (!known || isSame(known, definition))) return;
    throw new Violation(
      `neverLostChange: number ${definition.number} was acknowledged as ${last.sequence}, and then as another ${definition.sequence}`,
    );
  }

  /** Every majority of the disks has what was acknowledged, or something newer. */
  check(): void {
    if (this.#acknowledged.size === 0) return;
    for (const serials of this.#majorities) {
      const disks = serials.map((serial) => ({ serial, pairs: this.#shelf.volumeOf(serial) }));
      const view = resolveVolume(disks, this.#coordinators.length);
      if (!view.ok) throw new Error("ledger: no majority");
      for (const [number, { definition: told }] of this.#acknowledged) {
        const found = view.value.records.find(({ definition }) => definition.number === number);
        const held = found?.definition;
        const isNewer = held !== undefined && held.sequence > told.sequence;
        if (!isNewer && !(held && isSame(held, told)))
          throw new Violation(
            `neverLostChange: ${serials.join(", ")} have change ${held?.sequence ?? "none"} of number ${number}, ${told.sequence} was acknowledged`,
          );
      }
    }
  }

  /** What a majority says of each number at this instant. */
  definitions(): readonly Definition[] {
    const disks = this.#coordinators.map((serial) => ({
      serial,
      pairs: this.#shelf.volumeOf(serial),
    }));
    const view = resolveVolume(disks, this.#coordinators.length);
    return view.ok ? view.value.records.map(({ definition }) => definition) : [];
  }
}

/** Every smallest majority: what all of them have, every larger one has. */
function majoritiesOf(serials: readonly string[]): string[][] {
  const size = Math.floor(serials.length / 2) + 1;
  const choose = (from: number, left: number): string[][] => {
    if (left === 0) return [[]];
    return serials
      .slice(from, serials.length - left + 1)
      .flatMap((serial, i) => choose(from + i + 1, left - 1).map((rest) => [serial, ...rest]));
  };
  return choose(0, size);
}
