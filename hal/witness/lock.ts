/**
 * A lock on a file that the kernel takes back with its process, however that ends (flock(2)). Two witnesses on one state would each
 * grant what the other does not know of.
 */
import { closeSync, openSync } from "node:fs";
import koffi from "koffi";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** <sys/file.h>; the same on Linux, macOS and the BSDs. */
const exclusiveAtOnce = 2 | 4;

/** Takes the lock or fails with `refused`. It is held until `release`, or the end of the process. */
export function lockFile(path: string): Outcome<{ readonly release: () => void }> {
  const operation = `lock ${path}`;
  let descriptor: number;
  try {
    descriptor = openSync(path, "a", 0o600);
  } catch (error) {
    return failed("ioError", operation, "cannot be opened", error);
  }
  const libc = koffi.load(process.platform === "linux" ? "libc.so.6" : "libc.dylib");
  const flock = libc.func("int flock(int fd, int operation)");
  if (flock(descriptor, exclusiveAtOnce) === 0)
    return good({ release: () => closeSync(descriptor) });
  closeSync(descriptor);
  return failed("refused", operation, "another witness is running on this state");
}
