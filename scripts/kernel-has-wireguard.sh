#!/usr/bin/env bash
# Exits 0 where this machine's kernel has WireGuard. Asks it for a link in a namespace of its own.
exec unshare --net ip link add wattle-probe type wireguard 2>/dev/null
