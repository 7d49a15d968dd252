"""OpenAI's own client for Python, unmodified."""

import json
from typing import Literal

import openai
import pydantic
from door import ANSWER, CALLED, CAPTION, CONCLUSION, KEY, LAMPS, LISTEN, LOOK, MODEL, NO_LAMP, QUESTION, SCHEMA, SET_LIGHT, THINK, THOUGHT, TRANSCRIPT, URL, base64_of, clip, data_url, fits, holds, raises, run, same

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY or "none", max_retries=0, timeout=120)
PICTURE_PART = {"type": "image_url", "image_url": {"url": data_url(), "detail": "low"}}
SOUND_PART = {"type": "input_audio", "input_audio": {"data": base64_of(clip()), "format": "wav"}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "command", "strict": True, "schema": SCHEMA}}


def chat(content, **more):
    options = {"model": MODEL, "temperature": 0, "max_tokens": 60, **more}
    return client.chat.completions.create(messages=[{"role": "user", "content": content}], **options)


def models_are_listed():
    listed = client.models.list().data
    holds("the model is listed", MODEL in [model.id for model in listed], listed)
    same("created", {type(model.created) for model in listed}, {int})
    same("retrieved", client.models.retrieve(MODEL).id, MODEL)
    raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"), 404)


def text_is_answered():
    answer = chat(QUESTION)
    same("answer", answer.choices[0].message.content, ANSWER)
    same("role", answer.choices[0].message.role, "assistant")
    same("finish", answer.choices[0].finish_reason, "stop")
    same("object", answer.object, "chat.completion")
    usage = answer.usage
    same("total", usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    holds("tokens are counted", usage.prompt_tokens > 5 and usage.completion_tokens > 5, usage)


def max_tokens_cut_the_answer():
    for key in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model=MODEL, temperature=0, messages=[{"role": "user", "content": QUESTION}], **{key: 3})
        same("finish", answer.choices[0].finish_reason, "length")
        same("tokens", answer.usage.completion_tokens, 3)


def a_stop_string_ends_the_answer():
    answer = chat(QUESTION, stop=[',"area"'])
    same("answer", answer.choices[0].message.content, ANSWER.split(',"area"')[0])
    same("finish", answer.choices[0].finish_reason, "stop")


def a_seed_gives_the_same_again():
    once, again = (chat(QUESTION, temperature=1.5, top_p=0.95, seed=7).choices[0].message.content for _ in range(2))
    same("the second answer", again, once)


def a_stream_comes_in_pieces():
    chunks = list(chat(QUESTION, stream=True))
    same("role", chunks[0].choices[0].delta.role, "assistant")
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    same("answer", "".join(pieces), ANSWER)
    holds("it is in pieces", sum(bool(piece) for piece in pieces) > 3, pieces)
    same("finish", [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason], ["stop"])
    same("ids", len({chunk.id for chunk in chunks}), 1)
    same("usage, which nobody asked for", [chunk.usage for chunk in chunks if chunk.usage], [])


def a_stream_has_its_usage_where_asked():
    *others, last = chat(QUESTION, stream=True, stream_options={"include_usage": True})
    same("choices of the last", last.choices, [])
    holds("usage", last.usage.completion_tokens > 5, last)
    same("usage of the others", [chunk.usage for chunk in others if chunk.usage], [])


def thoughts_come_while_they_are_thought():
    thinks = {"chat_template_kwargs": {"enable_thinking": True}}
    deltas = [chunk.choices[0].delta for chunk in chat(THINK, stream=True, extra_body=thinks)]
    thoughts = [delta.reasoning_content for delta in deltas if getattr(delta, "reasoning_content", None)]
    same("streamed", ("".join(thoughts), "".join(delta.content or "" for delta in deltas)), (THOUGHT, CONCLUSION))
    holds("in pieces", len(thoughts) > 3, thoughts)


def a_stream_that_is_left_is_cancelled():
    stream = chat("Tell me everything.", stream=True, max_tokens=400)
    next(iter(stream))
    stream.close()
    same("answer after it", chat(QUESTION).choices[0].message.content, ANSWER)


def a_picture_is_described():
    for content in ([PICTURE_PART, {"type": "text", "text": LOOK}], [{"type": "text", "text": LOOK}, PICTURE_PART]):
        answer = chat(content)
        holds("it says something", answer.choices[0].message.content.strip(), answer)
    same("caption", chat([PICTURE_PART, {"type": "text", "text": LOOK}]).choices[0].message.content, CAPTION)


def sound_is_heard():
    answer = chat([SOUND_PART, {"type": "text", "text": LISTEN}])
    same("transcript", answer.choices[0].message.content, TRANSCRIPT)


