// What is known of a run, column by column, as the charts want it. Live seconds are appended; a run too long to keep second by second
// is folded, twice as many seconds into each row, by the rules that come with the series: the monitor folds by the same ones. Pure.

/** Rows kept. Two hours by the second; beyond that rows stand for 2, 4, … seconds. */
export const ROWS_MAX = 7_200;

const known = (values) => values.filter((value) => value !== null && value !== undefined);

/** The monitor's rules (run/column.rs), by their names in a series. What is absent does not count. */
const FOLDS = {
  first: (values) => known(values)[0] ?? null,
  last: (values) => known(values).at(-1) ?? null,
  min: (values) => (known(values).length ? Math.min(...known(values)) : null),
  max: (values) => (known(values).length ? Math.max(...known(values)) : null),
  mean: (values) => (known(values).length ? known(values).reduce((sum, value) => sum + value, 0) / known(values).length : null),
};

/** Counts by kind: one that did not occur in a row is 0 there. */
const kinds = (values) => (known(values).length ? FOLDS.mean(values.map((value) => value ?? 0)) : null);

const added = (lists) => {
  const given = known(lists);
  return given.length ? given[0].map((_, at) => given.reduce((sum, list) => sum + (list[at] ?? 0), 0)) : null;
};

export class Store {
  constructor(derived = {}) {
    this.derived = derived;
    this.clear();
  }

  clear() {
    this.run = null;
    /** Seconds that one row stands for. */
    this.every = 1;
    this.length = 0;
    this.columns = { second: [] };
    /** How each column is folded, as the monitor says. */
    this.folds = { second: "first" };
    this.reasons = {};
    this.heat = { bounds: [], latency: [], send_lag: [] };
    /** Seconds that wait until a whole row of them is there; only where `every` is above 1. */
    this.waiting = [];
    /** The last second that a row or what waits holds; 0 where there is none. */
    this.lastSecond = 0;
    /** Counts every change, for those who draw. */
    this.version = 0;
  }

  /** The values of a column; one that nobody reports is all nothing. */
  column(name) {
    return (this.columns[name] ??= new Array(this.length).fill(null));
  }

  /** The same as a line shows them: seconds that not everybody has reported are gaps. The monitor measures the host itself. */
  whole(name) {
    const [values, complete] = [this.column(name), this.columns.complete];
    if (!complete?.includes(0) || /^(log_)?host_/.test(name)) return values;
    return values.map((value, at) => (complete[at] === 0 ? null : value));
  }

  /** The values of a reason, such as `ended`, `idle`. */
  reason(group, name) {
    const columns = (this.reasons[group] ??= {});
    return (columns[name] ??= new Array(this.length).fill(null));
  }

  get first() {
    return this.columns.second[0] ?? 0;
  }

  /** The second of the last row. */
  get until() {
    return this.columns.second[this.length - 1] ?? 0;
  }

  /** Index of the last row at or before a second; -1 if it is before all. */
  at(second) {
    const seconds = this.columns.second;
    let [low, high] = [0, this.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (seconds[middle] <= second) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** One figure of a row. */
  get(name, index) {
    return this.columns[name]?.[index] ?? null;
  }

  /** Takes an answer of the series interface: whole, or what follows what is here. */
  load(series) {
    const seconds = series.columns?.second ?? [];
    if (this.length === 0) {
      this.every = series.every ?? 1;
      this.run = series.run ?? this.run;
    }
    Object.assign(this.folds, series.fold);
    if (series.heat?.bounds_us?.length) this.heat.bounds = series.heat.bounds_us;
    for (let at = 0; at < seconds.length; at++) {
      const row = { columns: {}, reasons: {}, heat: {} };
      for (const name in series.columns) row.columns[name] = series.columns[name][at] ?? null;
      for (const group in series.reasons) {
        row.reasons[group] = {};
        for (const name in series.reasons[group]) row.reasons[group][name] = series.reasons[group][name][at] ?? null;
      }
      row.heat.latency = series.heat?.latency?.[at] ?? null;
      row.heat.send_lag = series.heat?.send_lag?.[at] ?? null;
      if (row.columns.second > this.lastSecond) this.take(row, series.every ?? 1);
    }
    this.version++;
  }

  /** Takes a live second; one that is already here is passed over. Returns whether it was new. */
  append(row) {
    if (!(row.columns?.second > this.lastSecond)) return false;
    this.take(row, 1);
    this.version++;
    return true;
  }

  /** Takes a row that stands for `seconds`. */
  take(row, seconds) {
    this.lastSecond = row.columns.second + seconds - 1;
    if (this.length >= ROWS_MAX) this.halve();
    if (seconds >= this.every) return this.push(row);
    this.waiting.push(row);
    if (this.waiting.length * seconds >= this.every) this.push(this.folded(this.waiting.splice(0)));
  }

  push(row) {
    const at = this.length++;
    place(this.columns, row.columns, at);
    for (const group in row.reasons ?? {}) place((this.reasons[group] ??= {}), row.reasons[group], at);
    for (const group in this.reasons) if (!row.reasons?.[group]) place(this.reasons[group], {}, at);
    this.heat.latency[at] = row.heat?.latency ?? null;
    this.heat.send_lag[at] = row.heat?.send_lag ?? null;
    this.derive(at);
  }

  /** Works out the columns that follow from others. */
  derive(at) {
    for (const name in this.derived) {
      (this.columns[name] ??= new Array(at).fill(null))[at] = this.derived[name]((column) => this.get(column, at));
    }
  }

  /** Some values of a column as one. A column that came without a rule stands at a second's end. */
  fold(name, values) {
    return FOLDS[this.folds[name] ?? "last"](values);
  }

  /** Folds each two rows into one. */
  halve() {
    const rows = this.length;
    const pairs = (values, of) => {
      const out = [];
      for (let at = 0; at < rows; at += 2) out.push(of(values.slice(at, Math.min(at + 2, rows))));
      return out;
    };
    for (const name in this.columns) this.columns[name] = pairs(this.columns[name], (values) => this.fold(name, values));
    for (const group of Object.values(this.reasons)) {
      for (const name in group) group[name] = pairs(group[name], kinds);
    }
    for (const kind of ["latency", "send_lag"]) this.heat[kind] = pairs(this.heat[kind], added);
    this.every *= 2;
    this.length = this.columns.second.length;
    for (let at = 0; at < this.length; at++) this.derive(at);
  }

  /** Some rows as one. */
  folded(rows) {
    const out = { columns: {}, reasons: {}, heat: {} };
    const names = new Set(rows.flatMap((row) => Object.keys(row.columns)));
    for (const name of names) out.columns[name] = this.fold(name, rows.map((row) => row.columns[name]));
    for (const group of new Set(rows.flatMap((row) => Object.keys(row.reasons ?? {})))) {
      out.reasons[group] = {};
      for (const name of new Set(rows.flatMap((row) => Object.keys(row.reasons?.[group] ?? {})))) {
        out.reasons[group][name] = kinds(rows.map((row) => row.reasons?.[group]?.[name]));
      }
    }
    for (const kind of ["latency", "send_lag"]) out.heat[kind] = added(rows.map((row) => row.heat?.[kind]));
    return out;
  }
}

/** Puts one row's values behind their columns, and nothing behind those that it does not have. */
function place(columns, values, at) {
  for (const name in values) (columns[name] ??= new Array(at).fill(null))[at] = values[name] ?? null;
  for (const name in columns) if (columns[name].length <= at) columns[name][at] = null;
}
