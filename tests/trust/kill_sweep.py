#!/usr/bin/env python3
"""Kills the program before each call that changes something, and while a sandbox comes up or its command runs.

After each kill: no process is left; every bundle in `dist/` is the old or the new one; the store is intact; the next build has exactly the results
of a run that nobody killed; after `cache gc` nothing is left over.

    python3 tests/trust/kill_sweep.py                                          # all points: about an hour
    python3 tests/trust/kill_sweep.py --points 40 --held 10 --clock 10      # evenly spread samples
"""

import collections
import os
import random
import shutil
import signal
import subprocess
import time

import scenarios
import sweep
import tracing
import verdict
from sweep import Point

HELD_SECONDS = 1


def points(kills):
    found = []
    for scenario in kills.scenarios():
        worker = kills.worker()
        worker.begin(scenario)
        ran, trace = worker.traced(scenario, tracing.MUTATING)
        if ran.code != scenario.code:
            raise SystemExit(f"{scenario.name} under strace ended with {ran.code}: {ran.err}")
        for name, number in trace.numbered(tracing.Call.changes_something):
            found.append(Point(scenario.name, (f"{name}:signal={kills.options.signal}:when={number}",), (name,)))
    return found


def kill(worker, point):
    scenario = scenarios.BY_NAME[point.scenario]
    expected = worker.begin(scenario)
    ran, trace = worker.traced(scenario, point.calls, point.injections)
    if not trace.signalled:
        return sweep.MISSED, []
    if ran.code in (-9, 137):
        # The same call of a step's command may come first: then the step has failed, and its bundles have gone.
        return "at a call of slmops", verdict.examine(worker.space, scenario, expected, may_lack_bundles=trace.child_killed)
    # The sandbox's own process was hit, and slmops has to say so; or Ctrl-C was, which a command without a build takes as any program does.
    codes = (1, 3) if "KILL" in point.injections[0] else (1, 3, 130, -2, -15)
    wrong = verdict.judge(worker.space, scenario, expected, ran, codes)
    wrong += verdict.examine(worker.space, scenario, expected, may_lack_bundles=ran.code == 1)
    return f"ended with {ran.code}", wrong


def holds(kills):
    """Every call of a sandbox's own processes, at which they are held while slmops is killed."""
    worker = kills.worker()
    scenario = scenarios.BY_NAME["build"]
    worker.begin(scenario)
    _, trace = worker.traced(scenario, (*tracing.MUTATING, *tracing.READING, *tracing.OTHERS))
    numbered = trace.numbered(lambda call: call.program != "slmops" and not call.is_startup())
    return [Point("lingering command", (f"{name}:delay_enter={HELD_SECONDS}s:when={number}",), (name,)) for name, number in numbered]


def linger(worker, wrapper=()):
    """Starts a build whose step has a command with children of its own, which would go on for minutes."""
    space = worker.space
    shutil.rmtree(space.project, ignore_errors=True)
    space.write_project(worker.tool, mode="linger")
    return subprocess.Popen([*wrapper, space.program, "build", "-j1"], cwd=space.project, env=space.environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_while_held(worker, point):
    """Whatever a sandbox is doing when slmops dies, it must notice as soon as it goes on."""
    log = worker.space.folder / "strace.log"
    log.unlink(missing_ok=True)
    strace = linger(worker, tracing.strace(log, point.calls, point.injections))
    try:
        if not wait_until_held(worker.space, strace.pid):
            return sweep.MISSED, []
        os.kill(tracing.first_thread(log), signal.SIGKILL)
        left = worker.space.wait_for_processes(1 + HELD_SECONDS, besides=[strace.pid])
        return "with the sandbox held", [f"{len(left)} processes left"] if left else []
    finally:
        worker.space.kill_processes()
        strace.wait()


def wait_until_held(space, strace):
    """Until a process of the sandbox stands still under strace: several times held, and not scheduled in between."""
    before, times, deadline = {}, collections.Counter(), time.monotonic() + 5
    while time.monotonic() < deadline:
        held = {process: state for process in space.processes() if process != strace and (state := state_of_held(process))}
        for process, state in held.items():
            times[process] = times[process] + 1 if before.get(process) == state else 0
            if times[process] == 4:
                return True
        before = held
        time.sleep(0.03)
    return False


def state_of_held(process):
    """How often a process of a sandbox was scheduled, if strace holds it."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            is_slmops = b"build" in file.read()
        with open(f"/proc/{process}/status") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return None
    if is_slmops or not status["State"].strip().startswith("t"):
        return None
    return status["voluntary_ctxt_switches"].strip()


def kill_at_random(worker, point):
    """Without strace, which slows everything down."""
    child = linger(worker)
    delay = random.Random(point.injections[0]).uniform(0, 0.12)
    time.sleep(delay)
    child.kill()
    child.wait()
    left = worker.space.wait_for_processes()
    worker.space.kill_processes()
    return "at a random moment", [f"{len(left)} processes left 1 s after a kill at {1000 * delay:.0f} ms"] if left else []


def main():
    parser = sweep.arguments(__doc__.splitlines()[0])
    parser.add_argument("--signal", choices=("KILL", "INT", "TERM"), default="KILL", help="what is sent before each call (default: %(default)s)")
    parser.add_argument("--held", type=int, default=0, metavar="N", help="kills while a sandbox is held at one of its calls (default: all calls)")
    parser.add_argument("--clock", type=int, default=120, metavar="N", help="kills at random moments (default: %(default)s)")
    options = parser.parse_args()
    kills = sweep.Sweep("kill sweep", options)
    kills.each(kills.chosen(points(kills)), kill)
    kills.each(sweep.spread(holds(kills), options.held), kill_while_held)
    kills.each([Point("lingering command", (f"kill {number}",), ()) for number in range(options.clock)], kill_at_random)
    kills.finish()


if __name__ == "__main__":
    main()
