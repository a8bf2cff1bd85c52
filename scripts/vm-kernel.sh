#!/bin/sh
# Prints the newest kernel version installed here that integration/vm.sh can boot: an image in /boot,
# and modules for WireGuard and for reading this machine's files. Exits 1 if there is none.
#
#   scripts/vm-kernel.sh            its version
#   scripts/vm-kernel.sh modules    the files of the modules it needs to reach its root, in order
set -eu
PATH=$PATH:/usr/sbin:/sbin

to_boot='virtio_pci 9pnet_virtio 9p overlay'

# One line for each module that the given ones need, in order; `builtin NAME` for what is no module.
depends() {
    version=$1
    shift
    modprobe --set-version "$version" --show-depends --all "$@" 2>/dev/null
}

versions() {
    for image in /boot/vmlinuz-*; do
        [ ! -r "$image" ] || echo "${image#/boot/vmlinuz-}"
    done | sort --version-sort --reverse
}

for version in $(versions); do
    # shellcheck disable=SC2086 # a list of words
    depends "$version" $to_boot wireguard >/dev/null || continue
    case ${1-} in
    modules) depends "$version" $to_boot | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' ;;
    *) echo "$version" ;;
    esac
    exit 0
done
exit 1
