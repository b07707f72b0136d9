// Past runs: the list, and two of them over each other, aligned at their start.

import { ask, el, say, swatch } from "./dom.js";
import { COMPARED, DERIVED, KINDS, axisOf, figureName } from "./figures.js";
import * as format from "./format.js";
import { makePlot } from "./plot.js";
import { Store } from "./store.js";
import { everyFor } from "./stream.js";
import { keptWords, verdictPill } from "./verdict.js";
import { has, t } from "./words.js";

const HEIGHT = 180;
const COLOURS = ["s1", "s3"];
const LINES = [undefined, [6, 3]];

/** Seconds into the run at which its load began: the first that plans anything; 0 if none does. Pure. */
export function loadStart(store) {
  const at = (store.columns.planned ?? []).findIndex((planned) => planned > 0);
  return at < 0 ? 0 : store.columns.second[at] - store.first;
}

/** Two runs' values on one axis of seconds since each began: [x, a, b], nothing where a run has no such second. Pure. */
export function aligned(a, b, column, offsets = [0, 0]) {
  const values = new Map();
  [a, b].forEach((store, side) => {
    const given = store.whole(column);
    for (let at = 0; at < store.length; at++) {
      const x = store.columns.second[at] - store.first - offsets[side];
      if (!values.has(x)) values.set(x, [null, null]);
      values.get(x)[side] = given[at] ?? null;
    }
  });
  const xs = [...values.keys()].sort((one, other) => one - other);
  return [xs, xs.map((x) => values.get(x)[0]), xs.map((x) => values.get(x)[1])];
}

export class Runs {
  constructor(app, root) {
    this.app = app;
    this.root = root;
    this.chosen = [];
    this.plots = [];
  }

  async show(state) {
    if (state.view === "live") return;
    this.drop();
    document.title = `${t(state.view === "compare" ? "compare.title" : "runs.title")} · ${t("app.title")}`;
    try {
      if (state.view === "compare" && state.a && state.b) await this.compare(state.a, state.b);
      else await this.list();
    } catch (error) {
      if (error.status === 401) return this.app.controls.lock(() => this.app.show());
      this.root.replaceChildren(el("p", { class: "notice" }, t("runs.failed", { problem: error.message })));
    }
  }

  drop() {
    for (const plot of this.plots) plot.plot.destroy();
    this.plots = [];
  }

  /** After a change of theme. */
  rebuild() {
    if (this.plots.length) this.show(this.app.state);
  }

