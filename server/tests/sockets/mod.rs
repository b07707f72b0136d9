//! The server as a stranger meets it: a real process, real sockets, and everything that a peer, an
//! operator or a host can do to it. Whatever is done, the same must hold: the peer is told in typed
//! words, it is counted, nobody else notices, and the books balance.

mod admin;
mod announcements;
mod campaigns;
mod chat;
mod check;
mod cores;
mod crowds;
mod envelopes;
mod fleet_kills;
mod framing;
mod kills;
mod ledger_faults;
mod login;
mod login_rate;
mod logs;
mod mixed_kills;
mod monitor_away;
mod overload;
mod python_client;
mod repeats;
mod resets;
mod sales;
mod slow;
mod start;
mod stop;
mod tables;
mod trace;
