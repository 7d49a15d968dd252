// The page of gemmad. What comes from outside becomes text, never markup: elements are made by `make`, whose strings are text nodes.

const $ = (id) => document.getElementById(id);
const GROUPS = { text: "text", ple: "embeddings (PLE)", audio: "audio tower", vision: "vision tower" };
const STAGES = { queue_ms: "queue", load_ms: "load", encode_ms: "encode", prefill_ms: "prompt", decode_ms: "answer" };
const ROLES = { source: "This board sends its work", worker: "This board works for others", both: "This board works for others and sends work" };
const MOST_SHOWN = 60;
const HOUR_MS = 3_600_000;
const SHORTEST_MS = 300_000; // of the chart of memory
const RATE_HZ = 16_000;
const LARGEST_SIDE = 1600;

/** An element. `properties` are its own, or attributes where it has none of that name; children are elements and strings. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

/** A button's text, and behind it what only those hear who do not see where it stands. */
function label(button, text, about) {
  button.replaceChildren(text, make("span", { className: "unseen" }, ` ${about}`));
}

const number = (value, digits = 0) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const json = async (response) => response.json().catch(() => ({}));
const path = (kind, id, what) => `/page/${kind}/${encodeURIComponent(id)}/${what}`;

function announce(text) {
  $("announce").textContent = text;
}

