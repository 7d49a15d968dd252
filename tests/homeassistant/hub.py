"""Home Assistant Core as a process of its own, spoken to as its page does: HTTP and the websocket.

Of this Python's, or of the Debian that tools/clients-ha.sh makes, whose network is this machine's.
"""

import asyncio
import contextlib
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from stage import Trouble, free_port, wait_until


class Hub:
    """Home Assistant in a directory of the stage, or of its Debian, `root`.

    In `configuration`, HTTP_PORT and DIRECTORY are replaced; `prepare` puts more files into its directory.
    """

    def __init__(self, stage, configuration, root=None, prepare=None):
        self.stage = stage
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = None
        self.process = None
        if root is None:
            self.directory = stage.directory / "homeassistant"
            self.directory.mkdir()
            self.inside = str(self.directory)
            self.argv, self.environment = [sys.executable], {}
        else:
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gemmad-", dir=pathlib.Path(root) / "tmp"))
            self.inside = f"/tmp/{self.directory.name}"
            self.argv = ["chroot", str(root), "/venv/bin/python"]
            path = "/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.environment = {"env": {"HOME": self.inside, "PATH": path, "LANG": "C.UTF-8"}}
        if prepare is not None:
            prepare(self.directory)
        text = configuration.replace("HTTP_PORT", str(self.port)).replace("DIRECTORY", self.inside)
        (self.directory / "configuration.yaml").write_text(text, encoding="utf-8")
        self.log = self.directory / "hass.log"
        self.start()
        self._onboard()
        wait_until("Home Assistant runs", self._runs, 120)

    def start(self):
        # --skip-pip: what it needs is installed, and a test downloads nothing.
        argv = [*self.argv, "-m", "homeassistant", "--config", self.inside, "--skip-pip"]
        with open(self.log, "ab") as log:
            self.process = self.stage.spawn(argv, stdout=log, stderr=log, **self.environment)
        wait_until("Home Assistant's page", self._serves, 240)
        if self.token:
            wait_until("Home Assistant runs", self._runs, 120)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def close(self):
        """Ends it, and leaves nothing in its Debian."""
        self.stop()
        shutil.rmtree(self.directory)

    def version(self):
        return self.get("/api/config")["version"]

    def _runs(self):
        return self.get("/api/config")["state"] == "RUNNING"

    def _serves(self):
        if self.process.poll() is not None:
            raise Trouble(f"Home Assistant ended:\n{self.log.read_text()[-6000:]}")
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.url}/manifest.json", timeout=5).status == 200

    def _onboard(self):
        """The first user, as its page makes one."""
        owner = {"client_id": f"{self.url}/", "name": "Test", "username": "test", "password": "test", "language": "en"}
        code = self.post("/api/onboarding/users", owner)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": f"{self.url}/"}
        body = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.url}/auth/token", body, timeout=30) as answer:
            self.token = json.load(answer)["access_token"]
        # The questions that follow; without their answers the page would ask them.
        for step in ("core_config", "analytics"):
            self.post(f"/api/onboarding/{step}", {})
        self.post("/api/onboarding/integration", {"client_id": f"{self.url}/", "redirect_uri": f"{self.url}/"})

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

    def ask(self, command, **more):
        """A command of the websocket; its result."""
        return asyncio.run(self._talk(lambda say: say(command, **more)))

    async def _talk(self, conversation):
        import aiohttp  # whoever asks by HTTP alone may be without it

        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/api/websocket", max_msg_size=0) as socket:
            await socket.receive_json()
            await socket.send_json({"type": "auth", "access_token": self.token})
            if (await socket.receive_json())["type"] != "auth_ok":
                raise Trouble("Home Assistant refuses the token")
            numbers = iter(range(1, 1_000_000))

            async def say(command, **more):
                number = next(numbers)
                await socket.send_json({"id": number, "type": command, **more})
                while True:
                    answer = await asyncio.wait_for(socket.receive_json(), 60)
                    if answer["id"] == number and answer["type"] == "result":
                        break
                if not answer.get("success"):
                    raise Trouble(f"{command}: {answer.get('error')}")
                return answer["result"]

            say.socket = socket
            return await conversation(say)

    def talk(self, conversation):
        """A conversation over one websocket: `conversation(say)`, where `say` is as `ask`, and `say.socket` the socket."""
        return asyncio.run(self._talk(conversation))

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

    def add_discovered(self, handler, name):
        """Under "Discovered", what calls itself `name` on the network: its form is confirmed."""

        def found():
            flows = self.ask("config_entries/flow/progress")
            named = [flow for flow in flows if flow["context"].get("title_placeholders", {}).get("name") == name]
            return next((flow for flow in named if (flow["handler"], flow["context"]["source"]) == (handler, "zeroconf")), None)

        wait_until(f"{name} is discovered", found, 60)
        done = self.post(f"/api/config/config_entries/flow/{found()['flow_id']}", {})
        if done["type"] != "create_entry":
            raise Trouble(f"{handler}: {done}")

    def add_to(self, entry, kind, *forms):
        """Under "Add conversation agent", and its like."""
        done = self.flow("subentries/flow", [entry, kind], *forms)
        if done["type"] != "create_entry":
            raise Trouble(f"{kind}: {done}")

    def devices(self):
        """Those of MQTT, by identifier."""
        found = {}
        for device in self.ask("config/device_registry/list"):
            for domain, identifier in device["identifiers"]:
                if domain == "mqtt":
                    found[identifier] = device
        return found

    def entities(self):
        """Those of MQTT's discovery, by unique id."""
        listed = self.ask("config/entity_registry/list")
        ours = [entity for entity in listed if entity["platform"] == "mqtt" and entity["device_id"]]
        found = {entity["unique_id"]: entity for entity in ours}
        if len(found) != len(ours):
            raise Trouble("two MQTT entities have the same unique id")
        return found

    def states(self):
        return {state["entity_id"]: state for state in self.get("/api/states")}

    def state(self, entity_id):
        return self.states().get(entity_id, {}).get("state")

    def of_domain(self, domain):
        """Ids of the entities of a domain."""
        return {entity_id for entity_id in self.states() if entity_id.startswith(f"{domain}.")}

    def new_of(self, domain, known=()):
        """The id of a new entity of a domain, once it is there."""
        return wait_until(f"an entity of {domain}", lambda: next(iter(self.of_domain(domain) - set(known)), None))

    def call(self, domain, service, **data):
        return self.post(f"/api/services/{domain}/{service}", data)

    def say(self, agent, text, **more):
        """What a conversation agent answers."""
        question = {"text": text, "language": "en", "agent_id": agent, **more}
        return self.post("/api/conversation/process", question)["response"]

    def called(self, act):
        """What `act` gives, and the services that Home Assistant calls meanwhile: domain, service, and its data."""
        stream = urllib.request.Request(f"{self.url}/api/stream?restrict=call_service", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(stream, timeout=120) as events:
            while b"ping" not in events.readline():
                pass
            answer = act()
            # The last of them.
            self.call("persistent_notification", "create", message="The end.")
            calls = []
            for line in events:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])["data"]
                if event["domain"] == "persistent_notification":
                    return answer, calls
                calls.append((event["domain"], event["service"], event["service_data"]))
        raise Trouble("the stream of events ended")
