/*
 * echo PORT OWNER ADDRESS[@NETWORK]...: answers the probe's questions on floating addresses, stamped with the name of the controller that it runs
 * on. It binds before an address is there (IP_FREEBIND), so it measures the address and not its own start. NETWORK is the file of a network
 * namespace, which may be made later; without one it is our own. It ends with its standard input.
 *
 * One process for all networks of a controller: one for each, woken for every question, took the processors from the firmware that is measured.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

enum {
  BATCH = 64,
  /* How often a network that is not there yet is looked for. */
  LOOK_MS = 20,
};

static int bound_socket(const char *address, int port) {
  struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  int is4 = inet_pton(AF_INET, address, &in4.sin_addr) == 1;
  if (!is4 && inet_pton(AF_INET6, address, &in6.sin6_addr) != 1) {
    fprintf(stderr, "echo: not an address: %s\n", address);
    exit(2);
  }
  int on = 1;
  int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int level = is4 ? IPPROTO_IP : IPPROTO_IPV6;
  int option = is4 ? IP_FREEBIND : IPV6_FREEBIND;
  struct sockaddr *to = is4 ? (struct sockaddr *)&in4 : (struct sockaddr *)&in6;
  socklen_t size = is4 ? sizeof in4 : sizeof in6;
  if (fd < 0 || setsockopt(fd, level, option, &on, sizeof on) != 0 || bind(fd, to, size) != 0) {
    perror("echo: bind");
    exit(1);
  }
  return fd;
}

/* A socket in a network; -1 while that is not there. */
static int socket_in(const char *network, const char *address, int port) {
  if (network == NULL) return bound_socket(address, port);
  int there = open(network, O_RDONLY | O_CLOEXEC);
  if (there < 0) return -1;
  int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (here < 0) {
    perror("echo: own network");
    exit(1);
  }
  int fd = -1;
  /* Until the network is mounted there, the file is an ordinary one. */
  if (setns(there, CLONE_NEWNET) == 0) {
    fd = bound_socket(address, port);
    if (setns(here, CLONE_NEWNET) != 0) {
      perror("echo: back to the own network");
      exit(1);
    }
  }
  close(here);
  close(there);
  return fd;
}

static void answer_one(int fd, const char *owner) {
  struct answer answer = {0};
  struct sockaddr_storage from;
  socklen_t size = sizeof from;
  ssize_t got = recvfrom(fd, &answer.question, sizeof answer.question, MSG_DONTWAIT,
                         (struct sockaddr *)&from, &size);
  if (got != (ssize_t)sizeof answer.question || answer.question.magic != PROBE_MAGIC) return;
  strcpy(answer.owner, owner);
  answer.answered_ns = now_ns();
  /* An answer that cannot leave now (gate closed, no route) is lost, as a service's packet would be. */
  (void)sendto(fd, &answer, sizeof answer, MSG_DONTWAIT, (struct sockaddr *)&from, size);
}

/* Binds what can be bound; bound words become NULL. How many are left. */
static int bind_all(int events, int count, char **words, int port) {
  int left = 0;
  for (int i = 0; i < count; i++) {
    if (words[i] == NULL) continue;
    char *network = strchr(words[i], '@');
    if (network != NULL) *network = 0;
    int fd = socket_in(network == NULL ? NULL : network + 1, words[i], port);
    if (network != NULL) *network = '@';
    if (fd < 0) {
      left += 1;
      continue;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) != 0) {
      perror("echo: epoll");
      exit(1);
    }
    words[i] = NULL;
  }
  return left;
}

static void tell_ready(void) {
  printf("{\"t\":\"ready\"}\n");
  fflush(stdout);
}

int main(int count, char **words) {
  if (count < 4 || strlen(words[2]) >= OWNER_BYTES) {
    fprintf(stderr, "usage: echo PORT OWNER ADDRESS[@NETWORK]... (an owner of at most 7 letters)\n");
    return 2;
  }
  (void)take_real_time();
  int events = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event input = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
  if (events < 0 || epoll_ctl(events, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0) {
    perror("echo");
    return 1;
  }
  int left = bind_all(events, count - 3, words + 3, atoi(words[1]));
  uint64_t looked_ns = now_ns();
  if (left == 0) tell_ready();
  for (;;) {
    struct epoll_event ready[BATCH];
    int found = epoll_wait(events, ready, BATCH, left > 0 ? LOOK_MS : -1);
    for (int i = 0; i < found; i++) {
      char rest[64];
      if (ready[i].data.fd != STDIN_FILENO)
        answer_one(ready[i].data.fd, words[2]);
      else if (read(STDIN_FILENO, rest, sizeof rest) <= 0)
        return 0;
    }
    if (left == 0 || now_ns() - looked_ns < LOOK_MS * 1000000ull) continue;
    looked_ns = now_ns();
    left = bind_all(events, count - 3, words + 3, atoi(words[1]));
    if (left == 0) tell_ready();
  }
}
