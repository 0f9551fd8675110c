/**
 * The third-party witness: Debian's libnfs (libnfs.so.13), through its asynchronous interface, called by koffi. Each open file has a context,
 * that is a connection, of its own, with one operation in flight. libnfs reconnects for ever and repeats what was in flight
 * (`autoreconnect=-1`); the one thing added here is a pause between refused connections, where libnfs's own loop would spin.
 */
import {
  type Engine,
  EngineClosed,
  type EngineCounters,
  type EngineFile,
  type Stability,
  type Target,
} from "./engine.ts";
import { LibnfsContext, type Pointer } from "./libnfs-context.ts";

const retryMs = 20;
/** fcntl.h; libnfs sends FILE_SYNC for files opened with O_SYNC. */
const openFlags = { readWrite: 0o2, create: 0o100, sync: 0o4010000 };
const noEntry = -2;

interface OpenFile extends EngineFile {
  readonly context: LibnfsContext;
  readonly handle: Pointer;
}

export class LibnfsEngine implements Engine {
  readonly #target: Target;
  readonly #counters: EngineCounters;
  #closed = false;

  constructor(target: Target, counters: EngineCounters) {
    this.#target = target;
    this.#counters = counters;
  }

  create(path: string): Promise<EngineFile> {
    return this.#open(path, openFlags.readWrite | openFlags.create | openFlags.sync);
  }

  open(path: string): Promise<EngineFile> {
    return this.#open(path, openFlags.readWrite | openFlags.sync);
  }

  async read(file: EngineFile, offset: number, length: number): Promise<Buffer> {
    const { context, handle } = file as OpenFile;
    const { data } = await this.#untilOk("read", () => context.read(handle, offset, length));
    return data;
  }

  /** libnfs decides how: FILE_SYNC, because the file is open with O_SYNC. */
  async write(
    file: EngineFile,
    offset: number,
    data: Buffer,
    _stability: Stability,
  ): Promise<void> {
    const { context, handle } = file as OpenFile;
    for (;;) {
      const { result } = await this.#untilOk("write", () => context.write(handle, offset, data));
      if (result === data.length) return;
      this.#count("short write");
    }
  }

  async remove(path: string): Promise<void> {
    const context = await this.#mount();
    const { result } = await context.unlink(`/${path}`);
    if (result !== 0 && result !== noEntry) this.#count(`unlink ${result}`);
    context.destroy();
  }

  /** Contexts are left to the end of the process: destroying one whose call is in flight is not allowed. */
  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  async #open(path: string, flags: number): Promise<EngineFile> {
    const context = await this.#mount();
    const opened = await this.#untilOk("open", () => context.open(`/${path}`, flags));
    return { path, context, handle: opened.pointer } as OpenFile;
  }

  async #mount(): Promise<LibnfsContext> {
    for (;;) {
      if (this.#closed) throw new EngineClosed();
      const context = new LibnfsContext(this.#target);
      const { result } = await context.mount();
      if (result === 0) return context;
      this.#count(`mount ${result}`);
      context.destroy();
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  async #untilOk<T extends { readonly result: number }>(
    what: string,
    call: () => Promise<T>,
  ): Promise<T> {
    for (;;) {
      const outcome = await call();
      if (outcome.result >= 0) return outcome;
      if (this.#closed) throw new EngineClosed();
      this.#count(`${what} ${outcome.result}`);
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  #count(status: string): void {
    this.#counters.repeats += 1;
    this.#counters.statuses[status] = (this.#counters.statuses[status] ?? 0) + 1;
  }
}
