import assert from "node:assert/strict";
import { test } from "node:test";

import { Store } from "../app/store.js";
import { View, ZOOM_SECONDS_MIN } from "../app/view.js";

function store(seconds, first = 1_000) {
  const store = new Store();
  for (let at = 0; at < seconds; at++) store.append({ columns: { second: first + at } });
  return store;
}

test("a window follows the run and stands still when paused, while data goes on", () => {
  const [run, view] = [store(600), new View({ window: 300 })];
  assert.deepEqual(view.range(run), [1_299, 1_599]);
  run.append({ columns: { second: 1_600 } });
  assert.deepEqual(view.range(run), [1_300, 1_600]);
  view.pause(run);
  run.append({ columns: { second: 1_601 } });
  assert.deepEqual(view.range(run), [1_300, 1_600]);
  assert.equal(run.columns.second[view.index(run)], 1_600);
  view.follow();
  assert.equal(run.columns.second[view.index(run)], 1_601);
});

test("a young run is shown with room for what comes", () => {
  assert.deepEqual(new View({ window: 300 }).range(store(10)), [1_000, 1_060]);
  assert.deepEqual(new View({ window: 0 }).range(store(10)), [1_000, 1_060]);
});

test("a zoom keeps to the run and to what can be seen", () => {
  const [run, view] = [store(600), new View()];
  view.zoom(1_100.2, 1_100.4, run);
  assert.equal(view.fixed[1] - view.fixed[0], ZOOM_SECONDS_MIN);
  view.zoom(900, 1_050, run);
  assert.deepEqual(view.fixed, [1_000, 1_150]);
  view.scale(100, run);
  assert.deepEqual(view.fixed, [1_000, 1_599]);
});

test("stepping looks at one second after the other, and takes the view along", () => {
  const [run, view] = [store(600), new View({ window: 60 })];
  view.step(-1, run);
  assert.equal(view.second, 1_598);
  view.step(-100, run);
  assert.equal(view.second, 1_498);
  const [from, until] = view.range(run);
  assert.ok(from <= 1_498 && 1_498 <= until);
  view.step(-10_000, run);
  assert.equal(view.second, 1_000);
});

test("a run of a few seconds stands still too, and has no room for more while it does", () => {
  const [run, view] = [store(20), new View({ window: 300 })];
  view.pause(run);
  for (let more = 1; more <= 5; more++) run.append({ columns: { second: 1_019 + more } });
  assert.deepEqual(view.range(run), [1_000, 1_019]);
  assert.equal(run.columns.second[view.index(run)], 1_019);
});
