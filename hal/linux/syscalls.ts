/**
 * The system calls that the drivers need, through koffi: no process per call, and sockets, mounts and ioctls that
 * Node does not offer.
 *
 * Convention: as in the kernel, a function returns its result, or the negative error number. Faults are made of
 * those by the caller, who knows the operation. Constants cite the header they come from.
 */
import { endianness } from "node:os";
import { getSystemErrorName } from "node:util";
import koffi from "koffi";

// Netlink, packet sockets and ioctls speak the machine's byte order; the codecs beside this file write little endian.
if (endianness() !== "LE") throw new Error("hal/linux supports little-endian machines only");

const libc = koffi.load("libc.so.6");
const native = {
  socket: libc.func("int socket(int domain, int type, int protocol)"),
  bind: libc.func("int bind(int fd, const uint8_t *address, uint32_t length)"),
  setsockopt: libc.func(
    "int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t length)",
  ),
  sendto: libc.func(
    "intptr_t sendto(int fd, const uint8_t *data, size_t length, int flags, const uint8_t *address, uint32_t addressLength)",
  ),
  recv: libc.func("intptr_t recv(int fd, _Out_ uint8_t *data, size_t length, int flags)"),
  close: libc.func("int close(int fd)"),
  sched_setscheduler: libc.func(
    "int sched_setscheduler(int thread, int policy, const uint8_t *parameter)",
  ),
  mount: libc.func(
    "int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)",
  ),
  umount2: libc.func("int umount2(const char *target, int flags)"),
  syncfs: libc.func("int syncfs(int fd)"),
  ioctl: libc.func("int ioctl(int fd, unsigned long request, uint8_t *argument)"),
  posix_fadvise: libc.func("int posix_fadvise(int fd, int64_t from, int64_t length, int advice)"),
  if_nametoindex: libc.func("uint32_t if_nametoindex(const char *name)"),
  setns: libc.func("int setns(int fd, int kind)"),
  unshare: libc.func("int unshare(int kinds)"),
  mknod: libc.func("int mknod(const char *path, uint32_t mode, uint64_t device)"),
  read: libc.func("intptr_t read(int fd, _Out_ uint8_t *data, size_t length)"),
  epoll_create1: libc.func("int epoll_create1(int flags)"),
  epoll_ctl: libc.func("int epoll_ctl(int epoll, int operation, int fd, uint8_t *event)"),
  epoll_wait: libc.func("int epoll_wait(int epoll, _Out_ uint8_t *events, int max, int timeoutMs)"),
  fanotify_init: libc.func("int fanotify_init(unsigned int flags, unsigned int fileFlags)"),
  fanotify_mark: libc.func(
    "int fanotify_mark(int fd, unsigned int flags, uint64_t mask, int folder, const char *path)",
  ),
};

/** <bits/socket.h> */
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_CLOEXEC = 0o2000000;
export const MSG_DONTWAIT = 0x40;

/** <asm-generic/errno-base.h> and errno.h: what the drivers tell apart. */
export const errno = {
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  ESRCH: 3,
  EBUSY: 16,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRNOTAVAIL: 99,
} as const;

/** The error number of what a function of Node threw; anything else it threw is thrown on. */
export function errnoOf(error: unknown): number {
  const number = error instanceof Error && "errno" in error ? Number(error.errno) : Number.NaN;
  if (!Number.isInteger(number)) throw error;
  return Math.abs(number);
}

function checked(result: number | bigint): number {
  return Number(result) < 0 ? -koffi.errno() : Number(result);
}

type Async = { async: (...args: unknown[]) => void };

/** Runs a call on a worker thread of libuv's pool. */
function later(call: Async, ...args: readonly unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: unknown, result: number | bigint) => {
      // koffi carries the worker's errno over to this callback, and no further.
      if (error) reject(error);
      else resolve(checked(result));
    });
  });
}

/** A descriptor, closed on exec. */
export function openSocket(domain: number, type: number, protocol: number): number {
  return checked(native.socket(domain, type | SOCK_CLOEXEC, protocol));
}

/** `address` is the sockaddr as bytes. */
export function bindSocket(descriptor: number, address: Uint8Array): number {
  return checked(native.bind(descriptor, address, address.length));
}

/** Sets an option that is an int. */
export function setSocketOption(
  descriptor: number,
  level: number,
  name: number,
  value: number,
): number {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return checked(native.setsockopt(descriptor, level, name, bytes, bytes.length));
}

/** Never blocks: a full queue is -EAGAIN. */
export function sendTo(descriptor: number, data: Uint8Array, address: Uint8Array): number {
  return checked(
    native.sendto(descriptor, data, data.length, MSG_DONTWAIT, address, address.length),
  );
}

/** As `sendTo`, on a worker thread: for requests that the kernel works on for many ms before the call returns. */
export function sendToLater(
  descriptor: number,
  data: Uint8Array,
  address: Uint8Array,
): Promise<number> {
  return later(native.sendto, descriptor, data, data.length, MSG_DONTWAIT, address, address.length);
}

/** Never blocks: an empty queue is -EAGAIN. */
export function receive(descriptor: number, buffer: Uint8Array): number {
  return checked(native.recv(descriptor, buffer, buffer.length, MSG_DONTWAIT));
}

