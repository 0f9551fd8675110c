/**
 * What waits for its turn, with two ends. An array that is emptied and filled again and again gives its room back and asks for it anew
 * each time, and these are asked for at every event: so the room is a ring, which stays.
 */
export class Waiting<T> {
  #ring: (T | undefined)[] = new Array(8).fill(undefined);
  #first = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(one: T): void {
    if (this.#length === this.#ring.length) this.#grow();
    this.#ring[(this.#first + this.#length) & (this.#ring.length - 1)] = one;
    this.#length += 1;
  }

  /** Puts one before all that waits. */
  unshift(one: T): void {
    if (this.#length === this.#ring.length) this.#grow();
    this.#first = (this.#first - 1) & (this.#ring.length - 1);
    this.#ring[this.#first] = one;
    this.#length += 1;
  }

  /** Takes the first; undefined when nothing waits. */
  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    const one = this.#ring[this.#first];
    this.#ring[this.#first] = undefined;
    this.#first = (this.#first + 1) & (this.#ring.length - 1);
    this.#length -= 1;
    return one;
  }

  clear(): void {
    while (this.#length > 0) this.shift();
  }

  /** Twice the room, always a power of two; what waits begins at its start. */
  #grow(): void {
    const { length } = this.#ring;
    const inOrder = [...this.#ring.slice(this.#first), ...this.#ring.slice(0, this.#first)];
    this.#ring = [...inOrder, ...new Array<undefined>(length).fill(undefined)];
    this.#first = 0;
  }
}
