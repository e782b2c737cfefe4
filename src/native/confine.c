/* Landlock for children of the daemon: everything their user can do, except what was added as protected or read-only.
 *
 * Landlock only grants, and a grant holds for all that lies beneath. So every directory on the way from / to a protected
 * path is listed (names only) and its other entries are granted one by one. Nothing new can be made directly in a
 * directory on the way, because that right would reach the protected path too. */
#define _GNU_SOURCE
#include "launch.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* linux/landlock.h of a build machine may be older than the kernel of the host. The numbers are the same on every CPU. */
#define CREATE_RULESET 444
#define ADD_RULE 445
#define RESTRICT_SELF 446
#define QUERY_VERSION 1
#define RULE_PATH_BENEATH 1
#define SCOPE_ABSTRACT_SOCKETS 1
#define SCOPE_SIGNALS 2
typedef unsigned long long rights;
enum { EXECUTE = 1, WRITE_FILE = 2, READ_FILE = 4, READ_DIR = 8, REFER = 1 << 13, TRUNCATE = 1 << 14 };
#define OF_FILES (EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE)
#define TO_READ (EXECUTE | READ_FILE | READ_DIR)
struct ruleset_attr { rights fs, net, scoped; };
struct __attribute__((packed)) path_beneath { rights allowed; int parent; };

/* The C library's own names of this are newer than the oldest one that the addon must do with. */
static int stat_at(int folder, const char *path, struct stat *st, int flags) {
  return (int)syscall(SYS_newfstatat, folder, path, st, flags);
}
static int stat_of(int fd, struct stat *st) { return stat_at(fd, "", st, AT_EMPTY_PATH); }

static struct { char path[PATH_MAX]; enum kind kind; } added[MAX_PATHS];
static int count;
static rights handled;
static int ruleset = -1;

/* The directories on the way as they were when they were read: what is new in one, or gone, changes it. */
static struct way { char path[PATH_MAX]; struct stat was; } ways[MAX_PATHS];
static int way_count;
/* A change within this long of the last one may leave the same times behind: the kernel counts in ticks. */
enum { SETTLED_MS = 50 };
static int unsettled;

int confine_abi(void) {
  long abi = syscall(CREATE_RULESET, NULL, 0, QUERY_VERSION);
  return abi < 1 ? 0 : (int)abi;
}

/* Whether `path` is `above` or lies beneath it. */
static int beneath(const char *path, const char *above) {
  size_t n = strlen(above);
  if (n == 1) return 1;
  return !strncmp(path, above, n) && (path[n] == 0 || path[n] == '/');
}

static int add(const char *path, enum kind kind) {
  for (int i = 0; i < count; i++)
    if (!strcmp(added[i].path, path)) return 0;
  if (count == MAX_PATHS || strlen(path) >= PATH_MAX) return errno = E2BIG, -1;
  strcpy(added[count].path, path);
  added[count++].kind = kind;
  return 0;
}

/* What does not exist yet has a name as well: it resolves as far as it exists. */
int confine_resolve(const char *path, char *resolved) {
  char head[PATH_MAX], real[PATH_MAX], tail[PATH_MAX] = "", longer[PATH_MAX * 2];
  if (path[0] != '/' || strlen(path) >= PATH_MAX) return errno = EINVAL, -1;
  strcpy(head, path);
  while (!realpath(head, real)) {
    char *slash = strrchr(head, '/');
    if (errno != ENOENT || !slash) return -1;
    snprintf(longer, sizeof longer, "%s%s", slash, tail);
    if (strlen(longer) >= sizeof tail) return errno = ENAMETOOLONG, -1;
    strcpy(tail, longer);
    if (slash == head) { strcpy(real, "/"); break; }
    *slash = 0;
  }
  snprintf(longer, sizeof longer, "%s%s", strcmp(real, "/") || !*tail ? real : "", tail);
  for (size_t n = strlen(longer); n > 1 && longer[n - 1] == '/'; n--) longer[n - 1] = 0;
  if (!strcmp(longer, "/")) return errno = EINVAL, -1;
  if (strlen(longer) >= PATH_MAX) return errno = ENAMETOOLONG, -1;
  strcpy(resolved, longer);
  return 0;
}

int confine_add(const char *path, enum kind kind) {
  char resolved[PATH_MAX];
  return confine_resolve(path, resolved) ? -1 : add(resolved, kind);
}

struct mount { char device[32], root[PATH_MAX], point[PATH_MAX]; };

/* Blanks and backslashes stand as \040 in /proc/self/mountinfo. */
static void unescape(char *text) {
  char *to = text;
  for (; *text; text++)
    if (text[0] == '\\' && text[1] && text[2] && text[3]) {
      *to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
      text += 3;
    } else *to++ = *text;
  *to = 0;
}

