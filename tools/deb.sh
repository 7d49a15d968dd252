#!/usr/bin/env bash
# Build the Debian package, with the list of what is linked inside the program (cargo-auditable), the same bytes every time.
# deb.sh [amd64|arm64]...: both unless one is named. The packages are in target/debian.
# deb.sh --debug-build [amd64|arm64]: of the program that a debug build has left in target/, for tests; in target/debian/debug.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d "${HOME-}/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"

target=${CARGO_TARGET_DIR:-target}
package=target/package # where Cargo.toml looks for what is made here

profile=release build=release packages=target/debian
tool=() how=()
if [ "${1-}" = --debug-build ]; then
    shift
    profile=dev build=debug packages=target/debian/debug
    tool=(--debug) how=(--fast --compress-system) # a quicker way to the same test
    rm -rf $packages # one package at most, so that nobody asks which
else
    command -v cargo-auditable >/dev/null || cargo install --locked cargo-auditable@0.7.7
fi
command -v cargo-deb >/dev/null || cargo install --locked "${tool[@]}" cargo-deb@3.8.0

# Times in the package are the commit's, and paths in the program are those of no machine.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export RUSTFLAGS="--remap-path-prefix=$PWD=/gemmad --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
maintainer=$(sed -n 's/^authors = \["\(.*\)"\]/\1/p' Cargo.toml)

for architecture in ${@:-amd64 arm64}; do
    case $architecture in
    amd64) triple=x86_64-unknown-linux-gnu ;;
    arm64) triple=aarch64-unknown-linux-gnu ;;
    *)
        echo "usage: tools/deb.sh [--debug-build] [amd64|arm64]..." >&2
        exit 64
        ;;
    esac
    program=$target/$triple/$build/gemmad
    run=()
    if [ "$(dpkg --print-architecture)" != "$architecture" ]; then
        [ "$architecture" = arm64 ] || { echo "deb: amd64 packages are built on amd64" >&2 && exit 1; }
        run=(tools/run-aarch64.sh)
    fi
    if [ $build = release ]; then
        if [ ${#run[@]} = 0 ]; then
            cargo auditable build --locked --release --target "$triple"
        else
            tools/cross.sh auditable build
        fi
    fi

    rm -rf $package
    "${run[@]}" "$program" pages $package
    {
        echo "gemmad ($version-1) unstable; urgency=medium"
        echo
        echo "  * See https://github.com/gemmad/gemmad/blob/main/CHANGELOG.md"
        echo
        echo " -- $maintainer  $(LC_ALL=C date -Ru -d "@$SOURCE_DATE_EPOCH")"
    } >$package/changelog
    tools/licences.py "$triple" | gzip -9n >$package/third-party-licences.gz
    cargo deb --locked --no-build --strip --profile $profile "${how[@]}" --target "$triple" --output $packages/
    if command -v lintian >/dev/null; then
        lintian --allow-root --fail-on error $packages/gemmad_*_"$architecture".deb
    fi
done
