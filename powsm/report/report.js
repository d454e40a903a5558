const data = JSON.parse(document.getElementById("data").textContent);
const GAP = data.phones.indexOf("");
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777"];
const DASHES = ["", "6 3", "2 2", "8 3 2 3"];
const FIRST_SHOWN = 6; // utterances before "show more"

const section = (id) => document.getElementById(id);
const unique = (values) => [...new Set(values)];
const languageName = (lang) => (lang === "all" ? "all languages" : data.languages[lang] ?? lang);
const taskName = (task) => data.tasks[task] ?? task;
const systemName = (s) => `${s.set}: ${taskName(s.task)}, ${s.profile}`;
const decimals = (metric) => (metric === "mean_hamming" ? 2 : 1);
const rounded = (value, digits = 1) => (value === null ? "undefined" : value.toFixed(digits));

function withInterval(r) {
  const n = decimals(r.metric);
  if (r.value === null || r.low === null || r.high === null) return rounded(r.value, n);
  return `${rounded(r.value, n)} [${rounded(r.low, n)},\u00a0${rounded(r.high, n)}]`;
}

// What the menus show is in the address: #section&menu=value&...
const [startSection, ...startView] = decodeURI(location.hash.slice(1)).split("&");
const view = new Map(new URLSearchParams(startView.join("&")));
const menus = new Map();

function showAddress(place) {
  const query = new URLSearchParams([...view]).toString();
  history.replaceState(null, "", `#${place}${query ? `&${query}` : ""}`);
}

/** Set the menus as the address says: decoded sets first, which fill other menus. */
function restoreView() {
  const order = [...view.keys()].sort((a, b) => b.endsWith("-set") - a.endsWith("-set"));
  for (const key of order) {
    const known = menus.get(key);
    if (!known || ![...known.select.options].some((o) => o.value === view.get(key))) continue;
    known.select.value = view.get(key);
    known.change(view.get(key));
  }
  if (startView.length) document.getElementById(startSection)?.scrollIntoView();
  addEventListener("hashchange", () => {
    if (view.size && !location.hash.includes("&")) showAddress(location.hash.slice(1));
  });
}

/** A labelled menu; `options` are [value, label] pairs; `change` gets the new value.
 *  `key` is its name in the address: its section, and what it chooses. */
function menu(label, options, change, key) {
  const select = el("select", { onchange: () => {
    view.set(key, select.value);
    change(select.value);
    showAddress(key.split("-")[0]);
  } });
  menus.set(key, { select, change });
  for (const [value, text] of options) select.append(el("option", { value }, text));
  return { node: el("label", {}, label, select), select };
}

/** A bar with its interval, on a scale from 0 to `most`. */
function bar(r, most) {
  const percent = (value) => `${Math.min(100, (100 * value) / most)}%`;
  const track = el("div", { class: "track", "aria-hidden": "true" });
  if (r.value === null) return track;
  for (const value of ticks(most)) {
    const tick = el("div", { class: "tick" });
    tick.style.left = percent(value);
    track.append(tick);
  }
  const filled = el("div", { class: "bar" });
  filled.style.width = percent(r.value);
  track.append(filled);
  if (r.low !== null && r.high !== null) {
    const whisker = el("div", { class: "whisker" });
    whisker.style.left = percent(r.low);
    whisker.style.width = `calc(${percent(r.high)} - ${percent(r.low)})`;
    track.append(whisker);
  }
  return track;
}

/** The end of a scale on which all results fit: a round number. */
function largest(results) {
  const most = Math.max(1e-9, ...results.map((r) => r.high ?? r.value ?? 0));
  const [, step] = ticks(most);
  return step * Math.ceil(most / step - 1e-9);
}

const unitOf = (metric) => (metric === "mean_hamming" ? "phones" : "%");

/** The numbers of a scale, above the bars that share it. */
function scale(metric, most) {
  const marks = ticks(most);
  return el("div", { class: "scale", "aria-hidden": "true" }, ...marks.map((value, k) => {
    const mark = el("span", {}, plainNumber(value) + (k === marks.length - 1 ? ` ${unitOf(metric)}` : ""));
    mark.style.left = `${(100 * value) / most}%`;
    return mark;
  }));
}

