/* aegis-launch [OPTION...] -- COMMAND [ARG...]
 * Starts a command for the daemon: confined by Landlock, in a session of its own, without inherited descriptors, and ended
 * with the daemon. Stays as its parent, ends what it leaves behind, and ends as the command did.
 *
 *   --protect PATH     no access below it (repeatable)      --read-only PATH  no change below it (repeatable)
 *   --no-landlock      start although this kernel has none  --parent PID      who must still be there
 *   --grace-ms N       between SIGTERM and SIGKILL (5000)   --report-fd N     where one line of JSON tells the end
 *   --name NAME        argv[0] of the command               --probe           prints as JSON what can be enforced here
 *   --ruleset-fd N     a ruleset that is made already, instead of --protect and --read-only
 *
 * Exits 64 for wrong usage, 126 where the command may not or cannot run, 127 where there is none. */
#define _GNU_SOURCE
#include "launch.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int report_fd = -1;

static int complain(int status, const char *what) {
  dprintf(2, "aegis-launch: %s: %s\n", what, strerror(errno));
  if (report_fd >= 0) dprintf(report_fd, "{\"started\":false,\"errno\":%d}\n", errno);
  return status;
}

static void close_from(int first) {
#ifdef SYS_close_range
  if (!syscall(SYS_close_range, (unsigned)first, ~0U, 0)) return;
#endif
  struct rlimit limit;
  int end = getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > 1048576 ? 1048576 : (int)limit.rlim_cur;
  for (int fd = first; fd < end; fd++) close(fd);
}

/* One line: the ABI, what it closes, what stays open, and why there is none. The ruleset is applied, not only asked for. */
static int probe(void) {
  int abi = confine_abi(), why = abi ? 0 : errno;
  if (abi) {
    int ruleset = confine_ruleset();
    if (ruleset < 0 || confine_self(ruleset)) why = errno, abi = 0;
  }
  const char *from_3 = "truncate", *from_6 = "signals\",\"abstract-sockets"; /* the ABI that brought it */
  printf("{\"abi\":%d,\"enforced\":[%s", abi, abi ? "\"files\",\"ptrace\"" : "");
  if (abi >= 3) printf(",\"%s\"", from_3);
  if (abi >= 6) printf(",\"%s\"", from_6);
  printf("],\"open\":[%s", abi ? "" : "\"files\",\"ptrace\",");
  if (abi < 3) printf("\"%s\",", from_3);
  if (abi < 6) printf("\"%s\",", from_6);
  printf("\"modes\"]"); /* chmod, chown and times: no Landlock covers them */
  if (!abi)
    printf(",\"why\":\"%s\"", why == ENOSYS ? "this kernel has no Landlock" : why == EOPNOTSUPP ? "Landlock is built into this kernel but not enabled at boot (lsm=)"
                             : why == EPERM ? "a system call filter forbids Landlock" : strerror(why));
  puts("}");
  return 0;
}

struct start { const char *path; char **command; int ruleset, why; pid_t launcher; };

/* In the new process, which has this one's memory until the command takes its place: what went wrong is left in `why`. */
static int run(void *given) {
  struct start *start = given;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != start->launcher) _exit(126);
  for (int signal_number = 1; signal_number < NSIG; signal_number++) signal(signal_number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && (start->ruleset < 0 || !confine_self(start->ruleset))) {
    close_from(3);
    execv(start->path, start->command);
  }
  start->why = errno;
  _exit(126);
}

/* Ends as the command did, so that whoever waits sees its signal and not a number that stands for it. */
static int end_as(int status) {
  if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
  int number = WTERMSIG(status);
  struct rlimit no_core = {0, 0};
  sigset_t set;
  setrlimit(RLIMIT_CORE, &no_core);
  signal(number, SIG_DFL);
  sigemptyset(&set);
  sigaddset(&set, number);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  raise(number);
  return 128 + number;
}

int main(int argc, char **argv) {
  long grace_ms = 5000;
  pid_t parent = 0;
  int landlock = 1, i = 1, wanted = 0, ruleset = -1;
  char *name = NULL;
  for (; i < argc && strcmp(argv[i], "--"); i++) {
    if (!strcmp(argv[i], "--probe")) return probe();
    if (!strcmp(argv[i], "--no-landlock")) { landlock = 0; continue; }
    const char *option = argv[i];
    char *value = i + 1 < argc ? argv[++i] : "";
    int is_protect = !strcmp(option, "--protect");
    errno = EINVAL;
    if (is_protect || !strcmp(option, "--read-only")) {
      if (confine_add(value, is_protect ? PROTECTED : READ_ONLY)) return complain(64, value);
      wanted++;
    } else if (!strcmp(option, "--parent")) parent = atoi(value);
    else if (!strcmp(option, "--name")) name = value;
    else if (!strcmp(option, "--grace-ms")) grace_ms = atol(value);
    else if (!strcmp(option, "--report-fd")) report_fd = atoi(value);
    else if (!strcmp(option, "--ruleset-fd")) ruleset = atoi(value);
    else return complain(64, option);
  }
  char **command = argv + i + 1, *path = command[0];
  errno = EINVAL;
  if (i >= argc - 1) return complain(64, "usage: aegis-launch [OPTION...] -- COMMAND [ARG...]");
  if (path[0] != '/') return complain(64, path);
  if (name) command[0] = name;

  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  supervise_block();
  if (parent && getppid() != parent) return complain(126, "the daemon is gone");
  /* Nothing else of the daemon's is kept open. */
  if (ruleset >= 0 && ruleset != 4 && dup2(ruleset, 4) == 4) ruleset = 4;
  if (report_fd > 3 && dup2(report_fd, 3) == 3) report_fd = 3;
  if (report_fd < 0) close(3);
  close_from(ruleset < 0 ? 4 : 5);
  if (ruleset >= 0) fcntl(ruleset, F_SETFD, FD_CLOEXEC);
  if (report_fd >= 0) fcntl(report_fd, F_SETFD, FD_CLOEXEC);
  setsid();
  if (prctl(PR_SET_CHILD_SUBREAPER, 1)) return complain(126, "PR_SET_CHILD_SUBREAPER");
  if (landlock && wanted && (confine_add_aliases() || (ruleset = confine_ruleset()) < 0)) return complain(126, "Landlock");

  /* A copy of this process would be thrown away at once. This one stands still until the command runs, or cannot. */
  static char stack[64 * 1024] __attribute__((aligned(16)));
  struct start start = {.path = path, .command = command, .ruleset = ruleset, .launcher = getpid()};
  pid_t child = clone(run, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
  if (child < 0) return complain(126, "clone");
  if (ruleset >= 0) close(ruleset);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (start.why) {
    waitpid(child, NULL, 0);
    errno = start.why;
    return complain(start.why == ENOENT ? 127 : 126, path);
  }
  /* The command alone holds its pipes: who reads them sees their end when it and all that came from it are gone. */
  for (int fd = 0; fd < 3; fd++) null < 0 ? close(fd) : dup2(null, fd);
  struct outcome outcome = supervise(child, grace_ms);
  if (report_fd >= 0) dprintf(report_fd, "{\"started\":true,\"ended\":%d,\"left\":%d}\n", outcome.ended, outcome.left);
  return end_as(outcome.status);
}
