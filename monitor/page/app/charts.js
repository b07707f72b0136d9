// The charts: one card each, all over the same seconds. Those out of sight are not drawn; each is drawn at most once a frame.

import { colour, el, faded, icon, say, swatch } from "./dom.js";
import { CHARTS, KINDS, STACK_COLOURS, axisOf, figureName, reasonName, tell } from "./figures.js";
import { heatLayer } from "./heat.js";
import * as format from "./format.js";
import { makePlot } from "./plot.js";
import { t } from "./words.js";

const HEIGHT = 168;
/** Reasons of a stack that are told apart; the rest is one. */
const REASONS_MAX = 8;
/** Lines of marks that one chart draws. */
const MARKS_MAX = 200;

/** Token of a mark's colour, by its kind. */
export function markColour(kind) {
  return { alert: "bad", resolved: "ok", storm: "warn", drain: "warn", qps: "s1", campaign: "brand", envelopes: "brand" }[kind] ?? "ink-3";
}

export class Charts {
  /** `app`: store, view, marks, and `zoom`, `reset`, `look` for what the user does on a chart. */
  constructor(app, first, more) {
    this.app = app;
    this.cards = CHARTS.map((spec) => new Card(app, spec, spec.more ? more : first));
    this.seen = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const card = this.cards.find((one) => one.node === target);
          card.visible = isIntersecting;
          if (isIntersecting) card.draw();
        }
      },
      { rootMargin: "120px" },
    );
    this.sizes = new ResizeObserver((entries) => {
      for (const { target } of entries) this.cards.find((one) => one.place === target)?.resize();
    });
    for (const card of this.cards) {
      this.seen.observe(card.node);
      this.sizes.observe(card.place);
    }
  }

  /** Something has changed: data, what is shown, or marks. */
  draw() {
    for (const card of this.cards) {
      card.stale = true;
      if (card.visible) card.draw();
    }
  }

  /** The figures of the second that is looked at. */
  tell(index) {
    for (const card of this.cards) if (card.visible) card.tell(index);
  }

  /** Puts the cursor of all charts on a second, or takes it away. */
  point(second) {
    for (const card of this.cards) card.point(second);
  }

  /** After a change of theme or language. */
  rebuild() {
    for (const card of this.cards) card.rebuild();
  }
}

/** One for all charts; its figures are in the legends too. */
const tip = globalThis.document && el("div", { class: "tip", hidden: true, "aria-hidden": "true" });

class Card {
  constructor(app, spec, parent) {
    this.app = app;
    this.spec = spec;
    this.visible = false;
    this.stale = true;
    this.hidden = new Set();
    this.title = el("h3", { id: `chart-${spec.key}` });
    this.unit = el("span", { class: "unit" });
    this.legend = el("ul", { class: "legend" });
    this.save = el("button", { type: "button", class: "quiet save", onclick: () => this.picture() }, "PNG");
    this.place = el("div", { class: "plot", role: "img" });
    this.node = el(
      "section",
      { class: `card chart${spec.wide ? " wide" : ""}`, "aria-labelledby": `chart-${spec.key}` },
      el("header", {}, this.title, this.unit, this.save),
      this.legend,
      this.place,
    );
    this.node.dataset.chart = spec.key;
    parent.append(this.node);
    this.place.addEventListener("mousemove", (event) => this.tip(event));
    this.place.addEventListener("mouseleave", () => (tip.hidden = true));
    this.heat = spec.heat ? heatLayer(app.store, spec.heat) : null;
    this.lines = [];
    this.named();
  }

  named() {
    say(this.title, t(`chart.${this.spec.key}`));
    say(this.unit, this.spec.unit ? t(this.spec.unit) : "");
    this.save.title = t("chart.save");
    this.save.setAttribute("aria-label", `${t("chart.save")}: ${this.title.textContent}`);
  }

