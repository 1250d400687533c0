// Reads a chart out: the nearest point under the pointer, or the next one by arrow key.
for (const svg of document.querySelectorAll("svg[data-points]")) {
  const [label, points] = JSON.parse(svg.dataset.points);
  const output = svg.closest("figure").querySelector("output");
  const cursor = svg.querySelector(".cursor");
  let at = -1;
  const show = (index) => {
    at = Math.max(0, Math.min(points.length - 1, index));
    const [x, value, text] = points[at];
    cursor.setAttribute("transform", `translate(${x} 0)`);
    cursor.style.visibility = "visible";
    output.textContent = `${label} ${value}:  ${text}`;
  };
  const hide = () => {
    cursor.style.visibility = "hidden";
    output.textContent = "";
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let best = 0;
    points.forEach((point, index) => {
      if (Math.abs(point[0] - x) < Math.abs(points[best][0] - x)) best = index;
    });
    show(best);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at + step);
  });
}
