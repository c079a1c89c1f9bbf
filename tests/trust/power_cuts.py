#!/usr/bin/env python3
"""Cuts the power at calls of a program that works on a file system which keeps no order it need not keep, and after it has ended.

The project lies on ext4 (`data=writeback,noauto_da_alloc,commit=1`: contents reach the disk whenever the kernel likes, and no rename waits for them) in a
file in memory. Sealing that file makes every later write fail at once, between two sectors of the same moment: what it holds then is what the disk held
when the power went. A copy of it is mounted, which replays the journal, and examined:

- every bundle in `dist/` is the old or the new one, byte for byte; after the program had ended, it is the new one;
- a file or folder that the program wrote for the user, once it had ended, is complete, and a bundle that missed its gate stays away;
- the next build has the results of one that nobody cut off, and has to run nothing again if the one before had ended.

    sudo python3 tests/trust/power_cuts.py                  # 60 cuts, half of them after the end
    sudo python3 tests/trust/power_cuts.py --points 4       # a sample
"""

import fcntl
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import scenarios
import sweep
import tracing
import verdict
from space import Space, require
from sweep import Point

OPTIONS = "data=writeback,noauto_da_alloc,commit=1"
SIZE_BYTES = 48 << 20
# linux/fcntl.h; Python names them since 3.13.
F_ADD_SEALS, F_SEAL_WRITE = 1033, 0x0008

AFTER_THE_END, AT_A_CALL = "after the end", "at a call"
# What is cut off when. A fresh build and a changed bundle come up more often than the rest.
CUTS = [
    ("rebuild", AFTER_THE_END), ("rebuild", AT_A_CALL), ("redeliver", AFTER_THE_END), ("build", AT_A_CALL), ("gate", AFTER_THE_END), ("redeliver", AT_A_CALL),
    ("out", AFTER_THE_END), ("rebuild", AT_A_CALL), ("build", AFTER_THE_END), ("gc", AT_A_CALL), ("export", AFTER_THE_END), ("import", AT_A_CALL),
    ("rebuild", AFTER_THE_END), ("gate", AT_A_CALL), ("import", AFTER_THE_END), ("out", AT_A_CALL),
]


class Disk:
    """A file in memory as a block device with a file system, mounted somewhere."""

    def __init__(self, mount_point, image=None):
        self.file = os.memfd_create("disk", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.file, SIZE_BYTES)
        if image is None:
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", self.path())
        else:
            copy_data(image, self.file)
        self.mount_point = mount_point
        self.mount_point.mkdir(exist_ok=True)
        self.device = attach(self.path())
        try:
            run("mount", "-o", OPTIONS, self.device, str(self.mount_point))
        except subprocess.CalledProcessError:
            self.detach()
            raise

    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.file}"

    def cut(self):
        """From here on nothing reaches the disk."""
        fcntl.fcntl(self.file, F_ADD_SEALS, F_SEAL_WRITE)

    def close(self):
        """Unmounts. A sandbox that is just being made has a copy of every mount, so that the file system may live on for a moment: what is to be on
        the disk has to be written before. After a cut, nothing is."""
        subprocess.run(["sync", "-f", self.mount_point], stderr=subprocess.DEVNULL)
        for _ in range(50):
            if subprocess.run(["umount", self.mount_point], stderr=subprocess.DEVNULL).returncode == 0:
                return self.detach()
            time.sleep(0.1)
        raise RuntimeError(f"{self.mount_point} is still in use")

    def detach(self):
        run("losetup", "-d", self.device)

    def forget(self):
        os.close(self.file)


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def attach(path):
    """Another process may take the free device that was just found."""
    for _ in range(20):
        done = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
        time.sleep(0.1)
    raise RuntimeError(f"no loop device to be had: {done.stderr.strip()}")


def copy_data(source, target):
    """Holes stay holes."""
    offset = 0
    while True:
        try:
            offset = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(source, offset, os.SEEK_HOLE)
        while offset < end:
            offset += os.pwrite(target, os.pread(source, min(1 << 20, end - offset), offset), offset)


class Machine:
    """A space whose project lies on a disk of its own, and the disks from which its scenarios start."""

    def __init__(self, folder, program, tool):
        self.space, self.tool, self.start = Space(folder, program), tool, {}
        self.mount_point = self.space.folder / "disk"
        self.space.project = self.mount_point / "project"

    def begin(self, scenario):
        """The scenario's disk, what an uninterrupted run comes to, and its calls that change something."""
        if scenario.name not in self.start:
            disk = Disk(self.mount_point)
            try:
                self.space.project.mkdir()
                expected = scenarios.prepare(self.space, scenario, self.tool)
                self.space.restore(scenario.name)
                calls = self.calls(scenario)
                self.space.restore(scenario.name)
            finally:
                disk.close()
            self.start[scenario.name] = disk, expected, calls
        return self.start[scenario.name]

    def calls(self, scenario):
        log = self.space.folder / "strace.log"
        self.space.run(*scenario.arguments, wrapper=tracing.strace(log, tracing.MUTATING))
        return list(tracing.read(log).numbered(lambda call: call.program == "slmops" and call.changes_something()))


