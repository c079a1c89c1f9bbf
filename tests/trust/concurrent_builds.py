#!/usr/bin/env python3
"""Many builds at once of three versions of a project, all into one dist/.

    tests/trust/concurrent_builds.py [COUNT] [--at-once N] [--kill] [--slmops PROGRAM]

What must hold: each build ends with exit code 0, or with 3 and a clear word that another slmops delivers; whoever looks at the bundle meanwhile sees
one of the three versions as a whole; so does `slmops verify` at the end; nothing is left beside the bundle. With --kill, every tenth build is killed
at a random moment (seeded), and all of the above must hold nevertheless.

Prints its figures; exit code 1 if one of them is wrong.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSIONS = ["one", "two", "three"]
BUNDLE = "many-0.1.0-box"

# Makes the model that the project bundles, so that a build takes no time.
SEED_MANIFEST = """slmops = 1
[project]
name = "seed"
[source]
texts = { path = "texts.jsonl" }
[tokenizer.words]
data = "texts"
vocab_size = 300
[train.tiny]
tokenizer = "words"
data = "texts"
arch = { hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 32 }
max_steps = 1
"""

MANIFEST = """slmops = 1
[project]
name = "many"
version = "0.1.0"
[source]
tiny = { path = "model" }
[device.box]
runtime = "slmops"
[bundle.release]
device = "box"
model = "tiny"
readme = "none"
"""


def run(program, folder, *arguments):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [program, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def must(ran):
    if ran.returncode != 0:
        sys.exit(f"FAILED: {ran.args} ended with {ran.returncode}:\n{ran.stderr}")
    return ran


def make_project(program, space):
    seed = space / "seed"
    seed.mkdir()
    lines = (json.dumps({"prompt": f"say {i}", "completion": f"{i}"}) for i in range(64))
    (seed / "texts.jsonl").write_text("\n".join(lines) + "\n")
    (seed / "slmops.toml").write_text(SEED_MANIFEST)
    must(run(program, seed, "build", "tiny"))
    project = space / "project"
    project.mkdir()
    must(run(program, seed, "out", "tiny", str(project / "model")))
    (project / "slmops.toml").write_text(MANIFEST)
    return project


def build_arguments(version):
    return ["build", "--json", "--quiet", "--set", f'bundle.release.readme="{version}"']


def whole_digest(bundle):
    """The digest of the bundle that is in a place now, read through one open folder: None if it vanished, "mixed" if it is not one bundle."""
    try:
        folder = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        def read(path):
            with open(os.open(path, os.O_RDONLY, dir_fd=folder), "rb") as file:
                return file.read()

        def blob(descriptor):
            content = read("blobs/sha256/" + descriptor["digest"].removeprefix("sha256:"))
            if "sha256:" + hashlib.sha256(content).hexdigest() != descriptor["digest"]:
                raise ValueError(descriptor["digest"])
            return content

        entry = json.loads(read("index.json"))["manifests"][0]
        manifest = json.loads(blob(entry))
        for layer in [manifest["config"], *manifest["layers"]]:
            blob(layer)
        return entry["digest"]
    except FileNotFoundError:
        # It was replaced while we read, and is being removed.
        return None
    except (ValueError, KeyError):
        return "mixed"
    finally:
        os.close(folder)


class Watcher(threading.Thread):
    """Looks at the bundle all the time."""

    def __init__(self, bundle):
        super().__init__(daemon=True)
        self.bundle, self.seen, self.gone, self.over = bundle, Counter(), 0, threading.Event()

    def run(self):
        while not self.over.is_set():
            self.seen[whole_digest(self.bundle)] += 1
            self.gone += not os.path.lexists(self.bundle)
            time.sleep(0.002)


def one_build(program, project, number, kill):
    version = VERSIONS[number % len(VERSIONS)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(project)}
    child = subprocess.Popen([program, *build_arguments(version)], cwd=project, env=environment,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if kill and number % 10 == 9:
        time.sleep(random.Random(number).random() * 0.3)
        child.kill()
    out, err = child.communicate()
    events = [json.loads(line) for line in out.splitlines() if line.startswith("{") and line.endswith("}")]
    digests = [bundle["digest"] for event in events if event.get("event") == "bundles" for bundle in event["bundles"]]
    return version, child.returncode, digests, err


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--slmops", default=str(ROOT / "target/debug/slmops"))
    options = parser.parse_args()
    if not os.access(options.slmops, os.X_OK):
        sys.exit(f"FAILED: there is no program {options.slmops}: cargo build")

    space = pathlib.Path(tempfile.mkdtemp())
    try:
        wrong = attack(options, make_project(options.slmops, space))
    finally:
        shutil.rmtree(space)
    for line in wrong:
        print("WRONG:", line)
    sys.exit(1 if wrong else 0)


def attack(options, project):
    program, bundle = options.slmops, project / "dist" / BUNDLE
    expected = {}
    for version in VERSIONS:
        must(run(program, project, *build_arguments(version)))
        expected[version] = must(run(program, project, "verify", str(bundle))).stdout.strip()
    if len(set(expected.values())) != len(VERSIONS):
        sys.exit("FAILED: the versions do not differ: this test shows nothing")

    watcher = Watcher(bundle)
    watcher.start()
    began = time.monotonic()
    with ThreadPoolExecutor(options.at_once) as pool:
        ends = list(pool.map(lambda number: one_build(program, project, number, options.kill), range(options.count)))
    seconds = time.monotonic() - began
    watcher.over.set()
    watcher.join()

    wrong = []
    codes = Counter(code for _, code, _, _ in ends)
    for version, code, digests, err in ends:
        busy = code == 3 and "another slmops delivers to" in err
        if code == 0 and digests != [expected[version]]:
            wrong.append(f"a build of {version} says {digests}, not {expected[version]}")
        if code not in (0, -9) and not busy:
            wrong.append(f"a build ended with {code}: {err.strip()}")
    known = set(expected.values())
    strange = {digest: count for digest, count in watcher.seen.items() if digest not in known | {None}}
    if strange:
        wrong.append(f"somebody who looked saw {strange}")
    if watcher.gone:
        wrong.append(f"the bundle was not there {watcher.gone} times")
    final = run(program, project, "verify", str(bundle))
    if final.returncode != 0 or final.stdout.strip() not in known:
        wrong.append(f"the bundle is no version: {final.stdout} {final.stderr}")
    # A last build takes away what killed ones left.
    must(run(program, project, *build_arguments("one")))
    left = sorted(os.listdir(project / "dist"))
    if left != [".slmops-delivered.json", ".slmops.lock", BUNDLE]:
        wrong.append(f"dist/ holds {left}")
    if whole_digest(bundle) != expected["one"]:
        wrong.append("the last build is not what is delivered")
    audit = run(program, project, "cache", "verify")
    if audit.returncode != 0:
        wrong.append(f"the store is damaged: {audit.stdout}")

    whole = sum(count for digest, count in watcher.seen.items() if digest in known)
    listed = ", ".join(f"{count} × {'killed' if code == -9 else f'exit {code}'}" for code, count in sorted(codes.items()))
    print(f"{options.count} builds of {len(VERSIONS)} versions into one dist/, {options.at_once} at once: {listed}; {seconds:.0f} s")
    print(f"looked at meanwhile: {whole} × one version as a whole, {watcher.seen[None]} × replaced while it was read, "
          f"{sum(strange.values())} × mixed, {watcher.gone} × not there")
    return wrong


main()