/** The metric whose scale a bar has: that of chance stands beside what it is chance of. */
const scaleOf = (metric) => (metric === data.chance ? "PFER" : metric);

const isHigherBetter = (metric) => data.higher_is_better.includes(metric);
const betterFirst = (a, b) =>
  (a.value === null) - (b.value === null) || (isHigherBetter(a.metric) ? b.value - a.value : a.value - b.value);

/** The decoded set that every section begins with: the headline's, else the first. */
function firstSystem(systems) {
  const h = data.headline;
  const best = systems.findIndex((s) => h && s.set === h.set && s.task === h.task && s.profile === h.system);
  return Math.max(0, best);
}

// --- headline ------------------------------------------------------------------------

const spoken = (s) => (s < 100 ? `${s.toFixed(0)} s` : s < 6000 ? `${(s / 60).toFixed(1)} minutes` : `${(s / 3600).toFixed(1)} hours`);

function showHeadline() {
  const h = data.headline;
  const root = section("headline");
  if (!h) {
    root.append(el("p", {}, "Nothing was scored."));
    return;
  }
  const last = data.history[data.history.length - 1];
  const interval = h.low === null || h.high === null ? "" : ` 95 % interval ${rounded(h.low)} to ${rounded(h.high)}`;
  const better = isHigherBetter(h.metric) ? "more is better" : "less is better";
  root.append(
    el("p", { class: "score" }, `${h.metric} ${rounded(h.value)} ${unitOf(h.metric)}`, el("small", {}, `${interval}; ${better}`)),
    el("p", {}, `${taskName(h.task)} of ${h.set} by ${h.system}` + (h.n_systems > 1 ? `, the best of ${h.n_systems} profiles` : "") +
      `: ${h.n_utts.toLocaleString("en")} utterances` + (h.audio_s ? `, ${spoken(h.audio_s)}` : "") + "."),
    last || h.n_parameters || h.train_hours ? el("p", { class: "note" }, [
      h.n_parameters ? `A model of about ${+(h.n_parameters / 1e6).toPrecision(3)} million parameters.` : "",
      h.train_hours ? `Training data: ${spoken(3600 * h.train_hours)} of speech.` : "",
      last ? `Trained for ${last.epoch} epochs, ${last.updates.toLocaleString("en")} updates, ${spoken(last.seconds)}.` : "",
    ].join(" ")) : null,
    data.commands.length ? el("details", {}, el("summary", {}, "The command"),
      el("pre", { tabindex: "0" }, data.commands[0])) : null);
}

// --- results -------------------------------------------------------------------------

