"""A current Home Assistant Core whose own integrations speak to the door: Ollama, llama.cpp and LiteLLM.

A part of tests/clients, which has the house. Home Assistant runs in the Debian that tools/clients-ha.sh makes, whose network is this
machine's; it is asked as its page asks it.
"""

import json
import shutil
import subprocess
import sys

from stage import MODEL as HELD_OUT, TOP, Trouble, expected, wait_until

sys.path.insert(0, str(TOP / "tests/homeassistant"))
from hub import Hub  # noqa: E402

QUESTION = "turn off the kitchen light\nReturn the command as JSON:"
LOOK = "Describe what the camera sees."
PICTURE = "002_picture.png"
CLIP = "003_both.wav"

# Homes of so many lights.
HOMES = (5, 25, 60)


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
  allowlist_external_dirs: [DIRECTORY]
http:
  server_host: 127.0.0.1
  server_port: HTTP_PORT
config:
conversation:
media_source:
camera:
stt:
template: !include lights.yaml
"""
LIGHTS = "lights.yaml"


def same(what, found, wanted):
    if found != wanted:
        raise Trouble(f"{what}: {found!r} instead of {wanted!r}")


def spoken(response):
    return response["speech"]["plain"]["speech"]


def no_lights(directory):
    (directory / LIGHTS).write_text("[]", encoding="utf-8")


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
        agents = self.hub.of_domain("conversation")
        self.hub.add_to(self.ollama, "conversation", {"name": "gemmad", "model": f"{self.house.model}:latest", "prompt": "You are terse.", "num_ctx": 4096})
        agent = self.hub.new_of("conversation", agents)
        answer = spoken(self.hub.say(agent, QUESTION))
        if not answer.strip():
            raise Trouble("the agent says nothing")

    def ollama_looks_at_a_camera_for_an_ai_task(self):
        picture = self.hub.directory / PICTURE
        shutil.copy(HELD_OUT / "heldout/images" / PICTURE, picture)
        self.hub.add_integration("local_file", {"file_path": f"{self.hub.inside}/{PICTURE}"})
        camera = self.hub.new_of("camera")
        self.hub.add_to(self.ollama, "ai_task_data", {"name": "gemmad task", "model": f"{self.house.model}:latest"})
        self.task = self.hub.new_of("ai_task")
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
        agents = self.hub.of_domain("conversation")
        forms = {"base_url": f"{self.house.url}/v1", "api_key": self.house.key}, {"chat_model": self.house.model}
        self.hub.add_integration("llama_cpp", *forms)
        self.llama_cpp = self.hub.new_of("conversation", agents)
        # With the tools of Assist, which the demo model was never told of: that there is an answer is what is asked for.
        if not isinstance(spoken(self.hub.say(self.llama_cpp, QUESTION)), str):
            raise Trouble("the agent says nothing")

    def tools_turn_lights_on(self):
        """By Home Assistant's own tools, in homes of several sizes: the service that it calls is the right one, for the right light."""
        agents = self.hub.of_domain("conversation")
        asked = {"name": "with tools", "prompt": "You are terse.", "model": f"{self.house.model}:latest", "num_ctx": 32768, "llm_hass_api": ["assist"]}
        self.hub.add_to(self.ollama, "conversation", asked)
        by_ollama = self.hub.new_of("conversation", agents)
        for home in HOMES:
            self._have_lights(home)
            lights = {self.hub.states()[entity]["attributes"]["friendly_name"]: entity for entity in self.hub.of_domain("light")}
            for agent, entity in zip(AGENTS, (by_ollama, self.llama_cpp), strict=True):
                asked = [n for n in range(home) if any(line["user"] == sentence(agent, home, n) for line in SCRIPT)]
                for n in asked:
                    self._turns_on(entity, sentence(agent, home, n), lights[light(n)])
                print(f"    {agent}, {home} lights: {len(asked)} calls got through", flush=True)

    def _have_lights(self, count):
        """So many lights that remember whether they are on."""
        lights = [{"name": light(n), "unique_id": f"light_{n}", "turn_on": [], "turn_off": []} for n in range(count)]
        (self.hub.directory / LIGHTS).write_text(json.dumps([{"light": lights}], ensure_ascii=False), encoding="utf-8")
        self.hub.call("template", "reload")
        wait_until(f"{count} lights", lambda: len(self.hub.of_domain("light")) == count)

    def _turns_on(self, agent, text, light):
        answer, services = self.hub.called(lambda: self.hub.say(agent, text))
        wanted = "light", "turn_on", [light]
        if wanted not in [(domain, service, data.get("entity_id")) for domain, service, data in services]:
            raise Trouble(f"{text!r}: {services} instead of {wanted}; it said {spoken(answer)!r}")

    def litellm_listens(self):
        entry = self.hub.add_integration("litellm", {"url": self.house.url, "api_key": self.house.key})
        self.hub.add_to(entry, "stt", {"model": self.house.model, "custom_prompt_keywords": False})
        entity = self.hub.new_of("stt")
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
    hub = Hub(house.stage, CONFIGURATION, TOP / made.stdout.strip(), no_lights)
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
