// The whole run in one strip: how much was sent, what happened, and which part the charts show. The same events as a list beside it.

import { colour, el, faded, fit, say } from "./dom.js";
import { markIcon } from "./charts.js";
import { eventText, folded } from "./events.js";
import * as format from "./format.js";
import { has, t } from "./words.js";

/** Marks nearer to each other than this share one sign. */
const NEAR_PX = 22;
/** Events in the list; more are on the strip and in the recording. */
const LISTED_MAX = 200;
/** Events to come that are shown; the next ones. */
const COMING_MAX = 2;
/** Seconds shown on both sides of an event that was chosen. */
const AROUND_SECONDS = 30;

/** A kind of event in words. */
export function kindName(kind) {
  return has(`mark.${kind}`) ? t(`mark.${kind}`) : kind;
}

/** Groups of marks whose places are nearer than `near`; both sorted. Pure. */
export function clusters(places, near) {
  const out = [];
  for (const [at, place] of places.entries()) {
    const last = out.at(-1);
    if (last && place - last.place < near) last.members.push(at);
    else out.push({ place, members: [at] });
  }
  return out;
}

export class Timeline {
  constructor(app, root, list, count) {
    this.app = app;
    this.list = list;
    this.count = count;
    this.lane = el("div", { class: "lane" });
    this.canvas = el("canvas");
    this.brush = el("div", { class: "brush" });
    this.hand = el("div", { class: "hand" });
    this.strip = el("div", { class: "strip", role: "slider", tabIndex: 0 }, this.canvas, this.brush, this.hand);
    this.ends = el("div", { class: "ends" }, el("span"), el("span"), el("span"));
    root.append(this.lane, this.strip, this.ends);
    this.strip.addEventListener("pointerdown", (event) => this.down(event));
    this.strip.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.strip);
    this.shown = 0;
  }

  /** First and last second of the strip. */
  span() {
    const { store } = this.app;
    return [store.first, Math.max(store.until, store.first + 60)];
  }

  place(second) {
    const [from, until] = this.span();
    return (second - from) / (until - from);
  }

  draw() {
    const { store, view } = this.app;
    const { context, width, height } = fit(this.canvas);
    this.strip.setAttribute("aria-label", t("timeline.strip"));
    if (!store.length || !width) return;
    const [from, until] = this.span();
    this.curve(context, width, height, from, until);
    const [start, end] = view.range(store);
    const [left, right] = [Math.max(0, this.place(start)), Math.min(1, this.place(end))];
    this.brush.style.left = `${left * 100}%`;
    this.brush.style.width = `${Math.max(right - left, 0.002) * 100}%`;
    this.tell();
    const [first, unit, last] = this.ends.children;
    const most = (name) => format.count((store.columns[name] ?? []).reduce((max, value) => Math.max(max, value ?? 0), 0));
    say(first, format.clock(from));
    say(unit, t("timeline.unit", { sent: most("sent"), users: most("users_online") }));
    say(last, format.clock(until));
    this.marks(width);
  }

  /** Where the second is that is looked at. */
  tell() {
    const { store, view } = this.app;
    const index = view.index(store);
    const second = store.columns.second[index];
    if (second === undefined) return;
    this.hand.hidden = view.second === null;
    this.hand.style.left = `${this.place(second) * 100}%`;
    this.strip.setAttribute("aria-valuemin", store.first);
    this.strip.setAttribute("aria-valuemax", store.until);
    this.strip.setAttribute("aria-valuenow", second);
    this.strip.setAttribute("aria-valuetext", t("timeline.value", { time: format.clock(second), sent: format.count(store.get("sent", index)), answered: format.count(store.get("answered", index)) }));
  }

  curve(context, width, height, from, until) {
    const { store } = this.app;
    const draw = (name, token, fill) => {
      const values = store.whole(name);
      const peaks = new Float64Array(Math.ceil(width));
      let most = 1;
      for (let at = 0; at < store.length; at++) {
        const x = Math.min(Math.floor(((store.columns.second[at] - from) / (until - from)) * width), peaks.length - 1);
        if (values[at] !== null) peaks[x] = Math.max(peaks[x], values[at]);
        if (peaks[x] > most) most = peaks[x];
      }
      const step = ((store.every || 1) / (until - from)) * width;
      context.beginPath();
      context.moveTo(0, height);
      let value = 0;
      let since = 0;
      for (let x = 0; x < peaks.length; x++) {
        // Between two seconds of a short run lie pixels without one; they hold what came before.
        if (peaks[x] > 0 || since > step + 1) [value, since] = [peaks[x], 0];
        else since++;
        context.lineTo(x, height - (value / most) * (height - 4));
      }
      context.lineTo(width, height);
      if (fill) {
        context.fillStyle = faded(token, 0.22);
        context.fill();
      } else {
        context.strokeStyle = colour(token);
        context.stroke();
      }
    };
    draw("users_online", "s-plan", true);
    draw("sent", "s1", true);
  }

  marks(width) {
    const { store } = this.app;
    const marks = folded(this.app.marks);
    // What is announced for later gets its place when it is there.
    const visible = marks.filter((mark) => mark.at_ms / 1_000 >= store.first - 5 && mark.at_ms / 1_000 < store.until + 2);
    const groups = clusters(visible.map((mark) => Math.max(0, this.place(mark.at_ms / 1_000)) * width), NEAR_PX);
    const key = `${width} ${groups.map((group) => `${Math.round(group.place)}:${group.members.length}`).join()} ${marks.length} ${document.documentElement.lang}`;
    if (key !== this.drawn) {
      this.drawn = key;
      const focused = this.lane.contains(document.activeElement) ? [...this.lane.children].indexOf(document.activeElement) : -1;
      const signs = groups.map(({ place, members }) => {
        const those = members.map((at) => visible[at]);
        const worst = those.find((mark) => mark.kind === "alert") ?? those.at(-1);
        const text = those.map((mark) => `${format.clock(mark.at_ms / 1_000)} ${kindName(mark.kind)}: ${eventText(mark.text)}`).join("\n");
        const sign = el("button", { type: "button", class: place > width / 2 ? "mark to-left" : "mark", "aria-label": text, onclick: () => this.go(worst) }, markIcon(worst.kind), those.length > 1 ? el("sup", {}, String(those.length)) : null);
        sign.style.left = `${Math.min(place, width - 1)}px`;
        return sign;
      });
      this.lane.replaceChildren(...signs);
      if (focused >= 0) this.lane.children[Math.min(focused, signs.length - 1)]?.focus();
    }
    this.entries(marks);
  }

  /** The list: what comes next, now, and what was, newest first. */
  entries(marks) {
    const { run, state, store } = this.app;
    const over = Boolean(state.run || run?.ended_at_ms);
    const due = (mark) => over || mark.at_ms / 1_000 < store.until + 2;
    const key = `${over} ${marks.length} ${marks.filter(due).length} ${marks.at(-1)?.told} ${document.documentElement.lang}`;
    if (key === this.listed) return;
    this.listed = key;
    say(this.count, marks.length ? format.count(marks.length) : "");
    const coming = marks.filter((mark) => !due(mark));
    const been = marks.filter(due).slice(-LISTED_MAX).reverse();
    const next = coming.slice(0, COMING_MAX).reverse().map((mark) => this.entry(mark, true));
    const more = coming.length - next.length;
    if (more > 0) next.unshift(el("li", { class: "none" }, t("marks.more", { count: format.count(more) })));
    if (next.length) next.push(el("li", { class: "now" }, t("marks.now")));
    const items = been.map((mark) => this.entry(mark, false));
    this.list.replaceChildren(...next, ...(items.length ? items : [el("li", { class: "none" }, t("marks.none"))]));
  }

  entry(mark, later) {
    const time = el("time", { dateTime: new Date(mark.at_ms).toISOString(), title: format.utc(mark.at_ms) }, format.clock(mark.at_ms / 1_000));
    const source = [mark.source, mark.told].filter(Boolean).join(", ");
    const words = el("span", { class: "what" }, later ? el("i", {}, `${t("marks.later")} `) : null, el("b", {}, kindName(mark.kind)), ` ${eventText(mark.text)}`, source ? el("small", {}, ` ${eventText(source)}`) : null);
    const item = el("li", {}, el("button", { type: "button", onclick: () => this.go(mark) }, time, markIcon(mark.kind), words));
    item.dataset.kind = mark.kind;
    return item;
  }

  go(mark) {
    const second = Math.floor(mark.at_ms / 1_000);
    this.app.view.second = second;
    this.app.zoom(second - AROUND_SECONDS, second + AROUND_SECONDS);
  }

  down(event) {
    if (event.button !== 0 || !this.app.store.length) return;
    const box = this.strip.getBoundingClientRect();
    const [from, until] = this.span();
    const second = (x) => from + Math.min(Math.max((x - box.left) / box.width, 0), 1) * (until - from);
    const start = event.clientX;
    this.strip.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const [one, other] = [second(start), second(moved.clientX)].sort((a, b) => a - b);
      if (Math.abs(moved.clientX - start) > 4) this.app.zoom(one, other);
    };
    const up = (ended) => {
      this.strip.removeEventListener("pointermove", move);
      if (ended.type === "pointerup" && Math.abs(ended.clientX - start) <= 4) {
        const [a, b] = this.app.view.range(this.app.store);
        const half = Math.min(b - a, (until - from) / 2) / 2;
        this.app.zoom(second(start) - half, second(start) + half);
      }
    };
    this.strip.addEventListener("pointermove", move);
    this.strip.addEventListener("pointerup", up, { once: true });
    this.strip.addEventListener("pointercancel", up, { once: true });
  }

  key(event) {
    const { store, view } = this.app;
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10, Home: -store.length, End: store.length }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    view.step(by, store);
    this.app.pinned();
  }
}
