"""A voice pipeline of Home Assistant, run as a satellite's browser runs it: sound over the websocket, at the pace of speech."""

import array
import asyncio
import json
import random
import time
import wave

import aiohttp

from stage import Trouble

PERIOD_S = 0.032
RATE_HZ = 16_000
# More than anybody waits for: whoever is still not answered then is not.
PATIENCE_S = 20


def make(hub, name, stt, agent):
    """The id of a new pipeline; nothing is spoken."""
    made = hub.ask(
        "assist_pipeline/pipeline/create", name=name, language="en", conversation_engine=agent, conversation_language="en",
        stt_engine=stt, stt_language="en", tts_engine=None, tts_language=None, tts_voice=None,
        wake_word_entity=None, wake_word_id=None, prefer_local_intents=False,
    )
    return made["id"]


def speak(hub, pipeline, clip, **more):
    """Says a clip, and then nothing more, and never that it is over: what was heard, what came of it, and the seconds between the clip's
    last sample and each."""
    return hub.talk(lambda say: _speak(say, pipeline, clip, more))


async def _speak(say, pipeline, clip, more):
    started = await say("assist_pipeline/run", start_stage="stt", end_stage="intent", pipeline=pipeline, input={"sample_rate": RATE_HZ}, **more)
    if started is not None:
        raise Trouble(f"the pipeline says {started}")
    with wave.open(str(clip)) as file:
        samples = array.array("h", file.readframes(file.getnframes()))
    noise = random.Random(0)
    room = array.array("h", (round(noise.gauss(0, 16)) for _ in range(RATE_HZ * PATIENCE_S)))
    length = round(RATE_HZ * PERIOD_S)
    socket, seen, handler = say.socket, {}, None
    ended_at = begun = None

    async def feed():
        nonlocal ended_at, begun
        begun, sound = time.monotonic(), samples + room
        for n in range(0, len(sound), length):
            await asyncio.sleep(max(0.0, begun + n / RATE_HZ - time.monotonic()))
            if n >= len(samples) and ended_at is None:
                ended_at = time.monotonic()
            await socket.send_bytes(bytes([handler]) + sound[n : n + length].tobytes())

    feeder = None
    try:
        while "run-end" not in seen and "error" not in seen:
            message = await asyncio.wait_for(socket.receive(), len(samples) / RATE_HZ + PATIENCE_S)
            if message.type != aiohttp.WSMsgType.TEXT:
                raise Trouble(f"the pipeline ends with {message.type}")
            answer = json.loads(message.data)
            if answer["type"] != "event":
                continue
            event = answer["event"]
            seen[event["type"]] = (time.monotonic(), event["data"])
            if event["type"] == "run-start":
                handler = event["data"]["runner_data"]["stt_binary_handler_id"]
                feeder = asyncio.create_task(feed())
    finally:
        if feeder is not None:
            feeder.cancel()
    if "error" in seen:
        raise Trouble(f"the pipeline says {seen['error'][1]}")
    after = {kind: round(seen[kind][0] - (ended_at or time.monotonic()), 2) for kind in ("stt-end", "intent-end")}
    return seen["stt-end"][1]["stt_output"]["text"], seen["intent-end"][1]["intent_output"]["response"], after