  /** Saves the chart as it is drawn, with its title and the names of its lines, as a PNG. */
  picture() {
    const { canvas } = this.plot?.ctx ?? {};
    if (!canvas) return;
    const ratio = canvas.width / this.plot.width;
    const picture = el("canvas", { width: canvas.width, height: canvas.height + 52 * ratio });
    const context = picture.getContext("2d");
    context.fillStyle = colour("surface");
    context.fillRect(0, 0, picture.width, picture.height);
    const font = (size) => `600 ${size * ratio}px system-ui, sans-serif`;
    const write = (text, token, x, y) => ((context.fillStyle = colour(token)), context.fillText(text, x * ratio, y * ratio));
    context.font = font(15);
    write([this.title.textContent, this.unit.textContent].filter(Boolean).join(" · "), "ink", 10, 22);
    context.font = font(12);
    let x = 10;
    for (const line of this.lines.filter((one) => !this.hidden.has(one.column))) {
      write(line.name, line.colour, x, 42);
      x += context.measureText(line.name).width / ratio + 16;
    }
    context.drawImage(canvas, 0, 52 * ratio);
    el("a", { href: picture.toDataURL(), download: `${this.app.store.run ?? "hongbao"}-${this.spec.key}.png` }).click();
  }

  /** The lines as they are now: a stack's reasons appear as they happen. */
  wanted() {
    const { spec } = this;
    if (!spec.stack) return spec.lines.map((line) => ({ ...line, name: figureName(line.column) }));
    const group = this.app.store.reasons[spec.stack] ?? {};
    const sums = Object.entries(group).map(([name, values]) => [name, values.reduce((sum, value) => sum + (value ?? 0), 0)]);
    const some = sums.filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).slice(0, REASONS_MAX);
    return some.map(([name], at) => ({ column: name, name: reasonName(name), colour: STACK_COLOURS[at], bars: true, show: true }));
  }

  build(lines) {
    this.plot?.destroy();
    this.lines = lines;
    const { app, spec } = this;
    // What is planned lies over what was done, which often hides it; the reasons of a stack cover each other from the first on.
    this.drawn = spec.stack ? lines : lines.toReversed();
    this.plot = makePlot(this.place, {
      spec: { ...spec, lines: this.drawn.map((line) => ({ ...line, show: !this.hidden.has(line.column) })), tick: KINDS[spec.kind][1], ...axisOf(spec.kind) },
      span: () => app.view.range(app.store),
      on: { range: app.zoom, reset: app.reset, cursor: app.look },
      under: (plot) => this.heat?.draw(plot),
      over: (plot) => drawMarks(plot, app),
      sync: "seconds",
      height: HEIGHT,
    });
    this.values = lines.map(() => el("b", {}, "–"));
    const items = lines.map((line, at) => {
      const button = el("button", { type: "button", title: t("chart.toggle") }, swatch(line.colour, line.dash), el("span", {}, line.name), this.values[at]);
      button.addEventListener("click", (event) => this.choose(at, event.ctrlKey || event.metaKey || event.shiftKey));
      return el("li", {}, button);
    });
    this.legend.replaceChildren(...(items.length ? items : [el("li", { class: "none" }, t("chart.nothing"))]));
    this.pressed();
  }

  pressed() {
    this.legend.querySelectorAll("button").forEach((button, at) => button.setAttribute("aria-pressed", String(!this.hidden.has(this.lines[at].column))));
  }

  /** Shows a line alone, or all again; `one`: shows or hides just this one. */
  choose(at, one) {
    const columns = this.lines.map((line) => line.column);
    const others = columns.toSpliced(at, 1);
    const alone = !this.hidden.has(columns[at]) && others.every((column) => this.hidden.has(column));
    if (!one) this.hidden = new Set(alone ? [] : others);
    else if (!this.hidden.delete(columns[at])) this.hidden.add(columns[at]);
    this.pressed();
    this.drawn.forEach((line, place) => this.plot.setSeries(place + 1, { show: !this.hidden.has(line.column) }));
    this.stale = true;
    this.draw();
  }

  /** The figures of the second under the pointer, beside it. */
  tip(event) {
    const index = this.plot?.cursor.idx;
    tip.hidden = index === null || index === undefined || !this.lines.length;
    if (tip.hidden) return;
    const rows = this.lines.flatMap((line, at) => (this.hidden.has(line.column) ? [] : [el("li", {}, swatch(line.colour, line.dash), line.name, el("b", {}, this.told(index)[at]))]));
    tip.replaceChildren(format.clock(this.app.store.columns.second[index]), el("ul", {}, ...rows));
    if (!tip.isConnected) document.body.append(tip);
    const { offsetWidth: width, offsetHeight: height } = tip;
    tip.style.left = `${event.clientX + 16 + width > innerWidth ? Math.max(event.clientX - width - 16, 0) : event.clientX + 16}px`;
    tip.style.top = `${Math.min(event.clientY + 16, innerHeight - height - 4)}px`;
  }

  draw() {
    const { store } = this.app;
    if (this.spec.stack || !this.plot) {
      const lines = this.wanted();
      const same = this.plot && lines.map((line) => line.column).join() === this.lines.map((line) => line.column).join();
      if (!same) this.build(lines);
    }
    this.stale = false;
    const { plot } = this;
    plot.batch(() => plot.setData([store.columns.second, ...this.columns(store)]));
    this.tell(this.app.view.index(store));
  }

  columns(store) {
    if (!this.spec.stack) return this.drawn.map((line) => store.whole(line.column));
    // The first line reaches as high as all together and is drawn first; each following one covers what is not its own.
    const shown = this.drawn.map((line) => (this.hidden.has(line.column) ? null : store.reason(this.spec.stack, line.column)));
    const total = new Array(store.length).fill(0);
    const { complete } = store.columns;
    const gaps = () => (complete ? total.map((sum, at) => (complete[at] === 0 ? null : sum)) : total.slice());
    return shown
      .toReversed()
      .map((values) => {
        if (!values) return gaps();
        for (let at = 0; at < total.length; at++) total[at] += values[at] ?? 0;
        return gaps();
      })
      .toReversed();
  }

  /** Each line's figure in a row. */
  told(index) {
    const { store } = this.app;
    return this.lines.map(({ column }) => tell(this.spec.kind, (this.spec.stack ? store.reasons[this.spec.stack]?.[column]?.[index] : store.get(column, index)) ?? null));
  }

  tell(index) {
    if (!this.plot) return;
    const told = this.told(index);
    told.forEach((text, at) => say(this.values[at], text));
    const summary = this.lines.map((line, at) => `${line.name} ${told[at]}`).join(", ");
    const label = `${this.title.textContent}: ${summary || t("chart.nothing")}`;
    if (this.place.getAttribute("aria-label") !== label) this.place.setAttribute("aria-label", label);
  }

  point(second) {
    if (!this.plot) return;
    if (second === null) this.plot.setCursor({ left: -10, top: -10 }, false);
    else this.plot.setCursor({ left: this.plot.valToPos(second, "x"), top: 10 }, false);
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  rebuild() {
    this.heat?.forget();
    this.named();
    this.plot?.destroy();
    this.plot = null;
    this.stale = true;
    if (this.visible) this.draw();
  }
}

