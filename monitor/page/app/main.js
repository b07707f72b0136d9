// Puts the page together: what is known, what is shown, and who draws it. Whatever changes asks for one drawing in the next frame.

import { Books, fromColumns } from "./books.js";
import { Charts } from "./charts.js";
import { Controls } from "./controls.js";
import { $, ask, carried, el, forgetColours, icon, say } from "./dom.js";
import { DERIVED } from "./figures.js";
import * as format from "./format.js";
import { Glance } from "./glance.js";
import { Machines } from "./machines.js";
import { showReport } from "./report.js";
import { Runs } from "./runs.js";
import { Sets } from "./sets.js";
import { LastMinute, Side } from "./side.js";
import { WINDOWS, format as addressOf, parse, windowName } from "./state.js";
import { Store } from "./store.js";
import { Stream, everyFor } from "./stream.js";
import { Timeline } from "./timeline.js";
import { drawVerdict } from "./verdict.js";
import { View } from "./view.js";
import { LANGUAGES, detect, language, read as stored, setLanguage, t, translate, write as store } from "./words.js";

/** Marks kept; the oldest go first. */
const MARKS_MAX = 2_000;
/** Keys of the windows, in their order. */
const WINDOW_KEYS = ["1", "2", "3", "4", "5"];

class App {
  constructor() {
    this.store = new Store(DERIVED);
    this.marks = [];
    this.run = null;
    this.zoom = this.zoom.bind(this);
    this.reset = this.reset.bind(this);
    this.look = this.look.bind(this);
    this.read();
  }

  /** Takes the view from the address. */
  read() {
    this.state = parse(location.search);
    if (carried) Object.assign(this.state, { view: "live", run: carried.run });
    const { from, until, run, window } = this.state;
    this.view = new View({ window: run && !location.search.includes("window=") ? 0 : window, from, until });
  }

  start() {
    if (carried) showReport();
    this.glance = new Glance(this, $("glance"), $("moment"));
    this.books = new Books($("books"), $("books-state"), $("books-moment"));
    this.machines = new Machines($("machines"), $("machines-count"));
    this.sets = new Sets(this, $("sets"), $("set-figures"), $("sets-count"));
    this.timeline = new Timeline(this, $("timeline"), $("events"), $("events-count"));
    this.side = new Side(this, $("side"), $("side-title"));
    this.table = new LastMinute(this, $("table"));
    this.charts = new Charts(this, $("charts"), $("more"));
    this.runs = new Runs(this, $("runs"));
    this.controls = new Controls(this, $("controls"), $("operator"), $("gate"));
    this.buttons();
    this.keys();
    this.show();
    if (!carried) this.controls.whoAmI();
    setInterval(() => this.clock(), 1_000);
  }

  // What is looked at

