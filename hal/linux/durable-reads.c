/*
 * A read never shows what a crash could take back, whoever wrote it. Loaded into smbd (LD_PRELOAD), of which each client has a process of its own, and
 * into ganesha.nfsd where a volume is offered by both: no process knows what the others have written, so the kernel is asked. (One
 * process that writes alone keeps lists, which is cheaper: ganesha/read-barrier.c and docs/design/0012-read-barrier.md.)
 *
 * After a read:
 *
 *   1. lseek(SEEK_DATA). ext4 takes the lock of the inode for it, which a write holds from before its first byte until its pages are dirty and
 *      its size is set. So whatever the read has seen is, from here on, what an fsync finds.
 *   2. fstat. Every alteration gives the file a new ctime before it lets go of that lock.
 *   3. A ctime that has been proved is enough. Otherwise fsync, and then that ctime is proved, if no later alteration can have the same.
 *
 * A later alteration has a ctime that is not before the coarse clock as it was read ahead of step 1, so a ctime before that is its own. (A clock that
 * is set back and hits a ctime to the nanosecond is not believed in.)
 *
 * The fsync is made on a file of its own: the kernel tells an error of writing once for each open file, and the one that a client writes to has to
 * tell it to that client's next flush. What could not be written is dropped from the page cache, where the kernel keeps it as if it were well.
 *
 * With DYAD_WRITE_THROUGH what smbd acknowledges without `sync always` having seen to it is synchronised here: copies within the server, and sizes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { proofs = 4096 }; /* a power of two; one that is pushed out costs an fsync */

struct proof {
  dev_t dev;
  ino_t ino;
  struct timespec changed;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct proof table[proofs];
static bool write_through;

static ssize_t (*next_pread64)(int, void *, size_t, off64_t);
static ssize_t (*next_preadv64)(int, const struct iovec *, int, off64_t);
static ssize_t (*next_copy_file_range)(int, off64_t *, int, off64_t *, size_t, unsigned);
static int (*next_ftruncate64)(int, off64_t);
static int (*next_fsync)(int);

static void find_next(void) {
  next_pread64 = dlsym(RTLD_NEXT, "pread64");
  next_preadv64 = dlsym(RTLD_NEXT, "preadv64");
  next_copy_file_range = dlsym(RTLD_NEXT, "copy_file_range");
  next_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
  next_fsync = dlsym(RTLD_NEXT, "fsync");
  write_through = getenv("DYAD_WRITE_THROUGH") != NULL;
}

/* Constructors of other libraries may read before one of this library would have run. */
static void ready(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_next);
}

static struct proof *proof_of(const struct stat *file) {
  uint64_t mixed = ((uint64_t)file->st_ino ^ ((uint64_t)file->st_dev << 40)) * 0x9e3779b97f4a7c15u;
  return &table[mixed >> 52 & (proofs - 1)];
}

static bool is_before(struct timespec a, struct timespec b) {
  return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

static bool is_proved(const struct stat *file) {
  pthread_mutex_lock(&lock);
  const struct proof *known = proof_of(file);
  bool same = known->dev == file->st_dev && known->ino == file->st_ino &&
              known->changed.tv_sec == file->st_ctim.tv_sec &&
              known->changed.tv_nsec == file->st_ctim.tv_nsec;
  pthread_mutex_unlock(&lock);
  return same;
}

static void note(const struct stat *file) {
  pthread_mutex_lock(&lock);
  *proof_of(file) =
      (struct proof){.dev = file->st_dev, .ino = file->st_ino, .changed = file->st_ctim};
  pthread_mutex_unlock(&lock);
}

/* Not for what is on no disk: the databases of smbd, sockets, pipes. */
static bool is_on_disk(const struct stat *file) {
  return S_ISREG(file->st_mode) && major(file->st_dev) != 0;
}

static int sync_or_drop(int fd) {
  int result = next_fsync(fd);
  int error = errno;
  if (result != 0 && error != EBADF && error != EINVAL && error != EINTR && error != EROFS)
    posix_fadvise64(fd, 0, 0, POSIX_FADV_DONTNEED);
  errno = error;
  return result;
}

/* Who has lost the right to open the file since has only the one that is open. */
static int sync_apart(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int apart = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (apart < 0) return sync_or_drop(fd);
  int result = sync_or_drop(apart);
  int error = errno;
  close(apart);
  errno = error;
  return result;
}

/* 0 when what a read at that place could have seen is on the disk. */
static int prove(int fd, off64_t offset) {
  struct timespec now;
  struct stat file;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  /* Beyond the last byte it fails, after it has had the lock. */
  lseek64(fd, offset, SEEK_DATA);
  if (fstat(fd, &file) != 0) return -1;
  if (!is_on_disk(&file) || is_proved(&file)) return 0;
  if (sync_apart(fd) != 0) return -1;
  if (is_before(file.st_ctim, now)) note(&file);
  return 0;
}

static ssize_t proved(ssize_t result, int fd, off64_t offset) {
  int error = errno;
  if (result >= 0 && prove(fd, offset) != 0) {
    errno = EIO;
    return -1;
  }
  errno = error;
  return result;
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t offset) {
  ready();
  return proved(next_pread64(fd, data, bytes, offset), fd, offset);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset) {
  return pread64(fd, data, bytes, offset);
}

ssize_t preadv64(int fd, const struct iovec *vector, int count, off64_t offset) {
  ready();
  return proved(next_preadv64(fd, vector, count, offset), fd, offset);
}

int fsync(int fd) {
  ready();
  return sync_or_drop(fd);
}

static int settled(int result, int fd) {
  struct stat file;
  if (result < 0 || !write_through || fstat(fd, &file) != 0 || !is_on_disk(&file)) return result;
  return sync_or_drop(fd) == 0 ? result : -1;
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes, unsigned flags) {
  ready();
  ssize_t copied = next_copy_file_range(from, from_at, to, to_at, bytes, flags);
  return copied <= 0 || settled(0, to) == 0 ? copied : -1;
}

int ftruncate64(int fd, off64_t length) {
  ready();
  return settled(next_ftruncate64(fd, length), fd);
}

int ftruncate(int fd, off_t length) {
  return ftruncate64(fd, length);
}
