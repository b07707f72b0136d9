// One chart on its canvas: uPlot with our colours, axes that line up over all charts, and a cursor and a zoom that all share.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { colour, faded } from "./dom.js";
import { elapsed } from "./format.js";

const AXIS_WIDTH = 58;
const FONT = '11px -apple-system, "Segoe UI", Inter, Roboto, Ubuntu, "Noto Sans", "PingFang SC", "Noto Sans CJK SC", sans-serif';
/** Pixels of a drag that is meant as a zoom. */
const DRAG_PX = 8;

const two = (part) => String(part).padStart(2, "0");

/** Labels of a time axis: hours and minutes, seconds only where they are told apart. */
function times(_, splits, __, ___, step) {
  return splits.map((second) => {
    const date = new Date(second * 1_000);
    const minutes = `${two(date.getHours())}:${two(date.getMinutes())}`;
    return step < 60 ? `${minutes}:${two(date.getSeconds())}` : minutes;
  });
}

/** The least "round" number at or above a value, so that an axis does not breathe with each second. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999999);
}

function rangeOf(spec) {
  if (spec.log) {
    return (_, least, most) => {
      if (!(most > 0)) return [100, 100_000];
      // Half of what a heat map shows lies below its lowest line.
      const low = 10 ** Math.floor(Math.log10(Math.max(spec.heat ? least / 3 : least, 1)));
      return [low, Math.max(10 ** Math.ceil(Math.log10(most)), low * 10)];
    };
  }
  if (spec.signed) {
    return (_, least, most) => {
      const reach = roundUp(Math.max(Math.abs(least ?? 0), Math.abs(most ?? 0), 1) * 1.05);
      return [-reach, reach];
    };
  }
  if (spec.binary) return (_, __, most) => [0, roundUpBinary((most ?? 0) * 1.04)];
  return (_, __, most) => [0, roundUp(Math.max((most ?? 0) * 1.04, spec.least ?? 0))];
}

/** The same for bytes: whole steps of powers of two. */
export function roundUpBinary(value) {
  if (!(value > 1_024)) return 1_024;
  const power = 2 ** Math.floor(Math.log2(value));
  return [1, 1.25, 1.5, 2].map((step) => step * power).find((step) => step >= value * 0.999999);
}

/** Steps of an axis of seconds since the start. */
const STRETCHES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200];
/** Steps between the lines of a grid: whole numbers for what is counted, powers of two for bytes. */
const POWERS = Array.from({ length: 48 }, (_, power) => 2 ** power);
const WHOLE = Array.from({ length: 12 }, (_, power) => [1, 2, 2.5, 5].map((step) => step * 10 ** power)).flat().filter(Number.isInteger);

/**
 * Makes a chart in `target`. `spec`: `log`, `signed`, `binary` (bytes), `whole` (counts), `least` (of the axis' end), `tick` (how its axis tells a number), `lines` of {colour, area, dash, bars}.
 * `on`: `range(from, until)` when the user has dragged over a stretch, `reset()`, `cursor(index or null)`. `under`, `over`: draw
 * beneath and above the lines. `span()`: what the x axis shows.
 */
export function makePlot(target, { spec, span, on, under, over, sync, x = "time", height }) {
  const axis = { stroke: () => colour("ink-3"), font: FONT, grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false } };
  const bars = uPlot.paths.bars({ size: [1, 40], gap: 0 });
  const options = {
    width: Math.max(target.clientWidth, 80),
    height,
    padding: [8, 26, 0, 0],
    legend: { show: false },
    focus: { alpha: 1 },
    cursor: {
      y: false,
      points: { size: 6, width: 1.5 },
      drag: { x: true, y: false, setScale: false, dist: DRAG_PX },
      sync: sync && { key: sync, setSeries: false },
      bind: { dblclick: () => () => on.reset() },
    },
    scales: {
      x: { time: x === "time", range: () => span() },
      y: { distr: spec.log ? 3 : 1, range: rangeOf(spec) },
    },
    axes: [
      { ...axis, size: 24, gap: 4, space: 64, ...(x === "time" ? { values: times } : { values: (_, splits) => splits.map(elapsed), incrs: STRETCHES }) },
      { ...axis, size: AXIS_WIDTH, gap: 6, space: spec.log ? 18 : 30, values: (_, splits) => splits.map((value) => (value === null ? "" : spec.tick(value))), ...(spec.log ? { filter: powersOfTen, grid: { ...axis.grid, filter: powersOfTen } } : spec.binary ? { incrs: POWERS } : spec.whole ? { incrs: WHOLE } : {}) },
    ],
    series: [
      {},
      ...spec.lines.map((line) => ({
        label: line.column,
        show: line.show ?? true,
        stroke: () => colour(line.bars ? "surface" : line.colour),
        // Bars over each other have an edge, so that none needs its colour to be told from the next.
        width: line.bars ? 1 : 1.5,
        dash: line.dash,
        fill: line.bars ? () => colour(line.colour) : line.area ? () => faded(line.colour, 0.14) : undefined,
        fillTo: spec.signed ? 0 : undefined,
        paths: line.bars ? bars : undefined,
        points: { show: false },
      })),
    ],
    hooks: {
      setCursor: [(plot) => on.cursor(plot.cursor.left < 0 ? null : plot.cursor.idx, plot)],
      setSelect: [
        (plot) => {
          const { left, width } = plot.select;
          if (width < DRAG_PX) return;
          const [from, until] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          on.range(from, until);
        },
      ],
      drawAxes: under ? [under] : [],
      draw: over ? [over] : [],
    },
  };
  const plot = new uPlot(options, [[], ...spec.lines.map(() => [])], target);
  touch(plot);
  return plot;
}

/** On a logarithmic axis only powers of ten are told; lines between them are noise. */
function powersOfTen(_, splits) {
  return splits.map((value) => (Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6) ? value : null));
}

/** A finger moves the cursor sideways; up and down it scrolls the page, as everywhere. */
function touch(plot) {
  plot.over.style.touchAction = "pan-y";
  plot.over.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") return;
    const box = plot.over.getBoundingClientRect();
    plot.setCursor({ left: event.clientX - box.left, top: event.clientY - box.top });
  });
}
