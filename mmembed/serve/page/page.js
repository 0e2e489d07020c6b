// Shows one analysis. Whatever comes from outside is text (textContent), never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const LABEL = 92; // pixels left of the curves, for their names
const VALUE = 44; // right of them, for the numbers at the playhead
const GAP = 20;

let about = null; // the server's description of itself
let file = null; // the current clip
let shown = null; // its analysis
let requests = 0; // how many were sent: the answer to an earlier one is dropped
let playhead = null; // moves the line in the plot to a time

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function say(id, text) {
  $(id).textContent = text || "";
  if ($(id).matches(".note, [role=alert]")) $(id).hidden = !text;
}

const clock = (seconds) => `${seconds.toFixed(2)} s`;

// Requests

async function analyse(clip) {
  file = clip;
  const number = ++requests;
  $("again").disabled = false;
  say("error", "");
  if (about && clip.size > about.max_bytes) {
    const size = `${(clip.size / 1e6).toFixed(0)} MB`;
    fail(`${clip.name}: ${size} are too much, the limit is ${about.max_bytes / 1e6} MB`);
    return;
  }
  document.body.classList.add("busy");
  say("status", `analysing ${clip.name} ...`);
  const body = new FormData();
  body.append("text", $("text").value);
  body.append("clip", clip);
  let answer;
  try {
    const response = await fetch("/analyses", { method: "POST", body });
    answer = await response.json();
  } catch {
    answer = { error: `${clip.name}: no answer; has the server been stopped?` };
  }
  if (number !== requests) return;
  document.body.classList.remove("busy");
  if (answer.error) fail(answer.error);
  else show(answer, clip);
}

function fail(line) {
  document.body.classList.remove("busy");
  say("status", "");
  say("error", line);
  $("result").hidden = true;
}

// The results

function show(analysis, clip) {
  shown = analysis;
  say("status", `analysed ${clip.name}`);
  $("result").hidden = false;
  play(clip);
  $("name").textContent = clip.name;
  const has = analysis.streams.filter((stream) => stream.present).map((stream) => stream.name);
  say("facts", `${clock(analysis.seconds)} of ${has.join(", ")}`);
  showWords(analysis);
  showEmotion(analysis);
  showStreams(analysis);
  showNeighbours(analysis);
  drawPlot();
}

function play(clip) {
  const player = $("player");
  if (player.src) URL.revokeObjectURL(player.src);
  setPlayable(true);
  player.classList.remove("sound");
  player.src = URL.createObjectURL(clip);
  position = 0;
}

function setPlayable(playable) {
  $("player").hidden = !playable;
  $("unplayable").hidden = playable;
  $("stage").classList.toggle("unplayable", !playable);
}

function showWords(analysis) {
  const from = { given: "As you gave them, aligned to the audio.", ctc: "As the recogniser transcribes them." };
  const lead = from[analysis.transcript_from] || "";
  const click = analysis.words.length ? " Click a word to play from there." : "";
  say("words-note", analysis.notes.words ? `${analysis.notes.words}` : lead + click);
  $("words").replaceChildren(
    ...analysis.words.map((word) => {
      const button = make("button", { type: "button" }, word.text);
      button.title = `${clock(word.start)} to ${clock(word.end)}`;
      button.onclick = () => {
        seek(word.start);
        $("player").play().catch(() => {});
      };
      return button;
    }),
  );
  if (!analysis.words.length && analysis.transcript) $("words").textContent = analysis.transcript;
  else if (!analysis.words.length && !analysis.notes.words) say("words-note", "The recogniser found no words.");
}

function showEmotion(analysis) {
  const curves = analysis.curves;
  const span = "Each point is predicted from the 2 s around it";
  const emotion = analysis.emotion;
  const outside = emotion && emotion.outside ? " The clip is unlike the clips that the model was trained on." : "";
  say("curves-note", curves ? `${span}, from ${curves.streams.replace("+", " and ")}.${outside}`
    : `Sentiment and emotions: ${analysis.notes.curves}.`);
  say("emotion-note", emotion && analysis.notes.emotion ? `Note: ${analysis.notes.emotion}.` : "");
  say("farther-than", emotion && emotion.farther_than !== null
    ? `This clip is farther from the training clips than ${(100 * emotion.farther_than).toFixed(1)} % of them are from each other.` : "");
  $("emotion").hidden = !emotion;
  if (!emotion) return;
  const row = (name, value) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value));
  $("emotion").caption.textContent = "The whole clip";
  $("emotion").title = `predicted from ${emotion.streams.replaceAll("+", ", ")}`;
  $("emotion").tBodies[0].replaceChildren(
    ...(emotion.sentiment === null ? [] : [row("sentiment", signed(emotion.sentiment))]),
    ...Object.entries(emotion.emotions).map(([name, value]) => row(name, value.toFixed(2))),
  );
}