function complain(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

/** What the door says of a request that it refused. */
async function refusal(response) {
  const { error } = await json(response);
  return (typeof error === "string" ? error : error?.message) ?? `${response.status} ${response.statusText}`;
}

async function tell(where, body) {
  const response = await fetch(where, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (response.status === 401 && where !== "/page/login") askForKey();
  if (!response.ok) throw new Error(await refusal(response));
}

/** Does what a button says, and tells where that goes wrong. */
async function act(button, where) {
  button.disabled = true;
  try {
    await tell(where);
    complain("");
    return true;
  } catch (error) {
    complain(error.message);
    return false;
  } finally {
    button.disabled = false;
  }
}

// ---- Signing in ----

let events = null;

function askForKey() {
  events?.close();
  events = null;
  $("board").hidden = true;
  $("now").hidden = true;
  $("login").hidden = false;
  $("key").focus();
}

async function signIn(event) {
  event.preventDefault();
  $("refused").textContent = "";
  try {
    await tell("/page/login", { key: $("key").value });
    $("key").value = "";
    $("login").hidden = true;
    await begin();
    $("main").focus();
  } catch (error) {
    $("refused").textContent = error.message;
    $("key").select();
  }
}

// ---- What is told by the daemon ----

const microphones = new Map();
const cameras = new Map();
let memory = [];
let waiting = null;

async function begin() {
  clearTimeout(waiting);
  let response;
  try {
    response = await fetch("/page/state");
  } catch {
    response = { status: 0 };
  }
  if (response.status === 401) return askForKey();
  if (!response.ok) {
    link("away", "bad");
    waiting = setTimeout(begin, 3000);
    return;
  }
  show(await response.json());
  if (events === null) listen();
  return models();
}

function listen() {
  events = new EventSource("/events");
  let opened = false;
  events.onopen = () => {
    link("live", "good");
    if (opened) begin(); // what happened in between
    opened = true;
  };
  const on = (name, take) => events.addEventListener(name, (event) => event.data && take(JSON.parse(event.data)));
  on("heard", (event) => heard(event, true));
  on("replied", (event) => replied(event, true));
  on("seen", (event) => seen(event, true));
  on("health", health);
  on("level", ({ id, dbfs }) => microphones.get(id)?.level(dbfs));
  on("score", ({ id, score }) => microphones.get(id)?.score(score));
  on("state", ({ kind, id, ...told }) => {
    const view = kind === "speaker" ? speaker : (kind === "camera" ? cameras : microphones).get(id);
    for (const [what, value] of Object.entries(told)) view?.[what]?.(value);
  });
  on("missed", begin);
  // Also what the browser calls the end of a connection, which has no data.
  events.onerror = (event) => {
    if (event.data) return warn(JSON.parse(event.data));
    link("reconnecting", "warning");
    if (events?.readyState !== EventSource.CLOSED) return;
    events = null;
    waiting = setTimeout(begin, 3000);
  };
}

function link(text, kind) {
  $("now").hidden = false;
  $("link").textContent = text;
  $("link").className = `badge ${kind}`;
}

function show(state) {
  $("board").hidden = false;
  $("login").hidden = true;
  $("logout").hidden = !state.has_key;
  $("name").textContent = state.name;
  $("model").textContent = [state.model, state.info.quantisation, `gemmad ${state.version}`].join(" · ");
  document.title = `${state.name} – gemmad`;
  devices(microphones, $("microphones"), state.microphones, microphone, "No microphone is configured.");
  devices(cameras, $("cameras"), state.cameras, camera, "No camera is configured.");
  $("speaker").hidden = !state.speaker;
  speaker.state(state.speaker?.state);
  speaker.speaking(state.speaker?.speaking);
  memory = state.memory.map(({ ts, rss_mib, groups }) => ({ at: Date.parse(ts), rss: rss_mib, groups }));
  health(state.health);
  doctor(state.doctor);
  cards(state);
  $("log").replaceChildren();
  for (const { event, data } of state.recent.toReversed()) ({ heard, replied, seen, error: warn })[event](data, false);
}

/** One view for each device; those that stay keep theirs, and with it the focus. */
function devices(views, list, told = [], build, none) {
  const gone = new Set(views.keys());
  for (const device of told) {
    gone.delete(device.id);
    if (!views.has(device.id)) {
      if (!views.size) list.replaceChildren();
      const view = build(device.id, device.name || device.id);
      views.set(device.id, view);
      list.append(view.element);
    }
    const view = views.get(device.id);
    view.state(device.state);
    view.speech?.(device.speech);
    view.wakes?.(device.wakes);
    view.motion?.(device.motion);
    view.pictured?.(device.has_picture);
  }
  for (const id of gone) {
    views.get(id).element.remove();
    views.delete(id);
  }
  if (!views.size) list.replaceChildren(make("li", { className: "faint" }, none));
}

function badge(text, kind = "") {
  return make("span", { className: `badge ${kind}` }, text);
}

// ---- Microphones ----

function microphone(id, name) {
  const state = badge("");
  const speaking = badge("speech", "live");
  const meter = make("meter", { min: -70, max: 0, value: -70, ariaLabel: `Level of ${name}, decibels full scale` });
  const sure = make("meter", { min: 0, max: 1, value: 0, ariaLabel: `How sure the wake word of ${name} is` });
  const waking = make("label", { className: "faint", hidden: true }, "Wake word ", sure);
  const mute = make("button", { type: "button", className: "quiet" });
  const talk = make("button", { type: "button" });
  let now = "";
  let ended = null;
  const listening = (yes) => {
    talk.ariaPressed = String(yes);
    label(talk, yes ? "Listening…" : "Press to talk", name);
    clearTimeout(ended);
    if (yes) ended = setTimeout(listening, 60_000, false);
    else meter.value = meter.min;
  };
  listening(false);
  talk.onclick = async () => {
    listening(true);
    try {
      await tell(path("microphones", id, "press"));
      complain("");
    } catch (error) {
      listening(false);
      complain(error.message);
    }
  };
  mute.onclick = () => act(mute, path("microphones", id, now === "muted" ? "unmute" : "mute"));
  return {
    name,
    element: make(
      "li",
      {},
      make("div", { className: "head" }, make("strong", {}, name), state, speaking),
      meter,
      waking,
      make("div", { className: "row" }, talk, mute),
    ),
    state(to) {
      now = to;
      state.textContent = to;
      state.className = `badge ${to === "online" ? "" : "warning"}`;
      label(mute, to === "muted" ? "Unmute" : "Mute", name);
      talk.disabled = to !== "online";
      if (to !== "online") listening(false);
    },
    speech(yes) {
      speaking.hidden = !yes;
      if (!yes) meter.value = meter.min;
    },
    level(dbfs) {
      meter.value = dbfs;
    },
    wakes(yes) {
      waking.hidden = !yes;
    },
    score(of) {
      sure.value = of;
    },
    wake(yes) {
      if (!yes) sure.value = 0;
    },
    heard: () => listening(false),
  };
}

// ---- The speaker ----

const speaker = {
  now: {},
  state: (to) => speaker.show({ state: to }),
  speaking: (yes) => speaker.show({ speaking: yes }),
  show(told) {
    Object.assign(speaker.now, told);
    const { state, speaking } = speaker.now;
    $("speaker-state").textContent = state === "online" && speaking ? "speaking" : (state ?? "");
    $("speaker-state").className = `badge ${state !== "online" ? "warning" : speaking ? "live" : ""}`;
  },
};

/** Has the text in the box said; it stays there where it cannot be. */
async function speak(event) {
  event.preventDefault();
  const text = $("words").value.trim();
  if (!text) return;
  $("speak-state").textContent = "Waiting to be heard…";
  try {
    await tell("/v1/audio/play", { text });
    $("words").value = "";
    $("speak-state").textContent = "It was heard.";
  } catch (error) {
    $("speak-state").textContent = `Not said: ${error.message}`;
  }
}

// ---- Cameras ----

function camera(id, name) {
  const state = badge("");
  const moving = badge("motion", "live");
  const image = make("img", { alt: "", hidden: true });
  const caption = make("p", { className: "faint" });
  const describe = make("button", { type: "button", className: "quiet" });
  let patience = null;
  const busy = (yes) => {
    label(describe, yes ? "Looking…" : "Describe now", name);
    clearTimeout(patience);
    if (yes) patience = setTimeout(() => busy(false), 120_000);
  };
  busy(false);
  describe.onclick = async () => {
    busy(true);
    if (!(await act(describe, path("cameras", id, "describe")))) busy(false);
  };
  const view = {
    name,
    element: make(
      "li",
      {},
      make("div", { className: "head" }, make("strong", {}, name), state, moving),
      image,
      caption,
      make("div", { className: "row" }, describe),
    ),
    state(to) {
      state.textContent = to;
      state.className = `badge ${to === "online" ? "" : "warning"}`;
      describe.disabled = to !== "online";
    },
    motion(yes) {
      moving.hidden = !yes;
    },
    /** The last one from before the page was opened. */
    async pictured(yes) {
      if (!yes || !image.hidden) return;
      const url = await picture(id);
      if (image.hidden) view.seen("The last picture that was described.", url);
    },
    seen(text, url) {
      busy(false);
      caption.textContent = text;
      if (!url) return;
      image.src = url;
      image.alt = text;
      image.hidden = false;
    },
  };
  return view;
}

/** The picture that was described last, as an address of this page; nothing where it is not the one of `sha256`. */
async function picture(id, sha256) {
  try {
    const response = await fetch(path("cameras", id, "picture"));
    const tag = response.headers.get("ETag");
    if (!response.ok || (sha256 && tag && !tag.includes(sha256))) return null;
    return URL.createObjectURL(await response.blob());
  } catch {
    return null;
  }
}

// ---- The feed ----

const known = new Set(); // ids: after a lost connection an event may come again

/** Whether it was not there before. */
function isNew({ id }) {
  if (known.has(id)) return false;
  known.add(id);
  return true;
}

function entry(event, device, said, kind, more) {
  const when = new Date(event.ts);
  const time = make("time", { dateTime: event.ts }, Number.isNaN(when.valueOf()) ? event.ts : when.toLocaleTimeString());
  const item = make(
    "li",
    {},
    make("div", { className: "who" }, time, ` · ${device?.name ?? event.source} `, badge(event.event_type.replace("_", " "), kind)),
    make("p", { className: "said" }, said),
    ...more,
    timing(event.timing),
  );
  $("feed").prepend(item);
  $("feed-empty").hidden = true;
  while ($("feed").childElementCount > MOST_SHOWN) {
    const old = $("feed").lastElementChild;
    const image = old.querySelector("img");
    if (image) URL.revokeObjectURL(image.src);
    old.remove();
  }
  return item;
}

function timing(timing) {
  if (!timing) return null;
  // A sentence waits while it is spoken, too; what is longer than all of it took was that.
  const stages = Object.entries(STAGES).filter(([key]) => timing[key] > 0 && (key !== "queue_ms" || timing[key] <= timing.latency_ms));
  const bar = make("div", { className: "stages", ariaHidden: "true" });
  for (const [key] of stages) {
    const part = make("i", { className: key });
    part.style.flexGrow = timing[key];
    bar.append(part);
  }
  const told = stages.map(([key, name]) => `${name} ${number(timing[key])}`).join(" · ");
  const speed = timing.tps > 0 ? ` · ${number(timing.tps, 1)} tokens/s` : "";
  return make("div", {}, bar, make("p", { className: "times" }, `${number(timing.latency_ms)} ms: ${told}${speed}`));
}

function heard(event, now) {
  if (!isNew(event)) return;
  const device = microphones.get(event.source);
  const command = event.command;
  const commands = event.commands ?? (command ? [command] : []);
  const said = event.text ?? (command ? command.name : (event.reason ?? ""));
  const more = commands.map(({ name, slots }) => {
    const parts = [make("b", {}, name), ...Object.entries(slots).map(([slot, value]) => `${slot}: ${value}`)];
    return make("div", { className: "slots" }, ...parts.map((part) => make("span", { className: "badge" }, part)));
  });
  if (event.reason && event.reason !== said) more.push(make("p", { className: "faint times" }, event.reason));
  const bad = event.event_type === "rejected" || event.event_type === "not_understood";
  entry(event, device, said, bad ? "warning" : "", more).dataset.id = event.id;
  device?.heard();
  const done = commands.map(({ name, slots }) => `, ${name} ${Object.values(slots).join(" ")}`).join("");
  if (now) announce(`${device?.name ?? event.source}: ${said}${done}`);
}

/** What was answered stands with what was heard. */
function replied(event, now) {
  const to = [...$("feed").children].find((item) => item.dataset.id === event.id);
  if (!to || to.querySelector(".reply")) return;
  to.querySelector(".said").after(make("p", { className: "reply" }, event.text));
  if (now) announce(event.text);
}

async function seen(event, now) {
  if (!isNew(event)) return;
  const device = cameras.get(event.source);
  const said = event.caption || event.reason || "";
  const item = entry(event, device, said, event.event_type === "failed" ? "bad" : "", []);
  if (now) announce(`${device?.name ?? event.source}: ${said}`);
  const url = await picture(event.source, event.image_sha256);
  if (url && item.isConnected) item.append(make("img", { src: url, alt: said }));
  if (now) device?.seen(said, url);
}

// ---- Memory, health, doctor, log ----

function health(told) {
  const at = Date.parse(told.ts) || Date.now();
  if (!memory.length || memory.at(-1).at < at) memory.push({ at, rss: told.rss_mib, groups: told.memory_groups_mib });
  memory = memory.filter((sample) => sample.at > at - HOUR_MS);
  chart();
  const { queues = {}, mqtt = {} } = told;
  fleet(told.fleet);
  const warm = told.soc_temp_c === null || told.soc_temp_c === undefined ? null : `${number(told.soc_temp_c)} °C`;
  const dropped = [
    ["utterances", queues.dropped_voice],
    ["captions", queues.dropped_captions],
    ["refused", queues.refused_requests],
    ["sound lost", queues.audio_overruns],
    ["timeouts", queues.timeouts],
  ];
  $("quick").textContent = [`${queues.jobs ?? 0} in the queue`, `${number(told.tokens_per_second, 1)} tokens/s`, warm].filter(Boolean).join(" · ");
  const rows = {
    State: [told.state, ...(told.degraded ?? [])].join("; "),
    Queue: `${queues.jobs ?? 0} waiting or running`,
    Dropped: dropped.filter(([, count]) => count).map(([what, count]) => `${count} ${what}`).join(", ") || "nothing",
    ...(queues.wake_words ? { "Wake words": `${queues.wake_words} heard, ${queues.wake_rejects} contradicted by the transcript` } : {}),
    Speed: `${number(told.tokens_per_second, 1)} tokens/s, prompt ${number(told.prefill_tokens_per_second, 1)} tokens/s`,
    Temperature: warm ?? "no sensor",
    Memory: `${number(told.rss_mib)} MiB, of it ${number(told.anonymous_mib)} MiB that no file is behind`,
    Load: number(told.load_1m, 2),
    Broker: mqtt.connected ? `connected, ${mqtt.queued} waiting` : "not connected",
    Running: lasting(told.uptime_s),
    "Last error": told.last_error ?? "none",
  };
  $("health").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value ?? "–")]));
}

