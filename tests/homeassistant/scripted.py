"""A gemmad whose model has random weights and says what is written down for a sentence.

What it says goes through the names of Home Assistant, the grammar and the Wyoming server as a real model's word does: nothing of it is
faked but the sense.
"""

import json
import os
import subprocess

from stage import TOP, free_port, wait_until

CONFIG = """
[model]
path = {model}
context = 8192
[mqtt]
enabled = true
url = "mqtt://127.0.0.1:{broker}"
node = "scripted"
discovery = false
[dbus]
enabled = false
[threads]
count = 1
[commands]
min_confidence = 0.0
most = 2
[homeassistant]
names = "mqtt"
instructions = ""
prompt = ""
[wyoming]
enabled = true
listen = "0.0.0.0:{port}"
zeroconf = true
"""


class Scripted:
    def __init__(self, stage, names, sentences):
        """With the names of a message of the blueprint's, and what is said to each sentence: `{sentence: answer}`."""
        self.stage, self.port = stage, free_port()
        config = stage.directory / "scripted.toml"
        model = json.dumps(str(TOP / "tests/fixtures/tiny-a"))
        config.write_text(CONFIG.format(model=model, broker=stage.port, port=self.port), encoding="utf-8")
        script = stage.directory / "script.json"
        lines = [{"user": sentence, "say": json.dumps(answer, separators=(",", ":"))} for sentence, answer in sentences.items()]
        script.write_text(json.dumps(lines), encoding="utf-8")
        stage.publish("gemmad/scripted/names", names, retain=True)
        self.log = stage.directory / "scripted.log"
        argv = [stage.gemmad, "run", "--config", config, "--state-dir", stage.directory / "scripted"]
        environment = {**os.environ, "GEMMAD_SCRIPT": str(script)}
        with open(self.log, "wb") as log:
            stage.spawn([str(part) for part in argv], stdout=log, stderr=subprocess.STDOUT, env=environment)
        wait_until("it knows the names", lambda: "that can be commanded" in self.log.read_text())

    def has_names(self, names):
        """Others, and as many of them as can be commanded; gemmad obeys every few seconds."""
        self.stage.publish("gemmad/scripted/names", names, retain=True)
        wait_until("it knows the other names", lambda: f"named {len(names['entities'])} entities" in self.log.read_text())
