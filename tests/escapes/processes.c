// Other processes: process 1 of the sandbox, which could open every door, and those of the machine. And what a process inherits.
#include "attempt.h"

#include <grp.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <sys/wait.h>

static enum result trace_attach(void) { return call(ptrace(PTRACE_ATTACH, victim, NULL, NULL)); }
static enum result trace_seize(void) { return call(ptrace(PTRACE_SEIZE, victim, NULL, NULL)); }
static enum result trace_own_child(void) {
    pid_t child = fork();
    if (child == 0) {
        for (;;) pause();
    }
    enum result result = call(ptrace(PTRACE_SEIZE, child, NULL, NULL));
    int error = errno;
    kill(child, SIGKILL);
    errno = error;
    return result;
}
static enum result memory_read(void) {
    char byte;
    struct iovec local = {&byte, 1}, remote = {&byte, 1};
    return call(process_vm_readv(victim, &local, 1, &remote, 1, 0));
}
static enum result memory_write(void) {
    char byte = 0;
    struct iovec local = {&byte, 1}, remote = {&byte, 1};
    return call(process_vm_writev(victim, &local, 1, &remote, 1, 0));
}
static enum result take_file(void) {
    int handle = syscall(SYS_pidfd_open, victim, 0);
    for (int fd = 0; fd < 16; fd++)
        if (syscall(SYS_pidfd_getfd, handle, fd, 0) >= 0) return THROUGH;
    return HELD;
}
static enum result compare(void) { return call(syscall(SYS_kcmp, getpid(), victim, KCMP_VM, 0, 0)); }
static enum result limits_of_other(void) {
    struct rlimit limit;
    return call(prlimit(victim, RLIMIT_CPU, NULL, &limit));
}
static enum result starve(void) {
    struct rlimit limit = {1, 1};
    return call(prlimit(victim, RLIMIT_NOFILE, &limit, NULL));
}
static enum result pages_of_other(void) {
    unsigned long nodes = 1;
    return call(syscall(SYS_migrate_pages, victim, 2, &nodes, &nodes));
}
static enum result advise_other(void) {
    static char page[4096] __attribute__((aligned(4096)));
    struct iovec remote = {page, sizeof page};
    int handle = syscall(SYS_pidfd_open, victim, 0);
    return call(syscall(SYS_process_madvise, handle, &remote, 1, MADV_COLD, 0));
}
static enum result robust_list(void) {
    void *head;
    size_t length;
    return call(syscall(SYS_get_robust_list, victim, &head, &length));
}
static enum result namespace_of_other(void) {
    int handle = syscall(SYS_pidfd_open, victim, 0);
    return call(setns(handle, CLONE_NEWNS));
}
static enum result end_other(void) {
    if (kill(victim, SIGKILL)) return HELD;
    usleep(50000);
    // What was killed is a zombie of our parent's until then.
    return kill(victim, 0) || base[0];
}
static enum result stop_other(void) {
    if (kill(victim, SIGSTOP)) return HELD;
    // A process 1 that had stopped would let nothing end any more; the attempts after this one would not be heard.
    return base[0] ? THROUGH : HELD;
}
static enum result signal_machine(void) { return call(kill(bait_pid, 0)); }
static enum result open_machine(void) { return call(syscall(SYS_pidfd_open, bait_pid, 0)); }
static enum result files_of_other(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", victim);
    return call(open(path, O_RDONLY));
}
static enum result memory_file_of_other(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", victim);
    return call(open(path, O_RDWR));
}

static enum result new_space(int flags) { return call(unshare(flags)); }
static enum result user_space(void) { return new_space(CLONE_NEWUSER); }
static enum result mount_space(void) { return new_space(CLONE_NEWNS); }
static enum result process_space(void) { return new_space(CLONE_NEWPID); }
static enum result network_space(void) { return new_space(CLONE_NEWNET); }
static enum result host_space(void) { return new_space(CLONE_NEWUTS); }
static enum result message_space(void) { return new_space(CLONE_NEWIPC); }
static enum result group_space(void) { return new_space(CLONE_NEWCGROUP); }
static enum result time_space(void) { return new_space(CLONE_NEWTIME); }
static enum result clone_user(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) _exit(0);
    return call(child);
}
static enum result clone3_user(void) {
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) _exit(0);
    return call(child);
}

