// Shows the values under the pointer. Without it the charts are complete, only silent.
for (const svg of document.querySelectorAll("figure svg")) {
  const figure = svg.parentElement;
  const series = JSON.parse(figure.querySelector("script").textContent);
  const tip = figure.querySelector(".tip");
  const cursor = svg.querySelector(".cursor");
  const [low, high, from, to] = svg.dataset.x.split(" ").map(Number);
  const [, , bottom, top] = svg.dataset.y.split(" ").map(Number);
  const nearest = (points, x) => {
    let a = 0, b = points.length - 1;
    while (b - a > 1) { const m = (a + b) >> 1; if (points[m][0] < x) a = m; else b = m; }
    return x - points[a][0] < points[b][0] - x ? points[a] : points[b];
  };
  const write = v => v !== 0 && (Math.abs(v) < 1e-2 || Math.abs(v) >= 1e6) ? v.toExponential(2)
    : v.toLocaleString("en", { maximumSignificantDigits: 4 });
  const hide = () => { tip.hidden = true; cursor.style.visibility = "hidden"; };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const wanted = low + ((event.clientX - box.left) / scale - from) / (to - from) * (high - low);
    if (wanted < low || wanted > high) return hide();
    const main = series.find(s => s.class === "strong") || series[0];
    const step = nearest(main.points, wanted)[0];
    const at = from + (step - low) / (high - low) * (to - from);
    for (const [key, value] of Object.entries({ x1: at, x2: at, y1: top, y2: bottom })) cursor.setAttribute(key, value);
    cursor.style.visibility = "visible";
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = "step " + step.toLocaleString("en");
    tip.append(head);
    for (const s of series) {
      const point = nearest(s.points, step);
      const line = document.createElement("div"), mark = document.createElement("i");
      mark.className = s.class;
      const when = s.class === "second" && point[0] !== step ? " (step " + point[0].toLocaleString("en") + ")" : "";
      line.append(mark, s.name + " ", Object.assign(document.createElement("b"), { textContent: write(point[1]) }), when);
      tip.append(line);
    }
    tip.hidden = false;
    const frame = figure.getBoundingClientRect();
    const x = box.left - frame.left + at * scale;
    const left = x + 14 + tip.offsetWidth > frame.width ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, event.clientY - frame.top - tip.offsetHeight - 10)}px)`;
  });
}