def a_schema_is_kept():
    fits(chat(QUESTION, response_format=JSON_SCHEMA).choices[0].message.content)
    streamed = chat(QUESTION, response_format=JSON_SCHEMA, stream=True)
    fits("".join(chunk.choices[0].delta.content or "" for chunk in streamed))
    # The model was not trained for this question: only the schema makes it fit.
    answer = json.loads(chat("Good night", response_format=JSON_SCHEMA).choices[0].message.content)
    same("keys", sorted(answer), ["action", "area", "device"])
    holds("one of the choices", answer["action"] in ("turn_on", "turn_off"), answer)


def json_object_is_json():
    json.loads(chat(QUESTION, response_format={"type": "json_object"}).choices[0].message.content)


def parsed_answers_work():
    class Command(pydantic.BaseModel):
        action: Literal["turn_on", "turn_off"]
        device: str
        area: str

    messages = [{"role": "user", "content": QUESTION}]
    parsed = client.chat.completions.parse(model=MODEL, temperature=0, max_tokens=60, messages=messages, response_format=Command)
    same("parsed", parsed.choices[0].message.parsed, Command(action="turn_off", device="light", area="kitchen"))


def a_conversation_goes_on_from_known_tokens():
    messages = [{"role": "system", "content": "You are terse. " * 8}, {"role": "user", "content": QUESTION}]
    ask = lambda: client.chat.completions.create(model=MODEL, temperature=0, max_tokens=40, messages=messages)
    first = ask()
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": QUESTION.replace("off", "on")}]
    second = ask()
    known = second.usage.prompt_tokens_details.cached_tokens
    holds("most of the first prompt is known", known >= first.usage.prompt_tokens // 2, (first.usage, second.usage))


def messages_come_as_people_send_them():
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "Again: "}, PICTURE_PART]},
        {"role": "assistant", "content": ""},
        {"role": "developer", "content": "Stay terse."},
        {"role": "user", "content": [{"type": "text", "text": LOOK}]},
    ]
    answer = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=20, messages=messages)
    holds("an answer", answer.choices[0].message.content is not None, answer)


def transcriptions_have_all_forms():
    create = lambda **more: client.audio.transcriptions.create(model=MODEL, file=("audio.wav", clip()), **more)
    same("json", create().text, TRANSCRIPT)
    same("with a language", create(language="en").text, TRANSCRIPT)
    same("text", create(response_format="text").strip(), TRANSCRIPT)
    verbose = create(response_format="verbose_json")
    same("verbose", verbose.text, TRANSCRIPT)
    holds("its duration", 1 < float(verbose.duration) < 10, verbose)
    holds("its segments", len(verbose.segments) >= 1 and verbose.segments[0].text.strip(), verbose)
    holds("srt", " --> " in create(response_format="srt") and TRANSCRIPT in create(response_format="srt"))
    holds("vtt", create(response_format="vtt").startswith("WEBVTT"))


def silence_is_no_text():
    silence = clip()[:44] + bytes(len(clip()) - 44)
    create = lambda **more: client.audio.transcriptions.create(model=MODEL, file=("audio.wav", silence), **more)
    same("text", create().text, "")
    verbose = create(response_format="verbose_json")
    same("no speech", [segment.no_speech_prob for segment in verbose.segments or []] or [1.0], [1.0])


def sound_that_nobody_reads_is_refused():
    junk = b"\x1aE\xdf\xa3" + bytes(2000)  # webm
    raises(openai.APIStatusError, lambda: client.audio.transcriptions.create(model=MODEL, file=("a.webm", junk)), 415)
    raises(openai.APIStatusError, lambda: client.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF")))


def responses_answer():
    answer = client.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=60)
    same("output_text", answer.output_text, ANSWER)
    kinds = [event.type for event in client.responses.create(model=MODEL, input=QUESTION, temperature=0, stream=True)]
    same("first and last", (kinds[0], kinds[-1]), ("response.created", "response.completed"))
    holds("deltas", "response.output_text.delta" in kinds, kinds)


def tools_are_called_and_told_what_came_of_it():
    answer = chat(LAMPS, tools=[SET_LIGHT])
    (choice,) = answer.choices
    same("why it ended", (choice.finish_reason, choice.message.content), ("tool_calls", None))
    calls = choice.message.tool_calls
    same("names", {call.function.name for call in calls}, {"set_light"})
    same("arguments", [json.loads(call.function.arguments) for call in calls], CALLED)
    results = [{"role": "tool", "tool_call_id": call.id, "content": '{"data": "ok", "error": null}'} for call in reversed(calls)]
    messages = [{"role": "user", "content": LAMPS}, choice.message, *results]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[SET_LIGHT], temperature=0, max_tokens=60)
    same("what is said then", second.choices[0].message.content, "Both are on.")
    known = second.usage.prompt_tokens_details.cached_tokens
    holds("nothing before is read again", known >= answer.usage.prompt_tokens, second.usage)


