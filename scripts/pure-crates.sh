#!/usr/bin/env bash
# The pure crates stay pure: no runtime, no network, no store, no netlink below them.
set -euo pipefail
cd "$(dirname "$0")/.."

banned='^(tokio|tonic|hyper|h2|rustls|etcd-client|redb|rtnetlink|netlink-|wireguard-control|gotatun)'
for crate in wattle-model wattle-view wattle-plan; do
    tree=$(cargo tree --locked --package "$crate" --edges normal --prefix none)
    if grep -E "$banned" <<<"$tree"; then
        echo "$crate must not depend on the above" >&2
        exit 1
    fi
done
