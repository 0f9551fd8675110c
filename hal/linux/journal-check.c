/*
 * An fsync that says it has succeeded is believed only while the journal of the file system lives. Loaded into ganesha.nfsd and smbd (LD_PRELOAD), behind
 * what else wraps fsync there (docs/design/0034-a-dead-journal.md).
 *
 * When ext4 finds an error it ends its journal, and some time later says so to whoever asks. An fsync in between can say 0 of what was never written
 * (seen with Linux 6.18): acknowledged writes were lost in 14 of 100 such errors, with this library in none of 100.
 *
 * Beginning a transaction does look. Taking away an attribute that is not there begins one, and alters nothing.
 *
 * Whoever finds the journal dead answers nobody for a while: the firmware notices within some milliseconds, ends this process, and the partner answers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* As long as a device that another controller has taken says nothing (hal/block/iscsi/disk-timing, fencedSilenceMs). */
enum { silence_s = 2 };

/* The first asks nothing of whoever calls but to be privileged, the second to be allowed to write to the file. */
static const char *const absent[] = {"trusted.dyad.absent", "user.dyad.absent"};

static int (*next_fsync)(int);
static int (*next_fdatasync)(int);
static int (*next_syncfs)(int);

static void find_next(void) {
  next_fsync = dlsym(RTLD_NEXT, "fsync");
  next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  next_syncfs = dlsym(RTLD_NEXT, "syncfs");
}

static void ready(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_next);
}

static bool is_dead(int fd) {
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
    if (fremovexattr(fd, absent[i]) == 0 || errno == ENODATA) return false;
    if (errno == EROFS || errno == EIO || errno == ESHUTDOWN) return true;
  }
  return false;
}

static int checked(int result, int fd) {
  int error = errno;
  if (is_dead(fd)) {
    struct timespec left = {.tv_sec = silence_s};
    while (nanosleep(&left, &left) != 0 && errno == EINTR);
    error = EIO;
    result = -1;
  }
  errno = error;
  return result;
}

int fsync(int fd) {
  ready();
  return checked(next_fsync(fd), fd);
}

int fdatasync(int fd) {
  ready();
  return checked(next_fdatasync(fd), fd);
}

int syncfs(int fd) {
  ready();
  return checked(next_syncfs(fd), fd);
}
