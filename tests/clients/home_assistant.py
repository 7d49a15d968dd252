"""A current Home Assistant Core whose own integrations speak to the door: Ollama, llama.cpp and LiteLLM.

A part of tests/clients, which has the house. Home Assistant runs in the Debian that tools/clients-ha.sh makes, whose network is this
machine's; it is asked as its page asks it.
"""

import json
import pathlib
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from stage import MODEL as HELD_OUT, TOP, Trouble, expected, free_port, wait_until

QUESTION = "turn off the kitchen light\nReturn the command as JSON:"
LOOK = "Describe what the camera sees."
PICTURE = "002_picture.png"
CLIP = "003_both.wav"

# Homes of so many lights.
HOMES = (5, 25, 60)
ROOMS = ("Kitchen", "Living Room", "Küche", "Salón")


def light(n):
    """Its name: some are such as people give."""
    return (f"Lamp {n}", f'Lamp "{n}"', f"Lámpara {n}", f"Büro {n} 🛋")[n % 4]


def sentence(agent, home, n):
    return f"{agent} of {home}: switch on {light(n)}, please."


def calls(name):
    return f'<|tool_call>call:{TURN_ON}{{domain:[<|"|>light<|"|>],name:<|"|>{name}<|"|>}}<tool_call|>'


TURN_ON = "intent__HassTurnOn"
AGENTS = ("ollama", "llama_cpp")
# What the model says, word by word; all else is what it is.
SCRIPT = [
    {"user": sentence(agent, home, n), "say": calls(light(n)), "then": "Done."} for agent in AGENTS for home in HOMES for n in range(home) if n % 4 == home % 4 or home == 5
]

CONFIGURATION = """
homeassistant:
  name: Test
  latitude: 0
  longitude: 0
  elevation: 0
  unit_system: metric
  time_zone: UTC
  allowlist_external_dirs: [{directory}]
http:
  server_host: 127.0.0.1
  server_port: {port}
config:
conversation:
media_source:
camera:
stt:
template: !include lights.yaml
"""