/** Thin lines where something happened, and a foot under seconds that are not complete. */
export function drawMarks(plot, { marks, store }) {
  const { ctx, bbox } = plot;
  const { min, max } = plot.scales.x;
  const ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = ratio;
  ctx.setLineDash([2 * ratio, 3 * ratio]);
  let drawn = 0;
  for (let at = marks.length - 1; at >= 0 && drawn < MARKS_MAX; at--) {
    const second = marks[at].at_ms / 1_000;
    if (second < min || second > Math.min(max, store.until + 2)) continue;
    const x = Math.round(plot.valToPos(second, "x", true)) + ratio / 2;
    ctx.strokeStyle = faded(markColour(marks[at].kind), 0.4);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    drawn++;
  }
  const complete = store.columns.complete;
  if (complete) {
    ctx.fillStyle = colour("warn");
    const width = Math.max(plot.valToPos(store.every, "x", true) - plot.valToPos(0, "x", true), ratio);
    for (let at = Math.max(store.at(min), 0); at < store.length && store.columns.second[at] <= max; at++) {
      if (complete[at] !== 0) continue;
      const x = plot.valToPos(store.columns.second[at], "x", true);
      ctx.fillRect(x - width / 2, bbox.top + bbox.height - 3 * ratio, width, 3 * ratio);
    }
  }
  ctx.restore();
}

/** A mark's sign, in its colour. */
export function markIcon(kind) {
  const sign = icon(kind);
  sign.style.color = `var(--${markColour(kind)})`;
  return sign;
}
