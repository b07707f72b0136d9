//! Every kind of event there is. A kind is one fact, with one name, one level and its own fields,
//! which programs may rely on.
//!
//! A test holds the sources against this table, and `monitor/LOGS.md` is made of it. What a peer
//! does wrong is at most `info`: it is no failure of ours; and what fails on our side is at least a
//! `warn`.

use std::fmt::Write;

use tracing::Level;

use crate::logs::limit::LINES_PER_SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Server,
    /// hongbao-sim
    Fleet,
    Monitor,
    Any,
}

/// How much of a kind is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many lines a second, see [`crate::logs::limit`].
    PerSecond,
    /// All of it: it is about money, or was asked for by name.
    Never,
}

#[derive(Debug)]
pub struct Kind {
    /// The value of `event`.
    pub name: &'static str,
    pub level: Level,
    pub by: Program,
    pub limit: Limit,
    /// Fields that it may have besides `ts`, `level`, `event` and `msg`.
    pub fields: &'static [&'static str],
    pub says: &'static str,
}

macro_rules! kinds {
    ($($name:literal $level:ident $by:ident $limit:ident [$($field:literal)*] $says:literal;)*) => {
        pub const KINDS: &[Kind] = &[$(Kind {
            name: $name, level: Level::$level, by: Program::$by, limit: Limit::$limit, fields: &[$($field),*], says: $says,
        },)*];
    };
}

