"""Whoever uses the daemon: microphones, cameras, and clients of each door. A door has `free()` and `use()`, which owes one thing more.

Nothing is asked twice at a time by the same microphone, camera or client, so that whatever comes can be told to what it is owed for.
"""

import array
import base64
import contextlib
import fcntl
import hashlib
import json
import os
import random
import socket
import threading
import time
import wave

from bus import ROOT, short_error
from bus import Caller as Connected
from ledger import ANSWERED
from stage import MODEL, RATE_HZ, expected, wait_until

NODE = "soak"
TASK = "\nReturn the command as JSON:"
FRAME = 256  # samples that the daemon's detector looks at together: whole frames keep every utterance the same to it
LEAD = 38 * FRAME  # 0.6 s: the detector's settling, and the sound before an utterance
TAIL = 64 * FRAME  # 1 s: longer than any hangover here
SYSTEMS = 32


def noise(length, seed=0):
    """A room at about -66 dBFS."""
    chance = random.Random(seed)
    return array.array("h", (round(chance.gauss(0, 16)) for _ in range(length)))


def clips():
    """Held-out recordings: name and samples, padded to whole frames."""
    found = {}
    for name in expected("audio"):
        with wave.open(str(MODEL / "heldout/audio" / name)) as file:
            samples = array.array("h", file.readframes(file.getnframes()))
        samples.extend(noise(-len(samples) % FRAME))
        found[name] = samples
    return found


CLIPS = clips()
TRANSCRIPTS = {name: row["transcript"] for name, row in expected("audio").items()}
PICTURES = {name: (MODEL / "heldout/images" / name).read_bytes() for name in expected("images")}
CAPTIONS = {hashlib.sha256(PICTURES[name]).hexdigest(): row["caption"] for name, row in expected("images").items()}


class Door:
    """One user of one door."""

    kind = ""  # the door, as it is called in the report

    def __init__(self, house, name):
        self.house, self.ledger, self.name = house, house.ledger, name
        self.chance = random.Random(f"{house.seed} {name}")
        self.busy = threading.Lock()
        self.wanted = False  # a fault waits for its turn
        self.count = 0

    def free(self):
        return not self.wanted and not self.busy.locked()

    @contextlib.contextmanager
    def reserved(self):
        """Nothing is said, shown or asked here meanwhile."""
        self.wanted = True
        try:
            with self.busy:
                yield
        finally:
            self.wanted = False

    def next_name(self):
        self.count += 1
        return f"{self.name}-{self.count}"

    def use(self):
        """On a thread of its own, so that nobody waits for it."""
        if self.busy.acquire(blocking=False):
            threading.Thread(target=self._used, daemon=True).start()

    def _used(self):
        try:
            self.work()
        except Exception as error:  # what goes wrong here must be seen, and must not stop the rest
            self.ledger.stray(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self.busy.release()
            with self.ledger.changed:
                self.ledger.changed.notify_all()

    def wait(self, owed, patience_s):
        with self.ledger.changed:
            return self.ledger.changed.wait_for(lambda: owed.outcome is not None, patience_s)


class ReplayMicrophone(Door):
    """A named pipe that the daemon reads as fast as it can. Its writer is the plug: without one the microphone is gone."""

    kind = "microphones"

    def __init__(self, house, name):
        super().__init__(house, name)
        self.pipe = house.stage.directory / f"{name}.s16"
        os.mkfifo(self.pipe)
        self.path = f"{ROOT}/mic/{name}"
        self.room = noise(LEAD + TAIL).tobytes()
        self.hiss = noise(8 * FRAME, 1).tobytes()
        self.fd = None
        self.current = None  # what is owed for the utterance that is being spoken, or was
        self.writing = threading.Lock()
        self.plug()
        threading.Thread(target=self._hiss, daemon=True).start()

    def config(self, hangover_ms=500, answer="transcript"):
        return (
            f'[[microphone]]\nid = "{self.name}"\ntype = "replay"\ndevice = {json.dumps(str(self.pipe))}\nanswer = "{answer}"\n'
            f"[microphone.speech]\nhangover_ms = {hangover_ms}\n"
        )

    def plug(self):
        # Whoever writes also reads, so that opening waits for nobody.
        self.fd = os.open(self.pipe, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 1 << 16)

    def unplug(self):
        with self.writing:
            os.close(self.fd)
            self.fd = None

    def drain(self):
        """What was said and not heard is forgotten."""
        with self.writing, contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 1 << 16):
                pass

    def state(self):
        return self.house.caller.get(self.path, "Microphone", "State")

    def wait_state(self, state, patience_s=90):
        wait_until(f"{self.name} is {state}", lambda: self.state() == state, patience_s)

    def _hiss(self):
        """A room is never silent, and a microphone that is open and gives nothing counts as dead."""
        while not self.house.ended.wait(0.25):
            # Only into an empty pipe: nobody may read it.
            with self.writing:
                if self.fd is not None and self.pending() == 0:
                    os.write(self.fd, self.hiss)

    def pending(self):
        count = array.array("i", [0])
        fcntl.ioctl(self.fd, 0x541B, count)  # FIONREAD
        return count[0]

    def speak(self, data, patience_s=60):
        """As fast as it is taken."""
        end, left = time.monotonic() + patience_s, memoryview(data)
        with self.writing:
            while left and time.monotonic() < end and not self.house.ended.is_set():
                try:
                    left = left[os.write(self.fd, left) :]
                except BlockingIOError:
                    time.sleep(0.002)

    def begin(self, seconds=0.0):
        now = time.monotonic()
        self.current = self.ledger.owe(self.kind, self.next_name(), now, now + seconds)
        return self.current

    def work(self):
        if self.state() != "online":
            time.sleep(0.2)
            return
        clip = self.chance.choice(list(CLIPS))
        owed = self.begin()
        self.clip = clip
        self.speak(self.room[: 2 * LEAD] + CLIPS[clip].tobytes() + self.room[2 * LEAD :])
        self.wait(owed, self.house.patience_s)

    def said(self, member, event):
        """The bus tells an event of this microphone."""
        owed = self.current
        if owed is None or owed.outcome is not None:
            self.ledger.stray(f"{self.name}: {member} {event.get('id')} ({event.get('reason')}) for nothing that was said")
            return
        if member == "Rejected":
            self.ledger.end(owed, f"refused: {event.get('event_type')}: {event.get('reason')}", event["id"])
            return
        if event.get("text") is not None and not event.get("truncated") and self.whole():
            self.ledger.heard(("clip", self.clip, event["matformer"]), event["text"])
        self.ledger.end(owed, ANSWERED, event["id"])

    def whole(self):
        """What was said last came into the pipe as it is."""
        return True


