/**
 * Bytes that have arrived and were not parsed yet. Holds the chunks as the socket gave them; copies only when a
 * message spans chunks. The owner bounds it by taking or refusing messages before it pushes more.
 */
export class ByteQueue {
  readonly #chunks: Buffer[] = [];
  /** Bytes of the first chunk that were taken already. */
  #offset = 0;
  #length = 0;

  /** Bytes waiting. */
  get length(): number {
    return this.#length;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next `size` bytes, which stay in the queue; undefined while fewer have arrived. */
  peek(size: number): Buffer | undefined {
    if (this.#length < size) return undefined;
    const head = this.#chunks[0];
    if (head && head.length - this.#offset >= size)
      return head.subarray(this.#offset, this.#offset + size);
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
    this.#offset += size;
    for (let head = this.#chunks[0]; head && head.length <= this.#offset; head = this.#chunks[0]) {
      this.#offset -= head.length;
      this.#chunks.shift();
    }
  }

  #gather(size: number): Buffer {
    const out = Buffer.allocUnsafe(size);
    let filled = 0;
    let offset = this.#offset;
    for (const chunk of this.#chunks) {
      if (filled === size) break;
      filled += chunk.copy(out, filled, offset);
      offset = 0;
    }
    return out;
  }
}