kinds! {
    "foreign" INFO Any PerSecond ["target"] "a library says something; at any level, with fields of its own";
    "withheld" INFO Any Never ["of" "count"] "so many more events `of` this kind were not logged; at the level of that kind";
    "log_lines_lost" WARN Any Never ["count"] "nobody read the log fast enough: so many lines before this one were dropped";
    "panicked" ERROR Any Never ["thread" "place"] "a programming mistake of ours, which may end the process; a backtrace follows where `RUST_BACKTRACE` asks for one";
    "secret_exposed" WARN Any PerSecond ["path" "mode"] "others can read the secret's file";
    "stdout_unread" WARN Any PerSecond ["error"] "nobody reads standard output";
    "report_link_up" INFO Any PerSecond ["monitor"] "reports reach the monitor";
    "report_link_down" INFO Any PerSecond ["monitor" "problem"] "reports are dropped until the monitor is back";
    "last_report_lost" WARN Any PerSecond [] "the last report did not reach the monitor in time";
    "report_too_long" ERROR Any PerSecond ["bytes" "max"] "a report is longer than a frame may be";
    "histogram_lost" ERROR Any PerSecond ["name" "error"] "a histogram cannot be serialized";
    "http_peer_failed" DEBUG Any PerSecond ["error"] "an HTTP connection broke";
    "http_accept_failed" ERROR Any PerSecond ["error"] "an HTTP connection cannot be accepted";
    "http_unbounded" WARN Any PerSecond ["error"] "an HTTP peer that takes nothing cannot be cut in time";
    "service_unheard" DEBUG Any PerSecond ["error"] "the service manager does not listen";
    "http_cut" WARN Any PerSecond ["connections"] "requests were still running at the stop's deadline";

    "host_carries" INFO Server PerSecond ["wanted" "host"] "this host carries the connections wanted";
    "host_too_small" WARN Server PerSecond ["wanted" "host" "mend"] "this host carries fewer connections than wanted";
    "serving" INFO Server PerSecond ["listen" "admin" "shards" "sets"] "the server takes connections";
    "not_favoured" INFO Server PerSecond [] "without CAP_SYS_NICE the ledger's thread waits for a core like all others";
    "peer_refused" INFO Server PerSecond ["set" "reason" "user" "peer" "hint"] "a peer broke a rule and was dismissed; `hint`: what it seems to have got wrong";
    "connection_limited" INFO Server PerSecond ["set" "reason" "user"] "a connection reached a limit and was ended";
    "user_not_barred" WARN Server PerSecond ["user"] "a user was to be kept out, and as many are as may be";
    "connection_kicked" INFO Server PerSecond ["set" "user"] "an operator ended a connection";
    "connection_ended" DEBUG Server PerSecond ["set" "reason" "user"] "a connection ended in the ordinary course of things";
    "part_silent" ERROR Server Never ["silent" "patience"] "a part of the server has not answered; the service manager is told nothing until it does";
    "parts_answer" INFO Server Never [] "every part of the server answers again";
    "listen_failed" ERROR Server PerSecond ["address" "error"] "a shard cannot listen; it tries again";
    "shard_full" WARN Server PerSecond [] "every SET of a shard is full; it listens again once one has room";
    "descriptors_exhausted" WARN Server PerSecond ["turned_away" "error"] "no descriptor was left for a new connection";
    "accept_failed" ERROR Server PerSecond ["error"] "a connection cannot be accepted";
    "set_worker_failed" ERROR Server Never ["error"] "a SET's worker ended abnormally";
    "equation_broken" ERROR Server Never ["set" "received" "answered" "owed"] "requests or stock of a SET do not add up";
    "prizes_unaccounted" ERROR Server Never ["set" "campaign" "residual" "books" "issued" "returned"] "issued prizes are missing from a SET's books, or too many are in them";
    "prize_void" ERROR Server Never ["set" "campaign" "serial" "result"] "the ledger refused a prize of ours; it was dropped";
    "campaign_refused" INFO Server PerSecond ["error"] "an operator's change of a campaign cannot be made";
    "campaign_failed" ERROR Server Never ["error"] "the ledger failed to change a campaign";
    "house_run_stopped" WARN Server PerSecond ["run" "other"] "an envelope of the house could not be sent, and its run was stopped";
    "ledger_failing" ERROR Server Never ["error"] "the ledger cannot be written or read; no win is acknowledged until it works again";
    "ledger_works" INFO Server Never [] "the ledger works again";
    "ledger_not_folded" ERROR Server Never ["error"] "the ledger's log stays beside its file; nothing is lost";
    "ledger_mismatched" ERROR Server Never ["expected"] "the ledger's reply is of another kind than the request: a fault of this program";
    "ledger_lock_stuck" WARN Server PerSecond ["error"] "the ledger's lock is held until the process ends";
    "admin_ended" ERROR Server PerSecond ["error"] "the operators' surface has ended";
    "report_token_failed" ERROR Server PerSecond ["error"] "there is no token to report with";
    "tracer_joined" INFO Server PerSecond ["user" "tracers"] "an operator follows a user";
    "tracer_left" INFO Server PerSecond ["user" "tracers" "lost"] "an operator has stopped following a user; `lost` events were not told";
    "start_step" INFO Server Never ["step"] "a step of the start begins, or takes long; nobody is let in yet";
    "stop_step" INFO Server Never ["step" "name" "online"] "a numbered step of the orderly stop begins";
    "stop_audited" INFO Server Never ["step"] "the ledger was audited and balances";
    "stop_unbalanced" ERROR Server Never ["step"] "the ledger was audited and does not balance";
    "stop_unaudited" ERROR Server Never ["step" "error"] "the ledger cannot be audited";
    "stop_audit_unfinished" WARN Server Never ["step" "entries"] "the audit had not read everything when the stop's deadline came";
    "stopped" INFO Server Never ["ms"] "the server has stopped in order";
    "stop_cut_short" WARN Server Never ["dry" "ended" "closed"] "the stop's deadline passed before all was done";
    "stop_at_once" WARN Server Never [] "a second signal ended the server without an orderly stop";

    "win" DEBUG Server Never ["user" "request" "campaign" "serial" "amount_fen"] "durable: a prize is the user's (target `facts`, as all that follow here)";
    "order" DEBUG Server Never ["user" "request" "order" "campaign" "serial" "price_fen" "state"] "durable: a unit of a sale is held for the user, or theirs";
    "order_paid" DEBUG Server Never ["user" "request" "order" "campaign" "serial" "price_fen"] "durable: an order is paid";
    "order_cancelled" DEBUG Server Never ["user" "request" "order" "campaign" "serial"] "durable: a unit was given back";
    "order_expired" DEBUG Server Never ["user" "request" "order" "campaign" "serial"] "durable: an order was not paid in time";
    "open" DEBUG Server Never ["user" "request" "envelope" "share" "amount_fen"] "durable: a share of an envelope is the user's";
    "send" DEBUG Server Never ["user" "request" "envelope" "recipients"] "durable: an envelope is on its way; user 0: the house";
    "envelope_expired" DEBUG Server Never ["user" "envelope" "amount_fen"] "durable: the unopened rest went back to the sender; user 0: the house";
    "acknowledge" DEBUG Server Never ["user" "request" "count"] "durable: the user has seen so many things";
    "deposit" DEBUG Server Never ["user" "users" "amount_fen"] "durable: money for so many users, from this one on";

    "qps_announced" INFO Fleet PerSecond ["qps" "at"] "the fleet's rate changes at this second";
    "storm_announced" INFO Fleet PerSecond ["share" "at"] "a share of the users is cut at this second";
    "connect_failed" WARN Fleet PerSecond ["server" "source" "failures" "error"] "a connection to the server cannot be opened";
    "comeback_dropped" TRACE Fleet PerSecond ["user" "at"] "a user was about to come back and has done so already";
    "user_token_failed" ERROR Fleet PerSecond ["user" "error"] "a user has no token to log in with";
    "journal_failing" ERROR Fleet Never ["error"] "the journal cannot be written; no win is acknowledged until it can";
    "journal_works" INFO Fleet Never [] "the journal can be written again";
    "task_failed" ERROR Fleet PerSecond ["what" "error"] "a part of a machine has failed";
    "signals_failed" ERROR Fleet PerSecond ["error"] "signals cannot be received";
    "targets_stale" WARN Fleet PerSecond ["error"] "machines that end are still named as Prometheus's targets";
    "machine_silent" WARN Fleet PerSecond ["machine" "error"] "a machine has not said how it is";
    "machine_unkillable" ERROR Fleet PerSecond ["machine" "error"] "a machine cannot be ended";

    "source_joined" INFO Monitor PerSecond ["source" "instance"] "a process reports";
    "source_left" INFO Monitor PerSecond ["source"] "a process reports no more";
    "report_refused" INFO Monitor PerSecond ["source" "rejection"] "a report was not acceptable";
    "reporter_refused" INFO Monitor PerSecond ["end" "reason"] "a peer is no reporter of ours, or finds no room";
    "refusal_unheard" DEBUG Monitor PerSecond ["error" "reason"] "a refused peer went before it was told why";
    "reporter_accept_failed" ERROR Monitor PerSecond ["error"] "a reporter cannot be accepted";
    "run_over" DEBUG Monitor PerSecond [] "a connection had something to say after the end of the run";
    "cut_too_late" DEBUG Monitor PerSecond [] "a connection that was to be cut had just ended";
    "recording_failing" ERROR Monitor Never ["directory" "error"] "the run cannot be recorded, and goes on";
    "recording_works" INFO Monitor Never ["directory"] "the run is recorded again";
    "run_deleted" INFO Monitor Never ["directory" "bytes"] "an old run was deleted to make room";
    "runs_kept" WARN Monitor PerSecond ["error"] "old runs cannot be deleted";
    "recording_left" WARN Monitor PerSecond ["directory" "error"] "an unused recording could not be taken back";
    "mark_repeated" TRACE Monitor PerSecond ["source"] "a process has told an event again";
    "stream_reader_slow" DEBUG Monitor PerSecond ["events"] "a reader of the stream was too slow, lost it, and may come back";
    "stream_unread" TRACE Monitor PerSecond [] "nobody reads the stream";
    "http_failed" ERROR Monitor PerSecond ["error"] "the HTTP interface has ended";
    "view_failed" WARN Monitor PerSecond ["error"] "nothing more is shown: standard output failed";
    "view_abandoned" DEBUG Monitor PerSecond [] "the view was given up before it ended";
    "frame_skipped" TRACE Monitor PerSecond [] "the terminal is slow or gone";
    "books_unread" WARN Monitor PerSecond [] "nobody reads standard output: the final books are in the recording only";
    "service_failed" ERROR Monitor PerSecond ["error"] "the service manager was not told of the end";
    "operator_signed_in" INFO Monitor PerSecond ["operator"] "an operator has signed in on the page";
    "operator_refused" INFO Monitor PerSecond ["peer" "reason"] "an operator's token was refused";
    "order_given" INFO Monitor Never ["operator" "kind" "what" "taken" "all"] "an operator's order was sent, and so many of all processes took it";
    "mark_unkept" DEBUG Monitor PerSecond [] "the run was over before an order's mark could be kept";
    "guest_ended" DEBUG Monitor PerSecond ["user" "end" "owed"] "a guest's connection has ended";
    "guest_serverless" INFO Monitor PerSecond ["address" "error"] "there is no server for a guest";
    "guest_writer_failed" ERROR Monitor PerSecond ["error"] "what wrote to a guest's browser has failed";
    "guest_answers_late" DEBUG Monitor PerSecond ["user" "owed"] "answers to a guest who left did not come in time, and are asked for again";
    "guest_untold" WARN Monitor Never ["user" "owed"] "a guest left, and what the server owed it was never told: the books may differ by it";
    "guest_unsettled_dropped" WARN Monitor Never ["user"] "too many guests are owed something: what this one was owed is not asked for";
    "guest_journal_failed" ERROR Monitor Never ["path" "error"] "the guests' journal cannot be written; they are told nothing that is not in it";
    "guests_remain" WARN Monitor PerSecond ["guests"] "guests were still there at the stop's deadline";
    "guests_unreported" ERROR Monitor PerSecond ["error"] "there is no token for the guests' reports";
    "guests_reports_failed" ERROR Monitor PerSecond ["error"] "the guests' reports ended with a failure";
    "browser_gone" DEBUG Monitor PerSecond ["end"] "a browser was gone before it was told why";
    "browser_deaf" DEBUG Monitor PerSecond ["end"] "a browser did not take why it was closed";
}

