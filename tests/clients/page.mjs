// The page in a real browser: Debian's Chromium, driven by playwright-core and judged by axe-core.
//
//     node page.mjs HELD_OUT PICTURES        (the environment is that of door.mjs)
//
// What is to be said or shown it asks for on standard output ("say FILE", "show FILE"); whoever started it does that.

import { readFileSync } from "node:fs";
import { KEY as key, LISTEN, LOOK, QUESTION, ANSWER, CAPTION, TRANSCRIPT, URL_OF_DOOR as address, need } from "./door.mjs";

const { chromium } = need("playwright-core");
const axe = readFileSync(need.resolve("axe-core/axe.min.js"), "utf8");

const [heldOut, pictures] = process.argv.slice(2);
const SAID = { file: "009_both.wav", text: "Set the office lamp to twenty percent.", slot: "area: office" };
const PRESSED = { file: "017_combo.wav", text: "Open the bathroom gate." };
const RECORDED = { file: "003_both.wav", text: TRANSCRIPT };
const SEEN = { file: "002_picture.png", text: CAPTION };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-audio-capture=${heldOut}/audio/${RECORDED.file}%noloop`,
  ],
});
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["microphone"], reducedMotion: "reduce" });
context.setDefaultTimeout(30_000);
const page = await context.newPage();
const amiss = [];
page.on("pageerror", (error) => amiss.push(`the page threw ${error}`));
// A wrong key and what is silenced are refused on purpose.
page.on("console", (message) => message.type() === "error" && !/status of (401|503)/.test(message.text()) && amiss.push(message.text()));
page.on("request", (request) => {
  const url = request.url();
  if (!url.startsWith(address) && !/^(blob|data):/.test(url)) amiss.push(`the page asked ${url}`);
});

const wish = (text) => process.stdout.write(`${text}\n`);
const feed = (text) => page.locator("#feed > li", { hasText: text });

function expect(what, found, wanted = true) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

async function faults(what) {
  // Run by the driver, not loaded by the page, whose policy would refuse it.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  expect(`serious faults of ${what} by axe`, serious.map(({ id, nodes }) => [id, nodes.map(({ target }) => target.join(" "))]), []);
}

async function ask(prompt) {
  await page.fill("#prompt", prompt);
  await page.keyboard.press("Enter");
  const answer = page.locator("#talk .theirs").last();
  await page.waitForFunction(() => !document.getElementById("send").hidden && document.querySelector("#ask-state").textContent.includes("tokens read"));
  return answer.textContent();
}

const checks = {
  async "a wrong key is refused"() {
    await page.goto(address);
    await page.waitForSelector("#login:not([hidden])");
    expect("the focus", await page.evaluate(() => document.activeElement.id), "key");
    await faults("the page that asks for the key");
    await page.fill("#key", `${key}x`);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("refused").textContent);
    expect("what is shown", await page.isVisible("#board"), false);
    expect("cookies", await context.cookies(), []);
  },
  async "the right key is asked once, and kept where no script reads it"() {
    await page.fill("#key", key);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#board:not([hidden])");
    const [cookie] = await context.cookies();
    expect("the cookie", [cookie.httpOnly, cookie.sameSite, cookie.value.includes(key)], [true, "Strict", false]);
    expect("what scripts see of it", await page.evaluate(() => document.cookie), "");
    await page.reload();
    await page.waitForSelector("#board:not([hidden])");
    await page.waitForSelector("#link.good");
  },
  async "what is heard appears, with its command"() {
    wish(`say ${SAID.file}`);
    await feed(SAID.text).first().waitFor();
    await feed(SAID.text).locator(".badge", { hasText: SAID.slot }).first().waitFor();
    await feed(SAID.text).locator(".times", { hasText: "ms: " }).first().waitFor();
  },
  async "what is seen appears, with its picture"() {
    wish(`show ${SEEN.file}`);
    const item = feed(SEEN.text).first();
    await item.waitFor();
    await item.locator("img").waitFor();
    await page.waitForFunction((text) => [...document.querySelectorAll("#feed img")].some((image) => image.alt === text && image.naturalWidth > 0), SEEN.text);
  },
  async "press-to-talk works with the pointer"() {
    const button = page.locator("#microphones button", { hasText: "Press to talk" }).first();
    await button.click();
    await page.waitForSelector('#microphones button[aria-pressed="true"]');
    wish(`say ${PRESSED.file}`);
    await page.waitForFunction(() => [...document.querySelectorAll("#microphones meter")].some((meter) => meter.value > meter.min));
    await feed(PRESSED.text).first().waitFor();
    await page.waitForSelector('#microphones button[aria-pressed="true"]', { state: "detached" });
  },
  async "press-to-talk works with the keyboard"() {
    const before = await feed(PRESSED.text).count();
    await page.locator("#microphones button", { hasText: "Press to talk" }).first().focus();
    await page.keyboard.press("Space");
    await page.waitForSelector('#microphones button[aria-pressed="true"]');
    wish(`say ${PRESSED.file}`);
    await feed(PRESSED.text).nth(before).waitFor();
  },
  async "a microphone is muted and opened again"() {
    const kitchen = page.locator("#microphones li", { hasText: "Kitchen" });
    await kitchen.getByRole("button", { name: /^Mute/ }).click();
    await kitchen.locator(".badge", { hasText: "muted" }).waitFor();
    expect("press-to-talk", await kitchen.getByRole("button", { name: "Press to talk" }).isDisabled());
    await kitchen.getByRole("button", { name: /^Unmute/ }).click();
    await kitchen.locator(".badge", { hasText: "online" }).waitFor();
  },
  async "how sure a wake word is shows where there is one, and moves"() {
    const meter = (name) => page.getByLabel(`How sure the wake word of ${name} is`);
    expect("a meter where nothing wakes", await meter("Kitchen").isVisible(), false);
    await meter("Den").waitFor();
    const den = page.locator("#microphones li", { hasText: "Den" });
    await den.getByRole("button", { name: /^Unmute/ }).click();
    await page.waitForFunction(() => [...document.querySelectorAll("#microphones label meter")].some((meter) => meter.value > 0.02));
    await den.getByRole("button", { name: /^Mute/ }).click();
    await den.locator(".badge", { hasText: "muted" }).waitFor();
  },
  async "the speaker says what is typed, and is silenced"() {
    await page.fill("#words", "The bell rings.");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("speak-state").textContent === "It was heard.");
    expect("the box", await page.inputValue("#words"), "");
    await page.fill("#words", "Hold it, half said.");
    await page.click("#speak button[type=submit]");
    await page.locator("#speaker-state", { hasText: "speaking" }).waitFor();
    await page.click("#hush");
    await page.waitForFunction(() => document.getElementById("speak-state").textContent.startsWith("Not said: it was stopped"));
    expect("what was not said stays", await page.inputValue("#words"), "Hold it, half said.");
    await page.fill("#words", "");
  },
  async "a camera describes when it is told to"() {
    const before = await page.locator("#feed > li", { hasText: "caption" }).count();
    await page.locator("#cameras button", { hasText: "Describe now" }).first().click();
    await page.locator("#feed > li", { hasText: "caption" }).nth(before).waitFor();
    await page.locator("#cameras img:not([hidden])").first().waitFor();
  },
  async "the ask box streams an answer"() {
    await page.evaluate(() => {
      globalThis.lengths = new Set();
      new MutationObserver(() => globalThis.lengths.add(document.querySelector("#talk .theirs:last-child")?.textContent.length)).observe(
        document.getElementById("talk"),
        { childList: true, subtree: true, characterData: true },
      );
    });
    expect("the answer", await ask(QUESTION), ANSWER);
    expect("it came in pieces", (await page.evaluate(() => globalThis.lengths.size)) > 3);
  },
  async "a picture that is attached is looked at"() {
    await page.click("#anew");
    await page.setInputFiles("#files", `${heldOut}/images/${SEEN.file}`);
    await page.waitForSelector("#attached img");
    expect("the answer", await ask(LOOK), SEEN.text);
  },
  async "sound that is dropped is heard"() {
    await page.click("#anew");
    const bytes = readFileSync(`${heldOut}/audio/${RECORDED.file}`).toString("base64");
    const dropped = await page.evaluateHandle((text) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], "clip.wav", { type: "audio/wav" }));
      return transfer;
    }, bytes);
    await page.dispatchEvent("#ask", "drop", { dataTransfer: dropped });
    await page.waitForSelector("#attached audio");
    expect("the answer", await ask(LISTEN), RECORDED.text);
  },
  async "the browser's microphone is heard"() {
    await page.click("#anew");
    await page.click("#record");
    await page.waitForSelector('#record[aria-pressed="true"]');
    await page.waitForTimeout(4000); // the length of the recording
    await page.click("#record");
    await page.waitForSelector("#attached audio");
    // What a busy browser records of a file has gaps; that a sentence about this place comes out says that it was heard.
    const heard = await ask(LISTEN);
    expect(`a sentence about the hallway (${heard})`, heard.includes("hallway"));
  },
  async "the boards of the fleet are shown, and what they have done"() {
    const row = (name) => page.locator("#boards tr", { hasText: name }).first();
    await page.waitForFunction(() => {
      const shown = document.getElementById("boards").tBodies[0].rows.length >= 3;
      if (!shown) document.getElementById("again").click();
      return shown;
    }, null, { polling: 1000 });
    expect("the cellar", await row("cellar").locator("th, td").allTextContents(), ["cellar", "<b>gemma</b>", "busy", "41, 2 with an error", "1234 ms", "0", "0"]);
    expect("the attic's state", await row("attic").locator(".badge").textContent(), "does not fit");
    await page.locator("#boards td", { hasText: "update the older one" }).waitFor();
    expect("the sums", /works for others and sends work · 3 jobs .* 1 dead/.test(await page.textContent("#fleet-state")));
  },
  async "markup from outside stays text"() {
    await page.click("#anew");
    await ask('<img src=x onerror="document.title=1"><script>document.title=2</script>');
    expect("elements made of it", await page.locator("#talk img, #talk script").count(), 0);
    expect("the title", /gemmad/.test(await page.title()));
    await page.click("#anew");
  },
  async "a schema that is none is told"() {
    await page.click("summary");
    await page.fill("#schema", "{");
    await page.fill("#prompt", "Hello");
    await page.click("#send");
    await page.waitForFunction(() => document.getElementById("ask-state").textContent.includes("not JSON"));
    await page.fill("#schema", "");
    await page.fill("#prompt", "");
    await page.click("summary");
  },
  async "cards have the right address"() {
    const cards = await page.locator("#cards code").allTextContents();
    expect("cards", cards.map((card) => card.includes("://")), [true, true, true]);
    await page.locator("#cards button").first().click();
    await page.locator("#cards button", { hasText: /Copied|Marked/ }).first().waitFor();
  },
  async "the keyboard gets everywhere, and back"() {
    await page.click("h1");
    await page.keyboard.press("Shift+Tab");
    expect("the first stop", await page.evaluate(() => document.activeElement.className), "skip");
    const stops = new Set();
    for (let n = 0; n < 60; n++) {
      await page.keyboard.press("Tab");
      stops.add(await page.evaluate(() => document.activeElement.id || document.activeElement.textContent));
    }
    for (const stop of ["feed", "prompt", "record", "files", "words", "again"]) expect(`a stop at ${stop}`, stops.has(stop));
    expect("a stop at press-to-talk", [...stops].some((stop) => stop.startsWith("Press to talk")));
  },
  async "axe finds no serious fault, light, dark and on a phone"() {
    await page.evaluate(() => scrollTo(0, 0));
    for (const [name, colorScheme, viewport] of [
      ["light", "light", { width: 1280, height: 900 }],
      ["dark", "dark", { width: 1280, height: 900 }],
      ["phone", "light", { width: 390, height: 844 }],
    ]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize(viewport);
      await faults(name);
      expect(`${name}: nothing is wider than the window`, await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
    }
  },
  async "signing out ends it"() {
    await page.click("#logout");
    await page.waitForSelector("#login:not([hidden])");
    expect("cookies", await context.cookies(), []);
  },
  async "nothing went amiss beside"() {
    expect("errors of the page", amiss, []);
  },
};

let number = 0;
let code = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    wish(`ok ${++number} of ${Object.keys(checks).length}: ${name}`);
  } catch (error) {
    wish(`not ok: ${name}: ${error.message}\n${JSON.stringify(amiss)}`);
    await page.screenshot({ path: `${pictures}/failed.png`, fullPage: true });
    code = 1;
    break;
  }
}
await browser.close();
process.exit(code);
