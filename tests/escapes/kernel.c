// The kernel: what it hands out to a process of a machine's user and must not hand out in here.
#include "attempt.h"

#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/reboot.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timex.h>
#if defined(__x86_64__)
#include <asm/ldt.h>
#endif

static enum result session_key(void) { return call(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", BAIT_KEY, 0)); }
static enum result user_key(void) { return call(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", BAIT_KEY, 0)); }
static enum result request_key_(void) { return call(syscall(SYS_request_key, "user", BAIT_KEY, NULL, 0)); }
static enum result add_key_(void) { return call(syscall(SYS_add_key, "user", "slmops-left", "x", 1, KEY_SPEC_USER_KEYRING)); }
static enum result join_keyring(void) { return call(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "slmops-bait-session")); }
static enum result keyring_of_user(void) { return call(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_SESSION_KEYRING, 1)); }

static enum result bpf_map(void) {
    union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    return call(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
}
static enum result performance(void) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_CPU_CLOCK, .exclude_kernel = 1};
    return call(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
}
static enum result user_faults(void) { return call(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */)); }
static enum result rings(void) {
    char parameters[256] = {0};
    return call(syscall(SYS_io_uring_setup, 1, parameters));
}
static enum result kernel_log(void) { return call(syscall(SYS_syslog, 10 /* SIZE_BUFFER */, NULL, 0)); }
// Each of these asks for nothing that would change: only the permission counts.
static enum result permitted(long returned) { return returned >= 0 || (errno != EPERM && errno != ENOSYS && errno != EACCES); }
static enum result load_module(void) { return permitted(syscall(SYS_init_module, NULL, 0, "")); }
static enum result unload_module(void) { return permitted(syscall(SYS_delete_module, "slmops_none", O_NONBLOCK)); }
static enum result other_kernel(void) { return permitted(syscall(SYS_kexec_load, 0, 0, NULL, 0)); }
static enum result restart(void) { return permitted(syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_ON, NULL)); }
static enum result accounting(void) { return permitted(syscall(SYS_acct, "/nonexistent")); }
static enum result host_name(void) {
    char name[128];
    if (gethostname(name, sizeof name)) return HELD;
    return call(sethostname(name, strlen(name)));
}
static enum result clock_shift(void) {
    struct timex shift = {.modes = ADJ_SETOFFSET | ADJ_NANO};
    return call(adjtimex(&shift));
}
// The last one: it takes the terminal from all that follow.
static enum result hang_up(void) { return call(syscall(SYS_vhangup)); }
static enum result type_into_terminal(void) {
    int fd = open("/dev/tty", O_RDWR);
    for (int i = 0; i < 3; i++)
        if (ioctl(fd < 0 ? i : fd, TIOCSTI, "x") == 0) return THROUGH;
    // The 64-bit value whose lower half is the same.
    return call(syscall(SYS_ioctl, fd < 0 ? 0 : fd, (1ul << 32) | TIOCSTI, "x"));
}
static enum result terminal_there(void) {
    for (int fd = 0; fd < 3; fd++)
        if (isatty(fd)) return THROUGH;
    return HELD;
}

#if defined(__x86_64__)
// The same calls under other numbers: those of 32-bit programs, and of the x32 interface.
static enum result call_of_i386(void) {
    long returned;
    __asm__ volatile("int $0x80" : "=a"(returned) : "a"(20 /* getpid */) : "memory");
    return returned > 0;
}
static enum result call_of_x32(void) { return call(syscall(0x40000000 | SYS_getpid)); }
static enum result local_descriptors(void) {
    struct user_desc descriptor = {.entry_number = 0, .limit = 1, .seg_32bit = 1, .contents = 0, .limit_in_pages = 0};
    return call(syscall(SYS_modify_ldt, 1, &descriptor, sizeof descriptor));
}
static enum result ports(void) { return call(syscall(SYS_iopl, 3)); }
static enum result port_range(void) { return call(syscall(SYS_ioperm, 0x80, 1, 1)); }
#endif

const struct attempt kernel_attempts[] = {
    {"session-key", session_key},
    {"user-key", user_key},
    {"request-key", request_key_},
    {"add-key", add_key_},
    {"join-keyring", join_keyring},
    {"keyring-of-user", keyring_of_user},
    {"bpf", bpf_map},
    {"performance", performance},
    {"user-faults", user_faults},
    {"rings", rings},
    {"kernel-log", kernel_log},
    {"load-module", load_module},
    {"unload-module", unload_module},
    {"other-kernel", other_kernel},
    {"restart", restart},
    {"accounting", accounting},
    {"host-name", host_name},
    {"clock-shift", clock_shift},
    {"type-into-terminal", type_into_terminal},
    {"terminal-there", terminal_there},
#if defined(__x86_64__)
    {"call-of-i386", call_of_i386},
    {"call-of-x32", call_of_x32},
    {"local-descriptors", local_descriptors},
    {"ports", ports},
    {"port-range", port_range},
#endif
    {"hang-up", hang_up},
    {0},
};
