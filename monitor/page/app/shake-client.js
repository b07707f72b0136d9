// A user's connection, in the browser: logs in, asks, acknowledges what it is told, and comes back after every end but the final
// ones. Knows no page: it tells what happens as events, and is given everything that touches the world.

import { PbfReader, PbfWriter } from "../vendor/pbf/pbf.js";
import { ErrorCode, GoodbyeReason, readServerFrame, writeClientFrame } from "./client.proto.js";

/** First and longest pause before the next attempt, milliseconds. */
export const PAUSE_MIN = 500;
export const PAUSE_MAX = 15_000;
/** Where there is no room, or no server: it takes longer until that changes. */
export const PAUSE_FULL = 5_000;
/** Between two signs of life, milliseconds: the bridge waits a minute for one. */
const PING_MAX = 20_000;
/** What one Acknowledge may name. */
const ACKNOWLEDGED_TOGETHER = 64;
const STORED = "hongbao.guest";

export const encode = (frame) => {
  const writer = new PbfWriter();
  writeClientFrame(frame, writer);
  return writer.finish();
};

export const decode = (bytes) => readServerFrame(new PbfReader(new Uint8Array(bytes)));

/** How long to wait before attempt `tries` (from 0): twice as long each time, half of it at random. */
export function pause(tries, random = Math.random(), least = PAUSE_MIN) {
  const whole = Math.min(PAUSE_MAX, least * 2 ** Math.min(tries, 10));
  return Math.round(whole / 2 + (random * whole) / 2);
}

/** Ids increase, also over reloads of the page: milliseconds since 1970, times a thousand, stay below 2^53. */
export function ids(now = Date.now) {
  let last = 0;
  return () => (last = Math.max(last + 1, now() * 1000));
}

/**
 * Events, each with a `detail`:
 * `state` {state, reason, inMs}: "connecting", "queued" (an appointment), "online", "waiting" (for the next attempt), "over".
 * `told` {frame, asked}: anything the server says; `asked`: what it answers, if it was asked here.
 */
export class ShakeClient extends EventTarget {
  #world;
  #next;
  #socket = null;
  #asked = new Map();
  #seen = { prizes: [], orders: [], envelopes: [] };
  #tries = 0;
  #timer = 0;
  #pings = 0;
  #goodbye = null;
  #stopped = true;
  state = "over";

  /** `world`: {mint(), socket(), storage, now(), random()}. */
  constructor(world) {
    super();
    this.#world = world;
    this.#next = ids(world.now);
  }

  start() {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#tries = 0;
    this.#connect();
  }

  /** Ends for good, until started again. */
  stop(reason = "left") {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#pings);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#enter("over", { reason });
  }

  /** Asks, if that is possible now. Returns the request's id, or 0. */
  ask(request) {
    if (this.state !== "online") return 0;
    return this.#send(request);
  }

