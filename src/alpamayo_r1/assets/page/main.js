// What is shown and what is done: one state, one `render`, and requests of which the newest counts.

import * as api from "./api.js";
import * as draw from "./draw.js";
import { openEvaluations } from "./evaluation.js";

const $ = (id) => document.getElementById(id);
const FRONT = "camera_front_wide_120fov";
const STEP = 100_000;
const AHEAD = 2;

const state = { about: null, clips: [], clip: null, range: null, t0: 5_100_000, reason: "", navigation: "", guidance: 1, lit: null, pinned: {}, playing: false, drive: null, left: null };

const MOST_TOKENS = 256;

/** What is asked of every plan; fewer tokens than usual where the service gives no more. */
function settings() {
  const { samples, max_tokens } = state.about?.limits ?? { samples: 16, max_tokens: MOST_TOKENS };
  const found = { samples: clamp(Number($("samples").value) || 1, 1, Math.min(16, samples)), seed: clamp(Math.floor(Number($("seed").value)) || 0, 0, 2 ** 31 - 1) };
  return max_tokens < MOST_TOKENS ? { ...found, max_tokens } : found;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const seconds = (us) => `${(us / 1e6).toFixed(1)} s`;

/** The plans that are shown: the model's own, and what if. While it plays one sample each, which is what there is time for. */
function variants() {
  if (state.drive) {
    const told = state.drive.told.get(state.t0) ?? "";
    const options = { drive: told };
    return [{ kind: told ? "other" : "free", title: told ? `Taken over: ${told}` : "The model drives by its own words", options }];
  }
  const common = state.playing ? { ...settings(), samples: 1 } : settings();
  const found = [{ kind: "free", title: "The model's own words", options: common }];
  if (state.reason) found.push({ kind: "other", title: `What if: ${state.reason}`, options: { ...common, reasoning: state.reason } });
  else if (state.navigation) {
    const options = { ...common, navigation: state.navigation, guidance: state.guidance };
    found.push({ kind: "other", title: `Told: ${state.navigation} (guidance ${state.guidance})`, options });
  }
  return found;
}

// ---------------------------------------------------------------------------------------------------------------- what is drawn

function render() {
  const { clip, t0 } = state;
  if (!clip) return;
  $("time").value = t0;
  $("time").setAttribute("aria-valuetext", seconds(t0));
  $("clock").value = seconds(t0);
  const now = variants().map((one) => {
    const reply = api.peek(api.planKey(clip, t0, one.options));
    const played = api.peek(api.planKey(clip, t0, { ...one.options, samples: 1 }));
    return { ...one, whole: Boolean(reply), reply: reply ?? played };
  });
  const scene = api.peek(`scene ${clip} ${t0}`);
  const paths = now.flatMap(pathsOf);
  words(now, scene);
  cameras(scene, paths, now.length > 1);
  draw.above($("above-canvas"), scene, paths);
  draw.curve($("speed"), scene, paths, draw.speed, "m/s", 2);
  draw.curve($("curvature"), scene, paths, draw.curvature, "1/m", 0.02);
  describe(scene, now);
  const pictured = scene?.cameras.every((camera) => api.peek(api.pictureKey(clip, t0, camera)));
  document.documentElement.dataset.pictured = pictured ? `${clip} ${t0}` : "";
  document.documentElement.dataset.shown = pictured && now.every((one) => one.whole) ? `${clip} ${t0}` : "";
}

function litOf(kind, count) {
  if (state.lit && state.lit.kind === kind) return state.lit.sample;
  return Math.min(state.pinned[kind] ?? 0, count - 1);
}

function pathsOf({ kind, reply }) {
  if (!reply) return [];
  const [plan] = reply.plans;
  const lit = litOf(kind, plan.xyz.length);
  return plan.xyz.map((xyz, i) => ({ xyz, kind, sample: i, lit: i === lit, reply }));
}

function cameras(scene, paths, beside) {
  const place = $("cameras");
  const names = scene?.cameras ?? [];
  if (!names.length) return;
  const large = largeOf(names);
  const wanted = [
    { camera: large, kind: beside ? "free" : null, told: beside ? "its own words" : "", large: true },
    ...(beside ? [{ camera: large, kind: "other", told: state.reason ? "your words" : "as it is told", large: true }] : []),
    ...names.filter((name) => name !== large).map((camera) => ({ camera, kind: null, large: false })),
  ];
  place.classList.toggle("beside", beside);
  const layout = JSON.stringify(wanted);
  if (place.dataset.layout !== layout) {
    place.dataset.layout = layout;
    place.replaceChildren(...wanted.map(figure));
  }
  for (const [i, { camera, kind, told }] of wanted.entries()) {
    const canvas = place.children[i].querySelector("canvas");
    canvas.style.aspectRatio = `${scene.size.width} / ${scene.size.height}`;
    const bordered = paths
      .filter((path) => !kind || path.kind === kind)
      .map((path) => ({ ...path, border: path.reply.corridors?.[camera]?.samples[path.sample] }))
      .filter((path) => path.border);
    const order = [...bordered.filter((p) => !p.lit), ...bordered.filter((p) => p.lit)];
    const truth = paths.map((path) => path.reply.corridors?.[camera]?.truth).find(Boolean) ?? null;
    draw.camera(canvas, api.peek(api.pictureKey(state.clip, state.t0, camera)), order, truth);
    canvas.setAttribute("aria-label", `${draw.TITLES[camera] ?? camera} camera at ${seconds(state.t0)}${told ? `, ${told}` : ""}, with the planned corridor`);
  }
}

function figure({ camera, told, large }) {
  const found = document.createElement("figure");
  found.classList.toggle("large", large);
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  const caption = document.createElement("figcaption");
  caption.textContent = `${draw.TITLES[camera] ?? camera}${told ? ` · ${told}` : ""}`;
  found.append(canvas, caption);
  return found;
}

function words(now, scene) {
  const place = $("words");
  const key = JSON.stringify([now.map(({ title, options, whole, reply }) => [title, options, whole, reply ? [reply.t0_us, reply.clip_id] : null]), Boolean(scene?.future)]);
  if (place.dataset.key !== key) {
    const focused = document.activeElement?.dataset?.chip;
    place.dataset.key = key;
    place.replaceChildren(...now.map((one) => column(one, scene)));
    if (focused) place.querySelector(`[data-chip="${focused}"]`)?.focus();
  }
  for (const button of place.querySelectorAll("[data-chip]")) {
    const [kind, sample] = button.dataset.chip.split(" ");
    const count = place.querySelectorAll(`[data-chip^="${kind} "]`).length;
    const lit = litOf(kind, count) === Number(sample);
    button.classList.toggle("lit", lit);
    button.setAttribute("aria-pressed", String(Math.min(state.pinned[kind] ?? 0, count - 1) === Number(sample)));
  }
}

function column({ kind, title, reply }, scene) {
  const found = document.createElement("div");
  found.className = "variant";
  const head = document.createElement("h2");
  const mark = document.createElement("span");
  mark.className = `key ${kind}`;
  head.append(mark, title);
  const list = document.createElement("ul");
  list.className = "chips";
  found.append(head, list);
  if (!reply) {
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = state.about?.ready ? "planning …" : "The model is being loaded. Its plans come as soon as it is there.";
    found.append(note);
    return found;
  }
  const [plan] = reply.plans;
  plan.reasoning.forEach((text, i) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.chip = `${kind} ${i}`;
    const parts = [`${i + 1}`, text.trim() || "(no words)", far(plan.xyz[i], scene)];
    button.append(...parts.map((part, k) => Object.assign(document.createElement("span"), { textContent: part, className: k === 2 ? "error" : "" })));
    const light = () => {
      state.lit = { kind, sample: i };
      render();
    };
    const dim = () => {
      if (state.lit?.kind === kind && state.lit.sample === i) state.lit = null;
      render();
    };
    button.onmouseenter = button.onfocus = light;
    button.onmouseleave = button.onblur = dim;
    button.onclick = () => {
      state.pinned[kind] = i;
      render();
    };
    item.append(button);
    list.append(item);
  });
  const codes = new Map([...(scene?.notes ?? []), ...plan.notes].map((note) => [note.code, note.text]));
  for (const [code, text] of codes) {
    found.append(Object.assign(document.createElement("p"), { className: "note", textContent: `⚠ ${code}: ${text}` }));
  }
  return found;
}

