// Every word that the page says, in English and Chinese, and the way to them. A page with words of its own registers them.

export const LANGUAGES = ["en", "zh"];
const STORED = "hongbao.lang";

/** Words of the dashboard; both tables have the same keys, which a test holds. */
export const en = {
  "app.name": "Hongbao",
  "app.title": "Hongbao dashboard",
  "app.skip": "Skip to the figures",
};

export const zh = {
  "app.name": "红包",
  "app.title": "红包监控",
  "app.skip": "跳到数据",
};

const tables = { en: { ...en }, zh: { ...zh } };
let chosen = "en";

/** Adds a page's own words: tables of the same keys in every language. */
export function register(more) {
  for (const language of LANGUAGES) Object.assign(tables[language], more[language]);
}

/** The first of the wishes that is a language of ours; `zh-CN` and `zh-Hans` are `zh`. */
export function pick(...wishes) {
  for (const wish of wishes) {
    const found = LANGUAGES.find((language) => wish?.toLowerCase().split("-")[0] === language);
    if (found) return found;
  }
  return "en";
}

/** The language in use: "en" or "zh". */
export function language() {
  return chosen;
}

/** For `Intl` and the document's `lang`. */
export function locale() {
  return chosen === "zh" ? "zh-Hans-CN" : "en";
}

/** Takes the language from `?lang=`, what was chosen before, or the browser. Call once, first of all. */
export function detect() {
  const query = new URLSearchParams(globalThis.location?.search ?? "").get("lang");
  chosen = pick(query, read(STORED), ...(globalThis.navigator?.languages ?? []));
  if (globalThis.document) document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  return chosen;
}

/** Changes the language and remembers it; whoever shows words draws anew on the window's event `language`. */
export function setLanguage(next) {
  chosen = pick(next);
  write(STORED, chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  translate(document);
  window.dispatchEvent(new Event("language"));
}

/** The words for a key, with `{name}` filled from `values`. An unknown key stands for itself, so that it is seen. */
export function t(key, values = {}) {
  const words = tables[chosen][key] ?? tables.en[key] ?? key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Whether there are words for a key: for names that the servers make up, such as reasons. */
export function has(key) {
  return key in tables.en;
}

/**
 * Fills in the words of a piece of the document: `data-t="key"` is its text, `data-t-label` its `aria-label`,
 * `data-t-title` its `title`, `data-t-placeholder` its placeholder.
 */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-title]")) node.title = t(node.dataset.tTitle);
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}

function read(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // No storage: nothing was chosen.
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // No storage: the choice lasts as long as the page.
  }
}
