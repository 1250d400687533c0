// The pane of one feature: its norm over the steps, how it turned, and where it fires.

function drawFeature(book, pane, feature, view, page) {
  const redraw = (changes) => drawFeature(book, pane, feature, { ...view, ...changes }, page);
  const snapshot = view.snapshot ?? Math.max(book.peak[feature], 0);
  const shown = { ...view, snapshot };
  pane.replaceChildren(
    paneHead(book, feature, page),
    paneFacts(book, feature, page.columns),
    paneNorm(book, feature, shown, redraw),
    paneTurn(book, feature, shown),
    paneNeighbours(book, feature, page),
    paneContexts(book, feature, shown, { redraw, query: page.query() }),
  );
}

function paneHead(book, feature, page) {
  const kind = book.kind[feature];
  const close = make("button", { type: "button", class: "close", "aria-label": "Close (Esc)" }, "×");
  close.addEventListener("click", () => page.go({ selected: null }));
  const step = (name, by, text) => {
    const button = make("button", { type: "button", "aria-label": name, title: name }, text);
    button.addEventListener("click", () => page.move(by));
    return button;
  };
  return make(
    "div",
    { class: "pane-head" },
    make("h2", {}, `Feature ${feature.toLocaleString("en")}`),
    make("span", { class: "chip" }, make("i", { class: `dot k${kind}` }), book.kinds[kind]),
    make(
      "span",
      { class: "steps" },
      step("Previous (k)", -1, "↑"),
      step("Next (j)", 1, "↓"),
      close,
    ),
  );
}

function paneFacts(book, feature, columns) {
  const facts = columns.filter((column) => !["id", "kind"].includes(column.key));
  return make(
    "dl",
    { class: "facts" },
    ...facts.map((column) => {
      const text = column.text ? column.text(feature) : numberText(column.value(feature));
      const label = make("dt", {}, column.label ?? column.title);
      return make("div", { title: column.note }, label, make("dd", {}, text));
    }),
  );
}

function paneNorm(book, feature, view, redraw) {
  const axis = make(
    "button",
    { type: "button", class: "axis-button", "aria-pressed": Boolean(view.linear) },
    view.linear ? "space snapshots evenly" : "linear steps",
  );
  axis.addEventListener("click", () => redraw({ linear: !view.linear }));
  return make(
    "figure",
    { class: "chart" },
    make("figcaption", {}, "Decoder norm", axis),
    trajectory(book, feature, {
      linear: view.linear,
      chosen: view.snapshot,
      choose: (snapshot) => redraw({ snapshot }),
    }),
  );
}

function paneTurn(book, feature, view) {
  const output = make("output", { "aria-live": "polite" });
  const value = (i, j) => cosine(book, feature, i, j);
  const tell = (i, j) => {
    output.textContent =
      i < 0
        ? ""
        : `steps ${stepText(book, i)} and ${stepText(book, j)}: ${numberText(value(i, j))}`;
  };
  const map = heatMap(book.steps, value, { linear: view.linear, size: 220, tell });
  return make(
    "details",
    { class: "turned" },
    make("summary", {}, "How its direction turned"),
    map,
    output,
  );
}

function paneNeighbours(book, feature, page) {
  const count = book.neighbours.length / book.features;
  const links = [];
  for (let place = 0; place < count; place += 1) {
    const other = book.neighbours[feature * count + place];
    const link = make("a", { href: page.address(other) }, `${other}`);
    const like = make("small", {}, book.similarity[feature * count + place].toFixed(2));
    links.push(make("li", {}, link, like));
  }
  const list = make("ul", { class: "near" }, make("li", {}, "Most like it"), ...links);
  list.hidden = count === 0;
  return list;
}

function paneContexts(book, feature, view, { redraw, query }) {
  const { snapshot } = view;
  const slider = make("input", {
    type: "range",
    min: 0,
    max: book.snapshots - 1,
    value: snapshot,
    "aria-label": "Snapshot",
    "aria-valuetext": `step ${stepText(book, snapshot)}`,
  });
  const label = make("output", {}, `step ${stepText(book, snapshot)}`);
  const largest = strongest(book, feature);
  const list = make("ol", { class: "contexts" });
  const show = (chosen) => {
    label.textContent = `step ${stepText(book, chosen)}`;
    slider.setAttribute("aria-valuetext", label.textContent);
    const open = shadeContexts(book, feature, chosen, largest, list);
    list.classList.toggle("shut", !open);
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  slider.addEventListener("change", () => {
    redraw({ snapshot: Number(slider.value) });
    document.querySelector("#pane input[type=range]").focus();
  });
  for (let number = 0; number < book.contexts; number += 1) {
    const pieces = readContext(book, feature, number);
    if (!pieces.length) break;
    list.append(contextItem(pieces, query));
  }
  show(snapshot);
  const shut = make("p", { class: "shut-note" }, "At this snapshot its gate stays shut here.");
  return make(
    "div",
    { class: "where" },
    make("h3", {}, "Where it fires"),
    make("label", { class: "at" }, "at", slider, label),
    shut,
    list,
  );
}

// A context, a span for each piece; pieces that hold a part of the query are marked.
function contextItem(pieces, query) {
  const item = make("li");
  const whole = folded(pieces.map((piece) => piece.text).join(""));
  const wanted = folded(query);
  let start = 0;
  for (const { text, activation } of pieces) {
    const token = make("span", {}, text.replace(/\n/g, "⏎"));
    token.dataset.activation = activation;
    const at = wanted ? whole.indexOf(wanted, Math.max(0, start - wanted.length + 1)) : -1;
    token.classList.toggle("sought", at >= 0 && at < start + text.length);
    start += text.length;
    item.append(token);
  }
  return item;
}

// Shades every token by what the feature does there at a snapshot; tells whether it fires at all.
function shadeContexts(book, feature, snapshot, largest, list) {
  let open = false;
  for (const token of list.querySelectorAll("span")) {
    const strength = gated(book, feature, snapshot, Number(token.dataset.activation));
    token.classList.toggle("on", strength > 0);
    token.dataset.tip = strength > 0 ? `activation ${numberText(strength)}` : "silent";
    token.style.setProperty("--heat", strength > 0 ? (strength / largest).toFixed(3) : "0");
    open ||= strength > 0;
  }
  return open;
}

// The largest activation over all snapshots, so that shades can be compared between them.
function strongest(book, feature) {
  return largestNorm(book, feature) * book.scale[feature] || 1;
}
