/*
 * probe PORT GAP_MS INTERVAL_MS ADDRESS...: asks each floating address one question every INTERVAL_MS and says, as JSON lines, when one was
 * not answered, who answered, and whether two controllers ever answered at once. It ends with its standard input, or by SIGTERM.
 *
 * One process for all of them, which asks all at once and takes what was answered when it asks again: a process for each address, woken for every
 * question and every answer, took a quarter of the machine that it measured. An answer is stamped by who gives it, and loses nothing by waiting.
 *
 * A gap runs from the sending of the last answered question to the sending of the next answered one; those longer than GAP_MS are told.
 * `sendHoleMs` in a gap is the longest time within it in which the probe itself sent nothing: a gap that is mostly hole is the probe's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
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
  TARGETS_MAX = 256,
  BATCH = 64,
  /* Nothing takes an address over and gives it back within this time: an answer in between came from a second owner. */
  INTERLEAVE_NS = 50000000,
};
/* Questions whose answers are still told apart. */
static const uint64_t remembered_ns = 60000000000;

struct asked {
  uint64_t sent_ns;
  uint64_t hole_ns; /* time since the question before */
  char owner[OWNER_BYTES]; /* who answered it; empty: nobody yet */
};

struct target {
  const char *address;
  struct sockaddr_storage to;
  socklen_t size;
  struct asked *asked; /* the last `remembered` questions, in a ring */
  uint64_t sent, answered, late, doubles;
  uint64_t last_seq;      /* newest answered question */
  uint64_t last_sent_ns;  /* when it was asked */
  uint64_t longest_gap_ns;
  char owner[OWNER_BYTES], previous[OWNER_BYTES];
  uint64_t switched_ns;   /* when the owner's first answer of this reign was given */
  uint64_t reign_answers; /* how many it gave */
};

static struct target targets[TARGETS_MAX];
static size_t target_count;
static uint64_t remembered;
static uint64_t gap_ns_min;
static uint64_t interval_ns;
static uint32_t session;
static volatile sig_atomic_t ending;

static void note_end(int signal_number) {
  (void)signal_number;
  ending = 1;
}

static double ms(uint64_t ns) { return (double)ns / 1e6; }

static struct asked *question_of(const struct target *target, uint64_t seq) {
  return &target->asked[seq % remembered];
}

static void tell_double(const struct target *target, const char *by, const char *owner,
                        uint64_t answers, uint64_t at_ns) {
  printf("{\"t\":\"double\",\"address\":\"%s\",\"by\":\"%s\",\"owner\":\"%s\",\"answers\":%lu,\"atMs\":%.3f}\n",
         target->address, by, owner, answers, ms(at_ns));
}

static void take_switch(struct target *target, const struct answer *answer) {
  /* Y, then X for a moment, then Y again: X answered while Y owned the address. */
  if (strcmp(answer->owner, target->previous) == 0 &&
      answer->answered_ns - target->switched_ns < INTERLEAVE_NS) {
    target->doubles += target->reign_answers;
    tell_double(target, target->owner, answer->owner, target->reign_answers, target->switched_ns);
  }
  if (target->owner[0] != 0)
    printf("{\"t\":\"switch\",\"address\":\"%s\",\"from\":\"%s\",\"to\":\"%s\",\"atMs\":%.3f}\n",
           target->address, target->owner, answer->owner, ms(answer->answered_ns));
  memcpy(target->previous, target->owner, OWNER_BYTES);
  memcpy(target->owner, answer->owner, OWNER_BYTES);
  target->switched_ns = answer->answered_ns;
  target->reign_answers = 0;
}