function showResults() {
  const root = section("results");
  const chosen = { set: "", task: "", lang: "all", metric: "main" };
  const body = el("tbody");
  const count = el("p", { class: "note", role: "status" });
  const choose = (name, label, values, text) =>
    menu(label, values.map((v) => [v, text(v)]), (value) => {
      chosen[name] = value;
      draw();
    }, `results-${name}`);
  const sets = unique(data.results.map((r) => r.set));
  const tasks = unique(data.results.map((r) => r.task));
  const langs = unique(data.results.map((r) => r.lang)).sort(
    (a, b) => (b === "all") - (a === "all") || a.localeCompare(b));
  const choices = [
    choose("set", "Set", ["", ...sets], (s) => s || "all sets"),
    choose("task", "Task", ["", ...tasks], (t) => (t ? taskName(t) : "all tasks")),
    choose("lang", "Language", [...langs, ""], (l) => (l === "all" ? "pooled" : l ? `${l} (${languageName(l)})` : "each language")),
    choose("metric", "Metric", ["main", ...unique(data.results.map((r) => r.metric)), ""], (m) => (m === "main" ? "main ones" : m || "all")),
  ];
  const header = ["Task", "Metric", "Score", "", "Utterances", "Units"];
  const isMain = (r) => (data.main_metrics[r.task] ?? [r.metric]).includes(r.metric);
  root.append(
    el("p", {}, "Rates are in percent, from summed counts. The brackets hold the 95 % bootstrap interval; for error rates, less is better. Bars of one metric share a scale; the best profile of each set and task is first and marked."),
    el("div", { class: "controls" }, ...choices.map((m) => m.node)),
    count,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of results" },
      el("table", { id: "results-table" },
        el("caption", {}, "Task and decode profile, with the score and its interval"),
        el("thead", {}, el("tr", {}, ...header.map((name, k) =>
          el("th", { scope: "col", class: { 2: "number", 3: "range", 4: "number wide", 5: "number wide" }[k] }, name)))),
        body)),
    el("h3", {}, "Metrics"),
    el("dl", {}, ...unique(data.results.map((r) => r.metric)).filter((m) => data.metrics[m])
      .flatMap((m) => [el("dt", {}, m), el("dd", {}, data.metrics[m])])),
  );

  function draw() {
    const rows = data.results.filter((r) =>
      (!chosen.set || r.set === chosen.set) &&
      (!chosen.task || r.task === chosen.task) &&
      (!chosen.lang || r.lang === chosen.lang) &&
      (!chosen.metric || (chosen.metric === "main" ? isMain(r) : r.metric === chosen.metric)));
    const most = {};
    for (const scaled of unique(rows.map((r) => scaleOf(r.metric)))) {
      most[scaled] = largest(rows.filter((r) => scaleOf(r.metric) === scaled));
    }
    const group = (r) => `${r.set} ${r.task} ${r.metric} ${r.lang}`;
    const groups = unique(rows.map(group));
    rows.sort((a, b) => groups.indexOf(group(a)) - groups.indexOf(group(b)) || betterFirst(a, b));
    const rivals = new Map(groups.map((g) => [g, rows.filter((r) => group(r) === g)]));
    const isBest = (r) => isMain(r) && r.metric !== data.chance && rivals.get(group(r)).length > 1 && rivals.get(group(r))[0] === r;
    const beginsScale = (r, k) => k === 0 || scaleOf(rows[k - 1].metric) !== scaleOf(r.metric);
    body.replaceChildren(...rows.map((r, k) =>
      el("tr", { class: [r.lang === "all" ? "pooled" : "", isBest(r) ? "best" : ""].join(" ").trim() || undefined },
        el("td", {}, `${taskName(r.task)}, ${r.system} `, isBest(r) ? el("span", { class: "mark" }, "★ best") : null, el("small", {}, r.lang === "all" ? r.set : `${r.set}, ${languageName(r.lang)}`)),
        el("td", {}, r.metric),
        el("td", { class: "number" }, withInterval(r)),
        el("td", { class: "range" }, beginsScale(r, k) ? scale(r.metric, most[scaleOf(r.metric)]) : null, bar(r, most[scaleOf(r.metric)])),
        el("td", { class: "number wide" }, r.n_utts.toLocaleString("en")),
        el("td", { class: "number wide" }, r.n_units.toLocaleString("en")))));
    count.textContent = `${rows.length} of ${data.results.length} scores`;
  }
  draw();
}

function showWeak() {
  const lines = data.weak.length ? data.weak : ["Nothing found."];
  section("weak").append(el("ul", {}, ...lines.map((line) => el("li", {}, line))));
}

// --- training curves -----------------------------------------------------------------

