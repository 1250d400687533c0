// What is shown is one state; it stands in the address after #, so that every view is a link.

const VIEWS = ["overview", "features", "tasks", "about"];
const START = {
  view: "overview", query: "", kinds: [], emergence: null, sort: "frequency", down: true,
  selected: null,
}; // prettier-ignore

function writeAddress(book, state) {
  const words = new URLSearchParams();
  if (state.selected !== null) words.set("id", state.selected);
  if (state.query) words.set("q", state.query);
  if (state.kinds.length) words.set("kind", state.kinds.map((kind) => book.kinds[kind]).join(","));
  if (state.emergence !== null) words.set("step", book.steps[state.emergence]);
  if (state.sort !== START.sort || state.down !== START.down) {
    words.set("sort", `${state.down ? "-" : ""}${state.sort}`);
  }
  const text = words.toString();
  return `#${state.view}${text ? `?${text}` : ""}`;
}

// What an address does not say, or says wrongly, is as at the start.
function readAddress(book, columns, address) {
  const [view, text] = address.replace(/^#/, "").split("?");
  const words = new URLSearchParams(text ?? "");
  const id = /^\d+$/.test(words.get("id") ?? "") ? Number(words.get("id")) : book.features;
  const emergence = words.has("step") ? book.steps.indexOf(Number(words.get("step"))) : -1;
  const kinds = (words.get("kind") ?? "").split(",").map((name) => book.kinds.indexOf(name));
  const sort = words.get("sort")?.replace(/^-/, "");
  const known = columns.some((column) => column.key === sort);
  return {
    view: VIEWS.includes(view) ? view : START.view,
    query: words.get("q") ?? "",
    kinds: kinds.filter((kind) => kind >= 0),
    emergence: emergence >= 0 ? emergence : null,
    sort: known ? sort : START.sort,
    down: known ? words.get("sort").startsWith("-") : START.down,
    selected: id < book.features ? id : null,
  };
}

function startExplorer(book) {
  const find = (selector) => document.querySelector(selector);
  const list = find(".list");
  const pane = find("#pane");
  const search = makeSearch(book);
  let state = { ...START };
  let order = { key: null, down: null, features: null };
  let rows = new Uint32Array(0);
  let drawn = { overview: false, feature: null, query: "", list: "" };
  let paneView = { linear: false };

  const table = makeTable(book, list, {
    choose: (feature) => go({ selected: feature }),
    sort: (key) => go({ sort: key, down: state.sort === key ? !state.down : key !== "id" }),
  });
  const page = {
    go,
    move,
    columns: table.columns,
    query: () => state.query,
    address: (feature) => writeAddress(book, { ...state, view: "features", selected: feature }),
  };
  const present = VIEWS.filter((view) => view === "overview" || view === "features" ||
    find(`#${view}`).childElementCount > 0);

  function go(changes, { push = true } = {}) {
    state = { ...state, ...changes };
    const address = writeAddress(book, state);
    if (address !== location.hash) {
      history[push ? "pushState" : "replaceState"](null, "", address);
    }
    show();
  }

  function show() {
    for (const view of VIEWS) {
      find(`#${view}`).hidden = view !== state.view;
      find(`#tab-${view}`).hidden = !present.includes(view);
      find(`#tab-${view}`).setAttribute("aria-selected", view === state.view);
      find(`#tab-${view}`).tabIndex = view === state.view ? 0 : -1;
    }
    document.body.classList.toggle("listing", state.view === "features");
    if (state.view === "overview" && !drawn.overview) {
      drawOverview(book, page);
      drawn.overview = true;
    }
    if (state.view === "features") showFeatures();
  }

  function showFeatures() {
    if (find("#query").value !== state.query) find("#query").value = state.query;
    for (const box of document.querySelectorAll(".kinds input")) {
      box.checked = state.kinds.includes(Number(box.value));
    }
    find("#emergence").value = state.emergence ?? "";
    const key = JSON.stringify([state.query, state.kinds, state.emergence, state.sort, state.down]);
    if (key !== drawn.list) {
      rows = findRows();
      table.show(rows, state.sort, state.down, state.query);
      if (drawn.list) table.top();
      drawn.list = key;
    } else table.show(rows, state.sort, state.down, state.query);
    const total = book.features.toLocaleString("en");
    find("#count").textContent =
      rows.length === book.features ? `${total} features` : `${rows.length.toLocaleString("en")} of ${total}`;
    find("#clear").hidden = !(state.query || state.kinds.length || state.emergence !== null);
    showPane();
    table.select(state.selected);
  }

  function showPane() {
    pane.hidden = state.selected === null;
    find("#features .split").classList.toggle("open", !pane.hidden);
    const same = drawn.feature === state.selected && drawn.query === state.query;
    drawn.feature = state.selected;
    drawn.query = state.query;
    if (pane.hidden || same) return;
    paneView = { linear: paneView.linear };
    drawFeature(book, pane, state.selected, paneView, page);
    pane.scrollTop = 0;
  }

  function findRows() {
    if (order.key !== state.sort || order.down !== state.down) {
      const column = table.columns.find((each) => each.key === state.sort);
      order = { key: state.sort, down: state.down, features: orderBy(book, column, state.down) };
    }
    const hits = search(state.query);
    const wanted = book.kinds.map((_, kind) => !state.kinds.length || state.kinds.includes(kind));
    return order.features.filter(
      (feature) =>
        hits[feature] &&
        wanted[book.kind[feature]] &&
        (state.emergence === null || book.emergence[feature] === state.emergence),
    );
  }

  function move(by) {
    if (!rows.length) return;
    const place = rows.indexOf(state.selected);
    const next = place < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, place + by));
    go({ selected: rows[next] }, { push: false });
  }

  function clear() {
    go({ query: "", kinds: [], emergence: null });
  }

  const keys = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    j: () => move(1),
    k: () => move(-1),
    PageDown: () => move(table.page()),
    PageUp: () => move(-table.page()),
    Home: () => move(-rows.length),
    End: () => move(rows.length),
    Enter: () => {
      if (state.selected === null) move(0);
      pane.querySelector(".close")?.focus({ preventScroll: true });
    },
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    const typing = target.matches("input[type=search], select");
    if (event.key === "Escape") return escape(target);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      go({ view: "features" });
      return find("#query").select();
    }
    if (typing && ["ArrowDown", "Enter"].includes(event.key) && target.id === "query") {
      event.preventDefault();
      list.focus({ preventScroll: true });
      return move(state.selected === null || !rows.includes(state.selected) ? 0 : 1);
    }
    if (typing || target.matches("input")) return;
    const view = present[Number(event.key) - 1];
    if (view) return go({ view });
    if (target.matches("[role=tab]") && /^Arrow(Left|Right)$/.test(event.key)) return turnTab(event.key);
    const act = state.view === "features" && keys[event.key];
    if (!act || (event.key === "Enter" && target.matches("button, a, summary"))) return;
    event.preventDefault();
    act();
  });

  function escape(target) {
    if (target.id === "query" && state.query) return go({ query: "" }, { push: false });
    if (target.id === "query") return list.focus({ preventScroll: true });
    if (state.selected !== null && state.view === "features") {
      go({ selected: null });
      list.focus({ preventScroll: true });
    } else if (state.view === "features") clear();
  }

  function turnTab(key) {
    const place = present.indexOf(state.view) + (key === "ArrowRight" ? 1 : -1);
    go({ view: present[(place + present.length) % present.length] });
    find(`#tab-${state.view}`).focus();
  }

  for (const view of VIEWS) find(`#tab-${view}`).addEventListener("click", () => go({ view }));
  find("#query").addEventListener("input", (event) => {
    go({ query: event.target.value }, { push: false });
  });
  find("#clear").addEventListener("click", clear);
  find(".none button").addEventListener("click", clear);
  find("#emergence").addEventListener("change", ({ target }) => {
    go({ emergence: target.value === "" ? null : Number(target.value) });
  });
  for (const radio of document.querySelectorAll('input[name="steps"]')) {
    radio.addEventListener("change", () => drawOverview(book, page));
  }
  fillToolbar(book, (kinds) => go({ kinds }));
  followPointer();
  const follow = () => {
    state = readAddress(book, table.columns, location.hash);
    show();
  };
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);
  follow();
}