static void take_gap(struct target *target, uint64_t to_seq, const char *before) {
  const struct asked *to = question_of(target, to_seq);
  uint64_t gap = to->sent_ns - target->last_sent_ns;
  if (gap > target->longest_gap_ns) target->longest_gap_ns = gap;
  if (gap <= gap_ns_min) return;
  uint64_t hole = 0;
  uint64_t first = target->last_seq + 1;
  if (to_seq >= remembered && first <= to_seq - remembered) first = to_seq - remembered + 1;
  for (uint64_t seq = first; seq <= to_seq; seq++)
    if (question_of(target, seq)->hole_ns > hole) hole = question_of(target, seq)->hole_ns;
  printf("{\"t\":\"gap\",\"address\":\"%s\",\"ms\":%.3f,\"fromMs\":%.3f,\"toMs\":%.3f,\"before\":\"%s\",\"after\":\"%s\",\"sendHoleMs\":%.3f}\n",
         target->address, ms(gap), ms(target->last_sent_ns), ms(to->sent_ns), before, to->owner,
         ms(hole));
}

static void take_answer(struct target *target, const struct answer *answer) {
  uint64_t seq = answer->question.seq;
  if (seq >= target->sent || target->sent - seq > remembered) {
    target->late += 1;
    return;
  }
  struct asked *entry = question_of(target, seq);
  if (entry->owner[0] != 0) {
    /* One question, two answers: a duplicate of the network's, or two owners. */
    if (strcmp(entry->owner, answer->owner) == 0) return;
    target->doubles += 1;
    tell_double(target, answer->owner, entry->owner, 1, answer->answered_ns);
    return;
  }
  memcpy(entry->owner, answer->owner, OWNER_BYTES);
  char before[OWNER_BYTES];
  memcpy(before, target->owner, OWNER_BYTES);
  /* An answer that was given before the present owner's first merely arrived late. */
  if (strcmp(answer->owner, target->owner) != 0 && answer->answered_ns > target->switched_ns)
    take_switch(target, answer);
  if (strcmp(answer->owner, target->owner) == 0) target->reign_answers += 1;
  if (target->answered > 0 && seq < target->last_seq) {
    target->late += 1;
  } else {
    if (target->answered > 0) take_gap(target, seq, before);
    target->last_seq = seq;
    target->last_sent_ns = entry->sent_ns;
  }
  target->answered += 1;
}

static void tell(const struct target *target, const char *kind, int realtime) {
  uint64_t gap = 0;
  if (target->answered > 0 && target->sent > 0)
    gap = question_of(target, target->sent - 1)->sent_ns - target->last_sent_ns;
  printf("{\"t\":\"%s\",\"address\":\"%s\",\"sent\":%lu,\"answered\":%lu,\"late\":%lu,\"doubles\":%lu,\"owner\":\"%s\",\"gapMs\":%.3f,\"longestGapMs\":%.3f,\"realtime\":%s}\n",
         kind, target->address, target->sent, target->answered, target->late, target->doubles,
         target->owner, ms(gap),
         ms(target->longest_gap_ns > gap ? target->longest_gap_ns : gap),
         realtime ? "true" : "false");
}

static void tell_all(const char *kind, int realtime) {
  for (size_t i = 0; i < target_count; i++) tell(&targets[i], kind, realtime);
  fflush(stdout);
}

static void add_target(const char *address, int port) {
  struct target *target = &targets[target_count++];
  struct sockaddr_in *in4 = (struct sockaddr_in *)&target->to;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&target->to;
  target->address = address;
  if (inet_pton(AF_INET, address, &in4->sin_addr) == 1) {
    in4->sin_family = AF_INET;
    in4->sin_port = htons((uint16_t)port);
    target->size = sizeof *in4;
  } else if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    target->size = sizeof *in6;
  } else {
    fprintf(stderr, "probe: not an address: %s\n", address);
    exit(2);
  }
  target->asked = calloc(remembered, sizeof *target->asked);
  if (target->asked == NULL) {
    perror("probe: memory");
    exit(1);
  }
}

/* The socket for a family; -1 when no address needs it. Unconnected: a connected one would pass on an ICMP refusal as an error of the next send. */
static int socket_for(int family) {
  for (size_t i = 0; i < target_count; i++) {
    if (targets[i].to.ss_family != family) continue;
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) return fd;
    perror("probe: socket");
    exit(1);
  }
  return -1;
}

