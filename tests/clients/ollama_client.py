"""Ollama's own client for Python, unmodified."""

import json

import ollama
from door import ANSWER, BEARER, CALLED, CAPTION, CONCLUSION, KEY, LAMPS, LISTEN, LOOK, MODEL, QUESTION, SCHEMA, SET_LIGHT, THINK, THOUGHT, TRANSCRIPT, URL, base64_of, clip, fits, holds, picture, raises, run, same

client = ollama.Client(host=URL, headers=BEARER, timeout=120)
GREEDY = {"temperature": 0, "num_predict": 60}


def chat(content, images=None, **more):
    message = {"role": "user", "content": content, **({"images": images} if images else {})}
    return client.chat(model=MODEL, messages=[message], options=GREEDY, **more)


def models_are_listed():
    listed = client.list().models
    names = [model.model for model in listed]
    holds("the model is listed", MODEL in names or f"{MODEL}:latest" in names, names)
    holds("sizes", all(model.size > 0 and model.digest for model in listed), listed)


def the_model_is_shown():
    shown = client.show(MODEL)
    same("capabilities", [c for c in ("completion", "vision", "audio") if c in shown.capabilities], ["completion", "vision", "audio"])
    architecture = shown.modelinfo["general.architecture"]
    holds("its context", shown.modelinfo[f"{architecture}.context_length"] > 0, shown)
    raises(ollama.ResponseError, lambda: client.show("llama3"), 404)


def what_runs_is_told():
    (running, *_) = client.ps().models
    holds("its name", running.model.split(":")[0] == MODEL.split(":")[0], running)


def the_model_that_is_there_is_pulled():
    same("status", client.pull(MODEL).status, "success")
    same("streamed", [part.status for part in client.pull(MODEL, stream=True)][-1], "success")
    raises(ollama.ResponseError, lambda: client.pull("llama3"))


def text_is_answered():
    answer = chat(QUESTION)
    same("answer", answer.message.content, ANSWER)
    same("done", (answer.done, answer.done_reason), (True, "stop"))
    holds("counts", answer.prompt_eval_count > 5 and answer.eval_count > 5, answer)
    holds("durations, ns", answer.total_duration >= answer.eval_duration > 0, answer)


def a_stream_comes_in_pieces():
    parts = list(chat(QUESTION, stream=True))
    same("answer", "".join(part.message.content or "" for part in parts), ANSWER)
    same("done", [part.done for part in parts if part.done], [True])
    holds("it is in pieces", len(parts) > 3, parts)
    holds("counts at the end", parts[-1].eval_count > 5, parts[-1])


def thoughts_come_while_they_are_thought():
    answer = chat(THINK, think=True)
    same("whole", (answer.message.thinking, answer.message.content), (THOUGHT, CONCLUSION))
    parts = list(chat(THINK, think=True, stream=True))
    thoughts = [part.message.thinking for part in parts if part.message.thinking]
    same("streamed", ("".join(thoughts), "".join(part.message.content or "" for part in parts)), (THOUGHT, CONCLUSION))
    holds("in pieces", len(thoughts) > 3, thoughts)
    first = next(n for n, part in enumerate(parts) if part.message.content)
    holds("before the answer", all(not part.message.thinking for part in parts[first:]), parts)


def tools_are_called_and_told_what_came_of_it():
    answer = chat(LAMPS, tools=[SET_LIGHT])
    same("arguments", [dict(call.function.arguments) for call in answer.message.tool_calls], CALLED)
    parts = [part.message.tool_calls for part in chat(LAMPS, tools=[SET_LIGHT], stream=True) if part.message.tool_calls]
    same("streamed, a call a piece", [[dict(call.function.arguments) for call in calls] for calls in parts], [[call] for call in CALLED])
    # Results without a name, by their order.
    messages = [{"role": "user", "content": LAMPS}, answer.message, {"role": "tool", "content": "ok"}, {"role": "tool", "content": "ok"}]
    second = client.chat(model=MODEL, messages=messages, tools=[SET_LIGHT], options=GREEDY)
    same("what is said then", second.message.content, "Both are on.")
    raises(ollama.ResponseError, lambda: client.chat(model=MODEL, messages=[*messages, {"role": "tool", "content": "ok"}], options=GREEDY), 400)
    holds("it is told that it can", "tools" in client.show(MODEL).capabilities, None)


