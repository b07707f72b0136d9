// All figures of one second, beside the charts; and the last minute as a table, for who would rather read than look.

import { el, say } from "./dom.js";
import { SIDE, TABLE, fullName, tell } from "./figures.js";
import * as format from "./format.js";
import { t } from "./words.js";

const TABLE_ROWS = 60;

export class Side {
  constructor(app, root, title) {
    this.app = app;
    this.root = root;
    this.title = title;
    this.build();
  }

  build() {
    this.values = [];
    const groups = SIDE.map(([name, figures]) => {
      const rows = figures.map(([column, kind]) => {
        const value = el("dd", {}, format.NONE);
        value.dataset.column = column;
        this.values.push([column, kind, value]);
        return [el("dt", {}, fullName(column)), value];
      });
      return el("section", {}, el("h3", {}, t(name)), el("dl", {}, ...rows.flat()));
    });
    this.root.replaceChildren(...groups);
  }

  draw() {
    const { store, view } = this.app;
    const index = view.index(store);
    const second = store.columns.second[index];
    if (second === undefined) return say(this.title, t("side.none"));
    say(this.title, format.clock(second));
    this.title.title = format.utc(second * 1_000);
    this.title.dataset.second = second;
    const partial = store.get("complete", index) === 0;
    this.title.dataset.state = partial ? "warn" : "";
    if (partial) say(this.title, `${format.clock(second)} · ${t("side.partial")}`);
    for (const [column, kind, value] of this.values) {
      const known = store.get(column, index);
      say(value, tell(kind, known));
      const zero = known === 0 || known === null;
      if (value.classList.contains("zero") !== zero) value.classList.toggle("zero", zero);
    }
  }
}

export class LastMinute {
  constructor(app, details) {
    this.app = app;
    this.details = details;
    this.place = details.querySelector("div");
    details.addEventListener("toggle", () => this.draw());
  }

  draw() {
    if (!this.details.open) return;
    const { store, view } = this.app;
    const last = view.fixed ? store.at(view.fixed[1]) : store.length - 1;
    const head = el("tr", {}, el("th", { scope: "col" }, t("table.second")), ...TABLE.map(([column]) => el("th", { scope: "col", class: "n" }, fullName(column))));
    const rows = [];
    for (let at = last; at >= 0 && at > last - TABLE_ROWS; at--) {
      const second = store.columns.second[at];
      const cells = TABLE.map(([column, kind]) => el("td", { class: "n" }, tell(kind, store.get(column, at))));
      rows.push(el("tr", {}, el("th", { scope: "row", title: format.utc(second * 1_000) }, format.clock(second)), ...cells));
    }
    this.place.replaceChildren(el("table", { class: "list" }, el("caption", { class: "visually-hidden" }, t("table.open")), el("thead", {}, head), el("tbody", {}, ...rows)));
  }
}