/** How far a path ends from what was driven, or from here where that is not known. */
function far(xyz, scene) {
  const truth = scene?.future?.xyz ?? [];
  const both = xyz.filter((_, i) => truth[i] && truth[i][0] !== null);
  if (!both.length) return `${Math.hypot(xyz.at(-1)[0], xyz.at(-1)[1]).toFixed(0)} m`;
  const sum = xyz.reduce((total, p, i) => (truth[i] && truth[i][0] !== null ? total + Math.hypot(p[0] - truth[i][0], p[1] - truth[i][1]) : total), 0);
  return `ADE ${(sum / both.length).toFixed(2)} m`;
}

function describe(scene, now) {
  const told = now
    .filter((one) => one.reply)
    .map(({ kind, reply }) => {
      const [plan] = reply.plans;
      const end = plan.xyz[litOf(kind, plan.xyz.length)].at(-1);
      const side = Math.abs(end[1]) < 0.3 ? "straight on" : `${Math.abs(end[1]).toFixed(1)} m to the ${end[1] > 0 ? "left" : "right"}`;
      return `${kind === "free" ? "its own plan" : "the plan you asked for"} ends ${end[0].toFixed(0)} m ahead, ${side}`;
    })
    .join("; ");
  $("above-canvas").setAttribute("aria-label", `View from above: ${told || "no plan yet"}`);
  $("speed").setAttribute("aria-label", `Speed over time: ${told || "no plan yet"}`);
  $("curvature").setAttribute("aria-label", `Curvature over time: ${told || "no plan yet"}`);
  const kinds = [...now.map(({ kind }) => [kind, kind === "free" ? "plan" : state.drive ? "by your words" : "what if"]), ...(scene?.future ? [["truth", "driven"]] : []), ["past", "before t0"]];
  $("legend").replaceChildren(
    ...kinds.map(([kind, text]) => {
      const item = document.createElement("li");
      const mark = document.createElement("span");
      mark.className = `key ${kind}`;
      item.append(mark, text);
      return item;
    }),
  );
  $("rights").textContent = scene?.notice ?? "";
}