function fillToolbar(book, choose) {
  const counts = kindCounts(book);
  const group = document.querySelector(".kinds");
  book.kinds.forEach((name, kind) => {
    const box = make("input", { type: "checkbox", value: kind });
    box.addEventListener("change", () => {
      const chosen = group.querySelectorAll("input:checked");
      choose(Array.from(chosen, (each) => Number(each.value)));
    });
    const count = make("small", {}, counts[kind].toLocaleString("en"));
    group.append(make("label", {}, box, make("i", { class: `dot k${kind}` }), name, count));
  });
  document.getElementById("emergence").append(
    make("option", { value: "" }, "emerge at any step"),
    ...book.steps.map((step, place) =>
      make("option", { value: place }, `emerge at step ${step.toLocaleString("en")}`),
    ),
  );
}

// One tooltip for everything that has something to say.
function followPointer() {
  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", (event) => {
    const text = event.target.dataset?.tip;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = event.target.getBoundingClientRect();
    const left = box.left + box.width / 2 - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(6, Math.min(innerWidth - tip.offsetWidth - 6, left))}px`;
    const above = box.top - tip.offsetHeight - 6;
    tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
  });
  addEventListener("scroll", () => (tip.hidden = true), { passive: true, capture: true });
}

readBook().then(
  (book) => {
    document.getElementById("loading").remove();
    startExplorer(book);
    document.documentElement.dataset.ready = "yes";
  },
  (error) => {
    document.getElementById("loading").textContent =
      `This page is damaged and cannot be read (${error.message}); make it again.`;
  },
);
