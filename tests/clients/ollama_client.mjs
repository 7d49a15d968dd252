// Ollama's own client for Node, unmodified.

import * as door from "./door.mjs";

const { MODEL, QUESTION, ANSWER, same, refused } = door;
const { Ollama } = door.need("ollama");
const client = new Ollama({ host: door.URL_OF_DOOR, headers: door.BEARER });
const options = { temperature: 0, num_predict: 60 };
const chat = (content, more = {}, images = undefined) => client.chat({ model: MODEL, options, messages: [{ role: "user", content, images }], ...more });

await door.run({
  async "models are listed and shown"() {
    const { models } = await client.list();
    same("the model is listed", models.some(({ name }) => name === MODEL || name === `${MODEL}:latest`), true);
    same("capabilities", (await client.show({ model: MODEL })).capabilities.includes("vision"), true);
    same("what runs", (await client.ps()).models.length, 1);
    await refused("another one", 404, () => client.show({ model: "llama3" }));
  },
  async "text is answered"() {
    same("answer", (await chat(QUESTION)).message.content, ANSWER);
    same("generated", (await client.generate({ model: MODEL, prompt: QUESTION, options })).response, ANSWER);
  },
  async "a stream comes in pieces"() {
    const pieces = [];
    for await (const part of await chat(QUESTION, { stream: true })) pieces.push(part.message.content);
    same("answer", pieces.join(""), ANSWER);
    same("it is in pieces", pieces.length > 3, true);
  },
  async "a stream is broken off"() {
    const stream = await chat("Tell me everything.", { stream: true, options: { num_predict: 400 } });
    setTimeout(() => stream.abort(), 50);
    try {
      for await (const _ of stream);
    } catch (error) {
      same("how it ends", error.name, "AbortError");
    }
    same("answer after it", (await chat(QUESTION)).message.content, ANSWER);
  },
  async "a picture and sound are taken"() {
    same("caption", (await chat(door.LOOK, {}, [door.PICTURE])).message.content, door.CAPTION);
    same("transcript", (await chat(door.LISTEN, {}, [door.CLIP])).message.content, door.TRANSCRIPT);
  },
  async "a schema is kept"() {
    same("answer", JSON.parse((await chat(QUESTION, { format: door.SCHEMA })).message.content), JSON.parse(ANSWER));
  },
  async "errors are the client's own"() {
    await refused("an unknown model", 404, () => client.chat({ model: "llama3", messages: [{ role: "user", content: "a" }] }));
    await refused("too long", 400, () => chat("word ".repeat(40_000)));
    await refused("not to be deleted", 405, () => client.delete({ model: MODEL }));
  },
});
