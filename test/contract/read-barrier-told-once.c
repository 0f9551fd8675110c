/*
 * fsync(2) as the kernel has it when a write has failed: it tells one of those who share a descriptor, and the others that all is well. The
 * one that is told is slow to hear of it: it returns a moment after the next has been answered.
 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int calls;

int fsync(int fd) {
  (void)fd;
  if (atomic_fetch_add(&calls, 1) > 0) return 0;
  while (atomic_load(&calls) < 2) usleep(1000);
  usleep(100000);
  errno = EIO;
  return -1;
}
