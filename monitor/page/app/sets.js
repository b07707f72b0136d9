// The grid of SETs: one cell each, coloured by a figure. Hundreds are alike; the one that is not must be seen at once, whichever
// figure is chosen, so a sick SET has a frame and is named in words beside the grid.

import { colour, el, fit, say } from "./dom.js";
import * as format from "./format.js";
import { DEVIATIONS_MAX, deviations, heatStep, ramp } from "./scales.js";
import { SET_FIGURES } from "./state.js";
import { t } from "./words.js";

/** Differences that are never out of the ordinary; `share` is of the median. */
const FLOORS = {
  connections: { least: 32, share: 0.05 },
  online: { least: 32, share: 0.05 },
  queue_depth: { least: 64, share: 0 },
  owed: { least: 64, share: 0 },
  stock: { least: 32, share: 0 },
};

const STEPS = 40;
const GAP = 2;
/** Pixels of a cell's side, where there are few. */
const SIDE_MAX = 44;
/** Sick SETs named; more than this is another kind of trouble. */
const NAMED_MAX = 6;

/** All SETs of all servers in order: [{server, index, connections, …}]. Pure. */
export function flatten(servers) {
  return Object.entries(servers)
    .sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }))
    .flatMap(([server, figures]) => {
      const length = Math.max(0, ...SET_FIGURES.map((name) => figures[name]?.length ?? 0));
      return Array.from({ length }, (_, index) => ({
        server,
        index,
        ...Object.fromEntries(SET_FIGURES.map((name) => [name, figures[name]?.[index] ?? 0])),
      }));
    });
}

/** For each SET the figures by which it is far from the others. Pure. */
export function sickness(sets) {
  const sick = sets.map(() => []);
  if (sets.length < 4) return sick;
  for (const name of SET_FIGURES) {
    const values = sets.map((set) => set[name]);
    const { least, share } = FLOORS[name];
    const middle = values.toSorted((a, b) => a - b)[values.length >> 1];
    deviations(values, Math.max(least, share * middle)).forEach((deviation, at) => {
      if (Math.abs(deviation) > DEVIATIONS_MAX) sick[at].push(name);
    });
  }
  return sick;
}

/** Columns and the side of a cell, so that `count` cells fill a box as well as they can. Pure. */
export function layout(count, width, height) {
  let best = { columns: 1, side: 1 };
  for (let columns = 1; columns <= count; columns++) {
    const side = Math.min((width + GAP) / columns - GAP, (height + GAP) / Math.ceil(count / columns) - GAP);
    if (side > best.side) best = { columns, side };
  }
  return { columns: best.columns, side: Math.min(Math.floor(best.side * 2) / 2, SIDE_MAX) };
}

export class Sets {
  constructor(app, root, figures, count) {
    this.app = app;
    this.count = count;
    this.canvas = el("canvas", { class: "grid", role: "img" });
    this.hover = el("p", { class: "sub hover" }, " ");
    this.words = el("p", { class: "sub", role: "status" });
    root.append(this.canvas, this.hover, this.words);
    this.buttons = SET_FIGURES.map((name) => {
      const button = el("button", { type: "button" });
      button.addEventListener("click", () => this.choose(name));
      figures.append(button);
      return button;
    });
    this.sets = [];
    this.canvas.addEventListener("pointermove", (event) => this.at(event));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.tabIndex = 0;
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.name();
  }

  name() {
    this.buttons.forEach((button, at) => {
      say(button, t(`sets.${SET_FIGURES[at]}`));
      button.setAttribute("aria-pressed", String(SET_FIGURES[at] === this.app.state.set));
    });
  }

  choose(name) {
    this.app.state.set = name;
    this.app.addressed();
    this.name();
    this.draw();
  }

  take(servers) {
    this.sets = flatten(servers);
    this.sick = sickness(this.sets);
    this.draw();
  }

