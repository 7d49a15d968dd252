"""What goes wrong in a house: brokers die, plugs are pulled, files are edited, switches are pressed, and people stop in the middle of a
sentence. Each fault leaves everything as it was, so that what comes after it is owed as before."""

import os
import random
import signal
import threading
import time

from doors import CLIPS, LEAD, NODE
from stage import Trouble


class Faults:
    def __init__(self, house):
        self.house, self.ledger = house, house.ledger
        self.chance = random.Random(f"{house.seed} faults")
        self.done = {}  # name: how often
        self.marks = []  # seconds and name
        self.threads = []

    def start(self):
        for body in (self._broker, self._devices, self._talkers):
            thread = threading.Thread(target=body, daemon=True)
            thread.start()
            self.threads.append(thread)

    def join(self):
        for thread in self.threads:
            thread.join(240)

    def pause(self, least, most, chance=None):
        """Whether it goes on after so many seconds."""
        return not self.house.closing.wait((chance or self.chance).uniform(least, most))

    def note(self, name):
        self.done[name] = self.done.get(name, 0) + 1
        self.marks.append((round(self.house.now(), 1), name))

    # The broker.

    def _broker(self):
        chance = random.Random(f"{self.house.seed} broker")
        while self.pause(25, 75, chance):
            when = chance.choice(["before", "after", "unacknowledged", "unacknowledged", "idle"])
            self.note("the broker is killed")
            if when == "idle" or not self.house.tap.kill_in_flight(when, 10):
                self.house.broker.kill()
            time.sleep(chance.choice([0.0, 0.5, 2.0, 8.0, 20.0]))
            self.house.broker.start()

    # Clients that speak and stop.

    def _talkers(self):
        while self.pause(2, 8, random.Random()):
            free = [talker for talker in self.house.talkers if not talker.busy.locked()]
            if free:
                free[0].use()
                self.note("a bad talker")

    # Everything else, one after the other.

    def _devices(self):
        kinds = [
            (self.unplug_quiet, 2),
            (self.unplug_in_the_middle, 3),
            (self.pipe_is_gone, 1),
            (self.mute, 2),
            (self.mute_in_the_middle, 3),
            (self.camera_is_gone, 2),
            (self.camera_is_switched, 2),
            (self.reload_the_same, 2),
            (self.reload_something_else, 3),
            (self.reload_nonsense, 2),
            (self.slices, 2),
            (self.quiet, 1),
        ]
        while self.pause(2, 10):
            fault = self.chance.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
            self.note(fault.__name__.replace("_", " "))
            try:
                fault()
            except Trouble as trouble:
                if not self.house.closing.is_set():
                    self.ledger.stray(f"after {fault.__name__}: {trouble}")

    def microphone(self):
        return self.chance.choice(self.house.replayed)

    def half_a_sentence(self, microphone):
        """Speaks until the daemon says that it hears somebody; the sentence does not end."""
        microphone.clip = self.chance.choice(list(CLIPS))
        clip = CLIPS[microphone.clip]
        microphone.speak(microphone.room[: 2 * LEAD] + clip[: len(clip) * 7 // 10].tobytes())
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.house.caller.get(microphone.path, "Microphone", "Speaking"):
                return True
            time.sleep(0.02)
        return False

    def back(self, microphone):
        self.pause(0, 4)
        microphone.plug()
        microphone.wait_state("online")

    def unplug_quiet(self):
        microphone = self.microphone()
        with microphone.reserved():
            microphone.unplug()
            microphone.wait_state("offline")
            self.back(microphone)

    def unplug_in_the_middle(self):
        """What was heard still counts: one event, cut."""
        microphone = self.microphone()
        with microphone.reserved():
            owed = microphone.begin()
            heard = self.half_a_sentence(microphone)
            microphone.unplug()
            if not heard:
                self.ledger.withdraw(owed, "too little was said to be speech")
            microphone.wait(owed, self.house.patience_s)
            microphone.wait_state("offline")
            self.back(microphone)

    def pipe_is_gone(self):
        microphone = self.microphone()
        aside = microphone.pipe.with_suffix(".away")
        with microphone.reserved():
            microphone.pipe.rename(aside)
            microphone.unplug()
            microphone.wait_state("offline")
            self.pause(0, 4)
            aside.rename(microphone.pipe)
            self.back(microphone)

    def switch(self, microphone, muted):
        if self.chance.random() < 0.5 and self.house.watcher.publish(
            f"gemmad/{NODE}/mic/{microphone.name}/mute/set", b"ON" if muted else b"OFF"
        ):
            time.sleep(1)
        # The broker may have lost it, and nothing tells when it has not.
        self.house.caller.set(microphone.path, "Microphone", "Muted", ["b", muted])

    def mute(self):
        microphone = self.microphone()
        with microphone.reserved():
            self.switch(microphone, True)
            microphone.wait_state("muted")
            self.pause(0, 3)
            microphone.drain()
            self.switch(microphone, False)
            microphone.wait_state("online")

    def mute_in_the_middle(self):
        """What was heard is forgotten: no event."""
        microphone = self.microphone()
        with microphone.reserved():
            microphone.current = None  # whatever comes now is a stray
            self.half_a_sentence(microphone)
            self.house.caller.set(microphone.path, "Microphone", "Muted", ["b", True])
            microphone.wait_state("muted")
            microphone.drain()
            self.pause(0, 3)
            self.switch(microphone, False)
            microphone.wait_state("online")
            # What was broken off is not to come later.
            self.pause(1, 2)

    def camera_is_gone(self):
        camera = self.house.moving
        directory = camera.camera.directory
        aside = directory.with_suffix(".away")
        with camera.reserved():
            directory.rename(aside)
            camera.wait_state("offline")
            self.pause(0, 4)
            aside.rename(directory)
            camera.wait_state("online")

    def camera_is_switched(self):
        camera, caller = self.house.moving, self.house.caller
        with camera.reserved():
            if self.chance.random() < 0.5:
                caller.set(camera.path, "Camera", "Enabled", ["b", False])
                camera.wait_state("disabled")
                self.pause(0, 3)
                caller.set(camera.path, "Camera", "Enabled", ["b", True])
                camera.wait_state("online")
            else:
                caller.set(camera.path, "Camera", "CaptionsEnabled", ["b", False])
                self.pause(0, 3)
                caller.set(camera.path, "Camera", "CaptionsEnabled", ["b", True])

    def hang_up(self):
        os.kill(self.house.stage.daemon.pid, signal.SIGHUP)

    def reload_the_same(self):
        self.hang_up()

    def reload_something_else(self):
        """Another hangover for a microphone and another rate for a camera: both threads begin anew."""
        microphone, camera = self.microphone(), self.house.moving
        with microphone.reserved(), camera.reserved():
            self.house.choices[microphone.name] = {"hangover_ms": self.chance.choice([400, 500, 600])}
            self.house.choices[camera.name] = {"fps": self.chance.choice([4.0, 5.0, 6.0])}
            self.house.write_config()
            if self.chance.random() < 0.5:
                self.hang_up()
                time.sleep(1)
            # The bus tells when it is done; twice changes nothing.
            answer = self.house.caller.call("/org/gemmad1", "org.gemmad1.Manager", "Reload")
            if "ok" not in answer:
                self.ledger.stray(f"a good file is not taken: {answer}")
            microphone.wait_state("online")
            camera.wait_state("online")

    def reload_nonsense(self):
        """The old configuration stays."""
        with self.house.config_lock:
            good = self.house.stage.config.read_text()
            self.house.stage.config.write_text(good + "\n[nonsense]\n")
            answer = self.house.caller.call("/org/gemmad1", "org.gemmad1.Manager", "Reload")
            if "error" not in answer:
                self.ledger.stray("a wrong file was taken")
            self.house.stage.config.write_text(good)

    def slices(self):
        names = self.house.slices()
        if names:
            self.house.caller.call("/org/gemmad1", "org.gemmad1.Manager", "SetMatFormer", self.chance.choice(names))
            self.house.watcher.publish(f"gemmad/{NODE}/max_tokens/set", str(self.chance.randrange(64, 256)).encode())

    def quiet(self):
        """Nobody does anything until the towers are unloaded."""
        self.house.quiet.set()
        self.pause(10, 12)
        self.house.quiet.clear()
