"use strict";
// The page: a table goes to the service as it is, and what comes back is drawn.
const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 352, LEFT = 64, RIGHT = 12, TOP = 12, BOTTOM = 34, TIME_WIDTH = 150;
let answer = null, cursor = -1;

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers["X-API-Key"] = at("key").value;
  const response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const told = await response.json().catch(() => ({ detail: "the service did not answer" }));
  if (response.status === 401) at("key-field").hidden = false;
  if (!response.ok) throw new Error(told.detail || response.statusText);
  return told;
}

function say(text, bad) {
  at("message").textContent = text;
  at("message").classList.toggle("bad", Boolean(bad));
}

async function listModels() {
  try {
    const { models } = await ask("/v1/models");
    for (const select of [at("model"), at("other")]) {
      select.querySelectorAll("option:not([value=''])").forEach((one) => one.remove());
      for (const model of models) select.append(new Option(model.name, model.name));
    }
  } catch (error) { say(error.message, true); }
}

// The header tells which columns there are; which is what, the service finds out.
function listColumns() {
  const header = (at("csv").value.split(/\r?\n/, 1)[0] || "");
  const separator = [",", ";", "\t", "|"].map((one) => [header.split(one).length, one]).sort((a, b) => b[0] - a[0])[0][1];
  const names = header.split(separator).map((one) => one.trim().replace(/^"|"$/g, "")).filter(Boolean);
  for (const id of ["id_column", "time_column", "target_column"]) {
    const before = at(id).value;
    at(id).replaceChildren(new Option("found by itself", ""), ...names.map((one) => new Option(one, one)));
    at(id).value = names.includes(before) ? before : "";
  }
}

async function take(file) {
  if (!file) return;
  const bytes = new Uint8Array(await file.arrayBuffer());
  const mark = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-8";
  try {
    at("csv").value = new TextDecoder(mark, { fatal: true }).decode(bytes);
  } catch {
    say(`${file.name} is not written in UTF-8; save it as UTF-8, which Excel calls 'CSV UTF-8'`, true);
    return;
  }
  listColumns();
  say(`${file.name} is read; press Forecast`);
}

function example() {
  const rows = ["shop,day,sold"];
  for (let day = 0; day < 120; day++) {
    const date = new Date(Date.UTC(2026, 6, 1 + day)).toISOString().slice(0, 10);
    for (const [shop, size] of [["north", 60], ["south", 35]]) {
      const week = [0.8, 0.75, 0.85, 0.95, 1.2, 1.5, 1.1][(day + 2) % 7];
      const wobble = ((day * 7919 + size * 104729) % 97) / 97 - 0.5;
      rows.push(`${shop},${date},${Math.round(size * week * (1 + day / 600) + 8 * wobble)}`);
    }
  }
  at("csv").value = rows.join("\n");
  listColumns();
}

async function forecast(event) {
  event.preventDefault();
  if (!at("csv").value.trim()) { say("There is no table yet: drop a file, choose one, or paste it.", true); at("csv").focus(); return; }
  const models = [at("model").value];
  if (at("other").value && at("other").value !== models[0]) models.push(at("other").value);
  at("go").disabled = true;
  say("Forecasting …");
  try {
    answer = await ask("/v1/tables/forecast", {
      csv: at("csv").value, horizon: Number(at("horizon").value), models,
      id_column: at("id_column").value || null, time_column: at("time_column").value || null,
      target_column: at("target_column").value || null, nonnegative: at("nonnegative").checked || null,
    });
    show();
    const { id, time, target } = answer.columns;
    say(`${answer.num_series} series; values in ${target || "the table"}, time in ${time || "the rows"}${id ? `, series in ${id}` : ""}.`);
  } catch (error) {
    at("result").hidden = true;
    say(error.message, true);
  } finally { at("go").disabled = false; }
}

function show() {
  at("result").hidden = false;
  at("series").replaceChildren(...answer.series.map((one, number) => new Option(one.name, number)));
  URL.revokeObjectURL(at("download").href);
  at("download").href = URL.createObjectURL(new Blob([answer.csv], { type: "text/csv" }));
  at("notes").replaceChildren(...answer.notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  const cell = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  at("scores").tBodies[0].replaceChildren(...answer.scores.map((one) => row("td", [
    one.model, cell(one.crps, 2), cell(one.mase, 2), one.coverage_80 === null ? "–" : `${cell(one.coverage_80, 0)} %`])));
  at("scores").hidden = !answer.scores.length;
  cursor = -1;
  draw();
}

function row(kind, texts) {
  const made = document.createElement("tr");
  made.append(...texts.map((text) => Object.assign(document.createElement(kind), { textContent: text })));
  return made;
}

const chosen = () => answer.series[Number(at("series").value)];
// As many digits as tell the numbers of a picture apart.
let digits = 5;
const short = (value) => Number(value).toLocaleString(undefined, { maximumSignificantDigits: digits });

// About five round numbers between two.
function roundValues(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((one) => one * power >= 0.7 * rough) || 10);
  const first = Math.ceil(low / step) * step, found = [];
  // Counted, since a step may be too small to be seen beside a large value.
  for (let number = 0; number <= 10; number++) {
    const value = first + number * step;
    if (value <= high && value !== found.at(-1)) found.push(value);
  }
  return found;
}

