// A run's report: this page in one file, with the run in it. What a monitor would answer is carried along; the verdict, the tables and
// the experiment's charts stand round what the page shows of every run.

import { $, carried, el } from "./dom.js";
import { t } from "./words.js";

/** A table of texts; columns before `text_from`, or all where there is none, hold figures. */
function card({ title, note, head, rows, text_from: textFrom }) {
  const kind = (column) => (column === 0 || (textFrom && column >= textFrom) ? "" : "n");
  const line = (tag, cells) => el("tr", {}, ...cells.map((cell, at) => el(at || tag === "th" ? tag : "th", { class: kind(at), scope: tag === "th" ? "col" : at ? null : "row" }, cell)));
  const table = el("table", { class: "list" }, el("thead", {}, line("th", head)), el("tbody", {}, ...rows.map((row) => line("td", row))));
  return el("section", { class: `card${head.length > 5 ? " wide" : ""}` }, el("header", {}, el("h2", {}, title)), el("div", { class: "scroll-x" }, table), note ? el("p", { class: "hint" }, note) : null);
}

function picture({ file, title, svg }) {
  const href = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  return el("a", { class: "card", href, download: `${file}.svg`, title: t("report.save") }, el("img", { alt: title, loading: "lazy", src: href }));
}

/** Tables of what the page itself shows: its events are the timeline. */
const SHOWN_ALREADY = ["Timeline"];

/** What is opened by who wants it. */
function part(key, ...content) {
  const heading = el("h2", {}, t(key));
  heading.dataset.t = key;
  return el("details", { class: "part" }, el("summary", {}, heading), ...content);
}

/** Puts it all on the page; once, before anything is drawn. */
export function showReport() {
  const { passed, verdict, failures, tables, charts } = carried.report;
  document.documentElement.dataset.report = "";
  const state = passed === null ? "" : passed ? "ok" : "bad";
  const told = $("summary");
  told.hidden = false;
  told.dataset.state = state;
  told.append(el("p", {}, verdict), ...(failures.length ? [el("ul", {}, ...failures.map((failure) => el("li", {}, failure)))] : []));
  const some = (leads) => el("section", { class: "report" }, ...tables.filter((table) => table.leads === leads && !SHOWN_ALREADY.includes(table.title)).map(card));
  $("glance").before(some(true));
  $("live").append(part("report.charts", el("section", { class: "pictures" }, ...charts.map(picture))), part("report.tables", some(false)));
}
