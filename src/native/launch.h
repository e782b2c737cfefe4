/* What the parts of aegis-launch and aegis-rules know of each other. */
#ifndef AEGIS_LAUNCH_H
#define AEGIS_LAUNCH_H
#include <sys/types.h>

/* Paths that children may not reach, or only read. Both are made absolute and free of symbolic links by confine_add. */
enum kind { PROTECTED, READ_ONLY };

/* Room for what the daemon names and every other mount that shows the same files. */
#define MAX_PATHS 64

/* confine.c: Landlock. The ABI of this kernel, or 0 with errno set where it cannot be used. */
int confine_abi(void);
/* The real path of `path` into `resolved`, which holds PATH_MAX; as far as it exists. -1 with errno for "/" and what is relative. */
int confine_resolve(const char *path, char *resolved);
/* 0, or -1 with errno: as above, or there are too many. */
int confine_add(const char *path, enum kind kind);
/* Adds every other mount point at which what was added can be seen as well. */
int confine_add_aliases(void);
/* A ruleset for everything that was added; -1 with errno. Made before the fork, so that a failure is told in words. */
int confine_ruleset(void);
/* Whether the directories that the ruleset was made from are still as they were. Mounts are not looked at. */
int confine_is_current(void);
/* Closes the ruleset; nothing is added any more. */
void confine_forget(void);
/* From here on this process, and all that come from it, are confined. -1 with errno. */
int confine_self(int ruleset);

/* supervise.c: stays while `child` runs, passes on the wish to stop, and leaves nothing behind. */
struct outcome {
  int status;       /* as waitpid tells it */
  int ended;        /* processes that outlived the command and were ended */
  int left;         /* processes that could not be ended: stuck in the kernel */
};
/* The signals of which supervise waits; they must be blocked before the fork. */
void supervise_block(void);
struct outcome supervise(pid_t child, long grace_ms);

#endif
