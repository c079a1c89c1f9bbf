// Files that are not the command's: the machine's own, its inputs, devices, mounts.
#include "attempt.h"

#include <linux/fs.h>
#include <linux/random.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/xattr.h>

static enum result opens(const char *path, int flags) {
    return call(open(path, flags | O_NONBLOCK | O_CLOEXEC));
}

static enum result inherited_folder(void) { return call(openat(BAIT_ROOT_FD, "etc/passwd", O_RDONLY)); }
static enum result inherited_file(void) {
    char byte;
    return call(pread(BAIT_FILE_FD, &byte, 1, 0));
}
static enum result inherited_socket(void) { return call(write(BAIT_SOCKET_FD, "x", 1)); }
static enum result inherited_any(void) {
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) return THROUGH;
    return HELD;
}

static enum result host_etc(void) { return opens("/etc/passwd", O_RDONLY); }
static enum result host_proc(void) { return opens("/proc/self/mountinfo", O_RDONLY); }
static enum result host_proc_root(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/root/etc/passwd", victim);
    return opens(path, O_RDONLY);
}
static enum result host_sys(void) { return opens("/sys/kernel", O_RDONLY); }
static enum result host_sysctl(void) { return opens("/proc/sys/kernel/core_pattern", O_RDONLY); }
static enum result host_cgroup(void) { return opens("/sys/fs/cgroup", O_RDONLY); }
static enum result host_dev_shm(void) {
    enum result result = opens("/dev/shm/slmops-bait", O_RDWR | O_CREAT);
    unlink("/dev/shm/slmops-bait");
    return result;
}
static enum result host_tmp(void) { return opens("/run", O_RDONLY); }

static enum result dot_dot(void) {
    for (int i = 0; i < 64; i++)
        if (chdir("..")) return HELD;
    return opens("etc/passwd", O_RDONLY);
}
static enum result chroot_and_back(void) {
    mkdir(in("/out/jail"), 0755);
    int here = open(".", O_RDONLY | O_DIRECTORY);
    if (chroot(in("/out/jail"))) return HELD;
    fchdir(here);
    return dot_dot();
}
static enum result link_to_host(void) {
    if (symlink("/etc/passwd", in("/tmp/link")) && errno != EEXIST) return HELD;
    return opens(in("/tmp/link"), O_RDONLY);
}
// The famous one: the handle of a file system's root is easy to guess.
static enum result handle_of_root(void) {
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } handle = {.head.handle_bytes = 128};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, in("/out"), &handle.head, &mount_id, 0)) return HELD;
    int mount = open(in("/out"), O_RDONLY);
    return call(open_by_handle_at(mount, &handle.head, O_RDONLY));
}
static enum result handle_of_name(void) {
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } handle = {.head.handle_bytes = 128};
    int mount_id;
    return call(name_to_handle_at(AT_FDCWD, in("/in/data"), &handle.head, &mount_id, 0));
}

