/* trim(): gives back the clean file pages of this process: its resident size falls, and what is used again comes from the
 * page cache or the file. What it has changed is never lost. Answers how many mappings were given back, or a negative errno. */
#define _GNU_SOURCE
#include "napi.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* Reads one number of /proc/self/maps; `*at` is left behind it. */
static unsigned long number(const char **at, unsigned base) {
  unsigned long value = 0;
  for (;; (*at)++) {
    char c = **at;
    unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 99;
    if (digit >= base) return value;
    value = value * base + digit;
  }
}

/* 1 when the mapping of this line was given back. A line: from-to rwxp offset major:minor inode path */
static int trim_line(const char *line) {
  const char *at = line;
  unsigned long from = number(&at, 16);
  if (*at++ != '-') return 0;
  unsigned long to = number(&at, 16);
  const char *rights = ++at;
  at += 5;
  number(&at, 16), at++;
  number(&at, 16), at++;
  number(&at, 16), at++;
  if (number(&at, 10) == 0) return 0; /* not of a file */
  /* Only of what nobody can write is it certain that the file has it all; of the rest the kernel takes what the file has. */
  int is_code = rights[2] == 'x' && rights[1] != 'w';
  return !madvise((void *)from, to - from, is_code ? MADV_DONTNEED : MADV_PAGEOUT);
}

static int trim_all(void) {
  static char maps[1 << 20];
  size_t length = 0;
  ssize_t got;
  int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), trimmed = 0;
  if (fd < 0) return -errno;
  while (length < sizeof maps - 1 && (got = read(fd, maps + length, sizeof maps - 1 - length)) > 0) length += (size_t)got;
  close(fd);
  maps[length] = 0;
  for (const char *line = maps; *line; line++) {
    const char *end = line;
    while (*end && *end != '\n') end++;
    if (*end) trimmed += trim_line(line);
    else break; /* cut off: not judged */
    line = end;
  }
  return trimmed;
}

static napi_value trim(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value answer;
  napi_create_int32(env, trim_all(), &answer);
  return answer;
}

AEGIS_ADDON("trim", trim)
