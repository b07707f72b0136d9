// The page on which a person shakes: what is shown, and what hands, keys and phones do to it. The connection is shake-client.js's.

import { en, zh } from "./app/shake-words.js";
import { ShakeClient } from "./app/shake-client.js";
import { detect, has, language, locale, register, setLanguage, t, translate } from "./app/words.js";

/** Between two shakes, milliseconds: five a second are as many as a hand makes. */
const SHAKE_PAUSE = 200;
/** What a phone must be accelerated by to count as shaken, m/s², without gravity and with it. */
const FORCE = 14;
const FORCE_WITH_GRAVITY = 24;
/** Between two shakes of a phone, milliseconds. */
const MOTION_PAUSE = 600;
/** Between two looks at the odds, milliseconds. */
const ODDS_PAUSE = 2_000;
/** A campaign's state: it is on. */
const OPEN = 2;
/** Rows of the wallet that are shown. */
const MOVEMENTS = 8;
const PRIZE_SHOWN = 4_500;
const ANNOUNCEMENT_SHOWN = 20_000;

const $ = (id) => document.getElementById(id);
const money = (fen) => `¥${(fen / 100).toFixed(2)}`;
const number = (value) => new Intl.NumberFormat(locale()).format(value);
const clock = (ms) => new Intl.DateTimeFormat(locale(), { timeStyle: "medium" }).format(ms);

register({ en, zh });
detect();

/** All that is shown, so that it can be drawn anew in another language. */
const shown = {
  state: { state: "connecting" },
  until: 0,
  answer: ["shake.ready", {}, ""],
  user: null,
  shakes: 0,
  wins: 0,
  odds: null,
  page: null,
  offers: new Map(),
  campaigns: new Map(),
  hint: "shake.hint",
  motion: null,
};

