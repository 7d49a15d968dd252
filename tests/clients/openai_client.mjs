// OpenAI's own client for Node, unmodified.

import { createReadStream } from "node:fs";
import * as door from "./door.mjs";

const { MODEL, QUESTION, ANSWER, same, refused } = door;
const OpenAI = door.need("openai");
const options = { baseURL: `${door.URL_OF_DOOR}/v1`, apiKey: door.KEY || "none", maxRetries: 0, timeout: 120_000 };
const client = new OpenAI(options);
const chat = (content, more = {}) =>
  client.chat.completions.create({ model: MODEL, temperature: 0, max_tokens: 60, messages: [{ role: "user", content }], ...more });
const text = (answer) => answer.choices[0].message.content;

await door.run({
  async "models are listed"() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    same("the model is listed", ids.includes(MODEL), true);
    await refused("another one", 404, () => client.models.retrieve("gpt-4o"));
  },
  async "text is answered"() {
    same("answer", text(await chat(QUESTION)), ANSWER);
  },
  async "a stream comes in pieces"() {
    const pieces = [];
    let usage = null;
    for await (const chunk of await chat(QUESTION, { stream: true, stream_options: { include_usage: true } })) {
      if (chunk.choices.length) pieces.push(chunk.choices[0].delta.content ?? "");
      usage = chunk.usage ?? usage;
    }
    same("answer", pieces.join(""), ANSWER);
    same("it is in pieces", pieces.length > 3 && usage.completion_tokens > 5, true);
  },
  async "the helper for streams works"() {
    const stream = client.chat.completions.stream({ model: MODEL, temperature: 0, max_tokens: 60, messages: [{ role: "user", content: QUESTION }] });
    same("answer", (await stream.finalChatCompletion()).choices[0].message.content, ANSWER);
  },
  async "a picture and sound are taken"() {
    const picture = { type: "image_url", image_url: { url: `data:image/png;base64,${door.PICTURE}` } };
    same("caption", text(await chat([picture, { type: "text", text: door.LOOK }])), door.CAPTION);
    const sound = { type: "input_audio", input_audio: { data: door.CLIP, format: "wav" } };
    same("transcript", text(await chat([sound, { type: "text", text: door.LISTEN }])), door.TRANSCRIPT);
  },
  async "a schema is kept"() {
    const json_schema = { name: "command", strict: true, schema: door.SCHEMA };
    same("answer", JSON.parse(text(await chat(QUESTION, { response_format: { type: "json_schema", json_schema } }))), JSON.parse(ANSWER));
  },
  async "sound is written down"() {
    const answer = await client.audio.transcriptions.create({ model: MODEL, file: createReadStream(door.CLIP_PATH) });
    same("transcript", answer.text, door.TRANSCRIPT);
  },
  async "responses are answered"() {
    const answer = await client.responses.create({ model: MODEL, input: QUESTION, temperature: 0 });
    same("answer", answer.output_text, ANSWER);
    let streamed = "";
    for await (const event of await client.responses.create({ model: MODEL, input: QUESTION, temperature: 0, stream: true })) {
      if (event.type === "response.output_text.delta") streamed += event.delta;
    }
    same("streamed", streamed, ANSWER);
  },
  async "errors are the client's own"() {
    await refused("an unknown model", 404, () => chat("a", { model: "gpt-4o" }));
    await refused("two answers", 400, () => chat("a", { n: 2 }));
    await refused("too long", 400, () => chat("word ".repeat(40_000)));
    if (door.KEY) await refused("a wrong key", 401, () => new OpenAI({ ...options, apiKey: `${door.KEY}x` }).models.list());
  },
});
