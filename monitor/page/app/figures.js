// What is drawn and told: every figure's column, unit and colour, and which of them share a chart. Data, and pure.

import * as format from "./format.js";
import { has, t } from "./words.js";

const over = (one, by, of) => {
  const [value, unit] = [of(one), by];
  return value === null ? null : value / unit;
};
const positive = (name) => (of) => (of(name) > 0 ? of(name) : null);

/** Columns worked out from reported ones; a logarithmic axis has no place for 0. */
export const DERIVED = {
  behind: (of) => (of("sent") === null || of("planned") === null ? null : of("sent") - of("planned")),
  server_cores: (of) => over("server_cpu_us", 1e6, of),
  fleet_cores: (of) => over("fleet_cpu_us", 1e6, of),
  host_cores: (of) => {
    if (of("host_cpu_user_seconds") === null) return null;
    const parts = ["user", "nice", "system", "irq", "softirq", "steal"];
    const busy = parts.reduce((sum, part) => sum + (of(`host_cpu_${part}_seconds`) ?? 0), 0);
    return busy / (of("host_span_seconds") || 1);
  },
  host_memory_used_bytes: (of) => {
    const [all, free] = [of("host_memory_total_bytes"), of("host_memory_available_bytes")];
    return all === null || free === null ? null : all - free;
  },
  residual_count: (of) => (of("residual_prizes") ?? 0) + (of("residual_units") ?? 0) + (of("residual_shares") ?? 0),
  residual_money: (of) => (of("residual_fen") ?? 0) + (of("residual_sale_fen") ?? 0) + (of("residual_share_fen") ?? 0),
  log_latency_p50: positive("latency_p50_us"),
  log_latency_p99: positive("latency_p99_us"),
  log_latency_p999: positive("latency_p999_us"),
  log_lag_p50: positive("send_lag_p50_us"),
  log_lag_p99: positive("send_lag_p99_us"),
  log_lag_max: positive("send_lag_max_us"),
  log_commit_p50: positive("ledger_commit_p50_us"),
  log_commit_p99: positive("ledger_commit_p99_us"),
  log_descriptors_limit: positive("descriptors_limit"),
  log_open_descriptors: positive("open_descriptors"),
  log_host_files_open: positive("host_files_open"),
};

/** How a kind of figure is told in full, and on an axis. */
export const KINDS = {
  count: [format.count, format.short],
  difference: [format.difference, format.short],
  micros: [format.micros, format.microsShort],
  bytes: [format.bytes, format.bytesShort],
  cores: [format.cores, format.short],
  share: [format.percent, format.percent],
  seconds: [format.seconds, format.seconds],
  yuan: [format.yuan, (fen) => format.short(fen / 100)],
};

/** What an axis of that kind counts in. */
export function axisOf(kind) {
  return { bytes: { binary: true }, count: { whole: true, least: 4 }, difference: { whole: true } }[kind] ?? {};
}

const line = (column, colour, more = {}) => ({ column, colour, ...more });
/** What ought to be, in long dashes. */
const plan = (column) => line(column, "s-plan", { dash: [5, 4] });
/** How the lines of a chart are told apart without colour, in order. */
export const DASHES = [undefined, [7, 3], [2, 2], [9, 3, 2, 3], [4, 2]];

/**
 * The charts, in order. `wide`: over two columns. `log`: a logarithmic axis. `stack`: the reasons of a group over each other.
 * `heat`: buckets under the lines. A line that is `area` is filled, one with `dash` is what ought to be.
 */
export const CHARTS = [
  {
    key: "rates", wide: true, kind: "count", unit: "unit.per_second",
    lines: [plan("planned"), line("sent", "s1"), line("received", "s2"), line("answered", "s3")],
  },
  { key: "users", kind: "count", lines: [plan("users_goal"), line("users_online", "s1", { area: true }), line("connections", "s4")] },
  {
    key: "latency", wide: true, kind: "micros", log: true, heat: "latency",
    lines: [line("log_latency_p50", "s2"), line("log_latency_p99", "ink"), line("log_latency_p999", "s4")],
  },
  { key: "wins", kind: "count", unit: "unit.per_second", lines: [plan("issued"), line("won", "s5", { area: true })] },
  { key: "lag", kind: "micros", log: true, lines: [line("log_lag_p50", "s2"), line("log_lag_p99", "ink"), line("log_lag_max", "s4")] },
  { key: "behind", kind: "difference", signed: true, unit: "unit.per_second", lines: [line("behind", "s1", { area: true })] },
  { key: "refusals", kind: "count", unit: "unit.per_second", lines: [line("overloaded", "s3", { area: true }), line("refused", "s5"), line("disconnects", "s4")] },
  { key: "ended", more: true, kind: "count", unit: "unit.per_second", stack: "ended" },
  { key: "answers", more: true, kind: "count", unit: "unit.per_second", stack: "answers" },
  { key: "errors", more: true, kind: "count", unit: "unit.per_second", stack: "errors" },
  { key: "cpu", more: true, kind: "cores", unit: "unit.cores", lines: [line("server_cores", "s1", { area: true }), line("fleet_cores", "s3")] },
  { key: "host_cpu", more: true, kind: "cores", unit: "unit.cores", lines: [line("host_cores", "s2", { area: true })] },
  { key: "memory", more: true, kind: "bytes", lines: [line("server_resident_bytes", "s1"), line("fleet_resident_bytes", "s3"), line("host_tcp_buffer_bytes", "s4")] },
  { key: "host_memory", more: true, kind: "bytes", lines: [line("host_memory_used_bytes", "s2", { area: true })] },
  { key: "queues", more: true, kind: "count", lines: [line("requests_owed", "s1", { area: true }), line("queue_depth_max", "s3"), line("prizes_in_sets", "s5")] },
  { key: "commit", more: true, kind: "micros", log: true, lines: [line("log_commit_p50", "s2"), line("log_commit_p99", "ink")] },
  { key: "packets", more: true, kind: "count", unit: "unit.per_second", lines: [line("host_net_received_packets", "s1"), line("host_net_sent_packets", "s3")] },
  { key: "bytes", more: true, kind: "bytes", unit: "unit.per_second", lines: [line("host_net_received_bytes", "s1"), line("host_net_sent_bytes", "s3")] },
  { key: "descriptors", more: true, kind: "count", log: true, lines: [plan("log_descriptors_limit"), line("log_open_descriptors", "s1"), line("log_host_files_open", "s4")] },
  { key: "drops", more: true, kind: "count", unit: "unit.per_second", lines: [line("host_listen_overflows", "s5"), line("host_tcp_retransmits", "s1"), line("host_tcp_backlog_drops", "s3"), line("host_out_of_memory_kills", "s4")] },
  { key: "deals", more: true, kind: "count", unit: "unit.per_second", lines: [line("units_sold", "s3"), line("shares_opened", "s5"), line("envelopes_sent", "s1"), line("announcements_delivered", "s4"), line("chat_delivered", "s2")] },
];

