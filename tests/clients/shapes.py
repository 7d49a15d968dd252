"""Requests as programs send them that cannot be installed here: Frigate, LLM Vision, Extended OpenAI Conversation, and three of Home
Assistant's integrations. Their sources were read; the bodies are written anew.
"""

import json

import httpx
from door import BEARER, CAPTION, KEY, LOOK, MODEL, QUESTION, SCHEMA, TRANSCRIPT, URL, base64_of, clip, data_url, holds, picture, run, same

# Home Assistant's llama_cpp sends some key even where none is set.
http = httpx.Client(base_url=URL, headers=BEARER or {"Authorization": "Bearer sk-no-key-required"}, timeout=120)
TOOL = {"type": "function", "function": {"name": "homeassistant__GetLiveContext", "description": "What the house is like", "parameters": {"type": "object", "properties": {}}}}
LIGHT = {
    "type": "function",
    "function": {
        "name": "intent__HassTurnOff",
        "description": "Turns off a device or entity",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}, "area": {"type": "string"}, "domain": {"type": "array", "items": {"type": "string"}}}},
    },
}


def post(path, body, status=200):
    answer = http.post(path, json=body)
    same(f"status of {path} ({answer.text[:300]})", answer.status_code, status)
    return answer


def sse(path, body):
    """The data of a stream of server-sent events, [DONE] left out."""
    with http.stream("POST", path, json={**body, "stream": True}) as answer:
        same("status", answer.status_code, 200)
        same("type", answer.headers["content-type"].split(";")[0], "text/event-stream")
        data = [line[5:].strip() for line in answer.iter_lines() if line.startswith("data:")]
    same("the last line", data[-1], "[DONE]")
    return [json.loads(line) for line in data[:-1]]


def lines(path, body):
    """Ollama's objects, one a line."""
    with http.stream("POST", path, json={**body, "stream": True}) as answer:
        same("status", answer.status_code, 200)
        same("type", answer.headers["content-type"], "application/x-ndjson")
        return [json.loads(line) for line in answer.iter_lines() if line]


def home_assistant_llama_cpp_sets_itself_up():
    listed = http.get("/v1/models").json()["data"]
    holds("the model", MODEL in [model["id"] for model in listed], listed)
    probe = {"model": MODEL, "messages": [{"role": "user", "content": "ping"}], "tools": [TOOL], "max_tokens": 3}
    holds("whole", post("/v1/chat/completions", {**probe, "stream": False}).json()["choices"])
    holds("streamed", sse("/v1/chat/completions", probe))
    talk = {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You are a voice assistant for Home Assistant."}, {"role": "user", "content": QUESTION}],
        "max_tokens": 60,
        "top_p": 1.0,
        "temperature": 0,
        "user": "01KBXYZ",
    }
    for chunk in sse("/v1/chat/completions", talk):
        same("choices", len(chunk["choices"]), 1)


def home_assistant_litellm_listens():
    # Its speech-to-text sends a WAV with two letters as the language.
    form = {"model": MODEL, "language": "en", "prompt": "Kitchen, hallway", "keywords": ["kitchen", "hallway"]}
    answer = http.post("/v1/audio/transcriptions", data=form, files={"file": ("audio.wav", clip(), "audio/wav")})
    same(f"status ({answer.text[:300]})", answer.status_code, 200)
    same("transcript", answer.json(), {**answer.json(), "text": TRANSCRIPT})


def home_assistant_ollama_talks():
    holds("the model by its tag", any(model["name"] in (MODEL, f"{MODEL}:latest") for model in http.get("/api/tags", timeout=5).json()["models"]))
    body = {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You are a voice assistant."}, {"role": "user", "content": QUESTION}],
        "keep_alive": -1,
        "options": {"num_ctx": 8192, "temperature": 0, "num_predict": 60},
        "think": False,
    }
    parts = lines("/api/chat", body)
    same("done", [part["done"] for part in parts[-2:]], [False, True])
    same("roles", {part["message"]["role"] for part in parts}, {"assistant"})
    # A task with a camera's picture and a structure.
    task = {**body, "messages": [{"role": "user", "content": LOOK, "images": [base64_of(picture())]}], "format": SCHEMA}
    same("keys", sorted(json.loads("".join(part["message"]["content"] for part in lines("/api/chat", task)))), ["action", "area", "device"])


