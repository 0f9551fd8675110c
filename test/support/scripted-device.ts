/**
 * A disk in memory whose answers a test gives: nothing happens before the test says so, in the order that it likes. With a volatile cache:
 * what was written and neither flushed nor forced is gone after `losePower`.
 */

import {
  done,
  type FaultCode,
  failed,
  good,
  type Outcome,
} from "../../firmware-ts/schema/outcome.ts";
import type { BlockDevice } from "../../hal/block/device.ts";

export interface Held {
  readonly operation: "read" | "write" | "flush" | "trim" | "zero";
  readonly offset: number;
  readonly length: number;
  /** Does it and says so. */
  succeed(): void;
  /** Says that it failed; with `happened`, after it was done all the same. */
  fail(code: FaultCode, happened: boolean): void;
}

export class ScriptedDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly content: Buffer;
  readonly #durable: Buffer;
  readonly held: Held[] = [];
  /** Whether operations are answered without the test. */
  prompt: boolean;
  /** Answers everything with this fault, at once. */
  broken: FaultCode | undefined;
  /** Told of each write when it is asked. */
  onWrite: (offset: number, length: number) => void = () => {};
  #wake = new Set<() => void>();

  constructor(sizeBytes: number, options: { prompt?: boolean; blockSizeBytes?: number } = {}) {
    this.sizeBytes = sizeBytes;
    this.blockSizeBytes = options.blockSizeBytes ?? 512;
    this.prompt = options.prompt ?? false;
    this.content = Buffer.alloc(sizeBytes);
    this.#durable = Buffer.alloc(sizeBytes);
  }

  /** Resolves when so many operations wait. */
  async waiting(count: number): Promise<void> {
    while (this.held.length < count)
      await new Promise<void>((resolve) => {
        this.#wake.add(resolve);
      });
  }

  /** Takes the next operation that waits. */
  take(index = 0): Held {
    const [one] = this.held.splice(index, 1);
    if (one === undefined) throw new Error(`nothing is held at ${index}`);
    return one;
  }

  losePower(): void {
    this.#durable.copy(this.content);
  }

  read(offset: number, length: number): Promise<Outcome<Buffer>> {
    return this.#hold("read", offset, length, () =>
      Buffer.from(this.content.subarray(offset, offset + length)),
    );
  }

  async write(offset: number, data: Buffer, { fua }: { fua: boolean }): Promise<Outcome> {
    const kept = Buffer.from(data);
    this.onWrite(offset, data.length);
    const answer = await this.#hold("write", offset, data.length, () => {
      if (!kept.equals(data)) throw new Error("the data of a write changed before its answer");
      kept.copy(this.content, offset);
      if (fua) kept.copy(this.#durable, offset);
      return empty;
    });
    return answer.ok ? done : answer;
  }

  async flush(): Promise<Outcome> {
    const answer = await this.#hold("flush", 0, 0, () => {
      this.content.copy(this.#durable);
      return empty;
    });
    return answer.ok ? done : answer;
  }

  async trim(offset: number, length: number): Promise<Outcome> {
    // What is read after a trim is unspecified: here it is what nobody wrote.
    const answer = await this.#hold("trim", offset, length, () => {
      this.content.fill(0xdd, offset, offset + length);
      return empty;
    });
    return answer.ok ? done : answer;
  }

  async writeZeroes(offset: number, length: number, { fua }: { fua: boolean }): Promise<Outcome> {
    this.onWrite(offset, length);
    const answer = await this.#hold("zero", offset, length, () => {
      this.content.fill(0, offset, offset + length);
      if (fua) this.#durable.fill(0, offset, offset + length);
      return empty;
    });
    return answer.ok ? done : answer;
  }

  close = async () => {};

  #hold(
    operation: Held["operation"],
    offset: number,
    length: number,
    perform: () => Buffer,
  ): Promise<Outcome<Buffer>> {
    if (this.broken) return Promise.resolve(failed(this.broken, operation, "as the test wants"));
    if (this.prompt) return Promise.resolve(good(perform()));
    return new Promise((resolve) => {
      this.held.push({
        ...{ operation, offset, length },
        succeed: () => resolve(good(perform())),
        fail: (code, happened) => {
          if (happened) perform();
          resolve(failed(code, operation, "as the test wants"));
        },
      });
      for (const wake of this.#wake) wake();
      this.#wake.clear();
    });
  }
}

const empty = Buffer.alloc(0);
