import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { en, pick, t, zh } from "../app/words.js";

const page = new URL("../", import.meta.url);
const placeholders = (words) => [...words.matchAll(/\{(\w+)\}/g)].map((found) => found[1]).sort();

test("both languages have the same keys", () => {
  assert.deepEqual(Object.keys(zh).sort(), Object.keys(en).sort());
});

test("a translation fills in the same values", () => {
  for (const [key, words] of Object.entries(en)) assert.deepEqual(placeholders(zh[key]), placeholders(words), key);
});

test("every key that the dashboard uses has words", () => {
  const files = readdirSync(new URL("app/", page)).filter((name) => name.endsWith(".js") && !name.startsWith("shake"));
  const texts = files.map((name) => readFileSync(new URL(`app/${name}`, page), "utf8"));
  texts.push(readFileSync(new URL("index.html", page), "utf8"));
  const used = /\bt\("([a-z0-9_.]+)"|data-t(?:-label|-title|-placeholder)?="([a-z0-9_.]+)"/g;
  for (const text of texts) {
    for (const [, called, marked] of text.matchAll(used)) {
      if (called === "key" || marked === "key") continue;
      assert.ok((called ?? marked) in en, called ?? marked);
    }
  }
});

test("a language is recognised by its first part and unknown ones are passed over", () => {
  assert.equal(pick("zh-CN"), "zh");
  assert.equal(pick("ZH-Hant-TW"), "zh");
  assert.equal(pick(null, "fr-FR", "zh"), "zh");
  assert.equal(pick("de", undefined), "en");
});

test("an unknown key stands for itself", () => {
  assert.equal(t("no.such.key"), "no.such.key");
});
