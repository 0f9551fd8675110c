/**
 * The third-party witness: Debian's libnfs (libnfs.so.13), called through koffi. Its calls block until the server has answered, through any
 * outage (`autoreconnect=-1`), so each runs in a thread of Node's pool, and each open file has a context, that is a connection, of its
 * own: a context takes one call at a time.
 */
import koffi from "koffi";
import {
  type Engine,
  EngineClosed,
  type EngineCounters,
  type EngineFile,
  type Stability,
  type Target,
} from "./engine.ts";

const retryMs = 20;
/** fcntl.h; libnfs sends FILE_SYNC for files opened with O_SYNC. */
const openFlags = { readWrite: 0o2, create: 0o100, sync: 0o4010000 };
const noEntry = -2;

type Context = object;
type Pointer = object;
type Api = ReturnType<typeof loadLibrary>;

function loadLibrary() {
  const library = koffi.load("libnfs.so.13");
  const call = (signature: string) => library.func(signature);
  return {
    init: call("void *nfs_init_context()"),
    destroy: call("void nfs_destroy_context(void *nfs)"),
    error: call("const char *nfs_get_error(void *nfs)"),
    parse: call("void *nfs_parse_url_dir(void *nfs, const char *url)"),
    destroyUrl: call("void nfs_destroy_url(void *url)"),
    mount: call("int nfs_mount(void *nfs, const char *server, const char *path)"),
    open: call("int nfs_open2(void *nfs, const char *path, int flags, int mode, _Out_ void **fh)"),
    read: call("int nfs_pread(void *nfs, void *fh, uint64_t offset, uint64_t count, void *buf)"),
    write: call(
      "int nfs_pwrite(void *nfs, void *fh, uint64_t offset, uint64_t count, const void *buf)",
    ),
    unlink: call("int nfs_unlink(void *nfs, const char *path)"),
  };
}

interface OpenFile extends EngineFile {
  readonly context: Context;
  readonly handle: Pointer;
}

export class LibnfsEngine implements Engine {
  readonly #api: Api = loadLibrary();
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
    const data = Buffer.alloc(length);
    const count = await this.#untilOk("read", () =>
      callAsync(this.#api.read, context, handle, offset, length, data),
    );
    return data.subarray(0, count);
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
      const count = await this.#untilOk("write", () =>
        callAsync(this.#api.write, context, handle, offset, data.length, data),
      );
      if (count === data.length) return;
      this.#count("short write");
    }
  }

  async remove(path: string): Promise<void> {
    const context = await this.#mount();
    const result = await callAsync(this.#api.unlink, context, `/${path}`);
    if (result !== 0 && result !== noEntry) this.#count(`unlink ${result}`);
    this.#api.destroy(context);
  }

  /** Contexts are left to the end of the process: destroying one whose call is in flight is not allowed. */
  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  async #open(path: string, flags: number): Promise<EngineFile> {
    const context = await this.#mount();
    const out: [Pointer | null] = [null];
    await this.#untilOk("open", () =>
      callAsync(this.#api.open, context, `/${path}`, flags, 0o644, out),
    );
    if (out[0] === null) throw new Error("libnfs opened a file and returned none");
    return { path, context, handle: out[0] } as OpenFile;
  }

  async #mount(): Promise<Context> {
    const { server, exportPath, nfsPort, mountPort } = this.#target;
    const options = `version=3&nfsport=${nfsPort}&mountport=${mountPort}&autoreconnect=-1`;
    for (;;) {
      if (this.#closed) throw new EngineClosed();
      const context: Context | null = this.#api.init();
      if (context === null) throw new Error("libnfs: no memory for a context");
      const url: Pointer | null = this.#api.parse(
        context,
        `nfs://${server}${exportPath}?${options}`,
      );
      if (url === null) throw new Error(`libnfs: ${this.#api.error(context)}`);
      this.#api.destroyUrl(url);
      const result = await callAsync(this.#api.mount, context, server, exportPath);
      if (result === 0) return context;
      this.#count(`mount ${result}`);
      this.#api.destroy(context);
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  async #untilOk(what: string, call: () => Promise<number>): Promise<number> {
    for (;;) {
      const result = await call();
      if (result >= 0) return result;
      if (this.#closed) throw new EngineClosed();
      this.#count(`${what} ${result}`);
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  #count(status: string): void {
    this.#counters.repeats += 1;
    this.#counters.statuses[status] = (this.#counters.statuses[status] ?? 0) + 1;
  }
}

/** Runs a blocking call of the library in a thread of Node's pool. */
function callAsync(
  func: { async: (...words: unknown[]) => unknown },
  ...words: unknown[]
): Promise<number> {
  return new Promise((resolve, reject) => {
    func.async(...words, (error: Error | null, result: number) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}
