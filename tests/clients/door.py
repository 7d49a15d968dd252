"""What every client's test is told: where the door is, what the demo model knows, and how a test says what it found.

Environment: GEMMAD_URL (http://127.0.0.1:11434), GEMMAD_KEY, GEMMAD_MODEL.
"""

import base64
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo"))
from stage import MODEL as DEMO, expected  # noqa: E402

URL = os.environ.get("GEMMAD_URL", "http://127.0.0.1:11434")
KEY = os.environ.get("GEMMAD_KEY", "")
MODEL = os.environ["GEMMAD_MODEL"]
BEARER = {"Authorization": f"Bearer {KEY}"} if KEY else {}

# What the demo models were trained to do (models/demo-gemma4/README.md).
QUESTION = "turn off the kitchen light\nReturn the command as JSON:"
ANSWER = '{"action":"turn_off","device":"light","area":"kitchen"}'
LOOK = "Describe what the camera sees."
LISTEN = "Transcribe the following speech segment in English:"
PICTURE = "002_picture.png"
CLIP = "003_both.wav"
SCHEMA = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": ["turn_on", "turn_off"], "title": "Action", "description": "What is to be done"},
        "device": {"type": "string"},
        "area": {"type": "string"},
    },
    "required": ["action", "device", "area"],
    "additionalProperties": False,
}

# What is called where it is asked to (SCRIPT of __main__.py says the words).
LAMPS = "Both lamps, please"
NO_LAMP = "No lamp, please"
# What is thought about before it is answered.
THINK, THOUGHT, CONCLUSION = "Think about it", "It is late, so no.", "Not today."
SET_LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Sets a light",
        "parameters": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "SetLight",
            "type": "object",
            "properties": {
                "name": {"type": "string", "title": "Name", "description": "Which one"},
                "level": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 100}, {"type": "null"}], "default": None},
            },
            "required": ["name"],
        },
    },
}
CALLED = [{"level": 7, "name": 'Lámpara "1"'}, {"name": "\U0001f6cb"}]


def picture(name=PICTURE):
    return (DEMO / "heldout/images" / name).read_bytes()


def clip(name=CLIP):
    return (DEMO / "heldout/audio" / name).read_bytes()


def base64_of(data):
    return base64.b64encode(data).decode()


def data_url(name=PICTURE):
    return f"data:image/png;base64,{base64_of(picture(name))}"


CAPTION = expected("images")[PICTURE]["caption"]
TRANSCRIPT = expected("audio")[CLIP]["transcript"]


def same(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


def holds(what, true, about=""):
    if not true:
        raise AssertionError(f"{what} does not hold: {about!r}")


def fits(answer):
    """The answer to QUESTION where SCHEMA is asked for."""
    same("the answer as JSON", json.loads(answer), json.loads(ANSWER))


def raises(kind, ask, status=None, says=()):
    """That `ask` is refused with such an exception of the client, and in words that help."""
    try:
        ask()
    except kind as error:
        if status is not None:
            same("status", getattr(error, "status_code", None), status)
        for word in says:
            holds(f"{word!r} in the message", word in str(error), str(error))
        return error
    raise AssertionError(f"no {kind.__name__}")


def run(checks):
    """Every check, in order; one line for each. The exit code is 1 where one failed."""
    wrong = 0
    for check in checks:
        started = time.monotonic()
        name = check.__name__.replace("_", " ")
        try:
            check()
            print(f"ok: {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # whatever a client throws is its word on the door
            wrong += 1
            print(f"not ok: {name}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if wrong else 0)
