#!/usr/bin/env bash
# Installs what a target needs and the machine lacks, saying what. Usage: tools.sh build|demo|check|kernel…
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
buf_version=1.75.0
cargo_deny_version=0.20.2
packages=()

want() { # command, Debian package
    command -v "$1" >/dev/null || packages+=("$2")
}

is_static() { # command
    local path
    path=$(command -v "$1") && ! ldd "$path" 2>/dev/null | grep -q '=>'
}

say() {
    echo "installing: $*"
}

install_packages() {
    [ ${#packages[@]} -eq 0 ] && return
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        echo "please install: ${packages[*]} (as root on Debian: apt-get install ${packages[*]})" >&2
        exit 1
    fi
    say "${packages[@]}"
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        "${packages[@]}" >/dev/null
}

install_buf() {
    [ -x "$tools/bin/buf" ] && return
    say "buf $buf_version (npm)"
    npm install --silent --no-fund --no-audit --prefix "$tools/npm" "@bufbuild/buf@$buf_version"
    mkdir -p "$tools/bin"
    ln -sf ../npm/node_modules/.bin/buf "$tools/bin/buf"
}

# The recommended etcd, an ordinary Go dependency of a module that only calls its main.
install_etcd() {
    local built=$tools/bin/etcd-3.6
    [ -x "$built" ] && [ ! "$built" -ot integration/etcd/go.mod ] && return
    PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null || {
        echo "please install Go $(awk '$1 == "go" { print $2 }' integration/etcd/go.mod) or later: https://go.dev/dl" >&2
        exit 1
    }
    say "etcd 3.6 (go build, a minute or two)"
    mkdir -p "$tools/bin"
    # Nobody debugs it: stripped, it links quicker.
    (cd integration/etcd && go build -trimpath -ldflags '-s -w' -o "$built" .)
    touch "$built"
}

install_cargo_deny() {
    command -v cargo-deny >/dev/null && return
    say "cargo-deny $cargo_deny_version (about a minute)"
    # Built for a quick build, not a quick run: it runs for a second.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install --quiet --locked --root "$tools" "cargo-deny@$cargo_deny_version"
}

export PATH=$tools/bin:$PATH
for need in "$@"; do
    case $need in
    build)
        want cc build-essential
        # For the bindings that etcd-client makes of etcd's protocol.
        want protoc protobuf-compiler
        [ -n "${PROTOC_INCLUDE-}" ] || [ -e /usr/include/google/protobuf/descriptor.proto ] ||
            packages+=(libprotobuf-dev)
        command -v cargo >/dev/null || {
            echo "please install Rust: https://rustup.rs" >&2
            exit 1
        }
        ;;
    demo)
        want ip iproute2
        want ping iputils-ping
        want nft nftables
        ;;
    unit)
        want ip iproute2
        want ping iputils-ping
        want wg wireguard-tools
        ;;
    etcd)
        want etcd etcd-server
        ;;
    check)
        want npm npm
        ;;
    bench-kernel)
        want iperf3 iperf3
        ;;
    kernel)
        want wg wireguard-tools
        want nft nftables
        want setpriv util-linux
        scripts/kernel-has-wireguard.sh || {
            want qemu-system-x86_64 qemu-system-x86
            is_static busybox || packages+=(busybox-static)
            scripts/vm-kernel.sh >/dev/null || packages+=(linux-image-amd64)
        }
        ;;
    *)
        echo "tools.sh: no such need: $need" >&2
        exit 2
        ;;
    esac
done
# Packages wait for the network and the disk, cargo-deny for the processor: both at once, unless the
# one can't be built without the others.
if command -v cc >/dev/null && command -v npm >/dev/null; then
    install_packages &
    packages_installed=$!
else
    install_packages
fi
for need in "$@"; do
    case $need in
    etcd)
        install_etcd
        ;;
    check)
        install_buf
        install_cargo_deny
        ;;
    esac
done
[ -z "${packages_installed-}" ] || wait "$packages_installed"
