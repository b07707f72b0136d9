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

/** What all tabs of the browser listen to together, used as an EventSource is. */
class SharedSource {
  constructor() {
    this.listeners = new Map();
    const worker = new SharedWorker("/page/app/stream-worker.js");
    worker.onerror = () => this.onerror();
    this.port = worker.port;
    this.port.onmessage = ({ data: [name, data] }) => (name === "error" ? this.onerror() : this.listeners.get(name)?.({ data }));
    this.port.postMessage("open");
  }

  addEventListener(name, listener) {
    this.listeners.set(name, listener);
  }

  close(how = "close") {
    this.onerror = () => {};
    this.port.postMessage(how);
    this.port.postMessage("close");
  }
}

/** Browsers without shared workers, which phones are, have few tabs; and none that is hidden keeps its stream. */
const open = () => (globalThis.SharedWorker ? new SharedSource() : new EventSource("/api/v1/stream"));

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
    /** Counts attempts and rests: what an older one waited for is no longer wanted. */
    this.turn = 0;
  }

  /** A tab that nobody sees holds nothing; it catches up when it is looked at. */
  start() {
    if (!document.hidden) this.connect();
  }

  rest() {
    this.turn++;
    this.close();
    clearTimeout(this.timer);
  }

  wake() {
    if (!this.stopped && !this.ended && !this.source) this.connect();
  }

  stop() {
    this.stopped = true;
    this.rest();
  }

  close(how) {
    this.source?.close(how);
    this.source = null;
    clearTimeout(this.silence);
  }

  async connect() {
    const turn = ++this.turn;
    this.on.state("connecting");
    let run;
    try {
      // A stream does not say why it is refused, and one that others have opened tells of the run as it was then.
      run = await ask("/api/v1/run");
    } catch (error) {
      if (turn !== this.turn) return;
      if (error.status === 401) return this.on.locked();
      return this.again();
    }
    if (turn !== this.turn) return;
    this.source = open();
    this.held = [];
    const listen = (name, take) =>
      this.source.addEventListener(name, (event) => {
        this.heard();
        take(JSON.parse(event.data));
      });
    this.source.addEventListener("alive", () => this.heard());
    listen("hello", (hello) => this.hello({ ...hello, run }, turn));
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
    this.silence = setTimeout(() => this.lost("lost"), SILENCE_MS);
  }

  lost(how) {
    if (this.stopped || this.ended) return;
    this.close(how);
    this.again();
  }

  again() {
    if (this.stopped) return;
    const wait = pause(this.attempt++);
    this.on.state("lost", wait);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  async hello({ run, id, version }, turn) {
    if (this.store.run && this.store.run !== id) this.store.clear();
    this.on.run(run, id, version);
    try {
      const from = this.store.lastSecond ? `&from=${this.store.lastSecond + 1}` : "";
      const every = this.store.length ? this.store.every : everyFor(run.seconds ?? 0);
      const series = await ask(`/api/v1/series?every=${every}${from}`);
      if (turn !== this.turn) return;
      this.store.load(series);
      this.store.run = id;
    } catch {
      return turn === this.turn && this.lost();
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
