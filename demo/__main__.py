"""`make demo`: the whole daemon at work on this machine, without any hardware.

    python3 demo target/release/gemmad [gemma4 | gemma3n]

A private broker and a private bus, a microphone that hears held-out recordings at the pace of real time, a camera that sees held-out
pictures, and one of the demo models. What is published is compared with models/demo/heldout/*/expected.tsv; the exit code is 0 if all of it
was right, 1 if anything was wrong, 130 after Ctrl-C.
"""

import hashlib
import json
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from stage import MODEL, MODELS, TOP, Messages, Stage, Trouble, expected, wait_until  # noqa: E402

NODE = "demo"
QUESTION = "turn off the kitchen light\nReturn the command as JSON:"
ANSWER = {"action": "turn_off", "device": "light", "area": "kitchen"}

# What the camera sees while nothing happens, and what happens.
BACKGROUND = "013_combo.png"
STEPS = [
    ("say", "009_both.wav"),
    ("say", "017_combo.wav"),
    ("show", "002_picture.png"),
    ("say", "003_both.wav"),
    ("ask", QUESTION),
    ("show", "020_picture.png"),
    ("say", "016_voice.wav"),
    ("say", "022_voice.wav"),
    ("show", "014_picture.png"),
    ("say", "020_combo.wav"),
]

CONFIG = """
[[microphone]]
id = "kitchen"
device = "kitchen"
answer = "both"

[[camera]]
id = "porch"
type = "replay"
directory = {pictures}
fps = 5.0
cooldown_s = 1
[camera.motion]
off_delay_s = 1
"""

GROUPS = ("text", "ple", "audio", "vision")


class Show:
    """Prints what comes, and keeps what is to be judged."""

    def __init__(self):
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.events = queue.Queue()  # (topic below the node, payload, when)
        self.states = {}  # last payload of each topic
        self.memory = []  # (seconds, MiB of each group, MiB of the process)
        self.width = max(80, min(shutil.get_terminal_size((132, 24)).columns, 180))

    def line(self, kind, text):
        with self.lock:
            line = f"{time.monotonic() - self.started:6.1f} s  {kind:<7} {text}"
            print(line if len(line) <= self.width else line[: self.width - 1] + "…", flush=True)

    def message(self, topic, payload):
        now = time.monotonic()
        if not topic.startswith(f"gemmad/{NODE}/"):
            self.line("MQTT", f"{topic}  {len(payload)} bytes")
            return
        below = topic.split("/", 2)[2]
        self.states[below] = payload
        if below == "health":
            self.health(json.loads(payload))
            return
        text = f"{len(payload)} bytes" if below.endswith("/image") else payload.decode("utf-8", "replace")
        self.line("MQTT", f"{topic}  {brief(text)}")
        if below.endswith("/event") or below.startswith("response/"):
            self.events.put((below, json.loads(payload), now))

    def health(self, health):
        groups = [health["memory_groups_mib"].get(group, 0.0) for group in GROUPS]
        if self.memory and [f"{g:.1f}" for g in self.memory[-1][1]] == [f"{g:.1f}" for g in groups]:
            return
        self.memory.append((time.monotonic() - self.started, groups, health["rss_mib"]))
        told = ", ".join(f"{name} {mib:.1f}" for name, mib in zip(GROUPS, groups))
        self.line("memory", f"MiB of weights: {told}; the process {health['rss_mib']:.0f}")

    def signals(self, child):
        for line in child.stdout:
            found = re.match(r"\S+: (org\.gemmad1\.Events\.\w+) \('(\w+)', (.*)\)$", line.decode("utf-8", "replace").strip())
            if found:
                # Dictionaries come in no order; the rest is in the message at the broker, too.
                texts = re.findall(r"'(?:text|caption|reason)': <('[^']*'|\"[^\"]*\")>", found[3])
                self.line("D-Bus", f"{found[1]}  {found[2]}: {' '.join(texts)} and {found[3].count(': <') - len(texts)} other keys")


