// Whether a run kept its plan, as the monitor tells it: a word in the list, and a card on top of a run that is over.

import { el } from "./dom.js";
import * as format from "./format.js";
import { t } from "./words.js";

const stateOf = (passed) => (passed === null || passed === undefined ? "" : passed ? "ok" : "bad");

/** PASSED, FAILED, or that nobody judged it. */
export function verdictPill({ passed }) {
  const state = stateOf(passed);
  return el("span", { class: "pill", "data-state": state }, el("i"), el("b", {}, t(`verdict.${state || "none"}`)));
}

/** Seconds that were kept, and those that could be, of a phase or of all. Pure. */
export function kept(phases) {
  const judged = phases.filter((phase) => phase.judged);
  const sum = (of) => judged.reduce((all, phase) => all + of(phase), 0);
  return [sum((phase) => phase.seconds_within_tolerance), sum((phase) => phase.seconds - phase.storm_seconds - phase.changed_seconds)];
}

/** The same in words; nothing where there was no plan. */
export function keptWords(phases) {
  const [seconds, of] = kept(phases).map(format.count);
  return phases.length ? t("verdict.kept", { kept: seconds, of }) : "";
}

function row(phase) {
  const [seconds, of] = kept([{ ...phase, judged: true }]);
  const ms = (value) => el("td", { class: "n" }, value ? format.micros(value * 1_000) : format.NONE);
  const left = phase.storm_seconds + phase.changed_seconds;
  const sign = phase.judged ? (seconds === of ? "✓" : "✗") : "·";
  const line = el(
    "tr",
    {},
    el("th", { scope: "row" }, `${sign} ${phase.name || t("verdict.phase")}`),
    el("td", { class: "n" }, `${format.count(phase.qps_target)} ± ${phase.tolerance}`),
    el("td", { class: "n" }, t("verdict.of", { kept: format.count(seconds), of: format.count(of) })),
    el("td", { class: "n" }, left ? format.count(left) : format.NONE),
    el("td", { class: "n" }, of ? `${phase.worst_deviation_percent.toFixed(1)}%` : format.NONE),
    ...[phase.p50_ms, phase.p99_ms, phase.p999_ms].map(ms),
  );
  line.dataset.state = phase.judged ? stateOf(seconds === of) : "";
  return line;
}

/** Fills the card for a run of the list; hides it where there is none. */
export function drawVerdict(card, run) {
  card.hidden = !run;
  if (!run) return;
  card.dataset.state = stateOf(run.passed);
  const heads = ["phase", "target", "seconds", "left", "worst", "p50", "p99", "p999"].map((head, at) => el("th", { scope: "col", class: at ? "n" : "" }, t(`verdict.head.${head}`)));
  const table = el("table", { class: "list" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...run.phases.map(row)));
  const facts = t("verdict.facts", { users: format.count(run.users_max), length: format.elapsed(run.seconds), qps: format.count(run.qps_max), p99: format.micros(run.latency_p99_us), won: format.count(run.won) });
  const books = run.balanced === null || run.balanced === undefined ? "" : ` · ${t("books.title")}: ${t(run.balanced ? "books.balanced" : "books.differ")}`;
  card.replaceChildren(
    ...[
      el("header", {}, verdictPill(run), el("span", {}, keptWords(run.phases))),
      run.failures.length ? el("ul", {}, ...run.failures.map((failure) => el("li", {}, failure))) : null,
      run.phases.length ? el("div", { class: "scroll-x" }, table) : null,
      el("p", { class: "hint" }, `${facts}${books}${run.by_recording && run.phases.length ? ` · ${t("verdict.by_recording")}` : ""}`),
    ].filter(Boolean),
  );
}
