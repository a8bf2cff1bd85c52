#!/usr/bin/env bash
# What CI can't wait for, in parts, each with the machine for itself:
#
#   histories  random histories of the view and of what agents are sent
#   model      the whole path on fake devices
#   mesh       the end-to-end tests, again and again
#   kernel     the kernel's WireGuard: random changes and meddling, then the whole suite
#   keys       the keys of ten nodes, one after the other, under traffic
#   loss       the control plane is gone for longer than a session lasts, on the kernel's WireGuard
#   faults     replicas and members of etcd fail, one after the other, under load
#   fleet      the published set of fleets at full size, which writes docs/benchmarks.md
#
# All of them, or those named by arguments. What a part said last, where it passed, is in
# docs/soak/PART.txt; where it didn't, in target/soak/PART.txt. All that it says: target/soak/PART.log.
set -euo pipefail
cd "$(dirname "$0")/.."

HISTORIES=${HISTORIES:-2000}
MODELS=${MODELS:-120}
MESHES=${MESHES:-10}
DEVICES=${DEVICES:-40}
LOSS_SECONDS=${LOSS_SECONDS:-630}
CHAOS_MINUTES=${CHAOS_MINUTES:-30}
export RUST_BACKTRACE=0 CARGO_TERM_COLOR=never

# Runs a test and prints how it went, of that the lines that match; where it failed, its end. All
# that it says goes to target/soak/PART.log as it is said.
run() { # lines to keep, command
    local keep=$1 log=target/soak/$part.log
    shift
    echo "\$ $*"
    if "$@" >"$log" 2>&1; then
        grep -aE "^test result: ok. [^0]${keep:+|$keep}" "$log"
    else
        tail -n 60 "$log"
        echo "all that it said: $log"
        return 1
    fi
}

histories() {
    export WATTLE_SEEDS=$HISTORIES
    run '' cargo test --quiet --locked --workspace --exclude wattle-integration --exclude wattle-fleet --test histories
    echo "$HISTORIES seeds of each"
}

model() {
    export WATTLE_SEEDS=$MODELS
    run '' cargo test --quiet --locked -p wattle-integration -p wattle-runtime -p wattle-fleet --test model
    echo "$MODELS seeds"
}

mesh() {
    for _ in $(seq "$MESHES"); do
        run '' cargo test --quiet --locked -p wattle-integration -p wattle-runtime -p wattle-fleet --test mesh --test moves
    done
}

kernel() {
    echo "$DEVICES seeds of random changes and meddling, then the suite"
    WATTLE_SEEDS=$DEVICES KERNEL_TESTS=kernel_dataplane VM_TIMEOUT=3600 run '^kernel tests' integration/kernel-tests.sh random_
    run '^kernel tests|^put right|^[0-9]+ packets' integration/kernel-tests.sh
}

keys() {
    cargo build --quiet --locked --release -p wattle-controlplane -p wattle-agent -p wattle-cli
    WATTLE_TEST_BINARIES=$PWD/target/release WATTLE_TEST_NODES=10 KERNEL_TESTS=kernel_keys \
        run '^kernel tests|^keys' integration/kernel-tests.sh a_pair
}

loss() {
    WATTLE_LOSS_SECONDS=$LOSS_SECONDS KERNEL_TESTS=kernel_loss VM_TIMEOUT=$((LOSS_SECONDS + 600)) \
        run '^kernel tests|^loss' integration/kernel-tests.sh
}

faults() {
    export WATTLE_CHAOS_MINUTES=$CHAOS_MINUTES WATTLE_QUORUM_SECONDS=60
    run '^fault [0-9]|^found |^[0-9]+ faults|WATTLE_SEED=' \
        cargo test --quiet --locked -p wattle-integration -p wattle-runtime -p wattle-fleet --test ha -- --nocapture --test-threads 1
}

fleet() {
    run '^wattle-fleet|^failed' make --no-print-directory bench-fleet
}

parts=${*:-histories model mesh kernel keys loss faults fleet}
for part in $parts; do
    case $part in
    histories | model | mesh | kernel | keys | loss | faults | fleet) ;;
    *) echo "soak: no part $part: $(sed -n 's/^#   \([a-z]*\) .*/\1/p' "$0" | xargs)" >&2; exit 2 ;;
    esac
done
mkdir -p docs/soak target/soak
failed=
for part in $parts; do
    said=target/soak/$part.txt
    echo "soak: $part; \`tail -f target/soak/$part.log\` shows it"
    {
        echo "$(uname -sr), $(nproc) processors, $(rustc --version)"
        echo "revision $(git rev-parse --short=12 HEAD), begun $(date --utc '+%F %R')"
    } | tee "$said"
    begun=$SECONDS
    # In a shell of its own, which ends at its first failure and leaves nothing set for the next part.
    set +e
    (set -e && "$part") 2>&1 | tee --append "$said"
    status=${PIPESTATUS[0]}
    set -e
    if [ "$status" = 0 ]; then
        echo "passed in $((SECONDS - begun)) s" | tee --append "$said"
        cp "$said" docs/soak/
    else
        echo "FAILED: all it said is in $said" >&2
        failed="$failed $part"
    fi
done
[ -z "$failed" ] || { echo "soak: failed:$failed" >&2; exit 1; }
