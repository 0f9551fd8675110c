/*
 * NFSv4 grace that begins soon and ends when the last recorded client is back. Loaded into ganesha.nfsd (LD_PRELOAD).
 *
 * ganesha ends grace when every recorded client has sent RECLAIM_COMPLETE, but it looks only at the tick of its reaper, every half lease, and
 * the same tick expires clients whose lease has run out and removes their records. This library decides nothing: it has the reaper look
 * when there may be something to see, through `reaper_wake`, which ganesha exports for its own cluster backends.
 *
 * - Each client that returns is recorded anew: a directory is made under RecoveryDir (ganesha's fs_add_clid). When each of those under RecoveryOldDir,
 *   who are waited for, has such a directory again, the last RECLAIM_COMPLETE is a moment away: the reaper looks at once, and then at
 *   growing intervals. What is left when grace ends ganesha removes from RecoveryOldDir, and that is how its end is known.
 * - Once a second the reaper looks in any case, so that the record of a client whose lease has run out does not live half a lease longer, into
 *   the next move, where it would be waited for.
 *
 * Before it answers anybody ganesha moves each record from RecoveryDir to RecoveryOldDir: makes the one, removes the other. The driver has made these
 * directories synchronous (chattr(1), +D), because a client must be recorded before it can hold anything, and forgotten before
 * somebody else can. While records are moved that says nothing: the file system's journal keeps the order of the two, and whichever of them a
 * crash leaves, the client is waited for. So they are made synchronous again with the first client that comes, which is before anybody
 * holds anything.
 *
 * To look once too often costs microseconds; to miss something costs a second. A later ganesha without `reaper_wake`, or with other directories,
 * keeps its own tick.
 *
 * DYAD_CLIENT_RECORDS names the directory of the records (RecoveryRoot); without it nothing is done. RecoveryDir and RecoveryOldDir are those that
 * `config.ts` gives. docs/design/0030-nfsv4-state.md has the argument and the figures.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  wait_ms_min = 2,
  wait_ms_max = 1000, /* between looks of the reaper */
  waited_share = 8,   /* whoever has waited for long is made to wait for an eighth of that once more */
  depth_max = 8,      /* ganesha splits a record's name into directories of 255 bytes; an owner has 1024 at most (RFC 8881 3.2) */
  stack_bytes = 256 * 1024,
};

static int (*next_mkdir)(const char *, mode_t);
static void (*wake_reaper)(void);
static char root[PATH_MAX], returned[PATH_MAX], awaited[PATH_MAX];
static size_t returned_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t somebody_returned;
static bool has_returned;

/* Constructors of other libraries may call before one of this library would have run. */
static void find_next(void) {
  next_mkdir = dlsym(RTLD_NEXT, "mkdir");
  wake_reaper = (void (*)(void))dlsym(RTLD_DEFAULT, "reaper_wake");
  const char *word = getenv("DYAD_CLIENT_RECORDS");
  if (word == NULL || strlen(word) > PATH_MAX - 4 * NAME_MAX) return;
  strcpy(root, word);
  returned_length = (size_t)snprintf(returned, sizeof returned, "%s/clients/", word);
  snprintf(awaited, sizeof awaited, "%s/clients-before", word);
}

static void ready(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_next);
}

/* Of a file system that has no such flag, nothing is changed. */
static void set_synchronous(const char *path, bool is_synchronous) {
  int before = 0; /* the kernel's type here, whatever <linux/fs.h> says (ioctl_iflags(2)) */
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  if (ioctl(directory, FS_IOC_GETFLAGS, &before) == 0) {
    int after = is_synchronous ? before | FS_DIRSYNC_FL : before & ~FS_DIRSYNC_FL;
    if (after != before) ioctl(directory, FS_IOC_SETFLAGS, &after);
  }
  close(directory);
}

static void be_quick(void) {
  set_synchronous(returned, false);
  set_synchronous(awaited, false);
}

static void be_synchronous(void) {
  set_synchronous(returned, true);
  set_synchronous(awaited, true);
}

struct tally {
  unsigned awaited, back;
};