def brief(text):
    """The keys of an event that people want to see first."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if not isinstance(value, dict):
        return text
    first = ("event_type", "text", "command", "caption", "trigger", "status", "data", "audio_s", "short")
    chosen = {key: value[key] for key in first if key in value}
    return json.dumps(chosen or value, ensure_ascii=False)


def main():
    model = sys.argv[2] if len(sys.argv) == 3 else next(iter(MODELS))
    if len(sys.argv) not in (2, 3) or model not in MODELS:
        sys.exit(f"usage: python3 demo GEMMAD [{' | '.join(MODELS)}]")
    # A terminal that goes away and `kill` clean up as Ctrl-C does.
    # SIGINT by name: a shell that starts a command in the background has it ignored, and Python then leaves it so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        with Stage(sys.argv[1]) as stage:
            try:
                return play(stage, MODELS[model])
            except Trouble as trouble:
                print(f"demo: {trouble}", file=sys.stderr)
                if stage.log.exists():
                    print(f"the daemon's log:\n{stage.log.read_text()}", file=sys.stderr)
                return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped, and cleaned up", file=sys.stderr)
        return 130


def play(stage, model):
    show = Show()
    stage.start_broker()
    stage.start_bus()
    microphone, camera = stage.microphone("kitchen"), stage.camera("porch")
    camera.show(MODEL / "heldout/images" / BACKGROUND)
    commands = (TOP / "config/examples/demo-commands.toml").read_text(encoding="utf-8")
    config = CONFIG.format(pictures=json.dumps(str(camera.directory)))
    stage.write_config(NODE, commands + config, model)
    Messages(stage, show.message)
    monitor = ["stdbuf", "-oL", "gdbus", "monitor", "--address", stage.bus, "--dest", "org.gemmad1"]
    monitored = stage.spawn(monitor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    threading.Thread(target=show.signals, args=(monitored,), daemon=True).start()
    stage.start_daemon()
    show.line("demo", f"a broker on 127.0.0.1:{stage.port}, a bus, and {stage.gemmad.name} with models/{model.name}: gemmad.toml says")
    print("\n".join(f"            {line}" for line in config.strip().splitlines() if line))

    def ready():
        stage.check_daemon()
        sources = ("mic/kitchen/state", "camera/porch/state")
        return all(show.states.get(topic) == b"online" for topic in sources) and json.loads(show.states.get("health", b"{}")).get("state") == "ready"

    wait_until("the daemon, its microphone and its camera are ready", ready)
    rows = [perform(stage, show, microphone, camera, *step) for step in STEPS]

    show.line("demo", "nobody speaks and nothing moves: the towers go after 5 s")
    wait_until("the towers are unloaded", lambda: show.memory[-1][1][2:] == [0.0, 0.0])
    code = stage.stop_daemon()
    wait_until("the broker says that it is offline", lambda: show.states.get("state") == b"offline")
    return report(show, rows, code)


def perform(stage, show, microphone, camera, kind, what):
    """One step; its row of the table: what happened, what was published of it, whether that is right, latencies in ms."""
    if kind == "say":
        wanted = expected("audio")[what]
        show.line("demo", f'somebody says "{wanted["transcript"]}" ({what})')
        microphone.say(MODEL / "heldout/audio" / what)
        event, at = next_event(stage, show, "mic/kitchen/event")
        command = {"action": event["command"]["name"], **event["command"]["slots"]} if "command" in event else None
        right = event.get("text") == wanted["transcript"] and command == json.loads(wanted["json"])
        published = event.get("text", event.get("reason", "")), json.dumps(command)
        latencies = (at - microphone.ended_at[what]) * 1000, event["timing"]["latency_ms"]
        return ("said", wanted["transcript"]), published, right, latencies
    if kind == "show":
        picture = MODEL / "heldout/images" / what
        wanted = expected("images")[what]["caption"]
        show.line("demo", f"the camera sees {what}: {wanted}")
        camera.show(picture)
        event, _ = next_event(stage, show, "camera/porch/event")
        same = event["image_sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
        right = same and event["caption"] == wanted
        camera.show(MODEL / "heldout/images" / BACKGROUND)
        wait_until("nothing moves any more", lambda: show.states.get("camera/porch/motion") == b"OFF")
        published = (event["caption"] or event.get("reason", ""),) + (() if same else ("of another picture",))
        return ("shown", wanted), published, right, (None, event["timing"]["latency_ms"])
    show.line("demo", f"a program asks over MQTT: {json.dumps(what)}")
    stage.publish(f"gemmad/{NODE}/request/ask", {"prompt": what, "transaction": "question"})
    response, _ = next_event(stage, show, "response/ask")
    text = response.get("data", {}).get("text") or json.dumps(response.get("error"))
    timing = response.get("data", {}).get("timing", {})
    return ("asked", what.replace("\n", " / ")), (text,), text == json.dumps(ANSWER, separators=(",", ":")), (None, timing.get("latency_ms"))


def next_event(stage, show, topic):
    """The next message on `topic`, and when it came; anything else that is an event is something nobody said or showed."""

    def come():
        stage.check_daemon()
        try:
            return show.events.get(timeout=0.1)
        except queue.Empty:
            return None

    found, payload, at = wait_until(f"a message on {topic}", come, 60)
    if found != topic:
        raise Trouble(f"a message on {found} that nothing was the reason of: {json.dumps(payload)}")
    return payload, at


def report(show, rows, code):
    def number(value):
        return f"{value:.0f}" if value is not None else ""

    print("\nmemory of the weights, MiB\n" + f"{'at':>8}" + "".join(f"{name:>9}" for name in (*GROUPS, "process")))
    for at, groups, process in show.memory:
        print(f"{at:6.1f} s" + "".join(f"{mib:9.1f}" for mib in groups) + f"{process:9.0f}")
    columns = "{:<5} {:>9} {:>8}  {:<10} {}"
    print("\n" + columns.format("", "heard ms", "own ms", "", "").rstrip())
    for (happened, what), published, right, (heard, own) in rows:
        mark = "right" if right else "WRONG"
        print(columns.format(mark, number(heard), number(own), happened, what))
        for at, more in enumerate(published):
            print(columns.format("", "", "", "" if at else "published", more))
    print(
        "\nheard: from the last sample of the recording to the message at the broker, the silence that ends an utterance included\n"
        "own:   by the daemon's clock, from the end of speech, or from the picture, to the report"
    )
    strays = list(show.events.queue)
    wrong = sum(not right for _, _, right, _ in rows)
    if strays:
        print(f"demo: {len(strays)} messages more than there was reason for: {strays}", file=sys.stderr)
    if code != 0:
        print(f"demo: the daemon's exit code was {code}", file=sys.stderr)
    print(f"\n{len(rows) - wrong} of {len(rows)} right, in {time.monotonic() - show.started:.0f} s")
    return 0 if not wrong and not strays and code == 0 else 1


sys.exit(main())
