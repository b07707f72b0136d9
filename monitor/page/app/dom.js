// The little that is needed to make elements; and colours as a canvas wants them.

/** An element: `el("td", { class: "n", onclick }, "text", child)`. Text is text, never markup. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list" && name !== "form") node[name === "class" ? "className" : name] = value;
    else node.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the signs of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", document.getElementById(`i-${name}`) ? `#i-${name}` : "#i-other");
  svg.append(use);
  return svg;
}

/** A piece of a series' line: its colour, and its dash for who cannot tell the colours apart. */
export function swatch(token, dash) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, "stroke-dasharray": dash?.join(" ") ?? "none" })) line.setAttribute(name, value);
  line.style.stroke = `var(--${token})`;
  svg.append(line);
  return svg;
}

/** Changes a text only if it is another: most figures do not change most of the time, and layout costs. */
export function say(node, text) {
  if (node.firstChild?.nodeType === 3 && node.childNodes.length === 1) {
    if (node.firstChild.data !== text) node.firstChild.data = text;
  } else if (node.textContent !== text || node.childNodes.length > 1) {
    node.textContent = text;
  }
}

export const $ = (id) => document.getElementById(id);

const colours = new Map();
let probe;

/** A token as a colour that a canvas takes; custom properties themselves are not resolved. */
export function colour(token) {
  if (!colours.has(token)) {
    if (!probe) {
      probe = el("i", { hidden: true });
      document.body.append(probe);
    }
    probe.style.color = `var(--${token})`;
    colours.set(token, getComputedStyle(probe).color);
  }
  return colours.get(token);
}

/** The same, let through by a share. */
export function faded(token, share) {
  const [r, g, b] = colour(token).match(/[\d.]+/g);
  return `rgb(${r} ${g} ${b} / ${share})`;
}

/** To be called when the theme has changed. */
export function forgetColours() {
  colours.clear();
}

/** A canvas as large as its box, in device pixels; returns its context, scaled to CSS pixels, and the box. */
export function fit(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** What a report carries: the run's id, what a monitor would answer, verdict, tables, charts. Nothing where a monitor serves the page. */
export const carried = JSON.parse(globalThis.document?.getElementById("carried")?.textContent ?? "null");

/** JSON from the interface; what goes wrong is an Error with the HTTP status. */
export async function ask(path, options = {}) {
  if (carried) return carried.answers[path.split("?")[0]] ?? Promise.reject(new Error("a report asks nobody"));
  const response = await fetch(path, { credentials: "same-origin", ...options });
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    const error = new Error(body?.error?.message ?? `${response.status} ${response.statusText}`);
    throw Object.assign(error, { status: response.status, body });
  }
  return body;
}

/** A change of state; the interface takes these from our own pages only. */
export function post(path, body) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}