static enum result capabilities(void) {
    struct { uint32_t version; int pid; } head = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } data[2] = {{0}};
    if (syscall(SYS_capget, &head, data)) return HELD;
    return (data[0].effective | data[0].permitted | data[0].inheritable | data[1].effective | data[1].permitted) != 0;
}
static enum result capabilities_by_program(void) {
    // Running a program gives user 0 all that its bounding set has.
    return prctl(PR_CAPBSET_READ, 21 /* SYS_ADMIN */, 0, 0, 0) == 1;
}
static enum result groups(void) { return call(setgroups(1, (gid_t[]){0})); }
static enum result other_user(void) { return call(setresuid(4711, 4711, 4711)); }
static enum result new_privileges(void) { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0; }
static enum result core_files(void) {
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    return call(setrlimit(RLIMIT_CORE, &limit));
}
static enum result more_files(void) {
    struct rlimit limit = {1 << 20, 1 << 20};
    return call(setrlimit(RLIMIT_NOFILE, &limit));
}
static enum result higher_priority(void) { return call(setpriority(PRIO_PROCESS, 0, -5)); }
static enum result real_time(void) {
    struct sched_param parameter = {.sched_priority = 1};
    return call(sched_setscheduler(0, SCHED_FIFO, &parameter));
}
static enum result locked_memory(void) {
    void *memory = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return call(mlock(memory, 64 << 20));
}
static enum result known_addresses(void) { return call(personality(ADDR_NO_RANDOMIZE)); }
static enum result environment(void) { return getenv("SLMOPS_BAIT") != NULL; }
static enum result session(void) { return getsid(0) != getpid() && getsid(0) != 1 && getsid(0) != 0; }
static enum result ignored_signals(void) {
    int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGUSR1};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_DFL) return THROUGH;
    }
    return HELD;
}
static enum result working_folder(void) {
    char path[PATH_MAX];
    return getcwd(path, sizeof path) && strcmp(path, "/out") != 0;
}
static enum result shared_memory(void) { return call(shmget(BAIT_IPC_KEY, 0, 0)); }
static enum result semaphores(void) { return call(semget(BAIT_IPC_KEY, 0, 0)); }
static enum result queues(void) { return call(msgget(BAIT_IPC_KEY, 0)); }

const struct attempt process_attempts[] = {
    {"trace-attach", trace_attach},
    {"trace-seize", trace_seize},
    {"trace-own-child", trace_own_child},
    {"memory-read", memory_read},
    {"memory-write", memory_write},
    {"take-file", take_file},
    {"compare", compare},
    {"limits-of-other", limits_of_other},
    {"starve", starve},
    {"pages-of-other", pages_of_other},
    {"advise-other", advise_other},
    {"robust-list", robust_list},
    {"namespace-of-other", namespace_of_other},
    {"end-other", end_other},
    {"stop-other", stop_other},
    {"signal-machine", signal_machine},
    {"open-machine", open_machine},
    {"files-of-other", files_of_other},
    {"memory-file-of-other", memory_file_of_other},
    {"new-user-space", user_space},
    {"new-mount-space", mount_space},
    {"new-process-space", process_space},
    {"new-network-space", network_space},
    {"new-host-space", host_space},
    {"new-message-space", message_space},
    {"new-group-space", group_space},
    {"new-time-space", time_space},
    {"clone-user-space", clone_user},
    {"clone3-user-space", clone3_user},
    {"capabilities", capabilities},
    {"capabilities-by-program", capabilities_by_program},
    {"groups", groups},
    {"other-user", other_user},
    {"new-privileges", new_privileges},
    {"core-files", core_files},
    {"more-files", more_files},
    {"higher-priority", higher_priority},
    {"real-time", real_time},
    {"locked-memory", locked_memory},
    {"known-addresses", known_addresses},
    {"environment", environment},
    {"session", session},
    {"ignored-signals", ignored_signals},
    {"working-folder", working_folder},
    {"shared-memory", shared_memory},
    {"semaphores", semaphores},
    {"queues", queues},
    {0},
};
