// A heat map under a chart's lines: each second's latencies by bucket. Buckets are geometric and the axis is logarithmic, so that all
// are equally high: one small image, a pixel for each second and bucket, is stretched over the plot.

import { colour } from "./dom.js";
import { heatStep, ramp } from "./scales.js";

const STEPS = 48;
/** Columns of the image: more than this is finer than a screen. */
const COLUMNS_MAX = 600;

/** Makes what draws `store.heat[kind]` for a plot; `opaque` tells apart empty buckets from the surface. */
export function heatLayer(store, kind) {
  const canvas = document.createElement("canvas");
  let colours = null;

  function draw(plot) {
    const { bounds } = store.heat;
    const rows = store.heat[kind];
    if (bounds.length < 2 || !store.length) return;
    colours ??= ramp(["heat-0", "heat-1", "heat-2", "heat-3", "heat-4"].map(colour), STEPS);
    const from = Math.max(store.at(plot.scales.x.min), 0);
    const until = store.at(plot.scales.x.max);
    if (until < from) return;
    const ratio = bounds[1] / bounds[0];
    const share = Math.max(1, Math.ceil((until - from + 1) / COLUMNS_MAX));
    const width = Math.ceil((until - from + 1) / share);
    const height = bounds.length + 1;

    // What falls into one column of the image, bucket by bucket.
    const sums = new Float64Array(width * height);
    let most = 0;
    for (let at = from; at <= until; at++) {
      const counts = rows[at];
      if (!counts) continue;
      const column = Math.floor((at - from) / share);
      for (let bucket = 0; bucket < height; bucket++) {
        const place = (height - 1 - bucket) * width + column;
        sums[place] += counts[bucket] ?? 0;
        if (sums[place] > most) most = sums[place];
      }
    }
    if (!most) return;
    [canvas.width, canvas.height] = [width, height];
    const small = canvas.getContext("2d");
    const image = small.createImageData(width, height);
    for (let place = 0; place < sums.length; place++) {
      const step = heatStep(sums[place], most, STEPS);
      if (!step) continue;
      const [r, g, b] = colours[step];
      image.data.set([r, g, b, 255], place * 4);
    }
    small.putImageData(image, 0, 0);

    const { ctx, bbox } = plot;
    const top = plot.valToPos(bounds.at(-1) * ratio, "y", true);
    const bottom = plot.valToPos(bounds[0] / ratio, "y", true);
    const seconds = store.columns.second;
    const left = plot.valToPos(seconds[from] - store.every / 2, "x", true);
    const right = plot.valToPos(seconds[from] - store.every / 2 + width * share * store.every, "x", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(canvas, left, top, right - left, bottom - top);
    ctx.restore();
  }

  return { draw, forget: () => (colours = null) };
}
