import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { ROWS_MAX, Store } from "../app/store.js";

const row = (second, more = {}) => ({
  columns: { second, complete: 1, sent: second * 10, users_online: second, latency_p99_us: second % 7, ...more },
  reasons: { ended: { idle: 1 } },
  heat: { latency: [1, 2, 3], send_lag: null },
});

const series = (from, until) => {
  const seconds = Array.from({ length: until - from + 1 }, (_, at) => from + at);
  return {
    run: "r",
    every: 1,
    fold: { second: "first", sent: "mean" },
    columns: { second: seconds, sent: seconds.map((second) => second * 10) },
    reasons: { ended: { idle: seconds.map(() => 1) } },
    heat: { bounds_us: [100, 1000], latency: seconds.map(() => [1, 2, 3]), send_lag: seconds.map(() => null) },
  };
};

// What the monitor makes of some seconds, written by a test of run/series.rs.
const monitor = JSON.parse(readFileSync(new URL("folded.json", import.meta.url)));

test("every column is folded by the monitor's rule", () => {
  const [whole, live] = [new Store(), new Store()];
  whole.load(monitor.series);
  whole.halve();
  live.load({ ...monitor.series, columns: { second: [] }, every: 2 });
  for (const second of monitor.seconds) live.append(second);
  const names = Object.keys(monitor.folded.columns);
  assert.deepEqual(Object.keys(monitor.series.fold).sort(), names.toSorted());
  assert.ok(names.length > 60);
  for (const store of [whole, live]) {
    for (const name of names) assert.deepEqual(store.columns[name], monitor.folded.columns[name], name);
    for (const group in monitor.folded.reasons) assert.deepEqual(store.reasons[group] ?? {}, monitor.folded.reasons[group], group);
    assert.deepEqual(store.heat.latency, monitor.folded.heat.latency);
  }
});

test("a column that is worked out follows from the folded ones", () => {
  const store = new Store({ share: (of) => of("sent") / of("planned") });
  for (const [second, sent, planned] of [[1, 1, 10], [2, 9, 10]]) store.append({ columns: { second, sent, planned }, reasons: {}, heat: {} });
  Object.assign(store.folds, { sent: "mean", planned: "mean" });
  store.halve();
  assert.deepEqual(store.columns.share, [0.5]);
});

test("live seconds follow the history without a gap and without being told twice", () => {
  const store = new Store();
  store.load(series(100, 110));
  assert.equal(store.append(row(110)), false);
  assert.equal(store.append(row(111)), true);
  store.load(series(105, 113));
  assert.deepEqual(store.columns.second, [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113]);
  assert.equal(store.length, 14);
  assert.equal(store.get("sent", 13), 1130);
});

test("all columns have as many rows as there are seconds, whenever each appears or is missing", () => {
  const store = new Store({ twice: (of) => (of("sent") === null ? null : 2 * of("sent")) });
  store.append(row(1));
  store.append({ columns: { second: 2, fresh: 5 }, reasons: { answers: { won: 3 } }, heat: {} });
  store.append(row(3));
  for (const [name, values] of Object.entries(store.columns)) assert.equal(values.length, 3, name);
  for (const group of Object.values(store.reasons)) for (const values of Object.values(group)) assert.equal(values.length, 3);
  assert.deepEqual(store.columns.fresh, [null, 5, null]);
  assert.deepEqual(store.columns.twice, [20, null, 60]);
  assert.deepEqual(store.reasons.ended.idle, [1, null, 1]);
  assert.deepEqual(store.column("never"), [null, null, null]);
});

test("a run beyond the bound is folded, stays in order, and loses no flow", () => {
  const store = new Store();
  Object.assign(store.folds, { sent: "mean" });
  const last = 2 * ROWS_MAX + 100;
  for (let second = 1; second <= last; second++) store.append(row(second, { sent: 10 }));
  assert.equal(store.every, 4);
  assert.ok(store.length <= ROWS_MAX);
  assert.ok(store.columns.second.every((second, at, all) => at === 0 || second - all[at - 1] === store.every));
  assert.ok(store.columns.sent.every((sent) => sent === 10));
  const rows = store.length * store.every;
  assert.equal(store.heat.latency.reduce((sum, counts) => sum + counts[0], 0), rows);
  assert.ok(last - rows < store.every);
  assert.equal(store.lastSecond, last);
});

test("the row of a second is found, before all and behind all too", () => {
  const store = new Store();
  store.load(series(100, 110));
  assert.deepEqual([99, 100, 105, 110, 500].map((second) => store.at(second)), [-1, 0, 5, 10, 10]);
});
