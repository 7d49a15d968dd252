"""Home Assistant Core as a process of its own, spoken to as its page does: HTTP and the websocket."""

import asyncio
import contextlib
import http.server
import json
import pathlib
import shutil
import signal
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import aiohttp

from stage import TOP, Trouble, free_port, wait_until

HERE = pathlib.Path(__file__).resolve().parent
BLUEPRINTS = TOP / "packaging/homeassistant"


class Phone:
    """What a `notify.phone` of Home Assistant is told: its `rest` platform posts here."""

    def __init__(self):
        self.told = told = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Hub:
    """Home Assistant in a directory of the stage."""

    def __init__(self, stage):
        self.stage = stage
        self.phone = Phone()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = stage.directory / "homeassistant"
        blueprints = self.directory / "blueprints/automation/gemmad"
        blueprints.mkdir(parents=True)
        for blueprint in BLUEPRINTS.glob("*.yaml"):
            shutil.copy(blueprint, blueprints)
        configuration = (HERE / "configuration.yaml").read_text(encoding="utf-8")
        configuration = configuration.replace("PHONE_URL", self.phone.url).replace("HTTP_PORT", str(self.port))
        (self.directory / "configuration.yaml").write_text(configuration, encoding="utf-8")
        shutil.copy(HERE / "automations.yaml", self.directory)
        self.log = self.directory / "hass.log"
        self.process = None
        self.token = None
        self.start()
        self._onboard()

    def start(self):
        # --skip-pip: what it needs is installed, and a test downloads nothing.
        argv = [sys.executable, "-m", "homeassistant", "--config", str(self.directory), "--skip-pip"]
        with open(self.log, "ab") as log:
            self.process = self.stage.spawn(argv, stdout=log, stderr=log)
        wait_until("Home Assistant's page", self._serves, 180)
        if self.token:
            wait_until("Home Assistant runs", lambda: self.get("/api/config")["state"] == "RUNNING", 120)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def _serves(self):
        if self.process.poll() is not None:
            raise Trouble(f"Home Assistant ended:\n{self.log.read_text()}")
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
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Trouble(f"{method} {path}: {error}: {error.read().decode('utf-8', 'replace')}") from None

    def ask(self, command, **more):
        """A command of the websocket; its result."""

        async def talk():
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/api/websocket") as socket:
                await socket.receive_json()
                await socket.send_json({"type": "auth", "access_token": self.token})
                if (await socket.receive_json())["type"] != "auth_ok":
                    raise Trouble("Home Assistant refuses the token")
                await socket.send_json({"id": 1, "type": command, **more})
                return await asyncio.wait_for(socket.receive_json(), 60)

        answer = asyncio.run(talk())
        if not answer.get("success"):
            raise Trouble(f"{command}: {answer.get('error')}")
        return answer["result"]

    def add_integration(self, handler, **values):
        """What somebody fills in under "Add integration"."""
        flow = self.post("/api/config/config_entries/flow", {"handler": handler, "show_advanced_options": False})
        if flow["type"] != "form":
            raise Trouble(f"{handler}: {flow}")
        done = self.post(f"/api/config/config_entries/flow/{flow['flow_id']}", values)
        if done["type"] != "create_entry":
            raise Trouble(f"{handler}: {done}")

    def devices(self):
        """Those of MQTT, by identifier."""
        found = {}
        for device in self.ask("config/device_registry/list"):
            for domain, identifier in device["identifiers"]:
                if domain == "mqtt":
                    found[identifier] = device
        return found

    def entities(self):
        """Those of MQTT, by unique id."""
        listed = self.ask("config/entity_registry/list")
        found = {entity["unique_id"]: entity for entity in listed if entity["platform"] == "mqtt"}
        if len(found) != sum(entity["platform"] == "mqtt" for entity in listed):
            raise Trouble("two MQTT entities have the same unique id")
        return found

    def states(self):
        return {state["entity_id"]: state for state in self.get("/api/states")}

    def state(self, entity_id):
        return self.states().get(entity_id, {}).get("state")

    def call(self, domain, service, **data):
        return self.post(f"/api/services/{domain}/{service}", data)
