/**
 * One libnfs context: one connection, one operation in flight. libnfs is driven as its documentation asks of an event loop (libnfs.h,
 * "nfs_get_fd, nfs_which_events, nfs_service"); poll(2) runs in a thread of Node's pool, everything else in the main thread.
 */
import koffi from "koffi";
import type { Target } from "./engine.ts";

/** poll.h */
const poll = { in: 1, out: 4, error: 8, hangUp: 16 } as const;
const pollTimeoutMs = 100;
/** socket(7), tcp(7): level, option, value. Probes begin after 5 s of silence, every second, at most three. */
const keepAlive = [
  [1, 9, 1],
  [6, 4, 5],
  [6, 5, 1],
  [6, 6, 3],
] as const;
/** Pause after a failed connection when the one before it had failed too: a refusal comes back in 50 µs. */
const refusedPauseMs = 5;

/** An address inside libnfs; nothing here looks into it. */
export type Pointer = object;

interface Completion {
  /** A count or 0, or a negative errno. */
  readonly result: number;
  readonly data: Pointer | null;
}

const library = koffi.load("libnfs.so.13");
const libc = koffi.load("libc.so.6");
const callbackType = koffi.proto(
  "void dyad_nfs_cb(int err, void *nfs, void *data, void *private_data)",
);
koffi.struct("dyad_pollfd", { fd: "int", events: "short", revents: "short" });
const cb = "dyad_nfs_cb *cb, void *private_data";
const lib = {
  init: library.func("void *nfs_init_context()"),
  destroy: library.func("void nfs_destroy_context(void *nfs)"),
  error: library.func("const char *nfs_get_error(void *nfs)"),
  parse: library.func("void *nfs_parse_url_dir(void *nfs, const char *url)"),
  destroyUrl: library.func("void nfs_destroy_url(void *url)"),
  fd: library.func("int nfs_get_fd(void *nfs)"),
  events: library.func("int nfs_which_events(void *nfs)"),
  service: library.func("int nfs_service(void *nfs, int revents)"),
  mount: library.func(
    `int nfs_mount_async(void *nfs, const char *server, const char *path, ${cb})`,
  ),
  open: library.func(
    `int nfs_open2_async(void *nfs, const char *path, int flags, int mode, ${cb})`,
  ),
  read: library.func(
    `int nfs_pread_async(void *nfs, void *fh, uint64_t offset, uint64_t count, ${cb})`,
  ),
  write: library.func(
    `int nfs_pwrite_async(void *nfs, void *fh, uint64_t offset, uint64_t count, const void *buf, ${cb})`,
  ),
  unlink: library.func(`int nfs_unlink_async(void *nfs, const char *path, ${cb})`),
  setOption: libc.func("int setsockopt(int fd, int level, int name, int *value, uint32_t size)"),
  copy: libc.func("void *memcpy(void *target, const void *source, size_t bytes)"),
  poll: libc.func("int poll(_Inout_ dyad_pollfd *fds, unsigned long count, int timeout)"),
};

export class LibnfsContext {
  readonly #target: Target;
  readonly #nfs: Pointer;
  readonly #callback: unknown;
  #finish: ((completion: Completion) => void) | undefined;