def cut(machine, point):
    scenario, (when, number) = scenarios.BY_NAME[point.scenario], point.injections
    chance, wrong = random.Random(number), []
    start, expected, calls = machine.begin(scenario)
    # At once, or when the file system has written down by itself what it knows: names first, contents much later.
    pause = chance.choice([0, chance.uniform(0.8, 2.5)])
    disk = Disk(machine.mount_point, start.file)
    try:
        if when == AFTER_THE_END:
            ran = machine.space.run(*scenario.arguments)
            wrong += [f"ended with {ran.code}: {ran.err.strip()}"] if ran.code != scenario.code else []
            time.sleep(pause)
            disk.cut()
        else:
            cut_at(machine.space, scenario, disk, chance.choice(calls), pause)
    finally:
        disk.close()
    after = Disk(machine.mount_point, disk.file)
    disk.forget()
    try:
        wrong += examine(machine.space, scenario, expected, when)
    finally:
        after.close()
        after.forget()
    return when, wrong


def cut_at(space, scenario, disk, call, pause):
    """Holds the program before this call until the power is cut."""
    name, number = call
    log = space.folder / "strace.log"
    log.unlink(missing_ok=True)
    command = [*tracing.strace(log, [name], [f"{name}:signal=STOP:when={number}"]), space.program, *scenario.arguments]
    child = subprocess.Popen(command, cwd=space.project, env=space.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    # Threads run in another order each time: then it is the end that comes.
    while child.poll() is None and not tracing.is_stopped(log):
        time.sleep(0.01)
    time.sleep(pause)
    disk.cut()
    space.kill_processes()
    child.wait()
    space.wait_for_processes()


def examine(space, scenario, expected, when):
    wrong = []
    if when == AFTER_THE_END:
        if (found := space.bundles()) != expected.after:
            differing = [name for name in {*found, *expected.after} if found.get(name) != expected.after.get(name)]
            wrong += [f"dist/{name} is {state(found.get(name), expected.before.get(name))} although the command had ended" for name in differing]
        if scenarios.digest_of_product(space, scenario) != expected.product:
            wrong.append(f"{scenario.product} is not complete")
    else:
        wrong += verdict.examine_bundles(space, expected)
        wrong += verdict.examine_repetition(space, scenario, expected)
    wrong += verdict.examine_build(space, expected, may_run_steps=when == AT_A_CALL)
    ran = space.run("cache", "verify")
    if ran.code != 0:
        wrong.append(f"cache verify after the next build ended with {ran.code}: {(ran.out + ran.err).strip()}")
    ran = space.run("cache", "gc")
    if ran.code != 0:
        wrong.append(f"cache gc ended with {ran.code}: {ran.err.strip()}")
    if leftovers := space.listing() - expected.listing:
        wrong.append(f"{len(leftovers)} leftovers: {' '.join(sorted(leftovers)[:3])}")
    return wrong


def state(found, before):
    return "missing" if found is None else "still the old one" if found == before else "damaged"


class PowerCuts(sweep.Sweep):
    worker_type = Machine


def check_environment(folder):
    """Says what is missing where there can be no power cuts: that is a failure, not a pass."""
    require("strace", "mkfs.ext4", "losetup", "mount", "umount")
    try:
        disk = Disk(Path(folder) / "try")
        disk.close()
        disk.forget()
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        detail = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        sys.exit(f"PEER MISSING: power cuts need root, loop devices and ext4 (util-linux, e2fsprogs): {detail}")


def main():
    parser = sweep.arguments(__doc__.splitlines()[0])
    parser.set_defaults(points=60)
    options = parser.parse_args()
    cuts = PowerCuts("power cuts", options)
    check_environment(cuts.folder)
    wanted = {scenario.name for scenario in cuts.scenarios()}
    kinds = [kind for kind in CUTS if kind[0] in wanted]
    points = [Point(name, (when, str(number)), ()) for number, (name, when) in ((n, kinds[n % len(kinds)]) for n in range(options.skip, options.skip + options.points))]
    cuts.each(points, cut)
    cuts.finish()


if __name__ == "__main__":
    main()
