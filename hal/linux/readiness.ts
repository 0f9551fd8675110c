/**
 * Descriptors that the kernel makes ready and that Node cannot wait for (netlink, /proc/self/mountinfo, fanotify): one epoll(7) instance for all of
 * them, looked at once in `lookMs`. A look takes 2 µs however many there are. A thread that waits would be the alternative; a process does not
 * end before its threads have, and a controller that fences itself ends at once.
 */
import { arch } from "node:os";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { closeDescriptor, controlEpoll, createEpoll, errorName, pollEpoll } from "./syscalls.ts";

const lookMs = 10;

/** <sys/epoll.h> */
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const kinds = { input: 0x1, priority: 0x2 } as const;
/** struct epoll_event: a word of events and eight bytes of ours, packed on x86-64 only. */
const eventBytes = arch() === "x64" ? 12 : 16;
const dataAt = eventBytes - 8;
/** The rest is found by the next look. */
const eventsMax = 64;

export class Readiness {
  readonly #epoll: number;
  readonly #timer: NodeJS.Timeout;
  readonly #ready = new Map<number, () => void>();
  readonly #events = Buffer.alloc(eventsMax * eventBytes);

  private constructor(epoll: number) {
    this.#epoll = epoll;
    this.#timer = setInterval(() => this.#look(), lookMs).unref();
  }

  /** Fault `ioError`. */
  static open(): Outcome<Readiness> {
    const epoll = createEpoll();
    if (epoll >= 0) return good(new Readiness(epoll));
    return failed("ioError", "watch descriptors", `epoll: ${errorName(epoll)}`);
  }

  /**
   * Calls `ready` while there is something to read, or once for each priority event. The descriptor stays the caller's, who calls the result
   * before closing it. Fault `ioError`.
   */
  add(descriptor: number, kind: keyof typeof kinds, ready: () => void): Outcome<() => void> {
    const event = Buffer.alloc(eventBytes);
    event.writeUInt32LE(kinds[kind], 0);
    event.writeUInt32LE(descriptor, dataAt);
    const added = controlEpoll(this.#epoll, EPOLL_CTL_ADD, descriptor, event);
    if (added < 0) return failed("ioError", "watch descriptor", errorName(added));
    this.#ready.set(descriptor, ready);
    return good(() => {
      if (this.#ready.get(descriptor) !== ready) return;
      this.#ready.delete(descriptor);
      controlEpoll(this.#epoll, EPOLL_CTL_DEL, descriptor, event);
    });
  }

  close(): void {
    clearInterval(this.#timer);
    closeDescriptor(this.#epoll);
    this.#ready.clear();
  }

  #look(): void {
    const count = pollEpoll(this.#epoll, this.#events, eventsMax);
    for (let i = 0; i < count; i += 1)
      this.#ready.get(this.#events.readUInt32LE(i * eventBytes + dataAt))?.();
  }
}
