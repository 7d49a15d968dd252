"""The bus: callers that stay connected (tests/common/bus_client.py, one process each), and somebody who hears all of it."""

import json
import re
import subprocess
import threading

from stage import TOP, Trouble, wait_until

ROOT = "/org/gemmad1"
EVENTS = ("Transcript", "Command", "Caption", "Rejected")


class Caller:
    """Calls, one after the other."""

    def __init__(self, stage):
        # Debian's own Python has Debian's python3-dbus; another one first on the PATH has not.
        argv = ["/usr/bin/python3", str(TOP / "tests/common/bus_client.py"), stage.bus]
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)
        stage.children.append(self.child)
        self.lock = threading.Lock()
        if "ok" not in self._answer():
            raise Trouble("cannot call on the bus: is python3-dbus there? Run `make deps`")

    def _answer(self):
        line = self.child.stdout.readline()
        if not line:
            raise Trouble("the caller on the bus is gone: is python3-dbus there? Run `make deps`")
        return json.loads(line)

    def call(self, path, interface, method, *args):
        """{"ok": value}, or {"error": name, "message": text}."""
        with self.lock:
            self.child.stdin.write(json.dumps({"path": path, "interface": interface, "method": method, "args": list(args)}) + "\n")
            return self._answer()

    def get(self, path, interface, name):
        """A property; nothing where it cannot be read."""
        return self.call(path, "org.freedesktop.DBus.Properties", "Get", f"org.gemmad1.{interface}", name).get("ok")

    def set(self, path, interface, name, value):
        return self.call(path, "org.freedesktop.DBus.Properties", "Set", f"org.gemmad1.{interface}", name, value)


class Monitor:
    """Everything that passes: `on_event(member, source, event)` for what was heard and seen, and how often each job was told to end."""

    def __init__(self, stage, on_event):
        argv = ["busctl", f"--address={stage.bus}", "--json=short", "monitor"]
        self.child = stage.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.on_event = on_event
        self.finished = {}  # path of a job: how often
        heard = threading.Event()

        def read():
            for line in self.child.stdout:
                heard.set()
                try:
                    message = json.loads(line)
                except ValueError:
                    continue
                self._message(message)

        threading.Thread(target=read, daemon=True).start()

        def ready():
            # It hears nothing before it is ready, so the bus is made to say something.
            subprocess.run(["busctl", f"--address={stage.bus}", "list"], stdout=subprocess.DEVNULL, check=False)
            return heard.is_set()

        wait_until("busctl hears the bus", ready)

    def _message(self, message):
        member = message.get("member")
        if message.get("interface") == "org.gemmad1.Events" and member in EVENTS:
            source, event = message["payload"]["data"]
            self.on_event(member, source, {key: value.get("data") for key, value in event.items()})
        elif message.get("interface") == "org.gemmad1.Job" and member == "Finished":
            path = message["path"]
            self.finished[path] = self.finished.get(path, 0) + 1


def short_error(answer):
    """The last part of an error's name: QueueFull of org.gemmad1.Error.QueueFull."""
    return re.sub(r".*\.", "", answer.get("error", "unknown"))
