"""A house in a temporary directory: a broker, a bus, a microphone, a camera and the daemon, nothing of it outside this machine.

Used by `make demo`, by memory.py and by the tests with Home Assistant. Python's standard library only.
"""

import array
import contextlib
import csv
import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time
import wave

TOP = pathlib.Path(__file__).resolve().parents[1]
MODEL = TOP / "models/demo"  # the held-out recordings and pictures stand in it
MODELS = {"gemma4": TOP / "models/demo-gemma4", "gemma3n": MODEL}  # the first is the better one

RATE_HZ = 16_000
PERIOD_S = 0.02

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/></policy></busconfig>
"""


class Trouble(Exception):
    """Something is not as it should be; the message is for people."""


def expected(kind):
    """The lines of a held-out set's expected.tsv by file name; `kind` is "audio" or "images"."""
    with open(MODEL / "heldout" / kind / "expected.tsv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what, condition, patience_s=60.0):
    """What `condition` returns once it is true; Trouble where that takes too long."""
    end = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Trouble(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(0.02)


class Microphone:
    """A capture device of ALSA's `file` plugin, fed through a pipe at the pace of real time.

    Whatever a read finds in the pipe, the plugin gives as many samples as were asked for: where there are fewer, the rest is what the
    reader's buffer held before, a quarter of a second at a time. So sound is whole only while the pipe never runs dry. With `ahead_s`
    it is written so long before its time, which makes it heard so much later; every time that the pipe ran dry all the same is in
    `dry`. Without, as where somebody measures how long an answer takes, a feeder that is late tears what is said.
    """

    def __init__(self, directory, name, ahead_s=0.0):
        self.name, self.ahead_s = name, ahead_s
        self.dry = []  # when the pipe was found empty, time.monotonic(), and how late the feeder was, s
        self.pipe = directory / f"{name}.pcm"
        os.mkfifo(self.pipe)
        self.said = []  # samples that are still to be heard
        self.ended_at = {}  # when the last sample of a clip was heard, time.monotonic()
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        # No room is as silent as zeros are: noise at about -66 dBFS.
        noise = random.Random(0)
        self.room = array.array("h", (round(noise.gauss(0, 16)) for _ in range(RATE_HZ)))
        self.thread = threading.Thread(target=self._feed, daemon=True)
        self.thread.start()

    def configuration(self):
        """What asound.conf says of it."""
        return (
            f'pcm.{self.name} {{ type file slave.pcm null file /dev/null infile "{self.pipe}" format raw\n'
            f'hint {{ show on description "WAV files as a microphone" }} }}\n'
        )

    def say(self, clip):
        """Queues a WAV file of 16 kHz, mono, 16 bits."""
        with wave.open(str(clip)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE_HZ, 1, 2):
                raise Trouble(f"{clip}: expected 16 kHz, mono, 16 bits")
            samples = array.array("h", file.readframes(file.getnframes()))
        with self.lock:
            self.said.append((pathlib.Path(clip).name, samples))

    def stop(self):
        self.stopped.set()
        # Whoever waits for the daemon to open the pipe is let go.
        with contextlib.suppress(OSError):
            os.close(os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK))
        self.thread.join()

    def _feed(self):
        length = round(RATE_HZ * PERIOD_S)
        while not self.stopped.is_set():
            try:
                with open(self.pipe, "wb", buffering=0) as pipe:
                    if self.ahead_s:
                        # Room for half a minute: a reader that is late finds everything, and holds up nobody.
                        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
                    started, count = time.monotonic() - self.ahead_s, 0
                    while not self.stopped.is_set():
                        written = pipe.write(self._period(count * length, length).tobytes())
                        if 0 < self.ahead_s <= count * PERIOD_S and self._pending(pipe) <= written:
                            now = time.monotonic()
                            self.dry.append((now, now - started - count * PERIOD_S))
                        count += 1
                        self.stopped.wait(max(0.0, started + count * PERIOD_S - time.monotonic()))
            except BrokenPipeError:
                continue  # the daemon closed its microphone, and may open it again

    def _pending(self, pipe):
        """Bytes that nobody has read. A read that finds less than it wants leaves none, until something is written."""
        count = array.array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, count)
        return count[0]

    def _period(self, at, length):
        samples = array.array("h", (self.room[(at + n) % RATE_HZ] for n in range(length)))
        with self.lock:
            if self.said:
                name, clip = self.said[0]
                samples[: len(clip[:length])] = clip[:length]
                if len(clip) <= length:
                    self.said.pop(0)
                    self.ended_at[name] = time.monotonic()
                else:
                    self.said[0] = (name, clip[length:])
        return samples


class Camera:
    """The picture that a camera of type "replay" sees: the only file of its directory."""

    def __init__(self, directory, name):
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()

    def show(self, picture):
        """From now on. By a rename: no half picture is ever seen."""
        aside = self.directory / "next"
        shutil.copyfile(picture, aside)
        aside.rename(self.directory / "now.png")


def is_nats():
    """Whether the broker is nats-server instead of mosquitto."""
    return os.environ.get("GEMMAD_TEST_BROKER") == "nats"


class Messages:
    """Every message of the broker, by mosquitto_sub: `on_message(topic, payload)` on a thread of its own."""

    def __init__(self, stage, on_message):
        # On a pipe it would keep lines to itself until there are many.
        argv = ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(stage.port)]
        argv += ["-q", "1", "-d", "-F", "MSG %t %x"]
        # All topics of nats-server have its own errands among them.
        topics = ["gemmad/#", "homeassistant/#", "frigate/#", "test/#"] if is_nats() else ["#"]
        argv += [part for topic in topics for part in ("-t", topic)]
        self.child = stage.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        subscribed = threading.Event()

        def read():
            for line in self.child.stdout:
                words = line.decode().split()
                if words[:1] == ["Subscribed"]:
                    subscribed.set()
                elif words[:1] == ["MSG"]:
                    on_message(words[1], bytes.fromhex("".join(words[2:])))

        threading.Thread(target=read, daemon=True).start()
        if not subscribed.wait(20):
            raise Trouble("mosquitto_sub cannot subscribe at the private broker")


