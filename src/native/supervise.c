/* Stays beside a command until it ends, and then ends whatever it left behind. Being the subreaper, this process is the
 * parent of every orphan below it, so no double fork and no new session escapes: when waitpid knows no child, none is left. */
#define _GNU_SOURCE
#include "launch.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* SIGTERM, SIGINT and SIGHUP ask the command to stop; SIGUSR1, which also says that the daemon died, ends it now. */
static const int asked[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD};
/* How long what outlived its command may take to go, and how long the kernel may take to end what was killed. */
enum { LEFTOVER_GRACE_MS = 300, KILL_WAIT_MS = 3000 };
/* The kernel's own bound on process ids, and how many processes are looked at in one round. */
enum { MAX_PID = 4194304, MAX_SEEN = 65536 };

static void waited_for(sigset_t *set) {
  sigemptyset(set);
  for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) sigaddset(set, asked[i]);
}

void supervise_block(void) {
  sigset_t set;
  waited_for(&set);
  sigprocmask(SIG_BLOCK, &set, NULL);
}

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The next signal, or 0 when `until` (monotonic, -1: never) has come. */
static int next_signal(long until) {
  sigset_t set;
  waited_for(&set);
  for (;;) {
    long ms = until < 0 ? 3600000 : until - now_ms();
    if (ms < 0) return 0;
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    int got = sigtimedwait(&set, NULL, &wait);
    if (got > 0) return got;
    if (errno == EAGAIN && until >= 0) return 0;
  }
}

struct process { pid_t pid, parent; char state; };

/* Every process of this machine that can be seen. */
static int all_processes(struct process *list) {
  DIR *proc = opendir("/proc");
  int n = 0;
  for (struct dirent *entry; proc && n < MAX_SEEN && (entry = readdir(proc));) {
    char path[300], line[512];
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(line, 1, sizeof line - 1, file) : 0;
    if (file) fclose(file);
    line[size] = 0;
    char *name_end = strrchr(line, ')'); /* a name may hold blanks and brackets */
    struct process one = {.pid = atoi(entry->d_name)};
    if (name_end && one.pid <= MAX_PID && sscanf(name_end + 1, " %c %d", &one.state, &one.parent) == 2) list[n++] = one;
  }
  if (proc) closedir(proc);
  return n;
}

/* Sends `signal` to everything below this process that is not a zombie; answers how many there are. */
static int signal_descendants(int signal) {
  static struct process list[MAX_SEEN];
  static unsigned char ours[MAX_PID + 1]; /* by process id */
  int n = all_processes(list), sent = 0;
  for (int i = 0; i < n; i++) ours[list[i].pid] = 0;
  ours[getpid()] = 1;
  for (int grown = 1; grown;) {
    grown = 0;
    for (int i = 0; i < n; i++)
      if (!ours[list[i].pid] && ours[list[i].parent]) ours[list[i].pid] = 1, grown = 1;
  }
  for (int i = 0; i < n; i++)
    if (ours[list[i].pid] && list[i].pid != getpid() && list[i].state != 'Z' && !kill(list[i].pid, signal)) sent++;
  return sent;
}

struct waiting { pid_t child; int gone; struct outcome outcome; };

/* Reaps what has ended; 0 when no child is left. */
static int reap(struct waiting *w) {
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
    if (pid == 0) return 1;
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return 0;
    if (pid == w->child) w->outcome.status = status, w->gone = 1;
  }
}

/* Stopped first, so that nothing that forks faster than we look gets away. */
static void end_all(struct waiting *w) {
  long until = now_ms() + KILL_WAIT_MS;
  int before = -1, now = signal_descendants(SIGSTOP);
  for (int round = 0; round < 50 && now != before; round++) before = now, now = signal_descendants(SIGSTOP);
  do {
    w->outcome.left = signal_descendants(SIGKILL);
    if (!reap(w)) w->outcome.left = 0;
    else next_signal(now_ms() + 20);
  } while (w->outcome.left && now_ms() < until);
  reap(w);
}

struct outcome supervise(pid_t child, long grace_ms) {
  struct waiting w = {.child = child, .outcome.status = SIGKILL}; /* what stands when not even SIGKILL ends it */
  long kill_at = -1;
  for (;;) {
    int others = reap(&w);
    if (w.gone && !others) return w.outcome;
    if (w.gone && kill_at < 0) { /* the command ended by itself and left others */
      w.outcome.ended = signal_descendants(SIGTERM);
      kill_at = now_ms() + LEFTOVER_GRACE_MS;
    }
    int got = next_signal(kill_at);
    if (got == SIGCHLD) continue;
    if (got == 0 || got == SIGUSR1) {
      w.outcome.ended = 0;
      end_all(&w);
      return w.outcome;
    }
    signal_descendants(SIGTERM);
    if (kill_at < 0) kill_at = now_ms() + grace_ms;
  }
}
