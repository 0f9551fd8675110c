/**
 * The pair's secret from a file. A secret that others on the machine can read is no secret: such a file is
 * refused, not warned about.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** RFC 2104 section 3: a key shorter than the hash's output weakens HMAC, a longer one adds little. */
export const pairKeyBytes = 32;

const operation = "read pair key";
const groupAndOthers = 0o077;

/**
 * Reads exactly `pairKeyBytes` raw bytes, or the same as 64 hexadecimal digits with an optional newline.
 * Faults: `ioError` (cannot be read), `refused` (others may access it), `badInput` (wrong length, no regular file).
 */
export function readPairKey(path: string): Outcome<Uint8Array> {
  let descriptor: number;
  try {
    // O_NONBLOCK: a FIFO in place of the file must not hang the start.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return failed("ioError", operation, `cannot open ${path}`, error);
  }
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) return failed("badInput", operation, `${path} is no regular file`);
    if ((status.mode & groupAndOthers) !== 0) {
      const mode = (status.mode & 0o777).toString(8).padStart(4, "0");
      return failed(
        "refused",
        operation,
        `${path} has mode ${mode}: others may use it; run: chmod 600 ${path}`,
      );
    }
    const bytes = Buffer.alloc(2 * pairKeyBytes + 2);
    return parseKey(path, bytes.subarray(0, readSync(descriptor, bytes)));
  } catch (error) {
    return failed("ioError", operation, `cannot read ${path}`, error);
  } finally {
    closeSync(descriptor);
  }
}

function parseKey(path: string, bytes: Buffer): Outcome<Uint8Array> {
  if (bytes.length === pairKeyBytes) return good(new Uint8Array(bytes));
  const digits = /^([0-9a-fA-F]{64})\n?$/.exec(bytes.toString("latin1"))?.[1];
  if (digits !== undefined) return good(new Uint8Array(Buffer.from(digits, "hex")));
  return failed(
    "badInput",
    operation,
    `${path} must hold ${pairKeyBytes} bytes or ${2 * pairKeyBytes} hexadecimal digits; make one with: ` +
      `(umask 077; openssl rand -hex ${pairKeyBytes} > ${path})`,
  );
}
