/*
 * The start of a file service in two halves. Loaded into ganesha.nfsd or smbd (LD_PRELOAD), this library lets a spare do everything that needs
 * neither its volume nor its address (read the configuration, start threads, look up names), and holds it before its first
 * step outside. Of ganesha that is the first directory that it makes, which is that of its client records on the volume, or, should a later
 * ganesha do otherwise, the first address that it binds. Of smbd it is that address: the volume it first sees with a client, and the directories
 * that it makes before are its own (DYAD_HOLD_AT says so). There it says so with one byte, and waits for one from the driver. Without a driver
 * it ends.
 *
 * It also takes from the second half what costs time and says nothing, and from the first what depends on the moment:
 *
 * - ganesha has its one address looked up with AI_ADDRCONFIG. As long as no other address of that family is assigned here, the lookup
 *   fails, and ganesha then binds every address without a word. A written address needs no lookup.
 * - ganesha asks for the device node of each file system above its exports. One without a device (major number 0) has none, which libblkid
 *   says after it has looked at all that is in /dev.
 *
 * And it sees to what the process leaves behind. A connection whose FIN the closed gate swallows outlives its process by minutes. When the
 * address comes back here, and a client has used its port again meanwhile (kernel clients always do), that orphan takes the
 * client's answer to a tickle, and the reset that the client waits for is never sent (docs/design/0014-clients-of-the-last-owner.md).
 * Connections inherit from the listener that they end in a reset and leave nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int (*next_bind)(int, const struct sockaddr *, socklen_t);
static int (*next_getaddrinfo)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
static char *(*next_devno_to_devname)(dev_t);

static void find_next(void) {
  next_bind = dlsym(RTLD_NEXT, "bind");
  next_getaddrinfo = dlsym(RTLD_NEXT, "getaddrinfo");
  next_devno_to_devname = dlsym(RTLD_NEXT, "blkid_devno_to_devname");
}

/* Constructors of other libraries may call before one of this library would have run. */
static void ready(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_next);
}

static bool waits_for_address_only(void) {
  const char *at = getenv("DYAD_HOLD_AT");
  return at != NULL && strcmp(at, "bind") == 0;
}

/* DYAD_HOLD names the descriptor of the driver's pipe; without it nothing is held. */
static void wait_for_the_byte(void) {
  const char *word = getenv("DYAD_HOLD");
  if (word == NULL) return;
  int pipe = atoi(word);
  char byte = 'h';
  ssize_t count;
  /* A driver that has let it go before has closed its end; its byte is there all the same. */
  do count = send(pipe, &byte, 1, MSG_NOSIGNAL);
  while (count < 0 && errno == EINTR);
  do count = read(pipe, &byte, 1);
  while (count < 0 && errno == EINTR);
  if (count != 1) _exit(0);
  close(pipe);
  /* Programs that smbd starts later have this library too, and another file at that descriptor. */
  if (waits_for_address_only()) unsetenv("DYAD_HOLD");
}

static void hold(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  int error = errno;
  pthread_once(&once, wait_for_the_byte);
  errno = error;
}

int mkdir(const char *path, mode_t mode) {
  if (!waits_for_address_only()) hold();
  return mkdirat(AT_FDCWD, path, mode);
}

/* A socket that cannot be told so is bound all the same: it only leaves more behind. */
static void leave_nothing(int socket) {
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  int error = errno;
  setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  errno = error;
}

int bind(int socket, const struct sockaddr *address, socklen_t length) {
  ready();
  if (address != NULL && (address->sa_family == AF_INET || address->sa_family == AF_INET6)) {
    hold();
    leave_nothing(socket);
  }
  return next_bind(socket, address, length);
}

/* No hints mean AI_ADDRCONFIG, too (getaddrinfo(3)). */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  ready();
  struct addrinfo unconditional = {0};
  if (hints != NULL) unconditional = *hints;
  unconditional.ai_flags &= ~AI_ADDRCONFIG;
  return next_getaddrinfo(node, service, &unconditional, found);
}

char *blkid_devno_to_devname(dev_t device) {
  ready();
  if (major(device) == 0 || next_devno_to_devname == NULL) return NULL;
  return next_devno_to_devname(device);
}
