//! A person among the users: a real server, a real monitor, and a guest who comes through it, by a
//! WebSocket of the test's and on the page in a real browser. Whatever the guest wins, the books
//! agree.

mod browser;
mod fleet;
mod guest;
mod monitor;
#[allow(dead_code, unused_imports, reason = "what other tests need of a server")]
#[path = "../support/mod.rs"]
mod support;