  draw() {
    const { sets, sick } = this;
    const figure = this.app.state.set;
    say(this.count, sets.length ? format.count(sets.length) : "");
    this.canvas.hidden = !sets.length;
    this.hover.hidden = !sets.length;
    if (!sets.length) {
      this.words.classList.remove("bad");
      return say(this.words, t("sets.none"));
    }
    const { context, width, height } = fit(this.canvas);
    if (!width) return; // It was hidden until now; its size is told in a moment.
    this.grid = layout(sets.length, width, height);
    const { columns, side } = this.grid;
    const values = sets.map((set) => set[figure]);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const colours = ramp(["surface-3", "s1"].map(colour), STEPS);
    const hot = ramp(["heat-1", "heat-2", "heat-3"].map(colour), STEPS);
    sets.forEach((set, at) => {
      const [x, y] = [(at % columns) * (side + GAP), Math.floor(at / columns) * (side + GAP)];
      // Sizes are seen in proportion; what piles up, from nothing on.
      const piles = figure === "queue_depth" || figure === "owed" || figure === "stock";
      const step = piles
        ? heatStep(set[figure], Math.max(most, 16), STEPS)
        : Math.round(((set[figure] - Math.min(least, most * 0.8)) / Math.max(most - Math.min(least, most * 0.8), 1)) * (STEPS - 1));
      const palette = piles && sick[at].includes(figure) ? hot : colours;
      const [r, g, b] = palette[Math.max(0, Math.min(step, STEPS - 1))];
      context.fillStyle = `rgb(${r} ${g} ${b})`;
      context.fillRect(x, y, side, side);
      if (sick[at].length) {
        context.strokeStyle = colour("bad");
        context.lineWidth = 2;
        context.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
      }
      if (at === this.pointed) {
        context.strokeStyle = colour("ink");
        context.lineWidth = 1.5;
        context.strokeRect(x - 0.25, y - 0.25, side + 0.5, side + 0.5);
      }
    });
    const ill = sets.flatMap((set, at) => (sick[at].length ? [{ set, of: sick[at] }] : []));
    this.words.classList.toggle("bad", ill.length > 0);
    const told = ill.slice(0, NAMED_MAX).map(({ set, of }) => `${label(set)}: ${of.map((name) => `${t(`sets.${name}`)} ${format.count(set[name])}`).join(", ")}`);
    say(this.words, ill.length ? t("sets.sick", { count: ill.length, sets: told.join(" · ") + (ill.length > NAMED_MAX ? " …" : "") }) : t("sets.alike"));
    const [low, mid, high] = [least, values.toSorted((a, b) => a - b)[values.length >> 1], most].map(format.count);
    this.canvas.setAttribute("aria-label", t("sets.summary", { count: sets.length, figure: t(`sets.${figure}`), least: low, median: mid, most: high }));
    if (this.pointed == null) say(this.hover, t("sets.range", { figure: t(`sets.${figure}`), least: low, median: mid, most: high }));
    else this.point(this.pointed, false);
  }

  at(event) {
    if (!this.grid) return;
    const { columns, side } = this.grid;
    const box = this.canvas.getBoundingClientRect();
    const [column, row] = [Math.floor((event.clientX - box.left) / (side + GAP)), Math.floor((event.clientY - box.top) / (side + GAP))];
    const at = row * columns + column;
    this.point(column < columns && at >= 0 && at < this.sets.length ? at : null);
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -(this.grid?.columns ?? 1), ArrowDown: this.grid?.columns ?? 1 }[event.key];
    if (!by || !this.sets.length) return;
    event.preventDefault();
    event.stopPropagation();
    this.point(Math.min(Math.max((this.pointed ?? -1) + by, 0), this.sets.length - 1));
  }

  point(at, draw = true) {
    if (draw && at === this.pointed) return;
    this.pointed = at;
    if (draw) this.draw();
    const set = this.sets[at];
    if (set) say(this.hover, `${label(set)}: ${SET_FIGURES.map((name) => `${t(`sets.${name}`)} ${format.count(set[name])}`).join(" · ")}`);
  }
}

/** A SET's name for people. */
const label = (set) => `${set.server} #${set.index}`;
