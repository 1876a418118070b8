"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (cls) node.className = cls;
  return node;
};
const words = (name) => name.replaceAll("_", "_\u200b"); // long names may break at their underscores
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const xy = new Int32Array(bytes(data.tiles.xy));
const chance = new Uint16Array(bytes(data.tiles.probability));
const cosine = new Int16Array(bytes(data.tiles.cosine));
const count = xy.length / 2, classes = data.classes, width = classes.length;
const side = data.tiles.side_level0;
const prob = (tile, cls) => chance[tile * width + cls] / 65535;
const cos = (tile, cls) => cosine[tile * width + cls] / 32767;

/* ---- words ---- */
$("name").textContent = data.name;
$("answer").textContent = data.label === null ? "no tissue found" : data.label;
function facts() {
  const mm = data.mpp === null ? "" : ` (${(data.size[0] * data.mpp / 1000).toFixed(1)} × ${(data.size[1] * data.mpp / 1000).toFixed(1)} mm)`;
  const parts = [
    [data.tiles.count.toLocaleString("en"), " tiles of " + data.tiles.tile_px + " px" + (data.tiles.mpp === null ? "" : " at " + Number(data.tiles.mpp.toPrecision(4)) + " µm/px")],
    [data.size[0].toLocaleString("en") + " × " + data.size[1].toLocaleString("en"), " px" + mm],
    data.mpp === null ? ["unknown", " scale"] : [Number(data.mpp.toPrecision(4)) + " µm/px", " scale, from " + data.mpp_source],
  ];
  if (data.tissue_mm2 !== null) parts.push([data.tissue_mm2.toFixed(2) + " mm²", " tissue"]);
  if (data.agreement !== null) parts.unshift([Math.round(100 * data.agreement) + "%", " of the K agree"]);
  if (data.provenance.smooth > 1) parts.push([String(data.provenance.smooth), " nearest tiles averaged"]);
  if (data.tiles.unreadable) parts.push([String(data.tiles.unreadable), " tiles unreadable, left out"]);
  parts.forEach(([bold, rest], i) => {
    if (i) $("facts").append(" · ");
    $("facts").append(make("b", bold), rest);
  });
}
facts();
$("provenance").textContent = JSON.stringify(data.provenance, null, 2);

function scoreTable() {
  const ks = Object.keys(data.scores).map(Number).sort((a, b) => a - b);
  if (!ks.length) { $("pooling").textContent = "no tile was scored"; $("shares").hidden = true; return; }
  const decides = { topk: `K = ${data.label_k} decides`, mean: "the mean over all tiles decides", fraction: "the share of the tiles decides" }[data.pooling];
  $("pooling").textContent = `mean cosine of each class's K best tiles, and of all; ${decides}; the best class of each column is marked`;
  const columns = [...ks.map((k) => ["K=" + k, data.scores[k], data.pooling === "topk" && k === data.label_k]), ["all", data.means, data.pooling === "mean"]];
  const first = data.pooling === "fraction" ? data.fractions : columns.find((c) => c[2])[1];
  const head = make("tr");
  head.append(make("th", "class"), ...columns.map(([title, , deciding]) => make("th", title, deciding ? "deciding" : "")));
  const body = classes.map((c) => c.name).sort((a, b) => first[b] - first[a]);
  $("scores").append(head, ...body.map((name) => {
    const row = make("tr"), cell = make("td");
    cell.append(named(classes.find((c) => c.name === name)));
    row.append(cell, ...columns.map(([, values]) => {
      const best = Object.values(values).every((v) => v <= values[name]);
      return make("td", values[name].toFixed(3), best ? "best" : "");
    }));
    return row;
  }));
}
function shareTable() { /* how much of the tissue is which class */
  const order = classes.filter((c) => data.fractions[c.name] > 0).sort((a, b) => data.fractions[b.name] - data.fractions[a.name]);
  $("fractions").append(...order.map((c) => {
    const share = data.fractions[c.name], row = make("div", undefined, "chance"), track = make("span", undefined, "track"), bar = make("i");
    const area = data.tiles.mm2 === null ? "" : (share * data.tiles.count * data.tiles.mm2).toFixed(2) + " mm²";
    bar.style.width = 100 * share + "%"; bar.style.background = c.colour;
    track.append(bar);
    row.append(make("span", c.name), track, make("span", (100 * share).toFixed(share < 0.1 ? 1 : 0) + "%", "number"), make("span", area, "number"));
    return row;
  }));
}
function swatch(cls) {
  const node = make("span", "", "swatch");
  node.style.background = cls.colour;
  return node;
}
function named(cls) {
  const node = make("span", undefined, "named");
  node.append(swatch(cls), make("span", words(cls.name)));
  return node;
}
scoreTable();
shareTable();

