//! Who comes in over HTTP and what they can do: operators, their orders to servers and machines,
//! guests. On real sockets.

mod guests;
mod orders;
mod session;
mod support;
