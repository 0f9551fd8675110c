/*
 * enter PLACES NAME [CGROUP...] [+TARGET=SOURCE...] -- [VARIABLE=VALUE...] PROGRAM [ARGUMENT...]
 *
 * Starts a program of one virtual server in a mount namespace of its own: of the folder PLACES it sees NAME and nothing else, so the volumes of
 * its neighbours are not there for it. What is mounted in PLACES/NAME later, by whoever made the folder, is mounted here too, because
 * that folder is shared and this namespace follows it; nothing that is mounted here is seen anywhere else (mount_namespaces(7)).
 * Its /dev is PLACES/NAME/@dev, which it cannot change, and everywhere else a device node opens nothing: it reaches the devices of its own volumes, and
 * not the host's or its neighbours'.
 * Before that it joins control groups (cgroups(7)), so that not one page of it is counted for somebody else.
 *
 * At each TARGET it sees SOURCE: a file in the place of another, or its own folder of PLACES where also a program that is not root's gets to.
 *
 * Variables are for the program alone: a library that it is started with (LD_PRELOAD) must not be loaded here.
 *
 * It ends with 127 and a line on standard error when something cannot be done: a program outside its place must not run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail(const char *what, const char *where) {
  fprintf(stderr, "enter: %s %s: %s\n", what, where, strerror(errno));
  exit(127);
}

static void join_group(const char *procs) {
  int file = open(procs, O_WRONLY | O_CLOEXEC);
  if (file < 0) fail("open", procs);
  if (write(file, "0", 1) != 1) fail("join", procs);
  close(file);
}

/* Opened to be moved, or to be found again once something covers it. */
static int opened(const char *path) {
  int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) fail("open", path);
  return folder;
}

/*
 * What follows is in this order, and moves what it could copy, for one reason: a mount that is made while a tree is *detached* (open_tree(2) with
 * OPEN_TREE_CLONE, until move_mount(2)) does not appear in it, ever. A volume that was mounted in just that moment was not there for its file
 * service, which served the empty folder beneath it, and acknowledged what then was lost (docs/design/0036-volume-beneath.md). So the folder with the
 * volumes is attached at every moment: it stands aside over the parent of PLACES while PLACES goes.
 */
static void see_only(const char *places, const char *name) {
  char own[4096];
  char parent[4096];
  if (snprintf(own, sizeof own, "%s/%s", places, name) >= (int)sizeof own) {
    errno = ENAMETOOLONG;
    fail("name", name);
  }
  strcpy(parent, places);
  char *last = strrchr(parent, '/');
  if (last == NULL || last == parent || last[1] == '\0') {
    errno = EINVAL;
    fail("name", places);
  }
  *last = '\0';
  const char *folder = places + (last - parent) + 1;
  if (unshare(CLONE_NEWNS) != 0) fail("unshare", "mounts");
  if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) != 0) fail("follow", "/");
  int back = opened(".");
  int beside = opened(parent);
  int volumes = opened(own);
  if (move_mount(volumes, "", beside, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) fail("set aside", own);
  /* Neighbours' mounts are not only covered: a copy here would be one more that each of their unmounts has to find. */
  if (fchdir(beside) != 0) fail("go to", parent);
  if (umount2(folder, MNT_DETACH) != 0) fail("leave", places);
  if (mount("none", folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,mode=700") != 0)
    fail("cover", places);
  if (chdir(folder) != 0 || mkdir(name, 0700) != 0) fail("make", own);
  if (move_mount(volumes, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) != 0) fail("put back", own);
  if (fchdir(back) != 0) fail("go back", ".");
  /* Beneath a volume there is nothing to write to: should one not be there, what a client writes is refused. */
  struct mount_attr kept = {.attr_set = MOUNT_ATTR_RDONLY};
  if (mount_setattr(volumes, "", AT_EMPTY_PATH, &kept, sizeof kept) != 0) fail("guard", own);
  close(volumes);
  close(beside);
  close(back);
}

/* A mount of its own is moved. A folder of /dev is bound, which is copied and attached in one step. */
static void put_back_memory(int memory) {
  char covered[64];
  snprintf(covered, sizeof covered, "/proc/self/fd/%d", memory);
  if (move_mount(memory, "", AT_FDCWD, "/dev/shm", MOVE_MOUNT_F_EMPTY_PATH) != 0 &&
      (errno != EINVAL || mount(covered, "/dev/shm", NULL, MS_BIND | MS_REC, NULL) != 0))
    fail("put back", "/dev/shm");
  close(memory);
}

/* The maker of the folder adds nodes to it and takes them away while this program runs; here it is only looked at. */
static void own_devices(const char *places, const char *name) {
  char own[4096];
  if (snprintf(own, sizeof own, "%s/%s/@dev", places, name) >= (int)sizeof own) {
    errno = ENAMETOOLONG;
    fail("name", name);
  }
  /* Nothing is mounted in it later. */
  int devices = open_tree(AT_FDCWD, own, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (devices < 0) fail("take", own);
  /* Shared memory is no device; a run folder, and PLACES, may lie there. */
  int memory = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (memory < 0 && errno != ENOENT) fail("open", "/dev/shm");
  struct mount_attr nowhere = {.attr_set = MOUNT_ATTR_NODEV};
  if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &nowhere, sizeof nowhere) != 0) fail("close", "/");
  struct mount_attr only = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};
  if (mount_setattr(devices, "", AT_EMPTY_PATH, &only, sizeof only) != 0) fail("guard", own);
  if (move_mount(devices, "", AT_FDCWD, "/dev", MOVE_MOUNT_F_EMPTY_PATH) != 0) fail("put over", "/dev");
  if (memory >= 0) put_back_memory(memory);
  close(devices);
}

/* PLACES/NAME is a follower already, and so is what is bound from it. */
static void see_instead(char *word) {
  char *target = word + 1;
  char *source = strchr(target, '=');
  if (source == NULL) {
    errno = EINVAL;
    fail("see", word);
  }
  *source++ = '\0';
  if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) != 0) fail("see instead", target);
}

int main(int count, char **words) {
  int at = 3;
  while (at < count && strcmp(words[at], "--") != 0) at += 1;
  if (count < 3 || at + 1 >= count) {
    fputs("usage: enter PLACES NAME [CGROUP...] [+TARGET=SOURCE...] -- [VARIABLE=VALUE...] PROGRAM [ARGUMENT...]\n", stderr);
    return 127;
  }
  for (int i = 3; i < at; i += 1)
    if (words[i][0] != '+') join_group(words[i]);
  see_only(words[1], words[2]);
  own_devices(words[1], words[2]);
  for (int i = 3; i < at; i += 1)
    if (words[i][0] == '+') see_instead(words[i]);
  char **program = words + at + 1;
  for (; *program != NULL && strchr(*program, '=') != NULL; program += 1)
    if (putenv(*program) != 0) fail("set", *program);
  if (*program == NULL) {
    errno = EINVAL;
    fail("run", "nothing");
  }
  execvp(*program, program);
  fail("run", *program);
}
