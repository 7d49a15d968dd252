"""A gemmad whose model has random weights: a die that is thrown until it says what is wanted, and says it again and again after that.

Whatever it says went through the names of Home Assistant, the grammar and the Wyoming server as a real model's word does. Nothing of
it is faked but the sense.
"""

import asyncio
import json
import random
import subprocess

from wyoming.asr import Transcript
from wyoming.client import AsyncTcpClient

from stage import TOP, Trouble, free_port, wait_until

THROWS = 4000

CONFIG = """
[model]
path = {model}
context = 1024
[mqtt]
enabled = true
url = "mqtt://127.0.0.1:{broker}"
node = "dice"
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
listen = "127.0.0.1:{port}"
"""


class Dice:
    def __init__(self, stage, names):
        """With the names of a message of the blueprint's."""
        self.port = free_port()
        config = stage.directory / "dice.toml"
        model = json.dumps(str(TOP / "tests/fixtures/tiny-a"))
        config.write_text(CONFIG.format(model=model, broker=stage.port, port=self.port), encoding="utf-8")
        stage.publish("gemmad/dice/names", names, retain=True)
        self.log = stage.directory / "dice.log"
        argv = [stage.gemmad, "run", "--config", config, "--state-dir", stage.directory / "dice"]
        with open(self.log, "wb") as log:
            stage.spawn([str(part) for part in argv], stdout=log, stderr=subprocess.STDOUT)
        wait_until("the die knows the names", lambda: "that can be commanded" in self.log.read_text())

    def throw(self, fits):
        """A sentence whose intents, in order, fit: `fits([(name, slots), …])`."""
        return asyncio.run(asyncio.wait_for(self._throw(fits), 900))

    async def _throw(self, fits):
        async with AsyncTcpClient("127.0.0.1", self.port) as client:
            shake = random.Random(0)
            for _ in range(THROWS):
                sentence = "".join(shake.choices("lampofbindsw ", k=shake.randint(4, 40))).strip() or "lamp"
                await client.write_event(Transcript(text=sentence).event())
                intents, several = [], False
                while True:
                    event = await client.read_event()
                    if event is None:
                        raise Trouble(f"the die is gone: {self.log.read_text()[-2000:]}")
                    if event.type == "intent":
                        slots = {slot["name"]: slot["value"] for slot in event.data.get("entities", [])}
                        intents.append((event.data["name"], slots))
                    several = several or event.type == "intents-start"
                    if event.type in ("not-recognized", "error", "intents-stop") or (intents and not several):
                        break
                if intents and fits(intents):
                    return sentence
        raise Trouble(f"{THROWS} throws of the die, and none is right")
