/** A client that speaks NBD byte by byte: for the tests that must send what no honest client sends. */
import { connect, type Socket } from "node:net";
import { ByteQueue } from "../../firmware-ts/wire/nbd/byte-queue.ts";

export class RawNbdClient {
  readonly socket: Socket;
  readonly #queue = new ByteQueue();
  #wake: () => void = () => {};
  #ended = false;

  constructor(address: { path: string } | { host: string; port: number }) {
    this.socket = connect(address);
    this.socket.on("data", (chunk: Buffer) => {
      this.#queue.push(chunk);
      this.#wake();
    });
    this.socket.on("error", () => {});
    this.socket.on("close", () => {
      this.#ended = true;
      this.#wake();
    });
  }

  /** The next `size` bytes; rejects when the server closes first. */
  async read(size: number): Promise<Buffer> {
    for (;;) {
      const bytes = this.#queue.take(size);
      if (bytes) return bytes;
      if (this.#ended) throw new Error(`closed with ${this.#queue.length} of ${size} bytes`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Resolves when the server has closed the connection. */
  async closed(): Promise<void> {
    while (!this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
  }

  option(option: number, data: Buffer): void {
    const head = Buffer.alloc(16);
    head.write("IHAVEOPT");
    head.writeUInt32BE(option, 8);
    head.writeUInt32BE(data.length, 12);
    this.socket.write(Buffer.concat([head, data]));
  }

  /** The next option reply. */
  async reply(): Promise<{ option: number; type: number; data: Buffer }> {
    const head = await this.read(20);
    const data = await this.read(head.readUInt32BE(16));
    return { option: head.readUInt32BE(8), type: head.readUInt32BE(12), data };
  }

  /** Greeting, flags and GO; returns the transmission flags. */
  async go(name: string, structured = false): Promise<number> {
    await this.read(18);
    this.socket.write(Buffer.from([0, 0, 0, 3]));
    if (structured) {
      this.option(8, Buffer.alloc(0));
      await this.reply();
    }
    const text = Buffer.from(name);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    this.option(7, Buffer.concat([length, text, Buffer.alloc(2)]));
    let flags = 0;
    for (;;) {
      const { type, data } = await this.reply();
      if (type === 1) return flags;
      if (type !== 3) throw new Error(`GO answered 0x${type.toString(16)}`);
      if (data.readUInt16BE(0) === 0) flags = data.readUInt16BE(10);
    }
  }

  request(
    command: number,
    cookie: number,
    offset: number,
    length: number,
    data?: Buffer,
    flags = 0,
  ) {
    const head = Buffer.alloc(28);
    head.writeUInt32BE(0x25609513, 0);
    head.writeUInt16BE(flags, 4);
    head.writeUInt16BE(command, 6);
    head.writeBigUInt64BE(BigInt(cookie), 8);
    head.writeBigUInt64BE(BigInt(offset), 16);
    head.writeUInt32BE(length, 24);
    this.socket.write(data ? Buffer.concat([head, data]) : head);
  }

  /** The next simple reply header. */
  async simple(): Promise<{ error: number; cookie: number }> {
    const head = await this.read(16);
    if (head.readUInt32BE(0) !== 0x67446698) throw new Error("not a simple reply");
    return { error: head.readUInt32BE(4), cookie: Number(head.readBigUInt64BE(8)) };
  }
}
