"""`make clients-test`: unmodified clients, a browser and a fuzzer at the door of a real daemon with a demo model.

    python3 tests/clients GEMMAD [PART ...]

tools/clients-test.sh installs them into target/clients first; CLIENTS is that folder, and PICTURES where the browser's pictures go.
Without a PART it runs all of PARTS; "quick" are those of QUICK. Each client also runs by itself against any door: see door.py.
"""

import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "demo"))
from stage import MODEL as HELD_OUT, MODELS, TOP, Stage, Trouble, free_port, wait_until  # noqa: E402
import fleet  # noqa: E402
import home_assistant  # noqa: E402
import load  # noqa: E402

INSTALLED = pathlib.Path(os.environ.get("CLIENTS", TOP / "target/clients")).resolve()
PICTURES = pathlib.Path(os.environ.get("PICTURES", INSTALLED / "pictures")).resolve()
BACKGROUND = "013_combo.png"

CONFIG = """
[http]
enabled = true
listen = "127.0.0.1:{port}"
api_key_file = {key}
[[microphone]]
id = "kitchen"
name = "Kitchen"
device = "kitchen"
answer = "both"
[[microphone]]
id = "den"
name = "Den"
device = "den"
trigger = "wake_word"
[microphone.wake]
models = [{wake}]
[speaker]
device = "loudspeaker"
tts = "tcp://127.0.0.1:{voice}"
sounds = false
half_duplex = false
[[camera]]
id = "porch"
name = "Porch"
type = "replay"
directory = {pictures}
fps = 5.0
cooldown_s = 1
[camera.motion]
off_delay_s = 1
"""


# What the model says to these sentences, which no demo model was trained for: the tests of tools look at everything but the choice of words.
SCRIPT = home_assistant.SCRIPT + [
    {"user": "Both lamps, please", "say": "<|tool_call>call:set_light{level:7,name:<|\"|>Lámpara \"1\"<|\"|>}<tool_call|><|tool_call>call:set_light{name:<|\"|>\U0001f6cb<|\"|>}<tool_call|>", "then": "Both are on."},
    {"user": "No lamp, please", "say": "As you like."},
    {"user": "Think about it", "say": "<|channel>thought\nIt is late, so no.\n<channel|>Not today."},
]


