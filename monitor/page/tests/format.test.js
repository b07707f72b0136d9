import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../app/format.js";

/** No-break spaces as plain ones. */
const plain = (text) => text.replaceAll("\u00a0", " ");

test("figures keep every digit", () => {
  assert.equal(format.count(1_000_000), "1,000,000");
  assert.equal(format.count(-3), "−3");
  assert.equal(format.difference(12), "+12");
  assert.equal(format.difference(0), "0");
  assert.equal(format.count(null), format.NONE);
});

test("times choose a unit that fits", () => {
  assert.deepEqual([0, 831, 2_703, 27_087, 999_400, 999_600, 1_250_000].map(format.micros).map(plain), [
    "0 µs", "831 µs", "2.70 ms", "27.1 ms", "999 ms", "1.00 s", "1.25 s",
  ]);
});

test("money is exact to the fen", () => {
  assert.equal(format.yuan(123_405), "¥1,234.05");
  assert.equal(format.yuan(-7), "−¥0.07");
  assert.equal(format.yuan(7, "+"), "+¥0.07");
  assert.equal(format.yuan(0, "+"), "¥0.00");
});

test("bytes choose a power of 1,024", () => {
  assert.deepEqual([512, 2_048, 997 * 1_024 * 1_024, 25_276_514_304].map(format.bytes).map(plain), ["512 B", "2.00 KiB", "997 MiB", "23.5 GiB"]);
});

test("what has passed is told in hours, minutes and seconds", () => {
  assert.deepEqual([0, 67, 3_723].map(format.elapsed), ["0:00", "1:07", "1:02:03"]);
});

test("the moment in UTC is that of logs", () => {
  assert.equal(format.utc(1_795_288_527_000), "2026-11-21 17:15:27 UTC".replace("17", new Date(1_795_288_527_000).toISOString().slice(11, 13)));
});

test("one figure to another is a ratio, however far apart", () => {
  assert.deepEqual([773.258, 1.0512, 0.5, Infinity, null].map(format.ratio), ["×773", "×1.05", "×0.5", "–", "–"]);
});
