import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const css = readFileSync(new URL("../style.css", import.meta.url), "utf8");

/** The value of a token in a theme: 0 light, 1 dark. */
function token(name, theme) {
  const value = css.match(new RegExp(`--${name}: (?:light-dark\\((#\\w+), (#\\w+)\\)|(#\\w+));`));
  assert.ok(value, name);
  return value[3] ?? value[1 + theme];
}

/** Relative luminance as WCAG defines it. */
function luminance(hex) {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const pairs = [];
for (const surface of ["bg", "surface", "surface-2"]) {
  for (const text of ["ink", "ink-2", "ink-3", "brand", "accent", "ok", "warn", "bad", "gold"]) pairs.push([text, surface]);
}
for (const state of ["ok", "warn", "bad"]) pairs.push([state, `${state}-soft`], ["ink", `${state}-soft`], ["ink-2", `${state}-soft`]);
pairs.push(["accent", "accent-soft"], ["on-accent", "accent-fill"], ["on-brand", "brand-fill"], ["on-brand", "bad-fill"]);

for (const [theme, name] of ["light", "dark"].entries()) {
  test(`text reaches a contrast of 4.5 on everything it stands on (${name})`, () => {
    for (const [text, surface] of pairs) {
      const reached = contrast(token(text, theme), token(surface, theme));
      assert.ok(reached >= 4.5, `${text} on ${surface}: ${reached.toFixed(2)}`);
    }
  });

  test(`lines of charts reach a contrast of 3 on their surface (${name})`, () => {
    for (const line of ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s-plan", "focus", "line-strong"]) {
      const reached = contrast(token(line, theme), token("surface", theme));
      assert.ok(reached >= 3, `${line}: ${reached.toFixed(2)}`);
    }
  });
}

test("only tokens name colours", () => {
  const dashboard = readFileSync(new URL("../dashboard.css", import.meta.url), "utf8");
  const rules = css.slice(css.indexOf("}\n")) + dashboard;
  assert.equal(rules.match(/#[0-9a-f]{3,8}\b|\brgba?\(/gi), null);
});