static enum result input_write(void) { return call(open(in("/in/data"), O_WRONLY)); }
static enum result input_truncate(void) { return call(truncate(in("/in/data"), 1)); }
static enum result input_mode(void) { return call(chmod(in("/in/data"), 0666)); }
static enum result input_owner(void) { return call(chown(in("/in/data"), getuid(), getgid())); }
static enum result input_time(void) { return call(utimensat(AT_FDCWD, in("/in/data"), NULL, 0)); }
static enum result input_attribute(void) {
    long returned = setxattr(in("/in/data"), "user.slmops", "x", 1, 0);
    return call(returned);
}
static enum result input_unlink(void) { return call(unlink(in("/in/folder/spare"))); }
static enum result input_create(void) { return call(open(in("/in/folder/new"), O_WRONLY | O_CREAT, 0644)); }
static enum result input_rename(void) { return call(rename(in("/in/folder/one"), in("/in/folder/two"))); }
static enum result input_link(void) { return call(link(in("/in/data"), in("/out/linked"))); }
static enum result input_map(void) {
    return call(open(in("/in/data"), O_RDWR));
}
static enum result input_lease(void) {
    int fd = open(in("/in/data"), O_RDWR);
    return fd < 0 ? HELD : call(fcntl(fd, F_SETLEASE, F_WRLCK));
}
static enum result input_flags(void) {
    int fd = open(in("/in/data"), O_RDONLY), flags = FS_NOATIME_FL;
    return call(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}
static enum result tool_write(void) { return call(open(in("/tools/escape"), O_WRONLY)); }
static enum result tree_write(void) { return call(mkdir(in("/in/new"), 0755)); }
static enum result below_input_write(void) { return call(open(in("/in/folder/below/new"), O_WRONLY | O_CREAT, 0644)); }

static enum result device_mode(void) {
    struct stat data;
    if (stat("/dev/full", &data)) return HELD;
    return call(chmod("/dev/full", data.st_mode & 07777));
}
static enum result device_owner(void) { return call(chown("/dev/full", getuid(), getgid())); }
static enum result device_time(void) { return call(utimensat(AT_FDCWD, "/dev/full", NULL, 0)); }
static enum result device_watch(void) { return call(inotify_add_watch(inotify_init1(0), "/dev/null", IN_OPEN)); }
static enum result device_disk(void) {
    unlink(in("/out/disk"));
    if (mknod(in("/out/disk"), S_IFBLK | 0600, makedev(254, 0)) && mknod(in("/out/disk"), S_IFBLK | 0600, makedev(8, 0))) return HELD;
    unlink(in("/out/disk"));
    return THROUGH;
}
static enum result device_memory(void) {
    unlink(in("/tmp/mem"));
    return call(mknod(in("/tmp/mem"), S_IFCHR | 0600, makedev(1, 1)));
}
static enum result device_kmsg(void) { return opens("/dev/kmsg", O_RDONLY); }
static enum result device_ptmx(void) { return opens("/dev/ptmx", O_RDWR | O_NOCTTY); }
static enum result device_tty(void) { return opens("/dev/tty", O_RDWR); }
static enum result device_fuse(void) { return opens("/dev/fuse", O_RDWR); }
static enum result device_tun(void) { return opens("/dev/net/tun", O_RDWR); }
static enum result device_vda(void) { return opens("/dev/vda", O_RDONLY) == THROUGH || opens("/dev/sda", O_RDONLY) == THROUGH; }
static enum result random_entropy(void) {
    int fd = open("/dev/random", O_RDWR), bits = 0;
    return call(ioctl(fd, RNDADDTOENTCNT, &bits));
}

static enum result mount_tmpfs(void) { return call(mount("none", in("/tmp"), "tmpfs", 0, NULL)); }
static enum result mount_proc(void) { return call(mount("none", in("/tmp"), "proc", 0, NULL)); }
static enum result mount_bind(void) { return call(mount(in("/in"), in("/tmp"), NULL, MS_BIND, NULL)); }
static enum result mount_writable(void) {
    if (base[0] && mount(in("/in"), in("/in"), NULL, MS_BIND, NULL)) return HELD;
    return call(mount(NULL, in("/in/data"), NULL, MS_REMOUNT | MS_BIND, NULL)) == THROUGH
        || call(mount(NULL, in("/in"), NULL, MS_REMOUNT | MS_BIND, NULL)) == THROUGH;
}
static enum result unmount_input(void) {
    if (base[0] && mount("none", in("/in"), "tmpfs", 0, NULL)) return HELD;
    return call(umount2(in("/in/data"), MNT_DETACH)) == THROUGH || call(umount2(in("/in"), MNT_DETACH)) == THROUGH;
}
static enum result mount_new_calls(void) { return call(syscall(SYS_fsopen, "tmpfs", 0)); }
static enum result mount_clone_tree(void) { return call(syscall(SYS_open_tree, AT_FDCWD, in("/in"), 1 /* OPEN_TREE_CLONE */)); }
static enum result mount_attributes(void) {
    struct { uint64_t set, clear, propagation, user; } attributes = {.clear = 1};
    if (base[0] && mount(in("/in"), in("/in"), NULL, MS_BIND, NULL)) return HELD;
    return call(syscall(SYS_mount_setattr, AT_FDCWD, in("/in"), 0, &attributes, sizeof attributes)) == THROUGH
        || call(syscall(SYS_mount_setattr, AT_FDCWD, in("/in/data"), 0, &attributes, sizeof attributes)) == THROUGH;
}
static enum result pivot(void) {
    if (base[0] && mount(in("/out"), in("/out"), NULL, MS_BIND, NULL)) return HELD;
    mkdir(in("/out/old"), 0755);
    return call(syscall(SYS_pivot_root, in("/out"), in("/out/old")));
}
static enum result watch_all(void) { return call(syscall(SYS_fanotify_init, 0, O_RDONLY)); }
static enum result quota(void) { return call(syscall(SYS_quotactl, 0x800001 << 8 /* Q_SYNC */, NULL, 0, NULL)); }
// Where it is permitted, the file is missed.
static enum result swap(void) { return swapon("/nonexistent", 0) < 0 && errno != ENOENT ? HELD : THROUGH; }

static enum result capability_of_file(void) {
    unsigned char value[20] = {1, 0, 0, 2, 0x80};
    int fd = open(in("/out/capable"), O_WRONLY | O_CREAT, 0755);
    return fd < 0 ? HELD : call(fsetxattr(fd, "security.capability", value, sizeof value, 0));
}
static enum result attribute_of_output(void) {
    int fd = open(in("/out/attribute"), O_WRONLY | O_CREAT, 0644);
    return fd < 0 ? HELD : call(fsetxattr(fd, "user.slmops", "x", 1, 0));
}
static enum result owner_of_output(void) {
    int fd = open(in("/out/owned"), O_WRONLY | O_CREAT, 0644);
    return fd < 0 ? HELD : call(fchown(fd, 4711, 4711));
}
// A program that runs as its owner, whoever starts it: here, whoever made it.
static enum result setuid_program(void) {
    char command[2048];
    snprintf(command, sizeof command, "%s", in("/out/setuid"));
    int fd = open(command, O_WRONLY | O_CREAT, 0755);
    if (fd < 0 || fchmod(fd, 06755)) return HELD;
    struct stat data;
    // It only counts where the mount would honour it.
    struct statvfs space;
    if (fstat(fd, &data) || !(data.st_mode & S_ISUID)) return HELD;
    close(fd);
    if (statvfs(command, &space)) return HELD;
    unlink(command);
    return space.f_flag & ST_NOSUID ? HELD : THROUGH;
}
static enum result physical_blocks(void) {
    struct { uint64_t start, length; uint32_t flags, mapped, count, reserved; unsigned char extents[56]; } map = {.length = ~0ull, .count = 1};
    int fd = open(in("/in/data"), O_RDONLY);
    return call(ioctl(fd, 0xC020660B /* FS_IOC_FIEMAP */, &map));
}

const struct attempt file_attempts[] = {
    {"inherited-folder", inherited_folder},
    {"inherited-file", inherited_file},
    {"inherited-socket", inherited_socket},
    {"inherited-any", inherited_any},
    {"host-etc", host_etc},
    {"host-proc", host_proc},
    {"host-proc-root", host_proc_root},
    {"host-sys", host_sys},
    {"host-sysctl", host_sysctl},
    {"host-cgroup", host_cgroup},
    {"host-dev-shm", host_dev_shm},
    {"host-run", host_tmp},
    {"dot-dot", dot_dot},
    {"chroot-and-back", chroot_and_back},
    {"link-to-host", link_to_host},
    {"handle-of-root", handle_of_root},
    {"handle-of-name", handle_of_name},
    {"input-write", input_write},
    {"input-truncate", input_truncate},
    {"input-mode", input_mode},
    {"input-owner", input_owner},
    {"input-time", input_time},
    {"input-attribute", input_attribute},
    {"input-unlink", input_unlink},
    {"input-create", input_create},
    {"input-rename", input_rename},
    {"input-link", input_link},
    {"input-map", input_map},
    {"input-lease", input_lease},
    {"input-flags", input_flags},
    {"tool-write", tool_write},
    {"tree-write", tree_write},
    {"below-input-write", below_input_write},
    {"device-mode", device_mode},
    {"device-owner", device_owner},
    {"device-time", device_time},
    {"device-watch", device_watch},
    {"device-disk", device_disk},
    {"device-memory", device_memory},
    {"device-kmsg", device_kmsg},
    {"device-ptmx", device_ptmx},
    {"device-tty", device_tty},
    {"device-fuse", device_fuse},
    {"device-tun", device_tun},
    {"device-disk-node", device_vda},
    {"random-entropy", random_entropy},
    {"mount-tmpfs", mount_tmpfs},
    {"mount-proc", mount_proc},
    {"mount-bind", mount_bind},
    {"mount-writable", mount_writable},
    {"unmount-input", unmount_input},
    {"mount-new-calls", mount_new_calls},
    {"mount-clone-tree", mount_clone_tree},
    {"mount-attributes", mount_attributes},
    {"pivot-root", pivot},
    {"fanotify", watch_all},
    {"quota", quota},
    {"swap", swap},
    {"capability-of-file", capability_of_file},
    {"attribute-of-output", attribute_of_output},
    {"owner-of-output", owner_of_output},
    {"setuid-program", setuid_program},
    {"physical-blocks", physical_blocks},
    {0},
};
