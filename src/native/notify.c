/* notify(socketPath, message): one sd_notify datagram from the main process, which neither Bun nor Node can send.
 * Answers the bytes sent, or a negative errno. */
#define _GNU_SOURCE
#include "napi.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int send_to(const char *path, size_t path_length, const char *message, size_t length) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path_length < 2 || path_length >= sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, path_length);
  if (path[0] == '@') address.sun_path[0] = 0; /* the abstract namespace */
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  ssize_t sent = sendto(fd, message, length, MSG_NOSIGNAL, (struct sockaddr *)&address,
                        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_length));
  int result = sent < 0 ? -errno : (int)sent;
  close(fd);
  return result;
}

static napi_value notify(napi_env env, napi_callback_info info) {
  size_t count = 2, path_length = 0, length = 0;
  napi_value arguments[2], answer;
  char path[200], message[4096];
  int result = -EINVAL;
  if (!napi_get_cb_info(env, info, &count, arguments, NULL, NULL) && count == 2 &&
      !napi_get_value_string_utf8(env, arguments[0], path, sizeof path, &path_length) &&
      !napi_get_value_string_utf8(env, arguments[1], message, sizeof message, &length))
    result = send_to(path, path_length, message, length);
  napi_create_int32(env, result, &answer);
  return answer;
}

AEGIS_ADDON("notify", notify)
