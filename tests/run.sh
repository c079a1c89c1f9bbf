#!/usr/bin/env bash
# Everything that the project promises of itself: installs what the cross-checks compare with, then checks formatting and lints, then tests.
# Arguments go to `cargo test`, for example `bash tests/run.sh --test plan`.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tests/peers/install.sh
cargo fmt --check
cargo clippy --all-targets -- -D warnings
cargo test --no-fail-fast "$@"
# What is too long for a test: each prints its figures.
if [ $# -eq 0 ]; then
    python3 tests/trust/concurrent_builds.py 60
fi
