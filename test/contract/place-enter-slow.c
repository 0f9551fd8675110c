/*
 * For the test of enter.c: loaded into it (LD_PRELOAD), stops before its system call number $SLOW_AT of those that have to do with mounts, while the
 * file $SLOW_FILE exists. "$SLOW_FILE.inside" tells that it is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

static void count_call(void) {
  static int calls;
  const char *at = getenv("SLOW_AT");
  const char *hold = getenv("SLOW_FILE");
  if (at == NULL || hold == NULL || ++calls != atoi(at)) return;
  char inside[512];
  snprintf(inside, sizeof inside, "%s.inside", hold);
  close(open(inside, O_CREAT | O_WRONLY, 0600));
  while (access(hold, F_OK) == 0) usleep(1000);
}

#define SLOW(name, parameters, arguments)                    \
  int name parameters {                                      \
    int(*next) parameters = dlsym(RTLD_NEXT, #name);         \
    count_call();                                            \
    return next arguments;                                   \
  }

SLOW(unshare, (int flags), (flags))
SLOW(mount, (const char *source, const char *target, const char *type, unsigned long flags, const void *data), (source, target, type, flags, data))
SLOW(umount2, (const char *target, int flags), (target, flags))
SLOW(open_tree, (int folder, const char *path, unsigned int flags), (folder, path, flags))
SLOW(move_mount, (int from, const char *source, int to, const char *target, unsigned int flags), (from, source, to, target, flags))
SLOW(mount_setattr, (int folder, const char *path, unsigned int flags, struct mount_attr *attributes, size_t size), (folder, path, flags, attributes, size))
