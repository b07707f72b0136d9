// What stretch of the run is shown, and which of its seconds is looked at. Pure.

import { inside } from "./scales.js";

/** A run shorter than this is shown with room for what comes. */
const LEAST_SECONDS = 60;
/** Nobody can see less. */
export const ZOOM_SECONDS_MIN = 5;

export class View {
  constructor({ window = 300, from = null, until = null } = {}) {
    this.window = window;
    this.fixed = from === null ? null : [from, until];
    /** The second that is looked at, if any; and the one that the pointer is on. */
    this.second = null;
    this.hover = null;
  }

  /** Whether the view moves on with time. */
  get following() {
    return this.fixed === null;
  }

  /** [first, last] second shown of a store. */
  range(store) {
    if (this.fixed) return this.fixed;
    if (!store.length) return [0, LEAST_SECONDS];
    const until = store.until;
    const from = this.window ? Math.max(store.first, until - this.window) : store.first;
    return [from, Math.max(until, from + Math.min(this.window || LEAST_SECONDS, LEAST_SECONDS))];
  }

  /** Stands still where it is. */
  pause(store) {
    if (this.fixed) return;
    const [from] = this.range(store);
    // Room for what comes would fill up: nothing may move while the view stands still.
    const until = store.length ? store.until : from + LEAST_SECONDS;
    this.fixed = [Math.min(Math.round(from), until - ZOOM_SECONDS_MIN), until];
  }

  /** Follows again. */
  follow(window = this.window) {
    this.fixed = null;
    this.window = window;
  }

  /** Shows [from, until], not less than can be seen and not beyond the run. */
  zoom(from, until, store) {
    let [start, end] = [Math.floor(from), Math.ceil(until)];
    if (end - start < ZOOM_SECONDS_MIN) {
      start = Math.round((start + end - ZOOM_SECONDS_MIN) / 2);
      end = start + ZOOM_SECONDS_MIN;
    }
    const last = Math.max(store.until, store.first + ZOOM_SECONDS_MIN);
    this.fixed = store.length ? inside(start, end, store.first, last) : [start, end];
  }

  /** Shows a part or a multiple of what is shown, round the second looked at or the middle. */
  scale(factor, store) {
    const [from, until] = this.range(store);
    const around = this.second ?? (from + until) / 2;
    this.zoom(around - (around - from) * factor, around + (until - around) * factor, store);
  }

  /** Moves what is shown by a share of its length. */
  move(share, store) {
    const [from, until] = this.range(store);
    const by = Math.round((until - from) * share);
    this.zoom(from + by, until + by, store);
  }

  /** Index of the row whose figures are told: that under the pointer, that looked at, else the last one shown. */
  index(store) {
    const second = this.hover ?? this.second;
    if (second !== null) return store.at(second);
    return this.fixed ? store.at(this.fixed[1]) : store.length - 1;
  }

  /** Looks `by` rows further; the view goes along. */
  step(by, store) {
    if (!store.length) return;
    const [from, until] = this.range(store);
    this.hover = null;
    const index = Math.min(Math.max(this.index(store) + by, 0), store.length - 1);
    this.second = store.columns.second[index];
    if (this.second < from || this.second > until) {
      const half = (until - from) / 2;
      this.zoom(this.second - half, this.second + half, store);
    } else {
      this.pause(store);
    }
  }
}
