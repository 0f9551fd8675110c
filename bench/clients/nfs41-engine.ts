/**
 * The bench's own NFSv4.1 client, in the manner of pynfs: one that holds state. Who creates a file opens it for itself (nobody else may write) and
 * locks all of it, for as long as it works; who opens one reads. Both are held through any number of servers, or counted as lost.
 */
import {
  type Engine,
  EngineClosed,
  type EngineCounters,
  type EngineFile,
  type Stability,
  type Target,
} from "./engine.ts";
import * as nfs from "./nfs41-codec.ts";
import type { CompoundResult } from "./nfs41-compound.ts";
import { type Exchange, Nfs41Session } from "./nfs41-session.ts";

const retryMs = 5;
const closeMsMax = 2000;
const whole: nfs.Range = { type: nfs.lockType.write, offset: 0n, length: nfs.toTheEnd };
const shared: nfs.Range = { ...whole, type: nfs.lockType.read };
const writing: nfs.Access = { access: nfs.share.both, deny: nfs.share.write };
const reading: nfs.Access = { access: nfs.share.read, deny: nfs.share.none };
const intruding: nfs.Access = { access: nfs.share.both, deny: nfs.share.none };

/** Statuses by which a server says that what was held is not held any more (RFC 8881 15.1.5 and 15.1.16). */
const lostStatuses = [
  "NFS4ERR_BAD_STATEID",
  "NFS4ERR_STALE_STATEID",
  "NFS4ERR_OLD_STATEID",
  "NFS4ERR_EXPIRED",
  "NFS4ERR_ADMIN_REVOKED",
];

interface OpenFile extends EngineFile {
  readonly handle: Buffer;
  readonly isOwned: boolean;
  opened: nfs.StateId | undefined;
  locked: nfs.StateId | undefined;
  /** Being opened anew, after it was lost. */
  opening: Promise<void> | undefined;
}

type Ops = readonly nfs.Op<unknown>[];

export class Nfs41Engine implements Engine {
  readonly #target: Target;
  readonly #owner: string;
  readonly #counters: EngineCounters;
  readonly #session: Nfs41Session;
  readonly #files = new Map<string, OpenFile>();
  /** Two who ask for a file at once get the same: what nobody knows of is not reclaimed. */
  readonly #opening = new Map<string, Promise<OpenFile>>();
  #root: Promise<Buffer> | undefined;
  #closed = false;
  /** Operations that wait for grace to end, and since when there are any. */
  #held = 0;
  #heldSinceMs = 0;

  /** `owner`: see `Nfs41Session`. */
  constructor(target: Target, owner: string, counters: EngineCounters) {
    this.#target = target;
    this.#owner = owner;
    this.#counters = counters;
    const reclaim = (exchange: Exchange, clientId: bigint) => this.#reclaimAll(exchange, clientId);
    this.#session = new Nfs41Session(target, owner, counters, reclaim);
  }

  create(path: string): Promise<EngineFile> {
    return this.#opened(path, true);
  }

  open(path: string): Promise<EngineFile> {
    return this.#opened(path, false);
  }