/** Which boards share the work, and what is on its way between them. */
function fleet(told) {
  $("fleet").hidden = !told;
  if (!told) return;
  const { boards = [] } = told;
  const away = told.away + boards.reduce((sum, board) => sum + board.away, 0);
  const dead = told.poison + boards.reduce((sum, board) => sum + board.poison, 0);
  $("fleet-state").textContent = [told.connected ? ROLES[told.role] : "The NATS server is away", `${away} jobs wait or are worked on`, `${told.came_back} of this board came back`, `${dead} dead`].join(" · ");
  const row = (board) => {
    const works = board.role !== "source";
    const state = board.misfit ? badge("does not fit", "bad") : works ? badge(board.busy ? "busy" : "idle", board.busy ? "live" : "good") : "sends work";
    const done = works ? `${board.done}${board.failed ? `, ${board.failed} with an error` : ""}` : "–";
    const cells = [board.model || "–", state, done, works ? `${board.job_ms} ms` : "–", `${board.away}`, `${board.poison}`];
    const line = make("tr", {}, make("th", { scope: "row" }, board.node), ...cells.map((cell) => make("td", {}, cell)));
    return board.misfit ? [line, make("tr", {}, make("td", { colSpan: 7 }, board.misfit))] : [line];
  };
  $("boards").tBodies[0].replaceChildren(...boards.flatMap(row));
}

