/**
 * A pseudo-terminal whose near end (`/dev/pts/N`) a controller opens as its serial port, while we hold the far end. Calls go
 * to the C library: posix_openpt(3), unlockpt(3), ptsname_r(3), and two ioctls of ioctl_tty(2).
 */
import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync, rmSync, symlinkSync, writeSync } from "node:fs";
import { ReadStream } from "node:tty";
import koffi from "koffi";

const libc = koffi.load("libc.so.6");
const unlockpt = libc.func("int unlockpt(int fd)");
const ptsnameR = libc.func("int ptsname_r(int fd, _Out_ char *name, size_t length)");
const ioctlInt = libc.func("int ioctl(int fd, unsigned long request, _Inout_ int *argument)");
const tcflush = libc.func("int tcflush(int fd, int queue)");

const nameBytesMax = 64;
/** asm-generic/ioctls.h: bytes waiting to be read. */
const FIONREAD = 0x541b;
/** bits/termios.h: the queue of bytes received and not read. */
const TCIFLUSH = 0;
/** Bytes that nobody reads: a real port's buffer overruns far earlier. */
const unreadBytesMax = 2048;

export interface Pty {
  readonly path: string;
  /** Bytes that were dropped because nobody read them, as a UART drops what its FIFO cannot hold. */
  overruns(): number;
  write(data: Uint8Array): void;
  /** Forgets what was sent and not read: a machine that was off has heard nothing. */
  forget(): void;
  close(): void;
}

/** Opens a pseudo-terminal in raw mode and makes `linkPath` a stable name for it. Throws when the system refuses. */
export function openPty(linkPath: string, onData: (data: Buffer) => void): Pty {
  const far = openSync("/dev/ptmx", constants.O_RDWR | constants.O_NOCTTY);
  const name = Buffer.alloc(nameBytesMax);
  if (unlockpt(far) !== 0 || ptsnameR(far, name, name.length) !== 0)
    throw new Error("pty: the system gave no name");
  const path = name.toString("latin1", 0, name.indexOf(0));
  // Held open for ever: otherwise the far end reports a hang-up whenever a controller closes its port.
  const near = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
  const raw = spawnSync("stty", ["-F", path, "raw", "-echo"]);
  if (raw.status !== 0) throw new Error(`pty: stty: ${String(raw.stderr).trim()}`);
  rmSync(linkPath, { force: true });
  symlinkSync(path, linkPath);
  const stream = new ReadStream(far);
  stream.on("data", (data: Buffer) => onData(data));
  stream.on("error", () => {});
  let overruns = 0;
  const forget = () => {
    tcflush(near, TCIFLUSH);
  };
  return {
    path,
    overruns: () => overruns,
    forget,
    write(data) {
      const waiting = [0];
      if (ioctlInt(near, FIONREAD, waiting) === 0 && (waiting[0] ?? 0) > unreadBytesMax) {
        overruns += waiting[0] ?? 0;
        forget();
      }
      try {
        overruns += data.length - writeSync(far, data);
      } catch {
        // EAGAIN: the queue is full, the bytes are lost, as on a wire.
        overruns += data.length;
      }
    },
    close() {
      stream.destroy();
      closeSync(near);
      rmSync(linkPath, { force: true });
    },
  };
}