/*
 * Counts the records below `path`, whose name begins at `name`: directories that hold none. Files in a record name revoked delegations; their names
 * begin with 1. A directory that vanishes meanwhile is one that ganesha has just removed.
 */
static void count(char *path, size_t name, unsigned depth, struct tally *tally) {
  DIR *directory = opendir(path);
  if (directory == NULL) return;
  size_t length = strlen(path);
  bool holds_records = false;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || entry->d_name[0] == 1) continue;
    holds_records = true;
    if (depth == depth_max || length + 1 + strlen(entry->d_name) >= PATH_MAX) continue;
    sprintf(path + length, "/%s", entry->d_name);
    count(path, name, depth + 1, tally);
    path[length] = '\0';
  }
  closedir(directory);
  if (holds_records || depth == 0) return;
  char again[PATH_MAX];
  tally->awaited++;
  if (snprintf(again, sizeof again, "%s%s", returned, path + name) >= (int)sizeof again) return;
  if (access(again, F_OK) == 0) tally->back++;
}

static bool all_are_back(void) {
  char path[PATH_MAX];
  struct tally tally = {0};
  strcpy(path, awaited);
  count(path, strlen(path) + 1, 0, &tally);
  return tally.awaited > 0 && tally.back == tally.awaited;
}

static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Until somebody returns, or for that time; returns whether the time is over. */
static bool wait_for_somebody(uint64_t until_ms) {
  struct timespec until = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
  bool is_over = false;
  pthread_mutex_lock(&lock);
  while (!has_returned && !is_over) is_over = pthread_cond_timedwait(&somebody_returned, &lock, &until) == ETIMEDOUT;
  has_returned = false;
  pthread_mutex_unlock(&lock);
  return is_over;
}

static void *watch(void *nothing) {
  (void)nothing;
  const struct timespec pause = {.tv_nsec = wait_ms_min * 1000000};
  uint64_t woken_at_ms = now_ms(), back_since_ms = 0, wait_ms = wait_ms_max;
  for (;;) {
    bool is_over = wait_for_somebody(woken_at_ms + wait_ms);
    bool are_back = all_are_back();
    uint64_t now = now_ms();
    if (!are_back || back_since_ms == 0) back_since_ms = are_back ? now : 0;
    wait_ms = are_back ? (now - back_since_ms) / waited_share : wait_ms_max;
    if (wait_ms < wait_ms_min) wait_ms = wait_ms_min;
    if (wait_ms > wait_ms_max) wait_ms = wait_ms_max;
    if (are_back || is_over) {
      woken_at_ms = now;
      wake_reaper();
    }
    /* Many who return at once are looked at together. */
    nanosleep(&pause, NULL);
  }
  return NULL;
}

/* Only behind the hold: a spare has nothing to look at. ganesha's signals are for its own threads. */
static void begin_to_watch(void) {
  if (wake_reaper == NULL) {
    dprintf(2, "grace end: this ganesha cannot be told to look; grace ends at its own tick\n");
    return;
  }
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&somebody_returned, &monotonic);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&detached, stack_bytes);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  if (pthread_create(&thread, &detached, watch, NULL) != 0)
    dprintf(2, "grace end: no thread; grace ends at ganesha's own tick\n");
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&detached);
  pthread_condattr_destroy(&monotonic);
}

int mkdir(const char *path, mode_t mode) {
  static pthread_once_t once = PTHREAD_ONCE_INIT, first = PTHREAD_ONCE_INIT;
  ready();
  bool is_return = returned_length > 0 && strncmp(path, returned, returned_length) == 0;
  if (is_return) pthread_once(&first, be_synchronous);
  int result = next_mkdir(path, mode);
  int error = errno;
  if (returned_length > 0 && strcmp(path, root) == 0) pthread_once(&once, begin_to_watch);
  /* The last that ganesha makes before it reads the records. */
  if (returned_length > 0 && strcmp(path, awaited) == 0) be_quick();
  if (is_return) {
    pthread_mutex_lock(&lock);
    has_returned = true;
    pthread_cond_signal(&somebody_returned);
    pthread_mutex_unlock(&lock);
  }
  errno = error;
  return result;
}
