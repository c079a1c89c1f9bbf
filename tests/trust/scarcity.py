#!/usr/bin/env python3
"""Lets a disk, its inodes, or a limit of the process run out for real, at every level from nothing to enough.

What must hold afterwards is what `io_errors.py` says; then there is room again, and the next build must find nothing amiss. Needs root, to mount small
file systems.

    sudo python3 tests/trust/scarcity.py                  # all levels
    sudo python3 tests/trust/scarcity.py --points 12      # a sample
"""

import os
import resource
import subprocess
import sys

import scenarios
import sweep
import verdict
from space import Space, require
from sweep import Point

# More than any scenario needs.
ROOM = "size=64m,nr_inodes=100000"
# Users without processes of their own, to count from: one for each worker.
USERS = 60000
SCENARIOS = ("build", "build-wide", "rebuild", "redeliver", "gc", "import", "export", "out")


class Small:
    """A space whose project lies on a file system in memory that can be made small."""

    def __init__(self, folder, program, tool):
        self.space, self.tool, self.expected = Space(folder, program), tool, {}
        self.mount_point = self.space.folder / "small"
        self.space.project = self.mount_point / "project"
        self.space.folder.parent.chmod(0o755)
        self.user = USERS + int(self.space.folder.name)

    def begin(self, scenario):
        """Mounts anew, so that what the one before has left cannot count."""
        self.mount_point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", ROOM, "small", self.mount_point], check=True)
        if scenario.name not in self.expected:
            self.expected[scenario.name] = scenarios.prepare(self.space, scenario, self.tool)
        self.space.restore(scenario.name)
        return self.expected[scenario.name]

    def resize(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.mount_point], check=True)

    def end(self):
        # Lazily: a sandbox that is just being made elsewhere has a copy of every mount.
        subprocess.run(["umount", "-l", self.mount_point], check=True)

    def used(self):
        found = os.statvfs(self.mount_point)
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


def points(options):
    found = []
    for name in options.scenario or SCENARIOS:
        found += [Point(name, (f"room={pages}",), ()) for pages in (*range(0, 40, 2), *range(40, 120, 8))]
        found += [Point(name, (f"inodes={count}",), ()) for count in (*range(0, 30, 2), *range(30, 150, 10))]
        found += [Point(name, (f"files={count}",), ()) for count in range(4, 26)]
        found += [Point(name, (f"file-size={kib}",), ()) for kib in (0, 1, 2, 4, 8, 16, 32)]
        found += [Point(name, (f"processes={count}",), ()) for count in range(1, 12)]
    return found


def limit(what, level, user):
    """Runs in the child, before the program starts."""
    if what == "files":
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (level, level))
    if what == "file-size":
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (level << 10, level << 10))
    if what == "processes":
        return lambda: (resource.setrlimit(resource.RLIMIT_NPROC, (level, level)), os.setgid(user), os.setuid(user))
    return None


def run_short(small, scenario, what, level):
    size, inodes = small.used()
    if what == "room":
        small.resize(f"size={size + 4096 * level}")
    elif what == "inodes":
        small.resize(f"nr_inodes={inodes + level}")
    elif what == "processes":
        subprocess.run(["chown", "-R", f"{small.user}:{small.user}", small.space.project], check=True)
    ran = small.space.run(*scenario.arguments, preexec_fn=limit(what, level, small.user), timeout=sweep.LIMIT_SECONDS)
    small.resize(ROOM)
    return ran


def fall_short(small, point):
    scenario = scenarios.BY_NAME[point.scenario]
    what, level = point.injections[0].split("=")
    expected = small.begin(scenario)
    try:
        ran = run_short(small, scenario, what, int(level))
        if ran.code == 127:
            return sweep.FOREIGN, []
        # The step's own command may have had no room, either.
        codes = (1, 3) if in_command(ran) else (3,)
        wrong = verdict.judge(small.space, scenario, expected, ran, codes)
        wrong += verdict.examine(small.space, scenario, expected, may_lack_bundles=ran.code == 1)
    except BlockingIOError:
        # Not even the program itself could be started.
        return sweep.FOREIGN, []
    finally:
        small.end()
    return f"{what}: ended with {ran.code}", wrong


def in_command(ran):
    return "`tool` ended with exit code 5" in ran.err or "`tool` was ended by signal" in ran.err


class Scarcity(sweep.Sweep):
    worker_type = Small


def main():
    options = sweep.arguments(__doc__.splitlines()[0]).parse_args()
    require("mount", "umount")
    if os.geteuid() != 0:
        sys.exit("PEER MISSING: small file systems need root")
    scarcity = Scarcity("scarcity", options)
    scarcity.each(scarcity.chosen(points(options)), fall_short)
    scarcity.finish()


if __name__ == "__main__":
    main()
