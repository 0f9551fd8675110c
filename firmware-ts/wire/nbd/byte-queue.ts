/**
 * Bytes that have arrived and were not parsed yet. Holds the chunks as the socket gave them; copies only when a
 * message spans chunks. The owner bounds it by taking or refusing messages before it pushes more.
 */
export class ByteQueue {
  #chunks: Buffer[] = [];
  #first = 0;
  #offset = 0;
  #length = 0;

  /** Bytes waiting. */
  get length(): number {
    return this.#length;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next `size` bytes, which stay in the queue; undefined while fewer have arrived. */
  peek(size: number): Buffer | undefined {
    if (this.#length < size) return undefined;
    const head = this.#chunks[this.#first];
    if (head === undefined) return Buffer.alloc(0);
    if (head.length - this.#offset >= size) return head.subarray(this.#offset, this.#offset + size);
    return this.#gather(size);
  }

  /** Removes and returns the next `size` bytes; undefined while fewer have arrived. */
  take(size: number): Buffer | undefined {
    const bytes = this.peek(size);
    if (bytes !== undefined) this.skip(size);
    return bytes;
  }

  /** Removes `size` bytes, which must be there. */
  skip(size: number): void {
    if (size > this.#length) throw new RangeError(`ByteQueue.skip: ${size} of ${this.#length}`);
    this.#length -= size;
    let left = size;
    while (left > 0) {
      const head = this.#chunks[this.#first];
      if (head === undefined) throw new Error("ByteQueue.skip: length and chunks disagree");
      const here = head.length - this.#offset;
      if (left < here) {
        this.#offset += left;
        return;
      }
      left -= here;
      this.#first += 1;
      this.#offset = 0;
    }
    if (this.#first === this.#chunks.length) {
      this.#chunks.length = 0;
      this.#first = 0;
    } else if (this.#first > 64) {
      this.#chunks = this.#chunks.slice(this.#first);
      this.#first = 0;
    }
  }

  #gather(size: number): Buffer {
    const out = Buffer.allocUnsafe(size);
    let filled = 0;
    let offset = this.#offset;
    for (let index = this.#first; filled < size; index += 1) {
      const chunk = this.#chunks[index];
      if (chunk === undefined) throw new Error("ByteQueue.peek: length and chunks disagree");
      filled += chunk.copy(out, filled, offset, Math.min(chunk.length, offset + size - filled));
      offset = 0;
    }
    return out;
  }
}