class AlsaMicrophone(ReplayMicrophone):
    """The stage's microphone: ALSA's `file` plugin, at the pace of real time. What is said while this program itself was late is torn:
    it may be no speech any more, or two utterances. That is told by the name of what was said, and is nobody's loss."""

    kind = "alsa"

    AHEAD_S = 3.0
    LATE_S = 2.0  # no less empties the pipe of a daemon that hears nothing before its time
    TORN_S = 30.0  # what was torn is waited for so long

    def __init__(self, house, name):
        Door.__init__(self, house, name)
        self.path = f"{ROOT}/mic/{name}"
        self.microphone = house.stage.microphone(name, self.AHEAD_S)
        self.current = None
        self.torn = []  # name, how late this program was, ms, and what came of it

    def config(self, answer="both"):
        return f'[[microphone]]\nid = "{self.name}"\ndevice = "{self.name}"\nanswer = "{answer}"\n'

    def work(self):
        if self.state() != "online":
            time.sleep(0.2)
            return
        self.clip = self.chance.choice(list(CLIPS))
        seconds = self.AHEAD_S + len(CLIPS[self.clip]) / RATE_HZ + 2
        owed = self.begin(seconds)
        self.microphone.say(MODEL / "heldout/audio" / self.clip)
        if not self.wait(owed, seconds + self.TORN_S) and self.late_ms():
            self.ledger.withdraw(owed, "torn, for this program was late")
        self.wait(owed, self.house.patience_s)
        if self.late_ms():
            self.torn.append((owed.name, self.late_ms(), owed.outcome or "lost"))
        if owed.outcome != ANSWERED:
            # What was refused at its onset is still being spoken, and what follows without a pause would be the rest of it.
            time.sleep(max(0.0, owed.due_at - time.monotonic()))

    def whole(self):
        return not self.late_ms()

    def late_ms(self):
        """How late this program was since the last thing was said, where its pipe ran dry."""
        since = self.current.asked_at if self.current else 0.0
        late_s = max((late_s for at, late_s in list(self.microphone.dry) if at >= since), default=0.0)
        return round(1000 * late_s) if late_s >= self.LATE_S else 0

    def said(self, member, event):
        owed = self.current
        if owed is not None and owed.outcome is not None and self.late_ms():
            self.torn.append((owed.name, self.late_ms(), f"one more event, {event['id']}"))
            with self.ledger.changed:
                self.ledger.events += 1
            return
        super().said(member, event)


