// The list of features: only the rows in sight exist, so its length costs nothing.

const AHEAD = 6; // rows beyond the edge, so that a quick scroll meets no gap

function columnsOf(book) {
  const named = [
    { key: "id", title: "id", note: "number of the feature", value: (f) => f,
      text: (f) => f.toLocaleString("en") },
    { key: "norm", title: "norm", label: "largest norm", note: "decoder norm over the snapshots; sorted by the largest",
      value: (f) => largestNorm(book, f) },
    { key: "kind", title: "kind", note: "initial, emergent, transient or dead",
      value: (f) => book.kind[f] },
    { key: "emergence", title: "emerges", label: "emerges at step", note: "step at which the norm reaches half its largest",
      value: (f) => (book.emergence[f] < 0 ? NaN : book.steps[book.emergence[f]]),
      text: (f) => stepText(book, book.emergence[f]) },
    { key: "peak", title: "peak", label: "peak at step", note: "step of the largest norm",
      value: (f) => (book.peak[f] < 0 ? NaN : book.steps[book.peak[f]]),
      text: (f) => stepText(book, book.peak[f]) },
    { key: "lifetime", title: "lifetime", note: "share of the snapshots from emergence on with it",
      value: (f) => book.lifetime[f], text: (f) => percent(book.lifetime[f]) },
    { key: "frequency", title: "fires", note: "share of the tokens at which it fires",
      value: (f) => book.frequency[f], text: (f) => percent(book.frequency[f]) },
    { key: "dimensionality", title: "dim.", label: "dimensionality", note: "dimensionality at its peak, 0 to 1",
      value: (f) => book.dimensionality[f], text: (f) => book.dimensionality[f].toFixed(2) },
    { key: "turn", title: "turn", note: "angle of its direction, from emergence to the last snapshot",
      value: (f) => book.turn[f],
      text: (f) => (Number.isNaN(book.turn[f]) ? "–" : `${book.turn[f].toFixed(0)}°`) },
  ];
  const more = book.columns.map(([title, note], place) => ({
    key: `x${place}`,
    title,
    note,
    extra: true,
    value: (f) => book[`column${place}`][f],
  }));
  return [...named, ...more];
}

