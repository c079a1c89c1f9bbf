"""A tiny project in a folder of its own, and the program run in it with a cleared environment.

The project has a step of each sort that touches files in its own way: an exec step with two outputs, a dataset, a tokenizer, a training with
checkpoints, quantizations, an evaluation with a gate, and a bundle for two devices. A build takes a fraction of a second.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

# No step has a random or slow part; both devices get the same model.
MANIFEST = """\
slmops = 1

[project]
name = "tiny"
version = "1.0"

[source]
tool = { path = "tool" }
text = TEXT
test = { path = "test.jsonl" }

[exec.filtered]
command = ["tool", "MODE"]
tools = { tool = "tool" }
inputs = { text = "text" }
outputs = ["data", "extra"]

[dataset.clean]
data = ["filtered.data"]
dedup = "exact"

[tokenizer.words]
data = ["clean"]
vocab_size = 262

[train.model]
tokenizer = "words"
data = ["clean"]
arch = { hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 1, intermediate_size = 32, max_position_embeddings = 32 }
max_steps = 2
batch_size = 2
checkpoint_steps = 1

[quantize.small]
model = "model"
matrix.type = TYPES

[evaluate.measured]
model = ["small"]
data = { test = "test" }
metrics = ["perplexity"]
gate = [{ metric = "perplexity", on = "test", max = LIMIT }]

[device.a]
runtime = "llama.cpp"
storage = "1 MiB"

[device.b]
runtime = "llama.cpp"
storage = "1 MiB"

[bundle.release]
device = DEVICES
model = "small"
require = ["measured"]
choose = "smallest"
files = { "extra" = "filtered.extra" }
"""

# One step after the other; and several that can run side by side.
CHAIN = {"TYPES": '["Q4_0"]', "DEVICES": '["a"]'}
WIDE = {"TYPES": '["Q8_0", "Q4_0"]', "DEVICES": '["a", "b"]'}
# Far above and far below what an untrained model has.
PASSES, FAILS = "1e9", "1.0"
LOG = re.compile(rb"^log ([0-9a-f]{64}) ", re.MULTILINE)
SHELF = re.compile(r"cache/(objects|actions)/[0-9a-f]{2}")


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def events(self):
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    def outputs(self):
        """The digest of each step's output, by its name."""
        return {event["step"]: event["output"] for event in self.events() if event["event"] == "finished" and "output" in event}

    def count(self, outcome):
        return sum(event["event"] == "finished" and event["outcome"] == outcome for event in self.events())


class Space:
    """A folder with the program under a path of its own, by which its processes are found, and the project."""

    def __init__(self, folder, program):
        self.folder = Path(folder).resolve()
        self.project = self.folder / "project"
        self.program = self.folder / "slmops"
        self.folder.mkdir(parents=True, exist_ok=True)
        # By a process of its own: whatever another thread starts meanwhile must not have it open for writing.
        subprocess.run(["cp", program, self.program], check=True)

    def write_project(self, tool, **changes):
        self.project.mkdir(exist_ok=True)
        shutil.copy(tool, self.project / "tool")
        self.change(**changes)

    def change(self, text="old", limit=PASSES, mode="fill", shape=WIDE, source='{ path = "text.jsonl" }'):
        """The same project with another text, another gate, another way for its command to behave, or other steps."""
        lines = [f"{text} light number {n} is {'on' if n % 2 else 'off'}" for n in range(12)]
        self.write("text.jsonl", "".join(json.dumps({"text": line}) + "\n" for line in lines))
        self.write("test.jsonl", json.dumps({"text": "is the light on"}) + "\n")
        manifest = MANIFEST
        for word, value in {"TEXT": source, "LIMIT": limit, "MODE": mode, **shape}.items():
            manifest = manifest.replace(word, value)
        self.write("slmops.toml", manifest)

    def write(self, name, text):
        path = self.project / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)

    def environment(self):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder)}

    def run(self, *arguments, wrapper=(), timeout=60, folder=None, **options):
        """Runs the program to its end. A run over time is killed with all that it started, and its code is None."""
        command = [*wrapper, str(self.program), *map(str, arguments)]
        child = subprocess.Popen(
            command, cwd=folder or self.project, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True, **options,
        )
        try:
            out, err = child.communicate(timeout=timeout)
            code = child.returncode
        except subprocess.TimeoutExpired:
            code = None
            child.kill()
            self.kill_processes()
            out, err = child.communicate()
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def succeed(self, *arguments, **options):
        ran = self.run(*arguments, **options)
        if ran.code != 0:
            raise SystemExit(f"`slmops {' '.join(map(str, arguments))}` ended with {ran.code}:\n{ran.out}{ran.err}")
        return ran

    # Templates: states of the project to return to.

    def keep(self, name):
        replace_tree(self.project, self.folder / f"kept-{name}")

    def restore(self, name):
        replace_tree(self.folder / f"kept-{name}", self.project)

    def listing(self):
        """The project's paths that two runs with the same end have in common: no logs, which tell of a resumed training, no folders that sort objects,
        no digests of sources, which are kept once these have grown old enough."""
        paths = {str(path.relative_to(self.project)) for path in self.project.rglob("*")}
        logs = {match[1] for path in self.project.glob("cache/actions/*/*") if (match := LOG.search(path.read_bytes()))}
        logs = {f"cache/objects/{log[:2]}/{log}" for log in map(bytes.decode, logs)}
        return {path for path in paths if not SHELF.fullmatch(path)} - logs - {"cache/stamps"}

    def bundles(self):
        """The digest of each folder in `dist/` over all its names and bytes. Hidden names are whatever the program keeps there for itself."""
        dist = self.project / "dist"
        found = sorted(dist.iterdir()) if dist.is_dir() else []
        return {path.name: digest_of(path) for path in found if not path.name.startswith(".")}

    # Processes.

    def processes(self):
        """Processes that run from this folder, or into whose root a part of it is mounted, as in a sandbox."""
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid() and self.owns(f"/proc/{entry}")]

    def owns(self, process):
        folder = str(self.folder)
        if any(folder in text for text in (link(f"{process}/exe"), link(f"{process}/cwd"), *content(f"{process}/cmdline").split("\0"))):
            return True
        if link(f"{process}/ns/mnt") == link("/proc/self/ns/mnt"):
            return False
        # What is mounted there, not where: every name space has a copy of where.
        part = f"/{self.folder.parent.name}/{self.folder.name}/"
        return any(part in line.split()[3] for line in content(f"{process}/mountinfo").splitlines())

    def kill_processes(self):
        for process in self.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def wait_for_processes(self, patience=1.0, besides=()):
        """Those that are still there after this time."""
        deadline = time.monotonic() + patience
        while (left := [process for process in self.processes() if process not in besides]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def content(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def replace_tree(source, target):
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", source, target], check=True)


def digest_of(path):
    hasher = hashlib.sha256()
    for inner in sorted(path.rglob("*")) if path.is_dir() else [path]:
        content = inner.read_bytes() if inner.is_file() else b"folder"
        hasher.update(f"{inner.relative_to(path)}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()


def compile_tool(folder):
    """The exec step's program. Static, so that its sandbox needs nothing else."""
    target = Path(folder) / "tool"
    subprocess.run(["gcc", "-static", "-Os", "-s", "-o", target, HERE / "tool.c"], check=True)
    return target


def require(*programs):
    """A test that cannot run must not look like one that has passed."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        sys.exit(f"PEER MISSING: {', '.join(missing)}; run: bash tests/peers/install.sh")
