"""The board as a voice box: woken, heard, answered aloud, and deaf to itself, with the kernel's sound cards both ways."""
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

from board import free_port
from media import expected
from node import TOP, check, microphone
from scenarios import CLIPS, scenario

PACKAGE = "wyoming==1.10.2"
WAKE = TOP / "fuzz" / "corpus" / "wake"  # a small model that takes any sound for its word
TONE_HZ = 440  # of tests/common/tts_server.py


@contextlib.contextmanager
def text_to_speech():
    """A server of the package `wyoming`, which comes from PyPI; its port."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        port = free_port()
        with subprocess.Popen([python, TOP / "tests/common/tts_server.py", str(port), f"{folder}/log"]) as server:
            try:
                yield port
            finally:
                server.kill()


def voice_box(node, port, speaker, more=""):
    """Configures a wake word, and a speaker at that card's playing side."""
    node.sh("mkdir -p /etc/gemmad/wake")
    node.board.copy(WAKE / "seed-manifest", "/etc/gemmad/wake/hello.json")
    node.board.copy(WAKE / "seed-model", "/etc/gemmad/wake/hello.tflite")
    wake = '[microphone.wake]\nmodels = ["/etc/gemmad/wake/hello.json"]\nsensitivity = 1\nverify = false'
    node.configure(
        microphone(more=f'trigger = "wake_word"\n{wake}'),
        f'[speaker]\ndevice = "plughw:CARD={speaker},DEV=1"\nvolume = 100\ntts = "tcp://127.0.0.1:{port}"\n{more}',
    )
    since = node.mark()
    node.restart()
    for device in ("mic/hall", "speaker"):
        node.wait(f"{device}/state", lambda state: state == "online", since)


def says(node, text):
    """A text is said, and has been heard; its answer."""
    since = node.mark()
    node.publish("mic/hall/say", json.dumps({"text": text, "transaction": text}))
    return node.wait_json("response/say", lambda answer: answer.get("transaction") == text, since)


def timeline(node, woken, reply, asked):
    """How long each step took until its message came, ms: from the wake word, and from when the reply was sent. Message numbers and a time."""
    def is_on(payload):
        return payload == "ON"

    def is_off(payload):
        return payload == "OFF"
    first = node.when("mic/hall/wake_score", since=woken)
    after = {
        "sound": node.when("speaker/speaking", is_on, woken) - first,
        "end of speech": node.when("mic/hall/speech", is_off, woken) - first,
        "transcript": node.when("mic/hall/event", since=woken) - first,
        "reply sounds": node.when("speaker/speaking", is_on, reply) - asked,
        "reply was heard": node.when("response/say", since=reply) - asked,
    }
    return {what: round(seconds * 1000) for what, seconds in after.items()}


def pitch(samples, rate):
    """How high a tone is, by its zero crossings."""
    crossings = sum(1 for one, two in zip(samples, samples[1:]) if one < 0 <= two)
    return crossings * rate / len(samples)


