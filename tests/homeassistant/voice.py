"""A text-to-speech service: it says everything as the same tone, and notes what it said."""

import asyncio
import math
import struct
import threading

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler, AsyncServer
from wyoming.tts import Synthesize

from stage import free_port

FORMAT = {"rate": 16_000, "width": 2, "channels": 1}
TONE = b"".join(struct.pack("<h", round(8000 * math.sin(2 * math.pi * 440 * n / 16_000))) for n in range(8_000))

ABOUT = {"attribution": Attribution(name="", url=""), "installed": True, "description": "a tone", "version": "1"}
INFO = Info(tts=[TtsProgram(name="voice", voices=[TtsVoice(name="tone", languages=["en"], **ABOUT)], **ABOUT)])


class Voice:
    def __init__(self):
        self.port = free_port()
        self.spoken = spoken = []

        class Handler(AsyncEventHandler):
            async def handle_event(self, event: Event) -> bool:
                if Describe.is_type(event.type):
                    await self.write_event(INFO.event())
                elif Synthesize.is_type(event.type):
                    spoken.append(Synthesize.from_event(event).text)
                    await self.write_event(AudioStart(**FORMAT).event())
                    await self.write_event(AudioChunk(audio=TONE, **FORMAT).event())
                    await self.write_event(AudioStop().event())
                return True

        server = AsyncServer.from_uri(f"tcp://127.0.0.1:{self.port}")
        threading.Thread(target=lambda: asyncio.run(server.run(Handler)), daemon=True).start()
