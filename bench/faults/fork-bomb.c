/*
 * A fork bomb: every process makes more of itself for as long as the kernel lets it, and where it does not, keeps a processor busy and tries again.
 * The classic one of the shell, but for the sleep that a shell makes when it cannot fork.
 */
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>

/* Busy for a millisecond. */
static void spin(void) {
  struct timespec begun, now;
  clock_gettime(CLOCK_MONOTONIC, &begun);
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while ((now.tv_sec - begun.tv_sec) * 1000000000L + (now.tv_nsec - begun.tv_nsec) < 1000000L);
}

int main(void) {
  for (;;)
    if (fork() < 0) spin();
}
