/*
 * For the test of the journal check: six files are written in a volume, three by appending and three over and over in place, every record with an fsync,
 * until ext4 is told to find an error. What had been acknowledged by then, and moments later, is printed; called with these numbers it says what is missing.
 *
 *     journal-check-writers FOLDER write TRIGGER AFTER-µs
 *     journal-check-writers FOLDER verify COUNT COUNT COUNT COUNT COUNT COUNT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { files = 6, record_bytes = 512, settle_us = 300000 };

static const char *folder;
static atomic_int acknowledged[files];

static bool is_log(int file) { return file % 2 == 0; }

static off_t place_of(int file, int number) { return is_log(file) ? (off_t)(number - 1) * record_bytes : 0; }

static void fill(char *record, int file, int number) {
  memset(record, 0, record_bytes);
  snprintf(record, record_bytes, "%d %d", number, file);
  for (int i = 64; i < record_bytes; i++) record[i] = (char)(file * 31 + number * 7 + i);
}

static int open_file(int file, int flags) {
  char path[4096];
  snprintf(path, sizeof path, "%s/f%d", folder, file);
  return open(path, flags, 0600);
}

static void *write_on(void *argument) {
  int file = (int)(intptr_t)argument;
  char record[record_bytes];
  int fd = open_file(file, O_RDWR | O_CREAT);
  for (int number = 1; fd >= 0; number++) {
    fill(record, file, number);
    if (pwrite(fd, record, record_bytes, place_of(file, number)) != record_bytes) return NULL;
    if (fsync(fd) != 0) return NULL;
    atomic_store(&acknowledged[file], number);
  }
  return NULL;
}

static int write_all(const char *trigger, useconds_t after_us) {
  pthread_t thread;
  for (intptr_t file = 0; file < files; file++)
    if (pthread_create(&thread, NULL, write_on, (void *)file) != 0) return 4;
  usleep(after_us);
  int error = open(trigger, O_WRONLY);
  if (error < 0 || write(error, "test", 4) != 4) return 5;
  usleep(settle_us);
  for (int file = 0; file < files; file++) printf("%d ", atomic_load(&acknowledged[file]));
  fflush(stdout);
  _exit(0);
}

static int verify(char **counts) {
  char wanted[record_bytes], found[record_bytes];
  for (int file = 0; file < files; file++) {
    int fd = open_file(file, O_RDONLY);
    int last = atoi(counts[file]);
    for (int number = is_log(file) ? 1 : last; number > 0 && number <= last; number++) {
      fill(wanted, file, number);
      memset(found, 0, record_bytes);
      bool is_read = pread(fd, found, record_bytes, place_of(file, number)) == record_bytes;
      /* What is written over may hold one more, which was not acknowledged. */
      bool is_there = is_log(file) ? memcmp(wanted, found, record_bytes) == 0 : atoi(found) >= last;
      if (!is_read || !is_there) printf("file %d: record %d of %d is missing\n", file, number, last);
    }
  }
  return 0;
}

int main(int count, char **words) {
  if (count < 5) return 2;
  folder = words[1];
  if (strcmp(words[2], "write") == 0) return write_all(words[3], (useconds_t)atoi(words[4]));
  return count == 3 + files ? verify(words + 3) : 3;
}