// ------------------------------------------------------------------------------------------------------------------ what is asked

/** Calls what it is given for the newest wish, one at a time: wishes that come meanwhile replace each other. */
function newest(what) {
  let wanted = 0;
  let busy = false;
  return async () => {
    wanted += 1;
    if (busy) return;
    busy = true;
    try {
      for (let mine = 0; mine !== wanted; ) {
        mine = wanted;
        await what(() => mine === wanted);
      }
    } finally {
      busy = false;
    }
  };
}

const look = newest(() => patiently(lookAt));
const think = newest((current) => patiently(() => planFor(current)));

/** Gets what is missing for the moment that is shown: its pictures, and beside them the plans. */
function refresh() {
  render();
  if (state.playing || state.drive || !state.clip) return;
  look();
  think();
}

/** Does something, again while the service is busy; says what went wrong otherwise. */
async function patiently(what) {
  for (;;) {
    try {
      return await what();
    } catch (error) {
      if (!(error instanceof api.Refused)) throw error;
      if (!error.again) {
        tell("");
        return warn(error.message);
      }
      if (!error.status) warn(error.message);
      tell(`${error.status ? "busy, " : ""}again in ${error.again} s`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.again));
    }
  }
}

async function lookAt() {
  await read(state.clip, state.t0);
  render();
}

async function planFor(current) {
  const { clip, t0 } = state;
  const began = performance.now();
  for (const { options } of variants()) {
    if (!current() || state.playing || state.drive) return;
    tell(state.about.ready ? "planning …" : "loading the model …", 150);
    await api.plan(clip, t0, options).promise;
    state.about.ready = true;
    render();
  }
  if (!current()) return;
  warn("");
  tell(`planned in ${Math.round(performance.now() - began)} ms`);
}

let telling = 0;
function tell(text, after = 0) {
  clearTimeout(telling);
  if (after) telling = setTimeout(() => ($("state").textContent = text), after);
  else $("state").textContent = text;
}

