//! The server from outside, in one program: linking it is most of what a build of tests takes.

mod kernel_settings;
mod ledger;
mod operations;
mod simulation;
mod sockets;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_hongbao-server");
