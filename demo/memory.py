"""Record the daemon's memory while somebody speaks and while something moves, for `benches/plots.py memory`.

    python3 demo/memory.py GEMMAD PACK > FILE

The stage is that of `make demo`, the pack any. A line of JSON for each message of the broker, and several a second for what the
process has in memory: MiB of each file of weights, and of all the rest. `health` tells the same, but not in the middle of an answer.
"""

import json
import os
import pathlib
import re
import sys
import threading
import time

from stage import MODEL, TOP, Messages, Stage, Trouble, wait_until

NODE = "memory"
SAY, SHOW, BACKGROUND = "009_both.wav", "002_picture.png", "013_combo.png"
QUIET_S = 3.0
PERIOD_S = 0.2

CONFIG = """
[queue]
max_tokens = 24
[[microphone]]
id = "kitchen"
device = "kitchen"
[[camera]]
id = "porch"
type = "replay"
directory = {pictures}
publish_image = false
[camera.motion]
off_delay_s = 1
"""


class Record:
    """Lines on standard output, with the seconds since it was made."""

    def __init__(self):
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.last = {}  # the last payload of each topic

    def line(self, **what):
        with self.lock:
            print(json.dumps({"at": round(time.monotonic() - self.started, 2), **what}), flush=True)

    def message(self, topic, payload):
        parts = topic.split("/", 2)
        if parts[:2] == ["gemmad", NODE]:
            text = payload.decode()
            self.line(topic=parts[2], payload=json.loads(text) if text.startswith("{") else text)
            self.last[parts[2]] = text

    def group_states(self):
        return json.loads(self.last.get("health", "{}")).get("group_states", {})

    def memory(self, pid, ended):
        """On a thread of its own."""
        while not ended.wait(PERIOD_S):
            self.line(mib=resident_mib(pid))


def resident_mib(pid):
    """MiB that a process has in memory, by file of weights; `rest` is everything else."""
    mib = dict.fromkeys(("text", "audio", "vision", "rest"), 0.0)
    group = "rest"
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            file = pathlib.PurePath(line.partition("/")[2]).name
            group = next((name for name in mib if file == f"{name}.safetensors"), "rest")
        elif line.startswith("Rss:"):
            mib[group] += int(line.split()[1]) / 1024
    return {name: round(size, 1) for name, size in mib.items()}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    # What the service tells the C library about memory.
    unit = (TOP / "systemd/gemmad.service").read_text()
    os.environ.update(re.findall(r"(MALLOC_\w+)=(\d+)", unit))
    with Stage(sys.argv[1]) as stage:
        stage.start_broker()
        stage.start_bus()
        microphone, camera = stage.microphone("kitchen"), stage.camera("porch")
        camera.show(MODEL / "heldout/images" / BACKGROUND)
        config = CONFIG.format(pictures=json.dumps(str(camera.directory)))
        stage.write_config(NODE, config, pathlib.Path(sys.argv[2]).resolve())
        record = Record()
        Messages(stage, record.message)
        ended = threading.Event()
        recorder = threading.Thread(target=record.memory, args=(stage.start_daemon().pid, ended), daemon=True)
        recorder.start()

        def states(**wanted):
            stage.check_daemon()
            return record.group_states().items() >= wanted.items()

        def comes_and_goes(tower):
            wait_until(f"the {tower} tower is loaded", lambda: states(**{tower: "resident"}))
            wait_until(f"the {tower} tower is unloaded", lambda: states(**{tower: "unloaded"}))
            time.sleep(QUIET_S)

        wait_until("the text model is in memory", lambda: states(text="resident"))
        wait_until("the camera sees", lambda: record.last.get("camera/porch/state") == "online")
        time.sleep(QUIET_S)
        microphone.say(MODEL / "heldout/audio" / SAY)
        comes_and_goes("audio")
        camera.show(MODEL / "heldout/images" / SHOW)
        wait_until("a caption", lambda: "camera/porch/event" in record.last)
        camera.show(MODEL / "heldout/images" / BACKGROUND)
        comes_and_goes("vision")
        ended.set()
        recorder.join()


try:
    main()
except Trouble as trouble:
    sys.exit(f"memory: {trouble}")
