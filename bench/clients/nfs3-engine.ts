/** The bench's own NFSv3 client over one TCP connection: nothing between the wire and the record of each operation. */
import { decodeMount } from "../../hal/linux/ganesha/probe.ts";
import type { AuthSys } from "../../hal/linux/ganesha/rpc.ts";
import { XdrWriter } from "../../hal/linux/ganesha/xdr.ts";
import { SteadyConnection } from "./connection.ts";
import {
  type Engine,
  EngineClosed,
  type EngineCounters,
  type EngineFile,
  type Stability,
  type Target,
} from "./engine.ts";
import * as codec from "./nfs3-codec.ts";

const mountMnt = { program: 100005, version: 3, procedure: 1 };
const retryMs = 5;
const identity: AuthSys = { machine: "dyad-bench", uid: 0, gid: 0 };

interface OpenFile extends EngineFile {
  handle: Buffer;
}

export class Nfs3Engine implements Engine {
  readonly #target: Target;
  readonly #counters: EngineCounters;
  readonly #nfs: SteadyConnection;
  #root: Promise<Buffer> | undefined;
  #closed = false;

  constructor(target: Target, counters: EngineCounters) {
    this.#target = target;
    this.#counters = counters;
    const onRepeat = () => {
      counters.repeats += 1;
    };
    this.#nfs = new SteadyConnection(target.server, target.nfsPort, identity, onRepeat);
  }

  async create(path: string): Promise<EngineFile> {
    const root = await this.#mount();
    await this.#untilOk(codec.nfsCreate, codec.encodeCreate(root, path), codec.decodeCreate);
    return await this.open(path);
  }

  async open(path: string): Promise<EngineFile> {
    const root = await this.#mount();
    const args = codec.encodeLookup(root, path);
    const handle = await this.#untilOk(codec.nfsLookup, args, codec.decodeLookup);
    return { path, handle: Buffer.from(handle) } as OpenFile;
  }

  async read(file: EngineFile, offset: number, length: number): Promise<Buffer> {
    const args = codec.encodeRead((file as OpenFile).handle, offset, length);
    const { data } = await this.#untilOk(codec.nfsRead, args, codec.decodeRead);
    return data;
  }

  async write(file: EngineFile, offset: number, data: Buffer, stability: Stability): Promise<void> {
    const { handle } = file as OpenFile;
    const stable = codec.stableHow[stability === "file-sync" ? "fileSync" : "unstable"];
    const args = codec.encodeWrite(handle, offset, data, stable);
    for (;;) {
      const written = await this.#untilOk(codec.nfsWrite, args, codec.decodeWrite);
      if (written.count !== data.length) {
        // A short write is legal (RFC 1813 3.3.7); the record is sent again whole.
        this.#count("short write");
        continue;
      }
      if (written.committed === codec.stableHow.fileSync) return;
      const verifier = Buffer.from(written.verifier);
      const commit = codec.encodeCommit(handle);
      const committed = await this.#untilOk(codec.nfsCommit, commit, codec.decodeCommit);
      // Another verifier: the server was restarted in between and may have lost the write (RFC 1813 3.3.21).
      if (committed.equals(verifier)) return;
      this.#count("verifier changed");
    }
  }

  /** One stable write that is not repeated when the server refuses it; the server's word, `NFS3_OK` when it took all. */
  async tryWrite(file: EngineFile, offset: number, data: Buffer): Promise<string> {
    const { handle } = file as OpenFile;
    const args = codec.encodeWrite(handle, offset, data, codec.stableHow.fileSync);
    const written = codec.decodeWrite(await this.#nfs.call(codec.nfsWrite, args));
    if (!written.ok) return written.status;
    return written.value.count === data.length ? codec.statusName(0) : "short write";
  }

  async remove(path: string): Promise<void> {
    const root = await this.#mount();
    const body = await this.#nfs.call(codec.nfsRemove, codec.encodeRemove(root, path));
    const result = codec.decodeRemove(body);
    if (!result.ok && result.status !== "NFS3ERR_NOENT") this.#count(result.status);
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#nfs.close();
    return Promise.resolve();
  }

  #mount(): Promise<Buffer> {
    this.#root ??= this.#mountNow();
    return this.#root;
  }

  async #mountNow(): Promise<Buffer> {
    const { server, mountPort, exportPath } = this.#target;
    const mountd = new SteadyConnection(server, mountPort, identity, () => undefined);
    const args = new XdrWriter().string(exportPath).finish();
    try {
      for (;;) {
        if (this.#closed) throw new EngineClosed();
        const handle = decodeMount(await mountd.call(mountMnt, args), exportPath);
        if (handle.ok) return Buffer.from(handle.value);
        this.#count(handle.fault.message);
        await new Promise((resolve) => setTimeout(resolve, retryMs));
      }
    } finally {
      mountd.close();
    }
  }

  async #untilOk<T>(
    target: typeof codec.nfsRead,
    args: Buffer,
    decode: (body: Buffer) => codec.NfsResult<T>,
  ): Promise<T> {
    for (;;) {
      const result = decode(await this.#nfs.call(target, args));
      if (result.ok) return result.value;
      if (this.#closed) throw new EngineClosed();
      this.#count(result.status);
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  #count(status: string): void {
    this.#counters.statuses[status] = (this.#counters.statuses[status] ?? 0) + 1;
  }
}
