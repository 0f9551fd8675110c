/** One connection to an SMB server, one request at a time. When it ends, whoever waits is told so. */
import type { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { MessageReader, type Reply, type Request } from "./smb2.ts";

/** [MS-SMB2] 3.2.5.1.5: the answer is still to come. */
const pending = 0x103;

export class Talk {
  readonly #socket: Socket;
  readonly #operation: string;
  readonly #endMs: number;
  readonly #reader = new MessageReader();
  #messageId = 0;
  #sessionId = 0n;
  #settle: ((outcome: Outcome<Reply>) => void) | undefined;
  #ended: Outcome<never> | undefined;

  constructor(socket: Socket, operation: string, timeoutMs: number) {
    this.#socket = socket;
    this.#operation = operation;
    this.#endMs = performance.now() + timeoutMs;
    socket.on("data", (chunk: Buffer) => this.#hear(chunk));
    socket.on("error", (error) => this.#end(failed("ioError", operation, error.message)));
    socket.on("close", () => this.#end(failed("ioError", operation, "connection closed")));
  }

  /** Sends a request and waits for its answer. Faults: `timeout`, `ioError`, `badInput`. */
  async ask(code: number, encode: (request: Request) => Buffer): Promise<Outcome<Reply>> {
    if (this.#ended) return this.#ended;
    const messageId = this.#messageId;
    this.#messageId += 1;
    const leftMs = Math.max(1, this.#endMs - performance.now());
    const timer = setTimeout(
      () => this.#end(failed("timeout", this.#operation, `no answer to command ${code}`)),
      leftMs,
    );
    const reply = await new Promise<Outcome<Reply>>((resolve) => {
      this.#settle = resolve;
      this.#socket.write(encode({ messageId, sessionId: this.#sessionId }));
    });
    clearTimeout(timer);
    if (!reply.ok) return reply;
    if (reply.value.messageId !== messageId || reply.value.command !== code)
      return failed("badInput", this.#operation, `an answer to something else than ${code}`);
    this.#sessionId = reply.value.sessionId;
    return reply;
  }

  close(): void {
    this.#end(failed("ioError", this.#operation, "closed by this side"));
  }

  #hear(chunk: Buffer): void {
    try {
      for (const reply of this.#reader.push(chunk))
        if (reply.status !== pending) this.#tell(good(reply));
    } catch (error) {
      this.#end(failed("badInput", this.#operation, "no answer of SMB 2", error));
    }
  }

  #tell(outcome: Outcome<Reply>): void {
    this.#settle?.(outcome);
    this.#settle = undefined;
  }

  #end(why: Outcome<never>): void {
    if (this.#ended) return;
    this.#ended = why;
    this.#socket.destroy();
    this.#tell(why);
  }
}
