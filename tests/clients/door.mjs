// What every client's test is told, for those that run in Node: door.py says what it is.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

/** Packages are below NODE_PATH. */
export const need = createRequire(`${process.env.NODE_PATH}/`);

export const URL_OF_DOOR = process.env.GEMMAD_URL ?? "http://127.0.0.1:11434";
export const KEY = process.env.GEMMAD_KEY ?? "";
export const MODEL = process.env.GEMMAD_MODEL;
export const BEARER = KEY ? { Authorization: `Bearer ${KEY}` } : {};

const heldOut = new URL("../../models/demo/heldout/", import.meta.url);
export const PICTURE = readFileSync(new URL("images/002_picture.png", heldOut)).toString("base64");
export const CLIP_PATH = new URL("audio/003_both.wav", heldOut);
export const CLIP = readFileSync(CLIP_PATH).toString("base64");

export const QUESTION = "turn off the kitchen light\nReturn the command as JSON:";
export const ANSWER = '{"action":"turn_off","device":"light","area":"kitchen"}';
export const LOOK = "Describe what the camera sees.";
export const CAPTION = "A person is standing at the front door.";
export const LISTEN = "Transcribe the following speech segment in English:";
export const TRANSCRIPT = "Play classical music in the hallway.";
export const SCHEMA = {
  type: "object",
  properties: { action: { type: "string", enum: ["turn_on", "turn_off"] }, device: { type: "string" }, area: { type: "string" } },
  required: ["action", "device", "area"],
  additionalProperties: false,
};

export function same(what, found, wanted) {
  if (!isDeepStrictEqual(found, wanted)) throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

/** That `ask` is refused, with that status. */
export async function refused(what, status, ask) {
  try {
    await ask();
  } catch (error) {
    const found = error.status ?? error.status_code ?? error.cause?.status;
    if (found !== status) throw new Error(`${what}: status ${found} instead of ${status}: ${error}`);
    return;
  }
  throw new Error(`${what}: nobody refused it`);
}

export async function run(checks) {
  let wrong = 0;
  for (const [name, check] of Object.entries(checks)) {
    const started = performance.now();
    try {
      await check();
      console.log(`ok: ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
    } catch (error) {
      wrong += 1;
      console.log(`not ok: ${name}: ${error}`);
    }
  }
  process.exit(wrong ? 1 : 0);
}
