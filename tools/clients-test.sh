#!/usr/bin/env bash
# `make clients-test`: unmodified clients at the HTTP door of a real daemon. They are installed into target/clients once.
#   clients-test.sh GEMMAD [PART ...]    all of tests/clients/__main__.py's parts, or some
#   clients-test.sh GEMMAD quick         those that take no long time to install and to run
#   clients-test.sh --install quick      installs them, and nothing else
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 1 ] || { echo "usage: tools/clients-test.sh GEMMAD [quick | PART ...] | --install [quick]" >&2; exit 64; }
here=$PWD/tests/clients
export CLIENTS=${CARGO_TARGET_DIR:-target}/clients
mkdir -p "$CLIENTS"

environments=(requirements)
[ "${2-}" = quick ] || environments+=(requirements-pinned requirements-litellm)
for name in "${environments[@]}"; do
    stamp=$CLIENTS/$name/installed.txt
    if ! cmp -s "$here/$name.txt" "$stamp"; then
        echo "clients-test: installing $name.txt into $CLIENTS/$name"
        rm -rf "${CLIENTS:?}/$name"
        python3 -m venv "$CLIENTS/$name"
        "$CLIENTS/$name/bin/pip" install --quiet --requirement "$here/$name.txt"
        cp "$here/$name.txt" "$stamp"
    fi
done

if ! cmp -s "$here/package.json" "$CLIENTS/npm/installed.json"; then
    command -v npm >/dev/null || { echo "clients-test: npm is missing (tools/install-build-deps.sh clients)" >&2; exit 1; }
    echo "clients-test: installing package.json into $CLIENTS/npm"
    rm -rf "$CLIENTS/npm"
    mkdir "$CLIENTS/npm"
    cp "$here/package.json" "$CLIENTS/npm"
    # Nothing of a package is run while it is installed: none of these needs it.
    npm --prefix "$CLIENTS/npm" install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error
    cp "$here/package.json" "$CLIENTS/npm/installed.json"
fi
# Node's own package for this machine's architecture came with them.
ln -sfr "$CLIENTS"/npm/node_modules/node-linux-*/bin/node "$CLIENTS/node"

# Prometheus's own judge of metrics, without the service that its package starts.
if [ ! -x "$CLIENTS/prometheus/usr/bin/promtool" ]; then
    (cd "$CLIENTS" && apt-get download prometheus && dpkg-deb --extract prometheus_*.deb prometheus && rm prometheus_*.deb)
fi

[ "$1" = --install ] || exec python3 tests/clients "$@"
