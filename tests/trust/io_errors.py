#!/usr/bin/env python3
"""Makes single calls fail as a full disk, a failing disk, a limit or a signal would: once, and from some call on for good.

After each fault: the command ends with 0 and the right results, or with 3 and a message that names what it was about (1 where the step's own command
was hit, or where that is how the command ends); nothing panics or hangs; what `kill_sweep.py` says of bundles, store, processes and the next build
holds here, too; and no intact result is set aside or deleted.

    python3 tests/trust/io_errors.py                   # all calls, one error each: some hours
    python3 tests/trust/io_errors.py --points 500      # an evenly spread sample
"""

import scenarios
import sweep
import tracing
import verdict
from sweep import Point

NEW = ("ENOSPC", "EIO", "EMFILE", "EDQUOT", "EROFS", "ENOMEM")
CHANGE = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
WRITE = ("ENOSPC", "EIO", "EDQUOT", "EINTR")
READ = ("EIO", "EINTR")
LOOK = ("EIO", "ENOMEM")
HANDLE = ("EMFILE", "ENFILE", "ENOMEM")
PROCESS = ("EAGAIN", "ENOMEM")
# What each call may plausibly fail with.
ERRORS = {
    "openat": ("EMFILE", "EIO", "ENOMEM", "EINTR", "ENFILE"), "create": NEW,
    "write": WRITE, "pwrite64": WRITE, "writev": WRITE, "sendfile": ("EIO", "ENOSPC"), "splice": ("EIO", "ENOSPC"),
    "copy_file_range": ("EIO", "ENOSPC", "EXDEV", "EINTR"), "ioctl": ("EOPNOTSUPP", "EXDEV", "EIO", "ENOSPC"),
    "ftruncate": CHANGE, "fallocate": ("ENOSPC", "EOPNOTSUPP", "EIO"),
    "mkdir": CHANGE, "mkdirat": CHANGE, "rmdir": ("EIO", "EROFS"), "unlink": ("EIO", "EROFS"), "unlinkat": ("EIO", "EROFS"),
    "rename": CHANGE, "renameat": CHANGE, "renameat2": CHANGE, "link": ("EMLINK", "ENOSPC", "EIO", "EPERM"),
    "linkat": ("EMLINK", "ENOSPC", "EIO", "EPERM"), "symlink": CHANGE, "symlinkat": CHANGE, "mknod": CHANGE, "mknodat": CHANGE,
    "chmod": ("EIO", "EROFS", "EPERM"), "fchmod": ("EIO", "EROFS", "EPERM"), "fchmodat": ("EIO", "EROFS", "EPERM"),
    "fchmodat2": ("EIO", "EROFS", "ENOSYS"), "chown": ("EPERM", "EIO"), "fchown": ("EPERM", "EIO"), "fchownat": ("EPERM", "EIO"),
    "utimensat": ("EIO", "EROFS", "EPERM"), "fsync": ("EIO", "ENOSPC", "EDQUOT"), "fdatasync": ("EIO", "ENOSPC"), "syncfs": ("EIO", "ENOSPC"),
    "flock": ("ENOLCK", "EINTR"), "read": READ, "pread64": READ, "readv": READ, "mmap": ("ENOMEM", "EIO"), "getdents64": ("EIO", "ENOMEM"),
    "statx": LOOK, "newfstatat": LOOK, "fstat": LOOK, "readlink": LOOK, "readlinkat": LOOK, "lseek": ("EIO",),
    "clone": PROCESS, "clone3": PROCESS, "vfork": PROCESS, "fork": PROCESS, "execve": ("EIO", "ENOMEM", "E2BIG"),
    "pipe2": HANDLE, "socketpair": HANDLE, "epoll_create1": HANDLE, "eventfd2": HANDLE, "memfd_create": HANDLE, "mount": ("EPERM", "ENOMEM"),
    "umount2": ("EIO",), "move_mount": ("EPERM",), "mount_setattr": ("EPERM", "ENOSYS"), "open_tree": ("EMFILE", "ENOSYS"), "fsopen": ("ENOSYS", "EMFILE"),
    "fsmount": ("ENOMEM",), "pivot_root": ("EPERM",), "unshare": ("EPERM", "ENOSPC"), "prctl": ("EPERM", "EINVAL"), "setsid": ("EPERM",), "chdir": ("EIO",),
}
CALLS = tuple(name for name in (*tracing.MUTATING, *tracing.READING, *tracing.OTHERS) if name in ERRORS)


def errors_of(call):
    return ERRORS["create"] if call.name == "openat" and call.changes_something() else ERRORS[call.name]


def can_fail(call):
    if call.is_startup():
        return False
    # Memory and stacks that the C library and Rust's own ask for: they end the process, and a program has no say there.
    return call.name != "mmap" or "<" in call.arguments


def points(errors):
    """One point a call, its error taken in turn; and faults that last, from some calls on."""
    found = []
    for scenario in errors.scenarios():
        worker = errors.worker()
        worker.begin(scenario)
        _, trace = worker.traced(scenario, CALLS)
        turn = 0
        for (name, number), call in trace.numbered(can_fail).items():
            kinds = errors_of(call)
            chosen = kinds if errors.options.all else [kinds[turn % len(kinds)]]
            found += [Point(scenario.name, (f"{name}:error={kind}:when={number}",), (name,)) for kind in chosen]
            turn += 1
            # No signal interrupts for ever.
            lasting = kinds[turn % len(kinds)]
            if turn % 7 == 0 and lasting != "EINTR":
                found.append(Point(scenario.name, (f"{name}:error={lasting}:when={number}+",), (name,)))
    return found


def fail(worker, point):
    scenario = scenarios.BY_NAME[point.scenario]
    expected = worker.begin(scenario)
    ran, trace = worker.traced(scenario, point.calls, point.injections)
    hits = trace.injected()
    if not hits:
        return sweep.MISSED, []
    if any(call.is_startup() for call in hits) or (hits[0].name == "mmap" and not can_fail(hits[0])):
        return sweep.FOREIGN, []
    codes = (1, 3) if any(call.program == "command" for call in hits) else (3,)
    # Where the message itself could not be written, there is none.
    wrong = verdict.judge(worker.space, scenario, expected, ran, codes, must_explain=not any(call.is_talk() for call in hits))
    wrong += verdict.examine(worker.space, scenario, expected, may_lack_bundles=ran.code == 1)
    return f"ended with {ran.code}", [f"{problem} [{hits[0].shown()}]" for problem in wrong]


def main():
    parser = sweep.arguments(__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every plausible error at every call, not one in turn")
    errors = sweep.Sweep("I/O errors", parser.parse_args())
    errors.each(errors.chosen(points(errors)), fail)
    errors.finish()


if __name__ == "__main__":
    main()