/** read(2); of a descriptor that does not block: an empty one is -EAGAIN. */
export function readDescriptor(descriptor: number, buffer: Uint8Array): number {
  return checked(native.read(descriptor, buffer, buffer.length));
}

/** An epoll(7) instance, closed on exec. */
export function createEpoll(): number {
  const EPOLL_CLOEXEC = 0o2000000;
  return checked(native.epoll_create1(EPOLL_CLOEXEC));
}

/** epoll_ctl(2); `event` is the struct epoll_event as bytes. */
export function controlEpoll(
  epoll: number,
  operation: number,
  descriptor: number,
  event: Uint8Array,
): number {
  return checked(native.epoll_ctl(epoll, operation, descriptor, event));
}

/** epoll_wait(2) without waiting: how many of at most `max` events were written. */
export function pollEpoll(epoll: number, events: Uint8Array, max: number): number {
  return checked(native.epoll_wait(epoll, events, max, 0));
}

/** fanotify_init(2): a group that hears what is marked for it. */
export function createFanotify(flags: number, fileFlags: number): number {
  return checked(native.fanotify_init(flags, fileFlags));
}

/** fanotify_mark(2) by path. */
export function markFanotify(group: number, flags: number, mask: number, path: string): number {
  const AT_FDCWD = -100;
  return checked(native.fanotify_mark(group, flags, mask, AT_FDCWD, path));
}

export function closeDescriptor(descriptor: number): number {
  return checked(native.close(descriptor));
}

/** <linux/sched.h>: kinds of namespaces. */
export const CLONE_NEWNET = 0x40000000;
export const CLONE_NEWPID = 0x20000000;

/** mknod(2); `major` and `minor` make a dev_t of 32 bits (<sys/sysmacros.h>). Whatever the umask of this process takes from the mode is lost. */
export function makeNode(path: string, mode: number, major: number, minor: number): number {
  const device = (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12);
  return checked(native.mknod(path, mode, device >>> 0));
}

/** mount(2) on this thread, of a file system in memory that may hold device nodes, but no programs. */
export function mountMemory(source: string, target: string, options: string): number {
  const MS_NOSUID = 2;
  const MS_NOEXEC = 8;
  return checked(native.mount(source, target, "tmpfs", MS_NOSUID | MS_NOEXEC, options));
}

/** setns(2): this thread enters the namespace of a descriptor. Synchronous: nothing else of this thread runs in between. */
export function enterNamespace(descriptor: number, kind: number): number {
  return checked(native.setns(descriptor, kind));
}

/** unshare(2): this thread gets a namespace of its own. */
export function unshareNamespace(kind: number): number {
  return checked(native.unshare(kind));
}

/** mount(2) on this thread, for what waits for no device: a bind mount. */
export function bindMount(source: string, target: string): number {
  const MS_BIND = 4096;
  return checked(native.mount(source, target, "", MS_BIND, ""));
}

/** mount(2) on this thread: whether what is mounted below `target` is seen in copies of it (mount_namespaces(7)). */
export function setPropagation(target: string, how: "private" | "shared"): number {
  const kinds = { private: 1 << 18, shared: 1 << 20 } as const;
  return checked(native.mount("none", target, "", kinds[how], ""));
}

/** umount2(2) on this thread, of what waits for no device. */
export function unbindMount(target: string): number {
  const MNT_DETACH = 2;
  return checked(native.umount2(target, MNT_DETACH));
}

/** The index of a network interface in the caller's network namespace. */
export function interfaceIndex(name: string): number {
  const index = native.if_nametoindex(name) as number;
  return index === 0 ? -koffi.errno() : index;
}

/** <linux/sched.h>: policies, and what is added to one. */
export const SCHED_OTHER = 0;
export const SCHED_FIFO = 1;
export const SCHED_RESET_ON_FORK = 0x40000000;

/** Scheduling of one thread, by its number or 0 for this one; `parameter` is a struct sched_param. */
export function setScheduler(thread: number, policy: number, priority: number): number {
  const parameter = Buffer.alloc(4);
  parameter.writeInt32LE(priority);
  return checked(native.sched_setscheduler(thread, policy, parameter));
}

/** mount(2), on a worker thread. */
export function mountLater(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): Promise<number> {
  return later(native.mount, source, target, type, flags, data);
}

/** umount2(2), on a worker thread. */
export function unmountLater(target: string, flags: number): Promise<number> {
  return later(native.umount2, target, flags);
}

/** syncfs(2), on a worker thread: reports write errors of the whole file system, which unmounting does not. */
export function syncFileSystemLater(descriptor: number): Promise<number> {
  return later(native.syncfs, descriptor);
}

/** ioctl(2) with a buffer, which takes what the kernel answers, on a worker thread. */
export function ioctlLater(
  descriptor: number,
  request: number,
  argument: Uint8Array,
): Promise<number> {
  return later(native.ioctl, descriptor, request, argument);
}

/** posix_fadvise(2) on a worker thread: it may wait for room in the device's queue. Unlike the others it returns the error number itself. */
export async function adviseLater(
  descriptor: number,
  fromBytes: number,
  lengthBytes: number,
  advice: number,
): Promise<number> {
  return -(await later(native.posix_fadvise, descriptor, fromBytes, lengthBytes, advice));
}

/** `ENOENT` for -2 and so on: the part of a fault that a search engine knows. */
export function errorName(result: number): string {
  return getSystemErrorName(result);
}
