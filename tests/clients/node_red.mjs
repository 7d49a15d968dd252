// A Node-RED without its editor, with the nodes for Ollama: flows that are asked over HTTP.

import http from "node:http";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as door from "./door.mjs";

const { QUESTION, ANSWER, same } = door;
const RED = door.need("node-red");
const home = mkdtempSync(join(tmpdir(), "gemmad-node-red-"));
// A key is sent by the nodes of a "cloud" only.
const cloud = Boolean(door.KEY);
const node = (id, type, more) => ({ id, type, z: "flow", name: "", x: 0, y: 0, wires: [], ...more });
const flow = (name, type, config) => [
  node(`${name}-in`, "http in", { url: `/${name}`, method: "post", wires: [[`${name}-do`]] }),
  node(`${name}-do`, type, { server: "server", wires: [[`${name}-out`]], ...config }),
  node(`${name}-out`, "http response", { statusCode: "" }),
];
const flows = [
  { id: "flow", type: "tab", label: "gemmad", disabled: false },
  { id: "server", type: "ollama-config-server", host: door.URL_OF_DOOR, port: "", useCloud: cloud },
  ...flow("list", "ollama-list", {}),
  ...flow("chat", "ollama-chat", { model: door.MODEL, modelType: "str" }),
  ...flow("generate", "ollama-generate", { model: door.MODEL, modelType: "str" }),
];
writeFileSync(join(home, "flows.json"), JSON.stringify(flows));
writeFileSync(join(home, "flows_cred.json"), JSON.stringify({ server: { apiKey: door.KEY } }));

const server = http.createServer((request, response) => handler?.(request, response));
let handler = null;

RED.init(server, {
  userDir: home,
  flowFile: "flows.json",
  nodesDir: join(process.env.NODE_PATH, "node-red-contrib-ollama"),
  httpAdminRoot: false,
  httpNodeRoot: "/",
  credentialSecret: false,
  disableEditor: true,
  functionGlobalContext: {},
  editorTheme: { palette: { catalogues: [] }, tours: false, projects: { enabled: false } },
  externalModules: { autoInstall: false, palette: { allowInstall: false } },
  telemetry: { enabled: false },
  logging: { console: { level: "warn" } },
});
const app = door.need("express")();
app.use("/", RED.httpNode);
handler = app;
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const running = new Promise((started) => RED.events.on("flows:started", started));
await RED.start();
await running;

const port = server.address().port;

async function post(name, body) {
  const response = await fetch(`http://127.0.0.1:${port}/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response.json();
}

process.on("exit", () => rmSync(home, { recursive: true, force: true }));
const options = { temperature: 0, num_predict: 60 };
await door.run({
  async "the list node lists the model"() {
    const { models } = await post("list", {});
    same("the model is listed", models.some(({ name }) => name === door.MODEL || name === `${door.MODEL}:latest`), true);
  },
  async "the chat node is answered"() {
    const answer = await post("chat", { messages: [{ role: "user", content: QUESTION }], options });
    same("answer", answer.message.content, ANSWER);
  },
  async "the chat node shows a picture"() {
    const answer = await post("chat", { messages: [{ role: "user", content: door.LOOK, images: [door.PICTURE] }], options });
    same("caption", answer.message.content, door.CAPTION);
  },
  async "the chat node keeps a schema"() {
    const answer = await post("chat", { messages: [{ role: "user", content: QUESTION }], options, format: JSON.stringify(door.SCHEMA) });
    same("answer", JSON.parse(answer.message.content), JSON.parse(ANSWER));
  },
  async "the generate node is answered"() {
    same("answer", (await post("generate", { prompt: QUESTION, options })).response, ANSWER);
  },
});