function lasting(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : `${minutes} min`;
}

/** Each sample holds until the next one; groups stand on one another, the process is a line. */
function chart() {
  const width = $("chart").clientWidth || 600;
  const [left, top, right, bottom] = [46, 8, width - 6, 148];
  const end = Math.max(Date.now(), memory.at(-1)?.at ?? 0);
  const total = (sample) => Object.keys(GROUPS).reduce((sum, group) => sum + (sample.groups?.[group] ?? 0), 0);
  const most = Math.max(1, ...memory.map((sample) => Math.max(total(sample), sample.rss ?? 0)));
  const span = Math.min(HOUR_MS, Math.max(SHORTEST_MS, end - (memory[0]?.at ?? end)));
  const x = (at) => left + Math.max(0, 1 - (end - at) / span) * (right - left);
  const y = (mib) => bottom - (mib / most) * (bottom - top);
  const steps = (value) => {
    const points = [];
    memory.forEach((sample, index) => {
      const until = memory[index + 1]?.at ?? end;
      points.push([x(sample.at), y(value(sample))], [x(until), y(value(sample))]);
    });
    return points.map(([h, v]) => `${h.toFixed(1)},${v.toFixed(1)}`);
  };
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const height = y(share * most);
    parts.push(svg("line", { class: "grid", x1: left, x2: right, y1: height, y2: height }));
    parts.push(svg("text", { x: left - 6, y: height + 4, "text-anchor": "end" }, `${Math.round(share * most)}`));
  }
  for (const [share, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
    const label = share ? `${number((share * span) / 60_000)} min ago` : "now, MiB";
    parts.push(svg("text", { x: x(end - share * span), y: bottom + 17, "text-anchor": anchor }, label));
  }
  if (memory.length) {
    let below = () => 0;
    for (const group of Object.keys(GROUPS)) {
      const under = below;
      const value = (sample) => under(sample) + (sample.groups?.[group] ?? 0);
      parts.push(svg("polygon", { class: `fill-${group}`, points: [...steps(value), ...steps(under).reverse()].join(" ") }));
      below = value;
    }
    parts.push(svg("polyline", { class: "rss", points: steps((sample) => sample.rss ?? 0).join(" ") }));
  }
  $("chart").replaceChildren(...parts);
  const last = memory.at(-1);
  const told = [...Object.entries(GROUPS).map(([group, name]) => [group, name, last?.groups?.[group]]), ["rss", "the process", last?.rss]];
  $("legend").replaceChildren(
    ...told.map(([group, name, mib]) =>
      make("li", {}, make("span", { className: `swatch ${group}`, ariaHidden: "true" }), `${name} ${number(mib, 1)} MiB`),
    ),
  );
}