const client = new ShakeClient({
  storage: sessionStorage,
  now: () => Date.now(),
  random: Math.random,
  socket: () => new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/shake`),
  mint: async () => {
    const asked = { method: "POST", headers: { "content-type": "application/json" }, body: "{}" };
    const answer = await fetch("/api/v1/guests", asked);
    if (answer.ok) return answer.json();
    const { error } = await answer.json();
    const retryMs = 1000 * Number(answer.headers.get("retry-after")) || undefined;
    throw Object.assign(new Error(error.message), { reason: error.code, retryMs });
  },
});

// ---- What is shown

function row(...parts) {
  const item = document.createElement("li");
  item.append(...parts);
  return item;
}

function words(text, small) {
  const cell = document.createElement("span");
  cell.append(text);
  if (small) {
    const second = document.createElement("small");
    second.append(small);
    cell.append(second);
  }
  return cell;
}

function drawState() {
  const { state, reason } = shown.state;
  const seconds = Math.max(1, Math.ceil((shown.until - Date.now()) / 1000));
  $("state").dataset.state = state;
  $("state-words").textContent = t(`shake.state.${state}`, { seconds });
  const key = `shake.reason.${reason}`;
  $("reason").hidden = !reason || !has(key);
  $("reason").textContent = $("reason").hidden ? "" : t(key);
  $("shake").disabled = state !== "online";
  $("resume").hidden = state !== "over";
  $("hint").hidden = state !== "online";
}

function drawAnswer() {
  const [key, values, kind] = shown.answer;
  const over = nothingOn() && ["shake.ready", "shake.answer.none_now"].includes(key);
  $("answer").textContent = over ? t("shake.answer.nothing") : t(key, values);
  $("answer").dataset.kind = kind;
}

function drawFigures() {
  const { odds, shakes, wins, user } = shown;
  const n = odds?.wins > 0 ? Math.max(1, Math.round(odds.shakes / odds.wins)) : 0;
  $("odds").textContent = n ? t("shake.odds.value", { n: number(n) }) : t("shake.odds.none");
  $("odds-note").textContent = t(nothingOn() ? "shake.odds.nothing" : "shake.odds.note");
  $("online").textContent = odds?.users_online == null ? "–" : number(odds.users_online);
  $("mine").textContent = number(shakes);
  $("mine-won").textContent = t("shake.mine.note", { n: number(wins) });
  $("you").textContent = user ? t("shake.you", { user }) : "";
}

function drawWallet() {
  const page = shown.page;
  $("balance").textContent = money(page?.balance_fen ?? 0);
  const rows = (page?.movements ?? []).slice(0, MOVEMENTS).map((movement) => {
    const amount = document.createElement("span");
    amount.className = movement.amount_fen > 0 ? "amount in" : "amount";
    amount.textContent = `${movement.amount_fen > 0 ? "+" : "−"}${money(Math.abs(movement.amount_fen))}`;
    return row(words(t(`shake.kind.${movement.kind}`), clock(movement.at_ms)), amount);
  });
  if (page && (page.more || page.movements.length > MOVEMENTS)) rows.push(row(words("", t("shake.wallet.more"))));
  $("movements").replaceChildren(...rows);
  $("wallet-empty").hidden = rows.length > 0;
}

function drawOffers() {
  const rows = [...shown.offers.values()].map((offer) => {
    const from = offer.sender_id ? t("shake.offer.user", { user: offer.sender_id }) : t("shake.offer.house");
    const open = document.createElement("button");
    open.type = "button";
    open.className = "primary";
    open.textContent = t("shake.open");
    open.addEventListener("click", () => client.ask({ open: { envelope_id: offer.envelope_id } }));
    return row(words(offer.greeting || from, `${from} · ${t("shake.offer.shares", { shares: offer.shares })}`), open);
  });
  $("offers").replaceChildren(...rows);
  $("offers-empty").hidden = rows.length > 0;
}

function drawCampaigns() {
  const rows = [...shown.campaigns].map(([id, state]) =>
    row(words(t("shake.campaign", { id })), words(t(`shake.campaign.${state}`))),
  );
  $("campaigns").replaceChildren(...rows);
  $("campaigns-empty").hidden = rows.length > 0;
}

/** Nothing is given away: no rain issues anything, and no campaign that this guest has heard of is on. */
function nothingOn() {
  const { odds, campaigns } = shown;
  return odds?.seconds > 0 && !odds.issued && !odds.wins && ![...campaigns.values()].includes(OPEN);
}

function drawHint() {
  $("hint").textContent = t(nothingOn() ? "shake.hint.nothing" : shown.hint);
  $("motion").hidden = shown.motion !== "offered";
}

function draw() {
  translate(document);
  document.title = t("shake.title");
  drawState();
  drawAnswer();
  drawFigures();
  drawWallet();
  drawOffers();
  drawCampaigns();
  drawHint();
}

function answer(key, values = {}, kind = "") {
  shown.answer = [key, values, kind];
  drawAnswer();
}

// ---- A prize falls

let dropTimers = [];

function clearDrop() {
  dropTimers.forEach(clearTimeout);
  dropTimers = [];
}

function drop(fen) {
  clearDrop();
  const envelope = $("drop");
  envelope.hidden = false;
  envelope.className = "drop";
  $("drop-yuan").textContent = money(fen);
  // The beginning must have been drawn once, or there is nothing to fall from.
  envelope.getBoundingClientRect();
  envelope.classList.add("fallen");
  envelope.parentElement.classList.add("prize");
  const later = (ms, act) => dropTimers.push(setTimeout(act, ms));
  later(620, () => envelope.classList.add("open"));
  later(620 + PRIZE_SHOWN, hideDrop);
  // Browsers complain of it before anybody has touched the page.
  if (navigator.userActivation?.hasBeenActive) navigator.vibrate?.([40, 60, 120]);
}

function hideDrop() {
  if ($("drop").hidden) return;
  clearDrop();
  $("drop").classList.add("gone");
  $("drop").parentElement.classList.remove("prize");
  dropTimers.push(setTimeout(() => ($("drop").hidden = true), 300));
}

// ---- What the server says

const ANSWERS = {
  none_now: () => ["shake.answer.none_now"],
  sold_out: () => ["shake.answer.sold_out"],
  overloaded: () => ["shake.answer.overloaded"],
  limit_reached: ({ limit }) => ["shake.answer.limit_reached", { limit }],
  too_early: ({ starts_at_ms }) => ["shake.answer.too_early", { time: clock(starts_at_ms) }],
  too_late: () => ["shake.answer.too_late"],
  error: ({ message }) => ["shake.answer.error", { message }],
};

let statementTimer = 0;

/** The wallet is read anew, a moment later: several wins are read together. */
function readWallet(ms = 500) {
  clearTimeout(statementTimer);
  statementTimer = setTimeout(() => client.ask({ statement: { before_entry_id: 0, limit: MOVEMENTS } }), ms);
}

/** Prizes that were shown: after a lost connection the same one may be told twice. */
const known = new Set();

function isNew({ campaign_id, serial }) {
  const key = `${campaign_id}/${serial}`;
  if (known.has(key)) return false;
  known.add(key);
  return true;
}

function won(prize) {
  if (!isNew(prize)) return;
  shown.wins += 1;
  answer("shake.answer.won", { yuan: money(prize.amount_fen) }, "won");
  drop(prize.amount_fen);
  readWallet();
}

function shaken(frame) {
  $("shake").classList.remove("asking");
  shown.shakes += 1;
  if (frame.won) won(frame.won);
  else if (frame.order) answer("shake.answer.order", {}, "won");
  else if (ANSWERS[frame.event]) answer(...ANSWERS[frame.event](frame[frame.event]));
  drawFigures();
}

function opened(envelope, frame) {
  if (frame.overloaded) return answer("shake.answer.overloaded");
  shown.offers.delete(envelope);
  drawOffers();
  if (frame.opened) {
    answer("shake.answer.opened", { yuan: money(frame.opened.amount_fen) }, "won");
    drop(frame.opened.amount_fen);
    readWallet();
  } else if (frame.envelope_empty) answer("shake.answer.envelope_empty");
  else if (frame.too_late) answer("shake.answer.envelope_late");
  else if (frame.error) answer("shake.answer.error", { message: frame.error.message });
}

let announced = 0;

function announce(text) {
  const banner = $("announcement");
  banner.textContent = text;
  banner.hidden = false;
  clearTimeout(announced);
  announced = setTimeout(() => (banner.hidden = true), ANNOUNCEMENT_SHOWN);
}

function remind({ wins }) {
  const missed = wins.filter(isNew);
  if (missed.length === 0) return;
  const fen = missed.reduce((sum, prize) => sum + prize.amount_fen, 0);
  answer("shake.answer.reminded", { yuan: money(fen) }, "won");
  readWallet();
}

client.addEventListener("told", ({ detail: { frame, asked } }) => {
  if (asked?.grab) return shaken(frame);
  if (asked?.open) return opened(asked.open.envelope_id, frame);
  if (frame.statement_page) {
    shown.page = frame.statement_page;
    return drawWallet();
  }
  if (frame.won) won(frame.won);
  if (frame.reminder) remind(frame.reminder);
  if (frame.announcement) announce(frame.announcement.text);
  if (frame.offers) {
    for (const offer of frame.offers.offers) shown.offers.set(offer.envelope_id, offer);
    drawOffers();
  }
  if (frame.campaign_notice) {
    shown.campaigns.set(frame.campaign_notice.campaign_id, frame.campaign_notice.state);
    drawCampaigns();
  }
});

client.addEventListener("state", ({ detail }) => {
  shown.state = detail;
  shown.until = Date.now() + (detail.inMs ?? 0);
  if (detail.user) shown.user = detail.user;
  $("shake").classList.remove("asking");
  if (detail.state === "online") {
    answer("shake.ready");
    readWallet(0);
  } else if (detail.state !== "connecting") answer(`shake.state.${detail.state === "queued" ? "connecting" : "over"}`);
  drawState();
  drawFigures();
});

// ---- What a person does

let lastShake = 0;

function shake() {
  const now = performance.now();
  if (now - lastShake < SHAKE_PAUSE || client.awaits("grab")) return;
  if (!client.ask({ grab: { campaign_id: 0 } })) return;
  lastShake = now;
  hideDrop();
  const envelope = $("shake");
  envelope.classList.remove("shaken");
  envelope.getBoundingClientRect(); // So that the movement begins anew.
  envelope.classList.add("shaken", "asking");
}

/** From anywhere on the page, unless the key belongs to what has the focus. */
function key(event) {
  if (event.key !== " " && event.key !== "Enter") return;
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("button, a, input, select, textarea")) return;
  event.preventDefault();
  shake();
}

let lastMotion = 0;

function moved(event) {
  const force = ({ x, y, z }) => Math.hypot(x ?? 0, y ?? 0, z ?? 0);
  const pure = event.acceleration;
  const strong =
    pure?.x != null ? force(pure) > FORCE : force(event.accelerationIncludingGravity ?? {}) > FORCE_WITH_GRAVITY;
  if (!strong || event.timeStamp - lastMotion < MOTION_PAUSE) return;
  lastMotion = event.timeStamp;
  shake();
}

function feel() {
  window.addEventListener("devicemotion", moved);
  shown.motion = "on";
  shown.hint = "shake.hint.motion";
  drawHint();
}

/** iOS asks its owner, and only when a finger has asked first; others just tell. */
function offerMotion() {
  const Motion = globalThis.DeviceMotionEvent;
  if (!Motion || !globalThis.isSecureContext || !matchMedia("(pointer: coarse)").matches) return;
  if (!Motion.requestPermission) return feel();
  shown.motion = "offered";
  drawHint();
}

async function askForMotion() {
  let granted = false;
  try {
    granted = (await DeviceMotionEvent.requestPermission()) === "granted";
  } catch {
    granted = false; // Asked for without a finger, or in a frame.
  }
  if (granted) return feel();
  shown.motion = "denied";
  shown.hint = "shake.motion.denied";
  drawHint();
}

async function look() {
  if (document.hidden) return;
  try {
    const told = await fetch("/api/v1/odds");
    shown.odds = told.ok ? await told.json() : null;
  } catch {
    shown.odds = null; // The monitor is away, which the connection tells.
  }
  drawFigures();
  drawAnswer();
  drawHint();
}

function turnTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("hongbao.theme", root.dataset.theme);
  } catch {
    // No storage: the choice lasts as long as the page.
  }
}

$("shake").addEventListener("click", shake);
$("shake").addEventListener("animationend", () => $("shake").classList.remove("shaken"));
$("motion").addEventListener("click", askForMotion);
$("resume").addEventListener("click", () => client.start());
$("language").addEventListener("click", () => setLanguage(language() === "en" ? "zh" : "en"));
$("theme").addEventListener("click", turnTheme);
window.addEventListener("language", draw);
window.addEventListener("keydown", key);
window.addEventListener("pagehide", () => client.stop());
window.addEventListener("pageshow", (event) => event.persisted && client.start());
setInterval(drawState, 500);
setInterval(look, ODDS_PAUSE);

draw();
offerMotion();
look();
client.start();
