"""What must hold on the virtual board. Each scenario has a board of its own, and stands for itself."""
import json
import random
import re
import time

from hub import Hub
from media import expected
from node import CONFIG_FILE, DEMO_MODEL, TOP, camera, check, microphone

# Of the held-out clips those that the demo model understands when they are cut out of silence: it is tiny, and of a few others
# it hears another command then.
CLIPS = ["003_both.wav", "006_both.wav", "009_both.wav", "015_both.wav"]
PICTURE, OTHER_PICTURE = "020_picture.png", "013_combo.png"
# So that a tower comes and goes while a test waits for it.
UNLOAD_SOON = "audio_idle_unload_s = 30\nvision_idle_unload_s = 30"

SCENARIOS = {}


def scenario(function=None, *, clean=False):
    """Registers a scenario; `clean` ones get a board on which gemmad is not installed."""
    def register(function):
        function.clean = clean
        SCENARIOS[function.__name__] = function
        return function
    return register(function) if function else register


def hears(node, clip, name="hall", card="Mic0", since=None):
    """A clip that is played comes out as the right transcript; the event."""
    since = node.mark() if since is None else since
    node.play(clip, card)
    event = node.wait_json(f"mic/{name}/event", since=since)
    want = expected("audio", clip, "transcript")
    check(event.get("text") == want, f"{clip}: expected {want!r}, got {event}")
    return event


def sees(node, picture, name="door"):
    """A picture that is shown comes out as the right caption, when it is asked for; the event."""
    since = node.mark()
    answer = node.request("describe", camera=name)
    want = expected("images", picture, "caption")
    check(answer["status"] == "ok" and answer["data"]["text"] == want, f"{picture}: expected {want!r}, got {answer}")
    event = node.wait_json(f"camera/{name}/event", lambda event: event["id"] == answer["id"], since)
    check(event["caption"] == want, f"expected {want!r} in {event}")
    return event


def answers(node):
    """A written sentence becomes the right command."""
    prompt = f"{expected('audio', CLIPS[0], 'transcript')}\nReturn the command as JSON:"
    answer, want = node.request("ask", prompt=prompt), expected("audio", CLIPS[0], "json")
    check(answer["status"] == "ok" and answer["data"]["text"] == want, f"expected {want}, got {answer}")


def memory(node):
    return int(node.show("MemoryCurrent")["MemoryCurrent"])


def start_with_empty_cache(node):
    """Pages of files count for whoever reads them first: that is to be the service, not what unpacked the package."""
    node.sh("sync && echo 3 > /proc/sys/vm/drop_caches")
    node.restart("start")


def goes(node, tower, before):
    """A tower that has just been used is unloaded, and its memory given back; the figures. `before`: bytes before its use."""
    used = memory(node)
    node.wait_group(tower, "unloaded", node.mark())
    after = memory(node)
    told = "MiB before, with and after the tower: " + ", ".join(f"{size / 2**20:.1f}" for size in (before, used, after))
    check(before < used and after < used, told)
    return told


def is_alive(node, pid):
    """The service runs and is still the same process."""
    now = node.show("ActiveState", "SubState", "MainPID")
    check(now == {"ActiveState": "active", "SubState": "running", "MainPID": pid}, f"expected process {pid} running: {now}")


def status_says(node, words):
    node.until(f"the status line says {words!r}", lambda: words in node.show("StatusText")["StatusText"], timeout=60)