function doctor(list) {
  const items = list.map(({ state, check, found, advice }) =>
    make("li", {}, badge(state, state), ` ${check}: ${found}`, advice ? make("p", {}, advice) : null),
  );
  $("doctor").replaceChildren(...(items.length ? items : [make("li", { className: "faint" }, "Nothing to report; gemmad doctor looks closer.")]));
}

function warn({ ts, level, message }) {
  $("log-title").hidden = false;
  const when = ts ? new Date(ts).toLocaleTimeString() : "";
  $("log").prepend(make("li", {}, badge(level ?? "error", level === "warn" ? "warning" : "bad"), ` ${when} ${message ?? ""}`));
  while ($("log").childElementCount > 20) $("log").lastElementChild.remove();
}

// ---- Cards ----

function cards(state) {
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const alone = ["localhost", "127.0.0.1", "[::1]"].includes(new URL(state.url).hostname);
  const base = local && !alone ? state.url : location.origin;
  $("reach").textContent = alone ? "This door is open to this machine only. To reach it from elsewhere set listen and api_key_file under [http] in gemmad.toml." : "";
  const key = state.has_key ? "YOUR_KEY" : null;
  const model = state.model;
  const header = key ? ` -H 'Authorization: Bearer ${key}'` : "";
  const list = [
    ["Home Assistant", "Settings, Devices & services, Add integration, Ollama. The URL, and the key where it is asked for:", [base, key && `API key: ${key}`, `Model: ${model}`]],
    ["Frigate", "In its config.yml. It sends pictures to whichever camera asks for descriptions:", ["genai:", "  provider: openai", `  base_url: ${base}/v1`, `  api_key: ${key ?? "none"}`, `  model: ${model}`]],
    ["curl", "A question from a shell:", [`curl ${base}/v1/chat/completions${header} \\`, "  -H 'Content-Type: application/json' -d '" + JSON.stringify({ model, messages: [{ role: "user", content: "Hello!" }] }) + "'"]],
  ];
  $("cards").replaceChildren(
    ...list.map(([title, how, lines]) => {
      const text = lines.filter(Boolean).join("\n");
      const code = make("code", {}, text);
      const copy = make("button", { type: "button", className: "quiet" });
      label(copy, "Copy", `for ${title}`);
      copy.onclick = async () => {
        label(copy, (await copied(text, code)) ? "Copied" : "Marked: copy it now", `for ${title}`);
        setTimeout(label, 2500, copy, "Copy", `for ${title}`);
      };
      return make("article", {}, make("h3", {}, title), make("p", {}, how), make("pre", { tabIndex: 0, role: "region", ariaLabel: `For ${title}` }, code), copy);
    }),
  );
}

