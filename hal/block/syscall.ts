/**
 * The few system calls that Node does not offer and the block path needs. Each runs on a worker thread of koffi: a call
 * that waits for a disk, or for a FUSE server that may be ourselves, must not stop the event loop.
 */
import koffi from "koffi";

export type CallResult =
  | { readonly ok: true; readonly value: number }
  | { readonly ok: false; readonly errno: number };

type Async = { async: (...args: unknown[]) => void };
let calls: { ioctl: Async; fallocate: Async; umount2: Async } | undefined;

/** Loaded at first use, so that a process which needs no device does not load a foreign library. */
function libc(): NonNullable<typeof calls> {
  if (calls === undefined) {
    const library = koffi.load("libc.so.6");
    calls = {
      ioctl: library.func("int ioctl(int fd, unsigned long request, void *argument)"),
      fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)"),
      umount2: library.func("int umount2(const char *target, int flags)"),
    };
  }
  return calls;
}

function run(call: Async, ...args: unknown[]): Promise<CallResult> {
  return new Promise((resolve) => {
    call.async(...args, (error: unknown, value: number) => {
      // koffi saves the thread's errno and restores it around this callback, nowhere else.
      const errno = koffi.errno();
      if (error) throw new Error("koffi call failed", { cause: error });
      resolve(value < 0 ? { ok: false, errno } : { ok: true, value });
    });
  });
}

/** ioctl(2) whose argument is a buffer, or a small integer. */
export function ioctl(fd: number, request: number, argument: Buffer | number): Promise<CallResult> {
  return run(libc().ioctl, fd, request, argument);
}

/** Modes of fallocate(2), <linux/falloc.h>. */
export const fallocMode = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;

export function fallocate(
  fd: number,
  mode: number,
  offset: number,
  length: number,
): Promise<CallResult> {
  return run(libc().fallocate, fd, mode, offset, length);
}

/** umount2(2) with MNT_DETACH: works on a FUSE mount whose server is dead, where stat(2) fails already. */
export function detachMount(path: string): Promise<CallResult> {
  const mntDetach = 2;
  return run(libc().umount2, path, mntDetach);
}
