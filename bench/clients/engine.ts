/**
 * What the writer and the reader need of an NFS client. Every operation is repeated through any outage for ever, as a hard mount does;
 * it rejects only when the engine has been closed.
 */

/** A file that is open; what it holds is the engine's. */
export interface EngineFile {
  readonly path: string;
}

/** How a write reaches stable storage: in one call, or by WRITE and COMMIT with the verifier compared (RFC 1813 3.3.21). */
export type Stability = "file-sync" | "commit";

export interface Engine {
  /** Creates the file if it is not there; an existing one is opened as it is. */
  create(path: string): Promise<EngineFile>;
  /** Opens a file, waiting until it exists. */
  open(path: string): Promise<EngineFile>;
  /** Returns what is there, less than `length` at the end of the file. */
  read(file: EngineFile, offset: number, length: number): Promise<Buffer>;
  /** Settles when the data are stable. */
  write(file: EngineFile, offset: number, data: Buffer, stability: Stability): Promise<void>;
  /** Removes a file; absent is well. */
  remove(path: string): Promise<void>;
  /**
   * Of an engine with state: asks, as somebody else, for what the one who created the file holds of it, and counts what is granted, which
   * must not be. Settles when the server has decided.
   */
  contend?(file: EngineFile): Promise<void>;
  close(): Promise<void>;
}

/** Where the export is. */
export interface Target {
  readonly server: string;
  readonly exportPath: string;
  readonly nfsPort: number;
  readonly mountPort: number;
}

/** What became of opens and locks; all zero for an engine that has none. */
export interface StateCounts {
  /** Opens and locks that a new server took over, and those that it did not, or that somebody else was given. */
  opensReclaimed: number;
  openFilesLost: number;
  locksReclaimed: number;
  locksLost: number;
  /** How often somebody who asked for what is held was refused it. */
  refusals: number;
  /** For how long something of this client waited for others to reclaim. */
  graceWaitMs: number;
}

/** Things that an engine counts apart from operations. */
export interface EngineCounters {
  /** Connections lost, or calls that had to be repeated. */
  repeats: number;
  /** NFS statuses other than success, by name. */
  statuses: Record<string, number>;
  readonly state: StateCounts;
}

export function noCounts(): EngineCounters {
  const state = { opensReclaimed: 0, openFilesLost: 0, locksReclaimed: 0, locksLost: 0 };
  return { repeats: 0, statuses: {}, state: { ...state, refusals: 0, graceWaitMs: 0 } };
}

/** Thrown by operations of an engine that was closed. */
export class EngineClosed extends Error {
  override readonly name = "EngineClosed";
}
