"""The daemon's Wyoming server as the Python package `wyoming` sees it."""

import asyncio
import json
import wave

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioStart, wav_to_chunks
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.intent import Intent, NotRecognized, Recognize
from wyoming.ping import Ping, Pong

from stage import MODEL, Trouble, expected

CLIPS = 24  # all that are held out
RIGHT = 23  # of them, by the command line: models/demo/README.md


def check(port):
    """How many clips were heard and how many sentences understood, of how many; Trouble where anything is wrong."""
    return asyncio.run(asyncio.wait_for(talk(port), 240))


async def ask(client, event, wanted):
    """The next event of the type that is wanted."""
    if event is not None:
        await client.write_event(event.event())
    answer = await client.read_event()
    # A current client is told a transcript in pieces, too.
    while answer is not None and answer.type in ("transcript-start", "transcript-chunk", "transcript-stop"):
        answer = await client.read_event()
    if answer is None or not any(kind.is_type(answer.type) for kind in wanted):
        raise Trouble(f"expected {[kind.__name__ for kind in wanted]}, got {answer}")
    return next(kind.from_event(answer) for kind in wanted if kind.is_type(answer.type))


async def talk(port):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        info = await ask(client, Describe(), [Info])
        if [model.languages for program in info.asr for model in program.models] != [["en"]] or len(info.intent) != 1:
            raise Trouble(f"the service describes itself as {info}")
        if hasattr(info.asr[0], "requires_external_vad"):
            flags = info.asr[0]
            told = flags.requires_external_vad, flags.prefers_auto_gain_enabled, flags.prefers_noise_reduction_enabled
            if told != (False, False, False) or not flags.supports_transcript_streaming:
                raise Trouble(f"the service wants {flags}")
        if (await ask(client, Ping(text="here"), [Pong])).text != "here":
            raise Trouble("a ping came back changed")
        # One connection for everything: transcripts of all clips, then what each sentence means.
        heard, understood = 0, 0
        for file, row in expected("audio").items():
            with wave.open(str(MODEL / "heldout/audio" / file)) as clip:
                await client.write_event(Transcribe(language="en").event())
                for event in wav_to_chunks(clip, 1024, start_event=True, stop_event=True):
                    await client.write_event(event.event())
            transcript = await ask(client, None, [Transcript])
            heard += transcript.text == row["transcript"]
            answer = await ask(client, Recognize(text=row["transcript"]), [Intent, NotRecognized])
            if isinstance(answer, Intent):
                command = {"action": answer.name, **{entity.name: entity.value for entity in answer.entities}}
                understood += command == json.loads(row["json"])
        if (heard, understood) != (RIGHT, RIGHT):
            raise Trouble(f"of {CLIPS} clips {heard} were heard and {understood} understood; by the command line it is {RIGHT}")
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(AudioStart(rate=1, width=2, channels=1).event())
        error = await client.read_event()
        if error is None or error.type != "error" or await client.read_event() is not None:
            raise Trouble(f"sound of 1 Hz is answered with {error}")
    return heard, understood, CLIPS
