/*
 * What the library of grace's end stands on, without a file server: makes directories as it is told on its standard input (a path on each
 * line), and tells each look of its reaper on its standard output.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void reaper_wake(void) {
  if (write(1, "look\n", 5) != 5) _exit(1);
}

int main(void) {
  char line[8192];
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    mkdir(line, 0700);
  }
  return 0;
}