  async list() {
    const { runs } = await ask("/api/v1/runs");
    const compare = el("button", { type: "button", class: "primary", disabled: true, onclick: () => this.app.go({ view: "compare", a: this.chosen[0], b: this.chosen[1] }) }, t("runs.compare"));
    const hint = el("span", { class: "hint", role: "status" });
    const told = () => {
      compare.disabled = this.chosen.length !== 2;
      say(hint, t("runs.chosen", { count: this.chosen.length }));
    };
    this.chosen = [];
    const heads = ["choose", "run", "began", "length", "users", "qps", "p99", "won", "verdict", "books", "downloads"];
    const numeric = new Set(["length", "users", "qps", "p99", "won"]);
    const rows = runs.map((run) => {
      const name = run.id;
      const title = run.title && run.title !== run.id ? el("small", {}, run.title) : null;
      const box = el("input", { type: "checkbox", "aria-label": t("runs.choose", { run: name }) });
      box.addEventListener("change", () => {
        this.chosen = box.checked ? [...this.chosen, run.id] : this.chosen.filter((id) => id !== run.id);
        if (this.chosen.length > 2) {
          const dropped = this.chosen.shift();
          this.root.querySelector(`tr[data-run="${CSS.escape(dropped)}"] input`).checked = false;
        }
        told();
      });
      const open = el("a", { href: `/?run=${encodeURIComponent(run.id)}` }, name);
      open.addEventListener("click", (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        this.app.go({ view: "live", run: run.live ? null : run.id, from: null, until: null });
      });
      const books = run.live ? el("span", { class: "pill", "data-state": "ok" }, el("i"), el("b", {}, t("state.live"))) : run.problem ? el("span", { class: "pill", "data-state": "warn", title: run.problem }, el("i"), el("b", {}, run.problem)) : pill(run.balanced);
      const row = el(
        "tr",
        {},
        el("td", {}, box),
        el("th", { scope: "row" }, open, title),
        run.started_at_ms ? el("td", { title: format.utc(run.started_at_ms) }, format.when(run.started_at_ms)) : el("td", {}, format.NONE),
        el("td", { class: "n" }, format.elapsed(run.seconds)),
        el("td", { class: "n" }, format.count(run.users_max)),
        el("td", { class: "n" }, format.count(run.qps_max)),
        el("td", { class: "n" }, format.micros(run.latency_p99_us)),
        el("td", { class: "n" }, format.count(run.won)),
        el("td", { title: run.failures.join("\n") }, verdictPill(run), el("small", {}, keptWords(run.phases))),
        el("td", {}, books),
        el("td", {}, this.downloads(run)),
      );
      row.dataset.run = run.id;
      return row;
    });
    if (!runs.length) rows.push(el("tr", {}, el("td", { colSpan: heads.length, class: "none" }, t("runs.none"))));
    this.root.replaceChildren(
      el("header", { class: "page-head" }, el("h1", {}, t("runs.title")), el("p", { class: "hint" }, t("runs.what")), el("div", { class: "bar" }, hint, compare)),
      el("section", { class: "card" }, el("div", { class: "scroll-x" }, el("table", { class: "list runs" }, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col", class: numeric.has(head) ? "n" : "" }, t(`runs.head.${head}`))))), el("tbody", {}, ...rows)))),
    );
    told();
  }

  /** Everything that a run can be had as; charts are asked for only when somebody wants one. */
  downloads(run) {
    const base = `/api/v1/runs/${encodeURIComponent(run.id)}`;
    const file = (path, text) => el("a", { href: `${base}/${path}`, download: `${run.id}-${path.split("/").pop()}` }, text);
    const list = el("ul", { class: "files" }, el("li", {}, file("export.csv", "CSV")), el("li", {}, file("export.json", "JSON")), el("li", {}, el("a", { href: `${base}/report.html`, target: "_blank", rel: "noopener" }, t("runs.report"))));
    const charts = el("ul", { class: "files" });
    const details = el("details", {}, el("summary", {}, t("runs.charts")), charts);
    details.addEventListener("toggle", async () => {
      if (!details.open || charts.children.length) return;
      try {
        const answer = await ask(`${base}/charts`);
        const names = answer.charts ?? answer;
        charts.replaceChildren(...names.map((name) => el("li", {}, file(`charts/${encodeURIComponent(name)}.svg`, answer.titles?.[name] ?? name))));
      } catch (error) {
        charts.replaceChildren(el("li", {}, error.message));
      }
    });
    list.append(el("li", {}, details));
    return list;
  }

  async compare(a, b) {
    const load = async (id, run) => {
      const store = new Store(DERIVED);
      store.load(await ask(`/api/v1/runs/${encodeURIComponent(id)}/series?every=${everyFor(run?.seconds ?? 0)}`));
      return store;
    };
    const { runs } = await ask("/api/v1/runs");
    const of = (id) => runs.find((run) => run.id === id);
    const figures = ask(`/api/v1/compare?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`).catch(() => null);
    const [one, other] = await Promise.all([load(a, of(a)), load(b, of(b))]);
    const charts = el("section", { class: "charts", "aria-label": t("charts.label") });
    const align = el("select", { id: "align" }, el("option", { value: "start" }, t("compare.start")), el("option", { value: "load" }, t("compare.load")));
    align.addEventListener("change", () => this.overlay(charts, one, other, [a, b], align.value));
    const back = el("a", { href: "/?view=runs" }, t("compare.back"));
    back.addEventListener("click", (event) => (event.preventDefault(), this.app.go({ view: "runs" })));
    const key = (id, at) => el("span", { class: "which" }, swatch(COLOURS[at], LINES[at]), id);
    this.root.replaceChildren(
      el("header", { class: "page-head" }, back, el("h1", {}, t("compare.title")), el("p", { class: "pair-of-runs" }, key(a, 0), key(b, 1)), el("div", { class: "bar" }, el("label", { htmlFor: "align" }, t("compare.align")), align)),
      charts,
      this.table(await figures, one, other, a, b),
    );
    this.overlay(charts, one, other, [a, b], "start");
  }

  /** The two runs' figures side by side. Without an answer of the interface, those that the series tell. */
  table(answer, one, other, a, b) {
    const rows = answer?.figures ?? answer?.rows ?? ownFigures(one, other);
    const body = [];
    let group = "run";
    for (const row of rows) {
      if (row.group && row.group !== group) {
        group = row.group;
        body.push(el("tr", { class: "group" }, el("th", { colSpan: 4, scope: "colgroup" }, group)));
      }
      const tell = KINDS[row.kind ?? kindOf(row.unit)][0];
      const known = has(`figure.${row.name}`);
      const ratio = row.ratio ?? (row.a ? row.b / row.a : null);
      const change = row.a === null || row.b === null || ratio === null ? format.NONE : row.a === row.b ? "=" : format.ratio(ratio);
      body.push(el("tr", {}, el("th", { scope: "row" }, known ? t(`figure.${row.name}`) : (row.title ?? row.name)), el("td", { class: "n" }, tell(row.a)), el("td", { class: "n" }, tell(row.b)), el("td", { class: "n" }, change)));
    }
    const head = [t("compare.figure"), a, b, t("compare.ratio")].map((text, at) => el("th", { scope: "col", class: at ? "n" : "" }, text));
    return el("section", { class: "card" }, el("header", {}, el("h2", {}, t("compare.figures"))), el("div", { class: "scroll-x" }, el("table", { class: "list" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body))));
  }

  overlay(root, one, other, names, align) {
    this.drop();
    const offsets = align === "load" ? [loadStart(one), loadStart(other)] : [0, 0];
    root.replaceChildren();
    let range = null;
    const whole = () => {
      const ends = [one, other].map((store, at) => store.until - store.first - offsets[at]);
      return [-Math.max(...offsets), Math.max(...ends, 10)];
    };
    const all = (then) => this.plots.forEach(then);
    for (const [key, column, kind, unit, log] of COMPARED) {
      const place = el("div", { class: "plot", role: "img", "aria-label": t(`chart.${key}`) });
      const values = names.map(() => el("b", {}, format.NONE));
      const legend = el("ul", { class: "legend" }, ...names.map((name, at) => el("li", {}, el("span", { class: "key" }, swatch(COLOURS[at], LINES[at]), el("span", {}, name), values[at]))));
      root.append(el("section", { class: "card chart" }, el("header", {}, el("h3", {}, t(`chart.${key}`)), el("span", { class: "unit" }, `${figureName(column)}${unit ? ` · ${t(unit)}` : ""}`)), legend, place));
      const data = aligned(one, other, column, offsets);
      const plot = makePlot(place, {
        spec: { log, tick: KINDS[kind][1], ...axisOf(kind), lines: COLOURS.map((colour, at) => ({ column: names[at], colour, dash: LINES[at] })) },
        span: () => range ?? whole(),
        x: "elapsed",
        sync: "compare",
        height: HEIGHT,
        on: {
          range: (from, until) => ((range = [from, until]), all(({ plot, data }) => plot.setData(data))),
          reset: () => ((range = null), all(({ plot, data }) => plot.setData(data))),
          cursor: (index) => values.forEach((value, at) => say(value, KINDS[kind][0](index === null || index === undefined ? null : data[at + 1][index]))),
        },
      });
      plot.setData(data);
      this.plots.push({ plot, data });
      new ResizeObserver(() => place.clientWidth && plot.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
    }
  }
}

function pill(balanced) {
  if (balanced === null || balanced === undefined) return format.NONE;
  return el("span", { class: "pill", "data-state": balanced ? "ok" : "bad" }, el("i"), el("b", {}, t(balanced ? "books.balanced" : "books.differ")));
}

function kindOf(unit) {
  return { us: "micros", fen: "yuan", bytes: "bytes", cores: "cores", share: "share", seconds: "seconds" }[unit] ?? "count";
}

/** What the series themselves tell of two runs. Pure. */
export function ownFigures(one, other) {
  const most = (store, column) => (store.columns[column] ?? []).reduce((max, value) => (value !== null && (max === null || value > max) ? value : max), null);
  const sum = (store, column) => (store.columns[column] ?? []).reduce((all, value) => all + (value ?? 0), 0) * store.every;
  const figures = [["users_max", most, "users_online", "count"], ["qps_max", most, "answered", "count"], ["requests", sum, "answered", "count"], ["won", sum, "won", "count"], ["paid", sum, "paid_fen", "yuan"], ["p99_max", most, "latency_p99_us", "micros"], ["lag_max", most, "send_lag_p99_us", "micros"], ["overloaded", sum, "overloaded", "count"], ["disconnects", sum, "disconnects", "count"], ["server_memory", most, "server_resident_bytes", "bytes"], ["server_cores", most, "server_cores", "cores"]];
  return figures.map(([name, of, column, kind]) => ({ name, kind, a: of(one, column), b: of(other, column) }));
}