/* ---- colours ---- */
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];
function heat(value) {
  const at = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1), i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return "rgb(" + VIRIDIS[i].map((a, j) => Math.round(a + (VIRIDIS[i + 1][j] - a) * (at - i))).join(",") + ")";
}
const bestClass = new Uint16Array(count);
for (let t = 0; t < count; t++) for (let c = 1; c < width; c++) if (chance[t * width + c] > chance[t * width + bestClass[t]]) bestClass[t] = c;

/* ---- the map ---- */
const canvas = $("map"), pen = canvas.getContext("2d"), picture = new Image();
const view = data.view; // thumbnail: width, height, origin, downsample
const overlay = document.createElement("canvas");
overlay.width = view.width; overlay.height = view.height;
const toView = (tile) => [(xy[2 * tile] - view.origin[0]) / view.downsample[0], (xy[2 * tile + 1] - view.origin[1]) / view.downsample[1]];
const sideView = [side / view.downsample[0], side / view.downsample[1]];
const farEdge = (tile, axis) => { /* where the neighbour begins, so that no seam shows */
  const near = xy[2 * tile + axis] - view.origin[axis], index = Math.round(near / side);
  const far = Math.abs(Math.round(index * side) - near) <= 1 ? Math.round((index + 1) * side) : near + side;
  return Math.round(far / view.downsample[axis]);
};
let zoom = 1, moveX = 0, moveY = 0, marked = -1, shown = "best";

function paintOverlay() {
  const paint = overlay.getContext("2d");
  paint.clearRect(0, 0, overlay.width, overlay.height);
  for (let t = 0; t < count; t++) {
    const [x, y] = toView(t), left = Math.round(x), upper = Math.round(y);
    paint.fillStyle = shown === "best" ? classes[bestClass[t]].colour : heat(prob(t, Number(shown)));
    paint.fillRect(left, upper, Math.max(1, farEdge(t, 0) - left), Math.max(1, farEdge(t, 1) - upper));
  }
  $("legend").replaceChildren();
  if (shown === "best") {
    const seen = [...new Set(bestClass)].sort((a, b) => a - b);
    $("legend").append(...seen.map((c) => named(classes[c])));
  } else {
    const bar = make("span", "", "bar");
    bar.style.background = "linear-gradient(to right," + VIRIDIS.map((c) => `rgb(${c})`).join(",") + ")";
    $("legend").append("probability 0", bar, "1");
  }
}
function draw() {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== canvas.clientWidth * ratio || canvas.height !== canvas.clientHeight * ratio) {
    canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.setTransform(zoom * ratio, 0, 0, zoom * ratio, moveX * ratio, moveY * ratio);
  pen.imageSmoothingEnabled = zoom < 3;
  if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, view.width, view.height);
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = $("opacity").value / 100;
  pen.drawImage(overlay, 0, 0);
  pen.globalAlpha = 1;
  if (marked >= 0) {
    const [x, y] = toView(marked);
    pen.lineWidth = 2.5 / zoom; pen.strokeStyle = "#111"; pen.strokeRect(x, y, ...sideView);
    pen.lineWidth = 1 / zoom; pen.strokeStyle = "#fff"; pen.strokeRect(x, y, ...sideView);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (data.mpp !== null) scaleBar();
}
function scaleBar() {
  const umPerPx = data.mpp * view.downsample[0] / zoom, wanted = canvas.clientWidth / 5 * umPerPx;
  const power = 10 ** Math.floor(Math.log10(wanted)), length = [5, 2, 1].find((s) => s * power <= wanted) * power;
  const y = canvas.clientHeight - 16, end = 16 + length / umPerPx;
  const text = length >= 1000 ? length / 1000 + " mm" : length + " µm";
  pen.fillStyle = "rgba(255,255,255,.85)"; pen.fillRect(10, y - 24, Math.max(end - 4, pen.measureText(text).width + 12), 32);
  pen.fillStyle = "#111"; pen.fillRect(16, y, length / umPerPx, 3);
  pen.font = "12px system-ui, sans-serif"; pen.fillText(text, 16, y - 6);
}
function fit() {
  zoom = Math.min(canvas.clientWidth / view.width, canvas.clientHeight / view.height) * 0.97;
  moveX = (canvas.clientWidth - view.width * zoom) / 2; moveY = (canvas.clientHeight - view.height * zoom) / 2;
  draw();
}