/** A line chart; `lines` are {label, points: [[x, y], ...], bold, colour, dash, unnamed}. */
function chart(title, unit, lines) {
  lines = lines.filter((line) => line.points.length);
  if (!lines.length) return null;
  const width = 380, height = 240, left = 46, right = 22, top = 8, bottom = 36;
  const points = lines.flatMap((line) => line.points);
  const mostX = Math.max(...points.map((p) => p[0]));
  const mostY = Math.max(1e-9, ...points.map((p) => p[1])) * 1.03;
  const x = (value) => left + ((width - left - right) * value) / mostX;
  const y = (value) => height - bottom - ((height - top - bottom) * value) / mostY;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}, ${unit}, over updates` });
  for (const value of ticks(mostY)) {
    picture.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, plainNumber(value)));
  }
  for (const value of ticks(mostX)) {
    picture.append(svg("text", { x: x(value), y: height - bottom + 15, "text-anchor": "middle" }, plainNumber(value)));
  }
  picture.append(
    svg("line", { class: "axis", x1: left, x2: width - right, y1: y(0), y2: y(0) }),
    svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "updates"));
  const legend = el("div", { class: "legend" });
  lines.forEach((line, k) => {
    const colour = line.bold ? "currentColor" : line.colour ?? COLOURS[k % COLOURS.length];
    const dash = line.dash ?? DASHES[Math.floor(k / COLOURS.length) % DASHES.length];
    const path = line.points.map((p, n) => `${n ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
    picture.append(svg("path", { d: path, fill: "none", stroke: colour, "stroke-width": line.bold ? 3 : 1.8, "stroke-dasharray": dash }));
    for (const p of line.points) {
      picture.append(svg("circle", { cx: x(p[0]), cy: y(p[1]), r: 2.5, fill: colour },
        svg("title", {}, `${line.label}: ${+p[1].toPrecision(4)} after ${p[0]} updates`)));
    }
    if (line.unnamed) return;
    const swatch = el("i");
    swatch.style.borderTopColor = colour;
    swatch.style.borderTopStyle = dash ? "dashed" : "solid";
    legend.append(el("span", {}, swatch, line.label));
  });
  return el("figure", {}, el("figcaption", {}, `${title} (${unit})`), picture, legend);
}

function showTraining() {
  const root = section("training");
  if (!data.history.length) {
    root.append(el("p", {}, "No history of this training was found (history.jsonl)."));
    return;
  }
  const points = (name) => data.history.filter((r) => typeof r[name] === "number").map((r) => [r.updates, r[name]]);
  const line = (label, name, more = {}) => ({ label, points: points(name), ...more });
  const last = data.history[data.history.length - 1];
  const tasks = Object.keys(data.tasks);
  const langs = (metric) => unique(data.history.flatMap((r) => Object.keys(r)))
    .map((key) => key.match(new RegExp(`^${metric}_([a-z]{3})$`))).filter(Boolean).map((m) => m[1]).sort();
  const byLanguage = (metric) => [
    ...langs(metric).map((lang) => line(languageName(lang), `${metric}_${lang}`)),
    line("all languages", metric, { bold: true, dash: "" }),
  ];
  const accuracy = tasks.flatMap((t, k) => [
    line(taskName(t), `acc_${t}`, { colour: COLOURS[k], dash: "" }),
    line(`${taskName(t)}, training`, `train_acc_${t}`, { colour: COLOURS[k], dash: "2 2", unnamed: true }),
  ]);
  const charts = [
    chart("Loss in validation", "nats an utterance", [line("total", "loss"), line("CTC", "loss_ctc"), line("attention", "loss_att")]),
    chart("Loss by task in validation", "nats an utterance", tasks.map((t) => line(taskName(t), `loss_${t}`))),
    chart("Token accuracy by task", "share; dotted: training", accuracy),
    chart("PFER in validation, greedy CTC", "%", byLanguage("pfer_ctc")),
    chart("PER in validation, greedy CTC", "%", byLanguage("per_ctc")),
  ];
  root.append(
    el("p", {}, `${last.epoch} epochs, ${last.updates.toLocaleString("en")} updates, ${(last.seconds / 60).toFixed(1)} minutes. A point is an epoch; training is the mean of what was logged in it.`),
    el("div", { class: "charts" }, ...charts));
}

// --- languages -----------------------------------------------------------------------