/** The clipboard is there for https and localhost only; elsewhere the text is marked, and copied as in former days. */
async function copied(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

// ---- Asking ----

let turns = [];
let attached = []; // {kind, url, part}
let asking = null; // what ends the answer that is coming

async function models() {
  const response = await fetch("/v1/models");
  if (!response.ok) return;
  const { data = [] } = await json(response);
  const chosen = $("which").value;
  $("which").replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
  if (data.some(({ id }) => id === chosen)) $("which").value = chosen;
}

const base64 = (blob) =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });

async function attach(file) {
  try {
    if (file.type.startsWith("image/")) await attachPicture(file);
    else if (file.type.startsWith("audio/") || file.type.startsWith("video/")) await attachSound(file);
    else throw new Error("it is neither a picture nor sound");
    say("");
  } catch (error) {
    say(`${file.name || "This"} cannot be attached: ${error.message || "this browser cannot read it"}`);
  }
}

/** As it is where the door reads it, else as a JPEG; larger than the model looks at helps nobody. */
async function attachPicture(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LARGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  let blob = file;
  if (scale < 1 || !["image/jpeg", "image/png"].includes(file.type)) {
    const canvas = make("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  }
  const part = { type: "image_url", image_url: { url: `data:${blob.type};base64,${await base64(blob)}` } };
  add({ kind: "img", url: URL.createObjectURL(blob), part });
}

/** Whatever the browser can decode, as the model hears it: 16 kHz, one channel. */
async function attachSound(file) {
  const sound = await new OfflineAudioContext(1, 1, RATE_HZ).decodeAudioData(await file.arrayBuffer());
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((sample, at) => (samples[at] += sample / sound.numberOfChannels));
  }
  const blob = wav(samples);
  add({ kind: "audio", url: URL.createObjectURL(blob), part: { type: "input_audio", input_audio: { data: await base64(blob), format: "wav" } } });
}

function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE_HZ, true);
  view.setUint32(28, 2 * RATE_HZ, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, at) => view.setInt16(44 + 2 * at, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}

