"use strict";

// What the report and the page of `powsm demo` share.

/** An element; `attributes` are attributes, or listeners where the name is onX. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Round numbers that divide [0, most] into about five steps. */
function ticks(most) {
  const rough = most / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const found = [];
  for (let value = 0; value <= most * 1.0001; value += step) found.push(value);
  return found;
}

const plainNumber = (value) =>
  value >= 10000 ? `${+(value / 1000).toFixed(1)}k` : String(+value.toPrecision(3));

/** Boundaries of the phones that were decoded, and their names above. */
function phonesOn(picture, times, x, top, bottom, choose) {
  let free = 0; // where the next name may begin
  for (const [phone, start, end] of times) {
    const [from, to] = [x(start), x(end)];
    for (const at of [from, to]) picture.append(svg("line", { class: "boundary", x1: at, x2: at, y1: top, y2: bottom }));
    const room = 3.5 * phone.length;
    if ((from + to) / 2 - room >= free) {
      picture.append(svg("text", { class: "phone", x: (from + to) / 2, y: top - 5, "text-anchor": "middle" }, phone));
      free = (from + to) / 2 + room;
    }
    const area = svg("rect", { class: "phone", x: from, y: 0, width: Math.max(to - from, 1), height: bottom },
      svg("title", {}, `${phone}, ${start.toFixed(2)} to ${end.toFixed(2)} s: click to hear it`));
    area.addEventListener("click", () => choose(phone, start, end));
    picture.append(area);
  }
}

/** Spectrogram with axes and phones, and the sound with a line that follows it.
 *  `times` are [phone, start, end]; `chosen` is called with one that was clicked, after
 *  which it is heard. A width above that of the window scrolls. */
function clipWidget({ clip, name, seconds, times, width, chosen, isWide = false }) {
  const height = 190, left = 40, bottom = 30, right = 12, top = times.length ? 24 : 8;
  const x = (s) => left + ((width - left - right) * s) / seconds;
  const y = (hz) => height - bottom - ((height - top - bottom) * hz) / data.max_frequency_hz;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Spectrogram, 0 to ${data.max_frequency_hz / 1000} kHz, ${seconds.toFixed(2)} s` },
    svg("image", { href: clip.image, x: left, y: top, width: width - left - right, height: height - top - bottom, preserveAspectRatio: "none" }));
  for (const value of ticks(seconds)) {
    picture.append(
      svg("line", { class: "axis", x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 4 }),
      svg("text", { x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, plainNumber(value)));
  }
  for (let hz = 0; hz <= data.max_frequency_hz; hz += 2000) {
    picture.append(
      svg("line", { class: "axis", x1: left - 4, x2: left, y1: y(hz), y2: y(hz) }),
      svg("text", { x: left - 7, y: y(hz) + 4, "text-anchor": "end" }, String(hz / 1000)));
  }
  picture.append(
    svg("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, "time (s)"),
    svg("text", { x: 10, y: (height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${(height - bottom) / 2})` }, "kHz"));
  const playhead = svg("line", { class: "playhead", x1: left, x2: left, y1: top, y2: height - bottom, visibility: "hidden" });
  picture.append(playhead);
  const audio = el("audio", { controls: "", preload: "none", src: clip.audio, "aria-label": `Play ${name}` });
  let until = Infinity; // where a single phone ends
  const follow = () => {
    if (audio.currentTime >= until) audio.pause();
    const at = x(Math.min(audio.currentTime, seconds));
    playhead.setAttribute("x1", at);
    playhead.setAttribute("x2", at);
    playhead.setAttribute("visibility", "visible");
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("pause", () => { until = Infinity; });
  const hear = (start, end) => {
    audio.currentTime = start;
    until = end;
    audio.play();
  };
  phonesOn(picture, times, x, top, height - bottom, (phone, start, end) => {
    hear(start, end);
    chosen?.(phone, start, end);
  });
  if (!isWide) return { node: el("div", { class: "clip" }, picture, audio), hear };
  picture.style.width = `${width}px`;
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Spectrogram" }, picture);
  return { node: el("div", {}, scroll, audio), hear };
}
