import assert from "node:assert/strict";
import { test } from "node:test";

import { DEVIATIONS_MAX, decades, deviations, heatStep, inside, median, ramp } from "../app/scales.js";

test("the median takes the middle", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Number.isNaN(median([])));
});

test("one sick SET among hundreds stands out, however many others are noisy", () => {
  const depths = Array.from({ length: 300 }, (_, at) => (at * 37) % 9);
  depths[123] = 900;
  const far = deviations(depths, 16).flatMap((deviation, at) => (Math.abs(deviation) > DEVIATIONS_MAX ? [at] : []));
  assert.deepEqual(far, [123]);
});

test("small differences between equal SETs are not out of the ordinary", () => {
  const connections = Array.from({ length: 100 }, () => 4_464);
  connections[3] = 4_470;
  assert.ok(deviations(connections, 50).every((deviation) => Math.abs(deviation) <= DEVIATIONS_MAX));
});

test("heat begins with nothing, and the most has the last colour", () => {
  assert.equal(heatStep(0, 100, 64), 0);
  assert.equal(heatStep(null, 100, 64), 0);
  assert.equal(heatStep(100, 100, 64), 63);
  assert.ok(heatStep(1, 100, 64) > 0);
});

test("a ramp begins and ends with its stops", () => {
  const colours = ramp(["#000000", "rgb(100, 50, 10)", "#ffffff"], 5);
  assert.deepEqual(colours[0], [0, 0, 0]);
  assert.deepEqual(colours[2], [100, 50, 10]);
  assert.deepEqual(colours[4], [255, 255, 255]);
});

test("decades hold both ends", () => {
  assert.deepEqual(decades(150, 20_000), [100, 1_000, 10_000, 100_000]);
});

test("a window is moved into the run, and shortened only if the run is shorter", () => {
  assert.deepEqual(inside(90, 150, 100, 1_000), [100, 160]);
  assert.deepEqual(inside(950, 1_050, 100, 1_000), [900, 1_000]);
  assert.deepEqual(inside(0, 5_000, 100, 1_000), [100, 1_000]);
});
