"""Hosts on one machine: network namespaces whose packets pass this program, which delays each and loses some.

    python3 tests/fleet/network.py COMMANDS DELAY_MS LOSS_PERCENT HOST...

It is what `tc netem` does, also where the kernel was built without it. The n-th host is the namespace gemmad-HOST with the address
10.77.0.N. A line "cut HOST SECONDS" in the pipe COMMANDS cuts a host off. It needs root, says "ready", and undoes all when its
standard input ends.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
DESTINATION = slice(16, 20)  # of an IPv4 header


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, stderr=None if check else subprocess.DEVNULL)


def host(name, address):
    """A namespace with a device of its own, whose packets come to the file that this gives."""
    space, device = f"gemmad-{name}", f"gm-{name}"
    ip("netns", "del", space, check=False)
    ip("netns", "add", space)
    packets = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(packets, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
    ip("link", "set", device, "netns", space)
    ip("-n", space, "address", "add", f"{address}/24", "dev", device)
    ip("-n", space, "link", "set", "lo", "up")
    ip("-n", space, "link", "set", device, "up")
    return packets


def main():
    commands, delay, loss, *names = sys.argv[1:]
    delay, loss = float(delay) / 1e3, float(loss) / 100
    addresses = {name: f"10.77.0.{n}" for n, name in enumerate(names, 1)}
    files = {name: host(name, address) for name, address in addresses.items()}
    of_address = {bytes(map(int, address.split("."))): name for name, address in addresses.items()}
    cut = dict.fromkeys(names, 0.0)
    control = os.open(commands, os.O_RDWR | os.O_NONBLOCK)
    print("ready", flush=True)
    waiting, count = [], 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, packet = heapq.heappop(waiting)
            try:
                os.write(files[to], packet)
            except OSError:
                pass  # its queue is full: packets are lost there, too
        left = max(0.0, waiting[0][0] - now) if waiting else None
        readable, _, _ = select.select([0, control, *files.values()], [], [], left)
        if 0 in readable and not os.read(0, 4096):
            break
        if control in readable:
            for line in os.read(control, 4096).decode().splitlines():
                _, name, seconds = line.split()
                cut[name] = time.monotonic() + float(seconds)
        now = time.monotonic()
        for name, file in files.items():
            if file not in readable:
                continue
            packet = os.read(file, 65536)
            to = of_address.get(packet[DESTINATION]) if packet[0] >> 4 == 4 else None
            if to is None or random.random() < loss or now < max(cut[name], cut[to]):
                continue
            count += 1
            heapq.heappush(waiting, (now + delay, count, to, packet))
    for name in names:
        ip("netns", "del", f"gemmad-{name}", check=False)


main()
