// Small drawings: elements, axes over the snapshots, a norm trajectory, a matrix of cosines.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  return fill(node, attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return fill(node, attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Where the cell of each snapshot begins and ends, in 0 to 1: equal cells, or borders half-way
// between the training steps.
function cellEdges(steps, linear) {
  const count = steps.length;
  if (!linear || count < 2) return Array.from({ length: count + 1 }, (_, place) => place / count);
  const span = steps[count - 1] - steps[0];
  const middle = steps.slice(1).map((step, place) => (step + steps[place]) / 2);
  return [0, ...middle.map((step) => (step - steps[0]) / span), 1];
}

// Snapshots whose labels have room: the last one, and from the first on those far enough apart.
function labelled(steps, centres, room) {
  const last = steps.length - 1;
  const shown = [];
  let free = -Infinity;
  centres.forEach((x, place) => {
    const fits = x - free >= room && (place === last || centres[last] - x >= room);
    if (!fits && place !== last) return;
    shown.push(place);
    free = x;
  });
  return shown;
}

function shortStep(step) {
  if (step >= 1e6) return `${step / 1e6}M`;
  return step >= 10000 ? `${Number((step / 1000).toFixed(1))}k` : step.toLocaleString("en");
}

function stepAxis(steps, edges, { left, width, y, room = 34 }) {
  const centres = steps.map((_, place) => left + ((edges[place] + edges[place + 1]) / 2) * width);
  const group = svg("g");
  for (const place of labelled(steps, centres, room)) {
    const x = centres[place].toFixed(1);
    group.append(
      svg("path", { class: "tick", d: `M${x} ${y}v5` }),
      svg("text", { class: "x", x, y: y + 16 }, shortStep(steps[place])),
    );
  }
  return group;
}

// Roughly `count` round levels from 0 to at least `high`.
function levels(high, count = 4) {
  if (!(high > 0)) return [0, 1];
  const rough = high / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  return Array.from({ length: Math.ceil(high / unit - 1e-9) + 1 }, (_, place) => place * unit);
}

function cosineColour(value) {
  const colour = value < 0 ? "var(--c1)" : "var(--c0)";
  return `color-mix(in oklab, ${colour} ${(Math.abs(value) * 100).toFixed(0)}%, var(--panel))`;
}

// A symmetric matrix over the snapshots as coloured cells; `tell(i, j)` on the pointer's way.
function heatMap(steps, value, { linear, size = 300, left = 46, tell, split = null }) {
  const edges = cellEdges(steps, linear);
  const at = (place) => edges[place] * size;
  const bottom = size + 24;
  const drawing = svg("svg", {
    viewBox: `0 0 ${left + size + 14} ${bottom}`,
    role: "img",
    "aria-label": "cosine between snapshots",
  });
  const cells = svg("g", { transform: `translate(${left} 4)`, class: "cells" });
  steps.forEach((_, i) => {
    steps.forEach((__, j) => {
      const cell = svg("rect", {
        x: at(j).toFixed(2),
        y: at(i).toFixed(2),
        width: (at(j + 1) - at(j) + 0.15).toFixed(2),
        height: (at(i + 1) - at(i) + 0.15).toFixed(2),
      });
      cell.style.fill = cosineColour(value(i, j));
      cell.addEventListener("pointerenter", () => tell(i, j));
      cells.append(cell);
    });
  });
  cells.addEventListener("pointerleave", () => tell(-1, -1));
  if (split !== null) {
    const x = at(split).toFixed(2);
    cells.append(svg("path", { class: "split", d: `M${x} 0V${size}M0 ${x}H${size}` }));
  }
  const side = svg("g");
  const centres = steps.map((_, place) => 4 + (at(place) + at(place + 1)) / 2);
  for (const place of labelled(steps, centres, 15)) {
    const y = centres[place].toFixed(1);
    side.append(svg("text", { class: "y", x: left - 6, y }, shortStep(steps[place])));
  }
  drawing.append(cells, side, stepAxis(steps, edges, { left, width: size, y: size + 4 }));
  return drawing;
}

// The norm of a feature at every snapshot, with the level at which it counts as present.
function trajectory(book, feature, { linear, chosen, choose }) {
  const [left, right, top, floor, width] = [40, 10, 8, 150, 420];
  const S = book.snapshots;
  const norms = book.norms.subarray(feature * S, feature * S + S);
  const ticks = levels(Math.max(...norms));
  const high = ticks[ticks.length - 1];
  const edges = cellEdges(book.steps, false);
  const span = book.steps[S - 1] - book.steps[0] || 1;
  const place = (s) => (linear ? (book.steps[s] - book.steps[0]) / span : (s + 0.5) / S);
  const x = (s) => left + place(s) * (width - left - right);
  const y = (value) => floor - (value / high) * (floor - top);
  const drawing = svg("svg", {
    viewBox: `0 0 ${width} ${floor + 24}`,
    role: "img",
    "aria-label": "decoder norm over the training steps",
  });
  for (const tick of ticks) {
    drawing.append(
      svg("path", { class: "grid", d: `M${left} ${y(tick)}H${width - right}` }),
      svg("text", { class: "y", x: left - 6, y: y(tick) }, numberText(tick)),
    );
  }
  const half = y(Math.max(...norms) / 2);
  drawing.append(
    svg("path", { class: "level", d: `M${left} ${half}H${width - right}`, "stroke-dasharray": "3 3" }),
  );
  const points = Array.from(norms, (value, s) => [x(s), y(value)]);
  const line = points.map((point) => point.map((each) => each.toFixed(1)).join(" ")).join("L");
  const area = `M${x(0)} ${floor}L${line}L${x(S - 1)} ${floor}Z`;
  drawing.append(
    svg("path", { class: `area k${book.kind[feature]}`, d: area }),
    svg("path", { class: `line k${book.kind[feature]}`, d: `M${line}` }),
    svg("path", { class: "chosen", d: `M${x(chosen).toFixed(1)} ${top}V${floor}` }),
  );
  points.forEach(([cx, cy], s) => {
    const dot = svg("circle", { class: `k${book.kind[feature]}`, cx, cy, r: s === chosen ? 4 : 2.4 });
    const hit = svg("rect", { class: "hit", x: cx - 8, y: top, width: 16, height: floor - top });
    hit.dataset.tip = `step ${stepText(book, s)}: norm ${numberText(norms[s])}`;
    hit.addEventListener("click", () => choose(s));
    drawing.append(dot, hit);
  });
  const axis = linear
    ? linearTicks(book.steps, x, floor)
    : stepAxis(book.steps, edges, { left, width: width - left - right, y: floor });
  drawing.append(axis);
  return drawing;
}

function linearTicks(steps, x, floor) {
  const group = svg("g");
  const shown = labelled(steps, steps.map((_, s) => x(s)), 34);
  for (const s of shown) {
    group.append(
      svg("path", { class: "tick", d: `M${x(s).toFixed(1)} ${floor}v5` }),
      svg("text", { class: "x", x: x(s).toFixed(1), y: floor + 16 }, shortStep(steps[s])),
    );
  }
  return group;
}