function showLanguages() {
  const root = section("languages");
  const key = (r) => `${r.set}: ${taskName(r.task)}, ${r.system}, ${r.metric}`;
  const rows = data.results.filter((r) => r.lang !== "all");
  if (!rows.length) {
    root.append(el("p", {}, "No score by language."));
    return;
  }
  const body = el("tbody");
  const choice = menu("Score", unique(rows.map(key)).map((k) => [k, k]), draw, "languages-score");
  root.append(
    el("div", { class: "controls" }, choice.node),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores by language" },
      el("table", { id: "languages-table", style: "width:100%" },
        el("caption", {}, "Score of each language with its 95 % interval, highest first"),
        el("thead", {}, el("tr", {},
          el("th", { scope: "col" }, "Language"),
          el("th", { scope: "col", class: "number" }, "Score"),
          el("th", { scope: "col" }, ""),
          el("th", { scope: "col", class: "number wide" }, "Utterances"))),
        body)));
  function draw(chosen) {
    const shown = data.results.filter((r) => key(r) === chosen)
      .sort((a, b) => (b.lang === "all") - (a.lang === "all") || b.value - a.value);
    const most = largest(shown);
    body.replaceChildren(...shown.map((r, k) =>
      el("tr", { class: r.lang === "all" ? "pooled" : undefined },
        el("th", { scope: "row" }, languageName(r.lang)),
        el("td", { class: "number" }, withInterval(r)),
        el("td", { style: "width:50%" }, k === 0 ? scale(r.metric, most) : null, bar(r, most)),
        el("td", { class: "number wide" }, r.n_utts.toLocaleString("en")))));
  }
  if (data.headline && rows.some((r) => key(r) === key(data.headline))) choice.select.value = key(data.headline);
  draw(choice.select.value);
}

// --- utterances ----------------------------------------------------------------------

/** The name of a unit: phones are numbers, words are themselves. */
const unitName = (system, unit) => (system.unit === "phone" ? data.phones[unit] : unit);

function stepKind(ref, hyp) {
  if (ref === hyp) return "";
  return ref === "" ? "ins" : hyp === "" ? "del" : "sub";
}

/** Reference above, hypothesis below; `isHit` marks steps that were asked for. */
function stepsOf(system, utterance, isHit) {
  const names = utterance.steps.map(([r, h]) => [unitName(system, r), unitName(system, h)]);
  const spoken = (side) => names.map((n) => n[side]).filter(Boolean).join(" ") || "nothing";
  const node = el("div", { class: `steps ${system.unit}s`, role: "img", "aria-label": `reference ${spoken(0)}; output ${spoken(1)}` },
    el("span", { class: "side" }, el("b", {}, "reference"), el("b", {}, "output")));
  const detail = el("p", { class: "note", hidden: "" });
  utterance.steps.forEach(([r, h], k) => {
    const [ref, hyp] = names[k];
    const kind = stepKind(ref, hyp);
    const told = { sub: data.differences[`${r} ${h}`] ?? "substituted", del: "deleted", ins: "inserted" }[kind];
    const hit = isHit && isHit(r, h) ? " hit" : "";
    const explain = () => {
      detail.hidden = false;
      detail.textContent = `${ref || "nothing"} → ${hyp || "nothing"}: ${told || "equal"}`;
    };
    node.append(el("span", { class: kind + hit, title: told || undefined, onclick: explain }, el("b", {}, ref || "–"), el("b", {}, hyp || "–")));
  });
  return el("div", {}, node, detail);
}

/** The sound and spectrogram of an utterance, where the page has them. */
function clipOf(utterance) {
  if (utterance.clip === null || utterance.clip === undefined) {
    return el("p", { class: "note" }, "Sound of this utterance is not in the page.");
  }
  const width = Math.min(700, Math.max(280, window.innerWidth - 90));
  return clipWidget({ ...utterance, clip: data.clips[utterance.clip], name: utterance.id, width }).node;
}

function utteranceCard(system, utterance, isHit) {
  return el("article", { class: "utterance" },
    el("h4", {}, utterance.id),
    el("p", { class: "note" }, `${languageName(utterance.lang)}, ${utterance.seconds.toFixed(2)} s, ${system.error} ${rounded(utterance.error)} %`),
    stepsOf(system, utterance, isHit),
    clipOf(utterance));
}

/** Cards of utterances, a few at first. */
function utteranceList(system, utterances, isHit) {
  const list = el("div");
  let shown = 0;
  const more = el("button", { class: "more", type: "button", onclick: () => grow() }, "Show more");
  function grow() {
    for (const utterance of utterances.slice(shown, shown + FIRST_SHOWN)) {
      list.append(utteranceCard(system, utterance, isHit));
    }
    shown += FIRST_SHOWN;
    more.hidden = shown >= utterances.length;
  }
  grow();
  return el("div", {}, list, more);
}