class MovingCamera(Door):
    """Something comes into the picture and goes: one caption of each."""

    kind = "cameras"

    BACKGROUND = "013_combo.png"

    def __init__(self, house, name):
        super().__init__(house, name)
        self.camera = house.stage.camera(name)
        self.path = f"{ROOT}/camera/{name}"
        self.current, self.sha256 = None, None
        self.background = hashlib.sha256(PICTURES[self.BACKGROUND]).hexdigest()
        self.shown = [name for name in PICTURES if name != self.BACKGROUND]
        self.camera.show(MODEL / "heldout/images" / self.BACKGROUND)

    def config(self, fps=5.0):
        return (
            f'[[camera]]\nid = "{self.name}"\ntype = "replay"\ndirectory = {json.dumps(str(self.camera.directory))}\n'
            f"fps = {fps}\ncooldown_s = 1\n[camera.motion]\noff_delay_s = 1\n"
        )

    def state(self):
        return self.house.caller.get(self.path, "Camera", "State")

    def wait_state(self, state, patience_s=90):
        wait_until(f"{self.name} is {state}", lambda: self.state() == state, patience_s)

    def moves(self, motion, patience_s=20):
        end = time.monotonic() + patience_s
        while time.monotonic() < end and not self.house.ended.is_set():
            if self.house.caller.get(self.path, "Camera", "Motion") == motion:
                return True
            time.sleep(0.1)
        return False

    def work(self):
        if self.state() != "online" or not self.moves(False):
            return
        picture = self.chance.choice(self.shown)
        # The caption may be there before it is told that something moves.
        now = time.monotonic()
        self.sha256 = hashlib.sha256(PICTURES[picture]).hexdigest()
        self.current = self.ledger.owe(self.kind, self.next_name(), now, now + 1)
        self.camera.show(MODEL / "heldout/images" / picture)
        if not self.wait(self.current, 5) and not self.house.caller.get(self.path, "Camera", "Motion"):
            # Another place is to it as if the light were switched on.
            self.shown.remove(picture)
            self.ledger.withdraw(self.current, "nothing moved for the camera")
        self.wait(self.current, self.house.patience_s)
        self.camera.show(MODEL / "heldout/images" / self.BACKGROUND)
        self.moves(False)

    def seen(self, event):
        """The bus tells an event of this camera."""
        if event.get("caption"):
            self.ledger.heard(("picture", event["image_sha256"], event["matformer"]), event["caption"])
        owed = self.current
        if event.get("trigger") != "motion":
            return  # somebody asked
        if event.get("image_sha256") == self.background:
            # A picture that stood for long has become what the camera is used to: then it is its going that moves.
            with self.ledger.changed:
                self.ledger.ended["cameras, what goes"][ANSWERED] += 1
                self.ledger.events += 1
            return
        if owed is None or owed.outcome is not None or event.get("image_sha256") not in (self.sha256, ""):
            names = {hashlib.sha256(data).hexdigest(): name for name, data in PICTURES.items()}
            shown, told = names.get(self.sha256), names.get(event.get("image_sha256"))
            self.ledger.stray(f"{self.name}: {event.get('event_type')} {event.get('id')} of {told}, after {shown} ({owed})")
            return
        outcome = ANSWERED if event.get("caption") else f"refused: failed: {event.get('reason')}"
        self.ledger.end(owed, outcome, event["id"])


class ScheduledCamera(MovingCamera):
    """All held-out pictures, one after the other; one a second is described if there is time. Its captions are owed to nobody, but both doors
    must tell the same ones."""

    def __init__(self, house, name):
        Door.__init__(self, house, name)
        self.directory = house.stage.directory / name
        self.directory.mkdir()
        self.path = f"{ROOT}/camera/{name}"
        for picture, data in PICTURES.items():
            (self.directory / picture).write_bytes(data)

    def config(self, fps=5.0):
        return (
            f'[[camera]]\nid = "{self.name}"\ntype = "replay"\ndirectory = {json.dumps(str(self.directory))}\n'
            f"fps = {fps}\ncooldown_s = 1\nevery_s = 1\npublish_image = false\n[camera.motion]\nenabled = false\n"
        )

    def free(self):
        return False

    def seen(self, event):
        if event.get("caption"):
            self.ledger.heard(("picture", event["image_sha256"], event["matformer"]), event["caption"])
            if event.get("trigger") == "schedule":
                with self.ledger.changed:
                    self.ledger.ended["cameras, by schedule"][ANSWERED] += 1
                    self.ledger.events += 1


