#!/bin/sh
# Runs a command as root in a virtual machine that boots a Debian kernel on this machine's own root
# file system, and exits as the command did. For what this machine's kernel can't do, WireGuard
# above all. Emulated where there is no KVM: 10 to 15 times slower than native.
#
#   integration/vm.sh COMMAND [ARGUMENT…]      VM_TIMEOUT=170 seconds, VM_CPUS=2, VM_MEMORY=2G
#
# Exits 124 on a timeout and 125 if the machine didn't run the command to its end.
set -eu

timeout=${VM_TIMEOUT:-170}
[ $# -gt 0 ] || { echo "usage: integration/vm.sh COMMAND [ARGUMENT…]" >&2; exit 2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    echo "vm: installing $*" >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >/dev/null
}

newest_kernel() {
    ls /boot/vmlinuz-* /lib/modules/*/vmlinuz 2>/dev/null | sort -V | tail -n 1
}

command -v qemu-system-x86_64 >/dev/null || install_packages qemu-system-x86
# virtme-ng boots through a small initramfs, which needs the static one.
dpkg -s busybox-static >/dev/null 2>&1 || install_packages busybox-static
[ -n "$(newest_kernel)" ] || install_packages linux-image-amd64
if ! command -v vng >/dev/null; then
    echo "vm: installing virtme-ng" >&2
    python3 -m pip install --quiet --root-user-action=ignore virtme-ng >&2 ||
        python3 -m pip install --quiet --root-user-action=ignore --break-system-packages virtme-ng >&2
fi
kernel=$(newest_kernel)

# The console carries the kernel's own words too, and the machine's exit code says nothing of the
# command's: output and exit code come back as files on the shared file system.
shared=$(mktemp -d /tmp/wattle-vm.XXXXXX)
trap 'rm -rf "$shared"' EXIT
trap 'exit 130' INT TERM

quoted=
for argument; do
    quoted="$quoted '$(printf %s "$argument" | sed "s/'/'\\\\''/g")'"
done
cat >"$shared/run" <<END
#!/bin/sh
export PATH="$PATH"
mkdir -p /run/netns
cd '$(pwd)'
{ $quoted; } >'$shared/output' 2>&1
echo \$? >'$shared/code'
sync
END
chmod +x "$shared/run"

echo "vm: booting $kernel, at most $timeout s" >&2
status=0
timeout --kill-after=5 "$timeout" vng -r "$kernel" --disable-kvm --cpus "${VM_CPUS:-2}" \
    --memory "${VM_MEMORY:-2G}" --user root --rwdir "$shared" -- "$shared/run" \
    >"$shared/console" 2>&1 </dev/null || status=$?

[ ! -f "$shared/output" ] || cat "$shared/output"
if [ -s "$shared/code" ]; then
    exit "$(cat "$shared/code")"
fi
tail -n 40 "$shared/console" >&2
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "vm: the command wasn't done after $timeout s" >&2
    exit 124
fi
echo "vm: the machine ended ($status) without running the command to its end" >&2
exit 125
