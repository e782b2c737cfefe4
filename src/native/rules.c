/* rules(paths): the descriptor of a ruleset that closes what aegis-launch would close, or a negative errno. It is made anew only
 * when something on the way to a path has changed since, so that not every start of a tool looks at all of it.
 * `paths`: each with P (protected) or R (read-only) before it and a zero byte after it. */
#define _GNU_SOURCE
#include "launch.h"
#include "napi.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static char resolved[MAX_PATHS][PATH_MAX];
static int mounts = -1;

/* Whether anything was mounted or unmounted since this was asked last. */
static int mounts_changed(void) {
  struct pollfd look = {.fd = mounts, .events = POLLPRI};
  return poll(&look, 1, 0) != 0;
}

static int make(const char *paths, size_t length) {
  int ruleset = -1;
  confine_forget();
  for (const char *at = paths; at < paths + length; at += strlen(at) + 1)
    if (confine_add(at + 1, *at == 'P' ? PROTECTED : READ_ONLY)) return -errno;
  if (confine_add_aliases() || (ruleset = confine_ruleset()) < 0) {
    int why = errno;
    confine_forget();
    return -why;
  }
  fcntl(ruleset, F_SETFD, FD_CLOEXEC);
  return ruleset;
}

static int current(const char *paths, size_t length) {
  static int ruleset = -1;
  int changed = ruleset < 0, n = 0;
  if (mounts < 0 && (mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) < 0) return -errno;
  for (const char *at = paths; at < paths + length; at += strlen(at) + 1, n++) {
    char now[PATH_MAX];
    if (n == MAX_PATHS) return -E2BIG;
    if (confine_resolve(at + 1, now)) return -errno;
    if (strcmp(now, resolved[n])) changed = 1, strcpy(resolved[n], now);
  }
  if (mounts_changed() || changed || !confine_is_current()) ruleset = make(paths, length);
  return ruleset;
}

static napi_value rules(napi_env env, napi_callback_info info) {
  static char paths[MAX_PATHS * 1024];
  size_t count = 1, length = 0;
  napi_value argument, answer;
  int result = -EINVAL;
  if (!napi_get_cb_info(env, info, &count, &argument, NULL, NULL) && count == 1 &&
      !napi_get_value_string_utf8(env, argument, paths, sizeof paths, &length)) {
    result = length < sizeof paths - 1 ? current(paths, length) : -E2BIG;
  }
  napi_create_int32(env, result, &answer);
  return answer;
}

AEGIS_ADDON("rules", rules)
