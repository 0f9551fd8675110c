/* Writes to a file, syncs it in one thread, and reads what was written in another as soon as that sync is under way. Says what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int fd;

static void *sync_it(void *nothing) {
  (void)nothing;
  printf("sync: %s\n", fsync(fd) == 0 ? "good" : strerror(errno));
  return NULL;
}

int main(int count, char **words) {
  if (count < 2) return 2;
  char text[] = "new", seen[8] = "";
  fd = open64(words[1], O_RDWR);
  if (fd < 0 || preadv64(fd, &(struct iovec){seen, 3}, 1, 0) < 0) return 3;
  if (pwritev64(fd, &(struct iovec){text, 3}, 1, 0) != 3) return 4;
  pthread_t syncing;
  pthread_create(&syncing, NULL, sync_it, NULL);
  usleep(20000);
  ssize_t bytes = preadv64(fd, &(struct iovec){seen, 3}, 1, 0);
  printf("read: %s\n", bytes < 0 ? strerror(errno) : seen);
  pthread_join(syncing, NULL);
  return 0;
}
