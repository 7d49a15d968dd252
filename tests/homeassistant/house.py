"""What Home Assistant must make of a node with two microphones and a camera: by hand, from its documentation of MQTT entities."""

NODE = "cottage"
DEVICE = f"gemmad_{NODE}"

# Device: its name, model, and the device that it hangs on.
DEVICES = {
    DEVICE: ("gemmad cottage", "demo", None),
    f"{DEVICE}_mic_hall": ("Hall", "Microphone", DEVICE),
    f"{DEVICE}_mic_bedroom": ("Bedroom", "Microphone", DEVICE),
    f"{DEVICE}_camera_porch": ("Porch", "Camera", DEVICE),
}

# Key: domain, device class, unit, category.
OF_NODE = {
    "connectivity": ("binary_sensor", "connectivity", None, "diagnostic"),
    "problem": ("binary_sensor", "problem", None, "diagnostic"),
    "model": ("sensor", "enum", None, "diagnostic"),
    "tokens_per_second": ("sensor", None, "tokens/s", "diagnostic"),
    "prefill_tokens_per_second": ("sensor", None, "tokens/s", "diagnostic"),
    "queue_depth": ("sensor", None, None, "diagnostic"),
    "dropped_total": ("sensor", None, None, "diagnostic"),
    "soc_temp": ("sensor", "temperature", "°C", "diagnostic"),
    "rss": ("sensor", "data_size", "MiB", "diagnostic"),
    "mem_text": ("sensor", "data_size", "MiB", "diagnostic"),
    "mem_ple": ("sensor", "data_size", "MiB", "diagnostic"),
    "mem_audio": ("sensor", "data_size", "MiB", "diagnostic"),
    "mem_vision": ("sensor", "data_size", "MiB", "diagnostic"),
    "matformer": ("select", None, None, "config"),
    "max_tokens": ("number", None, "tokens", "config"),
    "ask": ("notify", None, None, None),
    "answer": ("sensor", None, None, None),
    "reload": ("button", None, None, "config"),
    "forget": ("button", None, None, "config"),
    "job": ("event", None, None, None),
}
OF_SPEAKER = {
    "speaker": ("binary_sensor", "connectivity", None, "diagnostic"),
    "volume": ("number", None, "%", "config"),
    "silence": ("button", None, None, None),
}
SAY = {"say": ("notify", None, None, None)}
OF_MICROPHONE = {
    "mute": ("switch", None, None, "config"),
    "speech": ("binary_sensor", "sound", None, None),
    "voice": ("event", None, None, None),
    "last_transcript": ("sensor", None, None, None),
}
OF_CAMERA = {
    "captions": ("switch", None, None, "config"),
    "enabled": ("switch", None, None, "config"),
    "motion": ("binary_sensor", "motion", None, None),
    "caption": ("event", None, None, None),
    "last_caption": ("sensor", None, None, None),
    "last_frame": ("image", None, None, None),
    "describe": ("button", None, None, None),
}


def entities(speaks):
    """Unique id to what it is, and the device that it belongs to; of a board that has a speaker, or has none."""
    speaker, say = (OF_SPEAKER, SAY) if speaks else ({}, {})
    parts = {
        DEVICE: OF_NODE | speaker,
        f"{DEVICE}_mic_hall": OF_MICROPHONE | say,
        f"{DEVICE}_mic_bedroom": OF_MICROPHONE | say,
        f"{DEVICE}_camera_porch": OF_CAMERA,
    }
    return {f"{device}_{key}": (*what, device) for device, of in parts.items() for key, what in of.items()}


# The demo model was never told of homes: it goes on to say its own commands.
CONFIG = """
[homeassistant]
names = "mqtt"
instructions = ""
prompt = "Return the command as JSON:"

[http]
enabled = true
listen = "127.0.0.1:{http}"

[wyoming]
enabled = true
listen = "127.0.0.1:{wyoming}"

# What is played is no sound here, so no microphone has to rest.
[speaker]
device = "loudspeaker"
tts = "tcp://127.0.0.1:{voice}"
half_duplex = false

[[microphone]]
id = "hall"
name = "Hall"
device = "hall"

[[microphone]]
id = "bedroom"
name = "Bedroom"
device = "bedroom"
answer = "command"

[[camera]]
id = "porch"
name = "Porch"
type = "replay"
directory = {pictures}
[camera.motion]
enabled = false
"""