function showStreams(analysis) {
  $("streams").replaceChildren(
    ...analysis.streams.map((stream) => {
      const percent = `${(100 * stream.weight).toFixed(1)} %`;
      const bar = make("i");
      bar.style.width = percent.replace(" ", "");
      return make(
        "div", { class: stream.present ? "stream" : "stream absent" },
        make("span", {}, stream.name),
        make("span", { class: "bar" }, bar),
        make("small", {}, stream.present ? percent : `${percent}, not in the clip`),
      );
    }),
  );
  say("streams-note", analysis.notes.streams);
}

function showNeighbours(analysis) {
  const near = analysis.neighbours;
  const note = analysis.notes.neighbours;
  const lead = near.length ? `The nearest of ${about.clips.toLocaleString("en")} clips by the cosine of their embeddings.` : "";
  say("nearest-note", [lead, note && `Note: ${note}.`].filter(Boolean).join(" "));
  $("nearest").replaceChildren(
    ...near.map(({ found, picture }) => {
      const face = picture ? make("img", { src: picture, alt: "" }) : make("span", { class: "blank" });
      const facts = [found.speaker, found.split, found.labels].filter(Boolean);
      const about = make("div", {}, make("b", {}, make("bdi", {}, `${found.rank}. ${found.key}`)));
      if (found.text) about.append(make("q", {}, make("bdi", {}, found.text)));
      const isolated = facts.flatMap((fact, n) => [n ? ", " : "", make("bdi", {}, fact)]);
      about.append(make("small", {}, ...isolated));
      about.append(make("small", {}, `cosine ${found.cosine.toFixed(4)}`));
      return make("li", {}, face, about);
    }),
  );
}

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(2);

// The plot: lanes above one another with one time axis

function drawPlot() {
  const width = $("plot").clientWidth;
  if (!shown || !width) return;
  const { words, curves, seconds } = shown;
  const right = width - (curves ? VALUE : 8);
  const x = (time) => LABEL + (Math.min(time, seconds) / seconds) * (right - LABEL);
  const svg = draw("svg", { "aria-hidden": "true" });
  const numbers = []; // [text element, times, values, how they are written]
  let top = 0;
  if (words.length) {
    svg.append(draw("text", { class: "label", x: 0, y: top + 19 }, "words"));
    for (const word of words) svg.append(drawWord(word, x, top));
    top += 28 + GAP;
  }
  if (curves) {
    if (curves.sentiment.length) {
      const scale = [-curves.limit, curves.limit];
      top = drawLane(svg, numbers, "sentiment", curves.times, curves.sentiment, scale, 96, top, x, right);
    }
    const most = Math.max(1, ...Object.values(curves.emotions).flat());
    const limits = [0, Math.ceil(2 * most) / 2];
    for (const [name, values] of Object.entries(curves.emotions)) {
      top = drawLane(svg, numbers, name, curves.times, values, limits, 40, top, x, right);
    }
  }
  drawAxis(svg, seconds, x, top, right);
  const line = draw("line", { class: "head", y1: 0, y2: top });
  svg.append(line);
  svg.setAttribute("height", top + 20);
  svg.setAttribute("viewBox", `0 0 ${width} ${top + 20}`);
  $("plot").replaceChildren(svg);
  const plot = $("plot");
  plot.setAttribute("aria-valuemin", 0);
  plot.setAttribute("aria-valuemax", seconds.toFixed(2));
  playhead = (time) => {
    line.setAttribute("x1", x(time));
    line.setAttribute("x2", x(time));
    plot.setAttribute("aria-valuenow", time.toFixed(2));
    const values = numbers.map(([element, name, times, points, written]) => {
      element.textContent = written(valueAt(times, points, time));
      return `${name} ${element.textContent}`;
    });
    plot.setAttribute("aria-valuetext", [clock(time), ...values].join(", "));
  };
  plot.timeAt = (pixel) => Math.min(seconds, Math.max(0, ((pixel - LABEL) / (right - LABEL)) * seconds));
  follow();
}

function drawWord(word, x, top) {
  const group = draw("g", { class: "word" });
  const [start, end] = [x(word.start), x(word.end)];
  group.append(draw("rect", { x: start, y: top + 3, width: Math.max(2, end - start), height: 24, rx: 4 }));
  if (end - start > 7 * word.text.length) {
    group.append(draw("text", { x: (start + end) / 2, y: top + 19 }, word.text));
  }
  group.append(draw("title", {}, word.text));
  return group;
}