def tool_turns_are_taken():
    """Results of tools in the forms of both dialects: with the id of the call, and without any name."""
    call = {"id": "call_1", "type": "function", "function": {"name": "homeassistant__GetLiveContext", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Is the light on?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"data": "light: on", "error": null}'},
    ]
    body = {"model": MODEL, "tools": [TOOL, LIGHT], "max_tokens": 20, "temperature": 0}
    holds("an answer", post("/v1/chat/completions", {**body, "messages": messages}).json()["choices"])
    messages = [
        {"role": "user", "content": "Is the light on?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "homeassistant__GetLiveContext", "arguments": {}}}]},
        {"role": "tool", "content": '{"data": "light: on"}'},
    ]
    options = {"temperature": 0, "num_predict": 20}
    post("/api/chat", {"model": MODEL, "tools": [TOOL, LIGHT], "messages": messages, "options": options, "stream": False})


def frigate_by_ollama():
    shown = post("/api/show", {"model": MODEL}).json()
    holds("no error", "error" not in shown and "vision" in shown["capabilities"], shown)
    body = {
        "model": MODEL,
        "prompt": LOOK,
        "images": [base64_of(picture())],
        "options": {"temperature": 0, "repeat_penalty": 1.05, "presence_penalty": 0.3, "num_predict": 60},
        "stream": False,
    }
    answer = post("/api/generate", body)
    same("type", answer.headers["content-type"].split(";")[0], "application/json")
    holds("a description", answer.json()["response"].strip(), answer.text)
    review = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 20},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1, "description": "How sure"},
            "other_concerns": {"anyOf": [{"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2}, {"type": "null"}], "default": None},
            "potential_threat_level": {"type": "integer", "minimum": 0, "maximum": 2},
        },
        "required": ["title", "confidence", "potential_threat_level"],
    }
    body["options"]["num_predict"] = 800
    # With the keys that made Ollama leave out required fields.
    found = json.loads(post("/api/generate", {**body, "format": review}).json()["response"])
    holds("required fields", {"title", "confidence", "potential_threat_level"} <= set(found), found)
    holds("within its bounds", found["potential_threat_level"] in (0, 1, 2) and 0 <= found["confidence"] <= 1, found)


def frigate_by_openai():
    (model,) = [model for model in http.get("/v1/models").json()["data"] if model["id"] == MODEL]
    holds("its context", model["max_model_len"] > 0, model)
    content = [{"type": "text", "text": LOOK}]
    content += [{"type": "image_url", "image_url": {"url": data_url(name), "detail": "low"}} for name in ("002_picture.png", "013_combo.png")]
    form = {"type": "json_schema", "json_schema": {"name": "command", "strict": True, "schema": SCHEMA}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "timeout": 120, "response_format": form, "max_tokens": 60}
    message = post("/v1/chat/completions", body).json()["choices"][0]["message"]
    holds("content, no reasoning", message["content"] and not message.get("reasoning_content"), message)
    chunks = sse("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}, "tool_choice": "auto"})
    same("usage has no choices", chunks[-1]["choices"], [])


def frigate_by_llama_cpp():
    (model,) = [model for model in http.get("/v1/models").json()["data"] if model["id"] == MODEL]
    same("what it takes", sorted(model["architecture"]["input_modalities"]), ["audio", "image", "text"])
    holds("its context", model["meta"]["n_ctx"] > 0, model)
    holds("other names", isinstance(model["aliases"], list), model)
    props = http.get("/props", params={"model": MODEL}).json()
    same("the same context", props["default_generation_settings"]["n_ctx"], model["meta"]["n_ctx"])
    same("modalities", (props["modalities"]["vision"], props["modalities"]["audio"]), (True, True))
    holds("a template", isinstance(props["chat_template"], str), props)
    # What a picture costs is found out by asking.
    part = {"type": "image_url", "image_url": {"url": data_url()}}
    with_picture = {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}], "max_tokens": 1}
    without = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    dear, cheap = (post("/v1/chat/completions", body).json() for body in (with_picture, without))
    cost = dear["usage"]["prompt_tokens"] - cheap["usage"]["prompt_tokens"]
    holds("a picture costs some tokens", 10 < cost < 1200, cost)
    timings = cheap["timings"]
    holds("timings", all(timings[key] >= 0 for key in ("prompt_n", "predicted_n", "predicted_ms", "predicted_per_second")), timings)