/* All addresses of a family at once. */
static void ask(int fd, int family) {
  struct question questions[BATCH];
  struct iovec parts[BATCH];
  struct mmsghdr messages[BATCH];
  unsigned int filled = 0;
  for (size_t i = 0; i < target_count; i++) {
    struct target *target = &targets[i];
    if (target->to.ss_family == family) {
      uint64_t now = now_ns();
      uint64_t before = target->sent > 0 ? question_of(target, target->sent - 1)->sent_ns : now;
      *question_of(target, target->sent) = (struct asked){.sent_ns = now, .hole_ns = now - before};
      questions[filled] = (struct question){
          .magic = PROBE_MAGIC, .session = session, .seq = target->sent, .target = (uint32_t)i};
      parts[filled] = (struct iovec){&questions[filled], sizeof questions[filled]};
      messages[filled] = (struct mmsghdr){.msg_hdr = {.msg_name = &target->to,
                                                      .msg_namelen = target->size,
                                                      .msg_iov = &parts[filled],
                                                      .msg_iovlen = 1}};
      target->sent += 1;
      filled += 1;
    }
    if (filled == BATCH || (i + 1 == target_count && filled > 0)) {
      /* It stops at one that cannot be sent (no route): that one is lost, the others go. */
      for (unsigned int done = 0; done < filled;) {
        int sent = sendmmsg(fd, messages + done, filled - done, 0);
        done += sent > 0 ? (unsigned int)sent : 1;
      }
      filled = 0;
    }
  }
}

static void take_answers(int fd) {
  struct answer answers[BATCH];
  struct iovec parts[BATCH];
  struct mmsghdr messages[BATCH];
  for (;;) {
    for (int i = 0; i < BATCH; i++) {
      parts[i] = (struct iovec){&answers[i], sizeof answers[i]};
      messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
    }
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
      struct answer *answer = &answers[i];
      if (messages[i].msg_len != sizeof *answer || answer->question.magic != PROBE_MAGIC ||
          answer->question.session != session || answer->question.target >= target_count)
        continue;
      answer->owner[OWNER_BYTES - 1] = 0;
      take_answer(&targets[answer->question.target], answer);
    }
    if (got < BATCH) return;
  }
}

static void watch(int timer, int realtime) {
  static const int families[2] = {AF_INET, AF_INET6};
  int sockets[2] = {socket_for(AF_INET), socket_for(AF_INET6)};
  uint64_t ticked = now_ns();
  struct pollfd wait[2] = {{timer, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  while (!ending) {
    poll(wait, 2, -1);
    uint64_t expirations;
    int due = read(timer, &expirations, sizeof expirations) > 0;
    for (int i = 0; i < 2; i++) {
      if (sockets[i] < 0) continue;
      take_answers(sockets[i]);
      if (due) ask(sockets[i], families[i]);
    }
    char rest[64];
    if (wait[1].revents != 0 && read(STDIN_FILENO, rest, sizeof rest) <= 0) break;
    if (now_ns() - ticked >= TICK_NS) {
      ticked += TICK_NS;
      tell_all("tick", realtime);
    }
  }
}

int main(int count, char **words) {
  if (count < 5 || count - 4 > TARGETS_MAX) {
    fprintf(stderr, "usage: probe PORT GAP_MS INTERVAL_MS ADDRESS... (at most %d)\n", TARGETS_MAX);
    return 2;
  }
  gap_ns_min = (uint64_t)(atof(words[2]) * 1e6);
  interval_ns = (uint64_t)(atof(words[3]) * 1e6);
  if (interval_ns < 100000 || interval_ns >= 1000000000) {
    fprintf(stderr, "probe: an interval is 0.1 ms to 999 ms\n");
    return 2;
  }
  remembered = remembered_ns / interval_ns;
  for (int i = 4; i < count; i++) add_target(words[i], atoi(words[1]));
  signal(SIGTERM, note_end);
  signal(SIGINT, note_end);
  int realtime = take_real_time();
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  struct itimerspec every = {{0, (long)interval_ns}, {0, (long)interval_ns}};
  if (timer < 0 || timerfd_settime(timer, 0, &every, NULL) != 0) {
    perror("probe");
    return 1;
  }
  session = (uint32_t)(now_ns() ^ ((uint64_t)getpid() << 16));
  watch(timer, realtime);
  tell_all("end", realtime);
  return 0;
}