  async read(file: EngineFile, offset: number, length: number): Promise<Buffer> {
    const [, { data }] = await this.#ofFile(file as OpenFile, (handle, state) => [
      nfs.putHandle(handle),
      nfs.read(state, offset, length),
    ]);
    return data;
  }

  async write(file: EngineFile, offset: number, data: Buffer, stability: Stability): Promise<void> {
    const stable = nfs.stableHow[stability === "file-sync" ? "fileSync" : "unstable"];
    for (;;) {
      const [, written] = await this.#ofFile(file as OpenFile, (handle, state) => [
        nfs.putHandle(handle),
        nfs.write(state, offset, data, stable),
      ]);
      if (written.count !== data.length) {
        this.#count("short write");
        continue;
      }
      if (written.committed === nfs.stableHow.fileSync) return;
      const [, verifier] = await this.#ofFile(file as OpenFile, (handle) => [
        nfs.putHandle(handle),
        nfs.commit(),
      ]);
      // Another verifier: another server, which may not have the write (RFC 8881 18.32.3).
      if (verifier.equals(written.verifier)) return;
      this.#count("verifier changed");
    }
  }

  async remove(path: string): Promise<void> {
    await this.#give(path);
    const root = await this.#mount();
    const removal = () => [nfs.putHandle(root), nfs.remove(path)] as const;
    await this.#untilDecided(removal, ["NFS4ERR_NOENT"]);
  }

  async contend(file: EngineFile): Promise<void> {
    await this.#contendForLock(file as OpenFile);
    await this.#contendForOpen(file as OpenFile);
  }

  async #contendForLock(file: OpenFile): Promise<void> {
    const { state } = this.#counters;
    const put = () => nfs.putHandle(file.handle);
    const asked = await this.#untilDecided(
      (id) => {
        const opened = file.opened ?? nfs.invalidState;
        return [put(), nfs.lock(opened, this.#ownerOf(id, "rival"), shared, false)];
      },
      ["NFS4ERR_DENIED", ...lostStatuses],
    );
    if (asked.ok) {
      state.locksLost += 1;
      const [, locked] = asked.values;
      await this.#untilDecided(() => [put(), nfs.unlock(locked, shared)], lostStatuses);
    } else if (asked.status === "NFS4ERR_DENIED") state.refusals += 1;
  }

  async #contendForOpen({ path }: OpenFile): Promise<void> {
    const { state } = this.#counters;
    const root = await this.#mount();
    const asked = await this.#untilDecided(
      (id) => [
        nfs.putHandle(root),
        nfs.open(path, this.#ownerOf(id, "rival"), intruding, false),
        nfs.getHandle(),
      ],
      ["NFS4ERR_SHARE_DENIED", "NFS4ERR_NOENT"],
    );
    if (asked.ok) {
      state.openFilesLost += 1;
      const [, opened, handle] = asked.values;
      await this.#untilDecided(() => [nfs.putHandle(handle), nfs.close(opened)], lostStatuses);
    } else if (asked.status === "NFS4ERR_SHARE_DENIED") state.refusals += 1;
  }

  async close(): Promise<void> {
    const files = [...this.#files.keys()].map((path) => this.#give(path));
    const late = new Promise((resolve) => setTimeout(resolve, closeMsMax).unref());
    await Promise.race([Promise.all(files), late]);
    this.#closed = true;
    await this.#session.close(closeMsMax);
  }

  async #opened(path: string, isOwned: boolean): Promise<OpenFile> {
    const known = this.#files.get(path);
    if (known !== undefined) return known;
    const opening = this.#opening.get(path) ?? this.#openNow(path, isOwned);
    this.#opening.set(path, opening);
    try {
      return await opening;
    } finally {
      this.#opening.delete(path);
    }
  }

  async #openNow(path: string, isOwned: boolean): Promise<OpenFile> {
    const root = await this.#mount();
    const [, opened, handle] = await this.#untilOk((id) => [
      nfs.putHandle(root),
      nfs.open(path, this.#ownerOf(id, path), isOwned ? writing : reading, isOwned),
      nfs.getHandle(),
    ]);
    const none = { opened: undefined, locked: undefined, opening: undefined };
    const file: OpenFile = { path, handle, isOwned, ...none, opened };
    this.#files.set(path, file);
    if (isOwned) await this.#lock(file);
    return file;
  }

  /** Closes a file that is not needed any more, and all its locks (RFC 8881 18.2.3). */
  async #give(path: string): Promise<void> {
    const file = this.#files.get(path);
    this.#files.delete(path);
    const state = file?.opened;
    if (file === undefined || state === undefined) return;
    if (file.locked !== undefined) {
      const { locked } = file;
      await this.#untilDecided(
        () => [nfs.putHandle(file.handle), nfs.unlock(locked, whole)],
        lostStatuses,
      );
    }
    await this.#untilDecided(
      () => [nfs.putHandle(file.handle), nfs.close(state)],
      ["NFS4ERR_STALE", ...lostStatuses],
    );
  }

  async #lock(file: OpenFile): Promise<void> {
    const locked = await this.#untilDecided((id) => {
      const opened = file.opened ?? nfs.invalidState;
      const owner = this.#ownerOf(id, file.path);
      return [nfs.putHandle(file.handle), nfs.lock(opened, owner, whole, false)];
    }, lostStatuses);
    if (locked.ok) file.locked = locked.values[1];
    else file.opened = undefined;
  }

  /**
   * RFC 8881 8.4.2.1: all opens of the client id that we had, side by side, and the lock of each. Each counts as held until a server has decided,
   * through as many servers as it takes. Nothing is under way any more when it throws.
   */
  async #reclaimAll(exchange: Exchange, clientId: bigint): Promise<void> {
    const held = [...this.#files.values()].filter(({ opened }) => opened !== undefined);
    const ends = await Promise.allSettled(
      held.map((file) => this.#reclaim(file, exchange, clientId)),
    );
    for (const each of ends) if (each.status === "rejected") throw each.reason;
  }

  async #reclaim(file: OpenFile, exchange: Exchange, clientId: bigint): Promise<void> {
    const { state } = this.#counters;
    const owner = this.#ownerOf(clientId, file.path);
    const put = nfs.putHandle(file.handle);
    const opening = nfs.reclaimOpen(owner, file.isOwned ? writing : reading);
    const opened = await this.#patiently(exchange, [put, opening]);
    if (!opened.ok) return this.#lose(file);
    file.opened = opened.values[1];
    state.opensReclaimed += 1;
    if (file.locked === undefined) return;
    const locking = nfs.lock(file.opened, owner, whole, true);
    const locked = await this.#patiently(exchange, [put, locking]);
    file.locked = locked.ok ? locked.values[1] : undefined;
    state[locked.ok ? "locksReclaimed" : "locksLost"] += 1;
  }

  #lose(file: OpenFile): void {
    this.#counters.state.openFilesLost += 1;
    if (file.locked !== undefined) this.#counters.state.locksLost += 1;
    [file.opened, file.locked] = [undefined, undefined];
  }

  async #patiently<const Of extends Ops>(exchange: Exchange, ops: Of): Promise<CompoundResult<Of>> {
    for (;;) {
      const answered = await exchange(ops);
      if (answered.ok) return answered;
      this.#count(answered.status);
      if (answered.status !== "NFS4ERR_DELAY") return answered;
      await pause(retryMs);
    }
  }

  /** An operation on a file by its state: the lock where there is one (RFC 8881 8.2.5). What was lost is opened anew, and counted. */
  async #ofFile<const Of extends Ops>(
    file: OpenFile,
    make: (handle: Buffer, state: nfs.StateId) => Of,
  ): Promise<Extract<CompoundResult<Of>, { ok: true }>["values"]> {
    for (;;) {
      if (file.opened === undefined || (file.isOwned && file.locked === undefined)) {
        file.opening ??= this.#openAnew(file).finally(() => {
          file.opening = undefined;
        });
        await file.opening;
      }
      const answered = await this.#untilDecided(
        () => {
          // Not reclaimed, and not opened again: what comes of it is a status that says so.
          const state = file.locked ?? file.opened ?? nfs.invalidState;
          return make(file.handle, state);
        },
        lostStatuses,
        { isCached: false },
      );
      if (answered.ok) return answered.values;
      // Several may have been under way: the first that hears of it counts.
      if (file.opened !== undefined) this.#lose(file);
    }
  }

  async #openAnew(file: OpenFile): Promise<void> {
    const root = await this.#mount();
    const mode = file.isOwned ? writing : reading;
    const [, opened] = await this.#untilOk((id) => [
      nfs.putHandle(root),
      nfs.open(file.path, this.#ownerOf(id, file.path), mode, false),
    ]);
    file.opened = opened;
    if (file.isOwned) await this.#lock(file);
  }

  /** Names of opens and locks are those of files: each file is opened and locked once. */
  #ownerOf(clientId: bigint, name: string): nfs.Owner {
    return { clientId, name: `${this.#owner}/${name}` };
  }

  #mount(): Promise<Buffer> {
    this.#root ??= this.#mountNow();
    return this.#root;
  }

  async #mountNow(): Promise<Buffer> {
    const names = this.#target.exportPath.split("/").filter((name) => name !== "");
    for (;;) {
      const found = await this.#session.call(() => [
        nfs.putRootHandle(),
        ...names.map(nfs.lookup),
        nfs.getHandle(),
      ]);
      const handle: unknown = found.ok ? found.values.at(-1) : undefined;
      if (handle instanceof Buffer) return handle;
      if (!found.ok) this.#count(found.status);
      await pause(retryMs);
    }
  }

  async #untilOk<const Of extends Ops>(
    make: (clientId: bigint) => Of,
  ): Promise<Extract<CompoundResult<Of>, { ok: true }>["values"]> {
    const decided = await this.#untilDecided(make, []);
    if (!decided.ok) throw new Error(`decided without having been asked: ${decided.status}`);
    return decided.values;
  }

  /** Repeats until it succeeds, or fails with one of these statuses. `isCached`: it must not be done twice. */
  async #untilDecided<const Of extends Ops>(
    make: (clientId: bigint) => Of,
    statuses: readonly string[],
    { isCached } = { isCached: true },
  ): Promise<CompoundResult<Of>> {
    let isHeld = false;
    try {
      for (;;) {
        if (this.#closed) throw new EngineClosed();
        const answered = await this.#session.call(make, { isCached });
        if (answered.ok || statuses.includes(answered.status)) return answered;
        this.#count(answered.status);
        const byGrace = answered.status === "NFS4ERR_GRACE";
        if (byGrace !== isHeld) this.#hold(byGrace);
        isHeld = byGrace;
        await pause(retryMs);
      }
    } finally {
      if (isHeld) this.#hold(false);
    }
  }

  /** Counts the time in which at least one operation waits. */
  #hold(begins: boolean): void {
    const nowMs = performance.now();
    if (this.#held > 0) this.#counters.state.graceWaitMs += nowMs - this.#heldSinceMs;
    this.#heldSinceMs = nowMs;
    this.#held += begins ? 1 : -1;
  }

  #count(status: string): void {
    this.#counters.statuses[status] = (this.#counters.statuses[status] ?? 0) + 1;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
