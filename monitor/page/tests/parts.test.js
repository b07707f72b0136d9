import assert from "node:assert/strict";
import { test } from "node:test";

import { fromColumns, stands } from "../app/books.js";
import { CONTROLS, applies, says } from "../app/controls.js";
import { CHARTS, COMPARED, DERIVED, KINDS, SIDE, TABLE, figureName } from "../app/figures.js";
import { eventText, folded } from "../app/events.js";
import { clockOffset, sorted } from "../app/machines.js";
import { aligned, loadStart, ownFigures } from "../app/runs.js";
import { flatten, layout, sickness } from "../app/sets.js";
import { Store } from "../app/store.js";
import { everyFor, pause } from "../app/stream.js";
import { clusters } from "../app/timeline.js";
import { kept } from "../app/verdict.js";
import { has, setLanguage } from "../app/words.js";

function store(rows) {
  const store = new Store(DERIVED);
  rows.forEach((columns, at) => store.append({ columns: { second: 1_000 + at, ...columns } }));
  return store;
}

test("every figure of charts, side, table and comparison has a name and a kind", () => {
  const named = [...CHARTS.flatMap((chart) => (chart.lines ?? []).map((line) => line.column.replace(/^log_/, ""))), ...SIDE.flatMap(([, figures]) => figures.map(([column]) => column)), ...TABLE.map(([column]) => column)];
  for (const column of named) assert.ok(has(`col.${column}`), column);
  for (const chart of CHARTS) assert.ok(has(`chart.${chart.key}`) && chart.kind in KINDS, chart.key);
  for (const [group, figures] of SIDE) assert.ok(has(group) && figures.every(([, kind]) => kind in KINDS), group);
  for (const [key, column, kind] of COMPARED) assert.ok(has(`chart.${key}`) && kind in KINDS && figureName(column.replace(/^log_/, "")), key);
});

test("what is derived of nothing is nothing, and a logarithmic axis gets no 0", () => {
  const run = store([{ sent: 5 }, { sent: 5, planned: 7, latency_p50_us: 0 }]);
  assert.deepEqual(run.columns.behind, [null, -2]);
  assert.deepEqual(run.columns.log_latency_p50, [null, null]);
  assert.deepEqual(run.columns.server_cores, [null, null]);
});

test("a recorded run's books come from its columns", () => {
  const run = store([
    { won: 3, paid_fen: 300, residual_prizes: 0, residual_fen: 0 },
    { won: 2, paid_fen: 250, residual_prizes: 1, residual_fen: 120 },
    { won: 0, paid_fen: 0, residual_prizes: 1, residual_fen: 120 },
  ]);
  const [rain, sales] = fromColumns(run).books;
  assert.deepEqual([rain.servers_count, rain.servers_fen, rain.users_count, rain.users_fen], [5, 550, 4, 430]);
  assert.deepEqual([rain.balanced, rain.unbalanced_seconds], [false, 2]);
  assert.equal(sales.balanced, true);
  assert.equal(fromColumns(run, 0).books[0].balanced, true);
  assert.equal(stands(run, "residual_count", "residual_money", 2), 2);
});

test("a sick SET is told with the figures by which it is sick", () => {
  const many = (value) => Array.from({ length: 60 }, () => value);
  const servers = { "server-1": { connections: many(4_000), online: many(4_000), queue_depth: many(2), owed: many(1), stock: many(0) } };
  servers["server-1"].queue_depth[17] = 900;
  servers["server-1"].connections[17] = 3_000;
  const sets = flatten(servers);
  assert.equal(sets.length, 60);
  const sick = sickness(sets).flatMap((of, at) => (of.length ? [[at, of]] : []));
  assert.deepEqual(sick, [[17, ["queue_depth", "connections"]]]);
});

test("SETs of several servers are in the servers' order, and figures that are missing are 0", () => {
  const sets = flatten({ "server-10": { connections: [1] }, "server-2": { connections: [2, 3] } });
  assert.deepEqual(sets.map((set) => [set.server, set.index, set.connections, set.stock]), [["server-2", 0, 2, 0], ["server-2", 1, 3, 0], ["server-10", 0, 1, 0]]);
});

test("the grid's cells fit their box, from one SET to a thousand", () => {
  for (const count of [1, 7, 56, 224, 1_000]) {
    const { columns, side } = layout(count, 560, 208);
    assert.ok(columns * (side + 2) <= 562 && Math.ceil(count / columns) * (side + 2) <= 210, `${count}: ${columns} of ${side}`);
    assert.ok(side >= 5, `${count}: ${side}`);
  }
});

test("machines are sorted by what they tell, those alike by name", () => {
  const machine = (name, online) => ({ role: "machine", name, online, presence: "reporting", clock_offset_us: null });
  const list = [machine("m10", 5), machine("m2", 5), machine("m1", 9), { ...machine("s", 1), role: "server" }];
  assert.deepEqual(sorted(list, "name", false).map((one) => one.name), ["s", "m1", "m2", "m10"]);
  assert.deepEqual(sorted(list, "online", true).map((one) => one.name), ["m1", "m10", "m2", "s"]);
  assert.equal(clockOffset({ clock_offset_us: -28, clock_error_us: 12 }).replaceAll("\u00a0", " "), "−28 µs ± 12 µs");
  assert.equal(clockOffset({ clock_offset_us: null }), "–");
});

