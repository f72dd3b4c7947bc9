// Small charts of lines and points, drawn as SVG by hand.

import { count, draw } from "./dom.js";

const WIDTH = 300, HEIGHT = 44;
const LEAST = 11;  // intervals; fewer values do not fill the width

/**
 * Lines over time, the present at the right edge; where there is nothing, no line.
 * lines: [{values, kind: "first" | "second"}], text: what a screen reader says.
 */
export function sparkline(lines, text) {
  const top = Math.max(...lines.flatMap((line) => line.values.filter((value) => value !== null)), 0);
  const chart = draw("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": text });
  chart.append(draw("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }));
  for (const { values, kind } of lines) {
    const place = (index) => WIDTH - ((values.length - 1 - index) * WIDTH) / Math.max(LEAST, values.length - 1);
    const height = (value) => HEIGHT - 1 - (top ? (value / top) * (HEIGHT - 4) : 0);
    let path = "", isDown = false;
    values.forEach((value, index) => {
      if (value !== null) path += `${isDown ? "L" : "M"}${place(index).toFixed(1)} ${height(value).toFixed(1)}${isDown ? "" : "h0.01"}`;
      isDown = value !== null;
    });
    if (path) chart.append(draw("path", { class: kind, d: path }));
  }
  return chart;
}

/** A share of 1, which has a mark; what is beyond is shown up to a quarter more. */
export function meter(share, text) {
  const across = (value) => (Math.min(1.25, Math.max(0, value)) / 1.25) * WIDTH;
  return draw("svg", { class: "spark meter", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", role: "img", "aria-label": text },
    draw("rect", { class: "track", width: WIDTH, height: 10, rx: 2 }), draw("rect", { class: "filled", width: across(share), height: 10, rx: 2 }),
    draw("line", { class: "mark", x1: across(1), x2: across(1), y1: -2, y2: 12 }));
}

const MARGIN = { left: 58, right: 20, top: 30, bottom: 46 };

/** Quality kept against bytes an item (logarithmic): points [{name, x, y, kind, labelled, isBest}], width in pixels. */
export function plot(points, text, width) {
  const BOX = { ...MARGIN, width, height: Math.round(Math.max(260, Math.min(400, width / 2))) };
  const low = Math.min(...points.map((point) => point.x)), high = Math.max(...points.map((point) => point.x));
  const [least, most] = [Math.log(low / 1.15), Math.log(high * 1.15)];
  const bottom = Math.min(0.9, ...points.map((point) => point.y)), top = Math.max(1.05, ...points.map((point) => point.y)) + 0.05;
  const across = (x) => BOX.left + ((Math.log(x) - least) / (most - least || 1)) * (BOX.width - BOX.left - BOX.right);
  const up = (y) => BOX.height - BOX.bottom - ((y - bottom) / (top - bottom)) * (BOX.height - BOX.top - BOX.bottom);
  const chart = draw("svg", { class: "plot", viewBox: `0 0 ${BOX.width} ${BOX.height}`, width: BOX.width, height: BOX.height, role: "img", "aria-label": text });
  const step = top - bottom > 1 ? 0.5 : top - bottom > 0.5 ? 0.2 : 0.1;
  for (let tick = Math.ceil(bottom / step) * step; tick <= top; tick += step) {
    chart.append(draw("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: up(tick), y2: up(tick) }),
      draw("text", { x: BOX.left - 8, y: up(tick) + 4, "text-anchor": "end" }, `${Math.round(100 * tick)} %`));
  }
  for (let power = -1; power < 7; power += 1)
    for (const lead of [1, 3]) {
      const tick = lead * 10 ** power;
      if (tick < low / 1.15 || tick > high * 1.15) continue;
      chart.append(draw("line", { class: "grid", x1: across(tick), x2: across(tick), y1: BOX.top, y2: BOX.height - BOX.bottom }),
        draw("text", { x: across(tick), y: BOX.height - BOX.bottom + 18, "text-anchor": "middle" }, count(tick, tick < 1 ? 1 : 0)));
    }
  chart.append(draw("text", { x: BOX.left - 50, y: 14 }, "quality kept of the teacher"));
  chart.append(draw("text", { x: (BOX.left + BOX.width - BOX.right) / 2, y: BOX.height - 6, "text-anchor": "middle" }, "bytes an item"));
  const best = points.filter((point) => point.isBest).sort((a, b) => a.x - b.x);
  chart.append(draw("polyline", { class: "step", points: best.map((point) => `${across(point.x).toFixed(1)},${up(point.y).toFixed(1)}`).join(" ") }));
  for (const point of [...points].sort((a, b) => Number(a.labelled) - Number(b.labelled))) {
    chart.append(draw("circle", { class: `point ${point.kind}`, cx: across(point.x), cy: up(point.y), r: point.kind === "chosen" ? 8 : 5 },
      draw("title", {}, `${point.name}: ${Math.round(100 * point.y)} % kept, ${count(point.x)} bytes an item`)));
    if (point.labelled) {
      const isRight = across(point.x) > BOX.width * 0.55;
      chart.append(draw("text", { class: "name", x: across(point.x) + (isRight ? -12 : 12), y: up(point.y) + (point.kind === "chosen" ? -12 : 20), "text-anchor": isRight ? "end" : "start" }, point.name));
    }
  }
  return chart;
}