function percent(share) {
  const value = 100 * share;
  if (value !== 0 && value < 0.01) return "<0.01 %";
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} %`;
}

function largestNorm(book, feature) {
  let largest = 0;
  for (let s = 0; s < book.snapshots; s += 1) {
    largest = Math.max(largest, book.norms[feature * book.snapshots + s]);
  }
  return largest;
}

// All features in the order of a column; what has no number comes last, equals keep their order.
function orderBy(book, column, down) {
  const values = Float64Array.from({ length: book.features }, (_, feature) => column.value(feature));
  const sign = down ? -1 : 1;
  return Uint32Array.from({ length: book.features }, (_, feature) => feature).sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return sign * (x - y) || a - b;
  });
}

function makeTable(book, list, { choose, sort }) {
  const columns = columnsOf(book);
  const head = list.querySelector(".head");
  const body = list.querySelector(".body");
  const pool = [];
  let rows = new Uint32Array(0);
  let selected = null;
  let query = "";
  let height = 0;

  for (const column of columns) {
    const button = make("button", { type: "button", title: column.note }, column.title);
    button.addEventListener("click", () => sort(column.key));
    const cell = make("div", { role: "columnheader", class: cellClass(column) }, button);
    cell.dataset.key = column.key;
    head.append(cell);
  }
  const contextHead = make("div", { role: "columnheader", class: "c-context" });
  head.append(contextHead);
  list.style.setProperty("--extras", book.columns.length);

  function draw() {
    if (!list.clientHeight) return;
    height ||= measure();
    const first = Math.max(0, Math.floor((list.scrollTop - head.offsetHeight) / height) - AHEAD);
    const count = Math.min(rows.length - first, Math.ceil(list.clientHeight / height) + 2 * AHEAD);
    for (let number = 0; number < Math.max(count, 0); number += 1) {
      pool[number] ??= makeRow(columns, body, choose);
      showRow(pool[number], first + number);
    }
    for (let number = Math.max(count, 0); number < pool.length; number += 1) {
      pool[number].node.hidden = true;
    }
  }

  function measure() {
    pool[0] ??= makeRow(columns, body, choose);
    pool[0].node.hidden = false;
    return pool[0].node.offsetHeight;
  }

  function showRow(row, place) {
    const feature = rows[place];
    row.node.hidden = false;
    row.node.style.transform = `translateY(${place * height}px)`;
    row.node.setAttribute("aria-rowindex", place + 2);
    row.node.setAttribute("aria-selected", feature === selected);
    if (row.feature === feature && row.query === query) return;
    row.feature = feature;
    row.query = query;
    row.node.id = `row-${feature}`;
    fillRow(book, columns, row, feature);
    showContext(row, textAround(book, feature, query), () => snippet(book, feature));
  }

  const resized = new ResizeObserver(() => {
    height = 0;
    resize();
    draw();
  });
  resized.observe(list);
  list.addEventListener("scroll", draw, { passive: true });

  function resize() {
    height ||= measure();
    body.style.height = `${rows.length * height}px`;
  }

  return {
    columns,
    show(found, column, down, sought) {
      rows = found;
      query = sought;
      contextHead.textContent = query && !query.startsWith("#") ? "where it is found" : "strongest context";
      for (const cell of head.children) {
        const state = down ? "descending" : "ascending";
        cell.setAttribute("aria-sort", cell.dataset.key === column ? state : "none");
      }
      list.setAttribute("aria-rowcount", rows.length + 1);
      list.querySelector(".none").hidden = rows.length > 0;
      if (list.clientHeight) resize();
      draw();
    },
    select(feature, { reveal = true } = {}) {
      selected = feature;
      const place = rows.indexOf(feature);
      if (reveal && place >= 0 && list.clientHeight) {
        height ||= measure();
        const seen = list.clientHeight - head.offsetHeight;
        const top = place * height;
        const beyond = Math.max(list.scrollTop - top, top + height - list.scrollTop - seen);
        if (beyond > 2 * height) list.scrollTop = top - seen / 2;
        else if (beyond > 0) list.scrollTop += top < list.scrollTop ? -beyond : beyond;
      }
      if (place >= 0) list.setAttribute("aria-activedescendant", `row-${feature}`);
      draw();
    },
    page: () => Math.max(1, Math.floor((list.clientHeight - head.offsetHeight) / (height || 1)) - 1),
    top: () => (list.scrollTop = 0),
  };
}

function cellClass(column) {
  const number = !["norm", "kind"].includes(column.key);
  return `c-${column.extra ? "extra" : column.key}${number ? " number" : ""}`;
}

function makeRow(columns, body, choose) {
  const node = make("div", { role: "row", class: "row" });
  const cells = columns.map((column) => make("div", { role: "gridcell", class: cellClass(column) }));
  const spark = svg("path");
  cells[1].append(svg("svg", { viewBox: "0 0 96 22", preserveAspectRatio: "none" }, spark));
  const dot = make("i", { class: "dot" });
  const kind = document.createTextNode("");
  cells[2].append(dot, kind);
  const context = make("div", { role: "gridcell", class: "c-context" });
  const before = make("span");
  const parts = [before, make("mark"), make("span")];
  const lead = make("span", { class: "lead" }, before);
  context.append(make("span", { class: "line" }, lead, parts[1], parts[2]));
  node.append(...cells, context);
  body.append(node);
  const row = { node, cells, spark, dot, kind, parts, feature: -1, query: "" };
  node.addEventListener("click", () => choose(row.feature));
  return row;
}

function fillRow(book, columns, row, feature) {
  columns.forEach((column, place) => {
    if (column.key === "norm" || column.key === "kind") return;
    const text = column.text ? column.text(feature) : numberText(column.value(feature));
    row.cells[place].textContent = text;
  });
  const kind = book.kind[feature];
  row.spark.setAttribute("d", sparkline(book, feature));
  row.spark.setAttribute("class", `k${kind}`);
  row.dot.className = `dot k${kind}`;
  row.kind.data = book.kinds[kind];
}

// Shows where the query was found, or else the strongest piece of the strongest context.
function showContext(row, found, strongest) {
  const line = (text) => text.replace(/\s+/g, " ");
  const [before, middle, after] = found
    ? [line(found[0].slice(-60)).trimStart(), line(found[1]), line(found[2].slice(0, 120))]
    : strongest();
  row.parts[0].textContent = before;
  row.parts[1].textContent = middle;
  row.parts[1].classList.toggle("sought", Boolean(found));
  row.parts[2].textContent = after;
}

function sparkline(book, feature) {
  const S = book.snapshots;
  const largest = largestNorm(book, feature) || 1;
  let path = "";
  for (let s = 0; s < S; s += 1) {
    const x = S > 1 ? 2 + (92 * s) / (S - 1) : 48;
    const y = 20 - (18 * book.norms[feature * S + s]) / largest;
    path += `${s ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  return path;
}

// The strongest context around its strongest piece, on one line.
function snippet(book, feature) {
  if (!book.contexts) return ["", "", ""];
  const pieces = readContext(book, feature, 0);
  if (!pieces.length) return ["", "", ""];
  let at = 0;
  pieces.forEach((piece, place) => {
    if (piece.activation > pieces[at].activation) at = place;
  });
  const text = (part) => part.map((piece) => piece.text).join("").replace(/\s+/g, " ");
  return [
    text(pieces.slice(Math.max(0, at - 8), at)).trimStart(),
    pieces[at].text.replace(/\s+/g, (space) => (space.includes("\n") ? "⏎" : " ")),
    text(pieces.slice(at + 1, at + 25)),
  ];
}
