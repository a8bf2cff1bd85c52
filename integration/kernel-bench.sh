#!/bin/sh
# What the agent costs on the kernel's WireGuard, in ratios to `wg` and to a tunnel made by hand, in
# one run: on this machine's own kernel if it has WireGuard, else in a virtual machine. Writes
# target/bench/kernel.json and docs/kernel-benchmarks.md.
set -eu
cd "$(dirname "$0")/.."

cargo build --locked --release -p wattle-agent
bench=$(cargo test --locked --release -p wattle-agent --lib --no-run --message-format json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/wattle_agent-[^"]*\)".*/\1/p')
[ -x "$bench" ] || { echo "kernel bench: cargo built no benchmark" >&2; exit 1; }

run=integration/vm.sh
where="in an emulated machine"
if scripts/kernel-has-wireguard.sh; then
    run=
    where="on the machine's own kernel"
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# shellcheck disable=SC2086 # a list of words
VM_TIMEOUT=${VM_TIMEOUT:-1800} VM_MEMORY=${VM_MEMORY:-3072} $run \
    "$bench" --ignored --nocapture on_kernel::bench | tee "$said"
mkdir -p target/bench
sed -n 's/^BENCH {/{/p' "$said" >target/bench/kernel.json
[ -s target/bench/kernel.json ] || { echo "kernel bench: no figures" >&2; exit 1; }

ratio() { # its name, the number of peers
    sed -n "s/.*\"$1\":{[^}]*\"$2\":\([0-9.]*\).*/\1/p" target/bench/kernel.json
}
lost() {
    sed -n "s/.*\"applied_again_lost\":{[^}]*\"$1\":\([0-9]*\).*/\1/p" target/bench/kernel.json
}
figure() {
    sed -n "s/.*\"$1\":\"*\([^,\"}]*\).*/\1/p" target/bench/kernel.json
}
{
    echo "# What the agent costs on the kernel's WireGuard"
    echo
    echo "Written by \`make bench-kernel\`: Linux $(figure kernel), $where, $(nproc) processors, release build."
    echo "Ratios of times in the same run, so that they mean something there: 1.0 is what \`wg\` takes, below"
    echo "is faster. \`wg\`'s time includes its process, without that of entering the namespace."
    echo
    echo "| peers | one peer more, to \`wg set\` | all peers, to \`wg addconf\` | all peers, to \`wg syncconf\` |"
    echo "|---|---|---|---|"
    for size in 100 1000 10000 20000; do
        echo "| $size | $(ratio delta_vs_wg_set $size) | $(ratio first_apply_vs_addconf $size) | $(ratio first_apply_vs_syncconf $size) |"
    done
    echo
    echo "Agent with 5,000 peers: $(figure agent_rss_mb) MB resident; idle, $(sed -n 's/^BENCH-CPU \(.*\), idle.*/\1/p' "$said")."
    echo "Throughput through the agents' tunnel, to one made by hand: $(figure throughput_ratio)."
    echo
    echo "One end of a tunnel is given once more what it has, while the other one sends it"
    echo "$(figure applied_again_packets) packets, ten a second. Lost:"
    echo
    echo "| the agent killed and started again | \`wg syncconf\` | \`wg setconf\`, which replaces all peers |"
    echo "|---|---|---|"
    echo "| $(lost agent) | $(lost wg_syncconf) | $(lost wg_setconf) |"
} >docs/kernel-benchmarks.md
cat docs/kernel-benchmarks.md
