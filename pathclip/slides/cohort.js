"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (cls) node.className = cls;
  return node;
};
const colours = new Map(data.classes.map((c) => [c.name, c.colour]));
const words = (name) => name.replaceAll("_", "_\u200b"); // long names may break at their underscores
function named(name) {
  const node = make("span", undefined, "named"), swatch = make("span", "", "swatch");
  if (name === null) return node;
  swatch.style.background = colours.get(name) || "#fff";
  node.append(swatch, make("span", words(name)));
  return node;
}
function link(text, file) {
  if (file === null) return make("span", text);
  const node = make("a", text);
  node.href = encodeURIComponent(file);
  return node;
}

/* ---- words ---- */
$("model").textContent = data.model;
const states = ["done", "empty", "failed"].map((s) => [data.slides.filter((r) => r.state === s).length, s]).filter(([n]) => n);
$("answer").textContent = `${data.slides.length} slides: ` + states.map(([n, s]) => `${n} ${s}`).join(", ");
$("numbers").append(make("p", "label: " + data.pooling));
for (const [level, quality] of Object.entries(data.quality)) {
  if (quality === null) continue;
  const told = Object.entries(quality.metrics).map(([name, [value, low, high]]) =>
    `${name.replaceAll("_", " ")} ${value === null ? "undefined" : value.toFixed(3)}` + (low === null ? "" : ` (${low.toFixed(3)} to ${high.toFixed(3)})`));
  $("numbers").append(make("p", `by ${level}, ${quality.judged} judged: ` + told.join(" · ")));
}
if (data.draws) {
  const { count, median, q25, q75 } = data.draws;
  $("numbers").append(make("p", `${count} draws of prompts: balanced accuracy by slide ${median.toFixed(3)} (median), quartiles ${q25.toFixed(3)} to ${q75.toFixed(3)}`));
}
if (data.pictured < data.slides.length) $("numbers").append(make("p", `pictures of the first ${data.pictured} slides`));
$("legend").append(...data.classes.map((c) => named(c.name)));
data.files.forEach((file, i) => $("files").append(i ? " · " : "", link(file, file)));

/* ---- tables ---- */
function shares(row) {
  const bar = make("div", undefined, "shares");
  const told = data.classes.filter((c) => row.shares[c.name] > 0);
  bar.append(...told.map((c) => {
    const part = make("i");
    part.style.width = 100 * row.shares[c.name] + "%"; part.style.background = c.colour;
    return part;
  }));
  bar.title = told.map((c) => `${c.name} ${Math.round(100 * row.shares[c.name])}%`).join("\n");
  return bar;
}
function picture(row) {
  if (!row.jpeg) return make("span", "");
  const image = new Image(), around = row.page === null ? make("span") : link("", row.page);
  image.src = "data:image/jpeg;base64," + row.jpeg; image.alt = row.name; image.loading = "lazy";
  around.append(image);
  return around;
}
const largest = (row) => Math.max(0, ...Object.values(row.shares));
/* title, what a row is sorted by, what it shows, class */
const label = ["label", (r) => r.label, (r) => named(r.label), "text label"];
const truth = ["true label", (r) => r.truth, (r) => named(r.truth), "text label true"];
const tiles = ["tiles", (r) => r.tiles, (r) => r.tiles.toLocaleString("en")];
const tissue = ["tissue by class", largest, shares, "text"];
const some = (rows, key) => rows.some((r) => r[key] !== null);
const columnsOfSlides = [
  ["", (r) => r.name, picture, "text"],
  ["slide", (r) => r.slide, (r) => link(r.slide.split(/[\\/]/).pop(), r.page), "text"],
  label,
  ...(some(data.slides, "truth") ? [truth] : []),
  ...(some(data.slides, "patient") ? [["patient", (r) => r.patient, (r) => r.patient || "", "text"]] : []),
  ["K agree", (r) => r.agreement, (r) => r.agreement === null ? "" : Math.round(100 * r.agreement) + "%"],
  tiles,
  tissue,
  ...(some(data.slides, "dice") ? [["Dice", (r) => r.dice, (r) => r.dice === null ? "" : r.dice.toFixed(3)]] : []),
  ["state", (r) => r.state, (r) => r.state + (r.unreadable ? `, ${r.unreadable} tiles unreadable` : "") + (r.reason ? ": " + r.reason : ""), "text state"],
];
const columnsOfPatients = [
  ["patient", (r) => r.name, (r) => r.name, "text"], label, ...(some(data.patients, "truth") ? [truth] : []),
  ["slides", (r) => r.slides, (r) => r.slides + (r.missing ? ` (${r.missing} left out)` : "")], tiles, tissue,
];

function compare(a, b) { /* what is unknown comes last, whichever way */
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
function table(place, columns, rows) {
  let by = -1, way = 1;
  const head = make("tr"), body = document.createElement("tbody");
  const headings = columns.map(([title, key, , cls], i) => {
    const cell = make("th", undefined, cls), button = make("button", title);
    button.type = "button";
    button.addEventListener("click", () => { way = by === i ? -way : 1; by = i; fill(); });
    if (title) cell.append(button);
    head.append(cell);
    return cell;
  });
  const lines = rows.map((row) => {
    const wrong = row.truth !== null && row.label !== null && row.truth !== row.label;
    const line = make("tr", undefined, (row.state || "") + (wrong ? " wrong" : ""));
    line.append(...columns.map(([, , show, cls]) => {
      const cell = make("td", undefined, cls);
      cell.append(show(row));
      return cell;
    }));
    return { row, line, text: [row.slide, row.name, row.label, row.truth, row.patient, row.state, row.reason].filter(Boolean).join(" ").toLowerCase() };
  });
  function fill() {
    headings.forEach((cell, i) => { if (i === by) cell.setAttribute("aria-sort", way > 0 ? "ascending" : "descending"); else cell.removeAttribute("aria-sort"); });
    const wanted = place.id === "slides" ? $("find").value.trim().toLowerCase() : "";
    const kept = lines.filter((l) => l.text.includes(wanted));
    if (by >= 0) {
      const key = columns[by][1];
      kept.sort((a, b) => {
        const x = key(a.row), y = key(b.row);
        if (x === null || y === null) return (x === null) - (y === null);
        return way * compare(x, y);
      });
    }
    body.replaceChildren(...kept.map((l) => l.line));
    if (place.id === "slides") $("shown").textContent = kept.length === rows.length ? "" : `${kept.length} of ${rows.length}`;
  }
  const top = document.createElement("thead");
  top.append(head);
  place.append(top, body);
  fill();
  return fill;
}
const refill = table($("slides"), columnsOfSlides, data.slides);
$("find").addEventListener("input", refill);
if (data.patients.length) { $("people").hidden = false; table($("patients"), columnsOfPatients, data.patients); }
