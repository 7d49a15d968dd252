// LangChain's chat models, which n8n is built on: by way of OpenAI's dialect, its newer one, and Ollama's.

import * as door from "./door.mjs";

const { QUESTION, ANSWER, same } = door;
const { ChatOpenAI } = door.need("@langchain/openai");
const { ChatOllama } = door.need("@langchain/ollama");
const { HumanMessage, SystemMessage } = door.need("@langchain/core/messages");

const openai = { model: door.MODEL, apiKey: door.KEY || "none", temperature: 0, maxTokens: 60, maxRetries: 0, configuration: { baseURL: `${door.URL_OF_DOOR}/v1` } };
const models = {
  "OpenAI's": new ChatOpenAI({ ...openai, useResponsesApi: false }),
  "OpenAI's Responses": new ChatOpenAI({ ...openai, useResponsesApi: true }),
  "Ollama's": new ChatOllama({ model: door.MODEL, baseUrl: door.URL_OF_DOOR, headers: door.BEARER, temperature: 0, numPredict: 60, maxRetries: 0 }),
};
const checks = {};
for (const [name, model] of Object.entries(models)) {
  checks[`${name}: text is answered`] = async () => same("answer", (await model.invoke(QUESTION)).text, ANSWER);
  checks[`${name}: a stream comes in pieces`] = async () => {
    const pieces = [];
    for await (const chunk of await model.stream(QUESTION)) pieces.push(chunk.text);
    same("answer", pieces.join(""), ANSWER);
    same("it is in pieces", pieces.filter(Boolean).length > 3, true);
  };
  checks[`${name}: a picture is described`] = async () => {
    const content = [
      { type: "image_url", image_url: { url: `data:image/png;base64,${door.PICTURE}` } },
      { type: "text", text: door.LOOK },
    ];
    same("caption", (await model.invoke([new HumanMessage({ content })])).text, door.CAPTION);
  };
  checks[`${name}: instructions are taken`] = async () => {
    const answer = await model.invoke([new SystemMessage("You are terse."), new HumanMessage(QUESTION)]);
    same("there are words", answer.text.length > 0, true);
  };
  checks[`${name}: structured output fits its schema`] = async () => {
    const structured = model.withStructuredOutput(door.SCHEMA, { name: "command", method: "jsonSchema" });
    same("answer", await structured.invoke(QUESTION), JSON.parse(ANSWER));
  };
}
await door.run(checks);
