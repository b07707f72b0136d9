// Servers and the fleet's machines, a row each; any column sorts.

import { el, say } from "./dom.js";
import * as format from "./format.js";
import { t } from "./words.js";

const byName = (one, other) => one.role.localeCompare(other.role) * -1 || one.name.localeCompare(other.name, "en", { numeric: true });
const ORDER = { lost: 0, left: 1, reporting: 2 };

/** Columns: what they sort by, and how they are told. */
const COLUMNS = [
  { key: "state", of: (source) => ORDER[source.presence] ?? 3 },
  { key: "name", of: null },
  { key: "online", number: true, of: (source) => source.online ?? -1 },
  { key: "clock", number: true, of: (source) => (source.clock_offset_us === null || source.clock_offset_us === undefined ? -1 : Math.abs(source.clock_offset_us)) },
  { key: "cpu", number: true, of: (source) => source.cpu_us ?? -1 },
  { key: "memory", number: true, of: (source) => source.resident_bytes ?? -1 },
  { key: "seen", number: true, of: (source) => source.last_second ?? -1 },
];

/** Sources in the order of a column; those alike by name. Pure. */
export function sorted(sources, key, down) {
  const column = COLUMNS.find((one) => one.key === key);
  const compare = column?.of ? (one, other) => column.of(one) - column.of(other) || byName(one, other) : byName;
  const list = sources.toSorted(compare);
  return down ? list.reverse() : list;
}

/** Offset and error: +0.012 ± 0.014 ms. Pure. */
export function clockOffset(source) {
  if (source.clock_offset_us === null || source.clock_offset_us === undefined) return format.NONE;
  const sign = source.clock_offset_us > 0 ? "+" : "";
  const error = source.clock_error_us === null || source.clock_error_us === undefined ? "" : ` ± ${format.micros(source.clock_error_us)}`;
  return `${sign}${format.micros(source.clock_offset_us)}${error}`;
}

export class Machines {
  constructor(root, count) {
    this.root = root;
    this.count = count;
    this.sources = [];
    this.rows = new Map();
    this.key = "name";
    this.down = false;
    this.build();
  }

  build() {
    this.rows.clear();
    this.heads = COLUMNS.map((column) => {
      const button = el("button", { type: "button", class: "sort", onclick: () => this.sort(column.key) }, t(`machines.${column.key}`));
      return el("th", { scope: "col", class: column.number ? "n" : "" }, button);
    });
    this.body = el("tbody");
    this.root.replaceChildren(el("table", { class: "list" }, el("thead", {}, el("tr", {}, ...this.heads)), this.body));
    this.draw();
  }

  sort(key) {
    this.down = this.key === key && !this.down;
    this.key = key;
    this.draw();
  }

  take(sources) {
    this.sources = sources;
    this.draw();
  }

  draw() {
    COLUMNS.forEach(({ key }, at) => {
      if (key === this.key) this.heads[at].setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else this.heads[at].removeAttribute("aria-sort");
    });
    const reporting = this.sources.filter((source) => source.presence === "reporting").length;
    say(this.count, this.sources.length ? t("machines.count", { reporting: format.count(reporting), all: format.count(this.sources.length) }) : "");
    if (!this.sources.length) return this.body.replaceChildren(el("tr", {}, el("td", { colSpan: COLUMNS.length, class: "none" }, t("machines.none"))));
    const list = sorted(this.sources, this.key, this.down);
    const newest = Math.max(...list.map((source) => source.last_second ?? 0));
    const wanted = list.map((source) => this.row(source, newest));
    wanted.forEach((row, at) => {
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] ?? null);
    });
    while (this.body.children.length > wanted.length) this.body.lastChild.remove();
  }

  row(source, newest) {
    const id = `${source.role}/${source.name}`;
    if (!this.rows.has(id)) {
      const cells = COLUMNS.map((column) => (column.key === "name" ? el("th", { scope: "row" }) : el("td", { class: column.number ? "n" : "" })));
      cells[0].append(el("i", { class: "dot" }), el("span"));
      cells[2].append(el("span"), el("progress", { max: 1, value: 0, "aria-hidden": "true" }));
      this.rows.set(id, { row: el("tr", {}, ...cells), cells });
    }
    const { row, cells } = this.rows.get(id);
    row.dataset.presence = source.presence;
    say(cells[0].lastChild, t(`presence.${source.presence}`));
    say(cells[1], source.name);
    const [online, bar] = cells[2].children;
    say(online, source.users ? `${format.count(source.online)} / ${format.count(source.users)}` : format.count(source.online));
    bar.hidden = !source.users;
    if (source.users) bar.value = Math.min((source.online ?? 0) / source.users, 1);
    say(cells[3], clockOffset(source));
    say(cells[4], source.cpu_us === null || source.cpu_us === undefined ? format.NONE : format.cores(source.cpu_us / 1e6));
    say(cells[5], format.bytes(source.resident_bytes));
    const behind = source.last_second ? newest - source.last_second : null;
    say(cells[6], behind === null ? format.NONE : behind === 0 ? t("machines.now") : t("machines.ago", { time: format.elapsed(behind) }));
    return row;
  }
}
