#!/usr/bin/env bash
# Install what building and testing gemmad need on Debian, Raspberry Pi OS or Ubuntu, and nothing that is there already.
#   install-build-deps.sh          everything
#   install-build-deps.sh demo     what `make demo` needs
#   install-build-deps.sh test     what `make test` needs
#   install-build-deps.sh fuzz     what `make fuzz` needs
#   install-build-deps.sh clients  what `make clients-test` needs
#   install-build-deps.sh ha       what `make ha-test` needs, beside Python 3.13
#   install-build-deps.sh board    everything, and what the virtual board is built and run with
# Uses sudo only where a package is missing and the caller is not root.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
board=no
case $what in
all | board | demo | test | fuzz | ha | clients) ;;
*)
    echo "usage: tools/install-build-deps.sh [board | demo | test | fuzz | ha | clients]" >&2
    exit 64
    ;;
esac
[ "$what" != board ] || what=all board=yes
tests=no
case $what in all | test) tests=yes ;; esac

board_target=aarch64-unknown-linux-gnu
rustup_command="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "install-build-deps: this needs root and there is no sudo; as root, type: $*" >&2
        exit 1
    fi
}

# One line for each architecture that has it.
installed() { dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

apt_install() {
    local missing=()
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "install-build-deps: installing ${missing[*]}"
    as_root apt-get update -q </dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" </dev/null
}

if command -v dpkg-query >/dev/null; then
    packages=(
        gcc libc6-dev # the linker and the C library's start files
        pkg-config libasound2-dev # ALSA
        libclang-dev # reads the kernel's V4L2 header while the crate v4l is built
        mosquitto mosquitto-clients # the broker that the demo and the tests start for themselves
        nats-server # the server that joins the boards of a fleet, for the tests
        faketime iproute2 # clocks that are hours apart, and hosts of their own, for these tests
        dbus libglib2.0-bin # the bus that they start, and one of its callers
        python3 # plays the demo
    )
    [ "$what" != ha ] || packages+=(ffmpeg) # Home Assistant turns speech into MP3 with it
    [ "$what" != fuzz ] || packages+=(g++) # libFuzzer is C++
    if [ "$what" = clients ]; then
        packages+=(
            python3-venv # has the clients
            chromium # looks at the page
            mmdebstrap debian-archive-keyring # a Debian whose Python is new enough for Home Assistant
        )
        # Whoever has a Node from elsewhere has its own npm.
        command -v npm >/dev/null || packages+=(npm)
    fi
    [ $tests = no ] || packages+=(
        util-linux-extra # fincore, which tells the tests what the page cache holds
        espeak-ng # says wake words
        sox libsox-fmt-base libsox-fmt-mp3 # writes the audio files that the tests read, in every format
        openssl # certificates for the broker
        python3-venv # has the hub's own client, and jiwer, which counts word errors, too
        python3-dbus # another caller of the bus (a third is systemd's busctl)
        systemd groff-base # judge the unit and the manual pages
        dpkg-dev lintian # make the package and judge it
    )
    # A board builds for itself; a PC also builds for the board, and runs the result under emulation.
    if [ "$what" = all ] && [ "$(dpkg --print-architecture)" != arm64 ]; then
        if ! dpkg --print-foreign-architectures | grep -qx arm64; then
            as_root dpkg --add-architecture arm64
        fi
        packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libasound2-dev:arm64)
    fi
    [ $board = no ] || packages+=(
        qemu-system-arm qemu-utils # the machine and its disk
        mmdebstrap arch-test debian-archive-keyring # the Debian on it
        qemu-user-static binfmt-support # runs what its packages run when they are installed
        gcc-aarch64-linux-gnu make bzip2 kmod cpio e2fsprogs # a module of its kernel, its first programs, its file system
        openssh-client # how it is talked to
    )
    apt_install "${packages[@]}"
else
    echo "install-build-deps: not a Debian; needed are a C toolchain, one for aarch64-linux-gnu, and qemu-user" >&2
fi

# cargo may be installed but not yet on the PATH of a shell that is not a login shell.
[ -d "${HOME-}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
    # Not `apt-cache show`: bookworm knows the name from other packages' relations, and has no such package.
    if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        apt_install rustup
    else
        apt_install curl ca-certificates
        echo "install-build-deps: Rust is missing and this release has no rustup package; type: $rustup_command" >&2
        exit 1
    fi
fi

# The hub's own client, which tests/hub downloads with; without it that test is skipped.
requirements=tests/hub/requirements.txt
venv=${CARGO_TARGET_DIR:-target}/hub-venv
if [ $tests = yes ] && ! cmp -s "$requirements" "$venv/installed.txt"; then
    if python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --requirement "$requirements"; then
        cp "$requirements" "$venv/installed.txt"
    else
        echo "install-build-deps: huggingface_hub could not be installed into $venv; tests/hub is run without it" >&2
    fi
fi

if [ "$what" = fuzz ] && ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install --locked --debug cargo-fuzz@0.13.1
fi
[ $tests = yes ] || exit 0

# The first command runs rustup's proxy, which fetches the toolchain that rust-toolchain.toml pins.
toolchain=$(rustc --print sysroot)
if [ "$what" = all ] && [ ! -d "$toolchain/lib/rustlib/$board_target" ]; then
    rustup target add "$board_target"
fi
for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null || rustup component add rustfmt clippy
done