class Asker(Door):
    """A client of the broker."""

    kind = "mqtt"

    def free(self):
        # What is asked while the daemon is away the broker forgets.
        return super().free() and self.house.tap.listening and self.house.watcher.subscribed.is_set()

    def ask(self):
        """Topic, payload, and the kind of the answer's topic."""
        text = self.chance.choice(list(TRANSCRIPTS.values()))
        audio = self.chance.choice(list(CLIPS))
        wav = base64.b64encode((MODEL / "heldout/audio" / audio).read_bytes()).decode()
        picture = base64.b64encode(PICTURES[self.chance.choice(list(PICTURES))]).decode()
        systems = f"You keep house number {self.chance.randrange(SYSTEMS)}. Answer shortly and to the point, in the words of a good butler."
        return self.chance.choices(
            [
                ("request/ask", {"prompt": text + TASK}, "ask"),
                ("ask", {"prompt": text + TASK, "stream": True}, "ask"),
                ("request/ask", {"prompt": "Lamp or fan?", "choices": ["lamp", "fan"], "system": systems}, "ask"),
                ("request/ask", {"prompt": text + TASK, "conversation": f"c{self.chance.randrange(8)}"}, "ask"),
                ("request/transcribe", {"audio": wav}, "transcribe"),
                ("request/describe", {"image": picture}, "describe"),
                ("camera/hall/describe", {}, "describe"),
                ("request/ask", {"prompt": text + TASK, "matformer": "no such slice"}, "ask"),
                ("request/ask", {"prompt": ""}, "ask"),
                ("request/stats", {}, "stats"),
            ],
            [8, 3, 3, 3, 3, 2, 2, 1, 1, 1],
        )[0]

    def work(self):
        topic, request, kind = self.ask()
        owed = self.ledger.owe(self.kind, self.next_name(), time.monotonic())
        self.house.asked[owed.name] = (owed, self.house.tap.closed)
        data = json.dumps({**request, "transaction": owed.name}).encode()
        if not self.house.watcher.publish(f"gemmad/{NODE}/{topic}", data):
            self.ledger.withdraw(owed, "the broker was away")
            time.sleep(0.2)
        elif kind == "ask" and self.chance.random() < 0.1:
            cancel = {"target": owed.name, "transaction": f"cancel {owed.name}"}
            self.house.watcher.publish(f"gemmad/{NODE}/request/cancel", json.dumps(cancel).encode())
        self.wait(owed, self.house.patience_s)
        self.house.asked.pop(owed.name, None)


class Caller(Door):
    """A client of the bus."""

    kind = "dbus"

    def __init__(self, house, name):
        super().__init__(house, name)
        self.caller = Connected(house.stage)

    def ask(self):
        """Path, interface, method and arguments of a call that gives a job."""
        text = self.chance.choice(list(TRANSCRIPTS.values()))
        manager = (ROOT, "org.gemmad1.Manager")
        audio = ["h", ["file", str(MODEL / "heldout/audio" / self.chance.choice(list(CLIPS)))]]
        picture = ["h", ["file", str(MODEL / "heldout/images" / self.chance.choice(list(PICTURES)))]]
        return self.chance.choices(
            [
                (*manager, "Ask", text + TASK, {}),
                (*manager, "Ask", text + TASK, {"stream": ["b", True], "max_tokens": ["u", 40]}),
                (*manager, "Transcribe", audio, {}),
                (*manager, "Describe", picture, {}),
                (f"{ROOT}/camera/hall", "org.gemmad1.Camera", "Describe", {}),
                (*manager, "Ask", text, {"matformer": ["s", "no such slice"]}),
            ],
            [8, 3, 3, 2, 2, 1],
        )[0]

    def work(self):
        owed = self.ledger.owe(self.kind, self.next_name(), time.monotonic())
        answer = self.caller.call(*self.ask())
        if "ok" not in answer:
            self.ledger.end(owed, f"refused: {short_error(answer)}")
            return
        job = answer["ok"]
        if self.chance.random() < 0.1:
            self.caller.call(job, "org.gemmad1.Job", "Cancel")
        end = time.monotonic() + self.house.patience_s
        while time.monotonic() < end:
            answer = self.caller.call(job, "org.gemmad1.Job", "Result")
            if "ok" in answer:
                self.ledger.end(owed, ANSWERED, job)
                return
            if short_error(answer) != "Busy":
                self.ledger.end(owed, f"refused: {short_error(answer)}", job)
                return
            time.sleep(0.05)


