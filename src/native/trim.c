/* trim(deep): gives back the clean file pages of this process: its resident size falls, and what is used again comes from
 * the page cache. `deep`: also those of what it has changed in part, which the page cache may then lose as well. What has
 * changed is never lost. Answers how many mappings were given back, or a negative errno. */
#define _GNU_SOURCE
#include "napi.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* Reads one number of /proc/self/smaps; `*at` is left behind it. */
static unsigned long number(const char **at, unsigned base) {
  unsigned long value = 0;
  for (;; (*at)++) {
    char c = **at;
    unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 99;
    if (digit >= base) return value;
    value = value * base + digit;
  }
}

struct mapping {
  unsigned long from, to;
  int of_file, writable;
};

/* A line that begins a mapping: from-to rwxp offset major:minor inode path. 0 for every other line. */
static int begins(const char *line, struct mapping *mapping) {
  const char *at = line;
  unsigned long from = number(&at, 16);
  if (at == line || *at++ != '-') return 0;
  mapping->from = from;
  mapping->to = number(&at, 16);
  mapping->writable = at[2] == 'w';
  at += 6;
  number(&at, 16), at++;
  number(&at, 16), at++;
  number(&at, 16), at++;
  mapping->of_file = number(&at, 10) != 0;
  return 1;
}

/* 1 when it was given back. `changed`: how much of it is no longer what the file has. */
static int give_back(const struct mapping *mapping, unsigned long changed, int deep) {
  if (!mapping->of_file) return 0;
  /* Only of what nobody can change, and nobody has, is it certain that the file has it all; of the rest the kernel takes
   * what the file has and no other process uses. */
  int is_whole = !mapping->writable && changed == 0;
  if (!is_whole && !deep) return 0;
  return !madvise((void *)mapping->from, mapping->to - mapping->from, is_whole ? MADV_DONTNEED : MADV_PAGEOUT);
}

static int trim_all(int deep) {
  static const char changed[] = "Anonymous:";
  static char maps[1 << 20];
  struct mapping mapping = {0, 0, 0, 0};
  size_t length = 0;
  ssize_t got;
  int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC), trimmed = 0;
  if (fd < 0) return -errno;
  while (length < sizeof maps - 1 && (got = read(fd, maps + length, sizeof maps - 1 - length)) > 0) length += (size_t)got;
  close(fd);
  maps[length] = 0;
  for (const char *line = maps; *line; line++) {
    const char *end = line;
    while (*end && *end != '\n') end++;
    if (!*end) break; /* cut off: not judged */
    if (!begins(line, &mapping) && !strncmp(line, changed, sizeof changed - 1)) {
      const char *at = line + sizeof changed - 1;
      while (*at == ' ') at++;
      trimmed += give_back(&mapping, number(&at, 10), deep);
    }
    line = end;
  }
  return trimmed;
}

static napi_value trim(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, answer;
  _Bool deep = 0;
  if (!napi_get_cb_info(env, info, &count, &argument, NULL, NULL) && count == 1) napi_get_value_bool(env, argument, &deep);
  napi_create_int32(env, trim_all(deep), &answer);
  return answer;
}

AEGIS_ADDON("trim", trim)
