#!/bin/sh
# The tests that need a kernel with WireGuard: each data-plane scene, then five real agents. On this
# machine's own kernel if it has WireGuard, else in a virtual machine; one of the two or it fails.
# Arguments go to the test binaries, say the name of one test.
set -eu
cd "$(dirname "$0")/.."

# Builds one test and prints the path of its binary. The packages are those of `make unit` and
# `make e2e`, so that dependencies are built with the same features, once.
build() {
    name=$1
    shift
    path=$(cargo test --locked "$@" --test "$name" --no-run --message-format json-render-diagnostics |
        sed -n "s/.*\"executable\":\"\\([^\"]*\\/$name-[^\"]*\\)\".*/\\1/p")
    [ -x "$path" ] || { echo "kernel tests: cargo built no $name" >&2; exit 1; }
    echo "$path"
}
scenes=$(build kernel_dataplane --workspace --exclude wattle-integration --exclude wattle-fleet)
smoke=$(build kernel_smoke --package wattle-integration)

if scripts/kernel-has-wireguard.sh; then
    echo "kernel tests: on this machine's own kernel"
    run=
else
    echo "kernel tests: this machine's kernel ($(uname -r)) has no WireGuard: in a virtual machine"
    run=integration/vm.sh
fi

# A machine that emulates two processors gets no faster by running more than two tests at once.
# shellcheck disable=SC2016 # expanded where it runs
RUST_BACKTRACE=0 $run sh -c '
    echo "kernel tests: running on Linux $(uname -r)"
    scenes=$1 smoke=$2
    shift 2
    failed=0
    "$scenes" --test-threads 2 "$@" || failed=1
    "$smoke" --nocapture "$@" || failed=1
    exit $failed
' sh "$scenes" "$smoke" "$@"
