#!/bin/sh
# Runs a command as root in a virtual machine that boots a Debian kernel on this machine's own files,
# and exits as the command did. For what this machine's kernel can't do, WireGuard above all.
# Whatever it writes there is gone with it.
#
#   integration/vm.sh COMMAND [ARGUMENT…]      VM_TIMEOUT=600 seconds, VM_CPUS=2, VM_MEMORY=2048 MB
#
# Emulated, 10 to 15 times slower than native: VM_ACCEL=kvm is for machines where KVM is known to
# work; on some it is there and hangs. Boots in about 20 s on a busy machine.
#
# Exits 124 on a timeout and 125 if the machine didn't run the command to its end.
set -eu

timeout=${VM_TIMEOUT:-600}
here=$(dirname "$0")
[ $# -gt 0 ] || { echo "usage: integration/vm.sh COMMAND [ARGUMENT…]" >&2; exit 2; }

missing() {
    echo "vm: $1: run scripts/tools.sh kernel" >&2
    exit 125
}
command -v qemu-system-x86_64 >/dev/null || missing "no qemu-system-x86_64"
busybox=$(command -v busybox) || missing "no busybox"
! ldd "$busybox" 2>/dev/null | grep -q '=>' || missing "busybox isn't the static one"
version=$("$here/../scripts/vm-kernel.sh") || missing "no kernel with WireGuard in /boot"

# Shared with the machine: the command, what it writes and how it exits.
shared=$(mktemp -d "${TMPDIR:-/tmp}/wattle-vm.XXXXXX")
trap 'rm -rf "$shared"' EXIT
trap 'exit 130' INT TERM

quoted=
for argument; do
    quoted="$quoted '$(printf %s "$argument" | sed "s/'/'\\\\''/g")'"
done
# Its first process, once it has its root.
cat >"$shared/run" <<END
export PATH='$PATH' HOME=/root
cd '$(pwd)'
{ $quoted; } >/run/vm/output 2>&1 </dev/null
echo \$? >/run/vm/code
echo b >/proc/sysrq-trigger
END

# The kernel's modules that its root needs, and busybox, which puts them in and mounts it: this
# machine's files below, a file system in memory above, so that nothing here changes.
initramfs() {
    mkdir -p "$1/bin" "$1/modules"
    cp "$busybox" "$1/bin/busybox"
    number=100
    "$here/../scripts/vm-kernel.sh" modules | while read -r module; do
        number=$((number + 1))
        case $module in
        *.xz) "$busybox" xz -dc "$module" ;;
        *.gz) "$busybox" gzip -dc "$module" ;;
        *.zst) zstd -qdc "$module" ;;
        *) cat "$module" ;;
        esac >"$1/modules/$number.ko"
    done
    cp "$here/vm-init.sh" "$1/init"
    (cd "$1" && find . | "$busybox" cpio -o -H newc 2>/dev/null)
}
initramfs "$shared/initramfs" >"$shared/initramfs.cpio"

share() { # path, tag, further options
    echo "local,path=$1,mount_tag=$2,security_model=none,multidevs=remap$3"
}

: >"$shared/output"
echo "vm: booting Linux $version, at most $timeout s" >&2
timeout --kill-after=5 "$timeout" qemu-system-x86_64 \
    -accel "${VM_ACCEL:-tcg}" -cpu max -smp "${VM_CPUS:-2}" -m "${VM_MEMORY:-2048}" \
    -nodefaults -display none -no-reboot -serial "file:$shared/console" \
    -kernel "/boot/vmlinuz-$version" -initrd "$shared/initramfs.cpio" \
    -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on" \
    -virtfs "$(share / root ,readonly=on)" -virtfs "$(share "$shared" shared '')" \
    </dev/null >"$shared/qemu" 2>&1 &
machine=$!
trap 'kill "$machine" 2>/dev/null || true; rm -rf "$shared"' EXIT
tail --lines=+1 --follow --pid="$machine" "$shared/output" &
reader=$!
status=0
wait "$machine" || status=$?
wait "$reader"
trap 'rm -rf "$shared"' EXIT

if [ -s "$shared/code" ]; then
    exit "$(cat "$shared/code")"
fi
tail -q -n 40 "$shared/qemu" "$shared/console" >&2
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "vm: the command wasn't done after $timeout s (VM_TIMEOUT)" >&2
    exit 124
fi
echo "vm: the machine ended ($status) without running the command to its end" >&2
exit 125