function draw() {
  const one = chosen(), names = Object.keys(one.forecasts), past = one.history.length, count = past + one.times.length;
  const all = one.history.filter((value) => value !== null);
  for (const name of names) for (const level of ["0.025", "0.975"]) all.push(...one.forecasts[name].quantiles[level]);
  let low = Math.min(...all), high = Math.max(...all);
  if (low === high) { const reach = Math.max(1, Math.abs(low) * 1e-9); low -= reach; high += reach; }
  const largest = Math.max(Math.abs(low), Math.abs(high));
  digits = Math.min(17, Math.max(5, Math.ceil(Math.log10(largest / (high - low))) + 3));
  const pad = 0.05 * (high - low); low -= pad; high += pad;
  // In the screen's own units, so that letters are as large on a phone.
  const chart = at("chart"), width = Math.max(240, chart.getBoundingClientRect().width);
  const x = (step) => LEFT + (step / Math.max(1, count - 1)) * (width - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  chart.replaceChildren();
  const add = (tag, attributes, text) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    chart.append(made);
    return made;
  };
  for (const value of roundValues(low, high)) {
    add("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) });
    add("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value));
  }
  const times = [...one.history_times, ...one.times];
  const label = (time) => time.replace(/T00:00:00.*$/, "").replace("T", " ").replace(/(?:[+-]\d\d:\d\d|Z)$/, "").replace(/^(.{16}):00$/, "$1");
  const ticks = Math.max(1, Math.min(4, Math.floor((width - LEFT - RIGHT) / TIME_WIDTH)));
  for (let tick = 0; tick <= ticks; tick++) {
    const step = Math.round((tick / ticks) * (count - 1));
    add("text", { x: x(step), y: HEIGHT - 10, "text-anchor": tick === 0 ? "start" : tick === ticks ? "end" : "middle" }, label(times[step]));
  }
  const line = (values, from) => {
    let path = "", open = false;
    values.forEach((value, step) => {
      if (value === null) { open = false; return; }
      path += `${open ? "L" : "M"}${x(from + step).toFixed(1)} ${y(value).toFixed(1)}`;
      open = true;
    });
    return path;
  };
  names.forEach((name, number) => {
    const told = one.forecasts[name].quantiles, kind = number ? "second" : "first";
    for (const [below, above] of [["0.025", "0.975"], ["0.1", "0.9"], ["0.25", "0.75"]]) {
      const upper = told[above].map((value, step) => `${x(past + step).toFixed(1)} ${y(value).toFixed(1)}`);
      const lower = told[below].map((value, step) => `${x(past + step).toFixed(1)} ${y(value).toFixed(1)}`).reverse();
      add("path", { class: `fan ${kind}`, d: `M${[...upper, ...lower].join("L")}Z` });
    }
    add("path", { class: `median ${kind}`, d: line(told["0.5"], past) });
  });
  add("path", { class: "history", d: line(one.history, 0) });
  at("caption").textContent = `${one.name}: history, then the median and the 50, 80 and 95 % intervals of ${names.join(" (solid) and ")}${names.length > 1 ? " (dashed)" : ""}.`
    + " Point at it, or use the arrow keys, for numbers.";
  chart.cursor = add("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  chart.reach = { x, past, count, times, label, width };
  at("numbers").tHead.replaceChildren(row("th", ["time", ...names.flatMap((name) => [`${name} 10 %`, "median", "90 %"])]));
  at("numbers").tBodies[0].replaceChildren(...one.times.map((time, step) => row("td", [label(time),
    ...names.flatMap((name) => ["0.1", "0.5", "0.9"].map((level) => short(one.forecasts[name].quantiles[level][step])))])));
  point(cursor);
}

function point(step) {
  const one = chosen(), { x, past, count, times, label } = at("chart").reach;
  cursor = step;
  if (step < 0 || step >= count) { at("chart").cursor.setAttribute("visibility", "hidden"); at("hover").textContent = ""; return; }
  for (const end of ["x1", "x2"]) at("chart").cursor.setAttribute(end, x(step));
  at("chart").cursor.setAttribute("visibility", "visible");
  const told = step < past
    ? [one.history[step] === null ? "missing" : short(one.history[step])]
    : Object.entries(one.forecasts).map(([name, found]) => {
        const level = (q) => short(found.quantiles[q][step - past]);
        return `${name}: median ${level("0.5")}, 80 % between ${level("0.1")} and ${level("0.9")}, 95 % between ${level("0.025")} and ${level("0.975")}`;
      });
  at("hover").textContent = `${label(times[step])}: ${told.join("; ")}`;
}

for (const name of ["pointermove", "pointerdown"]) at("chart").addEventListener(name, (event) => {
  if (!answer) return;
  const box = at("chart").getBoundingClientRect(), { count, width } = at("chart").reach;
  const place = ((event.clientX - box.left) / box.width) * width;
  point(Math.max(0, Math.min(count - 1, Math.round(((place - LEFT) / (width - LEFT - RIGHT)) * (count - 1)))));
});
window.addEventListener("resize", () => { if (answer) draw(); });
at("chart").addEventListener("keydown", (event) => {
  if (!answer) return;
  const { past, count } = at("chart").reach, from = cursor < 0 ? past : cursor;
  const to = { ArrowLeft: from - 1, ArrowRight: cursor < 0 ? past : from + 1, Home: 0, End: count - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  point(Math.max(0, Math.min(count - 1, to)));
});
at("series").addEventListener("change", () => { cursor = -1; draw(); });
at("form").addEventListener("submit", forecast);
at("file").addEventListener("change", () => take(at("file").files[0]));
at("csv").addEventListener("input", listColumns);
at("example").addEventListener("click", example);
at("key").addEventListener("change", listModels);
for (const name of ["dragenter", "dragover"]) at("drop").addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
for (const name of ["dragleave", "drop"]) at("drop").addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.remove("over"); });
at("drop").addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
listModels();
