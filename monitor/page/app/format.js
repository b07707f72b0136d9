// Figures as people read them: grouped digits, a unit that fits, local time with UTC beside it. Pure.

import { locale } from "./words.js";

// A figure and its unit are never parted: no-break spaces stand between them.

/** What stands for a figure that nobody reported. */
export const NONE = "–";

const formats = new Map();

function number(options) {
  const key = locale() + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(locale(), options));
  return formats.get(key);
}

function dates(options) {
  const key = `date ${locale()}${JSON.stringify(options)}`;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(locale(), options));
  return formats.get(key);
}

const absent = (value) => value === null || value === undefined || Number.isNaN(value);

/** A minus sign as wide as the plus, and a plus where a difference is meant. */
const signs = (text) => text.replace("-", "−");

/** Every digit: 1,000,000. */
export function count(value) {
  return absent(value) ? NONE : signs(number({ maximumFractionDigits: 0 }).format(value));
}

/** As `count`, with + before what is above 0. */
export function difference(value) {
  return absent(value) ? NONE : signs(number({ maximumFractionDigits: 0, signDisplay: "exceptZero" }).format(value));
}

/** A few digits, for axes: 60K, 6万. */
export function short(value) {
  return absent(value) ? NONE : signs(number({ notation: "compact", maximumFractionDigits: 1 }).format(value));
}

/** A number with as many decimals as it needs to show three digits. */
function digits(value) {
  const decimals = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return signs(number({ minimumFractionDigits: decimals, maximumFractionDigits: decimals }).format(value));
}

/** Microseconds: 831 µs, 2.70 ms, 1.25 s. */
export function micros(us) {
  if (absent(us)) return NONE;
  const size = Math.abs(us);
  if (size < 1_000) return `${number({ maximumFractionDigits: 0 }).format(us)} µs`.replace("-", "−");
  if (size < 999_500) return `${digits(us / 1_000)} ms`;
  return `${digits(us / 1_000_000)} s`;
}

/** Microseconds on an axis: 100 µs, 1 ms, 10 s, without decimals that say nothing. */
export function microsShort(us) {
  if (absent(us)) return NONE;
  const plain = number({ maximumFractionDigits: 1 });
  if (Math.abs(us) < 1_000) return `${plain.format(us)} µs`;
  if (Math.abs(us) < 1_000_000) return `${plain.format(us / 1_000)} ms`;
  return `${plain.format(us / 1_000_000)} s`;
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes in powers of 1,024. */
export function bytes(value) {
  if (absent(value)) return NONE;
  let [size, unit] = [value, 0];
  while (Math.abs(size) >= 1_023.5 && unit < BINARY.length - 1) [size, unit] = [size / 1_024, unit + 1];
  return `${unit === 0 ? count(size) : digits(size)} ${BINARY[unit]}`;
}

/** Bytes on an axis. */
export function bytesShort(value) {
  if (absent(value)) return NONE;
  let [size, unit] = [value, 0];
  while (Math.abs(size) >= 1_023.5 && unit < BINARY.length - 1) [size, unit] = [size / 1_024, unit + 1];
  return `${number({ maximumFractionDigits: 1 }).format(size)} ${BINARY[unit]}`;
}

/** Fen as yuan, to the fen: ¥1,234.05. Integers all the way: money is never a rounded float. */
export function yuan(fen, sign = "") {
  if (absent(fen)) return NONE;
  const size = Math.abs(Math.round(fen));
  const [whole, rest] = [Math.floor(size / 100), size % 100];
  const before = fen < 0 ? "−" : fen > 0 ? sign : "";
  return `${before}¥${count(whole)}.${String(rest).padStart(2, "0")}`;
}

/** A share of 1. */
export function percent(share, decimals = 1) {
  return absent(share) ? NONE : signs(number({ style: "percent", maximumFractionDigits: decimals }).format(share));
}

/** One figure to another: ×0.97, ×773. */
export function ratio(value) {
  return absent(value) || !Number.isFinite(value) ? NONE : `×${number(value >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 }).format(value)}`;
}

/** Processors: 1.94. */
export function cores(value) {
  return absent(value) ? NONE : number({ minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);
}

/** A length of time in seconds: 27.9 s. */
export function seconds(value) {
  return absent(value) ? NONE : `${digits(value)} s`;
}

/** Seconds that have passed: 4:07, 1:02:03. */
export function elapsed(seconds) {
  if (absent(seconds)) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  const two = (part) => String(part).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3_600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A Unix second on the clock of who looks: 20:15:07. */
export function clock(second) {
  return dates({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).format(second * 1_000);
}

/** Day and time, local. */
export function moment(ms) {
  return dates({ dateStyle: "medium", timeStyle: "medium" }).format(ms);
}

/** Day and time, local, in the little room of a table. */
export function when(ms) {
  const parts = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return dates(parts).format(ms);
}

/** The same moment for who reads logs: 2026-11-21 20:15:07 UTC. */
export function utc(ms) {
  return `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}