class Stage:
    """What runs, and ends with it."""

    def __init__(self, gemmad):
        self.gemmad = pathlib.Path(gemmad).resolve()
        self.children = []
        self.daemon = None
        self._directory = tempfile.TemporaryDirectory(prefix="gemmad-")
        self.directory = pathlib.Path(self._directory.name)
        self.log = self.directory / "gemmad.log"
        self.state = self.directory / "state"
        self.state.mkdir()
        self.config = self.directory / "gemmad.toml"
        self.asound = self.directory / "asound.conf"
        self.port = free_port()
        self.bus = f"unix:path={self.directory / 'bus'}"
        self.microphones = []
        self.speakers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def spawn(self, argv, **options):
        """A child that ends with the stage, and does not hear the terminal's Ctrl-C: it is ended in its turn."""
        if shutil.which(argv[0]) is None:
            raise Trouble(f"{argv[0]} is missing: run `make deps`, or tools/install-build-deps.sh")
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.children.append(child)
        return child

    def start_broker(self):
        """mosquitto on loopback, at a port of its own, without persistence; or nats-server, where GEMMAD_TEST_BROKER is nats."""
        # Debian has them where only root looks.
        os.environ["PATH"] += ":/usr/sbin"
        program = "nats-server" if is_nats() else "mosquitto"
        config = self.directory / f"{program}.conf"
        if program == "nats-server":
            config.write_text(
                f"server_name: broker\nlisten: \"127.0.0.1:{free_port()}\"\n"
                f"jetstream {{ store_dir: \"{self.directory / 'nats'}\" }}\nmqtt {{ listen: \"127.0.0.1:{self.port}\" }}\n"
            )
        else:
            # Run as root, mosquitto would become another user, who cannot read this directory.
            config.write_text(
                f"listener {self.port} 127.0.0.1\npersistence false\nallow_anonymous true\n"
                + ("user root\n" if os.geteuid() == 0 else "")
            )
        with open(self.directory / "broker.log", "wb") as log:
            broker = self.spawn([program, "-c", str(config)], stdout=log, stderr=log)

        def listens():
            if broker.poll() is not None:
                raise Trouble(f"{program} ended:\n{(self.directory / 'broker.log').read_text()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True

        wait_until("the broker listens", listens)
        return broker

    def start_bus(self):
        """A dbus-daemon on a socket in the stage's directory."""
        config = self.directory / "bus.conf"
        config.write_text(BUS_CONFIG.format(socket=self.directory / "bus"))
        argv = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"]
        self.spawn(argv, stderr=subprocess.DEVNULL)
        wait_until("the bus listens", (self.directory / "bus").exists)

    def microphone(self, name, ahead_s=0.0):
        microphone = Microphone(self.directory, name, ahead_s)
        self.microphones.append(microphone)
        self._write_asound()
        return microphone

    def speaker(self, name):
        """A playback device of ALSA's `file` plugin: the file to which what is played goes at once, 16 bits at 48 kHz."""
        file = self.directory / f"{name}.played"
        self.speakers.append(f'pcm.{name} {{ type file slave.pcm null file "{file}" format raw }}\n')
        self._write_asound()
        return file

    def _write_asound(self):
        lines = [found.configuration() for found in self.microphones] + self.speakers
        self.asound.write_text(f"</usr/share/alsa/alsa.conf>\n{''.join(lines)}")

    def camera(self, name):
        return Camera(self.directory, name)

    def write_config(self, node, text, model=MODEL):
        """gemmad.toml with the model, the broker and the bus; `text` is the rest of it."""
        # What this machine has to do besides is no reason to leave a picture out, or to use fewer threads.
        self.config.write_text(
            f'[mqtt]\nenabled = true\nurl = "mqtt://127.0.0.1:{self.port}"\nnode = "{node}"\n'
            f'[dbus]\nbus = "{self.bus}"\n[degrade]\nhot_c = 0\nmemory_pressure_percent = 0\n'
            f'[model]\npath = "{model}"\naudio_idle_unload_s = 5\nvision_idle_unload_s = 5\n{text}'
        )

    def environment(self):
        kept = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "JOURNAL_STREAM", "STATE_DIRECTORY")}
        return {**kept, "ALSA_CONFIG_PATH": str(self.asound)}

    def start_daemon(self):
        argv = [str(self.gemmad), "run", "--config", str(self.config), "--state-dir", str(self.state)]
        with open(self.log, "ab") as log:
            self.daemon = self.spawn(argv, stdout=log, stderr=log, env=self.environment())
        return self.daemon

    def stop_daemon(self):
        """SIGTERM; its exit code."""
        self.daemon.send_signal(signal.SIGTERM)
        try:
            return self.daemon.wait(30)
        except subprocess.TimeoutExpired:
            raise Trouble("the daemon does not end within 30 s of SIGTERM") from None

    def check_daemon(self):
        """Trouble if it has ended."""
        if self.daemon is not None and self.daemon.poll() is not None:
            raise Trouble(f"the daemon ended with exit code {self.daemon.returncode}")

    def publish(self, topic, payload, retain=False):
        """By mosquitto_pub."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        argv = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-q", "1", "-t", topic, *(["-r"] if retain else [])]
        subprocess.run([*argv, *(["-m", text] if text else ["-n"])], check=True, timeout=20)

    def close(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for microphone in self.microphones:
            microphone.stop()
        self._directory.cleanup()