def generate_answers():
    answer = client.generate(model=MODEL, prompt=QUESTION, options=GREEDY)
    same("answer", answer.response, ANSWER)
    parts = list(client.generate(model=MODEL, prompt=QUESTION, options=GREEDY, stream=True))
    same("streamed", "".join(part.response for part in parts), ANSWER)
    # How a model is loaded ahead of time.
    same("loaded", client.generate(model=MODEL).done_reason, "load")


def num_predict_cuts_the_answer():
    answer = client.chat(model=MODEL, messages=[{"role": "user", "content": QUESTION}], options={"temperature": 0, "num_predict": 3})
    same("reason", answer.done_reason, "length")
    same("tokens", answer.eval_count, 3)


def a_picture_is_described():
    same("chat", chat(LOOK, [picture()]).message.content, CAPTION)
    same("generate", client.generate(model=MODEL, prompt=LOOK, images=[picture()], options=GREEDY).response, CAPTION)


def sound_is_heard():
    same("transcript", chat(LISTEN, [base64_of(clip())]).message.content, TRANSCRIPT)


def a_schema_is_kept():
    fits(chat(QUESTION, format=SCHEMA).message.content)
    answer = json.loads(client.generate(model=MODEL, prompt="Good night", format=SCHEMA, options=GREEDY).response)
    same("keys", sorted(answer), ["action", "area", "device"])
    json.loads(chat(QUESTION, format="json").message.content)


def keep_alive_and_think_are_taken():
    for keep_alive in (-1, "5m", 0):
        same("answer", chat(QUESTION, keep_alive=keep_alive, think=False).message.content, ANSWER)


def several_user_messages_are_one_question():
    """As LLM Vision sends them."""
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "", "images": [picture()]},
        {"role": "user", "content": LOOK},
    ]
    answer = client.chat(model=MODEL, messages=messages, options=GREEDY)
    holds("an answer", answer.message.content.strip(), answer)


def errors_are_the_clients_own():
    refused = ollama.ResponseError
    raises(refused, lambda: client.chat(model="llama3", messages=[{"role": "user", "content": "a"}]), 404, ["llama3"])
    raises(refused, lambda: chat("a", ["aGVsbG8="]), 400)
    raises(refused, lambda: list(chat("a", ["aGVsbG8="], stream=True)), 400)
    raises(refused, lambda: chat("a", format={"type": "no such type"}), 400)
    raises(refused, lambda: chat("word " * 40_000), 400)
    raises(refused, lambda: client.create(model="a", from_=MODEL), 405)
    raises(refused, lambda: client.delete(MODEL), 405)
    raises(refused, lambda: client.copy(MODEL, "a"), 405)
    raises(refused, lambda: client.embed(model=MODEL, input="a"))
    if KEY:
        raises(refused, ollama.Client(host=URL, headers={"Authorization": f"Bearer {KEY}x"}).list, 401)


run([
    models_are_listed,
    the_model_is_shown,
    what_runs_is_told,
    the_model_that_is_there_is_pulled,
    text_is_answered,
    a_stream_comes_in_pieces,
    thoughts_come_while_they_are_thought,
    tools_are_called_and_told_what_came_of_it,
    generate_answers,
    num_predict_cuts_the_answer,
    a_picture_is_described,
    sound_is_heard,
    a_schema_is_kept,
    keep_alive_and_think_are_taken,
    several_user_messages_are_one_question,
    errors_are_the_clients_own,
])
