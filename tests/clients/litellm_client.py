"""LiteLLM, as a library: by way of OpenAI's dialect and of Ollama's."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices

import litellm  # noqa: E402
from door import ANSWER, CAPTION, KEY, LOOK, MODEL, QUESTION, SCHEMA, TRANSCRIPT, URL, clip, data_url, fits, holds, raises, run, same  # noqa: E402

litellm.telemetry = False
OPENAI = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": KEY or "none"}
OLLAMA = {"model": f"ollama_chat/{MODEL}", "api_base": URL, "api_key": KEY or "none"}
GREEDY = {"temperature": 0, "max_tokens": 60, "num_retries": 0, "timeout": 120}


def ask(where, content, **more):
    return litellm.completion(**where, **GREEDY, messages=[{"role": "user", "content": content}], **more)


def text_is_answered():
    for where in (OPENAI, OLLAMA):
        answer = ask(where, QUESTION)
        same("answer", answer.choices[0].message.content, ANSWER)
        holds("tokens", answer.usage.completion_tokens > 5, answer)


def a_stream_comes_in_pieces():
    for where in (OPENAI, OLLAMA):
        pieces = [chunk.choices[0].delta.content or "" for chunk in ask(where, QUESTION, stream=True)]
        same("answer", "".join(pieces), ANSWER)
        holds("pieces", len(pieces) > 3, pieces)


def a_picture_is_described():
    content = [{"type": "image_url", "image_url": {"url": data_url()}}, {"type": "text", "text": LOOK}]
    for where in (OPENAI, OLLAMA):
        same("caption", ask(where, content).choices[0].message.content, CAPTION)


def a_schema_is_kept():
    schema = {"type": "json_schema", "json_schema": {"name": "command", "strict": True, "schema": SCHEMA}}
    for where in (OPENAI, OLLAMA):
        fits(ask(where, QUESTION, response_format=schema).choices[0].message.content)


def sound_is_written_down():
    answer = litellm.transcription(**OPENAI, file=("audio.wav", clip()), language="en")
    same("transcript", answer.text, TRANSCRIPT)


def errors_are_told():
    raises(litellm.NotFoundError, lambda: ask({**OPENAI, "model": "openai/gpt-0"}, "a"))
    raises(litellm.BadRequestError, lambda: ask(OPENAI, "word " * 40_000))
    if KEY:
        raises(litellm.AuthenticationError, lambda: ask({**OPENAI, "api_key": f"{KEY}x"}, "a"))


run([text_is_answered, a_stream_comes_in_pieces, a_picture_is_described, a_schema_is_kept, sound_is_written_down, errors_are_told])
