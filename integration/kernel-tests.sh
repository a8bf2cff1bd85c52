#!/bin/sh
# The tests on the kernel's own WireGuard: each data-plane scene, the end-to-end suite with
# `--dataplane kernel`, and what only a kernel can show. On this machine's own kernel if it has
# WireGuard, else in a virtual machine; one of the two or it fails. Arguments go to the test
# binaries, say the name of one test; KERNEL_TESTS names the binaries to run.
set -eu
cd "$(dirname "$0")/.."

tests=${KERNEL_TESTS:-wattle_agent kernel_dataplane kernel_host kernel_keys kernel_loss kernel_smoke endpoints keys mesh moves policy preshared tokens}

# Builds one test and prints the path of its binary. The packages are those of `make unit` and
# `make e2e`, so that dependencies are built with the same features, once.
build() {
    target="--test $1"
    case $1 in
    wattle_agent)
        packages="--workspace --exclude wattle-integration --exclude wattle-fleet"
        target=--lib
        ;;
    kernel_dataplane) packages="--workspace --exclude wattle-integration --exclude wattle-fleet" ;;
    kernel_*) packages="--package wattle-integration" ;;
    *) packages="-p wattle-integration -p wattle-runtime -p wattle-fleet" ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    path=$(cargo test --locked $packages $target --no-run --message-format json-render-diagnostics |
        sed -n "s/.*\"executable\":\"\\([^\"]*\\/$1-[^\"]*\\)\".*/\\1/p")
    [ -x "$path" ] || { echo "kernel tests: cargo built no $1" >&2; exit 1; }
    echo "$path"
}
binaries=
for test in $tests; do
    binaries="$binaries $(build "$test")"
done

if scripts/kernel-has-wireguard.sh; then
    echo "kernel tests: on this machine's own kernel"
    run=
    emulated=
else
    echo "kernel tests: this machine's kernel ($(uname -r)) has no WireGuard: in a virtual machine"
    run=integration/vm.sh
    emulated=1
fi

# A machine that emulates two processors gets no faster by running more than two tests at once.
# shellcheck disable=SC2016,SC2086 # expanded where it runs; a list of words
RUST_BACKTRACE=0 VM_TIMEOUT=${VM_TIMEOUT:-1500} VM_MEMORY=${VM_MEMORY:-3072} $run sh -c '
    export WATTLE_TEST_DATAPLANE=kernel ${1:+WATTLE_TEST_EMULATED=1} ${2:+WATTLE_SEEDS=$2}
    export WATTLE_TEST_NODES=${3:-4} WATTLE_TEST_BINARIES=$4 WATTLE_LOSS_SECONDS=$5
    binaries=$6
    shift 6
    echo "kernel tests: running on Linux $(uname -r)"
    failed=0
    for binary in $binaries; do
        begun=$(cut -d. -f1 /proc/uptime)
        name=${binary##*/}
        case $name in
        # Of the unit tests, those that are ignored without such a kernel.
        wattle_agent-*) only="--ignored on_kernel::changes" ;;
        # The other one is of the userspace data plane.
        keys-*) only=a_machine_that_lost ;;
        *) only= ;;
        esac
        "$binary" --test-threads 2 --nocapture $only "$@" || failed=1
        free=$(sed -n "s/^MemAvailable: *\([0-9]*\)[0-9]\{3\} kB/\1/p" /proc/meminfo)
        echo "kernel tests: ${name%-*} took $(($(cut -d. -f1 /proc/uptime) - begun)) s, $free MB are free"
    done
    # A process that the kernel ended says nothing of it itself.
    [ $failed = 0 ] || dmesg | grep -E "Out of memory|segfault|traps:" || true
    exit $failed
' sh "$emulated" "${WATTLE_SEEDS-}" "${WATTLE_TEST_NODES-}" "${WATTLE_TEST_BINARIES-}" \
    "${WATTLE_LOSS_SECONDS-}" "$binaries" "$@"
