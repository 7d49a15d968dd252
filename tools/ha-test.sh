#!/usr/bin/env bash
# `make ha-test`: the daemon with a real Home Assistant Core, which is installed into target/ha-venv once; then, as root, with a current
# one in a Debian of its own (tools/clients-ha.sh), spoken to by the current Wyoming client.
#   ha-test.sh GEMMAD [PICTURE.png]     with a second argument, Chromium takes a picture of a device's page
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 1 ] || { echo "usage: tools/ha-test.sh GEMMAD [PICTURE.png]" >&2; exit 64; }
requirements=tests/homeassistant/requirements.txt
venv=${HA_VENV:-${CARGO_TARGET_DIR:-target}/ha-venv}

# What this Home Assistant runs on.
find_python() {
    local found
    for found in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13; do
        if "$found" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
            echo "$found"
            return
        fi
    done
    echo "ha-test: Home Assistant 2025.4 needs Python 3.13 with venv: install python3.13 (Debian 13), or type: pyenv install 3.13" >&2
    exit 1
}

stamp=$venv/installed.txt
if ! cmp -s "$requirements" "$stamp"; then
    python=$(find_python)
    echo "ha-test: installing Home Assistant into $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # Home Assistant says which versions of its dependencies go together, so it comes first and alone.
    "$venv/bin/pip" install --quiet --no-deps "$(grep '^homeassistant==' "$requirements")"
    constraints=$("$venv/bin/python" -c 'import homeassistant, pathlib; print(pathlib.Path(homeassistant.__file__).parent / "package_constraints.txt")')
    "$venv/bin/pip" install --quiet --constraint "$constraints" --requirement "$requirements"
    cp "$requirements" "$stamp"
fi
"$venv/bin/python" tests/homeassistant "$@"

if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
    echo "ha-test: a current Home Assistant needs root and mmdebstrap, and is left out"
    exit
fi
root=$(tools/clients-ha.sh)
client=$(grep '^wyoming==' tests/clients/requirements-homeassistant.txt)
target=$venv/$client
[ -d "$target" ] || "$venv/bin/pip" install --quiet --no-deps --target "$target" "$client"
PYTHONPATH=$target exec "$venv/bin/python" tests/homeassistant --root "$root" "$@"