/// The kinds of the target `facts`: what became durable for a user.
pub const FACTS: [&str; 10] = [
    "win",
    "order",
    "order_paid",
    "order_cancelled",
    "order_expired",
    "open",
    "send",
    "envelope_expired",
    "acknowledge",
    "deposit",
];

/// Whether events of this kind are limited in number.
pub fn is_limited(kind: &str) -> bool {
    KINDS.iter().find(|known| known.name == kind).is_none_or(|known| known.limit == Limit::PerSecond)
}

pub fn page() -> String {
    let mut page = format!(
        "# What the programs log\n\n\
         Each event is one line on standard error. `--log FILTER` (a level, or directives such as\n\
         `info,facts=debug`) and `--log-format json|pretty` choose, or `HONGBAO_LOG` and\n\
         `HONGBAO_LOG_FORMAT`. A line of JSON has `ts` (UTC, microseconds), `level`, `event`, `msg`, and\n\
         then the fields of the event.\n\n\
         Of each event and level {LINES_PER_SECOND} lines a second are logged. Once a second `withheld` says how many\n\
         were not. Those marked *all* are never withheld.\n\n\
         **Nobody waits for the log's reader.** Lines that find no room are dropped. `log_lines_lost` says\n\
         how many once there is room, and so does the metric of that name. Half of the room is for those\n\
         marked *all*.\n\n\
         This page is made of the table in `monitor/telemetry/src/logs/events.rs`. A test holds both\n\
         against the sources.\n\n\
         | event | by | level | | fields | what it says |\n|---|---|---|---|---|---|\n",
    );
    for kind in KINDS {
        let by = match kind.by {
            Program::Server => "server",
            Program::Fleet => "fleet",
            Program::Monitor => "monitor",
            Program::Any => "any",
        };
        let limit = if kind.limit == Limit::Never { "*all*" } else { "" };
        let fields = kind.fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(" ");
        let level = kind.level.as_str().to_ascii_lowercase();
        // Writing to a String cannot fail.
        writeln!(page, "| `{}` | {by} | {level} | {limit} | {fields} | {} |", kind.name, kind.says).ok();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_no_field_hides_a_stable_name() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..index].iter().all(|other| other.name != kind.name), "{}", kind.name);
            for name in kind.fields.iter().chain([&kind.name]) {
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
                assert!(!["ts", "level", "event", "msg"].contains(name), "{}: {name}", kind.name);
            }
        }
    }
}
