// The explorer's pictures. One drawing serves two: in JupyterLab and Voila a kernel sends what is
// drawn (`export default`, for anywidget); on a page without a kernel it was computed beforehand
// (`mountStill`). No library, no request.

const COLOURS = [
  [0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167],
  [213, 94, 0], [86, 180, 233], [240, 228, 66], [153, 153, 153],
];
const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];
const SVG = "http://www.w3.org/2000/svg";

const rgb = (c) => `rgb(${c.map(Math.round).join(",")})`;
const mu = (k, sign = "") => `\u03bc${String.fromCharCode(0x2081 + k)}${sign}`;

function element(tag, parent, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function svg(tag, parent, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[low].map((v, i) => v + (at - low) * (VIRIDIS[low + 1][i] - v));
}

// A picture with a map over it, and a cursor that clicks and arrow keys move.
class Stage {
  constructor(parent, title, onPick) {
    const panel = element("figure", parent, { class: "px-panel" });
    element("figcaption", panel, {}, title);
    this.box = element("div", panel, { class: "px-stage", tabindex: 0, role: "application" });
    this.box.setAttribute("aria-label", `${title}. Arrow keys move the chosen position.`);
    this.image = element("img", this.box, { alt: "" });
    this.canvas = element("canvas", this.box);
    this.over = svg("svg", this.box, { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.panel = panel;
    this.box.addEventListener("click", (event) => {
      const frame = this.box.getBoundingClientRect();
      const x = (event.clientX - frame.left) / frame.width;
      const y = (event.clientY - frame.top) / frame.height;
      if (this.onCorner) this.onCorner(x, y);
      else onPick(Math.floor(y * this.h), Math.floor(x * this.w));
    });
    this.box.addEventListener("keydown", (event) => {
      const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (!by[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      const [row, column] = this.cursor ?? [this.h >> 1, this.w >> 1];
      onPick(row + by[event.key][0], column + by[event.key][1]);
    });
  }

  open(address, h, w) {
    [this.h, this.w] = [h, w];
    [this.canvas.height, this.canvas.width] = [h, w];
    this.image.src = address;
    this.box.style.aspectRatio = `${w} / ${h}`;
    this.over.setAttribute("viewBox", `0 0 ${w} ${h}`);
  }

  // colour(i) gives red, green, blue (0..255) and opacity (0..1) of position i, or null.
  paint(colour) {
    const pixels = new ImageData(this.w, this.h);
    for (let i = 0; i < this.w * this.h; i++) {
      const c = colour(i);
      if (c) pixels.data.set([c[0], c[1], c[2], 255 * c[3]], 4 * i);
    }
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  mark(cursor, outline = []) {
    this.cursor = cursor;
    this.over.replaceChildren();
    const line = { fill: "none", "vector-effect": "non-scaling-stroke" };
    if (cursor) {
      const at = { x: cursor[1], y: cursor[0], width: 1, height: 1 };
      svg("rect", this.over, { ...line, ...at, stroke: "#000", "stroke-width": 5 });
      svg("rect", this.over, { ...line, ...at, stroke: "#fff", "stroke-width": 2.5 });
    }
    const points = outline.map(([x, y]) => `${x * this.w},${y * this.h}`).join(" ");
    for (const [stroke, width] of points ? [["#000", 4], ["#fff", 2]] : []) {
      svg("polygon", this.over, { ...line, points, stroke, "stroke-width": width });
      for (const [x, y] of outline) {
        const end = `M${x * this.w} ${y * this.h}h0`;
        svg("path", this.over, { ...line, d: end, stroke, "stroke-width": 2.5 * width,
          "stroke-linecap": "round" });
      }
    }
  }
}

class View {
  constructor(root, onPick) {
    this.root = root;
    root.classList.add("px-root");
    const grid = element("div", root, { class: "px-grid" });
    this.support = new Stage(grid, "Support: its prototypes", (r, c) => pick("support", r, c));
    this.query = new Stage(grid, "Query: probability of the object", (r, c) => pick("query", r, c));
    const pick = (where, row, column) => {
      const stage = this[where];
      onPick({
        where,
        row: Math.min(Math.max(row, 0), stage.h - 1),
        column: Math.min(Math.max(column, 0), stage.w - 1),
      });
    };
    const scale = element("div", this.query.panel, { class: "px-scale", "aria-hidden": "true" });
    element("span", scale, {}, "0");
    const bar = element("i", scale);
    bar.style.background = `linear-gradient(90deg, ${VIRIDIS.map(rgb).join(",")})`;
    element("span", scale, {}, "1");

    this.bars = this.panel(grid, "The chosen position");
    this.curve = this.panel(grid, "Log-likelihood, nats per sample");
    this.plot = svg("svg", this.curve.panel, { viewBox: "0 0 300 190", role: "img" });
    this.plane = this.panel(grid, "The object's samples");
    this.dots = element("canvas", element("div", this.plane.panel, { class: "px-plane" }),
      { width: 520, height: 440 });
    this.stars = svg("svg", this.dots.parentNode, { viewBox: "0 0 520 440", role: "img" });
  }

  panel(parent, title) {
    const panel = element("figure", parent, { class: "px-panel" });
    return { panel, caption: element("figcaption", panel, {}, title) };
  }

  // All that there is to draw; what has not changed may be the same object as before.
  show({ scene, plane, frame, pixel, outline, drawing }) {
    if (scene !== this.scene) {
      this.support.open(scene.support, scene.h, scene.w);
      this.query.open(scene.query, scene.qh, scene.qw);
      this.order = new Map(Array.from(scene.cells, (cell, n) => [cell, n]));
    }
    Object.assign(this, { scene, planeOf: plane, frame, pixel });
    const { k, resp } = frame;
    this.mixed = Array.from(scene.cells, (_, n) => {
      const c = [0, 0, 0];
      let total = 0;
      for (let j = 0; j < k; j++) {
        const r = resp[n * k + j];
        total += r;
        for (let i = 0; i < 3; i++) c[i] += r * COLOURS[j][i];
      }
      return c.map((v) => v / (total || 1));
    });
    this.support.paint((i) => {
      const n = this.order.get(i);
      return n === undefined ? null : [...this.mixed[n], (0.8 * scene.inside[i]) / 255];
    });
    this.query.paint((i) => [...viridis(frame.probability[i] / 255), 0.75]);
    for (const where of ["support", "query"]) {
      const here = pixel && pixel.where === where ? [pixel.row, pixel.column] : null;
      this[where].mark(here, where === "support" ? outline : []);
    }
    this.support.box.classList.toggle("px-drawing", Boolean(drawing));
    this.drawBars();
    this.drawPlane();
    this.drawCurve();
    this.root.dataset.k = k;
    this.root.dataset.step = frame.step;
    this.root.dataset.drawn = 1 + Number(this.root.dataset.drawn ?? 0);
  }

  drawBars() {
    const { pixel, frame, scene } = this;
    this.bars.rows?.remove();
    const rows = (this.bars.rows = element("div", this.bars.panel, {
      class: "px-bars", "aria-live": "polite",
    }));
    if (!pixel) {
      element("p", rows, {}, "Click on a position of either picture, or move there by arrow keys.");
      return;
    }
    const place = `row ${pixel.row}, column ${pixel.column}`;
    const add = (j, share, label) => {
      const row = element("div", rows, { class: "px-bar" });
      element("span", row, {}, label);
      const fill = element("i", element("b", row));
      fill.style.width = `${100 * share}%`;
      fill.style.background = rgb(COLOURS[j]);
      if (label.endsWith("\u207b")) fill.style.opacity = 0.45;
      element("span", row, {}, share.toFixed(2));
    };
    if (pixel.where === "support") {
      const n = this.order.get(pixel.row * scene.w + pixel.column);
      if (n === undefined) {
        element("p", rows, {}, `Support, ${place}: not on the object. Choose a coloured position.`);
        return;
      }
      element("p", rows, {}, `Support, ${place}: responsibilities (Eq. 4).`);
      const values = Array.from({ length: frame.k }, (_, j) => frame.resp[n * frame.k + j]);
      const total = values.reduce((a, b) => a + b, 0) || 1;
      values.forEach((v, j) => add(j, v / total, mu(j)));
      return;
    }
    const i = pixel.row * scene.qw + pixel.column;
    const share = (frame.probability[i] / 255).toFixed(2);
    element("p", rows, {}, `Query, ${place}: the object has probability ${share} (Eq. 8).`);
    const size = scene.qh * scene.qw;
    for (let j = 0; frame.maps && j < 2 * frame.k; j++) {
      const sign = j < frame.k ? "\u207a" : "\u207b";
      add(j % frame.k, frame.maps[j * size + i] / 255, mu(j % frame.k, sign));
    }
  }

  drawPlane() {
    const { planeOf: plane, frame } = this;
    this.plane.caption.textContent = `The object's samples, ${plane.name}`;
    const [width, height, edge] = [520, 440, 16];
    const points = plane.points;
    const low = [Infinity, Infinity];
    const high = [-Infinity, -Infinity];
    points.forEach((v, i) => {
      low[i % 2] = Math.min(low[i % 2], v);
      high[i % 2] = Math.max(high[i % 2], v);
    });
    const span = Math.max(high[0] - low[0], high[1] - low[1]) || 1;
    const zoom = Math.min(width, height) - 2 * edge;
    const at = (x, y) => [
      width / 2 + ((x - (low[0] + high[0]) / 2) / span) * zoom,
      height / 2 - ((y - (low[1] + high[1]) / 2) / span) * zoom,
    ];
    const pen = this.dots.getContext("2d");
    pen.clearRect(0, 0, width, height);
    for (let n = 0; n < points.length / 2; n++) {
      pen.fillStyle = rgb(this.mixed[n]);
      pen.beginPath();
      pen.arc(...at(points[2 * n], points[2 * n + 1]), 5, 0, 7);
      pen.fill();
    }
    this.stars.replaceChildren();
    for (let j = 0; j < frame.k; j++) {
      const [x, y] = at(frame.prototypes[2 * j], frame.prototypes[2 * j + 1]);
      const inside = x >= 0 && x <= width && y >= 0 && y <= height;
      const [cx, cy] = [Math.min(Math.max(x, edge), width - edge),
        Math.min(Math.max(y, edge), height - edge)];
      const star = Array.from({ length: 10 }, (_, i) => {
        const [r, a] = [i % 2 ? 6 : 15, (Math.PI * (i - 2.5)) / 5];
        return `${cx + r * Math.cos(a)},${cy + r * Math.sin(a)}`;
      }).join(" ");
      svg("polygon", this.stars, { points: star, fill: inside ? rgb(COLOURS[j]) : "none",
        class: "px-star" });
      svg("text", this.stars, { x: cx + 14, y: cy - 8 }, mu(j));
    }
    this.stars.setAttribute("aria-label",
      `${points.length / 2} samples and ${frame.k} prototypes in the plane, ${plane.name}`);
  }

  drawCurve() {
    const { frame } = this;
    const values = Array.from(frame.likelihood);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const last = values.length - 1;
    const at = (t, v) => [
      54 + (236 * t) / Math.max(last, 1),
      152 - (132 * (v - low)) / (high - low || 1),
    ];
    this.plot.replaceChildren();
    svg("path", this.plot, { d: "M54 14V158H292", class: "px-axis" });
    svg("text", this.plot, { x: 48, y: 24, "text-anchor": "end" }, high.toFixed(1));
    svg("text", this.plot, { x: 48, y: 156, "text-anchor": "end" }, low.toFixed(1));
    svg("text", this.plot, { x: 54, y: 174, "text-anchor": "middle" }, "0");
    svg("text", this.plot, { x: 290, y: 174, "text-anchor": "end" }, String(last));
    svg("text", this.plot, { x: 172, y: 174, "text-anchor": "middle" }, "EM step");
    const points = values.map((v, t) => at(t, v).join(",")).join(" ");
    svg("polyline", this.plot, { points, class: "px-curve" });
    values.forEach((v, t) => {
      const [cx, cy] = at(t, v);
      svg("circle", this.plot, { cx, cy, r: t === frame.step ? 6 : 2.5,
        class: t === frame.step ? "px-now" : "px-point" });
    });
    this.plot.setAttribute("aria-label",
      `Log-likelihood over ${last} EM steps; ${values[frame.step].toFixed(2)} at step ${frame.step}`);
  }
}

const bytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
// Typed arrays want an aligned start, so the bytes are copied.
const array = (view, Type) => new Type(bytes(view).slice().buffer);
const address = (view) => URL.createObjectURL(new Blob([bytes(view)], { type: "image/jpeg" }));

// With a kernel: everything comes from the model, the chosen position and outline go back.
function render({ model, el }) {
  let from = {};
  const shown = {};
  const send = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const view = new View(element("div", el), (pixel) => send("pixel", pixel));
  const fresh = (name) => from[name] !== model.get(name) && ((from[name] = model.get(name)), true);
  const draw = () => {
    if (!model.get("scene").h || !model.get("frame").k) return;
    if (fresh("scene")) {
      if (shown.scene) [shown.scene.support, shown.scene.query].forEach(URL.revokeObjectURL);
      const s = model.get("scene");
      shown.scene = { ...s, support: address(s.support), query: address(s.query),
        inside: bytes(s.inside), cells: array(s.cells, Uint16Array) };
    }
    if (fresh("plane")) {
      const p = model.get("plane");
      shown.plane = { name: p.name, points: array(p.points, Float32Array) };
    }
    if (fresh("frame")) {
      const f = model.get("frame");
      shown.frame = { ...f, resp: bytes(f.resp), probability: bytes(f.probability),
        maps: bytes(f.maps), prototypes: array(f.prototypes, Float32Array) };
    }
    const pixel = model.get("pixel");
    view.support.onCorner = model.get("drawing")
      ? (x, y) => send("outline", [...model.get("outline"), [x, y]]) : null;
    view.show({ ...shown, pixel: pixel.where ? pixel : null, outline: model.get("outline"),
      drawing: model.get("drawing") });
  };
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}

// Without a kernel: all combinations were computed beforehand.
async function mountStill(root, data) {
  const decoded = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const inflated = new Blob([decoded(data.frames)]).stream()
    .pipeThrough(new DecompressionStream("deflate"));
  const frames = new Uint8Array(await new Response(inflated).arrayBuffer());
  const scene = { ...data.scene, inside: decoded(data.scene.inside),
    cells: new Uint16Array(decoded(data.scene.cells).buffer) };
  const plane = { name: data.plane.name,
    points: new Float32Array(decoded(data.plane.points).buffer) };
  const [n, size, count] = [scene.cells.length, scene.qh * scene.qw, data.steps + 1];
  // Offsets in the order in which Python wrote: for each K and kappa, likelihood, then steps.
  const offsets = {};
  let offset = 0;
  for (const k of data.ks) {
    for (const kappa of data.kappas) {
      offsets[`${k} ${kappa}`] = offset;
      offset += 4 * count + count * (8 * k + n * k + size);
    }
  }
  const frameAt = (k, kappa, step) => {
    const start = offsets[`${k} ${kappa}`];
    const at = start + 4 * count + step * (8 * k + n * k + size);
    const top = (part) => part.map((v) => (v * 255) / data.top);
    return {
      k, step,
      likelihood: new Float32Array(frames.slice(start, start + 4 * count).buffer),
      prototypes: new Float32Array(frames.slice(at, at + 8 * k).buffer),
      resp: frames.subarray(at + 8 * k, at + 8 * k + n * k),
      probability: top(frames.subarray(at + 8 * k + n * k, at + 8 * k + n * k + size)),
    };
  };

  root.replaceChildren();
  const form = element("div", root, { class: "px-form" });
  const slider = (name, choices, value) => {
    const label = element("label", form);
    element("span", label, {}, name);
    const output = element("output", label);
    const input = element("input", label, { type: "range", min: 0, max: choices.length - 1,
      "aria-label": name });
    input.value = choices.indexOf(value);
    input.addEventListener("input", () => draw());
    return () => {
      const chosen = choices[input.value];
      input.setAttribute("aria-valuetext", (output.textContent = String(chosen)));
      return chosen;
    };
  };
  const steps = Array.from({ length: count }, (_, t) => t);
  const read = [slider("Prototypes K", data.ks, data.start.k),
    slider("\u03ba", data.kappas, data.start.kappa), slider("EM step", steps, data.start.step)];
  const stepInput = form.querySelectorAll("input")[2];
  const play = element("button", form, { type: "button" }, "\u25b6 Play EM");
  let pixel = data.start.pixel;
  const view = new View(element("div", root), (picked) => {
    pixel = picked;
    draw();
  });
  const draw = () => {
    const [k, kappa, step] = read.map((one) => one());
    view.show({ scene, plane, frame: frameAt(k, kappa, step), pixel, outline: [] });
    view.root.dataset.kappa = kappa;
  };
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "\u25b6 Play EM";
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(stepInput.value) === data.steps) stepInput.value = 0;
    play.textContent = "\u275a\u275a Pause";
    draw();
    timer = setInterval(() => {
      stepInput.value = Number(stepInput.value) + 1;
      draw();
      if (Number(stepInput.value) === data.steps) stop();
    }, 500);
  });
  draw();
}

export default { render };
