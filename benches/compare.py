"""Times slmops against PyTorch, candle and LiteRT on the same work, in turn, and prints ratios with their spread.

    python3 benches/compare.py [--python PYTHON] [--threads 1 2] [--rounds 7] [sgemm] [train] [distill] [candle] [litert]

`candle` are the products of `sgemm` by candle's `gemm` crate; `litert` is the reading of 512 tokens by SmolLM2-135M in Q8_0 against the same
shapes in LiteRT's int8, one thread. Without a word it does the first three.

PYTHON is an interpreter that can import torch (default: the one that `tests/peers/install.sh` makes). A ratio above 1 says that slmops is
the quicker one. Every answer but LiteRT's, whose weights are random, is checked against
the other side's before a ratio is printed.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = [(256, 256), (256, 704), (704, 256), (256, 2048), (2048, 256), (576, 1536), (1536, 576), (2048, 2048)]
TRAIN = "6 256 8 704 2048 128 16"
# The teacher has four times the student's parameters: twice the width of everything.
DISTILL = TRAIN + " 6 512 16 1408"


class Side:
    """A process that answers tasks."""

    def __init__(self, name, command, env=None):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})

    def ask(self, task):
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if len(answer) != 2:
            raise SystemExit(f"{self.name} failed at `{task}`")
        return float(answer[0]), float(answer[1])


def build():
    command = ["cargo", "bench", "--bench", "worker", "--no-run", "--message-format=json"]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [m for m in map(json.loads, out.splitlines()) if m.get("reason") == "compiler-artifact" and m["target"]["name"] == "worker"]
    return found[-1]["executable"]


def rounds_of(ours, theirs, task, rounds, warm=1, their_task=None):
    """Seconds of both sides, taken in turn; the first ones only warm up."""
    pairs = []
    for number in range(rounds + warm):
        (a, check_a), (b, check_b) = ours.ask(task), theirs.ask(their_task or task)
        if not math.isclose(check_a, check_b, rel_tol=2e-3, abs_tol=1e-2):
            raise SystemExit(f"`{task}`: {ours.name} has {check_a}, {theirs.name} {check_b}: not the same work")
        if number >= warm:
            pairs.append((a, b))
    return pairs


def spread(values):
    values = sorted(values)
    return f"{statistics.median(values):.3f} ({values[0]:.3f} – {values[-1]:.3f})"


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def sgemm(ours, theirs, threads, rounds, verb="sgemm"):
    peak = ours.ask("peak")[1] / 1e9 * threads
    print(f"\n{verb}, {threads} thread(s); measured peak {peak:.0f} GF/s\n")
    print(f"| layout | m | k | n | slmops GF/s | of peak | {theirs.name} GF/s | ratio (spread) |\n|---|---|---|---|---|---|---|---|")
    ratios, shares = {}, []
    for m in (256, 2048):
        for k, n in SHAPES:
            for layout in ("NN", "NT", "TN"):
                pairs = rounds_of(ours, theirs, f"sgemm {layout} {m} {k} {n}", rounds, warm=0, their_task=f"{verb} {layout} {m} {k} {n}")
                flops = 2e-9 * m * k * n
                a, b = (flops / statistics.median(side) for side in zip(*pairs))
                ratio = [b / a for a, b in pairs]
                ratios.setdefault(layout, []).append(statistics.median(ratio))
                shares.append(a / peak)
                print(f"| {layout} | {m} | {k} | {n} | {a:.0f} | {100 * a / peak:.0f} % | {b:.0f} | {spread(ratio)} |", flush=True)
    everything = [r for layout in ratios.values() for r in layout]
    print(f"\ngeometric mean {geomean(everything):.3f}", ", ".join(f"{k} {geomean(v):.3f}" for k, v in ratios.items()), end="; ")
    print(f"worst {min(everything):.3f}; share of peak {100 * statistics.median(shares):.0f} % (least {100 * min(shares):.0f} %)")


def steps(name, task, ours, peers, threads, rounds):
    tokens = 16 * 128
    print(f"\n{name} `{task}`, {threads} thread(s)\n")
    print("| peer | slmops ms | tokens/s | peer ms | ratio (spread) |\n|---|---|---|---|---|")
    for peer in peers:
        pairs = rounds_of(ours, peer, f"{name} {task}", rounds, warm=3)
        a, b = (statistics.median(side) for side in zip(*pairs))
        print(f"| {peer.name} | {1e3 * a:.0f} | {tokens / a:.0f} | {1e3 * b:.0f} | {spread([b / a for a, b in pairs])} |", flush=True)


def litert(worker, options, env):
    model, tokens = ROOT / "target/peers/smollm2/SmolLM2-135M-Instruct.Q8_0.gguf", 512
    ours, theirs = Side("slmops", [worker, "--threads=1"]), Side("LiteRT", [options.python, str(ROOT / "benches/litert_worker.py")], env)
    pairs = rounds_of(ours, theirs, f"prefill {model} {tokens}", options.rounds)
    a, b = (tokens / statistics.median(side) for side in zip(*pairs))
    print(f"\n{tokens} tokens read, tokens/s on one thread: slmops Q8_0 {a:.0f}, LiteRT int8 {b:.0f}, ratio {spread([b / a for a, b in pairs])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["sgemm", "train", "distill", "candle", "litert", []])
    parser.add_argument("--python", default=str(ROOT / "target/peers/venv/bin/python"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compiled", action="store_true", help="also against torch.compile (needs a C++ compiler)")
    options = parser.parse_args()
    what = options.what or ["sgemm", "train", "distill"]
    worker = build()
    env = {"LD_LIBRARY_PATH": str(ROOT / "target/peers/stand-ins")}
    script = str(ROOT / "benches/pytorch_worker.py")
    for threads in options.threads:
        flag = f"--threads={threads}"

        def start():
            peers = [Side("PyTorch eager", [options.python, script, flag], env)]
            if options.compiled:
                peers.append(Side("torch.compile", [options.python, script, flag, "--compile"], env))
            return Side("slmops", [worker, flag]), peers

        ours, peers = start()
        if "sgemm" in what:
            sgemm(ours, peers[0], threads, options.rounds)
        if "candle" in what:
            sgemm(ours, Side("candle", [worker, flag]), threads, options.rounds, "candle")
        for name, task in (("train", TRAIN), ("distill", DISTILL)):
            if name in what:
                # Both sides begin anew with each peer, so that they stay comparable step by step.
                for number in range(len(peers)):
                    ours, peers = start()
                    steps(name, task, ours, [peers[number]], threads, options.rounds)
    if "litert" in what:
        litert(worker, options, env)


if __name__ == "__main__":
    main()
