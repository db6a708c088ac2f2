// The page: a picture or the camera, its faces, what the network says of one, and how damage
// changes that. What is computed of pixels is in faces.js.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { crop, damaged, enlargeMap, findFaces, toInput } from "./faces.js";

const by = (id) => document.getElementById(id);
const work = { known: null, network: null, detector: null }; // demo.json and the two sessions
const state = {
  picture: null,
  faces: [], // {x, y, width, height, input}, without damage
  found: 0, // milliseconds that finding them took
  chosen: 0,
  stream: null,
  held: false,
  place: [0.5, 0.72], // centre of the patch, in shares of the face: the mouth
  view: 0, // number of the picture and
  turn: 0, // of its damage: what was computed for an earlier one is thrown away
  times: [], // of the last frames: finding faces, naming them
  bars: [], // the elements of each emotion's row
  later: 0, // timers
  resized: 0,
};
const TITLES = { blur: "Blur", occlusion: "Occlusion", low_light: "Low light" };
const HINTS = { occlusion: "Click into the face above, or use its arrow keys, to move the patch." };
const STEP = 0.5; // of severity
const MOST = 5;
const MAX_PIXELS = 16e6; // of a canvas, on the browsers that hold the least
const BACKGROUND = "rgb(128 128 128)"; // behind what is transparent, as in training
const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const percent = (share) => PERCENT.format(share).replace("%", " %");
const largest = (row) => row.reduce((best, value, index) => (value > row[best] ? index : best), 0);

// --- the networks ----------------------------------------------------------------------------

async function load() {
  if (typeof WebAssembly !== "object") throw new Error("it has no WebAssembly");
  ort.env.wasm.numThreads = 1; // more need headers that a plain web server does not send
  const response = await fetch("demo.json");
  if (!response.ok) throw new Error(`demo.json: ${response.status} ${response.statusText}`);
  work.known = await response.json();
  by("facts").textContent = work.known.facts;
  const options = { executionProviders: ["wasm"] };
  work.network = await ort.InferenceSession.create("network.onnx", options);
  work.detector = await ort.InferenceSession.create("detector.onnx", options);
  // The first run takes much longer than the others.
  await detect(new Float32Array(3 * 32 * 32), 32, 32);
  await recognise([new Uint8Array(work.known.channels * work.known.size ** 2)]);
}

function detect(planes, width, height) {
  return work.detector.run({ input: new ort.Tensor("float32", planes, [1, 3, height, width]) });
}

// Probabilities, and the map of the likeliest emotion where there are maps, of each input.
async function recognise(inputs) {
  const { size, channels, emotions } = work.known;
  const pixels = new Uint8Array(inputs.length * channels * size * size);
  inputs.forEach((input, index) => pixels.set(input, index * input.length));
  const shape = [inputs.length, channels, size, size];
  const { probabilities, maps } = await work.network.run({ images: new ort.Tensor("uint8", pixels, shape) });
  return inputs.map((_, index) => {
    const row = Array.from(probabilities.data.subarray(index * emotions.length, (index + 1) * emotions.length));
    const best = largest(row);
    if (maps === undefined) return { row, best, map: null };
    const [height, width] = maps.dims.slice(2);
    const start = (index * emotions.length + best) * height * width;
    return { row, best, map: { values: maps.data.subarray(start, start + height * width), height, width } };
  });
}

// --- from a picture to faces -----------------------------------------------------------------

// Draw a picture, a frame or a bitmap, and give its pixels.
function draw(source, width, height) {
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  const canvas = by("picture");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = BACKGROUND;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { data: new Uint8Array(data.buffer), width: canvas.width, height: canvas.height, step: 4 };
}

async function look(picture) {
  const { size, channels, detector } = work.known;
  const view = ++state.view;
  const start = performance.now();
  const { width, height } = picture;
  const faces = by("whole").checked
    ? [{ x: 0, y: 0, width, height, input: toInput(picture, size, channels) }]
    : (await findFaces(picture, detect, detector)).map((box) => {
      const input = toInput(crop(picture, box), size, channels);
      return { x: box.x, y: box.y, width: box.side, height: box.side, input };
    });
  if (view !== state.view) return;
  Object.assign(state, { faces, picture, found: performance.now() - start });
  if (state.chosen >= state.faces.length) state.chosen = 0;
  await answer();
}

const severities = () => Object.fromEntries(
  Object.keys(work.known.damage).map((name) => [name, Number(by(name).value)]),
);

function damage(input, levels) {
  const { size, gamma } = work.known;
  return damaged(input, size, levels, work.known.damage, { gamma, place: state.place });
}

