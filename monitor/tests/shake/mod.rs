//! A person among the users: a real server, a real monitor, and a guest who comes through it, by a
//! WebSocket of the test's. Whatever the guest wins, the books agree.

mod fleet;
mod guest;
