// What an attempt is, and what all of them share. An attempt is a function that tries to reach something that a sandboxed command must not reach. It says
// whether it got through; outside of a sandbox most of them do, which is how we know that they can.
#ifndef ATTEMPT_H
#define ATTEMPT_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum result {
    HELD,    // it did not work
    THROUGH, // it did
    ABSENT,  // the kernel does not have what it would need
};

struct attempt {
    const char *name;
    enum result (*run)(void);
};

extern const struct attempt file_attempts[], kernel_attempts[], process_attempts[], socket_attempts[];

// In front of every absolute path: empty within a sandbox, a folder that looks like one outside.
extern char base[512];
// A process that is not ours to touch: the sandbox's process 1, or outside one that was started for it.
extern pid_t victim;
// Where the bait listens on the machine's own loopback.
extern int bait_port;
// A process of the machine that runs as the same user: its number there.
extern pid_t bait_pid;

// An absolute path of the sandbox, or its likeness outside.
const char *in(const char *path);

// A call's result as an attempt's: through if it did not fail; absent if the kernel does not know it.
static inline enum result call(long returned) {
    if (returned >= 0) return THROUGH;
    return HELD;
}

// Files that the bait has left open for whatever is started by it.
#define BAIT_ROOT_FD 9
#define BAIT_FILE_FD 11
#define BAIT_SOCKET_FD 12
#define BAIT_KEY "slmops-bait"
#define BAIT_IPC_KEY 0x51ab

#endif
