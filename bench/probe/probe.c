/*
 * probe ADDRESS PORT [GAP_MS [INTERVAL_MS]]: asks a floating address one question every INTERVAL_MS (1) and says, as JSON lines, when it was
 * not answered, who answered, and whether two controllers ever answered at once. It ends with its standard input, or by SIGTERM.
 *
 * A gap runs from the sending of the last answered question to the sending of the next answered one; those longer than GAP_MS (5) are told.
 * `sendHoleMs` in a gap is the longest time within it in which the probe itself sent nothing: a gap that is mostly hole is the probe's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "wire.h"

enum {
  TICK_NS = 200000000,
  REMEMBERED = 65536, /* questions whose answers are still told apart: a minute */
  /* Nothing takes an address over and gives it back within this time: an answer in between came from a second owner. */
  INTERLEAVE_NS = 50000000,
};

struct asked {
  uint64_t sent_ns;
  uint64_t hole_ns; /* time since the question before */
  char owner[OWNER_BYTES]; /* who answered it; empty: nobody yet */
};

static struct asked asked[REMEMBERED];
static struct {
  uint64_t sent, answered, late, doubles;
  uint64_t last_seq;      /* newest answered question */
  uint64_t last_sent_ns;  /* when it was asked */
  uint64_t longest_gap_ns;
  char owner[OWNER_BYTES], previous[OWNER_BYTES];
  uint64_t switched_ns;   /* when the owner's first answer of this reign was given */
  uint64_t reign_answers; /* how many it gave */
} state;
static uint64_t gap_ns_min = 5000000;
static uint64_t interval_ns = 1000000;
static volatile sig_atomic_t ending;

static void note_end(int signal_number) {
  (void)signal_number;
  ending = 1;
}

static double ms(uint64_t ns) { return (double)ns / 1e6; }

static void take_switch(const struct answer *answer) {
  /* Y, then X for a moment, then Y again: X answered while Y owned the address. */
  if (strcmp(answer->owner, state.previous) == 0 &&
      answer->answered_ns - state.switched_ns < INTERLEAVE_NS) {
    state.doubles += state.reign_answers;
    printf("{\"t\":\"double\",\"by\":\"%s\",\"owner\":\"%s\",\"answers\":%lu,\"atMs\":%.3f}\n",
           state.owner, answer->owner, state.reign_answers, ms(state.switched_ns));
  }
  if (state.owner[0] != 0)
    printf("{\"t\":\"switch\",\"from\":\"%s\",\"to\":\"%s\",\"atMs\":%.3f}\n", state.owner,
           answer->owner, ms(answer->answered_ns));
  memcpy(state.previous, state.owner, OWNER_BYTES);
  memcpy(state.owner, answer->owner, OWNER_BYTES);
  state.switched_ns = answer->answered_ns;
  state.reign_answers = 0;
}

static void take_gap(uint64_t to_seq, const char *before) {
  const struct asked *to = &asked[to_seq % REMEMBERED];
  uint64_t gap = to->sent_ns - state.last_sent_ns;
  if (gap > state.longest_gap_ns) state.longest_gap_ns = gap;
  if (gap <= gap_ns_min) return;
  uint64_t hole = 0;
  uint64_t first = state.last_seq + 1;
  if (to_seq >= REMEMBERED && first <= to_seq - REMEMBERED) first = to_seq - REMEMBERED + 1;
  for (uint64_t seq = first; seq <= to_seq; seq++)
    if (asked[seq % REMEMBERED].hole_ns > hole) hole = asked[seq % REMEMBERED].hole_ns;
  printf("{\"t\":\"gap\",\"ms\":%.3f,\"fromMs\":%.3f,\"toMs\":%.3f,\"before\":\"%s\",\"after\":\"%s\",\"sendHoleMs\":%.3f}\n",
         ms(gap), ms(state.last_sent_ns), ms(to->sent_ns), before, to->owner, ms(hole));
}

static void take_answer(const struct answer *answer) {
  uint64_t seq = answer->question.seq;
  if (seq >= state.sent || state.sent - seq > REMEMBERED) {
    state.late += 1;
    return;
  }
  struct asked *entry = &asked[seq % REMEMBERED];
  if (entry->owner[0] != 0) {
    /* One question, two answers: a duplicate of the network's, or two owners. */
    if (strcmp(entry->owner, answer->owner) == 0) return;
    state.doubles += 1;
    printf("{\"t\":\"double\",\"by\":\"%s\",\"owner\":\"%s\",\"answers\":1,\"atMs\":%.3f}\n",
           answer->owner, entry->owner, ms(answer->answered_ns));
    return;
  }
  memcpy(entry->owner, answer->owner, OWNER_BYTES);
  char before[OWNER_BYTES];
  memcpy(before, state.owner, OWNER_BYTES);
  /* An answer that was given before the present owner's first merely arrived late. */
  if (strcmp(answer->owner, state.owner) != 0 && answer->answered_ns > state.switched_ns)
    take_switch(answer);
  if (strcmp(answer->owner, state.owner) == 0) state.reign_answers += 1;
  if (state.answered > 0 && seq < state.last_seq) {
    state.late += 1;
  } else {
    if (state.answered > 0) take_gap(seq, before);
    state.last_seq = seq;
    state.last_sent_ns = entry->sent_ns;
  }
  state.answered += 1;
}

