// The view that a link reproduces: what is looked at, when, and how. Pure: the address in, the address out.

/** Lengths that the view can follow, in seconds; 0 is the whole run. */
export const WINDOWS = [60, 300, 900, 3_600, 0];
const WINDOW_NAMES = { "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, all: 0 };
export const SET_FIGURES = ["queue_depth", "connections", "online", "owed", "stock"];
const VIEWS = ["live", "runs", "compare"];
const RUN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

export const DEFAULTS = {
  view: "live",
  run: null,
  from: null,
  until: null,
  window: 300,
  set: "queue_depth",
  a: null,
  b: null,
};

/** A window's name in the address: 5m. */
export function windowName(seconds) {
  return Object.keys(WINDOW_NAMES).find((name) => WINDOW_NAMES[name] === seconds) ?? "5m";
}

/** Reads an address's query; what makes no sense is as if it were not there. */
export function parse(search) {
  const query = new URLSearchParams(search);
  const one = (name, allowed) => (allowed.includes(query.get(name)) ? query.get(name) : DEFAULTS[name]);
  const run = (name) => (RUN.test(query.get(name) ?? "") ? query.get(name) : null);
  const second = (name) => (/^\d{1,11}$/.test(query.get(name) ?? "") ? Number(query.get(name)) : null);
  const state = { ...DEFAULTS, view: one("view", VIEWS), set: one("set", SET_FIGURES) };
  state.run = run("run") === "live" ? null : run("run");
  [state.a, state.b] = [run("a"), run("b")];
  if (Object.hasOwn(WINDOW_NAMES, query.get("window") ?? "")) state.window = WINDOW_NAMES[query.get("window")];
  const [from, until] = [second("from"), second("until")];
  if (from !== null && until !== null && from < until) [state.from, state.until] = [from, until];
  return state;
}

/** The query for a state; `keep` are settings that are not the view's own: language, theme. */
export function format(state, keep = {}) {
  const query = new URLSearchParams();
  if (state.view !== DEFAULTS.view) query.set("view", state.view);
  for (const name of state.view === "compare" ? ["a", "b"] : state.view === "live" ? ["run"] : []) {
    if (state[name]) query.set(name, state[name]);
  }
  if (state.view === "live") {
    if (state.from !== null) {
      query.set("from", state.from);
      query.set("until", state.until);
    }
    if (state.window !== DEFAULTS.window) query.set("window", windowName(state.window));
    if (state.set !== DEFAULTS.set) query.set("set", state.set);
  }
  for (const name in keep) if (keep[name]) query.set(name, keep[name]);
  const text = query.toString();
  return text ? `?${text}` : "";
}