def llm_vision_by_ollama():
    messages = [
        {"role": "user", "content": "Image 1:", "images": [base64_of(picture())]},
        {"role": "user", "content": LOOK},
    ]
    answer = post("/api/chat", {"model": MODEL, "messages": messages, "stream": False, "options": {"num_predict": 60, "temperature": 0}})
    same("type", answer.headers["content-type"].split(";")[0], "application/json")
    holds("content", answer.json()["message"]["content"].strip(), answer.text)


def llm_vision_by_openai():
    part = {"type": "image_url", "image_url": {"url": data_url()}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "You are terse."}]},
        {"role": "user", "content": [{"type": "text", "text": "Image 1:"}, part, {"type": "text", "text": LOOK}]},
    ]
    body = {"model": MODEL, "messages": messages, "max_completion_tokens": 60, "temperature": 0, "top_p": 0.9}
    answer = post("/v1/chat/completions", body)
    same("type", answer.headers["content-type"].split(";")[0], "application/json")
    holds("content", answer.json()["choices"][0]["message"]["content"].strip(), answer.text)
    alone = [{"role": "user", "content": [part, {"type": "text", "text": LOOK}]}]
    same("caption", post("/v1/chat/completions", {**body, "messages": alone}).json()["choices"][0]["message"]["content"], CAPTION)


def extended_openai_conversation():
    functions = [{"type": "function", "function": {"name": "execute_services", "parameters": {"type": "object", "properties": {"list": {"type": "array", "items": {"type": "object"}}}}}}]
    messages = [{"role": "system", "content": "I want you to act as smart home manager."}, {"role": "user", "content": QUESTION}]
    body = {"model": MODEL, "messages": messages, "top_p": 1, "temperature": 0.5, "user": "01J", "tools": functions, "tool_choice": "auto"}
    for key in ("max_tokens", "max_completion_tokens"):
        answer = post("/v1/chat/completions", {**body, key: 30}).json()
        holds("a choice", answer["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls"), answer)


def what_is_there_answers():
    same("Ollama", http.get("/").text, "Ollama is running")
    holds("version", http.get("/api/version").json()["version"])
    same("health", http.get("/health").json()["status"], "ok")
    same("two slashes", http.get("/v1//models").status_code, 200)
    for path in ("/api/create", "/api/push", "/api/copy"):
        same(path, http.post(path, json={"model": "a"}).status_code, 405)
    same("text of an error", sorted(http.post("/api/chat", json={"model": "llama3", "messages": []}).json()), ["error"])
    post("/v1/no-such-thing", {}, 404)


def strangers_are_refused():
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        answer = http.post("/api/chat", headers=headers, json={"model": MODEL, "messages": []})
        same(f"status for {headers}", answer.status_code, 403)
    if KEY:
        for path in ("/v1/models", "/api/tags", "/page/state", "/events", "/metrics", "/props"):
            same(path, httpx.get(f"{URL}{path}").status_code, 401)
    for path in ("/", "/page.js", "/page.css"):
        answer = httpx.get(f"{URL}{path}", headers={"Accept": "text/html"})
        same(path, answer.status_code, 200)
        policy = answer.headers["content-security-policy"]
        holds("no inline script", "unsafe" not in policy and "default-src" in policy, policy)
        holds("no other site may read it", "access-control-allow-origin" not in answer.headers, answer.headers)


run([
    home_assistant_llama_cpp_sets_itself_up,
    home_assistant_litellm_listens,
    home_assistant_ollama_talks,
    tool_turns_are_taken,
    frigate_by_ollama,
    frigate_by_openai,
    frigate_by_llama_cpp,
    llm_vision_by_ollama,
    llm_vision_by_openai,
    extended_openai_conversation,
    what_is_there_answers,
    strangers_are_refused,
])
