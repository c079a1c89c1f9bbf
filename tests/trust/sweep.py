"""What the sweeps have in common: points spread over scenarios, workers with a space each, a summary that says how it went."""

import argparse
import collections
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import scenarios
import tracing
from space import Space, compile_tool, require

LIMIT_SECONDS = 60
# Words for points that turned out to be none, because threads run in another order each time.
MISSED, FOREIGN = "not reached", "in the C library"


@dataclass(frozen=True)
class Point:
    scenario: str
    # As strace takes them: `write:signal=KILL:when=7`.
    injections: tuple
    # Which calls strace has to look at.
    calls: tuple


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--program", default="target/debug/slmops", help="the program to test")
    parser.add_argument("--points", type=int, default=0, metavar="N", help="an evenly spread sample of N points (default: all)")
    parser.add_argument("--scenario", action="append", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--only", metavar="TEXT", help="only points whose injection contains this")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="the sample begins at the N-th point")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="show every point")
    return parser


def spread(points, wanted, skip=0):
    """So many of them (0: all) at even distances."""
    if not wanted or wanted >= len(points):
        return points
    return [points[(skip + index * len(points) // wanted) % len(points)] for index in range(wanted)]


class Worker:
    """A space in which each scenario is prepared once, when its first point comes."""

    def __init__(self, folder, program, tool):
        self.space, self.tool, self.expected = Space(folder, program), tool, {}

    def begin(self, scenario):
        if scenario.name not in self.expected:
            self.expected[scenario.name] = scenarios.prepare(self.space, scenario, self.tool)
        self.space.restore(scenario.name)
        return self.expected[scenario.name]

    def traced(self, scenario, calls, injections=()):
        """Runs the scenario's command under strace."""
        log = self.space.folder / "strace.log"
        log.unlink(missing_ok=True)
        command = tracing.strace(log, calls, injections)
        ran = self.space.run(*scenario.arguments, wrapper=command, timeout=LIMIT_SECONDS)
        return ran, tracing.read(log)


class Sweep:
    worker_type = Worker

    def __init__(self, name, options):
        require("strace", "gcc")
        self.name, self.options = name, options
        self.folder = Path(tempfile.mkdtemp(prefix="slmops-trust-"))
        self.program, self.tool = Path(options.program).resolve(), compile_tool(self.folder)
        self.local, self.lock, self.workers = threading.local(), threading.Lock(), 0
        self.problems, self.counts, self.began = [], collections.Counter(), time.monotonic()

    def worker(self):
        if not hasattr(self.local, "worker"):
            with self.lock:
                self.workers += 1
                folder = self.folder / str(self.workers)
            self.local.worker = self.worker_type(folder, self.program, self.tool)
        return self.local.worker

    def scenarios(self):
        return [scenario for scenario in scenarios.SCENARIOS if not self.options.scenario or scenario.name in self.options.scenario]

    def chosen(self, points):
        """Evenly spread, so that every scenario and call has its share."""
        points = [point for point in points if not self.options.only or any(self.options.only in injection for injection in point.injections)]
        return spread(points, self.options.points, self.options.skip)

    def each(self, points, test):
        """`test(worker, point)` gives a word to count by and a list of what is wrong."""
        with ThreadPoolExecutor(self.options.jobs) as pool:
            for point, (word, wrong) in zip(points, pool.map(lambda point: test(self.worker(), point), points)):
                self.counts[word] += 1
                for problem in wrong:
                    self.problems.append(problem)
                    print(f"WRONG {point.scenario} {' '.join(point.injections)}: {problem}", flush=True)
                if self.options.verbose:
                    print(f"{point.scenario} {' '.join(point.injections)}: {word}", flush=True)

    def finish(self):
        missed = self.counts.pop(MISSED, 0) + self.counts.pop(FOREIGN, 0)
        counts = ", ".join(f"{count} {word}" for word, count in sorted(self.counts.items()))
        reached, seconds = sum(self.counts.values()), time.monotonic() - self.began
        print(f"{self.name}: {reached} points ({counts}; {missed} not reached), {len(self.problems)} problems, {seconds:.0f} s", flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        # A sweep that reaches little proves little.
        sys.exit(1 if self.problems or missed > reached else 0)
