// Scales, colours and what stands out. Pure.

/** The middle of some numbers; NaN of none. */
export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  if (!sorted.length) return NaN;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Makes the median absolute deviation of a normal distribution its standard deviation. */
const MAD_TO_SIGMA = 1.4826;

/** How many robust deviations from the others are out of the ordinary. */
export const DEVIATIONS_MAX = 6;

/**
 * How far each value is from the others, in robust standard deviations. `floor` is what is never out of the ordinary by itself: where
 * nearly all are equal, their deviation is 0 and the least difference would be infinitely large.
 */
export function deviations(values, floor) {
  const middle = median(values);
  const spread = MAD_TO_SIGMA * median(values.map((value) => Math.abs(value - middle)));
  const unit = Math.max(spread, floor / DEVIATIONS_MAX);
  return values.map((value) => (value - middle) / unit);
}

/** A colour of the form `rgb(r, g, b)` or `#rrggbb` as three numbers. */
export function channels(colour) {
  if (colour.startsWith("#")) return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return colour.match(/[\d.]+/g).slice(0, 3).map(Number);
}

/** `steps` colours from the first of `stops` to the last, as [r, g, b]. */
export function ramp(stops, steps) {
  const given = stops.map(channels);
  return Array.from({ length: steps }, (_, step) => {
    const place = (step / (steps - 1)) * (given.length - 1);
    const low = Math.min(Math.floor(place), given.length - 2);
    return given[low].map((from, at) => Math.round(from + (given[low + 1][at] - from) * (place - low)));
  });
}

/** Which of `steps` colours a count has, 1 being the least that is there at all and 0 nothing; logarithmic. */
export function heatStep(value, most, steps) {
  if (!(value > 0)) return 0;
  return 1 + Math.round((Math.log1p(value) / Math.log1p(most)) * (steps - 2));
}

/** Decades between two positive numbers, both included: for a logarithmic axis. */
export function decades(from, until) {
  const out = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(until)); power++) out.push(10 ** power);
  return out;
}

/** The window [from, until] kept inside [first, last], its length kept where it fits. */
export function inside(from, until, first, last) {
  const length = Math.min(until - from, last - first);
  const start = Math.min(Math.max(from, first), last - length);
  return [start, start + length];
}