  /** Throws when libnfs has no memory or does not understand the target, which no server can cause. */
  constructor(target: Target) {
    this.#target = target;
    const { server, exportPath, nfsPort, mountPort } = target;
    this.#nfs = present(lib.init(), "nfs_init_context");
    const options = `version=3&nfsport=${nfsPort}&mountport=${mountPort}&autoreconnect=-1`;
    const url: unknown = lib.parse(this.#nfs, `nfs://${server}${exportPath}?${options}`);
    lib.destroyUrl(present(url, `nfs_parse_url_dir: ${String(lib.error(this.#nfs))}`));
    this.#callback = koffi.register((result: number, _nfs: unknown, data: Pointer | null) => {
      this.#finish?.({ result, data });
    }, koffi.pointer(callbackType));
  }

  mount(): Promise<Completion> {
    const { server, exportPath } = this.#target;
    return this.#run((nfs, callback) => lib.mount(nfs, server, exportPath, callback, null));
  }

  async open(path: string, flags: number): Promise<{ result: number; pointer: Pointer | null }> {
    const mode = 0o644;
    const { result, data } = await this.#run((nfs, callback) =>
      lib.open(nfs, path, flags, mode, callback, null),
    );
    return { result, pointer: result < 0 ? null : data };
  }

  async read(
    handle: Pointer,
    offset: number,
    length: number,
  ): Promise<{ result: number; data: Buffer }> {
    let data = Buffer.alloc(0);
    const { result } = await this.#run(
      (nfs, callback) => lib.read(nfs, handle, offset, length, callback, null),
      (completion) => {
        // The library's buffer lives only as long as its callback.
        if (completion.result <= 0 || completion.data === null) return;
        data = Buffer.allocUnsafe(completion.result);
        lib.copy(data, completion.data, completion.result);
      },
    );
    return { result, data };
  }

  write(handle: Pointer, offset: number, data: Buffer): Promise<Completion> {
    return this.#run((nfs, callback) =>
      lib.write(nfs, handle, offset, data.length, data, callback, null),
    );
  }

  unlink(path: string): Promise<Completion> {
    return this.#run((nfs, callback) => lib.unlink(nfs, path, callback, null));
  }

  /** Only when no operation is in flight. */
  destroy(): void {
    if (this.#finish !== undefined) throw new Error("libnfs context destroyed while in use");
    lib.destroy(this.#nfs);
    koffi.unregister(this.#callback as never);
  }

  /** Queues one operation and drives the context until it has completed. `inside` runs within the library's callback. */
  async #run(
    queue: (nfs: Pointer, callback: unknown) => number,
    inside: (completion: Completion) => void = () => undefined,
  ): Promise<Completion> {
    if (this.#finish !== undefined)
      throw new Error("libnfs context used for two operations at once");
    let completion: Completion | undefined;
    this.#finish = (done) => {
      completion = done;
      inside(done);
    };
    if (queue(this.#nfs, this.#callback) !== 0) {
      throw new Error(`libnfs did not queue: ${String(lib.error(this.#nfs))}`);
    }
    let failures = 0;
    while (completion === undefined) {
      const revents = await this.#poll(lib.events(this.#nfs));
      // A negative answer is no end: libnfs gives one, too, for a connection that was reset as it came up, and has begun the next by
      // then. What it gives up it says through the callback.
      const serviced: number = lib.service(this.#nfs, revents);
      if (revents === 0) this.#keepAlive();
      const failed = serviced < 0 || (revents & (poll.error | poll.hangUp)) !== 0;
      failures = failed ? failures + 1 : 0;
      if (failures > 1) await new Promise((resolve) => setTimeout(resolve, refusedPauseMs));
    }
    this.#finish = undefined;
    return completion;
  }

  /**
   * A request that the old server's kernel had acknowledged is not sent again by TCP: without probes the client would wait for its reply
   * for ever. Kernel clients probe too; libnfs 4.0 does not.
   */
  #keepAlive(): void {
    const fd: number = lib.fd(this.#nfs);
    for (const [level, name, value] of keepAlive) lib.setOption(fd, level, name, [value], 4);
  }

  #poll(events: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const fds = [{ fd: lib.fd(this.#nfs) as number, events, revents: 0 }];
      const wait = pollTimeoutMs;
      lib.poll.async(fds, 1, wait, (error: Error | null) => {
        if (error === null) resolve(fds[0]?.revents ?? 0);
        else reject(error);
      });
    });
  }
}

function present(pointer: unknown, what: string): Pointer {
  if (pointer === null || pointer === undefined) throw new Error(`libnfs: ${what} failed`);
  return pointer as Pointer;
}
