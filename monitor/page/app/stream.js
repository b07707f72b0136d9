// The live run: first its history, then what happens, and after an interruption what was missed. Each second is told to the store
// once, whichever way it comes.

import { ask } from "./dom.js";
import { ROWS_MAX } from "./store.js";

/** Pauses between attempts, ms: doubled from the first to the last, with up to a quarter added so that a crowd does not return at once. */
const PAUSE_MS = [500, 15_000];
/** Without a word for this long the connection is taken for dead: something comes at least every 10 s. */
const SILENCE_MS = 25_000;

/** How long to wait before the attempt of that number, from 0. */
export function pause(attempt, chance = Math.random()) {
  return Math.min(PAUSE_MS[0] * 2 ** Math.min(attempt, 10), PAUSE_MS[1]) * (1 + chance / 4);
}

/** Seconds that are to be folded into one row, so that a run of that length fits. */
export function everyFor(seconds) {
  return Math.max(1, Math.ceil(seconds / ROWS_MAX));
}

export class Stream {
  /**
   * `on`: `run(status, id)`, `second(row)`, `history()`, `sources(list)`, `sets(by server)`, `mark(mark)`, `end(status)`,
   * `state("connecting" | "live" | "lost" | "ended", ms until the next attempt)`, `locked()`.
   */
  constructor(store, on) {
    this.store = store;
    this.on = on;
    this.attempt = 0;
    this.stopped = false;
  }

  start() {
    this.connect();
  }

  stop() {
    this.stopped = true;
    this.close();
    clearTimeout(this.timer);
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.silence);
  }

  async connect() {
    this.on.state("connecting");
    try {
      // An EventSource does not say why it is refused; this does.
      await ask("/api/v1/run");
    } catch (error) {
      if (error.status === 401) return this.on.locked();
      return this.again();
    }
    if (this.stopped) return;
    this.source = new EventSource("/api/v1/stream");
    this.held = [];
    const listen = (name, take) =>
      this.source.addEventListener(name, (event) => {
        this.heard();
        take(JSON.parse(event.data));
      });
    listen("hello", (hello) => this.hello(hello));
    listen("second", (row) => (this.held ? this.held.push(row) : this.second(row)));
    listen("sources", (list) => this.on.sources(list));
    listen("sets", (sets) => this.on.sets(sets));
    listen("mark", (mark) => this.on.mark(mark));
    listen("end", (run) => {
      this.ended = true;
      this.close();
      this.on.end(run);
      this.on.state("ended");
    });
    this.source.onerror = () => this.lost();
    this.heard();
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lost(), SILENCE_MS);
  }

  lost() {
    if (this.stopped || this.ended) return;
    this.close();
    this.again();
  }

  again() {
    if (this.stopped) return;
    const wait = pause(this.attempt++);
    this.on.state("lost", wait);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  async hello({ run, id, version }) {
    if (this.store.run && this.store.run !== id) this.store.clear();
    this.on.run(run, id, version);
    try {
      const from = this.store.lastSecond ? `&from=${this.store.lastSecond + 1}` : "";
      const every = this.store.length ? this.store.every : everyFor(run.seconds ?? 0);
      const series = await ask(`/api/v1/series?every=${every}${from}`);
      this.store.load(series);
      this.store.run = id;
    } catch {
      return this.lost();
    }
    const held = this.held ?? [];
    this.held = null;
    for (const row of held) this.store.append(row);
    this.attempt = 0;
    this.on.history();
    if (!this.ended) this.on.state(run.ended_at_ms ? "ended" : "live");
  }

  second(row) {
    if (this.store.append(row)) this.on.second(row);
  }
}
