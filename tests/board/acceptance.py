#!/usr/bin/env python3
"""Install gemmad's arm64 package on the virtual board and prove what it must do there.

    acceptance.py [--image DIR] [--deb FILE] [SCENARIO...]

All scenarios run unless some are named; `--list` lists them.  The image is built where it is missing or was made from
another build-image.sh or in another month (as root, or through sudo).
"""
import argparse
import datetime
import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from board import Board, BoardError
from node import Failed, Node
from scenarios import SCENARIOS, list_paths
import voice_box  # its scenarios, too

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
IMAGE = TOP / "target" / "board"


def image(folder):
    """The folder of the board's image, which is built first where it has to be."""
    script = HERE / "build-image.sh"
    key = f"{hashlib.sha256(script.read_bytes()).hexdigest()} {datetime.date.today():%Y-%m}\n"
    made_from = folder / "made-from"
    if not made_from.exists() or made_from.read_text() != key:
        print(f"building the board's image in {folder}: some minutes", flush=True)
        command = [str(script), str(folder)]
        if os.geteuid() != 0:
            command.insert(0, "sudo")
        subprocess.run(command, check=True)
        if os.geteuid() != 0:
            subprocess.run(["sudo", "chown", "-R", f"{os.geteuid()}:{os.getegid()}", str(folder)], check=True)
        made_from.write_text(key)
    return folder


def newest_package():
    packages = sorted((TOP / "target" / "debian").glob("gemmad_*_arm64.deb"), key=lambda deb: deb.stat().st_mtime)
    if not packages:
        sys.exit("acceptance: there is no target/debian/gemmad_*_arm64.deb: run tools/deb.sh arm64, or name one with --deb")
    return packages[-1]


def install_package(deb):
    """What is done once on the board that all but the clean scenarios start from."""
    def prepare(board):
        node = Node(board)
        list_paths(node, "/srv/before")
        node.sh("useradd --no-create-home member")
        board.copy(deb)
        node.sh("cd /srv && apt-get install -y ./gemmad_*.deb", timeout=600)
        node.sh("systemctl stop gemmad && usermod -a -G gemmad member && journalctl --rotate --vacuum-time=1s")
    return prepare


def run(name, folder, deb, key):
    """Runs one scenario; (whether it passed, what it says)."""
    scenario = SCENARIOS[name]
    options = {"state": True} if scenario.clean else {"prepare": (key, install_package(deb))}
    try:
        with Board(folder, **options) as board:
            node = Node(board)
            if scenario.clean:
                board.copy(deb)
            try:
                return True, scenario(node)
            except (Failed, subprocess.TimeoutExpired, AssertionError, LookupError, ValueError, TypeError) as error:
                where = traceback.extract_tb(error.__traceback__)
                lines = [f"{frame.name}:{frame.lineno}" for frame in where if frame.filename.endswith(("scenarios.py", "voice_box.py"))]
                says = error if isinstance(error, Failed) else repr(error)
                print(f"--- {name} failed at {' > '.join(lines)}: {says}", flush=True)
                board.run("systemctl status gemmad --no-pager -n 0; journalctl -u gemmad -n 60 --no-pager; dmesg | tail -n 5",
                          timeout=120)
                return False, (str(error) or repr(error)).splitlines()[0][:200]
            finally:
                node.close()
    except (BoardError, Failed) as error:
        return False, f"the board: {str(error).splitlines()[0][:200]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, default=Path(os.environ.get("BOARD_IMAGE", IMAGE)), metavar="DIR",
                        help="folder of the board's image (default: $BOARD_IMAGE, or target/board)")
    parser.add_argument("--deb", type=Path, help="the package (default: the newest in target/debian)")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--image-only", action="store_true", help="build the image where it has to be built, and no more")
    parser.add_argument("scenario", nargs="*", help="what to run (default: everything)")
    args = parser.parse_args()
    if args.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:20} {scenario.__doc__}")
        return 0
    unknown = [name for name in args.scenario if name not in SCENARIOS]
    if unknown:
        sys.exit(f"acceptance: no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    # A CI job that is cancelled gets SIGTERM: leave no qemu behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = image(args.image.resolve())
    if args.image_only:
        return 0
    deb = (args.deb or newest_package()).resolve()
    key = hashlib.sha256(deb.read_bytes() + (HERE / "acceptance.py").read_bytes()).hexdigest()
    print(f"{deb.name}, SHA-256 {hashlib.sha256(deb.read_bytes()).hexdigest()}", flush=True)
    results = []
    for name in args.scenario or SCENARIOS:
        started = time.monotonic()
        passed, says = run(name, folder, deb, key)
        results.append((name, passed, time.monotonic() - started, says))
        print(f"{'PASS' if passed else 'FAIL'} {name} {results[-1][2]:.0f} s: {says}", flush=True)
    print("\nresult  seconds  scenario")
    for name, passed, seconds, _ in results:
        print(f"{'PASS' if passed else 'FAIL':6}  {seconds:7.0f}  {name}: {SCENARIOS[name].__doc__.split(':')[0]}")
    failed = sum(not passed for _, passed, _, _ in results)
    print(f"{len(results) - failed} of {len(results)} passed in {sum(s for _, _, s, _ in results) / 60:.0f} min")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
