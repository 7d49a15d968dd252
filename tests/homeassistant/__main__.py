"""`make ha-test`: gemmad, a real broker, and a real Home Assistant with the blueprints of packaging/homeassistant.

    python tests/homeassistant [--root DEBIAN] target/release/gemmad [PICTURE.png]      (by a Python that has requirements.txt)

With a Debian, that of tools/clients-ha.sh, the Home Assistant is the one in there. With a picture, Chromium takes one of the page of a
device.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import wave

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo"))
from stage import MODEL, TOP, Messages, Stage, Trouble, expected, free_port, wait_until  # noqa: E402
from house import CONFIG, DEVICE, DEVICES, NODE, entities  # noqa: E402
from hub import Hub  # noqa: E402
from phone import Phone  # noqa: E402
from scripted import Scripted  # noqa: E402
from voice import Voice  # noqa: E402
import picture  # noqa: E402
import pipeline  # noqa: E402
import wyoming_client  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
BLUEPRINTS = TOP / "packaging/homeassistant"

TRANSCRIPT = "013_voice.wav"  # Turn the bedroom light on.
COMMAND = "008_combo.wav"  # Switch off the lamp in the bedroom.
PICTURE = "002_picture.png"  # A person is standing at the front door.
OTHER_PICTURE = "008_picture.png"  # A black dog is standing in the garden.


class House:
    """The stage, its Home Assistant, and what the broker carried."""

    def __init__(self, stage, root):
        self.stage = stage
        self.phone = Phone()
        self.messages = []
        stage.start_broker()
        stage.start_bus()
        self.hall, self.bedroom = stage.microphone("hall"), stage.microphone("bedroom")
        self.loudspeaker = stage.speaker("loudspeaker")
        self.voice, self.speaks = Voice(), True
        self.porch = stage.camera("porch")
        self.porch.show(MODEL / "heldout/images" / PICTURE)
        commands = (TOP / "config/examples/demo-commands.toml").read_text(encoding="utf-8")
        self.wyoming, self.http = free_port(), free_port()
        pictures = json.dumps(str(self.porch.directory))
        config = CONFIG.format(pictures=pictures, wyoming=self.wyoming, http=self.http, voice=self.voice.port)
        stage.write_config(NODE, commands + config)
        Messages(stage, lambda topic, payload: self.messages.append((topic, payload)))
        configuration = (HERE / "configuration.yaml").read_text(encoding="utf-8")
        self.hub = Hub(stage, configuration.replace("PHONE_URL", self.phone.url), root, self._furnish)
        # From 2026.1 on, a pipeline may leave it to the service when a speaker is done, and take several intents.
        self.is_new = self.hub.version() >= "2026"

    def _furnish(self, directory):
        blueprints = directory / "blueprints/automation/gemmad"
        blueprints.mkdir(parents=True)
        for blueprint in BLUEPRINTS.glob("*.yaml"):
            shutil.copy(blueprint, blueprints)
        shutil.copy(HERE / "automations.yaml", directory)

    def page(self):
        """What gemmad's page shows of what happened, the newest first."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/page/state", timeout=30) as answer:
            return json.load(answer)["recent"]

    def on(self, topic):
        return [payload for found, payload in self.messages if found == topic]

    def wait_for(self, topic, number=1):
        return wait_until(f"{number} messages on {topic}", lambda: self.on(topic)[number - 1 :])[0]

    def available(self):
        """Whether every entity of the node is there and available, by Home Assistant's own state."""
        states = self.hub.states()
        known = [states.get(entity["entity_id"], {}).get("state") for entity in self.hub.entities().values()]
        return len(known) == len(entities(self.speaks)) and None not in known and "unavailable" not in known

    def ready(self):
        self.stage.check_daemon()
        return self.available()


def same(what, got, wanted):
    if got != wanted:
        raise Trouble(f"{what}:\n  expected {wanted}\n  got      {got}")


