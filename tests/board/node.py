"""gemmad as it runs on a virtual board: its configuration, messages, microphones and cameras."""
import contextlib
import json
import shlex
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from media import HELDOUT, yuyv_frame

TOP = Path(__file__).resolve().parents[2]
CONFIG_FILE = "/etc/gemmad/gemmad.toml"
DEMO_MODEL = "/usr/share/gemmad/models/demo"

# Emulation is up to a hundred times slower than a board: a wait that is over means that something hangs.
PATIENCE_S = 240


class Failed(Exception):
    """The daemon did not do what it must; the message says what."""


def check(condition, message):
    if not condition:
        raise Failed(message)


class Node:
    """gemmad on `board`."""

    def __init__(self, board):
        self.board = board
        self.messages = []  # (topic below gemmad/NODE/, payload as text, retained)
        self.times = []  # when each of them came here
        self._asked = 0
        self._arrived = threading.Condition()
        self._streams = contextlib.ExitStack()

    def close(self):
        self._streams.close()

    # -- the board ----------------------------------------------------------------------
    def sh(self, command, timeout=PATIENCE_S):
        """What a shell command prints on the board; it must succeed."""
        result = self.board.run(command, capture=True, timeout=timeout)
        check(result.returncode == 0, f"{command!r}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout.strip()

    def ok(self, command):
        """Whether a shell command succeeds on the board."""
        return self.board.run(command, capture=True, timeout=PATIENCE_S).returncode == 0

    def until(self, what, function, timeout=PATIENCE_S):
        """Asks until the answer is true, and gives it."""
        deadline = time.monotonic() + timeout
        while True:
            answer = function()
            if answer:
                return answer
            check(time.monotonic() < deadline, f"waited {timeout} s in vain until {what}")
            time.sleep(0.5)

    # -- the service --------------------------------------------------------------------
    def show(self, *properties):
        """Properties of the service."""
        names = " ".join(f"-p {name}" for name in properties)
        lines = self.sh(f"systemctl show gemmad {names}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def configure(self, *sections, path=DEMO_MODEL, model="", mqtt=""):
        """Writes the configuration: a model, the bus, the board's own broker, and what is given."""
        self.board.write(CONFIG_FILE, f"""
[model]
path = "{path}"
{model}
[dbus]
enabled = true
[mqtt]
enabled = true
url = "mqtt://localhost:1883"
node = "board"
{mqtt}
{chr(10).join(sections)}
""")

    def restart(self, command="restart"):
        """Starts the service; fails with its log if it does not become ready."""
        self.sh(f"systemctl {command} gemmad || {{ journalctl -u gemmad -n 30 --no-pager; false; }}")

    def journal(self, *options):
        """Entries of the service's journal, as journalctl's JSON gives them."""
        text = self.sh(f"journalctl -u gemmad -o json --no-pager {' '.join(options)}")
        return [json.loads(line) for line in text.splitlines()]

    def log(self):
        """The messages of the service's journal."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal())

    # -- the broker ---------------------------------------------------------------------
    def listen(self):
        """Collects every message below gemmad/board/ from now on, those that are kept first.

        The session is kept by the broker, so that nothing is missed when it is started again.
        """
        command = "mosquitto_sub -c -i acceptance -q 1 -t 'gemmad/board/#' -t gemmad/listening -F %j"
        stream = self.board.popen(f"exec {command}")
        self._streams.callback(stop, stream)
        threading.Thread(target=self._collect, args=(stream,), daemon=True).start()
        # The subscription stands when a message comes round.
        self.until("the broker answers", lambda: self._round(), timeout=60)

    def _round(self):
        self.board.run("mosquitto_pub -t gemmad/listening -m yes", capture=True)
        return any(topic == "gemmad/listening" for topic, _, _ in self.messages)

    def _collect(self, stream):
        for line in stream.stdout:
            try:
                message = json.loads(line)
                payload = message["payload"]
            except (ValueError, KeyError):
                continue  # mosquitto_sub's own words, and pictures
            payload = payload if isinstance(payload, str) else json.dumps(payload)
            topic = message["topic"].removeprefix("gemmad/board/")
            with self._arrived:
                self.messages.append((topic, payload, bool(message["retain"])))
                self.times.append(time.monotonic())
                self._arrived.notify_all()

    def mark(self):
        """The number of messages so far, for `wait`."""
        return len(self.messages)

    def wait(self, topic, accept=lambda payload: True, since=0, timeout=PATIENCE_S):
        """The first payload on a topic, from message `since` on, that `accept` says yes to."""
        return self.messages[self._find(topic, accept, since, timeout)][1]

    def when(self, topic, accept=lambda payload: True, since=0):
        """When that message came, seconds."""
        return self.times[self._find(topic, accept, since, PATIENCE_S)]

    def _find(self, topic, accept, since, timeout):
        deadline = time.monotonic() + timeout
        with self._arrived:
            at = since
            while True:
                for number, (name, payload, _) in enumerate(self.messages[at:], at):
                    if name == topic and accept(payload):
                        return number
                at = len(self.messages)
                seen = [payload[:300] for name, payload, _ in self.messages[since:] if name == topic]
                check(self._arrived.wait(deadline - time.monotonic()) or len(self.messages) > at,
                      f"waited {timeout} s in vain on {topic}; it had: {seen[-3:]}")

    def wait_json(self, topic, accept=lambda payload: True, since=0, timeout=PATIENCE_S):
        """As `wait`, of payloads in JSON."""
        return json.loads(self.wait(topic, lambda payload: accept(json.loads(payload)), since, timeout))

    def wait_group(self, name, state, since=0):
        """Waits until `health` says that a parameter group is `resident` or `unloaded`; its MiB."""
        health = self.wait_json("health", lambda health: health["group_states"][name] == state, since)
        return health["memory_groups_mib"][name]

    def publish(self, topic, payload, *options):
        words = ["mosquitto_pub", "-q", "1", "-t", f"gemmad/board/{topic}", "-m", payload, *options]
        self.sh(shlex.join(words))

    def request(self, kind, **body):
        """Asks for something over the broker; the answer's payload."""
        self._asked += 1
        transaction, since = f"board-{self._asked}", self.mark()
        self.publish(f"request/{kind}", json.dumps({"transaction": transaction, **body}))
        return self.wait_json(f"response/{kind}", lambda answer: answer.get("transaction") == transaction, since)

    # -- the bus ------------------------------------------------------------------------
    def overhear(self, user):
        """What `user` hears on the system bus of org.gemmad1.Events, from now on: a function that gives the text."""
        command = "dbus-monitor --system \"type='signal',interface='org.gemmad1.Events'\""
        stream = self.board.popen(f"exec runuser -u {user} -- {command}", stdout=subprocess.PIPE)
        self._streams.callback(stop, stream)
        lines = []
        threading.Thread(target=lambda: lines.extend(stream.stdout), daemon=True).start()

        def heard():
            return "".join(lines)
        # What the bus tells everybody who connects is shown once the monitor listens.
        self.until("the monitor listens", lambda: "member=NameAcquired" in heard(), timeout=60)
        return heard

    # -- microphones and cameras --------------------------------------------------------
    def play(self, clip, card="Mic0"):
        """Plays a held-out clip into a microphone."""
        self.board.copy(HELDOUT / "audio" / clip)
        self.sh(f"aplay -q -D hw:{card},1 /srv/{clip}")

    def show_picture(self, name, camera=0):
        """Lets a camera see a held-out picture from now on. The first time nobody may have the camera open."""
        with tempfile.TemporaryDirectory() as folder:
            frame = Path(folder) / "next.yuyv"
            frame.write_bytes(yuyv_frame(HELDOUT / "images" / name))
            self.board.copy(frame)
        if self.ok("systemctl is-active feed"):
            # The feed reads its file for every frame: the picture changes without a gap.
            self.sh("dd if=/srv/next.yuyv of=/srv/frame.yuyv bs=1M conv=notrunc status=none")
        else:
            self.sh("cp /srv/next.yuyv /srv/frame.yuyv")
            self.sh(f"systemd-run -q --unit=feed --collect board-camera feed {camera} /srv/frame.yuyv")
            self.until("the feed streams", lambda: self.ok("systemctl show -p MainPID --value feed | xargs -I% "
                                                           f"sh -c 'readlink /proc/%/exe | grep -q v4l2-ctl'"))


def stop(stream):
    stream.kill()
    stream.wait()


def microphone(name="hall", card="Mic0", more=""):
    return f'[[microphone]]\nid = "{name}"\ndevice = "plughw:CARD={card},DEV=0"\n{more}\n'


def camera(name="door", device="/dev/video0", more="", motion=False):
    section = f'[[camera]]\nid = "{name}"\ndevice = "{device}"\n{more}\n'
    return section + f"[camera.motion]\nenabled = {str(motion).lower()}\n"
