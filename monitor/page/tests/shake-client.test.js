// The connection of the shaking page, against a socket that the test holds.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { PbfReader, PbfWriter } from "../vendor/pbf/pbf.js";
import { GoodbyeReason, readClientFrame, writeServerFrame } from "../app/client.proto.js";
import { ids, pause, PAUSE_MAX, PAUSE_MIN, ShakeClient } from "../app/shake-client.js";
import { en, zh } from "../app/shake-words.js";
import { en as dashboard } from "../app/words.js";

/** A world in which the test decides what happens. */
function world() {
  const made = { sockets: [], minted: 0, stored: new Map() };
  made.storage = {
    getItem: (name) => made.stored.get(name) ?? null,
    setItem: (name, value) => made.stored.set(name, value),
    removeItem: (name) => made.stored.delete(name),
  };
  made.now = () => 1_800_000_000_000;
  made.random = () => 0;
  made.mint = async () => ({ user: ++made.minted, token: `token ${made.minted}`, expires_at: 1_900_000_000 });
  made.socket = () => {
    const socket = { readyState: 1, sent: [], closed: null };
    socket.send = (bytes) => socket.sent.push(readClientFrame(new PbfReader(bytes)));
    socket.close = (code) => (socket.closed = code);
    socket.tell = (frame) => {
      const writer = new PbfWriter();
      writeServerFrame(frame, writer);
      socket.onmessage({ data: writer.finish().slice().buffer });
    };
    made.sockets.push(socket);
    return socket;
  };
  return made;
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

async function online(made) {
  const client = new ShakeClient(made);
  client.start();
  await settled();
  const socket = made.sockets.at(-1);
  socket.onopen();
  const login = socket.sent.at(-1);
  socket.tell({ request_id: login.request_id, welcome: { user_id: 1, idle_timeout_ms: 60_000 } });
  return { client, socket, login };
}

test("a guest logs in with its token and is on-line when it is welcome", async () => {
  const made = world();
  const { client, login } = await online(made);
  assert.equal(login.login.token, "token 1");
  assert.equal(client.state, "online");
  client.stop();
});

test("a win is told and acknowledged", async () => {
  const { client, socket } = await online(world());
  const told = [];
  client.addEventListener("told", ({ detail }) => told.push(detail));
  const id = client.ask({ grab: { campaign_id: 0 } });
  assert.equal(socket.sent.at(-1).request_id, id);
  assert.ok(socket.sent.at(-1).grab && client.awaits("grab"));
  socket.tell({ request_id: id, won: { campaign_id: 3, serial: 7, amount_fen: 123, won_by_request_id: id } });
  assert.ok(!client.awaits("grab"));
  assert.equal(told[0].frame.won.amount_fen, 123);
  assert.ok(told[0].asked.grab);
  assert.deepEqual(socket.sent.at(-1).acknowledge.prizes, [{ campaign_id: 3, serial: 7 }]);
  client.stop();
});

test("a shake that was under way when the connection was lost is sent again under its id", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const made = world();
  const { client, socket } = await online(made);
  const id = client.ask({ grab: { campaign_id: 0 } });
  client.ask({ statement: {} });
  socket.onclose({ code: 1012, reason: "server_ended" });
  assert.equal(client.state, "waiting");
  context.mock.timers.tick(PAUSE_MAX);
  await settled();
  const again = made.sockets.at(-1);
  assert.notEqual(again, socket);
  again.onopen();
  again.tell({ request_id: again.sent[0].request_id, welcome: {} });
  assert.deepEqual(
    again.sent.slice(1).map((frame) => [frame.request_id, frame.request]),
    [[id, "grab"]],
  );
  assert.equal(made.minted, 1, "the guest is the same");
  client.stop();
});

test("a login that is told to wait keeps its connection and its appointment", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const made = world();
  const client = new ShakeClient(made);
  client.start();
  await settled();
  const [socket] = made.sockets;
  socket.onopen();
  socket.tell({ request_id: socket.sent[0].request_id, overloaded: { retry_after_ms: 4_000 } });
  assert.equal(client.state, "queued");
  context.mock.timers.tick(3_999);
  assert.equal(socket.sent.length, 1);
  context.mock.timers.tick(1);
  assert.ok(socket.sent[1].login);
  assert.equal(made.sockets.length, 1);
  client.stop();
});

test("whoever plays in another window does not come back by itself, and whoever is refused becomes a new guest", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const made = world();
  const first = await online(made);
  first.socket.tell({ request_id: 0, goodbye: { reason: GoodbyeReason.REASON_REPLACED } });
  first.socket.onclose({ code: 1012, reason: "server_ended" });
  assert.equal(first.client.state, "over");
  context.mock.timers.tick(PAUSE_MAX);
  await settled();
  assert.equal(made.sockets.length, 1);

  const second = await online(made);
  second.socket.onclose({ code: 1008, reason: "stranger" });
  context.mock.timers.tick(PAUSE_MAX);
  await settled();
  assert.equal(made.minted, 2);
  second.client.stop();
});

test("pauses grow up to a bound and are never none", () => {
  for (let tries = 0; tries < 40; tries += 1) {
    for (const random of [0, 0.5, 1]) {
      const wait = pause(tries, random);
      assert.ok(wait >= PAUSE_MIN / 2 && wait <= PAUSE_MAX, `${tries}: ${wait}`);
    }
  }
  assert.ok(pause(3, 0) > pause(0, 1) / 2);
});

test("ids increase whatever the clock does, and are exact", () => {
  let now = 1_800_000_000_000;
  const next = ids(() => now);
  const first = next();
  assert.equal(next(), first + 1);
  now -= 5_000;
  assert.equal(next(), first + 2);
  now += 10_000;
  assert.ok(next() > first + 1_000_000 && Number.isSafeInteger(next()));
});

test("both languages say the same things, with the same values in them", () => {
  assert.deepEqual(Object.keys(zh), Object.keys(en));
  for (const [key, words] of Object.entries(en)) {
    const values = (text) => (text.match(/\{\w+\}/g) ?? []).sort();
    assert.deepEqual(values(zh[key]), values(words), key);
  }
});

test("every word that the page names is there", () => {
  const page = readFileSync(new URL("../shake.html", import.meta.url), "utf8");
  const code = readFileSync(new URL("../shake.js", import.meta.url), "utf8");
  const named = [...page.matchAll(/data-t(?:-\w+)?="([^"]+)"/g), ...code.matchAll(/"(shake\.[a-z_.]+[a-z_])"/g)];
  assert.ok(named.length > 40);
  for (const [, key] of named) assert.ok(key in en || key in dashboard, key);
});