function warn(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function choose(id, t0) {
  stop();
  endDrive();
  try {
    const { now, promise } = api.clip(id);
    const clip = now ?? (await promise);
    Object.assign(state, { clip: clip.clip_id, range: clip.t0_us, left: null });
    Object.assign($("time"), { min: clip.t0_us.first, max: clip.t0_us.last });
    state.t0 = clamp(t0 ?? 5_100_000, clip.t0_us.first, clip.t0_us.last);
    $("clip").value = state.clip;
    state.pinned = {};
    remember();
    refresh();
  } catch (error) {
    warn(error.message);
    if (!(error instanceof api.Refused)) throw error;
  }
}

function moveTo(t0) {
  if (!state.range) return;
  stop();
  state.t0 = clamp(t0, state.range.first, state.range.last);
  remember();
  refresh();
}

function remember() {
  if (state.drive) return;
  history.replaceState(null, "", `#clip=${state.clip}&t0=${state.t0}`);
}

// -------------------------------------------------------------------------------------------------------------------------- play

let playing = null;

function stop() {
  if (playing) playing.over = true;
}

async function play() {
  if (playing) return stop();
  if (state.drive) return driveOn();
  const run = (playing = { over: false });
  state.playing = true;
  const streams = variants().map(({ options }) => new api.Stream(options));
  playButton(true);
  const { clip, range } = state;
  if (state.t0 + STEP > range.last) state.t0 = range.first;
  const shown = [performance.now()];
  /** Moments to come: the plans of AHEAD of them are asked for at once, so that the service reads one while it plans another. */
  const coming = [];
  const ask = () => {
    const t0 = (coming.at(-1)?.t0 ?? state.t0) + STEP;
    if (t0 > range.last) return;
    const plans = Promise.all(streams.map((stream) => api.peek(api.planKey(clip, t0, stream.options)) ?? stream.step(clip, t0)));
    const pictures = read(clip, t0);
    [plans, pictures].forEach((promise) => promise.catch(() => {}));
    coming.push({ t0, plans, pictures });
  };
  try {
    for (let i = 0; i < AHEAD; i++) ask();
    while (coming.length && !run.over) {
      const { t0, plans, pictures } = coming[0];
      await plans;
      if (run.over) break;
      ask();
      coming.shift();
      await pictures;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, 100 - (performance.now() - shown.at(-1)))));
      if (run.over) break;
      state.t0 = t0;
      render();
      shown.push(performance.now());
      const few = shown.slice(-11);
      tell(`${((1000 * (few.length - 1)) / (few.at(-1) - few[0])).toFixed(1)} per second`);
      document.documentElement.dataset.played = String(shown.length - 1);
    }
  } catch (error) {
    warn(error.message);
    if (!(error instanceof api.Refused)) throw error;
  } finally {
    streams.forEach((stream) => stream.close());
    playing = null;
    state.playing = false;
    playButton(false);
    remember();
    refresh();
  }
}

// ------------------------------------------------------------------------------------------------------------------------- drive

/** Begins a scene of the world: what is driven becomes a clip of its own, that can be scrubbed. */
async function startDrive(event) {
  event?.preventDefault();
  $("drive").close();
  takeOver("");
  stop();
  endDrive();
  state.left ??= { clip: state.clip, t0: state.t0 };
  const begin = { seed: Math.floor(Number($("drive-seed").value)) || 0, family: $("family").value || null, seconds: 20, options: { ...settings(), samples: 1 } };
  const socket = new api.Drive(begin);
  try {
    tell("setting the scene …");
    const { left } = await socket.ready;
    state.drive = { socket, left, told: new Map() };
    driveTools(true);
    $("clip").add(new Option(`driving: ${begin.family?.replaceAll("_", " ") ?? "a scene"} · seed ${begin.seed}`, "drive"), 0);
    $("clip").value = "drive";
    state.pinned = {};
    await driveOn();
  } catch (error) {
    socket.close();
    warn(error.message);
    if (!(error instanceof api.Refused)) throw error;
  }
}

