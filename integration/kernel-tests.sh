#!/bin/sh
# The data plane's tests against a real kernel's WireGuard, in a virtual machine: about a minute
# once built. Arguments go to the test binary, say the name of one test.
set -eu
cd "$(dirname "$0")/.."

# Prints the path of the binary that was built.
binary=$(cargo test --quiet --package wattle-agent --test kernel_dataplane --no-run \
    --message-format json | sed -n 's/.*"executable":"\([^"]*kernel_dataplane[^"]*\)".*/\1/p')
[ -x "$binary" ] || { echo "kernel tests: cargo built no test binary" >&2; exit 1; }

# A machine that emulates two processors gets no faster by running more than two tests at once.
RUST_BACKTRACE=0 integration/vm.sh "$binary" --test-threads 2 "$@"