/* 1 with the next mount, 0 at the end. */
static int next_mount(FILE *file, struct mount *mount) {
  static char *line;
  static size_t size;
  while (getline(&line, &size, file) >= 0) {
    if (sscanf(line, "%*d %*d %31s %4095s %4095s", mount->device, mount->root, mount->point) != 3) continue;
    unescape(mount->root);
    unescape(mount->point);
    return 1;
  }
  return 0;
}

static const char *below(const char *path, const char *above) { return path + (strcmp(above, "/") ? strlen(above) : 0); }

static int add_aliases_of(int index, FILE *mounts) {
  char inside[PATH_MAX * 2], alias[PATH_MAX * 2];
  const char *path = added[index].path;
  struct mount mount, home = {.point = ""};
  struct stat here, there;
  if (stat_at(AT_FDCWD, path, &here, 0)) return errno == ENOENT ? 0 : -1;
  rewind(mounts);
  while (next_mount(mounts, &mount)) /* a later mount lies on top of an earlier one */
    if (beneath(path, mount.point) && strlen(mount.point) >= strlen(home.point)) home = mount;
  if (!home.point[0]) return errno = EXDEV, -1; /* a plain chroot, where not even / is a mount that shows */
  snprintf(inside, sizeof inside, "%s%s", strcmp(home.root, "/") ? home.root : "", below(path, home.point));
  rewind(mounts);
  while (next_mount(mounts, &mount)) {
    if (strcmp(mount.device, home.device)) continue;
    if (beneath(mount.root, inside)) { /* a part of it, mounted somewhere else */
      if (!beneath(mount.point, path) && strcmp(mount.point, "/") && add(mount.point, added[index].kind)) return -1;
    } else if (beneath(inside, mount.root)) {
      snprintf(alias, sizeof alias, "%s%s", strcmp(mount.point, "/") ? mount.point : "", below(inside, mount.root));
      if (!stat_at(AT_FDCWD, alias, &there, 0) && there.st_dev == here.st_dev && there.st_ino == here.st_ino && add(alias, added[index].kind)) return -1;
    }
  }
  return 0;
}

int confine_add_aliases(void) {
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  if (!mounts) return -1;
  int failed = 0;
  for (int i = 0; i < count && !failed; i++) failed = add_aliases_of(i, mounts);
  fclose(mounts);
  return failed;
}

static int grant(int fd, int is_directory, rights allowed) {
  struct path_beneath rule = {.allowed = allowed & handled & (is_directory ? ~0ULL : OF_FILES), .parent = fd};
  return rule.allowed && syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, &rule, 0) ? -1 : 0;
}

enum place { ELSEWHERE, ON_THE_WAY, EXACTLY };

static enum place place_of(const char *path, enum kind kind) {
  enum place place = ELSEWHERE;
  for (int i = 0; i < count; i++) {
    if (added[i].kind != kind) continue;
    if (!strcmp(added[i].path, path)) return EXACTLY;
    if (beneath(added[i].path, path)) place = ON_THE_WAY;
  }
  return place;
}

static long since_ms(const struct timespec *then) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (now.tv_sec - then->tv_sec) * 1000 + (now.tv_nsec - then->tv_nsec) / 1000000;
}

/* Before it is read, so that what changes meanwhile shows. */
static void note_way(int fd, const char *path) {
  struct way *way = &ways[way_count];
  if (way_count == MAX_PATHS || strlen(path) >= PATH_MAX || stat_of(fd, &way->was)) { unsettled = 1; return; }
  if (since_ms(&way->was.st_mtim) < SETTLED_MS || since_ms(&way->was.st_ctim) < SETTLED_MS) unsettled = 1;
  strcpy(way->path, path);
  way_count++;
}

