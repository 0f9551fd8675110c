/**
 * A lock on a file that the kernel takes back with its process, however that ends (flock(2)). Two witnesses on one state would each
 * grant what the other does not know of.
 */
import { closeSync, openSync } from "node:fs";
import { constants } from "node:os";
import koffi from "koffi";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** <sys/file.h>; the same on Linux, macOS and the BSDs. */
const exclusiveAtOnce = 2 | 4;

/** Takes the lock, or fails with `refused` (somebody has it) or `ioError`. It is held until `release`, or the end of the process. */
export function lockFile(path: string): Outcome<{ readonly release: () => void }> {
  const operation = `lock ${path}`;
  let descriptor: number;
  try {
    descriptor = openSync(path, "a", 0o600);
  } catch (error) {
    return failed("ioError", operation, "cannot be opened", error);
  }
  let errno: number;
  try {
    errno = flock(descriptor, exclusiveAtOnce);
  } catch (error) {
    closeSync(descriptor);
    return failed("ioError", operation, "flock cannot be called", error);
  }
  if (errno === 0) return good({ release: () => closeSync(descriptor) });
  closeSync(descriptor);
  return errno === constants.errno.EWOULDBLOCK
    ? failed("refused", operation, "another witness is running on this state")
    : failed("ioError", operation, `flock fails with errno ${errno}`);
}

/** 0, or errno. Throws where there is no such library. */
function flock(descriptor: number, how: number): number {
  const libc = koffi.load(process.platform === "linux" ? "libc.so.6" : "libc.dylib");
  const call = libc.func("int flock(int fd, int operation)");
  return call(descriptor, how) === 0 ? 0 : koffi.errno();
}