test("two runs are laid over each other by seconds since they began", () => {
  const [one, other] = [store([{ planned: 0, sent: 1 }, { planned: 5, sent: 2 }]), store([{ planned: 5, sent: 3 }])];
  assert.deepEqual(aligned(one, other, "sent"), [[0, 1], [1, 2], [3, null]]);
  assert.deepEqual([loadStart(one), loadStart(other)], [1, 0]);
  assert.deepEqual(aligned(one, other, "sent", [1, 0]), [[-1, 0], [1, 2], [null, 3]]);
  assert.equal(ownFigures(one, other).find((row) => row.name === "users_max").a, null);
});

test("marks that lie too near share a sign, and none is lost", () => {
  const groups = clusters([0, 5, 30, 100, 110, 119], 22);
  assert.deepEqual(groups.map((group) => group.members), [[0, 1], [2], [3, 4, 5]]);
});

test("each line of a chart has a dash of its own", () => {
  for (const { key, lines = [] } of CHARTS) assert.equal(new Set(lines.map((line) => String(line.dash))).size, lines.length, key);
});

test("a second that not everybody has reported is a gap, the host's is not", () => {
  const run = store([{ sent: 5, complete: 1, host_net_sent_bytes: 1 }, { sent: 0, complete: 0, host_net_sent_bytes: 2 }, { sent: 6, complete: 1, host_net_sent_bytes: 3 }]);
  assert.deepEqual([run.whole("sent"), run.whole("host_net_sent_bytes")], [[5, null, 6], [1, 2, 3]]);
});

test("ten orders are ten events, each with who told of it", () => {
  const order = (at) => ({ at_ms: at, kind: "qps", source: "operator", text: `${at} requests a second, by nora` });
  const echo = (at) => ({ at_ms: at, kind: "qps", source: "4 machines", text: `${at} requests a second` });
  const tens = Array.from({ length: 10 }, (_, at) => 10_000 * (at + 1));
  const events = folded(tens.flatMap((at) => [order(at), echo(at)]));
  assert.deepEqual(events.map((event) => [event.source, event.told]), tens.map(() => ["operator", "4 machines"]));
  const alone = [{ at_ms: 5, kind: "phase", source: "4 machines", text: "5 requests a second" }, order(900_000)];
  assert.deepEqual(folded(alone).map((event) => event.told ?? null), [null, null]);
});

test("what happened is said in Chinese", () => {
  globalThis.document ??= { documentElement: {}, querySelectorAll: () => [] };
  globalThis.window ??= { dispatchEvent: () => {} };
  setLanguage("zh");
  const told = ["500 requests a second", "campaign 3 has ended", "30% of the users are cut", "rain begins of 100 (1 of 2 took it), by nora", "3 machines"].map(eventText);
  setLanguage("en");
  assert.deepEqual(told, ["每秒 500 个请求", "活动 3 已结束", "断开 30% 的用户", "摇红包开始，共 100 个（2 个中 1 个接受），操作员 nora", "3 台机器"]);
  assert.equal(eventText("3 machines"), "3 machines");
});

test("seconds kept are those of phases that are judged", () => {
  const phase = { judged: true, seconds: 10, storm_seconds: 2, changed_seconds: 1, seconds_within_tolerance: 6 };
  assert.deepEqual(kept([phase, { ...phase, judged: false }]), [6, 7]);
});

test("attempts to reconnect become rarer, up to a bound", () => {
  const waits = Array.from({ length: 20 }, (_, attempt) => pause(attempt, 0));
  assert.equal(waits[0], 500);
  assert.equal(waits.at(-1), 15_000);
  assert.ok(waits.every((wait, at) => at === 0 || wait >= waits[at - 1]));
  assert.ok(pause(3, 1) > pause(3, 0));
});

test("a long run is asked for in rows that fit", () => {
  assert.deepEqual([0, 3_600, 7_200, 7_201, 86_400].map(everyFor), [1, 1, 1, 2, 12]);
});

test("each control says in full what will happen, with nothing left to fill in", () => {
  for (const control of CONTROLS) {
    for (const kind of control.key === "campaign" ? ["rain", "ticket", "coupon"] : [null]) {
      const of = Object.fromEntries(control.fields.map((field) => [field.name, (typeof field.value === "number" && field.value) || (field.type === "number" ? 3 : "x")]));
      if (kind) of.kind = kind;
      const words = says(control, of, { machines: 4, servers: 1 });
      assert.doesNotMatch(words, /[{}]|control\./, words);
    }
    for (const field of control.fields) assert.ok(has(`field.${field.name}`), field.name);
    for (const part of ["", ".do", ...(control.danger ? [".warning"] : [])]) assert.ok(has(`control.${control.key}${part}`), control.key);
  }
});

test("a control sends what the interface takes", () => {
  const of = (key) => CONTROLS.find((control) => control.key === key);
  assert.deepEqual(of("storm").body({ percent: 30, in_seconds: 3 }), { share: "30%", in_seconds: 3 });
  assert.deepEqual(of("qps").body({ qps: 5_000, in_seconds: 3 }), { qps: 5_000, in_seconds: 3 });
  const sale = of("campaign").body({ kind: "ticket", total: 10, price_fen: 80, hold_seconds: 5, title: "" });
  assert.deepEqual(sale, { kind: "ticket", total: 10, price_fen: 80, hold_ms: 5_000 });
  const rain = { kind: "rain", total: 10, rate_per_second: 1, min_fen: 1, max_fen: 2 };
  assert.deepEqual(of("campaign").body(rain), rain);
  const fields = of("campaign").fields.filter((field) => applies(field, { kind: "rain" })).map((field) => field.name);
  assert.ok(fields.includes("min_fen") && !fields.includes("price_fen"));
});
