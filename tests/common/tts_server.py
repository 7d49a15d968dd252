"""A text-to-speech server of the package `wyoming`, as piper's is made of: one tone for each sentence, at 22050 Hz.

    tts_server.py PORT LOG

It has one voice, "alba". Every sentence is written to LOG, a line each. What a sentence begins with says how it is said:

    "Die"     half of it, then the connection ends
    "Refuse"  an error
    "Mute"    nothing at all
    "Hold"    half of it, and no end
    else      all of it: 0.1 s
"""

import asyncio
import math
import sys

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler, AsyncTcpServer
from wyoming.tts import Synthesize

RATE = 22_050
SAMPLES = RATE // 10


def tone(count: int) -> bytes:
    samples = (round(16_000 * math.sin(2 * math.pi * 440 * at / RATE)) for at in range(count))
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)


def about(kind: type, name: str, **more: object) -> object:
    return kind(name=name, attribution=Attribution("", ""), installed=True, description=None, version=None, **more)


INFO = Info(tts=[about(TtsProgram, "tone", voices=[about(TtsVoice, "alba", languages=["en"])])])


class Handler(AsyncEventHandler):
    async def handle_event(self, event: Event) -> bool:
        if Describe.is_type(event.type):
            await self.write_event(INFO.event())
        if not Synthesize.is_type(event.type):
            return True
        asked = Synthesize.from_event(event)
        voice = asked.voice.name if asked.voice else "-"
        with open(sys.argv[2], "a", encoding="utf-8") as log:
            log.write(f"{voice}: {asked.text}\n")
        if asked.text.startswith("Mute"):
            return True
        if asked.text.startswith("Refuse"):
            await self.write_event(Error(text="no such voice").event())
            return True
        await self.write_event(AudioStart(rate=RATE, width=2, channels=1).event())
        sound = tone(SAMPLES)
        whole = asked.text[:4] not in ("Die ", "Hold")
        # Odd lengths: a chunk need not end with a sample.
        for at in range(0, len(sound) if whole else len(sound) // 2, 1001):
            await self.write_event(AudioChunk(rate=RATE, width=2, channels=1, audio=sound[at : at + 1001]).event())
        if asked.text.startswith("Die "):
            return False
        if whole:
            await self.write_event(AudioStop().event())
        return True


async def main() -> None:
    server = AsyncTcpServer("127.0.0.1", int(sys.argv[1]))
    await server.run(Handler)


asyncio.run(main())