async function driveOn() {
  const run = (playing = { over: false });
  const { drive } = state;
  playButton(true);
  warn("");
  let count = 0;
  try {
    while (!run.over && drive.left > 0) {
      const began = performance.now();
      const told = state.reason;
      const reply = await drive.socket.step(told);
      drive.left = reply.left;
      drive.told.set(reply.t0_us, told);
      api.put(api.planKey(reply.scene.clip_id, reply.t0_us, { drive: told }), reply);
      const first = drive.told.keys().next().value;
      Object.assign(state, { clip: reply.scene.clip_id, t0: reply.t0_us, range: { first, last: reply.t0_us } });
      Object.assign($("time"), { min: first, max: reply.t0_us });
      render();
      count += 1;
      document.documentElement.dataset.driven = String(count);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, 100 - (performance.now() - began))));
      tell(`${reply.speed.toFixed(1)} m/s · ${(1000 / (performance.now() - began)).toFixed(1)} per second · ${(reply.left / 10).toFixed(1)} s left`);
    }
    if (drive.left <= 0) tell("The drive is over. Scrub through it, or start another.");
  } catch (error) {
    warn(error.message);
    if (!(error instanceof api.Refused)) throw error;
  } finally {
    playing = null;
    playButton(false);
  }
}

function endDrive() {
  if (!state.drive) return;
  $("clip").querySelector('option[value="drive"]')?.remove();
  state.drive.socket.close();
  state.drive = null;
  driveTools(false);
  $("reason").value = state.reason = "";
  $("reason-clear").hidden = true;
}

function driveTools(on) {
  $("drive-tools").hidden = !on;
  $("settings").hidden = on;
}

/** What the model thinks from now on; nothing: its own words. */
function takeOver(text) {
  $("reason").value = text;
  setReason(text);
}

function playButton(on) {
  $("play").textContent = on ? "❚❚ Pause" : "▶ Play";
  $("play").setAttribute("aria-pressed", String(on));
}

async function read(clip, t0) {
  const scene = await api.scene(clip, t0).promise;
  await Promise.all(scene.cameras.map((camera) => api.picture(clip, t0, camera, widthOf(scene.cameras, camera)).promise));
}

const largeOf = (cameras) => (cameras.includes(FRONT) ? FRONT : cameras[0]);
/** Pixels across that a picture is sent with: no more than is seen of it. */
const widthOf = (cameras, camera) => (camera === largeOf(cameras) ? 1280 : 640);

// ------------------------------------------------------------------------------------------------------------------ what is typed

function setReason(text) {
  state.reason = text.trim();
  $("reason-clear").hidden = !state.reason;
  state.pinned.other = 0;
  if (state.drive) return;
  stop();
  refresh();
}