class Hub:
    """Home Assistant in a directory of its Debian."""

    def __init__(self, stage, root):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = None
        self.root = pathlib.Path(root)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gemmad-", dir=self.root / "tmp"))
        self.inside = f"/tmp/{self.directory.name}"
        (self.directory / "configuration.yaml").write_text(CONFIGURATION.format(directory=self.inside, port=self.port), encoding="utf-8")
        self.lights = self.directory / "lights.yaml"
        self.lights.write_text("[]", encoding="utf-8")
        self.log = self.directory / "hass.log"
        # --skip-pip: what it needs is installed, and a test downloads nothing.
        argv = ["chroot", str(self.root), "/venv/bin/python", "-m", "homeassistant", "--config", self.inside, "--skip-pip"]
        with open(self.log, "ab") as log:
            self.process = stage.spawn(argv, stdout=log, stderr=log, env={"HOME": self.inside, "PATH": "/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"})
        wait_until("Home Assistant's page", self._serves, 240)
        self._onboard()
        wait_until("Home Assistant runs", lambda: self.get("/api/config")["state"] == "RUNNING", 120)

    def close(self):
        self.process.terminate()
        self.process.wait(60)
        shutil.rmtree(self.directory)

    def _serves(self):
        if self.process.poll() is not None:
            raise Trouble(f"Home Assistant ended:\n{self.log.read_text()[-6000:]}")
        try:
            return urllib.request.urlopen(f"{self.url}/manifest.json", timeout=5).status == 200
        except OSError:
            return False

    def _onboard(self):
        """The first user, as its page makes one."""
        owner = {"client_id": f"{self.url}/", "name": "Test", "username": "test", "password": "test", "language": "en"}
        code = self.post("/api/onboarding/users", owner)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": f"{self.url}/"}
        body = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.url}/auth/token", body, timeout=30) as answer:
            self.token = json.load(answer)["access_token"]

    def get(self, path):
        return self._http("GET", path, None, {})

    def post(self, path, body):
        return self._http("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def send(self, path, body, headers):
        """POST of bytes."""
        return self._http("POST", path, body, headers)

    def _http(self, method, path, body, headers):
        if self.token:
            headers = {**headers, "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Trouble(f"{method} {path}: {error}: {error.read().decode('utf-8', 'replace')}") from None

    def flow(self, where, handler, *forms):
        """What somebody fills in, form by form; what comes of the last."""
        path = f"/api/config/config_entries/{where}"
        step = self.post(path, {"handler": handler, "show_advanced_options": False})
        for values in forms:
            if step["type"] != "form":
                raise Trouble(f"{handler}: {step}")
            step = self.post(f"{path}/{step['flow_id']}", values)
        return step

    def add_integration(self, handler, *forms):
        """Under "Add integration"; the entry's id."""
        done = self.flow("flow", handler, *forms)
        if done["type"] != "create_entry":
            raise Trouble(f"{handler}: {done}")
        return done["result"]["entry_id"]

    def add_to(self, entry, kind, *forms):
        """Under "Add conversation agent", and its like."""
        done = self.flow("subentries/flow", [entry, kind], *forms)
        if done["type"] != "create_entry":
            raise Trouble(f"{kind}: {done}")

    def entity(self, domain, among=()):
        """The id of a new entity of that domain, once it is there."""
        return wait_until(f"an entity of {domain}", lambda: next(iter(self.entities(domain) - set(among)), None))

    def entities(self, domain):
        return {state["entity_id"] for state in self.get("/api/states") if state["entity_id"].startswith(f"{domain}.")}

    def have_lights(self, count):
        """So many lights that remember whether they are on."""
        lights = [{"name": light(n), "unique_id": f"light_{n}", "turn_on": [], "turn_off": []} for n in range(count)]
        self.lights.write_text(json.dumps([{"light": lights}], ensure_ascii=False), encoding="utf-8")
        self.post("/api/services/template/reload", {})
        wait_until(f"{count} lights", lambda: len(self.entities("light")) == count)

    def called(self, act):
        """What `act` gives, and the services that Home Assistant calls meanwhile: domain, service, and entities."""
        request = urllib.request.Request(f"{self.url}/api/stream?restrict=call_service", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=120) as stream:
            while b"ping" not in stream.readline():
                pass
            answer = act()
            self.post("/api/services/persistent_notification/create", {"message": "The end."})
            calls = []
            for line in stream:
                if not line.startswith(b"data: {"):
                    continue
                data = json.loads(line[6:])["data"]
                if data["domain"] == "persistent_notification":
                    return answer, calls
                calls.append((data["domain"], data["service"], data["service_data"].get("entity_id")))
        raise Trouble("the stream of events ended")

    def say(self, agent, text):
        answer = self.post("/api/conversation/process", {"text": text, "language": "en", "agent_id": agent})
        return answer["response"]["speech"]["plain"]["speech"]


def same(what, found, wanted):
    if found != wanted:
        raise Trouble(f"{what}: {found!r} instead of {wanted!r}")


class Checks:
    """Each in its turn, for they build on one another."""

    def __init__(self, house, hub):
        self.house, self.hub = house, hub

    def a_wrong_key_is_refused_by_the_form(self):
        step = self.hub.flow("flow", "ollama", {"url": self.house.url, "api_key": f"{self.house.key}x"})
        same("what the form says", step["errors"], {"base": "invalid_auth"})

    def ollama_is_added(self):
        self.ollama = self.hub.add_integration("ollama", {"url": self.house.url, "api_key": self.house.key})

    def ollama_converses(self):
        agents = self.hub.entities("conversation")
        self.hub.add_to(self.ollama, "conversation", {"name": "gemmad", "model": f"{self.house.model}:latest", "prompt": "You are terse.", "num_ctx": 4096})
        agent = self.hub.entity("conversation", agents)
        answer = self.hub.say(agent, QUESTION)
        if not answer.strip():
            raise Trouble("the agent says nothing")

    def ollama_looks_at_a_camera_for_an_ai_task(self):
        picture = self.hub.directory / PICTURE
        shutil.copy(HELD_OUT / "heldout/images" / PICTURE, picture)
        self.hub.add_integration("local_file", {"file_path": f"{self.hub.inside}/{PICTURE}"})
        camera = self.hub.entity("camera")
        self.hub.add_to(self.ollama, "ai_task_data", {"name": "gemmad task", "model": f"{self.house.model}:latest"})
        self.task = self.hub.entity("ai_task")
        attached = [{"media_content_id": f"media-source://camera/{camera}", "media_content_type": "image/png"}]
        call = {"task_name": "look", "instructions": LOOK, "entity_id": self.task, "attachments": attached}
        answer = self.hub.post("/api/services/ai_task/generate_data?return_response", call)["service_response"]
        same("caption", answer["data"], expected("images")[PICTURE]["caption"])

    def ollama_gives_an_ai_task_its_structure(self):
        structure = {
            "action": {"selector": {"select": {"options": ["turn_on", "turn_off"]}}, "required": True},
            "device": {"selector": {"text": {}}, "required": True},
            "area": {"selector": {"text": {}}, "required": True},
        }
        call = {"task_name": "command", "instructions": QUESTION, "entity_id": self.task, "structure": structure}
        answer = self.hub.post("/api/services/ai_task/generate_data?return_response", call)["service_response"]
        # Home Assistant's own instructions come first, with the time, and the demo model was never told of such: not every slot is right.
        same("keys", sorted(answer["data"]), sorted(structure))
        same("one of the choices", answer["data"]["action"] in ("turn_on", "turn_off"), True)

    def llama_cpp_is_added_and_converses(self):
        agents = self.hub.entities("conversation")
        forms = {"base_url": f"{self.house.url}/v1", "api_key": self.house.key}, {"chat_model": self.house.model}
        self.hub.add_integration("llama_cpp", *forms)
        self.llama_cpp = self.hub.entity("conversation", agents)
        # With the tools of Assist, which the demo model was never told of: that there is an answer is what is asked for.
        if not isinstance(self.hub.say(self.llama_cpp, QUESTION), str):
            raise Trouble("the agent says nothing")

    def tools_turn_lights_on(self):
        """By Home Assistant's own tools, in homes of several sizes: the service that it calls is the right one, for the right light."""
        agents = self.hub.entities("conversation")
        asked = {"name": "with tools", "prompt": "You are terse.", "model": f"{self.house.model}:latest", "num_ctx": 32768, "llm_hass_api": ["assist"]}
        self.hub.add_to(self.ollama, "conversation", asked)
        by_ollama = self.hub.entity("conversation", agents)
        for home in HOMES:
            self.hub.have_lights(home)
            named = {state["attributes"]["friendly_name"]: state["entity_id"] for state in self.hub.get("/api/states") if state["entity_id"].startswith("light.")}
            for agent, entity in zip(AGENTS, (by_ollama, self.llama_cpp), strict=True):
                through = 0
                for n in range(home):
                    text = sentence(agent, home, n)
                    if not any(line["user"] == text for line in SCRIPT):
                        continue
                    said, services = self.hub.called(lambda entity=entity, text=text: self.hub.say(entity, text))
                    wanted = ("light", "turn_on", named[light(n)])
                    found = [(domain, service, entities[0] if isinstance(entities, list) else entities) for domain, service, entities in services]
                    if wanted not in found:
                        raise Trouble(f"{text!r}: {services} instead of {wanted}; it said {said!r}")
                    through += 1
                print(f"    {agent}, {home} lights: {through} calls got through", flush=True)

    def litellm_listens(self):
        entry = self.hub.add_integration("litellm", {"url": self.house.url, "api_key": self.house.key})
        self.hub.add_to(entry, "stt", {"model": self.house.model, "custom_prompt_keywords": False})
        entity = self.hub.entity("stt")
        clip = HELD_OUT / "heldout/audio" / CLIP
        speech = "format=wav; codec=pcm; sample_rate=16000; bit_rate=16; channel=1; language=en-US"
        # Samples without a header, as Assist's pipelines send them.
        heard = self.hub.send(f"/api/stt/{entity}", clip.read_bytes()[44:], {"X-Speech-Content": speech})
        same("heard", heard, {"text": expected("audio")[CLIP]["transcript"], "result": "success"})


def run(house):
    made = subprocess.run([TOP / "tools/clients-ha.sh"], stdout=subprocess.PIPE, text=True)
    if made.returncode != 0:
        print("    not ok: tools/clients-ha.sh could not make its Debian")
        return 1
    hub = Hub(house.stage, TOP / made.stdout.strip())
    checks, wrong = Checks(house, hub), 0
    for name, check in vars(Checks).items():
        if name.startswith("_"):
            continue
        try:
            check(checks)
            print(f"    ok: {name.replace('_', ' ')}", flush=True)
        except (Trouble, AttributeError, KeyError) as trouble:
            wrong += 1
            print(f"    not ok: {name.replace('_', ' ')}: {trouble}", flush=True)
    if wrong:
        print(f"    the end of Home Assistant's log:\n{hub.log.read_text()[-4000:]}")
    hub.close()
    return wrong
