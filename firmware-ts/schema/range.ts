/** Pieces of a disk, and what is known in advance about those of a file system. */

/** A piece of a device. */
export interface Range {
  readonly fromBytes: number;
  readonly lengthBytes: number;
}

/** What a mount and a start of a file service will read, as far as it could be told. It may be out of date; then it costs time only. */
export interface Foreseen {
  /** Of the file system: the size that the mount gives the device's blocks. */
  readonly blockSizeBytes: number;
  /** In the order of the device, apart from each other. */
  readonly ranges: readonly Range[];
}
