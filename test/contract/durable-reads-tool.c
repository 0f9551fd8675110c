/*
 * For the test of durable reads: does what each line of standard input says to one open file, and says what came of it.
 *
 *     r OFFSET COUNT     what a read shows
 *     w OFFSET TEXT      a write that nobody synchronises
 *     t LENGTH           cut to that length
 *     s                  a sync
 *     d                  forgets what is in memory of it
 *     c                  a copy of everything into the file that is the second argument
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(ssize_t result, const char *text) {
  printf("%s%s\n", result < 0 ? "error: " : "", result < 0 ? strerror(errno) : text);
  fflush(stdout);
}

int main(int count, char **words) {
  if (count < 2) return 2;
  int fd = open(words[1], O_RDWR | O_CREAT, 0600);
  int copy = count > 2 ? open(words[2], O_RDWR | O_CREAT, 0600) : -1;
  if (fd < 0) return 3;
  char line[256], seen[256];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char *rest;
    line[strcspn(line, "\n")] = 0;
    long first = strtol(line + 1, &rest, 10);
    ssize_t result;
    switch (line[0]) {
      case 'r':
        result = pread(fd, seen, (size_t)atoi(rest), first);
        seen[result < 0 ? 0 : result] = 0;
        say(result, seen);
        break;
      case 'w':
        say(pwrite(fd, rest + 1, strlen(rest + 1), first), "written");
        break;
      case 't':
        say(ftruncate(fd, first), "cut");
        break;
      case 's':
        say(fsync(fd), "synchronised");
        break;
      case 'd':
        errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        say(errno == 0 ? 0 : -1, "dropped");
        break;
      case 'c':
        say(copy_file_range(fd, &(off64_t){0}, copy, &(off64_t){0}, 1 << 20, 0), "copied");
        break;
      default:
        return 4;
    }
  }
  return 0;
}
