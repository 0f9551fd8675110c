/* The datagrams of the address probe. Both programs run on one machine, so fields are in its own byte order and CLOCK_MONOTONIC is shared. */
#ifndef DYAD_PROBE_WIRE_H
#define DYAD_PROBE_WIRE_H

#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#define PROBE_MAGIC 0x44795072u
#define OWNER_BYTES 8

struct question {
  uint32_t magic;
  uint32_t session; /* tells the answers to one prober from those to another before it on the same port */
  uint64_t seq;
  uint32_t target; /* which of the prober's addresses is asked */
  uint32_t unused;
};

struct answer {
  struct question question;
  uint64_t answered_ns; /* when the controller answered, on its clock */
  char owner[OWNER_BYTES]; /* which controller, zero-terminated */
};

/* Who asks and who answers are before all ordinary work: a question that waits for a processor says nothing about the address. */
static inline int take_real_time(void) {
  struct sched_param priority = {.sched_priority = 20};
  int taken = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
  (void)mlockall(MCL_CURRENT | MCL_FUTURE);
  return taken;
}

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