class House:
    """The daemon with its door, a microphone and a camera."""

    def __init__(self, stage):
        self.stage = stage
        stage.start_broker()
        stage.start_bus()
        joined = fleet.CONFIG.format(port=fleet.Fleet(stage).port)
        self.microphone, self.camera = stage.microphone("kitchen"), stage.camera("porch")
        # A wake word's model that takes any sound for its word.
        wake = stage.directory / "hello.json"
        wake.write_bytes((TOP / "fuzz/corpus/wake/seed-manifest").read_bytes())
        wake.with_suffix(".tflite").write_bytes((TOP / "fuzz/corpus/wake/seed-model").read_bytes())
        stage.microphone("den")
        stage.speaker("loudspeaker")
        voice = free_port()
        spoken = stage.directory / "spoken"
        stage.spawn([str(INSTALLED / "requirements/bin/python"), str(TOP / "tests/common/tts_server.py"), str(voice), str(spoken)])
        self.show(BACKGROUND)
        self.key = secrets.token_urlsafe(24)
        key = stage.directory / "key"
        key.write_text(f"{self.key}\n")
        key.chmod(0o600)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        commands = (TOP / "config/examples/demo-commands.toml").read_text(encoding="utf-8")
        config = CONFIG.format(port=self.port, key=f'"{key}"', pictures=f'"{self.camera.directory}"', wake=f'"{wake}"', voice=voice)
        # A house of sixty lights is a long prompt for a small vocabulary.
        stage.write_config("demo", f"context = 32768\n{commands}{config}{joined}", next(iter(MODELS.values())))
        script = stage.directory / "script.json"
        script.write_text(json.dumps(SCRIPT, ensure_ascii=False), encoding="utf-8")
        os.environ["GEMMAD_SCRIPT"] = str(script)
        stage.start_daemon()
        wait_until("the door answers", self.answers)
        (self.model, *_) = self.ask("/v1/models")["data"]
        self.model = self.model["id"]
        # It would be woken all the time; who looks at it opens it.
        self.ask("/page/microphones/den/mute", b"")

    def answers(self):
        self.stage.check_daemon()
        try:
            return self.ask("/health")["status"] == "ok"
        except OSError:
            return False

    def restore(self):
        """Whatever the part before has switched: the microphone hears, the camera is watched and described, nothing waits."""
        for button in ("microphones/kitchen/unmute", "cameras/porch/enable", "cameras/porch/captions-on"):
            self.ask(f"/page/{button}", b"")
        wait_until("nothing waits", lambda: self.ask("/page/state")["health"]["queues"]["jobs"] == 0, 120)

    def ask(self, path, body=None):
        request = urllib.request.Request(self.url + path, body, {"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()

    def say(self, clip):
        self.microphone.say(HELD_OUT / "heldout/audio" / clip)

    def show(self, picture):
        self.camera.show(HELD_OUT / "heldout/images" / picture)

    def run(self, argv, **more):
        """A client; what it prints comes out, except for what it wishes to be said and shown. Its exit code."""
        environment = {
            **os.environ,
            "GEMMAD_URL": self.url,
            "GEMMAD_KEY": self.key,
            "GEMMAD_MODEL": self.model,
            "NODE_PATH": str(INSTALLED / "npm/node_modules"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }
        wishes = {"say": self.say, "show": self.show}
        with subprocess.Popen([str(part) for part in argv], env=environment, cwd=self.stage.directory, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                verb, _, what = line.strip().partition(" ")
                if verb in wishes:
                    wishes[verb](what)
                else:
                    print(f"    {line.rstrip()}", flush=True)
        return child.returncode


def python(environment, program):
    return lambda house: house.run([INSTALLED / environment / "bin/python", HERE / program])


def node(program, *arguments):
    return lambda house: house.run([INSTALLED / "node", HERE / program, *arguments])


def page(house):
    PICTURES.mkdir(parents=True, exist_ok=True)
    return house.run([INSTALLED / "node", HERE / "page.mjs", HELD_OUT / "heldout", PICTURES])


def metrics(house):
    """Judged by Prometheus's own tool."""
    text = house.ask("/metrics")
    judged = subprocess.run([INSTALLED / "prometheus/usr/bin/promtool", "check", "metrics"], input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print("".join(f"    {line}\n" for line in judged.stdout.splitlines()), end="")
    print(f"    ok: {text.count('# TYPE')} metrics" if judged.returncode == 0 else "    not ok: promtool")
    return judged.returncode


def fuzz(house):
    """Requests that nobody would write. 503 is an answer, any other 5xx is none (501 of what is not built is not among the routes)."""
    openapi = house.stage.directory / "openapi.yaml"
    openapi.write_text((HERE / "openapi.yaml").read_text(encoding="utf-8").replace("MODEL", house.model), encoding="utf-8")
    argv = [INSTALLED / "requirements/bin/schemathesis", "--config-file", HERE / "schemathesis.toml", "run", openapi, "--url", house.url]
    return house.run([*argv, "--header", f"Authorization: Bearer {house.key}"])


PARTS = {
    "openai": python("requirements", "openai_client.py"),
    "openai-pinned": python("requirements-pinned", "openai_client.py"),
    "ollama": python("requirements", "ollama_client.py"),
    "ollama-pinned": python("requirements-pinned", "ollama_client.py"),
    "litellm": python("requirements-litellm", "litellm_client.py"),
    "shapes": python("requirements", "shapes.py"),
    "openai-node": node("openai_client.mjs"),
    "ollama-node": node("ollama_client.mjs"),
    "langchain": node("langchain.mjs"),
    "node-red": node("node_red.mjs"),
    "page": page,
    "metrics": metrics,
    "fuzz": fuzz,
    "load": load.run,
    "home-assistant": home_assistant.run,
}
# Without what takes long to install (the rest of the environments) or to run.
QUICK = ["openai", "ollama", "shapes", "openai-node", "ollama-node", "langchain", "node-red", "page", "metrics", "fuzz"]


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= {*PARTS, "quick"}:
        sys.exit(f"usage: python3 tests/clients GEMMAD [quick | {' | '.join(PARTS)} ...]")
    # Whoever ends this ends what it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = QUICK if sys.argv[2:] == ["quick"] else sys.argv[2:] or list(PARTS)
    wrong = []
    with Stage(sys.argv[1]) as stage:
        try:
            house = House(stage)
            for name in chosen:
                started = time.monotonic()
                print(f"{name}:", flush=True)
                house.restore()
                code = PARTS[name](house)
                stage.check_daemon()
                if code != 0:
                    wrong.append(name)
                print(f"  {name}: {'ok' if code == 0 else 'WRONG'}, {time.monotonic() - started:.0f} s", flush=True)
            if (code := stage.stop_daemon()) != 0:
                wrong.append(f"the daemon, whose exit code is {code}")
            if "panicked" in stage.log.read_text(errors="replace"):
                wrong.append("the daemon, which panicked")
        except (Trouble, OSError) as trouble:
            wrong.append(str(trouble))
        if wrong:
            print(f"the end of the daemon's log:\n{stage.log.read_text(errors='replace')[-6000:]}", file=sys.stderr)
    print(f"clients: {len(chosen) - len(wrong)} passed, {len(wrong)} failed{': ' if wrong else ''}{', '.join(wrong)}")
    return 1 if wrong else 0


sys.exit(main())
