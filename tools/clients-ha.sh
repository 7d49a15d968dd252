#!/usr/bin/env bash
# A current Home Assistant Core in a Debian of its own, whose Python is new enough for it: target/clients/home-assistant.
#   clients-ha.sh        makes it where it is missing, and prints its path; needs root, mmdebstrap and Debian's archive
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=tests/clients/requirements-homeassistant.txt
root=${CARGO_TARGET_DIR:-target}/clients/home-assistant
suite=sid
stamp=$root/installed.txt
if ! cmp -s "$requirements" "$stamp"; then
    exec 3>&1 1>&2
    [ "$(id -u)" = 0 ] || { echo "clients-ha: this needs root"; exit 1; }
    command -v mmdebstrap >/dev/null || { echo "clients-ha: mmdebstrap is missing (tools/install-build-deps.sh board)"; exit 1; }
    if [ ! -x "$root/usr/bin/python3" ]; then
        archive=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -m1 'debian/*$' | sed 's:/*$::')
        echo "clients-ha: a Debian $suite into $root"
        rm -rf "$root"
        mkdir -p "$root"
        # A mirror that is a few weeks behind will do for a test.
        mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
            --include=python3-venv,python3-dev,gcc,g++,make,libffi-dev,libturbojpeg0,ffmpeg,ca-certificates,tzdata \
            "$suite" "$root" "$archive"
    fi
    # What reaches the package index from here reaches it from there: its configuration, the authorities, the names of hosts.
    for file in /etc/pip.conf /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
    done
    [ ! -d "${PIP_FIND_LINKS:-}" ] || mkdir -p "$root$PIP_FIND_LINKS"
    mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"
    trap 'umount "$root/dev"' EXIT
    echo "clients-ha: Home Assistant into it"
    cp "$requirements" "$root/tmp/requirements.txt"
    rm -rf "$root/venv"
    chroot "$root" python3 -m venv /venv
    # Home Assistant says which versions of its dependencies go together, so it comes first and alone.
    chroot "$root" /venv/bin/pip install --quiet --no-deps "$(grep '^homeassistant==' "$requirements")"
    constraints=$(chroot "$root" /venv/bin/python -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("homeassistant").origin).parent / "package_constraints.txt")')
    chroot "$root" /venv/bin/pip install --quiet --constraint "$constraints" --requirement /tmp/requirements.txt
    cp "$requirements" "$stamp"
    exec 1>&3
fi
echo "$root"