class Wire:
    """A connection to the Wyoming server."""

    def __init__(self, house):
        self.socket = socket.create_connection(("127.0.0.1", house.wyoming_port), 10)
        self.socket.settimeout(house.patience_s)
        self.input = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.input.close()
        self.socket.close()

    def send(self, kind, data=None, payload=b""):
        header = {"type": kind, "data": data or {}, "payload_length": len(payload)}
        self.socket.sendall(json.dumps(header).encode() + b"\n" + payload)

    def read(self):
        """The next event's type and data; (None, {}) where the server has gone."""
        try:
            line = self.input.readline()
            if not line:
                return None, {}
            header = json.loads(line)
            data = header.get("data") or {}
            if header.get("data_length"):
                data.update(json.loads(self.input.read(header["data_length"])))
            self.input.read(header.get("payload_length") or 0)
            return header["type"], data
        except (ConnectionError, TimeoutError) as error:
            return None, {"text": str(error)}

    FORMAT = {"rate": RATE_HZ, "width": 2, "channels": 1}

    def speak(self, samples):
        data = samples.tobytes()
        for at in range(0, len(data), 2048):
            self.send("audio-chunk", self.FORMAT, data[at : at + 2048])


class WyomingClient(Door):
    """Home Assistant: speech to text, then the sentence to an intent. A ping after the answer shows that no second one comes."""

    kind = "wyoming"

    def work(self):
        owed = self.ledger.owe(self.kind, self.next_name(), time.monotonic())
        clip = self.chance.choice(list(CLIPS))
        recognize = self.chance.random() < 0.3
        try:
            with Wire(self.house) as wire:
                if recognize:
                    wire.send("recognize", {"text": TRANSCRIPTS[clip]})
                else:
                    wire.send("transcribe", {"language": "en"})
                    wire.send("audio-start", wire.FORMAT)
                    wire.speak(CLIPS[clip])
                    wire.send("audio-stop")
                kind, data = wire.read()
                if kind in ("transcript", "intent", "not-recognized"):
                    wire.send("ping", {"text": owed.name})
                    after, pong = wire.read()
                    if (after, pong.get("text")) != ("pong", owed.name):
                        self.ledger.stray(f"{owed.name}: {after} {pong} after its {kind}")
                    if kind == "transcript":
                        self.ledger.heard(("wyoming", clip), data.get("text"))
                    self.ledger.end(owed, ANSWERED)
                elif kind == "error":
                    self.ledger.end(owed, f"refused: {data.get('text')}")
        except OSError as error:
            self.ledger.stray(f"{owed.name}: {error}")


class BadTalker(Door):
    """Begins to speak and then falls silent, drips, goes, or talks on: whatever comes of it has to come, and to be named."""

    kind = "bad talkers"

    def free(self):
        return False

    def work(self):
        how = self.chance.choice(["silent", "drips", "goes", "goes after the end", "nonsense", "talks on"])
        owed = self.ledger.owe(self.kind, self.next_name(), time.monotonic(), float("inf"))
        outcome = f"excused: {how}"
        try:
            with Wire(self.house) as wire:
                wire.send("audio-start", wire.FORMAT)
                clip = CLIPS[self.chance.choice(list(CLIPS))]
                wire.speak(clip[: RATE_HZ // 2])
                if how == "nonsense":
                    wire.socket.sendall(b"{]\n")
                elif how == "drips":
                    with contextlib.suppress(OSError):
                        for _ in range(self.chance.randrange(5, 20)):
                            time.sleep(1)
                            wire.send("audio-chunk", wire.FORMAT, b"\0\0")
                        wire.send("audio-stop")
                elif how == "talks on":
                    with contextlib.suppress(OSError):
                        for _ in range(14):
                            wire.speak(clip)
                        wire.send("audio-stop")
                elif how == "goes after the end":
                    wire.speak(clip)
                    wire.send("audio-stop")
                if not how.startswith("goes"):
                    kind, data = wire.read()
                    named = {"error": f"refused: {data.get('text')}", "transcript": ANSWERED}
                    outcome = named.get(kind, f"refused: closed without a word ({how})")
        except OSError as error:
            outcome = f"refused: {type(error).__name__} ({how})"
        self.ledger.end(owed, outcome)
