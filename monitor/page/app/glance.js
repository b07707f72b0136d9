// The top line: the few figures that tell at a glance whether all is well.

import { stands } from "./books.js";
import { colour, el, faded, fit, say } from "./dom.js";
import * as format from "./format.js";
import { t } from "./words.js";

/** Seconds of a tile's own little curve. */
const CURVE_SECONDS = 90;

/** Below this share of the plan a second's sends are worth a colour; the alert needs some such seconds in a row. */
const BEHIND_SHARE = 0.05;

/** While load runs, a prize is in one book a moment before it is in the other; a residual that stands longer than this is none of those. */
const RESIDUAL_SECONDS = 5;

const TILES = [
  { key: "users", column: "users_online", colour: "s1", tell: format.count },
  { key: "sent", column: "sent", colour: "s1", tell: format.count },
  { key: "answered", column: "answered", colour: "s3", tell: format.count },
  { key: "p99", column: "latency_p99_us", colour: "s4", tell: format.micros },
  { key: "won", column: "won", colour: "s5", tell: format.count },
  { key: "residual", column: "residual_count", colour: "bad", tell: format.difference },
];

export class Glance {
  constructor(app, root, moment) {
    this.app = app;
    this.moment = moment;
    this.tiles = TILES.map((tile) => {
      const parts = {
        ...tile,
        name: el("h3"),
        value: el("output", { class: "figure", id: `figure-${tile.key}` }, "–"),
        sub: el("p", { class: "sub" }, " "),
        canvas: el("canvas", { "aria-hidden": "true" }),
      };
      parts.node = el("article", { class: "card tile" }, parts.name, parts.value, parts.sub, parts.canvas);
      parts.node.dataset.tile = tile.key;
      if (tile.key === "users") {
        parts.progress = el("progress", { max: 1, value: 0 });
        parts.canvas.replaceWith(parts.progress);
        parts.canvas = null;
      }
      root.append(parts.node);
      return parts;
    });
    this.name();
  }

  name() {
    for (const tile of this.tiles) say(tile.name, t(`glance.${tile.key}`));
  }

  draw() {
    const { state, store, view } = this.app;
    // One moment for all of the screen: that which the panel tells. Only while all moves on, a pointer on a chart leaves this line alone.
    const index = state.run || view.fixed ? view.index(store) : store.length - 1;
    const second = store.columns.second[index];
    say(this.moment, second === undefined ? "" : format.clock(second));
    this.moment.dataset.held = String(Boolean(state.run || view.fixed));
    const of = (column) => store.get(column, index);
    for (const tile of this.tiles) {
      // A second in which nothing was answered has no latency, not one of 0.
      say(tile.value, tile.key === "p99" && !of("answered") ? format.NONE : tile.tell(of(tile.column)));
      const { text, state: how } = this.sub(tile.key, of, index);
      say(tile.sub, text);
      tile.node.dataset.state = how ?? "";
      if (tile.canvas) curve(tile, store, index);
    }
  }

  /** What stands below a figure, and its state. */
  sub(key, of, index) {
    const { store } = this.app;
    if (!store.length) return { text: t("glance.waiting") };
    switch (key) {
      case "users": {
        const goal = of("users_goal");
        const tile = this.tiles[0];
        tile.progress.hidden = !goal;
        if (!goal) return { text: t("glance.no_goal") };
        const share = (of("users_online") ?? 0) / goal;
        tile.progress.value = Math.min(share, 1);
        tile.progress.setAttribute("aria-label", format.percent(share));
        return { text: t("glance.of_goal", { goal: format.count(goal), share: format.percent(share) }), state: share >= 1 ? "ok" : "" };
      }
      case "sent": {
        const [planned, sent] = [of("planned"), of("sent")];
        const off = planned > 0 ? (sent - planned) / planned : null;
        return {
          text: t("glance.planned", { planned: format.count(planned), off: off === null ? format.NONE : signed(off) }),
          state: off !== null && off < -BEHIND_SHARE ? "warn" : "",
        };
      }
      case "answered": {
        return { text: t("glance.received", { received: format.count(of("received")), owed: format.count(of("requests_owed")) }) };
      }
      case "p99":
        return { text: t("glance.p50", { p50: format.micros(of("latency_p50_us")), p999: format.micros(of("latency_p999_us")) }) };
      case "won":
        return { text: t("glance.issued", { issued: format.count(of("issued")), paid: format.yuan(of("paid_fen")) }) };
      default: {
        const seconds = stands(store, "residual_count", "residual_money", index);
        if (!seconds && !this.app.everWon()) return { text: t("books.unused") };
        if (!seconds) return { text: t("glance.balanced"), state: "ok" };
        const text = t("glance.unbalanced", { money: format.yuan(of("residual_money"), "+"), seconds: format.count(seconds) });
        return { text, state: seconds > RESIDUAL_SECONDS ? "bad" : "off" };
      }
    }
  }
}

const signed = (share) => (share >= 0 ? "+" : "") + format.percent(share, 2);

/** The last seconds up to a row, small. */
function curve({ canvas, column, colour: token }, store, index) {
  const { context, width, height } = fit(canvas);
  const from = Math.max(0, index - CURVE_SECONDS);
  const values = store.whole(column).slice(from, index + 1);
  const most = Math.max(1, ...values.map((value) => Math.abs(value ?? 0)));
  if (values.filter((value) => value !== null).length < 2 || (column === "residual_count" && !values.some(Boolean))) return; // Nothing is what is wanted there.
  const x = (at) => width - ((values.length - 1 - at) / CURVE_SECONDS) * width;
  const y = (value) => height - 1 - (Math.abs(value ?? 0) / most) * (height - 3);
  context.beginPath();
  const known = values.flatMap((value, at) => (value === null ? [] : [at]));
  for (const at of known) context.lineTo(x(at), y(values[at]));
  context.strokeStyle = colour(token);
  context.lineWidth = 1.25;
  context.stroke();
  context.lineTo(x(known.at(-1)), height);
  context.lineTo(x(known[0]), height);
  context.fillStyle = faded(token, 0.12);
  context.fill();
}