@scenario(clean=True)
def install(node):
    """apt install and systemctl start: running, ready in time, a status line that says something, sandboxed as shipped."""
    node.sh("cd /srv && apt-get install -y ./gemmad_*.deb", timeout=600)
    node.restart("start")
    times = ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    now = node.show("ActiveState", "SubState", "MainPID", "NRestarts", "StatusText", "FragmentPath", "DropInPaths", *times)
    check((now["ActiveState"], now["SubState"], now["NRestarts"]) == ("active", "running", "0"), str(now))
    check(node.sh("systemctl is-enabled gemmad") == "enabled", "the service is not enabled")
    ready_s = (int(now[times[1]]) - int(now[times[0]])) / 1e6
    # Half of TimeoutStartSec, on an emulated machine.
    check(0 < ready_s < 60, f"ready after {ready_s} s")
    for words in ("no microphones configured", "no cameras configured", "mqtt off", "bus connected", "demo"):
        check(words in now["StatusText"], f"no {words!r} in the status line: {now['StatusText']}")
    shown = node.sh("systemctl status gemmad --no-pager")
    check(f'Status: "{now["StatusText"]}"' in shown, shown)

    check(now["FragmentPath"].endswith("/lib/systemd/system/gemmad.service") and not now["DropInPaths"], str(now))
    rating = node.sh("systemd-analyze security gemmad --no-pager --threshold=15")
    pid = now["MainPID"]
    status = dict(line.split(":\t", 1) for line in node.sh(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    user = node.sh("id -u gemmad")
    check(status["Uid"].split() == [user] * 4 and user != "0", status["Uid"])
    check((status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), str(status))
    check(all(int(status[f"Cap{kind}"], 16) == 0 for kind in ("Prm", "Eff", "Bnd", "Amb")), str(status))
    for path in ("/usr/bin", "/etc/gemmad", "/var/lib/gemmad/models", "/home"):
        check(not node.ok(f"nsenter -t {pid} -m -- touch {path}/x"), f"the service's {path} can be written to")
    check(node.ok(f"nsenter -t {pid} -m -- touch /var/lib/gemmad/x && rm /var/lib/gemmad/x"), "no state directory")
    check(not [e for e in node.journal("-p warning")], "warnings in the journal:\n" + node.log())

    state = node.sh("busctl get-property org.gemmad1 /org/gemmad1 org.gemmad1.Manager State")
    check(state == 's "ready"', state)
    check(not node.ok("runuser -u nobody -- busctl get-property org.gemmad1 /org/gemmad1 org.gemmad1.Manager State"),
          "a stranger may call org.gemmad1")

    # What `gemmad devices` prints for this machine is a configuration.
    devices = node.sh("gemmad devices")
    for words in ("CARD=Mic0", "CARD=Mic1", "/dev/video0", "/dev/video1"):
        check(words in devices, f"no {words} in\n{devices}")
    node.sh(f"gemmad devices >> {CONFIG_FILE} && gemmad check-config {CONFIG_FILE}")
    score = re.search(r"exposure level.*?([\d.]+ \w+)", rating)
    return f"ready in {ready_s:.1f} s, exposure {score.group(1) if score else '?'}: {now['StatusText']}"


# All that is typed on a board that has nothing yet. The broker's package is there, as on a board beside Home Assistant.
TYPED = [
    "apt install -y ./gemmad_*.deb",
    "gemmad setup --yes --model gemma-4-e2b",
    "systemctl enable --now gemmad",
]


@scenario(clean=True)
def from_nothing(node):
    """apt install, gemmad setup, systemctl enable --now: a model comes from a hub, and what is said arrives as a transcript."""
    minutes, told = [], ""
    with Hub("google/gemma-4-E2B-it", TOP / "models" / "demo-gemma4") as hub:
        node.board.lend_port(hub.port)
        for command in TYPED:
            started = time.monotonic()
            told = told + node.sh(f"cd /srv && export HF_ENDPOINT=http://127.0.0.1:{hub.port} && {command} 2>&1", timeout=1200)
            minutes.append(f"`{command}` {(time.monotonic() - started) / 60:.1f} min")
    for words in ("The service is stopped", "ok       model: /var/lib/gemmad/models/gemma-4-e2b.pack", "ok       broker: ",
                  "microphone: plughw:CARD=Mic0", "camera sees: ", "All that is left: sudo systemctl enable --now gemmad"):
        check(words in told, f"no {words!r} in what was told:\n{told}")
    owner = node.sh(f"stat -c '%U:%G %a' {CONFIG_FILE} {CONFIG_FILE}.bak")
    check(owner.splitlines() == ["root:gemmad 640"] * 2, f"owners and modes: {owner}")
    check(node.sh("systemctl is-enabled gemmad") == "enabled", "the service is not enabled")
    node.listen()
    node.wait("mic/microphone/state", lambda state: state == "online")
    hears(node, CLIPS[1], "microphone")
    examined = node.sh("runuser -u gemmad -- gemmad doctor || true")
    check("failing" not in examined, examined)
    return ", ".join(minutes)


@scenario
def voice(node):
    """A clip played into the microphone: the right transcript on the broker and on the bus; the audio tower comes and goes."""
    node.configure(microphone(), model=UNLOAD_SOON)
    start_with_empty_cache(node)
    node.listen()
    node.wait("mic/hall/state", lambda state: state == "online")
    node.wait_group("text", "resident")
    check(node.wait_group("audio", "unloaded") == 0, "the audio tower is resident before anybody spoke")
    member, stranger = node.overhear("member"), node.overhear("nobody")
    before = memory(node)
    since = node.mark()
    event = hears(node, CLIPS[0])
    check(event["event_type"] == "transcript" and event["source"] == "hall", str(event))
    check(node.wait_group("audio", "resident", since) > 0, "no weights of the audio tower are resident")
    node.until("the signal comes", lambda: event["text"] in member())
    check("member=Transcript" in member() and event["id"] in member(), member())
    check("Transcript" not in stranger() and event["text"] not in stranger(), f"a stranger heard: {stranger()}")
    told = goes(node, "audio", before)
    for clip in CLIPS[1:]:
        hears(node, clip)
    return f"{len(CLIPS)} clips; {told}"


@scenario
def vision(node):
    """A picture shown to the camera: the right caption when asked for; motion is seen; the vision tower comes and goes."""
    node.configure(camera(motion=True), model=UNLOAD_SOON)
    node.show_picture(PICTURE)
    start_with_empty_cache(node)
    node.listen()
    node.wait("camera/door/state", lambda state: state == "online")
    node.wait_group("text", "resident")
    node.wait_group("vision", "unloaded")
    before = memory(node)
    since = node.mark()
    event = sees(node, PICTURE)
    check(node.wait_group("vision", "resident", since) > 0, "no weights of the vision tower are resident")
    member = node.overhear("member")
    node.show_picture(OTHER_PICTURE)
    node.wait("camera/door/motion", lambda motion: motion == "ON", since)
    event = sees(node, OTHER_PICTURE)
    node.until("the signal comes", lambda: event["caption"] in member())
    return f"2 pictures; {goes(node, 'vision', before)}"


@scenario
def unplug_microphone(node):
    """A microphone is pulled out, silent and while somebody speaks, and plugged in again: gemmad goes on without a restart."""
    node.configure(microphone())
    node.restart("start")
    node.listen()
    node.wait("mic/hall/state", lambda state: state == "online")
    pid = node.show("MainPID")["MainPID"]
    for speaking in (False, True):
        since = node.mark()
        if speaking:
            node.board.run(f"(aplay -q -D hw:Mic0,1 /srv/{CLIPS[0]} >/dev/null 2>&1 </dev/null &)")
            node.wait("mic/hall/speech", lambda speech: speech == "ON", since)
        node.sh("board-unplug mic0")
        node.wait("mic/hall/state", lambda state: state == "offline", since)
        status_says(node, "none of 1 microphones online")
        if speaking:
            node.wait("mic/hall/speech", lambda speech: speech == "OFF", since)
            node.wait("mic/hall/event", since=since)  # half a sentence is worked on
        node.sh("board-plug mic0")
        node.wait("mic/hall/state", lambda state: state == "online", since + 1)
        status_says(node, "listening on hall")
        hears(node, CLIPS[0])
        is_alive(node, pid)
    check("unplugged" in node.log(), node.log())
    return "unplugged twice, heard again twice"


@scenario
def unplug_camera(node):
    """Cameras are pulled out and plugged in again, and one says that it is disconnected: gemmad goes on without a restart."""
    node.configure(camera(motion=True))
    node.show_picture(PICTURE)
    node.restart("start")
    node.listen()
    node.wait("camera/door/state", lambda state: state == "online")
    pid = node.show("MainPID")["MainPID"]
    sees(node, PICTURE)
    for fault in ("board-unplug cameras", "v4l2-ctl -d /dev/video0 -c disconnect=1"):
        since = node.mark()
        node.sh(fault)
        node.wait("camera/door/state", lambda state: state == "offline", since)
        status_says(node, "none of 1 cameras online")
        node.sh("systemctl stop feed 2>/dev/null || true")
        if "disconnect" in fault:
            node.sh("board-unplug cameras")
        node.sh("board-plug cameras && udevadm settle")
        gone = [topic for topic, _, _ in node.messages].index("camera/door/state", since)
        node.wait("camera/door/state", lambda state: state == "online", gone + 1)
        # The feed needs the camera for itself while it begins.
        node.publish("camera/door/enabled/set", "OFF")
        node.wait("camera/door/state", lambda state: state == "disabled", gone)
        node.show_picture(PICTURE)
        since = node.mark()
        node.publish("camera/door/enabled/set", "ON")
        node.wait("camera/door/state", lambda state: state == "online", since)
        sees(node, PICTURE)
        is_alive(node, pid)
    return "unplugged and disconnected, saw again both times"


@scenario
def broker(node):
    """The broker stops and starts: what was said meanwhile arrives once it is back."""
    node.configure(microphone())
    node.restart("start")
    node.listen()
    node.wait("mic/hall/state", lambda state: state == "online")
    pid = node.show("MainPID")["MainPID"]
    member = node.overhear("member")
    node.sh("systemctl stop mosquitto")
    status_says(node, "mqtt away")
    since = node.mark()
    node.play(CLIPS[0])
    want = expected("audio", CLIPS[0], "transcript")
    node.until("the bus has the transcript", lambda: want in member())
    node.sh("systemctl start mosquitto")
    event = node.wait_json("mic/hall/event", since=since)
    check(event["text"] == want, f"expected {want!r}: {event}")
    node.wait("state", lambda state: state == "online", since)
    status_says(node, "mqtt connected")
    hears(node, CLIPS[1])
    is_alive(node, pid)
    # A broker that dies without a word.
    since = node.mark()
    node.sh("systemctl kill -s KILL mosquitto; systemctl reset-failed mosquitto; systemctl restart mosquitto")
    node.wait("state", lambda state: state == "online", since)
    hears(node, CLIPS[2])
    is_alive(node, pid)
    return "what was said while the broker was away arrived"


@scenario
def reload(node):
    """systemctl reload: a good file is in force whole, a bad one leaves everything as it was and says why."""
    node.configure(microphone())
    node.restart("start")
    node.listen()
    node.wait("mic/hall/state", lambda state: state == "online")
    pid = node.show("MainPID")["MainPID"]
    node.configure(microphone(), microphone("desk", "Mic1"))
    node.sh("systemctl reload gemmad")
    node.wait("mic/desk/state", lambda state: state == "online")
    status_says(node, "listening on desk, hall")
    hears(node, CLIPS[0], "desk", "Mic1")
    for bad, words in (
        (microphone("desk", "Mic1", "treshold = 1"), "treshold"),
        (microphone("desk", "Mic1") + "\n[[microphone", CONFIG_FILE),
    ):
        node.configure(bad)
        check(not node.ok(f"gemmad check-config {CONFIG_FILE}"), f"check-config takes {bad}")
        known = len(node.journal())
        node.sh("systemctl reload gemmad")
        told = lambda: [entry for entry in node.journal()[known:] if "the old configuration stays" in str(entry["MESSAGE"])]
        entry = node.until("the journal says that the old configuration stays", told)[0]
        check(words in entry["MESSAGE"] and entry["PRIORITY"] == "3", str(entry))
        status_says(node, "listening on desk, hall")
    hears(node, CLIPS[1])
    hears(node, CLIPS[2], "desk", "Mic1")
    is_alive(node, pid)
    return "a good file taken, two bad ones refused"


@scenario
def watchdog(node):
    """A process that hangs (kill -STOP) is started anew by the watchdog, and works."""
    node.configure(microphone())
    node.restart("start")
    node.listen()
    node.wait("mic/hall/state", lambda state: state == "online")
    old = node.show("MainPID")["MainPID"]
    since = node.mark()
    node.sh(f"kill -STOP {old}")
    node.wait("state", lambda state: state == "offline", since)  # the will
    node.until("the service is started anew", lambda: node.show("NRestarts")["NRestarts"] == "1", timeout=180)
    node.until("it runs", lambda: node.show("SubState")["SubState"] == "running", timeout=120)
    check(node.show("MainPID")["MainPID"] != old, "it is still the old process")
    told = "\n".join(str(entry["MESSAGE"]) for entry in node.journal("_PID=1"))
    check("Watchdog timeout" in told, f"systemd says: {told}")
    check(not node.ok("ls /var/lib/systemd/coredump/* /core* /var/lib/gemmad/core*"), "a core dump holds what was heard")
    node.wait("state", lambda state: state == "online", since)
    hears(node, CLIPS[0])
    return "restarted by the watchdog, heard again"


@scenario
def power_cut_copy(node):
    """The power fails while the PLE table is copied: the next start has a whole copy, and nothing half-written is left."""
    pack, cache = "/var/lib/gemmad/models/demo.pack", "/var/cache/gemmad"
    node.sh(f"gemmad pack --from {DEMO_MODEL} --to {pack} --recipe q8")
    node.configure(f'[ple]\ncache_dir = "{cache}"', path=pack)
    middle = 0
    for wait_s in (0, 2, 5, 9):
        node.sh(f"systemctl stop gemmad; rm -f {cache}/*; sync; systemctl reset-failed gemmad || true")
        # The copy is small: on a disk that takes 16 KiB a second it takes long enough.
        node.board.throttle_writes(16 << 10)
        node.sh("systemctl start --no-block gemmad")
        node.until("the copy begins", lambda: node.ok(f"ls {cache}/*.partial {cache}/*.copy 2>/dev/null | grep -q ."))
        node.sh(f"sleep {wait_s}")
        left = node.sh(f"ls {cache}")
        middle += left.endswith(".partial")
        node.board.throttle_writes(0)
        node.board.reboot(power_cut=True)
        node.until("the service runs", lambda: node.show("SubState")["SubState"] == "running")
        made = node.sh(f"ls -A {cache}")
        key = re.fullmatch(r"gemmad-ple-([0-9a-f]{64})\.copy", made)
        check(key, f"after the cut at {left!r}: expected one copy and nothing else, there is {made!r}")
        # The name of a pack's copy is the hash of what is in it.
        check(node.sh(f"sha256sum < {cache}/{made}").split()[0] == key.group(1), f"{made} does not hold what its name says")
        check(node.ok(f"grep -q {key.group(1)} {pack}/pack.json"), "no file of the pack has that hash")
        node.listen()
        answers(node)
        check("damaged" not in node.log(), node.log())
    check(middle, "none of the cuts fell into the middle of a copy")
    return f"4 cuts, {middle} of them in the middle of the copy"


@scenario
def power_cut_switch(node):
    """The power fails while a switch is saved: what was confirmed is kept, and nothing half-written is used or left."""
    random.seed(6)
    cuts = 3
    node.configure(microphone())
    node.restart("start")
    node.sh("sync")
    value = 0
    for _ in range(cuts):
        node.messages.clear()
        node.listen()
        node.board.throttle_writes(64 << 10)
        first, last = value + 1, value + 40
        node.board.popen(f"for i in $(seq {first} {last}); do mosquitto_pub -q 1 -t gemmad/board/max_tokens/set -m $i; done")
        stop_at = random.randint(first + 2, first + 6)
        # Of those that were asked for: the default, and what was saved before, come first.
        asked = range(first, last + 1)
        node.wait("max_tokens", lambda tokens: int(tokens) in asked and int(tokens) >= stop_at)
        confirmed = max(int(payload) for topic, payload, _ in node.messages if topic == "max_tokens" and int(payload) in asked)
        node.board.throttle_writes(0)
        node.board.reboot(power_cut=True)
        node.until("the service runs", lambda: node.show("SubState")["SubState"] == "running")
        saved = json.loads(node.sh("cat /var/lib/gemmad/state.json"))["max_tokens"]
        check(confirmed <= saved <= last, f"{confirmed} was confirmed, {saved} is saved")
        left = node.sh("ls -A /var/lib/gemmad")
        check(left.split() == ["models", "state.json"], f"left in the state directory: {left}")
        check("muted" not in node.log(), node.log())
        value = saved
    node.messages.clear()
    node.listen()
    node.wait("max_tokens", lambda tokens: int(tokens) == value)
    node.wait("mic/hall/state", lambda state: state == "online")
    hears(node, CLIPS[0])
    return f"{cuts} cuts, every confirmed switch kept"


@scenario
def journal(node):
    """The journal has structured fields, and at the default level nothing of what was said or seen."""
    node.configure(microphone(), camera())
    node.show_picture(PICTURE)
    node.restart("start")
    node.listen()
    node.wait("mic/hall/state", lambda state: state == "online")
    said = hears(node, CLIPS[0])["text"]
    seen = sees(node, PICTURE)["caption"]
    entries = [entry for entry in node.journal() if entry.get("_PID") != "1"]
    check(len(entries) >= 4, str(entries))
    for entry in entries:
        for field in ("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "TARGET", "VERSION", "CODE_FILE", "CODE_LINE"):
            check(entry.get(field), f"no {field} in {entry}")
    for source in ("hall", "door"):
        check(any(entry.get("SOURCE") == source for entry in entries), f"no entry has SOURCE={source}")
    check(node.sh("journalctl -u gemmad SOURCE=hall -o cat --no-pager"), "SOURCE= does not find the microphone's lines")
    check(not told(entries, said, seen), f"the journal says what was said or seen: {told(entries, said, seen)}")
    # The same search finds it where it is asked for.
    node.sh(f"printf '[log]\\nlevel = \"debug\"\\ncontent = true\\n' >> {CONFIG_FILE}; systemctl reload gemmad")
    hears(node, CLIPS[0])
    sees(node, PICTURE)
    found = told(node.journal(), said, seen)
    check(len(found) >= 2, f"with [log] content = true the journal has only {found}")
    return f"{len(entries)} entries"


def told(entries, *sentences):
    """The entries that hold two words in a row of one of the sentences, in any field."""
    pairs = set()
    for sentence in sentences:
        words = re.findall(r"[a-z]+", sentence.lower())
        pairs.update(" ".join(pair) for pair in zip(words, words[1:]))
    def says(entry):
        text = " ".join(re.findall(r"[a-z]+", json.dumps(entry).lower()))
        return any(f" {pair} " in f" {text} " for pair in pairs)
    return [entry for entry in entries if says(entry)]


# What a purge may leave, and why.
LEFT = {
    "/var/lib/gemmad": "where the models are",
    "/var/lib/gemmad/models": "the administrator's models",
    "/var/lib/gemmad/models/demo.pack": "the administrator's models",
}


@scenario
def purge(node):
    """Install again, remove and purge: configuration and state go when they should, models are the administrator's."""
    node.configure(microphone(), mqtt='spool_file = "/var/lib/gemmad/outbox"')
    node.sh(f"gemmad pack --from {DEMO_MODEL} --to /var/lib/gemmad/models/demo.pack --recipe q8")
    node.sh("printf secret > /etc/gemmad/mqtt-password")
    node.restart("start")
    node.listen()
    node.publish("max_tokens/set", "17")
    node.until("the switch is saved", lambda: node.ok("test -s /var/lib/gemmad/state.json"))
    config = node.sh(f"sha256sum {CONFIG_FILE}")
    packed = node.sh("cat /var/lib/gemmad/models/demo.pack/* | sha256sum")
    old = node.show("MainPID")["MainPID"]

    def kept():
        check(node.sh(f"sha256sum {CONFIG_FILE}") == config, "the configuration was changed")
        check(node.sh("cat /var/lib/gemmad/models/demo.pack/* | sha256sum") == packed, "a model was changed")
        check(node.ok("test -s /var/lib/gemmad/state.json"), "the switches are gone")

    apt = "cd /srv && DEBIAN_FRONTEND=noninteractive apt-get -y -o Dpkg::Options::=--force-confold"
    node.sh(f"{apt} install --reinstall ./gemmad_*.deb", timeout=600)
    now = node.show("SubState", "MainPID")
    check(now["SubState"] == "running" and now["MainPID"] != old, f"after an upgrade: {now}, the old process was {old}")
    kept()
    node.sh(f"{apt} remove gemmad", timeout=600)
    check(not node.ok("systemctl is-active gemmad || command -v gemmad"), "the service is still there")
    kept()
    node.sh(f"{apt} install ./gemmad_*.deb", timeout=600)
    check(node.show("SubState")["SubState"] == "running", "installed again, it does not run")
    kept()
    node.sh(f"{apt} purge gemmad", timeout=600)
    left = new_paths(node)
    unknown = [path for path in left if path not in LEFT and not path.startswith("/var/lib/gemmad/models/demo.pack/")]
    check(not unknown, f"a purge leaves {unknown}")
    check(node.sh("cat /var/lib/gemmad/models/demo.pack/* | sha256sum") == packed, "a purge takes the models")
    check(not node.ok("systemctl cat gemmad"), "systemd still knows the service")

    node.sh("rm -r /var/lib/gemmad/models/demo.pack")
    node.sh(f"{apt} install ./gemmad_*.deb && {apt} purge gemmad", timeout=900)
    left = new_paths(node)
    check(not left, f"without models a purge leaves {left}")
    return "upgraded, removed, purged with models and without"


def list_paths(node, into):
    """Writes every path of the board's disk into a file; not what every installation of any package changes."""
    prune = " -o ".join(f"-path {path}" for path in ("/srv", "/root", "/tmp", "/var/tmp", "/var/log", "/var/cache/apt", "/var/lib/apt",
                                                     "/var/lib/dpkg", "/var/lib/mosquitto", "/var/backups"))
    node.sh(f"find / -xdev \\( {prune} \\) -prune -o -print | sort > {into}")


def new_paths(node):
    """What is on the disk and was not before gemmad was installed; accounts stay, as Debian's policy has it."""
    list_paths(node, "/srv/after")
    new = node.sh("comm -13 /srv/before /srv/after").splitlines()
    accounts = [f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")]
    return [path for path in new if path not in accounts and path != "/etc/.pwd.lock"]