  /** Shows the view of the state: the live run, a recorded one, the list, or a comparison. */
  show() {
    const live = this.state.view === "live";
    $("live").hidden = !live;
    $("runs").hidden = live;
    for (const link of document.querySelectorAll("nav [data-view]")) {
      const here = link.dataset.view === (live && !this.state.run ? "live" : "runs");
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.stream?.stop();
    this.stream = null;
    if (!live) return this.runs.show(this.state);
    this.title();
    if (this.state.run) return this.recorded(this.state.run);
    this.stream = new Stream(this.store, {
      run: (run, id, version) => this.hello(run, id, version),
      history: () => this.history(),
      second: () => this.second(),
      sources: (sources) => this.machines.take(sources),
      sets: (sets) => this.sets.take(sets),
      mark: (mark) => this.mark(mark),
      end: (run) => ((this.run = run), this.clock(), this.judged(), this.askBooks(), this.draw()),
      state: (state, wait) => this.connection(state, wait),
      locked: () => this.controls.lock(() => this.show()),
    });
    this.stream.start();
  }

  /** Another view, as a link would: the browser's way back leads here. */
  go(state) {
    this.leave();
    history.pushState(null, "", location.pathname + addressOf({ ...this.state, ...state }, this.kept()));
    this.arrive();
  }

  leave() {
    this.stream?.stop();
  }

  arrive() {
    this.read();
    this.store.clear();
    this.marks = [];
    this.run = null;
    drawVerdict($("summary"), null);
    this.sets.take({});
    this.machines.take([]);
    this.show();
    this.segments();
    this.draw();
  }

  async recorded(id) {
    this.connection("recorded");
    try {
      const run = (await ask("/api/v1/runs")).runs.find((one) => one.id === id);
      const every = everyFor(run?.seconds ?? 0);
      const [series, marks] = await Promise.all([ask(`/api/v1/runs/${encodeURIComponent(id)}/series?every=${every}`), ask(`/api/v1/runs/${encodeURIComponent(id)}/marks`)]);
      if (this.state.run !== id) return;
      this.run = run ?? null;
      if (!carried) drawVerdict($("summary"), run);
      this.store.load(series);
      this.store.run = id;
      this.marks = marks.marks ?? [];
      // A run ends with seconds in which nothing happens any more; the last busy one says more.
      const answers = this.store.columns.answered ?? [];
      const most = answers.reduce((max, answered) => Math.max(max, answered ?? 0), 0);
      const busy = most ? answers.findLastIndex((answered) => answered >= most / 2) : -1;
      if (this.view.second === null && this.view.following && busy >= 0) this.view.second = this.store.columns.second[busy];
      this.past();
      this.title();
      this.clock();
      this.draw();
    } catch (error) {
      if (error.status === 401) return this.controls.lock(() => this.show());
      this.notice(t("runs.cannot", { run: id, problem: error.message }));
    }
  }

  /** The live run is over: what it came to. */
  async judged() {
    const { runs } = await ask("/api/v1/runs").catch(() => ({ runs: [] }));
    const run = runs.find((one) => one.live);
    if (run?.phases.length) drawVerdict($("summary"), run);
  }

  /** Servers, machines and SETs of a recorded run, as they were in the second that is looked at. */
  async past() {
    const run = this.state.run;
    const at = this.store.columns.second[this.view.index(this.store)];
    if (!run || this.pasting || at === this.pastAt) return;
    [this.pasting, this.pastAt] = [true, at];
    const take = (path, then) => ask(`/api/v1/runs/${encodeURIComponent(run)}/${path}?at=${at}`).then((answer) => this.state.run === run && then(answer), () => {});
    await Promise.all([take("sources", ({ sources }) => this.machines.take(sources)), take("sets", (sets) => this.sets.take(sets.sets ?? sets))]);
    this.pasting = false;
    this.past();
  }

  // What happens

  hello(run, id, version) {
    this.run = run;
    this.id = id;
    say($("version"), `hongbao-monitor ${version ?? run.version ?? ""}`);
    const host = run.host;
    say($("host"), host ? t("run.host", { cpus: format.count(host.cpus), model: host.cpu_model ?? "", memory: format.bytes(host.memory_bytes) }) : "");
    this.title();
    this.clock();
  }

  async history() {
    this.draw();
    this.askBooks();
    // Each is shown as soon as it is there; what fails comes again with the stream.
    const take = (path, then) => ask(path).then(then, () => {});
    take("/api/v1/marks", ({ marks }) => ((this.marks = merged(marks ?? [], this.marks)), this.draw()));
    take("/api/v1/sources", ({ sources }) => this.machines.sources.length || this.machines.take(sources ?? []));
    take("/api/v1/sets", (sets) => this.sets.sets.length || this.sets.take(sets.sets ?? sets));
  }

  second() {
    if (this.run) this.run.seconds = (this.run.seconds ?? 0) + 1;
    this.askBooks();
    this.draw();
  }

  mark(mark) {
    this.marks = merged(this.marks, [mark]).slice(-MARKS_MAX);
    this.draw();
  }

  async askBooks() {
    if (this.asking || document.hidden) return;
    this.asking = true;
    try {
      const answer = await ask("/api/v1/books");
      this.books.draw(answer.books ? answer : { ...fromColumns(this.store), until: null, ...answer });
    } catch {
      // The next second asks again.
    }
    this.asking = false;
  }

  // Drawing

  draw() {
    if (this.frame || this.state.view !== "live") return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      const began = performance.now();
      this.emptiness();
      this.glance.draw();
      this.charts.draw();
      this.timeline.draw();
      this.side.draw();
      this.table.draw();
      if (this.state.run && this.store.length) this.books.draw(fromColumns(this.store, this.view.index(this.store)));
      const last = this.store.length - 1;
      const missing = this.store.get("complete", last) === 0;
      if (missing && this.view.following) {
        this.notice(t("notice.partial", { reported: format.count(this.store.get("sources_reported", last)), expected: format.count(this.store.get("sources_expected", last)) }));
      } else if (this.run?.record_failures) {
        this.notice(t("notice.recording"));
      } else {
        this.notice("");
      }
      // To be read by whoever wonders whether this machine keeps up.
      const took = performance.now() - began;
      this.redraws = [...(this.redraws ?? []).slice(-59), took];
      $("redraw").dataset.ms = took.toFixed(1);
      $("redraw").dataset.rows = this.store.length;
      say($("redraw"), t("foot.redraw", { ms: format.count(took), rows: format.count(this.store.length) }));
    });
  }

  /** What the fleet is to send now, if anything. */
  qps() {
    return this.store.columns.planned?.findLast((planned) => planned !== null) || null;
  }

  /** Whether any book has an entry: before, there is nothing that could agree. */
  everWon() {
    return ["won", "units_sold", "shares_opened"].some((name) => this.store.columns[name]?.some((value) => value > 0));
  }

  /** Until a server or a machine has reported there is nothing to show: how one connects is said instead. */
  emptiness() {
    const empty = !this.state.run && !this.machines.sources.length && !this.store.length;
    if ($("empty").hidden === !empty && document.body.classList.contains("is-empty") === empty) return;
    $("empty").hidden = !empty;
    document.body.classList.toggle("is-empty", empty);
    this.pill();
  }

  /** Only another second is looked at: figures change, lines do not. */
  retell() {
    if (this.telling) return;
    this.telling = requestAnimationFrame(() => {
      this.telling = null;
      this.charts.tell(this.view.index(this.store));
      this.side.draw();
      this.timeline.tell();
      if (this.state.run || !this.view.following) this.glance.draw();
      if (this.state.run) this.books.draw(fromColumns(this.store, this.view.index(this.store)));
      if (this.state.run && !carried) this.past();
    });
  }

  notice(text) {
    $("notice").hidden = !text;
    say($("notice"), text);
  }

  title() {
    const name = this.state.run ?? this.id;
    say($("run-name"), nameOf(this.run, name));
    document.title = `${name ? `${name} · ` : ""}${t("app.title")}`;
  }

  clock() {
    const begun = this.run?.started_at_ms;
    const ended = this.run?.ended_at_ms ?? (this.state.run && this.store.length ? this.store.until * 1_000 : null);
    say($("elapsed"), begun ? format.elapsed(((ended ?? Date.now()) - begun) / 1_000) : "–");
    $("elapsed").title = begun ? `${format.moment(begun)} (${format.utc(begun)})` : "";
    const seconds = this.run?.seconds;
    say($("seconds"), seconds ? t("run.seconds", { complete: format.count(this.run.seconds_complete), seconds: format.count(seconds) }) : "");
    if (this.run && !this.state.run && this.run.seconds_complete !== undefined && this.store.length) {
      const complete = this.store.columns.complete ?? [];
      if (this.store.every === 1) say($("seconds"), t("run.seconds", { complete: format.count(complete.filter((one) => one !== 0).length), seconds: format.count(this.store.length) }));
    }
  }

  connection(state, wait) {
    this.link = state;
    this.wait = wait;
    this.pill();
  }

  pill() {
    const live = this.link === "live";
    const state = live && document.body.classList.contains("is-empty") ? "empty" : live && !this.view.following ? "paused" : this.link;
    $("state").dataset.state = { live: "ok", paused: "warn", empty: "warn", lost: "bad" }[state] ?? "";
    $("state").dataset.is = state;
    say($("state").querySelector("b"), t(`state.${state}`, { seconds: format.count((this.wait ?? 0) / 1_000) }));
  }

  // What the user does

  zoom(from, until) {
    this.view.zoom(from, until, this.store);
    this.moved();
  }

  reset() {
    this.view.follow(this.state.run ? 0 : this.view.window);
    this.view.second = null;
    this.charts.point(null);
    this.moved();
  }

  /** The pointer is on a row of a chart, or on none. */
  look(index) {
    const second = index === null || index === undefined ? null : (this.store.columns.second[index] ?? null);
    if (second === this.view.hover) return;
    this.view.hover = second;
    this.retell();
  }

  /** A second was chosen by keyboard. */
  pinned() {
    this.moved();
    requestAnimationFrame(() => this.charts.point(this.view.second));
  }

  moved() {
    this.segments();
    this.pill();
    this.addressed();
    this.draw();
  }

  /** What of the address is not the view's own. */
  kept() {
    const query = new URLSearchParams(location.search);
    return { lang: query.get("lang"), theme: query.get("theme") };
  }

  /** Brings the address up to what is shown. */
  addressed() {
    const [from, until] = this.view.fixed ?? [null, null];
    Object.assign(this.state, { from, until, window: this.view.window });
    if (carried) return;
    history.replaceState(null, "", location.pathname + addressOf(this.state, this.kept()));
  }

  /** A link that shows the same to somebody else, later too. */
  address() {
    const [from, until] = this.view.fixed ?? [null, null];
    const run = this.state.run ?? (from === null ? null : (this.id ?? null));
    const theme = document.documentElement.dataset.theme ?? null;
    return location.origin + location.pathname + addressOf({ ...this.state, run, from, until, window: this.view.window }, { lang: language(), theme });
  }

  segments() {
    for (const button of $("windows").children) {
      button.setAttribute("aria-pressed", String(this.view.following && Number(button.value) === this.view.window));
    }
    const held = !this.view.following;
    $("pause").setAttribute("aria-pressed", String(held));
    $("pause").replaceChildren(icon(held ? "play" : "pause"));
    const label = t(held ? "view.resume" : "view.pause");
    $("pause").setAttribute("aria-label", label);
    $("pause").title = label;
    $("reset").hidden = !held;
    say($("reset"), t(this.state.run ? "view.whole" : "view.reset"));
  }

  pause() {
    if (this.view.following) this.view.pause(this.store);
    else this.view.follow();
    if (this.view.following) this.view.second = null;
    this.moved();
  }

  follow(window) {
    this.view.follow(window);
    this.view.second = null;
    this.moved();
  }

  buttons() {
    $("windows").replaceChildren(
      ...WINDOWS.map((seconds) => el("button", { type: "button", value: String(seconds), onclick: () => this.follow(seconds) }, seconds ? windowName(seconds) : t("view.all"))),
    );
    $("pause").addEventListener("click", () => this.pause());
    $("reset").addEventListener("click", () => this.reset());
    $("copy").addEventListener("click", () => this.copy());
    $("help").addEventListener("click", () => this.help());
    $("second-back").addEventListener("click", () => (this.view.step(-1, this.store), this.pinned()));
    $("second-next").addEventListener("click", () => (this.view.step(1, this.store), this.pinned()));
    $("theme").addEventListener("click", () => this.theme());
    $("language").addEventListener("click", () => this.language());
    window.addEventListener("language", () => this.renamed());
    window.addEventListener("popstate", () => (this.leave(), this.arrive()));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recoloured());
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stream?.rest() : (this.stream?.wake(), this.draw())));
    for (const link of document.querySelectorAll("nav [data-view], .brand")) {
      link.addEventListener("click", (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        this.go({ view: link.dataset.view ?? "live", run: null, from: null, until: null });
      });
    }
    this.segments();
    this.signs();
    this.parts();
  }

  /** Parts of the page that were closed stay so. */
  parts() {
    const closed = new Set(carried ? ["part-sets", "part-more"] : (stored("hongbao.closed") ?? "").split(" "));
    for (const part of document.querySelectorAll("details.part")) {
      if (closed.has(part.id)) part.open = false;
      part.addEventListener("toggle", () => {
        if (part.open) closed.delete(part.id);
        else closed.add(part.id);
        if (!carried) store("hongbao.closed", [...closed].join(" "));
      });
    }
    for (const link of document.querySelectorAll(".index a")) {
      link.addEventListener("click", () => {
        const part = document.querySelector(link.getAttribute("href"));
        if (part.tagName === "DETAILS") part.open = true;
      });
    }
    // By the monitor's own word about where it listens, as far as the page knows it.
    const host = location.hostname;
    say($("empty-server"), `hongbao-server --listen ${host}:7400 --monitor ${host}:7403`);
    say($("empty-fleet"), `hongbao-sim fleet --users 1000 --server ${host}:7400 --admin http://${host}:7402 --monitor ${host}:7403 --phases 500x60s --rain 50`);
  }

  /** The buttons that name what they lead to. */
  signs() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    $("theme").replaceChildren(icon(dark ? "sun" : "moon"));
    const other = LANGUAGES.find((one) => one !== language());
    say($("language"), other === "zh" ? "中文" : "English");
    $("language").lang = other === "zh" ? "zh-Hans" : "en";
  }

  theme() {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const next = dark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    store("hongbao.theme", next);
    this.forget("theme");
    this.recoloured();
  }

  language() {
    this.forget("lang");
    setLanguage(LANGUAGES.find((one) => one !== language()));
  }

  /** A choice made on the page outdoes that of the address. */
  forget(name) {
    if (carried) return;
    const query = new URLSearchParams(location.search);
    query.delete(name);
    const text = query.toString();
    history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
  }

  recoloured() {
    forgetColours();
    this.signs();
    this.charts.rebuild();
    this.sets.draw();
    this.runs.rebuild();
    this.draw();
  }

  renamed() {
    this.signs();
    this.segments();
    this.pill();
    this.title();
    $("windows").lastChild.textContent = t("view.all");
    for (const part of [this.books, this.machines, this.side]) part.build();
    for (const part of [this.glance, this.sets]) part.name();
    this.sets.draw();
    this.controls.build();
    this.charts.rebuild();
    if (this.run) this.hello(this.run, this.id);
    this.runs.show(this.state);
    this.draw();
  }

  async copy() {
    const address = this.address();
    const button = $("copy").querySelector("span");
    try {
      await navigator.clipboard.writeText(address);
      say(button, t("view.copied"));
    } catch {
      // Only loopback and HTTPS may write to the clipboard; anybody can read.
      window.prompt(t("view.copy"), address);
    }
    setTimeout(() => say(button, t("view.copy")), 2_000);
  }

  keys() {
    document.addEventListener("keydown", (event) => {
      const inField = event.target.closest?.("input, select, textarea, dialog");
      if (inField || event.ctrlKey || event.metaKey || event.altKey || this.state.view !== "live") return;
      const onButton = event.target.closest?.("button, a, summary, [role=slider]");
      const act = {
        " ": () => !onButton && (this.pause(), true),
        p: () => (this.pause(), true),
        ArrowLeft: () => (this.view.step(-1, this.store), this.pinned(), true),
        ArrowRight: () => (this.view.step(1, this.store), this.pinned(), true),
        "+": () => (this.view.scale(0.5, this.store), this.moved(), true),
        "-": () => (this.view.scale(2, this.store), this.moved(), true),
        ",": () => (this.view.move(-0.5, this.store), this.moved(), true),
        ".": () => (this.view.move(0.5, this.store), this.moved(), true),
        0: () => (this.reset(), true),
        Escape: () => !this.view.following && (this.reset(), true),
        t: () => (this.theme(), true),
        l: () => (this.language(), true),
        "?": () => (this.help(), true),
      }[event.key === "=" ? "+" : event.key];
      const window = WINDOW_KEYS.indexOf(event.key);
      if (window >= 0) this.follow(WINDOWS[window]);
      else if (!act?.()) return;
      event.preventDefault();
    });
  }

  help() {
    const keys = [["space", "pause"], ["← →", "step"], ["+ −", "zoom"], [", .", "move"], ["0 / Esc", "reset"], ["1 – 5", "window"], ["t", "theme"], ["l", "language"]];
    const list = el("dl", { class: "keys" }, ...keys.flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key === "space" ? t("help.space") : key)), el("dd", {}, t(`help.${what}`))]));
    const dialog = el("dialog", { class: "dialog" }, el("h2", {}, t("help.title")), list, el("p", { class: "hint" }, t("help.pointer")));
    const close = el("button", { type: "button", class: "primary", onclick: () => dialog.close() }, t("dialog.close"));
    dialog.append(el("footer", {}, close));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }
}

/** A run's title and name; many have only the name. */
function nameOf(run, name) {
  return run?.title && run.title !== name ? `${run.title} · ${name}` : (name ?? "–");
}

/** Marks of both, each once, in order. */
function merged(one, other) {
  const all = new Map();
  for (const mark of [...one, ...other]) all.set(`${mark.at_ms} ${mark.kind} ${mark.source} ${mark.text}`, mark);
  return [...all.values()].sort((a, b) => a.at_ms - b.at_ms);
}

detect();
translate(document);
const app = new App();
app.start();
// For a person at the browser's console, and for tests: nothing secret is in it.
globalThis.hongbao = app;
