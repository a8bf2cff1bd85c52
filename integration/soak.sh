#!/usr/bin/env bash
# What is random in the tests, for longer than CI can wait: histories of the view, the whole path on
# fake devices, the end-to-end tests again and again, faults of replicas and etcd under load, and the
# fleet at full size. Prints what ran, with its seeds, and how it ended.
set -euo pipefail
cd "$(dirname "$0")/.."

HISTORIES=${HISTORIES:-2000}
MODELS=${MODELS:-120}
MESHES=${MESHES:-10}
DEVICES=${DEVICES:-40}
CHAOS_MINUTES=${CHAOS_MINUTES:-30}
FLEET_AGENTS=${FLEET_AGENTS:-5000}
export RUST_BACKTRACE=0

# Runs a test and prints how it went; all that it said, if it failed.
run() {
    echo "\$ $*"
    local said
    if said=$("$@" 2>&1); then
        grep -E '^test result: ok. [^0]|^fault [0-9]|^found |WATTLE_SEED=|^\{' <<<"$said"
    else
        echo "$said"
        exit 1
    fi
}

echo "$(uname -sr), $(nproc) processors, $(rustc --version), dev build"
WATTLE_SEEDS=$HISTORIES run cargo test --quiet --locked --workspace --exclude wattle-integration --exclude wattle-fleet --test histories
WATTLE_SEEDS=$MODELS run cargo test --quiet --locked -p wattle-integration -p wattle-runtime --test model
for _ in $(seq "$MESHES"); do
    run cargo test --quiet --locked -p wattle-integration -p wattle-runtime --test mesh --test moves
done
echo "\$ the kernel's WireGuard: $DEVICES seeds of random changes and meddling, then the suite"
WATTLE_SEEDS=$DEVICES KERNEL_TESTS=kernel_dataplane VM_TIMEOUT=3600 integration/kernel-tests.sh random_ |
    grep -E '^(kernel tests|test result: (ok. [^0]|FAILED))'
integration/kernel-tests.sh | grep -E '^(kernel tests|test result: (ok. [^0]|FAILED)|put right|[0-9]+ packets)'
echo "\$ the keys of ten nodes, one after the other, under traffic, release build"
cargo build --quiet --locked --release -p wattle-controlplane -p wattle-agent -p wattle-cli
WATTLE_TEST_BINARIES=$PWD/target/release WATTLE_TEST_NODES=10 KERNEL_TESTS=kernel_keys integration/kernel-tests.sh a_pair | grep -E '^(keys|test result: (ok. [^0]|FAILED))'
# One after the other: each has the machine for itself.
WATTLE_CHAOS_MINUTES=$CHAOS_MINUTES WATTLE_QUORUM_SECONDS=60 run cargo test --quiet --locked -p wattle-integration -p wattle-runtime --test ha -- --nocapture --test-threads 1
cargo build --quiet --locked --release -p wattle-controlplane -p wattle-fleet
for scenario in rolling-restart storm; do
    run target/release/wattle-fleet "$scenario" --agents "$FLEET_AGENTS" --json
done
run target/release/wattle-fleet publish --out target/benchmarks.md
echo "done: $HISTORIES seeds of each history, $MODELS of the whole path, $MESHES rounds end to end, $CHAOS_MINUTES minutes of faults, $FLEET_AGENTS agents"