// What the network says of the faces, with the damage that the sliders are set to.
async function answer() {
  if (state.picture === null) return;
  const turn = ++state.turn;
  document.body.dataset.turn = turn; // for programs that wait until it is computed
  const inputs = state.faces.map((face) => damage(face.input, severities()));
  const start = performance.now();
  const found = inputs.length ? await recognise(inputs) : [];
  const taken = performance.now() - start;
  if (turn !== state.turn) return;
  showTimes(taken);
  showBoxes(found);
  showLevels(found[state.chosen]);
  by("answer").hidden = !found.length;
  by("note").textContent = found.length ? "" : "No face was found. If the picture is one face, cropped, say so below.";
  if (found.length) showAnswer(found[state.chosen], inputs[state.chosen]);
  clearTimeout(state.later);
  const live = state.stream !== null && !state.held;
  if (live) showHint("Hold a frame to see where its answer turns.");
  else if (!found.length) showHint("");
  else state.later = setTimeout(() => showCurves(turn), 120);
}

// --- what is shown ---------------------------------------------------------------------------

function showTimes(network) {
  const live = state.stream !== null && !state.held;
  state.times = [...(live ? state.times : []), [state.found, network]].slice(-30);
  const [finding, naming] = [0, 1].map((part) => {
    const sorted = state.times.map((time) => time[part]).sort((one, other) => one - other);
    return sorted[sorted.length >> 1];
  });
  const ms = (value) => `${value.toFixed(value < 100 ? 1 : 0)} ms`;
  const frames = live ? `, median of ${state.times.length} frames` : "";
  by("time").textContent = `${ms(finding + naming)} per frame: finding faces ${ms(finding)}, naming them ${ms(naming)}${frames}`;
}

function showBoxes(found) {
  const { width, height } = by("picture");
  const boxes = by("boxes");
  while (boxes.children.length > found.length) boxes.lastChild.remove();
  found.forEach(({ row, best }, index) => {
    const face = state.faces[index];
    const button = boxes.children[index] ?? boxes.appendChild(document.createElement("button"));
    if (!button.firstChild) {
      button.type = "button";
      button.appendChild(document.createElement("span"));
      button.addEventListener("click", () => {
        state.chosen = index;
        answer();
      });
    }
    const text = `${work.known.emotions[best]} ${percent(row[best])}`;
    button.firstChild.textContent = text;
    button.setAttribute("aria-label", `Face ${index + 1} of ${found.length}: ${text}`);
    button.setAttribute("aria-pressed", String(index === state.chosen));
    Object.assign(button.style, {
      left: `${(100 * face.x) / width}%`,
      top: `${(100 * face.y) / height}%`,
      width: `${(100 * face.width) / width}%`,
      height: `${(100 * face.height) / height}%`,
    });
  });
  placeLabels([...boxes.children]);
}

// Each label above its box, or within it, or below: where the picture and other labels leave room.
function placeLabels(buttons) {
  const taken = [];
  for (const button of buttons) {
    const { offsetWidth: width, offsetHeight: height } = button.firstChild;
    const left = Math.max(0, Math.min(button.offsetLeft, by("picture").clientWidth - width));
    const below = button.offsetTop + button.offsetHeight;
    const tops = [button.offsetTop - height, button.offsetTop, below].filter((top) => top >= 0);
    const free = (top) => taken.every((one) =>
      Math.abs(one.top - top) >= height || left + width <= one.left || one.left + one.width <= left);
    // Within a box that is as wide as its label, else it would hide the face.
    const top = tops.find((at) => free(at) && (at !== button.offsetTop || button.offsetWidth > width)) ?? tops[0];
    taken.push({ left, top, width });
    const { clientLeft, clientTop } = button;
    button.firstChild.style.left = `${left - button.offsetLeft - clientLeft}px`;
    button.firstChild.style.top = `${top - button.offsetTop - clientTop}px`;
  }
}

// What the sliders are set to, and the answer beside them: on a phone the face is out of sight.
function showLevels(chosen) {
  for (const [name, severity] of Object.entries(severities())) {
    const now = chosen ? `: ${work.known.emotions[chosen.best]} ${percent(chosen.row[chosen.best])}` : "";
    by(`${name}_level`).textContent = severity > 0 ? `severity ${severity}${now}` : "none";
  }
}

function showAnswer({ row, best, map }, input) {
  const { emotions } = work.known;
  by("emotion").textContent = `${emotions[best]}, ${percent(row[best])}`;
  row.forEach((share, index) => {
    const [name, bar, number] = state.bars[index];
    for (const part of [name, bar, number]) part.classList.toggle("top", index === best);
    bar.firstChild.style.width = `${100 * share}%`;
    number.firstChild.value = share;
    number.firstChild.textContent = percent(share);
  });
  showFace(input, map, emotions[best]);
}

