// Up to four steps of a round size, the last of them just above the largest value.
function axis(most) {
  const power = 10 ** Math.floor(Math.log10(most / 4)), step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= most / 4 * .999);
  return { step, steps: Math.ceil(most / step - .001) };
}
const PLOTS = [
  { name: "throughput", format: bits, least: 1000, lines: [["tx", "sent"], ["rx", "received"]] },
  { name: "frames", format: each, least: 4, lines: [["txFrames", "sent", "tx"], ["rxFrames", "received", "rx"]] },
  { name: "drops", format: each, least: 4, lines: [["drops", "dropped", "drop"]] },
];
function plot({ name, format, least, lines, at }) {
  const root = $(`plot-${name}`), width = root.clientWidth || 600, height = Number(root.getAttribute("height"));
  const now = history.length ? history[history.length - 1].time : 0, chosen = Number($("window").value);
  const shown = history.filter((point) => point.time >= now - chosen);
  // A node that has not run for so long yet has all of the width, too.
  const seconds = Math.min(chosen, Math.max(10, shown.length ? now - shown[0].time : 0));
  const { step, steps } = axis(Math.max(least, ...shown.flatMap((point) => lines.map(([key]) => point[key]))));
  const names = Array.from({ length: steps + 1 }, (_, i) => i ? format(step * i).replace(/(\.\d*?)0+(?=\D*$)/, "$1").replace(/\.(?!\d)/, "") : "0");
  const left = 14 + 6.3 * Math.max(...names.map((text) => text.length)), right = 6, upper = 8, lower = 22;
  const x = (time) => left + (width - left - right) * (1 - (now - time) / seconds);
  const y = (value) => upper + (height - upper - lower) * (1 - value / step / steps);
  const parts = [];
  names.forEach((text, i) => {
    const label = svg("text", { class: "axis", x: left - 8, y: y(step * i) + 4, "text-anchor": "end" });
    label.textContent = text;
    parts.push(svg("line", { class: "gridline", x1: left, x2: width - right, y1: y(step * i), y2: y(step * i) }), label);
  });
  const apart = [2, 5, 10, 15, 30, 60, 120, 180, 300, 450].find((n) => seconds / n <= (width > 420 ? 6 : 3));
  for (let back = 0; back <= seconds + .001; back += apart) {
    const label = svg("text", { class: "axis", x: x(now - back), y: height - 4, "text-anchor": back === 0 ? "end" : x(now - back) < left + 12 ? "start" : "middle" });
    label.textContent = back === 0 ? "now" : apart < 60 && seconds <= 120 ? `−${back} s` : `−${Number((back / 60).toFixed(1))} min`;
    parts.push(label);
  }
  for (const [key, , kind = key] of lines) {
    const points = shown.map((point) => `${x(point.time).toFixed(1)} ${y(point[key]).toFixed(1)}`);
    if (points.length > 1) parts.push(svg("path", { class: `area ${kind}-area`, d: `M${x(shown[0].time).toFixed(1)} ${y(0)}L${points.join("L")}L${x(now)} ${y(0)}Z` }));
    parts.push(svg("path", { class: `curve ${kind}-line`, "data-points": points.length, d: points.length ? `M${points.join("L")}${points.length === 1 ? "h.1" : ""}` : "" }));
  }
  let said = shown[shown.length - 1];
  if (at !== undefined && shown.length) {
    const time = now - seconds * (1 - (at - left) / (width - left - right));
    said = shown.reduce((best, point) => Math.abs(point.time - time) < Math.abs(best.time - time) ? point : best);
    parts.push(svg("line", { class: "cursor", x1: x(said.time), x2: x(said.time), y1: upper, y2: height - lower }));
  }
  root.replaceChildren(...parts);
  const texts = said ? lines.map(([key, label, kind = key]) => [label, kind, format(said[key])]) : [];
  const when = said && now - said.time > .5 ? [[`${Math.round(now - said.time)} s ago`, "", ""]] : [];
  $(`legend-${name}`).replaceChildren(...[...when, ...texts].map(([label, kind, value]) => {
    const item = made("span", "", `${label} `);
    item.append(made("b", kind, value));
    return item;
  }));
}
for (const one of PLOTS) {
  const root = $(`plot-${one.name}`);
  root.addEventListener("pointermove", (event) => { one.at = event.clientX - root.getBoundingClientRect().left; plot(one); });
  root.addEventListener("pointerleave", () => { one.at = undefined; plot(one); });
  new ResizeObserver(() => plot(one)).observe(root);
}

