import assert from "node:assert/strict";
import { test } from "node:test";

import { DEFAULTS, format, parse } from "../app/state.js";

test("a link reproduces the view", () => {
  const views = [
    DEFAULTS,
    { ...DEFAULTS, run: "20261121T171814Z", from: 1_795_288_527, until: 1_795_288_604, set: "stock" },
    { ...DEFAULTS, window: 0 },
    { ...DEFAULTS, view: "runs" },
    { ...DEFAULTS, view: "compare", a: "one", b: "two" },
  ];
  for (const view of views) assert.deepEqual(parse(format(view)), view);
});

test("the view of a moment's live run needs no query", () => {
  assert.equal(format(DEFAULTS), "");
  assert.equal(format(DEFAULTS, { lang: "zh", theme: null }), "?lang=zh");
});

test("what makes no sense in an address is passed over", () => {
  const hostile = "?run=../../etc&from=9&until=3&window=9d&set=__proto__&view=constructor&a=%3Cscript%3E&from=x";
  assert.deepEqual(parse(hostile), DEFAULTS);
  assert.deepEqual(parse("?from=5"), DEFAULTS);
  assert.deepEqual(parse("?window=toString"), DEFAULTS);
});
