#!/usr/bin/env python3
"""Boot the virtual board (see build-image.sh) and run one command on it."""
import argparse
import os
import shlex
import signal
import subprocess
import sys

from board import BOARD_FAILED, Board, BoardError


def main():
    argv = sys.argv[1:]
    command = None
    if "--" in argv:
        cut = argv.index("--")
        argv, command = argv[:cut], argv[cut + 1:]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     usage="run.py IMAGEDIR [options] -- COMMAND...")
    parser.add_argument("image", metavar="IMAGEDIR")
    parser.add_argument("--copy", action="append", default=[], metavar="FILE[:DEST]",
                        help="copy to the board first (default DEST /srv/)")
    parser.add_argument("--get", action="append", default=[], metavar="REMOTE:LOCAL",
                        help="copy from the board afterwards, also when the command failed")
    parser.add_argument("--forward", action="append", default=[], type=int, metavar="PORT",
                        help="make this port of the board reachable; printed as forward=...")
    parser.add_argument("--state", action="store_true", help="start from a saved booted machine")
    parser.add_argument("--poweroff", action="store_true", help="end with an orderly shutdown")
    parser.add_argument("--kvm", action="store_true", help="use /dev/kvm (same architecture only)")
    parser.add_argument("--cpu")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--boot-timeout", type=int, default=300, metavar="S")
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help="for the command")
    parser.add_argument("--log", metavar="FILE", help="keep the serial console's text")
    parser.add_argument("--qemu-arg", action="append", default=[], metavar="ARG")
    args = parser.parse_args(argv)
    if not command:
        parser.error("no COMMAND after --")
    # One word is a shell script; several are one command's arguments.
    line = command[0] if len(command) == 1 else shlex.join(command)
    # A CI job that is cancelled gets SIGTERM: leave no qemu behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Board(args.image, kvm=args.kvm, cpu=args.cpu, cpus=args.cpus, memory=args.memory,
                   state=args.state, forwards=args.forward, log=args.log,
                   boot_timeout=args.boot_timeout, qemu_args=args.qemu_arg) as board:
            print(f"board: up after {board.boot_seconds:.1f} s", file=sys.stderr)
            for guest, host in board.forwards.items():
                print(f"board: forward={guest}:127.0.0.1:{host}", file=sys.stderr)
            for item in args.copy:
                source, _, dest = item.partition(":")
                board.copy(source, dest or "/srv/")
            try:
                status = board.run(line, timeout=args.timeout).returncode
            except subprocess.TimeoutExpired:
                raise BoardError(f"the command ran longer than {args.timeout} s") from None
            if status == 255:  # ssh's own failure, or a command that really returned 255
                board._alive()
            for item in args.get:
                remote, _, local = item.partition(":")
                board.get(remote, local or os.path.basename(remote))
            if args.poweroff:
                board.poweroff()
    except BoardError as error:
        print(f"board: {error}", file=sys.stderr)
        return BOARD_FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
