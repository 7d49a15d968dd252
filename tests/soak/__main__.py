"""`make soak HOURS=n`: the daemon in a house that is never quiet and where everything fails now and then; every id is accounted for.

    python3 tests/soak GEMMAD [--hours H] [--seed N] [--rate R] [--out DIRECTORY] [--sabotage lose|change]

Microphones that speak as fast as they are heard, cameras, and questions at every door of `gemmad run` with the demo model, for so many
hours; meanwhile a real broker is killed with messages in flight, devices are unplugged, files are reloaded, switches are pressed, and
clients fall silent in the middle of a word. Then: what was owed and did not come, what came twice, and whether memory, descriptors,
threads and files stayed. The report (report.json, report.txt, soak.svg) goes to DIRECTORY. The exit code is 0 where all is well, 1
where it is not. With --sabotage something between the daemon and the broker loses or changes events: the verdict must then be bad.
docs/soak.md tells how to read it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "demo"), str(TOP / "benches")]

import plots  # noqa: E402
import report  # noqa: E402
import vitals  # noqa: E402
from bus import Caller as BusCaller  # noqa: E402
from bus import Monitor  # noqa: E402
from doors import (  # noqa: E402
    AlsaMicrophone,
    Asker,
    BadTalker,
    Caller,
    MovingCamera,
    NODE,
    ReplayMicrophone,
    ScheduledCamera,
    WyomingClient,
)
from faults import Faults  # noqa: E402
from ledger import ANSWERED, Ledger  # noqa: E402
from mqtt import Broker, Tap, Watcher  # noqa: E402
from stage import MODEL, Stage, Trouble, free_port, wait_until  # noqa: E402

SAMPLE_S = 5.0
# Things that may be owed at a time before anything more is asked: enough that the model never waits for this program, too few for the
# daemon's queue to refuse what a patient house would ask.
MAX_OWED = 7
# While something waits longer than this, nobody asks for more: voice goes first, and would go first for ever.
PATIENT_S = 3.0
LOST_S = 60.0
# Of ten things that happen, how many are what.
SHARES = {"microphones": 5.0, "alsa": 0.3, "cameras": 0.6, "mqtt": 1.6, "dbus": 1.2, "wyoming": 1.3}

CONFIG = """
[mqtt]
enabled = true
url = "mqtt://127.0.0.1:{port}"
node = "{node}"
spool_file = "{state}/outbox"
max_payload_bytes = 262144
outbox_events = 4096
[dbus]
bus = "{bus}"
jobs_per_user = 8
keep_finished_s = 10
[wyoming]
enabled = true
listen = "127.0.0.1:{wyoming}"
max_clients = 12
idle_timeout_s = 5
[degrade]
hot_c = 0
memory_pressure_percent = 0
[model]
path = "{model}"
audio_idle_unload_s = 5
vision_idle_unload_s = 5
[prefix_cache]
dir = "{cache}"
max_mib = 1
min_tokens = 16
[queue]
conversations_mib = 2
"""


class House:
    """The daemon, whatever is around it, and whoever is owed something."""

    def __init__(self, stage, options):
        self.stage, self.seed, self.patience_s = stage, options.seed, 300
        self.ledger = Ledger()
        self.closing, self.ended, self.quiet = threading.Event(), threading.Event(), threading.Event()
        self.config_lock = threading.Lock()
        self.asked = {}  # transaction: what is owed, and how many of the daemon's connections had ended
        self.choices = {}  # name of a source: what its configuration has instead of the usual
        self.retained = {}
        self.samples = []
        self.began = time.monotonic()
        self.wyoming_port = free_port()
        self.cache = stage.directory / "cache"
        self.cache.mkdir()
        self.pack = stage.directory / "demo.pack"
        made = subprocess.run([stage.gemmad, "pack", "--from", MODEL, "--to", self.pack], capture_output=True, text=True, check=False)
        if made.returncode:
            raise Trouble(f"gemmad pack: {made.stderr}")
        stage.start_bus()
        self.broker = Broker(stage)
        self.broker.start()
        self.watcher = Watcher(self.broker.port, f"gemmad/{NODE}/#", self.told_at_broker)
        self.tap = Tap(self.broker, self.watcher, options.sabotage)
        self.replayed = [ReplayMicrophone(self, name) for name in ("kitchen", "office", "cellar")]
        self.alsa = AlsaMicrophone(self, "parlour")
        self.moving, self.scheduled = MovingCamera(self, "porch"), ScheduledCamera(self, "hall")
        self.sources = {door.name: door for door in (*self.replayed, self.alsa, self.moving, self.scheduled)}
        self.write_config()
        self.caller = BusCaller(stage)
        self.monitor = Monitor(stage, self.told_on_bus)
        self.doors = [
            *((door, SHARES["microphones"] / 3) for door in self.replayed),
            (self.alsa, SHARES["alsa"]),
            (self.moving, SHARES["cameras"]),
            *((Asker(self, f"asker{n}"), SHARES["mqtt"] / 2) for n in (1, 2)),
            *((Caller(self, f"caller{n}"), SHARES["dbus"] / 2) for n in (1, 2)),
            *((WyomingClient(self, f"client{n}"), SHARES["wyoming"] / 2) for n in (1, 2)),
        ]
        self.talkers = [BadTalker(self, f"talker{n}") for n in (1, 2, 3)]

    def now(self):
        return time.monotonic() - self.began

    def write_config(self):
        with self.config_lock:
            commands = (TOP / "config/examples/demo-commands.toml").read_text(encoding="utf-8")
            places = {"node": NODE, "port": self.tap.port, "bus": self.stage.bus, "state": self.stage.state}
            text = CONFIG.format(**places, wyoming=self.wyoming_port, model=self.pack, cache=self.cache)
            text += commands + "".join(source.config(**self.choices.get(name, {})) for name, source in self.sources.items())
            aside = self.stage.config.with_suffix(".new")
            aside.write_text(text)
            aside.rename(self.stage.config)

    def slices(self):
        return json.loads(self.retained.get("info", "{}")).get("matformer_options", [])

    def told_on_bus(self, member, source, event):
        self.ledger.on_bus(event["id"], source)
        door = self.sources.get(source)
        if door is None:
            self.ledger.stray(f"an event of {source}, which is nobody")
        elif isinstance(door, MovingCamera):
            door.seen(event)
        else:
            door.said(member, event)

    def told_at_broker(self, topic, payload, retained):
        below = topic.split("/", 2)[2]
        if retained or below in ("info", "health"):
            self.retained[below] = payload.decode("utf-8", "replace")
        elif below.endswith("/event"):
            self.ledger.at_broker(json.loads(payload)["id"], payload)
        elif below.startswith("response/") and not below.endswith("/partial"):
            response = json.loads(payload)
            name = response.get("transaction") or ""
            if name.startswith("asker"):
                error = (response.get("error") or {}).get("code")
                outcome = f"refused: {error}" if error else ANSWERED
                self.ledger.answered("mqtt", name, hashlib.sha256(payload).hexdigest(), outcome)

    # Threads.

    def pace(self, rate, only=None):
        """Lets things happen, as fast as the model does them, or `rate` a second."""
        doors = [one for one in self.doors if not only or one[0].kind in only.split(",")]
        chance, next_at = random.Random(f"{self.seed} pace"), time.monotonic()
        while not self.closing.is_set():
            with self.ledger.changed:
                self.ledger.changed.wait_for(self.may_ask, 0.2)
                may = self.may_ask()
            free = [(door, share) for door, share in doors if door.free()]
            wait = next_at - time.monotonic() if rate else 0
            if not may or not free or wait > 0:
                time.sleep(min(max(wait, 0.002), 0.2))
                continue
            next_at = max(next_at, time.monotonic() - 1) + (1 / rate if rate else 0)
            chosen, shares = zip(*free)
            chance.choices(chosen, shares)[0].use()
            # Its thread owes before the next is chosen.
            time.sleep(0.002)

    def may_ask(self):
        if self.quiet.is_set():
            return False
        now = time.monotonic()
        owed = [one for one in self.ledger.open.values() if one.due_at <= now and (one.door != "mqtt" or self.tap.listening)]
        # What is lost must not hold up everything else.
        held_up = any(PATIENT_S <= now - one.due_at < LOST_S for one in owed)
        return len(owed) < MAX_OWED and not held_up

    def excuse(self):
        """Requests that the broker did not hand to the daemon before one of them went; the daemon acknowledges those that it has."""
        while not self.ended.wait(0.5):
            for name, (owed, closed) in list(self.asked.items()):
                age = time.monotonic() - owed.asked_at
                if name not in self.tap.taken and (age > 30 or (self.tap.closed > closed and age > 1)):
                    self.ledger.withdraw(owed, "it never reached the daemon")

    def sample(self):
        while not self.ended.is_set():
            try:
                found = vitals.sample(self.stage.daemon.pid, self.stage.state, self.cache, self.stage.state / "outbox")
            except (OSError, ValueError):
                return  # it has ended
            found.update(at=round(self.now(), 2), events=self.ledger.events, connected=self.tap.listening)
            self.samples.append(found)
            self.ended.wait(SAMPLE_S)

    def ready(self):
        def online():
            self.stage.check_daemon()
            return all(door.state() == "online" for door in self.sources.values())

        wait_until("the daemon and its microphones and cameras are online", online, 120)


def run(stage, options):
    house = House(stage, options)
    stage.start_daemon()
    house.ready()
    house.began = time.monotonic()
    faults = Faults(house)
    trouble = []

    def guarded(body):
        """Whatever ends early here would leave a run in which nothing is asked, or nothing is looked at."""
        try:
            body()
        except Exception as error:
            trouble.append(f"the soak itself: {type(error).__name__}: {error}")

    for body in (lambda: house.pace(options.rate, options.only), house.excuse, house.sample):
        threading.Thread(target=guarded, args=(body,), daemon=True).start()
    if not options.calm:
        faults.start()
    seconds, told_at = options.hours * 3600, 0.0
    try:
        while house.ledger.events < options.events if options.events else house.now() < seconds:
            stage.check_daemon()
            if house.now() - told_at >= 60:
                told_at = house.now()
                last = house.samples[-1]
                print(f"soak: {told_at / 60:5.0f} min  {house.ledger.events:7} events  {len(house.ledger.wrong)} wrong  "
                      f"{last['anonymous']:.1f} MiB anonymous, {last['descriptors']} descriptors, {last['threads']} threads", flush=True)
            time.sleep(0.5)
    except Trouble as error:
        trouble.append(str(error))
    worked_s = house.now()
    house.closing.set()
    faults.join()
    if stage.daemon.poll() is None:
        trouble += settle(house, 5 if options.sabotage else 90)
    house.ended.set()
    missing = house.ledger.missing()
    health = house.retained.get("health")
    if stage.daemon.poll() is None:
        try:
            code = stage.stop_daemon()
            trouble += [f"the daemon ended with exit code {code} after SIGTERM"] if code else []
        except Trouble as error:
            trouble.append(str(error))
    spool = stage.state / "outbox"
    if not trouble and spool.exists() and spool.stat().st_size:
        trouble.append(f"the spool has {spool.stat().st_size} bytes at the end, though the broker was there")
    log = stage.log.read_text(errors="replace")
    trouble += [line for line in log.splitlines() if "panicked" in line]
    found = report.judge(house, faults, missing, trouble, json.loads(health or "{}"), worked_s, options)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=1))
    (out / "daemon.log").write_text(log)
    if len(found["samples"]) > 2:
        (out / "soak.svg").write_text("\n".join(plots.soak(found)) + "\n")
    text = report.table(found)
    (out / "report.txt").write_text(text)
    print(text)
    print(f"soak: the report is in {out}")
    return 0 if found["verdict"] == "good" else 1


def settle(house, patience_s):
    """Nothing more is asked; what is owed may come, and the broker has everything."""
    trouble = []
    try:
        wait_until("everything that was asked is answered", lambda: not house.ledger.waiting(), house.patience_s)
    except Trouble as error:
        trouble.append(str(error))
    # The schedule goes on, so the two doors are never compared while an event is between them for long.
    for camera in (house.moving, house.scheduled):
        house.caller.set(camera.path, "Camera", "Enabled", ["b", False])
    try:
        wait_until("bus and broker were told the same", lambda: house.ledger.missing() == ([], []), patience_s)
    except Trouble as error:
        # Who is missing, the report tells.
        print(f"soak: {error}", file=sys.stderr)
    return trouble


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gemmad")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--events", type=int, default=0, help="end after so many events, however long that takes")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--rate", type=float, default=0.0, help="things a second at most; 0: as fast as the model goes")
    parser.add_argument("--out", default="target/soak")
    parser.add_argument("--calm", action="store_true", help="nothing goes wrong: how fast it is")
    parser.add_argument("--only", help="things of these doors only, such as microphones,mqtt: to find what grows")
    parser.add_argument("--sabotage", choices=["lose", "change"])
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    # What the service tells the C library about memory.
    unit = (TOP / "systemd/gemmad.service").read_text()
    os.environ.update(re.findall(r"(MALLOC_\w+)=(\d+)", unit))
    try:
        with Stage(options.gemmad) as stage:
            try:
                return run(stage, options)
            except Trouble as trouble:
                print(f"soak: {trouble}", file=sys.stderr)
                if stage.log.exists():
                    print(f"the daemon's log:\n{stage.log.read_text()[-3000:]}", file=sys.stderr)
                return 1
    except KeyboardInterrupt:
        print("\nsoak: stopped, and cleaned up", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
