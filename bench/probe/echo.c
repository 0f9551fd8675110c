/*
 * echo ADDRESS PORT OWNER: answers the probe's questions on a floating address, stamped with the name of the controller that it runs on.
 * It binds before the address is there (IP_FREEBIND), so it measures the address and not its own start. It ends with its standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

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

int main(int count, char **words) {
  if (count != 4 || strlen(words[3]) >= OWNER_BYTES) {
    fprintf(stderr, "usage: echo ADDRESS PORT OWNER (at most 7 letters)\n");
    return 2;
  }
  int fd = bound_socket(words[1], atoi(words[2]));
  (void)take_real_time();
  printf("{\"t\":\"ready\"}\n");
  fflush(stdout);
  struct pollfd wait[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
  for (;;) {
    poll(wait, 2, -1);
    if (wait[1].revents != 0) {
      char rest[64];
      if (read(STDIN_FILENO, rest, sizeof rest) <= 0) return 0;
    }
    struct answer answer = {0};
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    ssize_t got = recvfrom(fd, &answer.question, sizeof answer.question, MSG_DONTWAIT,
                           (struct sockaddr *)&from, &size);
    if (got != (ssize_t)sizeof answer.question || answer.question.magic != PROBE_MAGIC) continue;
    strcpy(answer.owner, words[3]);
    answer.answered_ns = now_ns();
    /* An answer that cannot leave now (gate closed, no route) is lost, as a service's packet would be. */
    (void)sendto(fd, &answer, sizeof answer, MSG_DONTWAIT, (struct sockaddr *)&from, size);
  }
}
