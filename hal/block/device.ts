/**
 * The one interface of every block device: a file, an iSCSI disk, whatever is stacked on them. An NBD export serves any.
 *
 * Obligations of an implementation: `ok` means done as asked, never "will be done". An operation without an answer from
 * below ends in a fault: its effect is then unknown, and the caller must not assume either way. A conflict with a
 * reservation is the fault `fenced`, and no other fault has that code. Operations may overlap in time and may complete in any order.
 */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";

export interface BlockDevice {
  /** Fixed while the device is open. */
  readonly sizeBytes: number;
  /** Offsets and lengths are multiples of this. A power of two. */
  readonly blockSizeBytes: number;
  /** Exactly `length` bytes from `offset`. The buffer belongs to the caller. */
  read(offset: number, length: number): Promise<Outcome<Buffer>>;
  /** `data` must stay unchanged until the answer. With `fua` the data is durable when this is ok. */
  write(offset: number, data: Buffer, options: { readonly fua: boolean }): Promise<Outcome>;
  /** Makes every write that was acknowledged before this call durable. */
  flush(): Promise<Outcome>;
  /** Tells that the content is no longer needed; what is read there afterwards is unspecified. */
  trim(offset: number, length: number): Promise<Outcome>;
  /** Reads as zeroes afterwards. With `mayTrim` the space may be given back. */
  writeZeroes(
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly mayTrim: boolean },
  ): Promise<Outcome>;
  /** Waits for operations under way. Calling it twice is harmless; calling anything else afterwards is a fault. */
  close(): Promise<void>;
}

/** Whether a range lies on the device's blocks and within its size. */
export function inRange(
  device: Pick<BlockDevice, "sizeBytes" | "blockSizeBytes">,
  offset: number,
  length: number,
): boolean {
  return (
    Number.isSafeInteger(offset) &&
    offset >= 0 &&
    length >= 0 &&
    offset + length <= device.sizeBytes &&
    offset % device.blockSizeBytes === 0 &&
    length % device.blockSizeBytes === 0
  );
}