function drawLane(svg, numbers, name, times, values, [low, high], height, top, x, right) {
  const y = (value) => top + height * (1 - (value - low) / (high - low));
  const points = times.map((time, n) => `${x(time).toFixed(1)},${y(values[n]).toFixed(1)}`);
  const zero = y(0);
  const closed = `M${x(times[0])},${zero}L${points.join("L")}L${x(times.at(-1))},${zero}Z`;
  const middle = top + height / 2;
  svg.append(draw("text", { class: "label", x: 0, y: middle + 4 }, name));
  svg.append(draw("line", { class: "axis", x1: LABEL, x2: right, y1: zero, y2: zero }));
  const clip = (id, from, to) => {
    const path = draw("clipPath", { id });
    path.append(draw("rect", { x: 0, y: from, width: right + 2, height: Math.max(0, to - from) }));
    svg.append(path);
    return `url(#${id})`;
  };
  const above = clip(`above-${name}`, top - 2, zero);
  svg.append(draw("path", { class: "area", d: closed, "clip-path": above }));
  if (low < 0) {
    const below = clip(`below-${name}`, zero, top + height + 2);
    svg.append(draw("path", { class: "below", d: closed, "clip-path": below }));
    for (const mark of [low, high]) {
      svg.append(draw("text", { x: LABEL - 8, y: y(mark) + 4, "text-anchor": "end" }, signed(mark).slice(0, 2)));
    }
  } else {
    for (const mark of [low, high]) {
      svg.append(draw("text", { x: LABEL - 8, y: y(mark) + 4, "text-anchor": "end" }, `${mark}`));
    }
  }
  svg.append(draw("path", { class: "curve", d: `M${points.join("L")}` }));
  const number = draw("text", { class: "value", x: right + VALUE, y: middle + 4 });
  svg.append(number);
  numbers.push([number, name, times, values, low < 0 ? signed : (value) => value.toFixed(2)]);
  return top + height + GAP;
}

function drawAxis(svg, seconds, x, top, right) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60];
  const step = steps.find((one) => (right - LABEL) / (seconds / one) > 52) || 60;
  svg.append(draw("line", { class: "axis", x1: LABEL, x2: right, y1: top, y2: top }));
  for (let n = 0; n * step <= seconds + 1e-9; n += 1) {
    const time = n * step;
    svg.append(draw("line", { class: "axis", x1: x(time), x2: x(time), y1: top, y2: top + 4 }));
    const text = `${Number(time.toFixed(1))}${n ? "" : " s"}`;
    svg.append(draw("text", { x: x(time), y: top + 17, "text-anchor": "middle" }, text));
  }
}

// Straight between points
function valueAt(times, values, time) {
  const next = times.findIndex((one) => one >= time);
  if (next === 0) return values[0];
  if (next < 0) return values.at(-1);
  const fraction = (time - times[next - 1]) / (times[next] - times[next - 1]);
  return values[next - 1] + fraction * (values[next] - values[next - 1]);
}

// Playing

let position = 0; // seconds; the player's own where it can play the file

function seek(time) {
  position = Math.min(Math.max(0, time), shown ? shown.seconds : 0);
  if ($("player").readyState) $("player").currentTime = position;
  follow();
}

function follow() {
  const player = $("player");
  if (!player.hidden && player.readyState && !player.seeking) position = player.currentTime;
  if (playhead) playhead(position);
  const buttons = $("words").children;
  shown?.words.forEach((word, n) => {
    buttons[n].classList.toggle("now", word.start <= position && position < word.end);
  });
  if (!player.paused) requestAnimationFrame(follow);
}

// Input

$("request").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) analyse(file);
});
$("file").addEventListener("change", () => {
  if ($("file").files.length) analyse($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const files = event.dataTransfer.files;
  if (files.length > 1) fail(`${files.length} files were dropped; one clip at a time`);
  else if (files.length) analyse(files[0]);
});
for (const event of ["play", "pause", "seeked", "timeupdate"]) {
  $("player").addEventListener(event, follow);
}
$("player").addEventListener("loadedmetadata", () => {
  $("player").classList.toggle("sound", !$("player").videoWidth);
  if (position) $("player").currentTime = position;
});
$("player").addEventListener("error", () => {
  setPlayable(false);
});
$("plot").addEventListener("pointerdown", (event) => {
  const move = (one) => seek($("plot").timeAt(one.clientX - $("plot").getBoundingClientRect().left));
  if (!shown || event.button) return;
  $("plot").setPointerCapture(event.pointerId);
  $("plot").onpointermove = move;
  $("plot").onpointerup = $("plot").onpointercancel = () => { $("plot").onpointermove = null; };
  move(event);
});
$("plot").addEventListener("keydown", (event) => {
  if (!shown) return;
  const steps = { ArrowLeft: -0.1, ArrowDown: -0.1, ArrowRight: 0.1, ArrowUp: 0.1, PageDown: -1, PageUp: 1 };
  if (event.key in steps) seek(position + steps[event.key]);
  else if (event.key === "Home") seek(0);
  else if (event.key === "End") seek(shown.seconds);
  else if (event.key === " " && $("player").paused) $("player").play().catch(() => {});
  else if (event.key === " ") $("player").pause();
  else return;
  event.preventDefault();
});
new ResizeObserver(drawPlot).observe($("plot"));

fetch("/about").then((response) => response.json()).then((answer) => {
  about = answer;
  const near = about.clips ? `${about.clips.toLocaleString("en")} clips to compare with` : "no clips to compare with";
  const predicts = about.regressor ? "with sentiment and emotions" : "without sentiment and emotions";
  say("about", `Encoder ${about.encoder} (${about.sha256.slice(0, 12)}), ${predicts}, ${near}.`);
  const known = Object.entries(about.trained_on || {});
  say("trained-on", known.map(([name, data]) => `The ${name} was trained on: ${data}.`).join(" "));
}).catch(() => fail("no answer; has the server been stopped?"));
