
const data = JSON.parse(document.getElementById("data").textContent);
const PIXELS_A_SECOND = 110; // at least, so that phones can be told apart
const columns = data.sides.length > 1 && window.innerWidth > 900 ? 2 : 1;

/** A link that saves a text as a file. */
function saving(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  return el("a", { href, download: name }, `Download ${name}`);
}

/** The sound with its spectrogram, and the phones on it. */
function soundOf(times, label, chosen) {
  const room = Math.max(280, (document.documentElement.clientWidth - 40) / columns - 20);
  const width = Math.max(Math.min(room, 1000), Math.round(PIXELS_A_SECOND * data.seconds));
  return clipWidget({
    clip: data.clip, name: `${data.name}${label}`, seconds: data.seconds, times, width, chosen, isWide: width > room,
  });
}

/** What one way of hearing made of the recording. */
function sideOf(side) {
  const detail = el("p", { class: "note", role: "status" }, side.times.length ? "A click on a phone says it and what it is." : "");
  const explain = (phone, start, end, sure) => {
    detail.textContent = `[${phone}] ${start.toFixed(2)} to ${end.toFixed(2)} s, confidence ${sure.toFixed(2)}; ${data.phones[phone] ?? ""}`;
  };
  const sound = soundOf(side.times, `, ${side.label}`, (phone, start, end) =>
    explain(...side.times.find((row) => row[0] === phone && row[1] === start && row[2] === end)));
  const buttons = el("div", { class: "pairs", role: "group", "aria-label": "Phones" }, ...side.times.map((row) =>
    el("button", { type: "button", onclick: () => { sound.hear(row[1], row[2]); explain(...row); } }, row[0])));
  return el("section", {},
    el("h3", {}, side.label),
    el("p", { class: `text${side.is_phones ? " phones" : ""}` }, side.text || "(nothing)"),
    el("p", { class: "note" }, `${side.task}; the model was told ${side.told}.`),
    sound.node, detail, side.times.length ? buttons : null,
    el("p", { class: "files" }, ...Object.entries(side.files).map(([ending, text]) => saving(`${data.name}.${ending}`, text))));
}

const root = document.getElementById("heard");
root.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
if (data.sides.length) root.append(...data.sides.map(sideOf));
else root.append(soundOf([], "").node);

// within another page it is as high as what is in it
if (window.frameElement) {
  const fit = () => { window.frameElement.style.height = `${root.scrollHeight + 24}px`; };
  new ResizeObserver(fit).observe(root);
}
