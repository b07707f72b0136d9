// The two books: what servers say they gave, what users say they got, and the difference, which must be 0.

import { el, say } from "./dom.js";
import * as format from "./format.js";
import { t } from "./words.js";

const BOOKS = ["rain", "sales", "envelopes"];

/** Adds up a recorded run's columns to its books: flows are given, residuals say what the users' side is. Pure. */
export function fromColumns(store, index = store.length - 1) {
  const sum = (name) => (store.columns[name] ?? []).slice(0, index + 1).reduce((all, value) => all + (value ?? 0), 0) * store.every;
  const book = (name, count, fen, residual, residualFen) => {
    const [servers, money] = [sum(count), sum(fen)];
    const [left, leftFen] = [store.get(residual, index) ?? 0, store.get(residualFen, index) ?? 0];
    const balanced = left === 0 && leftFen === 0;
    return {
      book: name,
      servers_count: servers,
      servers_fen: money,
      users_count: servers - left,
      users_fen: money - leftFen,
      residual_count: left,
      residual_fen: leftFen,
      balanced,
      unbalanced_seconds: balanced ? 0 : stands(store, residual, residualFen, index),
    };
  };
  return {
    until: store.columns.second[index],
    books: [
      book("rain", "won", "paid_fen", "residual_prizes", "residual_fen"),
      book("sales", "units_sold", "earned_fen", "residual_units", "residual_sale_fen"),
      book("envelopes", "shares_opened", "opened_fen", "residual_shares", "residual_share_fen"),
    ],
  };
}

/** For how many seconds in a row, up to a row, a residual has not been 0. Pure. */
export function stands(store, count, fen, index) {
  let rows = 0;
  while (index - rows >= 0 && (store.get(count, index - rows) || store.get(fen, index - rows))) rows++;
  return rows * store.every;
}

export class Books {
  constructor(root, state, moment) {
    this.moment = moment;
    this.root = root;
    this.state = state;
    this.shown = null;
    this.build();
  }

  build() {
    const head = (text, more = {}) => el("th", { scope: "col", ...more }, text);
    const group = (text) => el("th", { scope: "colgroup", colSpan: 2, class: "n group" }, text);
    this.cells = new Map();
    const rows = BOOKS.map((book) => {
      const cells = Object.fromEntries(
        ["servers_count", "servers_fen", "users_count", "users_fen", "residual_count", "residual_fen"].map((name) => [
          name,
          el("td", { class: name.endsWith("_fen") ? "n money" : "n" }, format.NONE),
        ]),
      );
      for (const side of ["servers", "users", "residual"]) cells[`${side}_count`].dataset.side = t(`books.${side}`);
      cells.state = el("td", { class: "state" });
      cells.row = el("tr", {}, el("th", { scope: "row" }, el("b", {}, t(`books.${book}`)), el("small", {}, t(`books.${book}.what`))), ...Object.values(cells));
      cells.row.dataset.book = book;
      this.cells.set(book, cells);
      return cells.row;
    });
    this.root.replaceChildren(
      el(
        "table",
        { class: "ledger" },
        el("thead", {}, el("tr", {}, head(t("books.book")), group(t("books.servers")), group(t("books.users")), group(t("books.residual")), head(t("books.state")))),
        el("tbody", {}, ...rows),
      ),
    );
    // On a phone the rows are laid out as blocks, which would take these meanings away.
    for (const [selector, role] of [["table", "table"], ["thead, tbody", "rowgroup"], ["tr", "row"], ["td", "cell"], ["thead th", "columnheader"], ["tbody th", "rowheader"]]) {
      for (const node of this.root.querySelectorAll(selector)) node.setAttribute("role", role);
    }
    if (this.shown) this.draw(this.shown);
  }

  /** An answer of the interface, or what `fromColumns` made of a run up to a `second`. */
  draw(answer) {
    this.shown = answer;
    say(this.moment, answer.until ? t("books.until", { time: format.clock(answer.until) }) : t("books.now"));
    for (const book of answer.books ?? []) {
      const cells = this.cells.get(book.book);
      if (!cells) continue;
      const empty = !book.servers_count && !book.users_count && book.balanced;
      for (const side of ["servers", "users"]) {
        say(cells[`${side}_count`], format.count(book[`${side}_count`]));
        say(cells[`${side}_fen`], format.yuan(book[`${side}_fen`]));
      }
      say(cells.residual_count, format.difference(book.residual_count));
      say(cells.residual_fen, format.yuan(book.residual_fen, "+"));
      cells.row.dataset.state = empty ? "empty" : book.balanced ? "ok" : "bad";
      const names = [book.servers_source, book.users_source].filter(Boolean).join(" ↔ ");
      const seconds = t("books.seconds", { seconds: format.count(book.unbalanced_seconds) });
      say(cells.state, empty ? t("books.unused") : book.balanced ? t("books.balanced") : [seconds, names].filter(Boolean).join(" · "));
    }
    const off = (answer.books ?? []).filter((book) => !book.balanced);
    const unused = (answer.books ?? []).every((book) => !book.servers_count && !book.users_count);
    this.state.dataset.state = off.length ? "bad" : unused ? "" : "ok";
    const words = unused && !off.length ? t("books.unused") : off.length ? t("books.off", { books: off.map((book) => t(`books.${book.book}`)).join(", ") }) : t("books.even");
    say(this.state.querySelector("b"), answer.joined_late ? `${words} (${t("books.late")})` : words);
  }
}
