"""System calls of a run, as strace writes them down, and faults put into single ones.

strace counts the calls of each thread and each name separately, so a fault is named by a call and a number: `write:when=7` hits the first thread
that writes for the seventh time. Which one that was, in which program, and on what path, is read from the log of the run itself.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field

CREATING = ("clone", "clone3", "fork", "vfork")
# What changes files, mounts or processes.
MUTATING = (
    "openat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "splice", "copy_file_range", "ioctl", "ftruncate", "truncate",
    "fallocate", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
    "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "fchownat", "lchown", "utimensat", "futimesat", "fsync",
    "fdatasync", "syncfs", "sync_file_range", "msync", "flock", "fsetxattr", "setxattr", "mount", "umount2", "move_mount", "mount_setattr",
    "open_tree", "fsopen", "fsconfig", "fsmount", "pivot_root", "unshare", "setns", "execve", *CREATING,
)
READING = ("read", "pread64", "readv", "mmap", "statx", "newfstatat", "fstat", "lstat", "stat", "getdents64", "readlink", "readlinkat", "lseek")
OTHERS = ("pipe2", "socketpair", "prctl", "prlimit64", "setsid", "wait4", "waitid", "poll", "epoll_create1", "eventfd2", "memfd_create", "chdir")

ENTERED = re.compile(r"^(\d+)\s+(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")
RESULT = re.compile(r"= (\d+)(?:<.*>)?(?: /\* (\d+) in strace's PID NS \*/)?(?: \(.*\))?$")
PROGRAM = re.compile(r'^"([^"]*)", \[(.*?)\]')


SIGNALLED = ("killed by SIGKILL", "--- SIGINT {", "--- SIGTERM {")


@dataclass
class Call:
    thread: int
    name: str
    arguments: str
    # `slmops`, `helper` (slmops as the first process of a sandbox) or `command` (the step's own program).
    program: str
    injected: bool = False

    def changes_something(self):
        if self.name == "openat":
            return any(flag in self.arguments for flag in ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_TMPFILE"))
        if self.name == "ioctl":
            return "FICLONE" in self.arguments
        if self.name in ("write", "writev"):
            return not self.is_talk()
        return self.name in MUTATING

    def is_talk(self):
        """Onto stdout, stderr or a pipe between our own processes."""
        return bool(re.match(r"\d+<(pipe|/dev/null|anon_inode|socket)", self.arguments))

    def is_startup(self):
        """The loader's and the C library's own calls, over which the program has no power."""
        return any(part in self.arguments for part in ("/etc/ld.so", "/lib/x86_64", "/lib64/", "/usr/lib/", "/lib/aarch64", "/lib/ld-"))

    def shown(self):
        return f"{self.program}: {self.name}({self.arguments[:160]}"


@dataclass
class Trace:
    calls: list = field(default_factory=list)
    signalled: bool = False
    # A process of the program's own was killed, and it was told so.
    child_killed: bool = False

    def injected(self):
        return [call for call in self.calls if call.injected]

    def by_thread(self):
        """For each thread and name, its calls in order."""
        found = defaultdict(list)
        for call in self.calls:
            found[call.thread, call.name].append(call)
        return found

    def numbered(self, wanted):
        """(name, number) of the calls for which `wanted` holds in at least one thread."""
        found = {}
        for (_, name), calls in self.by_thread().items():
            for number, call in enumerate(calls, 1):
                if wanted(call):
                    found.setdefault((name, number), call)
        return found


def strace(log, calls, injections=()):
    """The command that runs another one under strace."""
    inject = [word for injection in injections for word in ("-e", f"inject={injection}")]
    # Signals are not injected where the kernel sorts out which calls strace sees.
    faster = [] if any("signal=" in injection for injection in injections) else ["--seccomp-bpf"]
    traced = ",".join(f"?{call}" for call in dict.fromkeys((*calls, "execve", *CREATING)))
    return ["strace", "-f", "-q", "-y", "--pidns-translation", *faster, "-s", "64", "-o", str(log), "-e", f"trace={traced}", *inject]


def read(log):
    trace, program, unfinished = Trace(), {}, {}
    with open(log, errors="replace") as lines:
        for line in map(str.rstrip, lines):
            trace.signalled = trace.signalled or any(text in line for text in SIGNALLED)
            trace.child_killed = trace.child_killed or "si_code=CLD_KILLED" in line
            if match := ENTERED.match(line):
                thread, name, rest = int(match[1]), match[2], match[3]
                call = Call(thread, name, rest, program.setdefault(thread, "slmops" if not program else "helper"))
                trace.calls.append(call)
                unfinished[thread] = call
            elif match := RESUMED.match(line):
                thread, name, rest = int(match[1]), match[2], match[3]
                call = unfinished.get(thread)
            else:
                continue
            if call is None:
                continue
            call.injected = call.injected or "(INJECTED)" in rest
            if name in CREATING and (result := RESULT.search(rest)):
                program.setdefault(int(result[2] or result[1]), call.program)
            if name == "execve" and (started := PROGRAM.match(call.arguments)):
                program[thread] = program_of(started[1], started[2])
    return trace


def is_stopped(log):
    return log.exists() and "--- stopped by SIGSTOP" in log.read_text(errors="replace")


def first_thread(log):
    return int(log.read_text(errors="replace").split(maxsplit=1)[0])


def program_of(path, arguments):
    if not path.endswith("/slmops"):
        return "command"
    return "helper" if "sandbox-init" in arguments else "slmops"