function setTheme(name) {
  localStorage.setItem("theme", name);
  const dark = name === "dark" || (name === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = `Theme: ${name}`;
  $("theme").setAttribute("aria-label", `Light or dark: ${name === "auto" ? "as the system says" : name}`);
  render();
}

function nextTheme() {
  const order = ["auto", "light", "dark"];
  setTheme(order[(order.indexOf(localStorage.getItem("theme") ?? "auto") + 1) % 3]);
}

function step(by) {
  const at = state.clips.findIndex((one) => one.clip_id === state.clip);
  const to = state.clips[clamp(at + by, 0, state.clips.length - 1)];
  if (to && to.clip_id !== state.clip) choose(to.clip_id);
}

function onKey(event) {
  const typing = event.target.closest("input:not([type=range]), select, textarea, dialog");
  if (event.key === "Escape" && state.reason && !event.target.closest("dialog")) {
    takeOver("");
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const far = event.shiftKey ? 10 : 1;
  const keys = {
    ArrowLeft: () => moveTo(state.t0 - far * STEP),
    ArrowRight: () => moveTo(state.t0 + far * STEP),
    "[": () => step(-1),
    "]": () => step(1),
    r: () => $("reason").focus(),
    ...(state.drive ? { s: () => takeOver("Stop now") } : {}),
    t: nextTheme,
    "?": () => $("help").showModal(),
  };
  if (event.key === " " && !event.target.closest("button, a")) keys[" "] = play;
  if (/^[1-9]$/.test(event.key)) {
    keys[event.key] = () => {
      state.pinned.free = Number(event.key) - 1;
      render();
    };
  }
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
}

async function question(event) {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text) return;
  const line = (words, kind) => $("said").append(Object.assign(document.createElement("p"), { textContent: words, className: kind }));
  line(text, "mine");
  $("question").value = "";
  try {
    const { answers } = await api.post("/api/ask", { clip_id: state.clip, t0_us: state.t0, question: text, options: { ...settings(), samples: 1 } });
    line(`${answers[0].answers[0].trim() || "(no words)"}${answers[0].ended[0] ? "" : " … (cut off)"}`, "answer");
  } catch (error) {
    line(error.message, "note");
  }
}

function listen() {
  $("clip").onchange = () => choose($("clip").value);
  $("time").oninput = () => moveTo(Number($("time").value));
  $("back").onclick = () => moveTo(state.t0 - STEP);
  $("on").onclick = () => moveTo(state.t0 + STEP);
  $("play").onclick = play;
  $("theme").onclick = nextTheme;
  $("open-help").onclick = () => $("help").showModal();
  $("open-drive").onclick = () => $("drive").showModal();
  $("drive-close").onclick = () => $("drive").close();
  $("drive-form").onsubmit = startDrive;
  $("open-evaluation").onclick = () => openEvaluations(state.about.evaluations, choose);
  $("reason-form").onsubmit = (event) => {
    event.preventDefault();
    setReason($("reason").value);
  };
  $("drive-stop").onclick = () => takeOver("Stop now");
  $("drive-free").onclick = () => takeOver("");
  $("drive-again").onclick = startDrive;
  $("drive-leave").onclick = () => choose(state.left.clip, state.left.t0);
  $("reason-clear").onclick = () => {
    takeOver("");
    $("reason").focus();
  };
  $("navigation-form").onsubmit = (event) => {
    event.preventDefault();
    state.navigation = $("navigation").value.trim();
    refresh();
  };
  $("guidance").oninput = () => {
    state.guidance = Number($("guidance").value);
    $("guidance-value").value = state.guidance.toFixed(1);
  };
  $("guidance").onchange = refresh;
  $("settings").onsubmit = (event) => event.preventDefault();
  $("samples").oninput = $("seed").oninput = () => {
    stop();
    refresh();
  };
  $("samples").onchange = () => ($("samples").value = settings().samples);
  $("question-form").onsubmit = question;
  document.addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(localStorage.getItem("theme") ?? "auto"));
  let resizing = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(render);
  }).observe(document.querySelector("main"));
}

async function begin() {
  api.takeToken();
  const asked = new URLSearchParams(location.hash.slice(1));
  setTheme(localStorage.getItem("theme") ?? "auto");
  listen();
  try {
    tell("starting …");
    const [about, { clips }, families] = await Promise.all(["/api/service", "/api/clips?count=1000", "/api/families"].map(api.get));
    Object.assign(state, { about, clips });
    $("family").replaceChildren(new Option("as the seed says", ""), ...families.map((name) => new Option(name.replaceAll("_", " "), name)));
  } catch (error) {
    warn(error.message);
    return;
  }
  $("clip").replaceChildren(...state.clips.map((one) => new Option([one.short, one.family.replaceAll("_", " "), one.text].filter(Boolean).join(" · "), one.clip_id)));
  $("reasons").replaceChildren(...[...new Set(state.clips.map((one) => one.text).filter(Boolean))].map((text) => new Option(text)));
  $("open-evaluation").hidden = !state.about.evaluations.length;
  $("navigation-form").hidden = !state.about.navigates;
  $("talk").hidden = !state.about.answers_questions;
  $("service").textContent = `${state.about.family} “${state.about.checkpoint}” on ${state.about.device}, version ${state.about.version}`;
  const known = state.clips.some((one) => one.clip_id === asked.get("clip"));
  const first = known ? asked.get("clip") : state.clips[0]?.clip_id;
  const t0 = Math.round(Number(asked.get("t0") ?? NaN));
  if (first) await choose(first, known && !Number.isNaN(t0) ? t0 : undefined);
  else warn("This service has no clips.");
}

begin();
