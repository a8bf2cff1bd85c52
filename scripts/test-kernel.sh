#!/usr/bin/env bash
# The end-to-end tests on the kernel's own WireGuard: here where this kernel has it, else on
# Debian's kernel in an emulated machine. Fails where it can do neither.
set -euo pipefail
cd "$(dirname "$0")/.."

if scripts/kernel-has-wireguard.sh; then
    echo "kernel tests run here, on Linux $(uname -r)"
    exec integration/kernel-tests.sh
fi
exec integration/vm.sh integration/kernel-tests.sh
