/*
 * For the test of the read barrier: a pwritev(2) that has written and does not return while the file $SLOW_PWRITE exists; "$SLOW_PWRITE.inside"
 * tells that it is there. To a reader it looks like a write that the kernel is in the middle of.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t pwritev64(int fd, const struct iovec *vector, int count, off64_t offset) {
  ssize_t (*next)(int, const struct iovec *, int, off64_t) = dlsym(RTLD_NEXT, "pwritev64");
  ssize_t result = next(fd, vector, count, offset);
  const char *hold = getenv("SLOW_PWRITE");
  char inside[512];
  if (hold == NULL || access(hold, F_OK) != 0) return result;
  snprintf(inside, sizeof inside, "%s.inside", hold);
  close(open(inside, O_CREAT | O_WRONLY, 0600));
  while (access(hold, F_OK) == 0) usleep(1000);
  return result;
}