const preview = ({ kind, url }) => (kind === "img" ? make("img", { src: url, alt: "Attached picture" }) : make("audio", { src: url, controls: true, ariaLabel: "Attached sound" }));

function add(item) {
  attached.push(item);
  const remove = make("button", { type: "button", className: "quiet", ariaLabel: "Remove this attachment" }, "×");
  const line = make("li", {}, preview(item), remove);
  remove.onclick = () => {
    attached = attached.filter((other) => other !== item);
    line.remove();
    $("prompt").focus();
  };
  $("attached").append(line);
}

function say(text) {
  $("ask-state").textContent = text;
}

let recorder = null;

async function record() {
  if (recorder) return recorder.stop();
  if (!navigator.mediaDevices) return say("The browser gives its microphone to https pages and localhost only.");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = ({ data }) => pieces.push(data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      const type = recorder.mimeType || "audio/webm";
      recorder = null;
      $("record").ariaPressed = "false";
      $("record").textContent = "Record";
      attach(new File(pieces, "The recording", { type }));
    };
    recorder.start();
    $("record").ariaPressed = "true";
    $("record").textContent = "End recording";
    say("Recording…");
  } catch (error) {
    say(`The browser's microphone cannot be used: ${error.message}`);
  }
}

function wanted() {
  const prompt = $("prompt").value.trim();
  const parts = attached.map(({ part }) => part);
  const content = parts.length ? [...parts, ...(prompt ? [{ type: "text", text: prompt }] : [])] : prompt;
  const system = $("system").value.trim();
  const before = system ? [{ role: "system", content: system }] : [];
  const body = { model: $("which").value, messages: [...before, ...turns, { role: "user", content }], stream: true, stream_options: { include_usage: true } };
  if ($("longest").value) body.max_tokens = Number($("longest").value);
  if ($("schema").value.trim()) {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema: JSON.parse($("schema").value) } };
  }
  return body;
}

