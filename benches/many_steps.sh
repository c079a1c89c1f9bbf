#!/usr/bin/env bash
# What a step costs beyond its own work: 10,000 trivial steps (clean and no-op), and a chain of 100,000.
#
#     cargo build --release && bash benches/many_steps.sh [STEPS] [CHAIN]
#
# Prints wall and CPU seconds and peak memory of each build.
set -euo pipefail
slmops=$(cd "$(dirname "$0")/.." && pwd)/target/release/slmops
steps=${1:-10000}
chain=${2:-100000}
space=$(mktemp -d)
trap 'rm -rf "$space"' EXIT

begin() {
    mkdir -p "$space/$1"
    cd "$space/$1"
    for i in 1 2 3 4 5 6 7 8 9 10; do echo "{\"prompt\": \"line $i\", \"completion\": \"$i\"}"; done >ten.jsonl
    printf 'slmops = 1\n[project]\nname = "many"\nversion = "1.0.0"\n[source]\nten = { path = "ten.jsonl" }\n' >slmops.toml
}

measure() {
    local what=$1
    shift
    python3 - "$what" "$@" <<'PY'
import resource, subprocess, sys, time
start = time.time()
code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=open("stderr", "w")).returncode
wall, used = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
tail = open("stderr").read().strip().splitlines()[-1:]
print(f"{sys.argv[1]:<28} wall {wall:8.3f} s   CPU {used.ru_utime + used.ru_stime:8.3f} s   peak {used.ru_maxrss / 1024:6.1f} MiB   exit {code}   {' '.join(tail)}")
PY
}

begin independent
python3 -c "
for i in range($steps): print(f'[dataset.d{i}]\ndata = \"ten\"\nseed = {i}')" >>slmops.toml
measure "$steps steps, clean" "$slmops" build --quiet
for _ in 1 2 3; do measure "$steps steps, no-op" "$slmops" build; done

begin chain
python3 -c "
for i in range($chain): print(f'[dataset.d{i}]\ndata = \"' + (f'd{i-1}' if i else 'ten') + f'\"\nseed = {i}')" >>slmops.toml
measure "chain of $chain, plan" "$slmops" plan "d$((chain - 1))"
measure "chain of $chain, clean" "$slmops" build --quiet
measure "chain of $chain, no-op" "$slmops" build