const colourKey = () => el("p", { class: "note" },
  el("span", { class: "key sub" }, "substituted"), " ",
  el("span", { class: "key del" }, "deleted"), " ",
  el("span", { class: "key ins" }, "inserted"),
  "; a click on one says which features differ.");

// --- confusions ----------------------------------------------------------------------

function showConfusions() {
  const root = section("confusions");
  const systems = data.systems.filter((s) => s.unit === "phone");
  if (!systems.length) {
    root.append(el("p", {}, "No phones were decoded."));
    return;
  }
  const properties = Object.keys(data.properties);
  const chosen = { system: firstSystem(systems), lang: "all", property: properties[0] };
  const table = el("table", { class: "matrix", id: "confusion-table" });
  const panel = el("div", { class: "panel", id: "confusion-panel", "aria-live": "polite" });
  const langMenu = menu("Language", [["all", "all languages"]], (value) => { chosen.lang = value; draw(); }, "confusions-lang");
  const systemMenu = menu("Decoded set", systems.map((s, k) => [k, systemName(s)]), (value) => {
    chosen.system = Number(value);
    fillLanguages();
    draw();
  }, "confusions-set");
  const propertyMenu = menu("Classes", properties.map((p) => [p, p]), (value) => { chosen.property = value; draw(); }, "confusions-classes");
  root.append(
    el("p", {}, "Rows are what the reference has, columns what the model wrote, aligned by feature distance. A cell counts phones; its colour is the share of its row. Choose a cell for the phones and utterances behind it."),
    el("div", { class: "controls" }, systemMenu.node, langMenu.node, propertyMenu.node),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion table" }, table),
    panel);

  function fillLanguages() {
    const langs = Object.keys(systems[chosen.system].confusions).filter((lang) => lang !== "all").sort();
    if (!langs.includes(chosen.lang)) chosen.lang = "all";
    langMenu.select.replaceChildren(el("option", { value: "all" }, "all languages"),
      ...langs.map((lang) => el("option", { value: lang }, `${lang} (${languageName(lang)})`)));
    langMenu.select.value = chosen.lang;
  }

  function draw() {
    const system = systems[chosen.system];
    const column = properties.indexOf(chosen.property);
    const names = data.properties[chosen.property];
    const gapClass = names.length;
    const classOf = (phone) => (phone === GAP ? gapClass : data.classes[phone][column]);
    const entries = Object.entries(system.confusions)
      .filter(([lang]) => chosen.lang === "all" || lang === chosen.lang).flatMap(([, rows]) => rows);
    const counts = names.concat([""]).map(() => new Array(gapClass + 1).fill(0));
    for (const [ref, hyp, n] of entries) counts[classOf(ref)][classOf(hyp)] += n;
    const used = [...counts.keys()].filter((k) =>
      k === gapClass || counts[k].some(Boolean) || counts.some((row) => row[k]));
    const label = (k, side) => (k < gapClass ? names[k] : side === "ref" ? "inserted" : "deleted");
    const head = el("tr", {}, el("th", { scope: "col" }, "reference"),
      ...used.map((k) => el("th", { scope: "col" }, label(k, "hyp"))));
    const rows = used.map((r) => {
      const total = counts[r].reduce((a, b) => a + b, 0);
      return el("tr", {}, el("th", { scope: "row" }, label(r, "ref")), ...used.map((h) => {
        const n = counts[r][h];
        if (!n) return el("td", {}, el("span", {}, "·"));
        const share = n / total;
        const button = el("button", {
          type: "button", "aria-pressed": "false",
          "aria-label": `${label(r, "ref")} to ${label(h, "hyp")}: ${n}`,
          onclick: () => {
            for (const other of table.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
            button.setAttribute("aria-pressed", "true");
            openCell(system, entries, classOf, r, h, label(r, "ref"), label(h, "hyp"), n, share);
          },
        }, n.toLocaleString("en"));
        const colour = r === h ? "var(--right)" : "var(--wrong)";
        button.style.background = `rgba(${colour}, ${(0.65 * Math.sqrt(share)).toFixed(3)})`;
        return el("td", {}, button);
      }));
    });
    table.replaceChildren(
      el("caption", {}, `${systemName(system)}: ${chosen.property}, ${languageName(chosen.lang)}`),
      el("thead", {}, head), el("tbody", {}, ...rows));
    panel.replaceChildren();
  }

  function openCell(system, entries, classOf, r, h, refLabel, hypLabel, n, share) {
    const pairs = new Map();
    for (const [ref, hyp, count] of entries) {
      if (classOf(ref) === r && classOf(hyp) === h) {
        const key = `${ref} ${hyp}`;
        pairs.set(key, (pairs.get(key) ?? 0) + count);
      }
    }
    const ordered = [...pairs].sort((a, b) => b[1] - a[1]);
    const shown = ordered.slice(0, 24);
    const list = el("div");
    const pairButtons = el("div", { class: "pairs" });
    const pick = (key, button) => {
      const wasOn = button && button.getAttribute("aria-pressed") === "true";
      for (const other of pairButtons.children) other.setAttribute("aria-pressed", "false");
      if (button && !wasOn) button.setAttribute("aria-pressed", "true");
      const only = wasOn ? null : key;
      const isHit = (ref, hyp) => (only ? `${ref} ${hyp}` === only : classOf(ref) === r && classOf(hyp) === h);
      const found = system.utterances
        .filter((u) => chosen.lang === "all" || u.lang === chosen.lang)
        .filter((u) => u.steps.some(([ref, hyp]) => isHit(ref, hyp)))
        .sort((a, b) => (a.clip === null) - (b.clip === null) || a.seconds - b.seconds);
      list.replaceChildren(
        el("p", { class: "note" }, found.length
          ? `${found.length} of the ${system.utterances.length} utterances in this page have it (the set has ${system.n_utts}).`
          : `None of the ${system.utterances.length} utterances in this page has it; hyp.jsonl has all ${system.n_utts}.`),
        found.length ? utteranceList(system, found, isHit) : "");
    };
    for (const [key, count] of shown) {
      const [ref, hyp] = key.split(" ").map((k) => data.phones[Number(k)] || "–");
      const button = el("button", { type: "button", "aria-pressed": "false", title: data.differences[key], onclick: () => pick(key, button) }, `${ref} → ${hyp}  ${count}`);
      pairButtons.append(button);
    }
    panel.replaceChildren(
      el("h3", {}, `${refLabel} → ${hypLabel}: ${n === 1 ? "once" : `${n.toLocaleString("en")} times`}`),
      el("p", {}, `${(100 * share).toFixed(1)} % of the row "${refLabel}". ` + (ordered.length > shown.length ? `The ${shown.length} most frequent of ${ordered.length} pairs of phones:` : "Pairs of phones:")),
      pairButtons, colourKey(), list);
    pick(null, null);
  }

  systemMenu.select.value = chosen.system;
  fillLanguages();
  draw();
}

// --- worst utterances ----------------------------------------------------------------

function showWorst() {
  const root = section("worst");
  if (!data.systems.length) {
    root.append(el("p", {}, "No decoded sets were found."));
    return;
  }
  const list = el("div", { id: "worst-list" });
  const chosen = { system: firstSystem(data.systems), lang: "" };
  const systemMenu = menu("Decoded set", data.systems.map((s, k) => [k, systemName(s)]), (value) => {
    chosen.system = Number(value);
    chosen.lang = "";
    draw();
  }, "worst-set");
  const langMenu = menu("Language", [], (value) => { chosen.lang = value; draw(); }, "worst-lang");
  systemMenu.select.value = chosen.system;
  const limits = data.clip_limits;
  root.append(
    el("p", { class: "note" }, `The page holds the sound of ${limits.n} utterances (${(limits.bytes / 1e6).toFixed(1)} MB; at most ${limits.max_clips} and ${(limits.max_bytes / 1e6).toFixed(0)} MB).`),
    el("div", { class: "controls" }, systemMenu.node, langMenu.node),
    colourKey(), list);

  function draw() {
    const system = data.systems[chosen.system];
    const all = system.worst.map((k) => system.utterances[k]);
    const langs = unique(all.map((u) => u.lang)).sort();
    langMenu.select.replaceChildren(el("option", { value: "" }, "all languages"),
      ...langs.map((lang) => el("option", { value: lang }, `${lang} (${languageName(lang)})`)));
    langMenu.select.value = chosen.lang;
    const shown = all.filter((u) => !chosen.lang || u.lang === chosen.lang);
    list.replaceChildren(
      el("p", { class: "note", role: "status" }, `${shown.length} of the ${all.length} utterances with the highest ${system.error}; the set has ${system.n_utts}.`),
      utteranceList(system, shown));
  }
  draw();
}

// --- languages that were detected ----------------------------------------------------

function showLid() {
  const root = section("lid");
  if (!data.lid.length) {
    root.append(el("p", {}, "Languages were not detected in this experiment."));
    return;
  }
  for (const matrix of data.lid) {
    const count = new Map(matrix.counts.map(([ref, hyp, n]) => [`${ref} ${hyp}`, n]));
    const refs = unique(matrix.counts.map((c) => c[0])).sort();
    const hyps = unique(matrix.counts.map((c) => c[1])).sort();
    const rows = refs.map((ref) => {
      const total = hyps.reduce((sum, hyp) => sum + (count.get(`${ref} ${hyp}`) ?? 0), 0);
      return el("tr", {}, el("th", { scope: "row" }, `${ref} (${languageName(ref)})`), ...hyps.map((hyp) => {
        const n = count.get(`${ref} ${hyp}`) ?? 0;
        const cell = el("span", {}, n ? n.toLocaleString("en") : "·");
        if (n) {
          cell.style.color = "var(--ink)";
          cell.style.background = `rgba(var(${ref === hyp ? "--right" : "--wrong"}), ${(0.65 * Math.sqrt(n / total)).toFixed(3)})`;
        }
        return el("td", {}, cell);
      }));
    });
    root.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Detected languages" },
      el("table", { class: "matrix" },
        el("caption", {}, `${matrix.set}, ${matrix.profile}: utterances of each language (rows) by the language detected (columns)`),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "spoken"), ...hyps.map((hyp) => el("th", { scope: "col", title: languageName(hyp) }, hyp)))),
        el("tbody", {}, ...rows))));
  }
}