async function ask(event) {
  event.preventDefault();
  if (asking || (!$("prompt").value.trim() && !attached.length)) return;
  let body;
  try {
    body = wanted();
  } catch (error) {
    return say(`The schema is not JSON: ${error.message}`);
  }
  const mine = make("li", { className: "mine" }, ...attached.map(preview), $("prompt").value.trim());
  const theirs = make("li", { className: "theirs" }, "…");
  $("talk").hidden = false;
  $("talk").append(mine, theirs);
  busy(new AbortController());
  try {
    const answer = await answered(body, theirs);
    turns = [...turns, body.messages.at(-1), { role: "assistant", content: answer }];
    $("prompt").value = "";
    attached = [];
    $("attached").replaceChildren();
    announce(answer);
  } catch (error) {
    // What was asked stays in the box, so that it can be asked again.
    mine.remove();
    theirs.remove();
    $("talk").hidden = !$("talk").childElementCount;
    say(error.name === "AbortError" ? "Stopped." : `No answer: ${error.message}`);
  } finally {
    busy(null);
    $("prompt").focus();
  }
}

function busy(controller) {
  asking = controller;
  $("send").hidden = Boolean(asking);
  $("stop").hidden = !asking;
  $("anew").hidden = Boolean(asking) || !turns.length;
}

/** The answer's text, shown in `item` while it comes. */
async function answered(body, item) {
  const started = performance.now();
  say("Reading the question…");
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: asking.signal,
  });
  if (response.status === 401) askForKey();
  if (!response.ok) throw new Error(await refusal(response));
  let [text, first, usage, timings, finish] = ["", null, null, null, null];
  for await (const chunk of chunks(response.body)) {
    if (chunk.error) throw new Error(chunk.error.message ?? chunk.error);
    usage = chunk.usage ?? usage;
    timings = chunk.timings ?? timings;
    const [choice] = chunk.choices ?? [];
    finish = choice?.finish_reason ?? finish;
    if (!choice?.delta?.content) continue;
    first ??= performance.now();
    text += choice.delta.content;
    item.textContent = text;
    item.scrollIntoView({ block: "nearest" });
    say("Answering…");
  }
  if (finish === null) throw new Error("it broke off");
  if (!text) item.textContent = "(no words)";
  const seconds = (performance.now() - (first ?? started)) / 1000;
  const speed = timings?.predicted_per_second ?? (usage && usage.completion_tokens / seconds);
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  const told = [
    first && `first words after ${number((first - started) / 1000, 1)} s`,
    usage && `${usage.prompt_tokens} tokens read${cached ? `, ${cached} of them known` : ""}`,
    usage && `${usage.completion_tokens} answered`,
    speed && `${number(speed, 1)} tokens/s`,
    finish === "length" && "cut at the longest answer",
  ];
  say(told.filter(Boolean).join(" · "));
  return text;
}

/** The JSON of server-sent events. */
async function* chunks(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

// ---- What the page is wired to ----

$("login").addEventListener("submit", signIn);
$("logout").addEventListener("click", () => tell("/page/logout").then(() => location.reload(), (error) => complain(error.message)));
$("speak").addEventListener("submit", speak);
$("hush").addEventListener("click", () => act($("hush"), "/v1/audio/stop"));
$("again").addEventListener("click", begin);
$("ask").addEventListener("submit", ask);
$("stop").addEventListener("click", () => asking?.abort());
$("record").addEventListener("click", record);
$("files").addEventListener("change", async () => {
  for (const file of [...$("files").files]) await attach(file);
  $("files").value = "";
});
$("anew").addEventListener("click", () => {
  turns = [];
  $("talk").replaceChildren();
  $("talk").hidden = true;
  busy(null);
  say("");
  $("prompt").focus();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event);
});
$("prompt").addEventListener("paste", async (event) => {
  for (const file of [...event.clipboardData.files]) await attach(file);
});
for (const over of ["dragenter", "dragover"]) {
  $("ask").addEventListener(over, (event) => {
    event.preventDefault();
    $("ask").classList.add("drop");
  });
}
for (const out of ["dragleave", "drop"]) $("ask").addEventListener(out, () => $("ask").classList.remove("drop"));
$("ask").addEventListener("drop", async (event) => {
  event.preventDefault();
  for (const file of [...event.dataTransfer.files]) await attach(file);
});
new ResizeObserver(chart).observe($("chart"));
setInterval(chart, 60_000);
begin();
