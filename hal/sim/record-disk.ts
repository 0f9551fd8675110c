/**
 * The system disk of one controller, as far as the record is concerned: two slots, written with the production text. A power cut
 * between the write and the end of the flush leaves a torn slot; the one written before is whole.
 */
import type { PersistentRecord } from "../../firmware-ts/schema/journal.ts";
import {
  decodeSlot,
  encodeSlot,
  newestSlot,
  recordSlots,
  slotOf,
} from "../../firmware-ts/wire/record.ts";

export class RecordDisk {
  readonly #slots = new Map<string, string>();
  #generation = 0;
  /** The record as it was written last: what a start that follows without damage reads. */
  #written: PersistentRecord = { version: 1, epoch: 0 };
  #damaged = false;

  read(): PersistentRecord {
    if (!this.#damaged) return this.#written;
    const newest = newestSlot(recordSlots.map((name) => decodeSlot(this.#slots.get(name) ?? "")));
    this.#generation = newest.generation;
    this.#written = newest.record;
    this.#damaged = false;
    return newest.record;
  }

  write(record: PersistentRecord): void {
    this.#generation += 1;
    this.#written = record;
    this.#slots.set(slotOf(this.#generation), encodeSlot({ generation: this.#generation, record }));
  }

  /** A write that the power cut short: `length` bytes of it are there. Its effect was never performed. */
  tear(record: PersistentRecord, length: number): void {
    const generation = this.#generation + 1;
    this.#slots.set(slotOf(generation), encodeSlot({ generation, record }).slice(0, length));
    this.#damaged = true;
  }

  /** A replaced system disk. */
  forget(): void {
    this.#slots.clear();
    this.#generation = 0;
    this.#written = { version: 1, epoch: 0 };
    this.#damaged = false;
  }
}