  /** Whether a request of this kind awaits its answer. */
  awaits(kind) {
    return [...this.#asked.values()].some((request) => kind in request);
  }

  #enter(state, detail = {}) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, ...detail } }));
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.#enter("connecting");
    this.#goodbye = null;
    let guest;
    try {
      guest = this.#stored() ?? (await this.#world.mint());
    } catch (error) {
      return this.#later(error.reason ?? "unreachable", error.retryMs);
    }
    if (this.#stopped) return;
    this.#store(guest);
    const socket = this.#world.socket();
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const login = () => {
      if (this.#socket === socket) this.#send({ login: { token: guest.token } });
    };
    socket.onopen = login;
    socket.onmessage = ({ data }) => {
      if (this.#socket === socket) this.#told(decode(data), guest, login);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket === socket) this.#closed(code, reason);
    };
  }

  #closed(code, reason) {
    this.#socket = null;
    clearInterval(this.#pings);
    clearTimeout(this.#timer);
    this.#seen = { prizes: [], orders: [], envelopes: [] };
    // A shake that was under way is asked for again, under its id: it gets its first answer. The rest is not missed.
    for (const [id, request] of this.#asked) if (!request.grab && !request.open) this.#asked.delete(id);
    if (this.#goodbye?.reason === GoodbyeReason.REASON_REPLACED) return this.stop("replaced");
    if (this.#goodbye?.reason === GoodbyeReason.REASON_KICKED) return this.stop("kicked");
    if (reason === "stranger") this.#store(null);
    const away = reason === "full" || reason === "no_server";
    const wait = this.#goodbye?.return_after_ms || undefined;
    this.#later(reason || (code === 1006 ? "unreachable" : "lost"), wait, away ? PAUSE_FULL : PAUSE_MIN);
  }

  #later(reason, inMs, least = PAUSE_MIN) {
    if (this.#stopped) return;
    const wait = inMs ?? pause(this.#tries, this.#world.random(), least);
    this.#tries += 1;
    this.#enter("waiting", { reason, inMs: wait });
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #told(frame, guest, login) {
    const asked = this.#asked.get(frame.request_id);
    this.#asked.delete(frame.request_id);
    if (asked?.login) return this.#loggedIn(frame, guest, login);
    if (frame.goodbye) this.#goodbye = frame.goodbye;
    this.dispatchEvent(new CustomEvent("told", { detail: { frame, asked } }));
    this.#acknowledge(frame);
  }

  #loggedIn(frame, guest, login) {
    if (frame.welcome) {
      this.#tries = 0;
      const every = Math.min(PING_MAX, (frame.welcome.idle_timeout_ms || 2 * PING_MAX) / 2);
      clearInterval(this.#pings);
      this.#pings = setInterval(() => this.ask({ ping: {} }), every);
      this.#enter("online", { user: guest.user });
      for (const [id, request] of this.#asked) this.#write(id, request);
    } else if (frame.overloaded) {
      // An appointment: on this connection, at that moment.
      const inMs = frame.overloaded.retry_after_ms;
      this.#enter("queued", { inMs });
      this.#timer = setTimeout(login, inMs);
    } else if (frame.error) {
      const { TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_FOREIGN } = Object.fromEntries(
        ["TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_FOREIGN"].map((name) => [name, ErrorCode[`ERROR_CODE_${name}`]]),
      );
      if ([TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_FOREIGN].includes(frame.error.code)) this.#store(null);
    }
  }

  /** What was shown here need not be told again at the next login. */
  #acknowledge(frame) {
    const { prizes, orders } = this.#seen;
    const won = [...(frame.won ? [frame.won] : []), ...(frame.reminder?.wins ?? [])];
    for (const { campaign_id, serial } of won) prizes.push({ campaign_id, serial });
    for (const order of [...(frame.order ? [frame.order] : []), ...(frame.reminder?.orders ?? [])]) {
      orders.push(order.order_id);
    }
    while (prizes.length + orders.length > 0) {
      const some = prizes.splice(0, ACKNOWLEDGED_TOGETHER);
      const more = orders.splice(0, ACKNOWLEDGED_TOGETHER - some.length);
      this.ask({ acknowledge: { prizes: some, envelope_ids: [], order_ids: more } });
    }
  }

  #send(request) {
    const id = this.#next();
    this.#asked.set(id, request);
    this.#write(id, request);
    return id;
  }

  #write(id, request) {
    if (this.#socket?.readyState === 1) this.#socket.send(encode({ request_id: id, ...request }));
  }

  #stored() {
    try {
      const guest = JSON.parse(this.#world.storage.getItem(STORED));
      return guest?.token && guest.expires_at * 1000 > this.#world.now() + 60_000 ? guest : null;
    } catch {
      return null; // No storage, or not ours: a new guest.
    }
  }

  #store(guest) {
    try {
      if (guest) this.#world.storage.setItem(STORED, JSON.stringify(guest));
      else this.#world.storage.removeItem(STORED);
    } catch {
      // No storage: the guest lasts as long as the page.
    }
  }
}