def tools_are_streamed_a_call_a_chunk():
    chunks = list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": LAMPS}], tools=[SET_LIGHT], stream=True, max_tokens=60))
    calls = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices and chunk.choices[0].delta.tool_calls]
    same("a call a chunk", [[call.index for call in calls] for calls in calls], [[0], [1]])
    same("arguments", [json.loads(call.function.arguments) for (call,) in calls], CALLED)
    same("the end", [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "tool_calls")


def a_choice_of_tools_is_kept():
    # Nothing is written down for this sentence: the model calls what it must.
    named = {"type": "function", "function": {"name": "set_light"}}
    for choice in ("required", named):
        answer = chat(f"Something {choice}", tools=[SET_LIGHT], tool_choice=choice, parallel_tool_calls=False, max_tokens=200)
        for call in answer.choices[0].message.tool_calls or []:
            fits("arguments", json.loads(call.function.arguments), SET_LIGHT["function"]["parameters"])
    same("words", chat(NO_LAMP, tools=[SET_LIGHT]).choices[0].message.content, "As you like.")
    none = chat(QUESTION, tools=[SET_LIGHT], tool_choice="none")
    same("none", none.choices[0].message.tool_calls, None)
    raises(openai.BadRequestError, lambda: chat("a", tools=[SET_LIGHT, SET_LIGHT]), 400, ["set_light"])
    broken = {"type": "function", "function": {"name": "odd", "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}}
    raises(openai.BadRequestError, lambda: chat("a", tools=[broken]), 400, ["odd", "parameters.properties.a.not"])


def responses_call_tools():
    tool = {"type": "function", "name": "set_light", "description": "Sets a light", "parameters": SET_LIGHT["function"]["parameters"], "strict": False}
    answer = client.responses.create(model=MODEL, input=LAMPS, tools=[tool], temperature=0, max_output_tokens=60)
    same("arguments", [json.loads(item.arguments) for item in answer.output if item.type == "function_call"], CALLED)
    turns = [{"role": "user", "content": LAMPS}, *answer.output]
    turns += [{"type": "function_call_output", "call_id": item.call_id, "output": "ok"} for item in answer.output]
    second = client.responses.create(model=MODEL, input=turns, tools=[tool], temperature=0, max_output_tokens=60)
    same("what is said then", second.output_text, "Both are on.")
    kinds = [event.type for event in client.responses.create(model=MODEL, input=LAMPS, tools=[tool], stream=True, max_output_tokens=60)]
    same("calls in events", kinds.count("response.function_call_arguments.done"), 2)


def embeddings_say_why_not():
    raises(openai.APIStatusError, lambda: client.embeddings.create(model=MODEL, input="a"), 501)


def errors_are_the_clients_own():
    bad = openai.BadRequestError
    raises(openai.NotFoundError, lambda: chat("a", model="gpt-4o"), 404, ["gpt-4o"])
    raises(bad, lambda: chat("a", n=2), 400, ["n"])
    raises(bad, lambda: chat("a", logprobs=True), 400, ["logprobs"])
    raises(bad, lambda: chat([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]), 400)
    raises(bad, lambda: chat([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), 400)
    raises(bad, lambda: chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,????"}}]), 400)
    raises(bad, lambda: chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}], stream=True), 400)
    raises(bad, lambda: chat("a", temperature=-1), 400, ["temperature"])
    broken = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "no such type"}}}
    raises(bad, lambda: chat("a", response_format=broken), 400)
    raises(bad, lambda: chat("word " * 40_000), 400)
    raises(bad, lambda: client.chat.completions.create(model=MODEL, messages=[]), 400)
    if KEY:
        other = openai.OpenAI(base_url=f"{URL}/v1", api_key=f"{KEY}x", max_retries=0)
        raises(openai.AuthenticationError, other.models.list, 401)


run([
    models_are_listed,
    text_is_answered,
    max_tokens_cut_the_answer,
    a_stop_string_ends_the_answer,
    a_seed_gives_the_same_again,
    a_stream_comes_in_pieces,
    thoughts_come_while_they_are_thought,
    a_stream_has_its_usage_where_asked,
    a_stream_that_is_left_is_cancelled,
    a_picture_is_described,
    sound_is_heard,
    a_schema_is_kept,
    json_object_is_json,
    parsed_answers_work,
    a_conversation_goes_on_from_known_tokens,
    messages_come_as_people_send_them,
    transcriptions_have_all_forms,
    silence_is_no_text,
    sound_that_nobody_reads_is_refused,
    responses_answer,
    tools_are_called_and_told_what_came_of_it,
    tools_are_streamed_a_call_a_chunk,
    a_choice_of_tools_is_kept,
    responses_call_tools,
    embeddings_say_why_not,
    errors_are_the_clients_own,
])