// --- settings ------------------------------------------------------------------------

function showSettings() {
  const root = section("settings");
  const seconds = (s) => s.toLocaleString("en", { maximumFractionDigits: 1 });
  const timings = data.timings.map((t) => el("tr", {},
    el("td", {}, t.set), el("td", {}, taskName(t.task)), el("td", {}, t.profile),
    el("td", { class: "number" }, seconds(t.audio_s)), el("td", { class: "number" }, seconds(t.compute_s)),
    el("td", { class: "number" }, t.audio_s ? (t.compute_s / t.audio_s).toFixed(4) : "")));
  if (timings.length) {
    root.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Decoding times" }, el("table", {},
      el("caption", {}, "Decoding time; the real-time factor is seconds of computing for a second of audio, model loading left out"),
      el("thead", {}, el("tr", {}, ...["Set", "Task", "Profile", "Audio (s)", "Computing (s)", "Real-time factor"].map((name, k) =>
        el("th", { scope: "col", class: k > 2 ? "number" : undefined }, name)))),
      el("tbody", {}, ...timings))));
  }
  root.append(
    el("h3", {}, "Commands"),
    el("pre", { tabindex: "0" }, data.commands.join("\n")),
    el("h3", {}, "Versions when this page was made"),
    el("dl", {}, ...Object.entries(data.versions).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    el("details", {}, el("summary", {}, "All settings of the model and its training"),
      el("pre", { tabindex: "0" }, JSON.stringify(data.settings, null, 1))));
}

showHeadline();
showResults();
showWeak();
showTraining();
showLanguages();
showConfusions();
showWorst();
showLid();
showSettings();
restoreView();