for (const { lines = [] } of CHARTS) lines.filter((one) => !one.dash).forEach((one, at) => (one.dash = DASHES[at]));

/** Colours of stacked reasons, in order. */
export const STACK_COLOURS = ["s1", "s3", "s2", "s5", "s4", "s6", "s7", "s8"];

/** A second's figures beside the charts, by group: [column, kind]. */
export const SIDE = [
  ["side.load", [["users_online", "count"], ["users_goal", "count"], ["connections", "count"], ["planned", "count"], ["sent", "count"], ["received", "count"], ["answered", "count"], ["requests_owed", "count"]]],
  ["side.latency", [["latency_p50_us", "micros"], ["latency_p99_us", "micros"], ["latency_p999_us", "micros"], ["latency_max_us", "micros"], ["send_lag_p50_us", "micros"], ["send_lag_p99_us", "micros"], ["send_lag_max_us", "micros"], ["ledger_commit_p50_us", "micros"], ["ledger_commit_p99_us", "micros"], ["clock_error_max_us", "micros"]]],
  ["side.money", [["issued", "count"], ["won", "count"], ["paid_fen", "yuan"], ["received_fen", "yuan"], ["units_sold", "count"], ["earned_fen", "yuan"], ["shares_opened", "count"], ["opened_fen", "yuan"], ["residual_count", "difference"], ["residual_money", "yuan"]]],
  ["side.trouble", [["overloaded", "count"], ["refused", "count"], ["disconnects", "count"], ["queue_depth_max", "count"], ["host_listen_overflows", "count"], ["host_tcp_retransmits", "count"], ["host_out_of_memory_kills", "count"]]],
  ["side.host", [["server_cores", "cores"], ["fleet_cores", "cores"], ["host_cores", "cores"], ["server_resident_bytes", "bytes"], ["fleet_resident_bytes", "bytes"], ["host_memory_used_bytes", "bytes"], ["host_net_received_packets", "count"], ["host_net_sent_packets", "count"], ["host_net_received_bytes", "bytes"], ["host_net_sent_bytes", "bytes"], ["open_descriptors", "count"]]],
];

/** Columns of the table of the last minute. */
export const TABLE = [["users_online", "count"], ["planned", "count"], ["sent", "count"], ["received", "count"], ["answered", "count"], ["won", "count"], ["latency_p50_us", "micros"], ["latency_p99_us", "micros"], ["overloaded", "count"], ["disconnects", "count"], ["residual_count", "difference"]];

/** Lines of the comparison of two runs. */
export const COMPARED = [
  ["rates", "answered", "count", "unit.per_second"],
  ["users", "users_online", "count", null],
  ["latency", "log_latency_p99", "micros", null, true],
  ["lag", "log_lag_p99", "micros", null, true],
  ["wins", "won", "count", "unit.per_second"],
  ["refusals", "overloaded", "count", "unit.per_second"],
  ["cpu", "server_cores", "cores", "unit.cores"],
  ["memory", "server_resident_bytes", "bytes", null],
  ["commit", "log_commit_p99", "micros", null, true],
  ["drops", "host_tcp_retransmits", "count", "unit.per_second"],
];

/** A figure's name. */
export function figureName(column) {
  return t(`col.${column.replace(/^log_/, "")}`);
}

/** A figure's name away from its chart, where nothing else says what it is of. */
export function fullName(column) {
  return has(`full.${column}`) ? t(`full.${column}`) : figureName(column);
}

/** A figure as it is told in full. */
export function tell(kind, value) {
  return KINDS[kind][0](value);
}

/** A reason's name as people say it; names that this page does not know are shown as they are. */
export function reasonName(name) {
  const known = t(`reason.${name}`);
  return known === `reason.${name}` ? name.replaceAll("_", " ") : known;
}
