// The overview: how many features of which kind, when they emerge, how they turn.

function drawOverview(book, page) {
  const linear = document.querySelector('input[name="steps"]:checked').value === "linear";
  drawCounts(book, page);
  drawHistogram(book, linear, page);
  drawRotation(book, linear);
}

function kindCounts(book) {
  const counts = book.kinds.map(() => 0);
  for (const kind of book.kind) counts[kind] += 1;
  return counts;
}

function drawCounts(book, page) {
  const notes = {
    initial: "present at the first snapshot",
    emergent: "come later and stay",
    transient: "come later and go",
    dead: "hardly ever fire",
  };
  const tiles = kindCounts(book).map((count, kind) => {
    const share = ((100 * count) / book.features).toFixed(count === book.features ? 0 : 1);
    const name = book.kinds[kind];
    const button = make("button", { type: "button" }, count.toLocaleString("en"));
    button.addEventListener("click", () => page.go({ view: "features", kinds: [kind], emergence: null }));
    return make(
      "div",
      {},
      make("dt", {}, make("i", { class: `dot k${kind}` }), name),
      make("dd", {}, button, make("small", {}, `${share} %, ${notes[name]}`)),
    );
  });
  if (book.turning) {
    const [at, low, high] = book.turning.map((step) => step.toLocaleString("en"));
    const interval = low === high ? "in every resample" : `95 % interval ${low} to ${high}`;
    tiles.push(
      make(
        "div",
        {},
        make("dt", {}, "directions turn before"),
        make("dd", {}, `step ${at}`, make("small", {}, interval)),
      ),
    );
  }
  document.getElementById("counts").replaceChildren(...tiles);
}

// Rows: snapshots; columns: kinds.
function emergenceTable(book) {
  const table = book.steps.map(() => book.kinds.map(() => 0));
  for (let feature = 0; feature < book.features; feature += 1) {
    if (book.emergence[feature] >= 0) table[book.emergence[feature]][book.kind[feature]] += 1;
  }
  return table;
}

function drawHistogram(book, linear, page) {
  const figure = document.getElementById("histogram");
  const output = figure.querySelector("output");
  const [left, right, top, floor, width] = [46, 8, 8, 262, 400];
  const table = emergenceTable(book);
  const totals = table.map((row) => row.reduce((a, b) => a + b, 0));
  const ticks = levels(Math.max(...totals));
  const edges = cellEdges(book.steps, linear);
  const x = (edge) => left + edges[edge] * (width - left - right);
  const y = (count) => floor - (count / ticks[ticks.length - 1]) * (floor - top);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${floor + 42}` });
  for (const tick of ticks) {
    drawing.append(
      svg("path", { class: "grid", d: `M${left} ${y(tick)}H${width - right}` }),
      svg("text", { class: "y", x: left - 6, y: y(tick) }, tick.toLocaleString("en")),
    );
  }
  table.forEach((row, snapshot) => {
    const gap = Math.min(1, (x(snapshot + 1) - x(snapshot)) / 6);
    let below = 0;
    const bar = svg("g", { class: "bar", tabindex: 0, role: "button" });
    row.forEach((count, kind) => {
      if (!count) return;
      bar.append(
        svg("rect", {
          class: `k${kind}`,
          x: x(snapshot) + gap,
          width: x(snapshot + 1) - x(snapshot) - 2 * gap,
          y: y(below + count),
          height: y(below) - y(below + count),
        }),
      );
      below += count;
    });
    const text = book.kinds
      .map((name, kind) => (row[kind] ? `${row[kind].toLocaleString("en")} ${name}` : ""))
      .filter(Boolean)
      .join(", ");
    const said = `step ${stepText(book, snapshot)}: ${text || "none"}`;
    bar.setAttribute("aria-label", said);
    bar.append(
      svg("rect", {
        class: "hit",
        x: x(snapshot),
        width: x(snapshot + 1) - x(snapshot),
        y: top,
        height: floor - top,
      }),
    );
    const open = () => page.go({ view: "features", kinds: [], emergence: snapshot });
    bar.addEventListener("pointerenter", () => (output.textContent = said));
    bar.addEventListener("focus", () => (output.textContent = said));
    bar.addEventListener("pointerleave", () => (output.textContent = ""));
    bar.addEventListener("click", open);
    bar.addEventListener("keydown", (event) => event.key === "Enter" && open());
    drawing.append(bar);
  });
  drawing.append(
    svg("path", { class: "axis", d: `M${left} ${floor}H${width - right}` }),
    stepAxis(book.steps, edges, { left, width: width - left - right, y: floor }),
    svg("text", { class: "x", x: (left + width) / 2, y: floor + 34 }, "training step"),
  );
  figure.querySelector(".drawing").replaceChildren(drawing);
  figure.querySelector(".legend").replaceChildren(
    ...book.kinds.slice(0, 3).map((name, kind) =>
      make("li", {}, make("i", { class: `dot k${kind}` }), name),
    ),
  );
}

function drawRotation(book, linear) {
  const figure = document.getElementById("rotation");
  const output = figure.querySelector("output");
  const S = book.snapshots;
  const value = (i, j) => book.rotation[i * S + j];
  const tell = (i, j) => {
    output.textContent =
      i < 0
        ? ""
        : `steps ${stepText(book, i)} and ${stepText(book, j)}: cosine ${numberText(value(i, j))}`;
  };
  const split = book.turning ? book.steps.indexOf(book.turning[0]) : null;
  figure.querySelector(".drawing").replaceChildren(heatMap(book.steps, value, { linear, tell, split }));
  const scale = make("span", { class: "scale" });
  figure.querySelector(".legend").replaceChildren(
    make("li", {}, "−1", scale, "1"),
    ...(split === null ? [] : [make("li", {}, make("i", { class: "cross" }), "turning point")]),
  );
}
