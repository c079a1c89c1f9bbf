#!/usr/bin/env bash
# Fuzzes the parsers of files that come from elsewhere: bash fuzz/run.sh [SECONDS [TARGET…]]; 600 seconds for each of all targets if not told.
# Needs a C++ compiler, no nightly Rust. What libFuzzer finds on the way stays in target/corpus, a crash in target/artifacts.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done

# libFuzzer's instrumentation, as cargo-fuzz asks for it.
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing -Clink-dead-code)
export RUSTFLAGS=${flags[*]}
# With a target the flags are not those of build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$host" --bins

failed=0
for target in "${targets[@]}"; do
    mkdir -p "target/corpus/$target" "target/artifacts/$target"
    echo "== $target, $seconds s"
    "target/$host/release/$target" "target/corpus/$target" "corpus/$target" -artifact_prefix="target/artifacts/$target/" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 \
        >"target/artifacts/$target.log" 2>&1 || { failed=1; echo "FOUND SOMETHING: target/artifacts/$target.log"; }
    grep -E "stat::number_of_executed_units|SUMMARY|panicked" "target/artifacts/$target.log" || true
done
exit $failed