def blueprints_are_valid(house):
    """By Home Assistant's schemas of blueprints and automations; and they are the ones that are loaded."""
    listed = house.hub.ask("blueprint/list", domain="automation")
    ours = {path: found for path, found in listed.items() if path.startswith("gemmad/")}
    same("blueprints", sorted(ours), sorted(f"gemmad/{file.name}" for file in BLUEPRINTS.glob("*.yaml")))
    same("faults of blueprints", {path: found["error"] for path, found in ours.items() if "error" in found}, {})
    states = house.hub.states()
    automations = {name: found["state"] for name, found in states.items() if name.startswith("automation.")}
    same("automations", sorted(automations.values()), ["off"] + ["on"] * 7)


def discovery_makes_the_devices_and_entities(house):
    broker = {"broker": "127.0.0.1", "port": house.stage.port}
    if house.is_new:
        broker["other_settings"] = {"set_client_cert": False, "set_ca_cert": "off", "transport": "tcp"}
    house.hub.add_integration("mqtt", broker)
    house.stage.start_daemon()
    wait_until("all entities are available", house.ready, 120)
    compare_with_the_table(house)


def compare_with_the_table(house):
    devices = house.hub.devices()
    names = {device["id"]: identifier for identifier, device in devices.items()}
    made = {
        identifier: (device["name"], device["model"], names.get(device["via_device_id"]))
        for identifier, device in devices.items()
    }
    same("devices", made, DEVICES)
    version = subprocess.run([house.stage.gemmad, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    same("versions", {device["sw_version"] for device in devices.values()}, {version})
    states = house.hub.states()
    made = {}
    for unique_id, entity in house.hub.entities().items():
        attributes = states[entity["entity_id"]]["attributes"]
        domain = entity["entity_id"].split(".")[0]
        what = attributes.get("device_class"), attributes.get("unit_of_measurement"), entity["entity_category"]
        made[unique_id] = (domain, *what, names.get(entity["device_id"]))
    same("entities", dict(sorted(made.items())), dict(sorted(entities(house.speaks).items())))


def a_sentence_goes_to_assist_and_the_reply_is_published(house):
    same("the light before", house.hub.state("light.bedroom_light"), "off")
    house.hall.say(MODEL / "heldout/audio" / TRANSCRIPT)
    reply = json.loads(house.wait_for("test/reply"))
    same("heard", reply["heard"], expected("audio")[TRANSCRIPT]["transcript"])
    same("source", reply["source"], "hall")
    if not reply["reply"]:
        raise Trouble(f"Assist says nothing: {reply}")
    wait_until("the light is on", lambda: house.hub.state("light.bedroom_light") == "on")
    same("the sensor", house.hub.state("sensor.hall_last_transcript"), reply["heard"])


def the_reply_is_spoken(house):
    """By the board that heard, and by a loudspeaker that tells what it plays; with a text-to-speech service of the test's own."""
    voice = house.voice
    house.hub.add_integration("wyoming", {"host": "127.0.0.1", "port": voice.port})
    wait_until("the voice", lambda: house.hub.state("tts.voice") is not None)
    house.hall.say(MODEL / "heldout/audio" / TRANSCRIPT)
    reply = json.loads(house.wait_for("test/reply", 2))
    # The board does so at once, by the topic that the blueprint was given; the reply before was one.
    said = house.wait_for(f"gemmad/{NODE}/response/say", 2)
    same("what came of it", json.loads(said)["status"], "ok")
    same("what the board says", voice.spoken[-1], reply["reply"])
    by_board = len(voice.spoken)
    if house.loudspeaker.stat().st_size < 40_000:
        raise Trouble("what the board plays is no half second of sound")
    wait_until("something is played", lambda: house.on("test/played"))
    played = house.on("test/played")[0].decode()
    # What a loudspeaker does with that: it fetches the sound, and only then the voice speaks.
    found = house.hub.ask("media_source/resolve_media", media_content_id=played)
    with urllib.request.urlopen(house.hub.url + found["url"], timeout=60) as answer:
        if len(answer.read()) < 1000:
            raise Trouble("what is played is no sound")
    same("spoken", voice.spoken[by_board:], [reply["reply"]])


def a_command_does_what_its_blueprint_says(house):
    same("the lamp before", house.hub.state("light.bedroom_lamp"), "on")
    house.bedroom.say(MODEL / "heldout/audio" / COMMAND)
    wait_until("the lamp is off", lambda: house.hub.state("light.bedroom_lamp") == "off")
    voice = house.hub.states()["event.bedroom_voice"]["attributes"]
    same("the event", (voice["event_type"], voice["command"]["name"]), ("command", "turn_off"))
    same("the other automation's command", house.on("test/never"), [])


def what_comes_again_is_done_once(house):
    """After a lost connection MQTT brings the last event again, with its id. New ones are obeyed."""
    topic = f"gemmad/{NODE}/mic/bedroom/event"
    said = [json.loads(payload) for payload in house.on(topic)][-1]
    same("the last event", said["event_type"], "command")

    def lamp_after(event):
        """Whether the lamp is still on after an event."""
        house.hub.call("light", "turn_on", entity_id="light.bedroom_lamp")
        wait_until("the lamp is on", lambda: house.hub.state("light.bedroom_lamp") == "on")
        before = house.hub.state("event.bedroom_voice")
        house.stage.publish(topic, event)
        wait_until("the event is seen", lambda: house.hub.state("event.bedroom_voice") != before)
        time.sleep(1)  # whatever it sets off is set off by now
        return house.hub.state("light.bedroom_lamp")

    for n in range(1, 4):
        same("the lamp after the same event again", lamp_after(said), "on")
        said = {**said, "id": f"{n}" + said["id"][1:]}
        same("the lamp after another one", lamp_after(said), "off")


def a_caption_is_an_event_and_a_notification_with_its_picture(house):
    before = house.hub.state("event.porch_caption")
    house.hub.call("button", "press", entity_id="button.porch_describe")
    wait_until("a caption's event", lambda: house.hub.state("event.porch_caption") != before)
    caption = house.hub.states()["event.porch_caption"]["attributes"]
    same("the caption", caption["caption"], expected("images")[PICTURE]["caption"])
    notice = wait_until("a notification", lambda: house.phone.told[:1])[0]
    same("the notification", (notice["message"], notice["title"]), (caption["caption"], "porch"))
    with urllib.request.urlopen(house.hub.url + notice["image"], timeout=30) as answer:
        same("the picture", hashlib.sha256(answer.read()).hexdigest(), caption["image_sha256"])
    # Another picture, in which there is neither a person nor a package: an event, but no notification.
    house.porch.show(MODEL / "heldout/images" / OTHER_PICTURE)
    before = house.hub.state("event.porch_caption")
    house.hub.call("button", "press", entity_id="button.porch_describe")
    wait_until("another caption's event", lambda: house.hub.state("event.porch_caption") != before)
    caption = house.hub.states()["event.porch_caption"]["attributes"]
    same("the other caption", caption["caption"], expected("images")[OTHER_PICTURE]["caption"])
    time.sleep(1)  # if it were to come, it would be here
    same("notifications", len(house.phone.told), 1)


def what_frigate_saw_is_told_at_once_and_in_words_later(house):
    """One notification: the phone puts what has the same tag in its place."""
    house.hub.call("automation", "turn_on", entity_id="automation.what_frigate_sees_at_the_gate")
    before = len(house.phone.told)
    seen = {"id": "1.5-abc", "camera": "the_gate", "label": "person", "false_positive": False}

    def alerted():
        # Home Assistant subscribes a moment later.
        house.stage.publish("frigate/events", {"type": "new", "before": seen, "after": seen})
        time.sleep(0.5)
        return len(house.phone.told) > before

    wait_until("the alert", alerted)
    before = len(house.phone.told) - 1
    house.stage.publish("frigate/events", {"type": "update", "before": seen, "after": seen})
    house.stage.publish("frigate/events", {"type": "new", "before": seen, "after": {**seen, "camera": "yard"}})
    topic = f"gemmad/{NODE}/camera/the_gate/event"
    house.stage.publish(topic, {"event_type": "failed", "caption": "", "frigate": seen})
    house.stage.publish(topic, {"event_type": "caption", "caption": "A man rings.", "frigate": seen})
    told = wait_until("both alerts", lambda: house.phone.told[before:] if len(house.phone.told) >= before + 2 else None)
    shown = [(notice["title"], notice["message"], notice["tag"], notice["image"]) for notice in told]
    picture = "/api/frigate/notifications/1.5-abc/snapshot.jpg"
    same("alerts", shown, [("the gate", words, "1.5-abc", picture) for words in ("person seen", "A man rings.")])


def switches_and_questions_reach_the_daemon(house):
    house.hub.call("switch", "turn_on", entity_id="switch.hall_mute")
    wait_until("the microphone is muted", lambda: house.on(f"gemmad/{NODE}/mic/hall/state")[-1:] == [b"muted"])
    house.hub.call("switch", "turn_off", entity_id="switch.hall_mute")
    wait_until("the microphone is open", lambda: house.on(f"gemmad/{NODE}/mic/hall/state")[-1:] == [b"online"])
    ask = house.hub.entities()[f"{DEVICE}_ask"]["entity_id"]
    answer = house.hub.entities()[f"{DEVICE}_answer"]["entity_id"]
    house.hub.call("notify", "send_message", entity_id=ask, message="turn off the kitchen light\nReturn the command as JSON:")
    wanted = '{"action":"turn_off","device":"light","area":"kitchen"}'
    wait_until("the answer in its sensor", lambda: house.hub.state(answer) == wanted)


def the_wyoming_client_of_pypi_gets_transcripts_and_intents(house):
    heard, understood, clips = wyoming_client.check(house.wyoming)
    print(f"         of {clips} held-out clips {heard} were heard rightly, of their sentences {understood} understood")


def assist_listens_by_wyoming(house):
    """Speech to text and a conversation agent of Home Assistant's own integration."""
    house.hub.add_integration("wyoming", {"host": "127.0.0.1", "port": house.wyoming})
    wait_until("an stt entity", lambda: house.hub.state("stt.gemmad") is not None)
    wait_until("a conversation agent", lambda: house.hub.state("conversation.gemmad") is not None)
    # Samples without a header, as Assist's pipelines send them.
    with wave.open(str(MODEL / "heldout/audio" / COMMAND)) as clip:
        samples = clip.readframes(clip.getnframes())
    speech = "format=wav; codec=pcm; sample_rate=16000; bit_rate=16; channel=1; language=en"
    heard = house.hub.send("/api/stt/stt.gemmad", samples, {"X-Speech-Content": speech})
    wanted = expected("audio")[COMMAND]["transcript"]
    same("heard", heard, {"text": wanted, "result": "success"})
    house.hub.call("light", "turn_on", entity_id="light.bedroom_lamp")
    wait_until("the lamp is on", lambda: house.hub.state("light.bedroom_lamp") == "on")
    answer = house.hub.say("conversation.gemmad", wanted)
    same("Assist says", answer["speech"]["plain"]["speech"], "The lamp in the bedroom is off.")
    wait_until("the lamp is off", lambda: house.hub.state("light.bedroom_lamp") == "off")


def a_pipeline_does_what_is_said(house):
    """Sound at the pace of speech, of which nobody says that it is over."""
    made = pipeline.make(house.hub, "gemmad", "stt.gemmad", "conversation.gemmad")
    house.hub.call("light", "turn_on", entity_id="light.bedroom_lamp")
    wait_until("the lamp is on", lambda: house.hub.state("light.bedroom_lamp") == "on")
    heard, answer, after = pipeline.speak(house.hub, made, MODEL / "heldout/audio" / COMMAND)
    same("heard", heard, expected("audio")[COMMAND]["transcript"])
    same("Assist says", answer["speech"]["plain"]["speech"], "The lamp in the bedroom is off.")
    wait_until("the lamp is off", lambda: house.hub.state("light.bedroom_lamp") == "off")
    whose = "gemmad's" if house.is_new else "Home Assistant's"
    print(f"         {after['stt-end']} s after the last sample it was heard, after {after['intent-end']} s it was done ({whose} silence)")


def names_come_by_the_blueprint(house):
    """What is in an area is named, with its floor, and again when an area is changed."""
    topic = f"gemmad/{NODE}/names"
    ask = house.hub.ask
    upstairs = ask("config/floor_registry/create", name="Upstairs")["floor_id"]
    # Home Assistant begins with some areas.
    bedroom = next(area["area_id"] for area in ask("config/area_registry/list") if area["name"] == "Bedroom")
    ask("config/area_registry/update", area_id=bedroom, floor_id=upstairs)
    for entity in ("light.bedroom_light", "light.bedroom_lamp", "cover.blinds"):
        ask("config/entity_registry/update", entity_id=entity, area_id=bedroom)
    hall = house.hub.devices()[f"{DEVICE}_mic_bedroom"]["id"]
    ask("config/device_registry/update", device_id=hall, area_id=bedroom)

    def named():
        last = house.on(topic)[-1:]
        names = json.loads(last[0]) if last and last[0] else {}
        return names if len(names.get("entities", [])) == 4 and names["speakers"] else None

    names = wait_until("the names", named)
    entities_ = {entity["id"]: (entity["name"], entity["area"], entity["aliases"]) for entity in names["entities"]}
    same("entities", entities_, {
        "light.bedroom_light": ("bedroom light", "Bedroom", []),
        "light.bedroom_lamp": ("bedroom lamp", "Bedroom", ["מנורה", 'Bob\'s "lamp" 💡']),
        "cover.blinds": ("blinds", "Bedroom", []),
        "scene.night": ("night", None, []),
    })
    areas = {area["name"]: (area["aliases"], area["floor"]) for area in names["areas"]}
    same("areas", areas, {"Living Room": ([], None), "Kitchen": ([], None), "Bedroom": (["Schlafzimmer"], "Upstairs")})
    same("floors", names["floors"], [{"name": "Upstairs", "aliases": []}])
    same("speakers", names["speakers"], {f"{DEVICE}_mic_bedroom": "Bedroom"})
    wait_until("gemmad takes the names", lambda: "named 4 entities" in house.stage.log.read_text())
    house.names = names


def what_is_commanded_of_the_home_is_done_and_answered(house):
    """An event as gemmad publishes it; what comes of it is shown on gemmad's page."""
    topic = f"gemmad/{NODE}/mic/bedroom/event"
    said = [json.loads(payload) for payload in house.on(topic)][-1]

    def command(name, slots, entity):
        return {"name": name, "slots": slots, "entities": [entity]}

    def tell(number, *commands):
        event = {**said, "id": f"{number}H" + said["id"][2:], "text": "as commanded", "command": commands[0]}
        house.stage.publish(topic, {**event, **({"commands": commands} if len(commands) > 1 else {})})
        return event["id"]

    lamp, blinds = "light.bedroom_lamp", "cover.blinds"
    house.hub.call("light", "turn_on", entity_id=lamp)
    wait_until("the lamp is on", lambda: house.hub.state(lamp) == "on")
    off, down = command("HassTurnOff", {"name": "bedroom lamp"}, lamp), command("HassTurnOff", {"name": "blinds"}, blinds)
    first = tell(1, off, down)
    wait_until("the lamp is off", lambda: house.hub.state(lamp) == "off")
    wait_until("the blinds go down", lambda: house.on("test/blinds")[-1:] == [b"CLOSE"])
    tell(2, command("HassSetPosition", {"name": "blinds", "position": 40}, blinds))
    wait_until("the blinds go to 40 %", lambda: house.on("test/blinds/position")[-1:] == [b"40"])
    tell(3, command("HassLightSet", {"name": "bedroom lamp", "brightness": 30}, lamp))
    wait_until("the lamp is dimmed", lambda: house.on("test/brightness")[-1:] == [b"76"])
    tell(4, {"name": "HassStartTimer", "slots": {"minutes": 5}, "entities": []})
    wait_until("the timer runs", lambda: house.hub.state("timer.kitchen") == "active")
    last = tell(5, command("HassGetState", {"name": "bedroom lamp"}, lamp))

    def replies():
        return {event["data"]["id"]: event["data"]["text"] for event in house.page() if event["event"] == "replied"}

    wait_until("the page has the answers", lambda: last in replies())
    told = replies()
    same("answers", (told[first], told[last]), ("OK", "bedroom lamp: on"))


def several_intents_of_one_sentence_are_executed(house):
    """Names of Home Assistant, a model that says what is written down, and its own pipeline: what it does is what was said."""
    lamp, blinds = "light.bedroom_lamp", "cover.blinds"
    off = {"command": "HassTurnOff", "name": "bedroom lamp"}
    both = "Lamp off and blinds down"
    scripted = Scripted(house.stage, house.names, {both: [off, {"command": "HassTurnOff", "name": "blinds"}], "Lamp off": off})
    known = house.hub.of_domain("conversation")
    # It need not be told where that is: the network says so.
    house.hub.add_discovered("wyoming", "gemmad")
    agent = house.hub.new_of("conversation", known)
    # In homes of several sizes, the two things somewhere among the others.
    real = [entity for entity in house.names["entities"] if entity["id"] in (lamp, blinds)]
    for size in (5, 25, 60):
        others = [{"id": f"light.other_{n}", "name": f"other light {n}", "aliases": [], "area": None} for n in range(size - 2)]
        scripted.has_names({**house.names, "entities": others[: size // 2] + real + others[size // 2 :]})
        house.hub.call("light", "turn_on", entity_id=lamp)
        wait_until("the lamp is on", lambda: house.hub.state(lamp) == "on")
        before = len(house.on("test/blinds"))
        # Several intents of one answer came with Wyoming 1.10.
        answer = house.hub.say(agent, both if house.is_new else "Lamp off")
        same("what kind of answer", answer["response_type"], "action_done")
        wait_until("the lamp is off", lambda: house.hub.state(lamp) == "off")
        if house.is_new:
            wait_until("the blinds go down", lambda before=before: house.on("test/blinds")[before:] == [b"CLOSE"])


def a_killed_daemon_is_unavailable_and_comes_back_once(house):
    connectivity = house.hub.entities()[f"{DEVICE}_connectivity"]["entity_id"]
    actions = counts(house)
    house.stage.daemon.kill()
    house.stage.daemon.wait()

    def gone():
        states = house.hub.states()
        others = [e["entity_id"] for e in house.hub.entities().values() if e["entity_id"] != connectivity]
        return states[connectivity]["state"] == "off" and all(states[e]["state"] == "unavailable" for e in others)

    wait_until("all entities are unavailable, and connectivity is off", gone)
    house.stage.start_daemon()
    wait_until("all entities are available again", house.ready, 120)
    compare_with_the_table(house)
    time.sleep(1)  # whatever a return would set off is set off by now
    same("automations ran", counts(house), actions)


def home_assistant_starts_again_without_ghosts(house):
    before = {unique_id: entity["id"] for unique_id, entity in house.hub.entities().items()}
    actions = counts(house)
    house.hub.stop()
    house.hub.start()
    wait_until("all entities are available again", house.ready, 120)
    after = {unique_id: entity["id"] for unique_id, entity in house.hub.entities().items()}
    same("entities in the registry", after, before)
    compare_with_the_table(house)
    time.sleep(1)
    same("automations ran", counts(house), actions)
    # And it still works.
    replies = len(house.on("test/reply"))
    house.hall.say(MODEL / "heldout/audio" / TRANSCRIPT)
    house.wait_for("test/reply", replies + 1)


def counts(house):
    """What automations have done so far."""
    return len(house.on("test/reply")), len(house.phone.told), len(house.on("test/never"))


def a_speaker_that_is_taken_out_is_gone(house):
    config = house.stage.config.read_text(encoding="utf-8")
    before, _, rest = config.partition("[speaker]")
    house.stage.config.write_text(f"{before}[[microphone]]{rest.partition('[[microphone]]')[2]}", encoding="utf-8")
    house.stage.daemon.send_signal(signal.SIGHUP)
    house.speaks = False
    wait_until("its entities are gone", house.available)
    compare_with_the_table(house)


def what_is_removed_is_gone(house):
    same("the daemon's exit code", house.stage.stop_daemon(), 0)
    argv = [house.stage.gemmad, "mqtt-clear", "--config", house.stage.config]
    subprocess.run(argv, check=True, timeout=60)
    wait_until("no device and no entity is left", lambda: not house.hub.devices() and not house.hub.entities())
    # Automations are the user's, and the Wyoming server is another integration's.
    others = ("automation.", "stt.", "tts.", "conversation.", "assist_satellite.")
    names = [name for name in house.hub.states() if not name.startswith(others)]
    same("ghosts", [name for name in names if any(part in name for part in ("gemmad", "hall", "porch", "voice"))], [])


PICTURED = a_caption_is_an_event_and_a_notification_with_its_picture

CHECKS = [
    blueprints_are_valid,
    discovery_makes_the_devices_and_entities,
    a_sentence_goes_to_assist_and_the_reply_is_published,
    the_reply_is_spoken,
    a_command_does_what_its_blueprint_says,
    what_comes_again_is_done_once,
    a_caption_is_an_event_and_a_notification_with_its_picture,
    what_frigate_saw_is_told_at_once_and_in_words_later,
    switches_and_questions_reach_the_daemon,
    the_wyoming_client_of_pypi_gets_transcripts_and_intents,
    assist_listens_by_wyoming,
    a_pipeline_does_what_is_said,
    names_come_by_the_blueprint,
    what_is_commanded_of_the_home_is_done_and_answered,
    several_intents_of_one_sentence_are_executed,
    a_killed_daemon_is_unavailable_and_comes_back_once,
    home_assistant_starts_again_without_ghosts,
    a_speaker_that_is_taken_out_is_gone,
    what_is_removed_is_gone,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, help="the Debian of tools/clients-ha.sh")
    parser.add_argument("gemmad")
    parser.add_argument("picture", type=pathlib.Path, nargs="?")
    wanted = parser.parse_args()
    started = time.monotonic()
    with Stage(wanted.gemmad) as stage:
        house = None
        try:
            house = House(stage, wanted.root)
            print(f"Home Assistant {house.hub.version()}", flush=True)
            for number, check in enumerate(CHECKS, 1):
                check(house)
                if check is PICTURED and wanted.picture:
                    picture.take(house, f"{DEVICE}_camera_porch", wanted.picture)
                print(f"{time.monotonic() - started:5.0f} s  ok {number} of {len(CHECKS)}: {check.__name__.replace('_', ' ')}", flush=True)
            log = house.hub.log.read_text()
            # Home Assistant tells what it dislikes of a discovery message, a template or a blueprint.
            disliked = [line for line in log.splitlines() if " ERROR " in line or " WARNING " in line]
            disliked = [line for line in disliked if any(word in line for word in ("mqtt", "template", "automation", "blueprint"))]
            same("complaints of Home Assistant", disliked, [])
            house.hub.close()
        except (Trouble, subprocess.SubprocessError, OSError) as trouble:
            print(f"ha-test: {trouble}", file=sys.stderr)
            logs = [stage.log, stage.directory / "scripted.log"] + ([house.hub.log] if hasattr(house, "hub") else [])
            for log in logs:
                if log.exists():
                    print(f"the end of {log.name}:\n{log.read_text()[-6000:]}", file=sys.stderr)
            return 1
    print(f"all {len(CHECKS)} right")
    return 0


sys.exit(main())