/* ---- which tile lies where ---- */
const cells = new Map();
const cell = (x, y) => Math.floor(x / side) + "," + Math.floor(y / side);
for (let t = 0; t < count; t++) {
  const key = cell(xy[2 * t], xy[2 * t + 1]);
  if (cells.has(key)) cells.get(key).push(t); else cells.set(key, [t]);
}
function tileAt(event) {
  const box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left - moveX) / zoom * view.downsample[0] + view.origin[0];
  const y = (event.clientY - box.top - moveY) / zoom * view.downsample[1] + view.origin[1];
  for (const dx of [0, side]) for (const dy of [0, side])
    for (const t of cells.get(cell(x - dx, y - dy)) || [])
      if (x >= xy[2 * t] && x < xy[2 * t] + side && y >= xy[2 * t + 1] && y < xy[2 * t + 1] + side) return t;
  return -1;
}
function describe(tile) {
  if (tile < 0) { $("hover").replaceChildren(make("p", "none", "hint")); return; }
  const order = classes.map((_, i) => i).sort((a, b) => prob(tile, b) - prob(tile, a)).slice(0, 12);
  const place = make("p", `x ${xy[2 * tile].toLocaleString("en")}, y ${xy[2 * tile + 1].toLocaleString("en")} px at full size · probability, cosine`, "hint");
  $("hover").replaceChildren(place, ...order.map((c) => {
    const row = make("div", undefined, "chance"), track = make("span", undefined, "track"), bar = make("i");
    bar.style.width = 100 * prob(tile, c) + "%"; bar.style.background = classes[c].colour;
    track.append(bar);
    row.append(make("span", classes[c].name), track, make("span", prob(tile, c).toFixed(3), "number"), make("span", cos(tile, c).toFixed(3), "number"));
    return row;
  }));
}
function mark(tile) { if (tile !== marked) { marked = tile; describe(tile); draw(); } }

/* ---- hands ---- */
let held = null;
canvas.addEventListener("pointerdown", (e) => { held = [e.clientX - moveX, e.clientY - moveY]; canvas.setPointerCapture(e.pointerId); });
canvas.addEventListener("pointerup", () => { held = null; });
canvas.addEventListener("pointermove", (e) => {
  if (held) { moveX = e.clientX - held[0]; moveY = e.clientY - held[1]; draw(); } else mark(tileAt(e));
});
canvas.addEventListener("wheel", (e) => {
  e.preventDefault();
  const box = canvas.getBoundingClientRect(), x = e.clientX - box.left, y = e.clientY - box.top;
  const next = Math.min(Math.max(zoom * Math.exp(-e.deltaY * 0.0015), 0.02), 60);
  moveX = x - (x - moveX) * next / zoom; moveY = y - (y - moveY) * next / zoom; zoom = next;
  draw();
}, { passive: false });
$("fit").addEventListener("click", fit);
$("opacity").addEventListener("input", draw);
$("class").addEventListener("change", () => { shown = $("class").value; paintOverlay(); draw(); });
window.addEventListener("resize", fit);

function choices() {
  const option = (value, text) => { const o = make("option", text); o.value = value; return o; };
  $("class").append(option("best", "most probable class"), ...classes.map((c, i) => option(i, c.name)));
  if (data.label !== null) shown = String(classes.findIndex((c) => c.name === data.label));
  $("class").value = shown;
}
function cut(tile) { /* no picture of the tile itself: its place on the thumbnail */
  const small = document.createElement("canvas"), [x, y] = toView(tile);
  small.width = small.height = 112;
  small.getContext("2d").drawImage(picture, x, y, ...sideView, 0, 0, 112, 112);
  return small;
}
function topTiles() {
  for (const group of data.top) {
    const row = make("div", undefined, "row"), label = make("div", undefined, "label"), pictures = make("div", undefined, "pictures");
    const cls = classes.findIndex((c) => c.name === group.class);
    label.append(named(classes[cls]));
    for (const item of group.tiles) {
      const figure = make("figure");
      let image;
      if (item.jpeg) { image = new Image(); image.src = "data:image/jpeg;base64," + item.jpeg; image.alt = group.class; } else image = cut(item.tile);
      figure.append(image, make("figcaption", cos(item.tile, cls).toFixed(3)));
      figure.addEventListener("click", () => { $("stage").scrollIntoView({ block: "center" }); mark(item.tile); });
      pictures.append(figure);
    }
    row.append(label, pictures);
    $("tiles").append(row);
  }
  if (!data.top.some((group) => group.tiles.length)) $("top").hidden = true;
}
choices();
paintOverlay();
picture.onload = () => { topTiles(); fit(); };
picture.src = "data:image/jpeg;base64," + view.jpeg;
