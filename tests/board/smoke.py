#!/usr/bin/env python3
"""Prove that the virtual board itself works: smoke.py IMAGEDIR [--state] [--reboot]

Every line printed is one check; the first that fails ends the run with status 1.
"""
import hashlib
import math
import struct
import sys
import tempfile
import time
import wave
from pathlib import Path

from board import Board

RATE, SECONDS, HZ = 48000, 2, 440


def write_tone(path):
    samples = [int(16000 * math.sin(2 * math.pi * HZ * i / RATE)) for i in range(RATE * SECONDS)]
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def tone_of(path):
    """(peak, Hz) of the middle second of a recording."""
    with wave.open(str(path), "rb") as rec:
        rec.setpos(max(0, rec.getnframes() // 2 - RATE // 2))
        s = struct.unpack(f"<{RATE}h", rec.readframes(RATE))
    rises = sum(1 for a, b in zip(s, s[1:]) if a < 0 <= b)
    return max(map(abs, s)), rises


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    image = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder, Board(image, state="--state" in sys.argv) as b:
        work = Path(folder)

        def check(name, command, want=None):
            t = time.monotonic()
            r = b.run("cd /srv; " + command, capture=True, timeout=120)
            good = r.returncode == 0 and (want is None or want in r.stdout)
            print(f"{'ok  ' if good else 'FAIL'} {time.monotonic() - t:5.1f}s {name}", flush=True)
            if not good:
                sys.exit(f"exit {r.returncode}\n{r.stdout}{r.stderr}")
            return r.stdout

        print(f"ok   {b.boot_seconds:5.1f}s up", flush=True)
        print("    ", check("kernel", "uname -srm").strip())
        check("systemd is running", "systemctl is-system-running", "running")
        check("system bus", "busctl --system call org.freedesktop.DBus / org.freedesktop.DBus "
              "GetId", "s ")
        check("mqtt", "(mosquitto_sub -t t/1 -C 1 -W 10 & sleep 1; mosquitto_pub -t t/1 -m hello; "
              "wait)", "hello")

        write_tone(work / "tone.wav")
        b.copy(work / "tone.wav")
        for mic in ("Mic0", "Mic1"):
            check(f"record {mic}", f"arecord -q -D hw:{mic},0 -f S16_LE -r {RATE} -c 1 -d 2 rec.wav "
                  f"& sleep 0.2; aplay -q -D hw:{mic},1 tone.wav; wait")
            b.get("/srv/rec.wav", work / "rec.wav")
            peak, hz = tone_of(work / "rec.wav")
            assert 15900 < peak <= 16000 and abs(hz - HZ) <= 2, (mic, peak, hz)
            print(f"     peak {peak}, {hz} Hz")

        for n in (0, 1):
            check(f"webcam {n} pattern", f"v4l2-ctl -d /dev/video{n} --set-fmt-video=width=640,"
                  f"height=360,pixelformat=YUYV --stream-mmap --stream-count=5 --stream-to=cam.raw "
                  f"2>&1 && test $(stat -c %s cam.raw) = {640 * 360 * 2 * 5}")
        frame = bytes((50 if (i // 640 % 32 < 16) else 200, 128)[i % 2] for i in range(640 * 480 * 2))
        (work / "frame.yuyv").write_bytes(frame)
        b.copy(work / "frame.yuyv")
        check("webcam 0 shows the fed image",
              "board-camera feed 0 frame.yuyv & feed=$!; sleep 2; v4l2-ctl -d /dev/video0 "
              "--set-fmt-video=width=640,height=480,pixelformat=YUYV --stream-mmap --stream-skip=3 "
              "--stream-count=1 --stream-to=got.raw 2>&1; kill $feed; sha256sum got.raw",
              hashlib.sha256(frame).hexdigest())
        check("webcam 0 back to the pattern", "board-camera pattern 0")
        check("camera /dev/video20 takes MJPG", "yes frame | head -c 20000 > f.jpg; v4l2-ctl -d "
              "/dev/video20 -c keep_format=1 && v4l2-ctl -d /dev/video20 "
              "--set-fmt-video-out=width=640,height=480,pixelformat=MJPG && (for i in $(seq 30); do "
              "cat f.jpg; sleep 0.1; done > /dev/video20 & sleep 1; v4l2-ctl -d /dev/video20 --stream-mmap "
              "--stream-count=3 --stream-to=got.mjpg 2>&1; wait); "
              "head -c 20000 got.mjpg | cmp - f.jpg")

        check("unplug mic under its user", "arecord -q -D hw:Mic1,0 -f S16_LE -r 48000 -c 1 x.wav "
              "2>err & sleep 1; board-unplug mic1; wait; grep -o 'No such device' err; "
              "! grep Mic1 /proc/asound/cards; board-plug mic1; grep -o '\\[Mic1' /proc/asound/cards",
              "[Mic1")
        check("unplug cameras under their user", "v4l2-ctl -d /dev/video0 --stream-mmap >err 2>&1 & "
              "sleep 2; board-unplug cameras; wait; test ! -e /dev/video0 || exit 1; "
              "board-plug cameras; udevadm settle; ls /dev/video0", "/dev/video0")
        if "--reboot" in sys.argv:
            check("write and sync", "echo kept > /srv/kept; sync")
            t = time.monotonic()
            b.reboot(power_cut=True)
            print(f"ok   {time.monotonic() - t:5.1f}s power cut, booted again", flush=True)
            check("file is still there", "cat /srv/kept", "kept")
        t = time.monotonic()
        b.poweroff()
        print(f"ok   {time.monotonic() - t:5.1f}s powered off", flush=True)


if __name__ == "__main__":
    main()
