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

/** What the colour-blind see, by Machado's matrices for linear light; the first is who is not. */
const EYES = {
  all: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protan: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deutan: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
};

/** A colour in OKLab as an eye sees it. */
function seen(hex, eye) {
  const light = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  const times = (matrix, values) => matrix.map((row) => row.reduce((sum, factor, at) => sum + factor * values[at], 0));
  const rgb = times(EYES[eye], light).map((part) => Math.min(Math.max(part, 0), 1));
  const lms = times([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]], rgb).map(Math.cbrt);
  return times([[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.808675766]], lms);
}

test("the lines of a chart are apart for the colour-blind too", () => {
  const lines = ["s-plan", "s1", "s2", "s3", "s4", "s5"];
  for (const theme of [0, 1]) {
    for (const eye in EYES) {
      const colours = lines.map((line) => seen(token(line, theme), eye));
      colours.forEach((one, at) => colours.slice(at + 1).forEach((other, beyond) => {
        const apart = Math.hypot(...one.map((part, axis) => part - other[axis]));
        assert.ok(apart >= 0.1, `${lines[at]} and ${lines[at + 1 + beyond]} (${eye}, ${theme}): ${apart.toFixed(3)}`);
      }));
    }
  }
});

test("only tokens name colours", () => {
  const dashboard = readFileSync(new URL("../dashboard.css", import.meta.url), "utf8");
  const rules = css.slice(css.indexOf("}\n")) + dashboard;
  assert.equal(rules.match(/#[0-9a-f]{3,8}\b|\brgba?\(/gi), null);
});