function showFace(input, map, emotion) {
  const { size, channels } = work.known;
  const canvas = by("face");
  canvas.width = canvas.height = size;
  const image = new ImageData(size, size);
  const heat = map && by("map").checked ? enlargeMap(map.values, map.height, map.width, size) : null;
  for (let i = 0; i < size * size; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = input[Math.min(channel, channels - 1) * size * size + i];
      // Towards yellow, which the darkest and the lightest skin are both told from.
      const share = heat ? 0.6 * heat[i] : 0;
      image.data[4 * i + channel] = (1 - share) * value + share * [255, 176, 0][channel];
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", `The face, ${size} by ${size} pixels. Arrow keys move the patch of the occlusion.`);
  by("map").disabled = map === null;
  by("region").textContent = map === null
    ? "This network has no class activation map: it does not average feature maps before its last layer."
    : `Yellow: what speaks for ${emotion} (class activation map). Strongest: ${strongest(map)}.`;
}

// Where a map is strongest, in words.
function strongest({ values, height, width }) {
  const at = largest(values);
  const third = (place, count, names) => names[Math.min(2, Math.floor((3 * (place + 0.5)) / count))];
  const row = third(Math.floor(at / width), height, ["upper", "middle", "lower"]);
  const column = third(at % width, width, ["left", "centre", "right"]);
  return row === "middle" && column === "centre" ? "the centre" : `${row} ${column}`;
}

// --- damage ----------------------------------------------------------------------------------

function showHint(text) {
  for (const name of Object.keys(work.known.damage)) {
    const line = by(`${name}_turns`);
    if (text && line.textContent === text) continue; // not anew for every frame
    drawCurve(name, [], -1);
    line.textContent = text;
    line.classList.remove("turned");
  }
}

// The probability of the first answer over each kind of damage, the others as their sliders are.
async function showCurves(turn) {
  const { damage: kinds, emotions } = work.known;
  const levels = Array.from({ length: MOST / STEP + 1 }, (_, index) => index * STEP);
  for (const name of Object.keys(kinds)) {
    const { input } = state.faces[state.chosen];
    const found = await recognise(levels.map((level) => damage(input, { ...severities(), [name]: level })));
    await new Promise((done) => setTimeout(done)); // let the page answer in between
    if (turn !== state.turn) return;
    const first = found[0].best;
    const at = found.findIndex(({ best }) => best !== first);
    drawCurve(name, found.map(({ row }) => row[first]), at);
    const line = by(`${name}_turns`);
    line.classList.toggle("turned", at >= 0);
    line.textContent = at < 0
      ? `Stays ${emotions[first]} up to severity ${MOST}.`
      : `Turns from ${emotions[first]} to ${emotions[found[at].best]} at severity ${levels[at]}.`;
  }
  document.body.dataset.computed = turn;
}

const THUMB = 8; // half of a slider's thumb, in pixels: where its track begins
const MARGIN = 44; // left of the slider, for the numbers of the plot above it

function drawCurve(name, shares, at) {
  const plot = by(`${name}_plot`);
  const [width, height] = [plot.clientWidth || 300, 96];
  const left = MARGIN + THUMB;
  const x = (index) => left + ((width - THUMB - left) * index * STEP) / MOST;
  const y = (share) => height - 8 - (height - 16) * share;
  const parts = [0, 0.5, 1].flatMap((share) => [
    svg("line", { x1: left, x2: width - THUMB, y1: y(share), y2: y(share) }),
    svg("text", { x: MARGIN - 4, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`),
  ]);
  if (at >= 0) parts.push(svg("line", { class: "turn", x1: x(at), x2: x(at), y1: y(0), y2: y(1) }));
  parts.push(svg("polyline", { points: shares.map((share, index) => `${x(index)},${y(share)}`).join(" ") }));
  const now = Number(by(name).value) / STEP;
  if (shares.length) parts.push(svg("circle", { cx: x(now), cy: y(shares[now]), r: 6 }));
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("aria-label", `Probability at severities 0 to ${MOST}: ${shares.map(percent).join(", ") || "none yet"}`);
  plot.replaceChildren(...parts);
}

function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function makeSliders() {
  for (const name of Object.keys(work.known.damage)) {
    const level = make("output", { id: `${name}_level`, for: name });
    const plot = svg("svg", { id: `${name}_plot`, class: "plot", role: "img" });
    const slider = make("input", { type: "range", id: name, min: 0, max: MOST, step: STEP, value: 0, "aria-label": `${TITLES[name]}, severity` });
    const ticks = make("div", { class: "ticks", "aria-hidden": "true" }, ...[0, 1, 2, 3, 4, 5].map((tick) => make("span", {}, String(tick))));
    slider.addEventListener("input", () => (state.stream === null || state.held) && answer());
    const card = make("div", { class: "card" }, make("h3", {}, TITLES[name], level), plot, slider, ticks,
      make("p", { id: `${name}_turns`, class: "turns" }));
    if (HINTS[name]) card.append(make("p", { class: "fine" }, HINTS[name]));
    by("sliders").append(card);
  }
}

function makeBars() {
  state.bars = work.known.emotions.map((emotion) => {
    const parts = [
      make("dt", {}, emotion),
      make("dd", { class: "bar", "aria-hidden": "true" }, make("i")),
      make("dd", { class: "number" }, make("data", { id: `p_${emotion}` })),
    ];
    by("bars").append(...parts);
    return parts;
  });
}

// --- where pictures come from ----------------------------------------------------------------

function say(text) {
  by("status").textContent = text;
  by("status").className = text ? "problem" : "";
}

async function showFile(blob) {
  stopCamera();
  say("");
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    say(`${blob.name ?? "This"} is not a picture that the browser reads. Choose a JPEG, PNG or WebP file.`);
    return;
  }
  await look(draw(bitmap, bitmap.width, bitmap.height));
}

const showSample = async () => showFile(await (await fetch("sample.png")).blob());

const REFUSED = {
  NotAllowedError: "The camera was refused. Allow it beside the browser's address, or choose a picture.",
  NotFoundError: "No camera was found. Choose a picture instead.",
  NotReadableError: "The camera is in use by another program. Close that, or choose a picture.",
};

async function startCamera() {
  say("");
  if (!navigator.mediaDevices) {
    say("Browsers give the camera to pages on https or on this machine alone. Choose a picture instead.");
    return;
  }
  const video = document.createElement("video");
  try {
    const size = { width: { ideal: 640 }, height: { ideal: 480 } };
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", ...size } });
    Object.assign(video, { srcObject: state.stream, muted: true, playsInline: true });
    await video.play();
  } catch (error) {
    stopCamera();
    say(REFUSED[error.name] ?? `The camera does not start: ${error.message}. Choose a picture instead.`);
    return;
  }
  const { stream } = state;
  by("camera").textContent = "Stop the camera";
  by("hold").hidden = false;
  by("emotion").setAttribute("aria-live", "off"); // not a word for every frame
  while (state.stream === stream) {
    await new Promise(requestAnimationFrame);
    if (!state.held && video.videoWidth && state.stream === stream) {
      await look(draw(video, video.videoWidth, video.videoHeight));
    }
  }
}

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  setHeld(false);
  by("camera").textContent = "Use the camera";
  by("hold").hidden = true;
  by("emotion").setAttribute("aria-live", "polite");
}

function setHeld(held) {
  state.held = held;
  by("hold").setAttribute("aria-pressed", String(held));
  by("hold").textContent = held ? "Go on" : "Hold";
}

function movePatch(x, y) {
  state.place = [x, y].map((share) => Math.min(1, Math.max(0, share)));
  if (state.stream === null || state.held) answer();
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function listen() {
  by("camera").addEventListener("click", () => {
    if (state.stream === null) startCamera();
    else {
      stopCamera();
      answer();
    }
  });
  by("hold").addEventListener("click", () => {
    setHeld(!state.held);
    answer();
  });
  by("choose").addEventListener("click", () => by("file").click());
  by("file").addEventListener("change", () => {
    const [file] = by("file").files;
    by("file").value = ""; // else the same one could not be chosen again
    if (file) showFile(file);
  });
  by("sample").addEventListener("click", showSample);
  by("whole").addEventListener("change", () => look(state.picture));
  by("map").addEventListener("change", answer);
  const face = by("face");
  const point = ({ offsetX, offsetY }) => movePatch(offsetX / face.clientWidth, offsetY / face.clientHeight);
  face.addEventListener("pointerdown", point);
  face.addEventListener("pointermove", (event) => event.buttons && point(event));
  face.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    movePatch(...ARROWS[event.key].map((way, axis) => state.place[axis] + way / 24));
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) showFile(file);
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dragging", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) showFile(event.dataTransfer.files[0]);
    });
  }
  addEventListener("resize", () => {
    clearTimeout(state.resized);
    state.resized = setTimeout(() => {
      showHint(""); // so that the plots are drawn at their new width
      answer();
    }, 200);
  });
}

try {
  await load();
  makeBars();
  makeSliders();
  by("work").hidden = false;
  await showSample();
  listen();
} catch (error) {
  say(`This browser cannot run the network: ${error.message}`);
}
addEventListener("unhandledrejection", ({ reason }) => say(`The network fails: ${reason.message}`));
