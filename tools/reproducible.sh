#!/usr/bin/env bash
# Build the packages of target/debian once more, from a clean clone in another place, and compare them byte by byte.
# reproducible.sh [amd64|arm64]...: both unless one is named.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "$(git status --porcelain)" ]; then
    echo "reproducible: there are changes that are not committed; the clone would not have them" >&2
    exit 1
fi
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone --quiet . "$clone/elsewhere"
for architecture in ${@:-amd64 arm64}; do
    env -u CARGO_TARGET_DIR "$clone/elsewhere/tools/deb.sh" "$architecture"
    for again in "$clone"/elsewhere/target/debian/*_"$architecture".deb; do
        cmp "target/debian/${again##*/}" "$again"
        sha256sum "target/debian/${again##*/}"
    done
done