def last_sound(path):
    """The last tenth of a second in which a recording is loud, and its rate."""
    with wave.open(str(path)) as file:
        rate, sound = file.getframerate(), memoryview(file.readframes(file.getnframes())).cast("h")
    loud = [at for at, sample in enumerate(sound) if abs(sample) > 3000]
    check(loud, "nothing was recorded of the speaker")
    return list(sound[max(0, loud[-1] - rate // 10):loud[-1]]), rate


@scenario
def wake_word_to_reply(node):
    """A wake word, a sound, what was said, and a reply that is spoken: recorded from the speaker's card; then it is pulled out."""
    node.listen()
    with text_to_speech() as port, tempfile.TemporaryDirectory() as folder:
        node.board.lend_port(port)
        voice_box(node, port, "Mic1", "tail_ms = 0")
        node.sh("systemd-run -q --unit=recorder --collect arecord -q -D hw:Mic1,0 -f S16_LE -r 48000 -c 1 /srv/said.wav")
        since = node.mark()
        node.play(CLIPS[0])
        event = node.wait_json("mic/hall/event", since=since)
        check((event["event_type"], event["text"]) == ("transcript", expected("audio", CLIPS[0], "transcript")), str(event))
        check(event["wake_word"], str(event))
        # "Listening" and "understood" are over before anything is said.
        node.until("two sounds are over", lambda: node.messages[since:].count(("speaker/speaking", "OFF", False)) == 2)
        reply, asked = node.mark(), time.monotonic()
        answer = says(node, "The light is on. Good night, everybody!")
        check(answer["status"] == "ok", str(answer))
        steps = timeline(node, since, reply, asked)
        node.sh("systemctl stop recorder")
        recorded = Path(folder) / "said.wav"
        node.board.get("/srv/said.wav", recorded)
        heard = pitch(*last_sound(recorded))
        check(abs(heard - TONE_HZ) < 30, f"the last that was heard has {heard:.0f} Hz, not {TONE_HZ}")

        long = Path(folder) / "long.ogg"
        subprocess.run(["sox", "-n", "-r", "8000", "-c", "1", str(long), "synth", "20", "sine", "440"], check=True)
        node.board.copy(long)
        since = node.mark()
        node.sh("mosquitto_pub -t gemmad/board/mic/hall/say -f /srv/long.ogg")
        node.wait("speaker/speaking", lambda speaking: speaking == "ON", since)
        node.sh("board-unplug mic1")
        answer = node.wait_json("response/say", since=since)
        check("unplugged" in answer.get("error", {}).get("message", ""), str(answer))
        node.wait("speaker/state", lambda state: state == "offline", since)
        since = node.mark()
        node.sh("board-plug mic1")
        node.wait("speaker/state", lambda state: state == "online", since)
        check(says(node, "Here I am again.")["status"] == "ok", "it is silent after it was plugged in again")
    return f"the last sound has {heard:.0f} Hz; emulated, ms: {steps}"


@scenario
def deaf_to_itself(node):
    """The microphone hears what the speaker plays, and any sound is the wake word: it does not wake itself while it rests."""
    node.listen()
    woken = []
    with text_to_speech() as port:
        node.board.lend_port(port)
        for half_duplex in ("true", "false"):
            voice_box(node, port, "Mic0", f"half_duplex = {half_duplex}\nsounds = false\ntail_ms = 2000")
            since = node.mark()
            answer = says(node, f"This is what I say, {half_duplex}.")
            check(answer["status"] == "ok", str(answer))
            node.wait("speaker/speaking", lambda speaking: speaking == "OFF", since)
            woken.append(node.request("stats")["data"]["details"]["queues"]["wake_words"])
    check(woken[0] == 0, f"it woke itself {woken[0]} times")
    check(woken[1] > 0, "its microphone does not hear its speaker, so this shows nothing")
    return f"woken by itself {woken[0]} times, and {woken[1]} times where it does not rest"


@scenario
def shared_card(node):
    """Another program, of another user, records from gemmad's microphone at the same time: ALSA's dsnoop, as docs/speaker.md has it."""
    shared = "pcm.shared_in { type plug slave.pcm { type dsnoop ipc_key 5201 ipc_perm 0666 slave { pcm \"hw:CARD=Mic0,DEV=0\" rate 48000 } } }"
    node.board.write("/etc/asound.conf", f"{shared}\n")
    node.board.copy(TOP / "systemd/examples/shared-microphone.conf", "/etc/systemd/system/gemmad.service.d/")
    node.sh("systemctl daemon-reload")
    node.configure('[[microphone]]\nid = "hall"\ndevice = "shared_in"\n')
    node.listen()
    node.restart()
    node.wait("mic/hall/state", lambda state: state == "online")
    other = "-p User=member -p SupplementaryGroups=audio arecord -q -D shared_in -f S16_LE -r 16000 -c 1 /dev/shm/other.wav"
    node.sh(f"systemd-run -q --unit=other --collect {other}")
    node.board.copy(TOP / "models/demo/heldout/audio" / CLIPS[0])
    since = node.mark()
    # The card runs at dsnoop's rate.
    node.sh(f"aplay -q -D plughw:Mic0,1 /srv/{CLIPS[0]}")
    event = node.wait_json("mic/hall/event", since=since)
    want = expected("audio", CLIPS[0], "transcript")
    check(event.get("text") == want, f"expected {want!r}, got {event}")
    node.sh("systemctl stop other")
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "other.wav"
        node.board.get("/dev/shm/other.wav", recorded)
        last_sound(recorded)
    return "both heard the clip"