static void tell(const char *kind, int realtime) {
  uint64_t gap = 0;
  if (state.answered > 0 && state.sent > 0)
    gap = asked[(state.sent - 1) % REMEMBERED].sent_ns - state.last_sent_ns;
  printf("{\"t\":\"%s\",\"sent\":%lu,\"answered\":%lu,\"late\":%lu,\"doubles\":%lu,\"owner\":\"%s\",\"gapMs\":%.3f,\"longestGapMs\":%.3f,\"realtime\":%s}\n",
         kind, state.sent, state.answered, state.late, state.doubles, state.owner, ms(gap),
         ms(state.longest_gap_ns > gap ? state.longest_gap_ns : gap), realtime ? "true" : "false");
}

static int open_target(const char *address, int port, struct sockaddr_storage *to, socklen_t *size) {
  struct sockaddr_in *in4 = (struct sockaddr_in *)to;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
  memset(to, 0, sizeof *to);
  if (inet_pton(AF_INET, address, &in4->sin_addr) == 1) {
    in4->sin_family = AF_INET;
    in4->sin_port = htons((uint16_t)port);
    *size = sizeof *in4;
  } else if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    *size = sizeof *in6;
  } else {
    fprintf(stderr, "probe: not an address: %s\n", address);
    exit(2);
  }
  /* Unconnected: a connected socket would pass on an ICMP refusal as an error of the next send. */
  return socket(to->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static void ask(int fd, uint32_t session, const struct sockaddr_storage *to, socklen_t size) {
  uint64_t now = now_ns();
  uint64_t before = state.sent > 0 ? asked[(state.sent - 1) % REMEMBERED].sent_ns : now;
  asked[state.sent % REMEMBERED] = (struct asked){.sent_ns = now, .hole_ns = now - before};
  struct question question = {.magic = PROBE_MAGIC, .session = session, .seq = state.sent};
  state.sent += 1;
  (void)sendto(fd, &question, sizeof question, 0, (const struct sockaddr *)to, size);
}

int main(int count, char **words) {
  if (count < 3 || count > 5) {
    fprintf(stderr, "usage: probe ADDRESS PORT [GAP_MS [INTERVAL_MS]]\n");
    return 2;
  }
  if (count > 3) gap_ns_min = (uint64_t)(atof(words[3]) * 1e6);
  if (count > 4) interval_ns = (uint64_t)(atof(words[4]) * 1e6);
  if (interval_ns < 100000 || interval_ns >= 1000000000) {
    fprintf(stderr, "probe: an interval is 0.1 ms to 999 ms\n");
    return 2;
  }
  signal(SIGTERM, note_end);
  signal(SIGINT, note_end);
  setvbuf(stdout, NULL, _IOLBF, 0);
  int realtime = take_real_time();

  struct sockaddr_storage to;
  socklen_t size;
  int fd = open_target(words[1], atoi(words[2]), &to, &size);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct itimerspec every = {{0, (long)interval_ns}, {0, (long)interval_ns}};
  if (fd < 0 || timer < 0 || timerfd_settime(timer, 0, &every, NULL) != 0) {
    perror("probe");
    return 1;
  }
  uint32_t session = (uint32_t)(now_ns() ^ ((uint64_t)getpid() << 16));
  uint64_t ticked = now_ns();
  struct pollfd wait[3] = {{timer, POLLIN, 0}, {fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  while (!ending) {
    poll(wait, 3, -1);
    uint64_t expirations;
    if (read(timer, &expirations, sizeof expirations) > 0) ask(fd, session, &to, size);
    struct answer answer;
    while (recv(fd, &answer, sizeof answer, 0) == (ssize_t)sizeof answer) {
      answer.owner[OWNER_BYTES - 1] = 0;
      if (answer.question.magic == PROBE_MAGIC && answer.question.session == session)
        take_answer(&answer);
    }
    char rest[64];
    if (wait[2].revents != 0 && read(STDIN_FILENO, rest, sizeof rest) <= 0) break;
    if (now_ns() - ticked >= TICK_NS) {
      ticked += TICK_NS;
      tell("tick", realtime);
    }
  }
  tell("end", realtime);
  return 0;
}