static int same_time(const struct timespec *a, const struct timespec *b) {
  return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

int confine_is_current(void) {
  if (ruleset < 0 || unsettled) return 0;
  for (int i = 0; i < way_count; i++) {
    struct stat now, *was = &ways[i].was;
    if (stat_at(AT_FDCWD, ways[i].path, &now, AT_SYMLINK_NOFOLLOW) || now.st_dev != was->st_dev || now.st_ino != was->st_ino || now.st_mode != was->st_mode ||
        !same_time(&now.st_mtim, &was->st_mtim) || !same_time(&now.st_ctim, &was->st_ctim)) return 0;
  }
  return 1;
}

void confine_forget(void) {
  if (ruleset >= 0) close(ruleset);
  ruleset = -1;
  count = way_count = unsettled = 0;
}

static int grant_around(int fd, const char *path, rights allowed);
static int grant_known(int fd, const char *path, rights allowed);

/* Grants the entry `name` of the directory `fd`, which is on the way. A symbolic link is granted nothing: where it leads to
 * is judged there. */
static int grant_entry(int fd, const char *path, const char *name, int type, rights allowed) {
  char child[PATH_MAX * 2];
  struct stat st;
  snprintf(child, sizeof child, "%s/%s", strcmp(path, "/") ? path : "", name);
  enum place protected = place_of(child, PROTECTED), read_only = place_of(child, READ_ONLY);
  if (protected == EXACTLY) return 0;
  int on_the_way = protected == ON_THE_WAY || read_only == ON_THE_WAY;
  int at = openat(fd, name, O_NOFOLLOW | O_CLOEXEC | (on_the_way ? O_RDONLY | O_DIRECTORY : O_PATH));
  rights mine = read_only == EXACTLY ? allowed & TO_READ : allowed;
  if (on_the_way && at >= 0) return grant_around(at, child, mine);
  if (on_the_way && errno == EACCES) {
    at = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return at < 0 ? 0 : grant_known(at, child, mine);
  }
  if (at < 0) return 0; /* gone, or closed to this user as well */
  if (type == DT_UNKNOWN) type = stat_of(at, &st) || S_ISLNK(st.st_mode) ? DT_LNK : S_ISDIR(st.st_mode) ? DT_DIR : DT_REG;
  int failed = type == DT_LNK ? 0 : grant(at, type == DT_DIR, mine);
  int why = errno;
  close(at);
  errno = why;
  return failed;
}

/* Grants what lies in the directory `fd`, which is on the way; takes the descriptor. */
static int grant_around(int fd, const char *path, rights allowed) {
  note_way(fd, path);
  DIR *directory = fdopendir(fd);
  if (!directory) return close(fd), -1;
  int failed = grant(fd, 1, READ_DIR);
  for (struct dirent *entry; !failed && (entry = readdir(directory));)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && entry->d_type != DT_LNK)
      failed = grant_entry(fd, path, entry->d_name, entry->d_type, allowed);
  int why = errno;
  closedir(directory);
  errno = why;
  return failed;
}

/* The same in a directory that this user may enter and not list, as /home is on some machines: of what lies there only the
 * next step of the way is known, and nothing else is granted. */
static int grant_known(int fd, const char *path, rights allowed) {
  note_way(fd, path);
  int failed = 0;
  for (int i = 0; i < count && !failed; i++) {
    char name[PATH_MAX];
    size_t start = strlen(path) + 1;
    if (!beneath(added[i].path, path) || strlen(added[i].path) < start) continue;
    size_t n = strcspn(added[i].path + start, "/"), end = start + n;
    int known = 0;
    for (int j = 0; j < i; j++)
      known |= !strncmp(added[j].path, added[i].path, end) && (added[j].path[end] == '/' || !added[j].path[end]);
    if (known) continue;
    memcpy(name, added[i].path + start, n);
    name[n] = 0;
    failed = grant_entry(fd, path, name, DT_UNKNOWN, allowed);
  }
  int why = errno;
  close(fd);
  errno = why;
  return failed;
}

static int is_inside_protected(const char *path) {
  for (int i = 0; i < count; i++)
    if (added[i].kind == PROTECTED && beneath(path, added[i].path)) return 1;
  return 0;
}

/* No directory on the way shows it when something in there is replaced. */
static void note_folder_of(const char *path) {
  char folder[PATH_MAX];
  strcpy(folder, path);
  *strrchr(folder, '/') = 0;
  int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) { unsettled = 1; return; }
  note_way(fd, folder);
  close(fd);
}

int confine_ruleset(void) {
  int abi = confine_abi();
  if (abi < 1) return -1;
  handled = (1 << 13) - 1;
  if (abi >= 2) handled |= REFER;
  if (abi >= 3) handled |= TRUNCATE;
  struct ruleset_attr attr = {.fs = handled, .scoped = abi >= 6 ? SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS : 0};
  ruleset = (int)syscall(CREATE_RULESET, &attr, abi >= 6 ? sizeof attr : sizeof attr.fs, 0);
  int top = ruleset < 0 ? -1 : open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (top < 0 || grant_around(top, "/", handled)) return -1;
  for (int i = 0; i < count; i++) { /* a program that lives inside what is protected can still be read and run */
    struct stat st;
    if (added[i].kind != READ_ONLY) continue;
    if (is_inside_protected(added[i].path)) note_folder_of(added[i].path);
    int fd = open(added[i].path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) continue;
    int failed = stat_of(fd, &st) || grant(fd, S_ISDIR(st.st_mode), place_of(added[i].path, PROTECTED) == ON_THE_WAY ? READ_DIR : TO_READ);
    close(fd);
    if (failed) return -1;
  }
  return ruleset;
}

int confine_self(int rules) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
  return (int)syscall(RESTRICT_SELF, rules, 0);
}
