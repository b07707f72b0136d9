//! The fleet from outside, in one program: linking it is most of what a build of tests takes.

mod check;
mod clock;
mod common;
mod crowd;
mod deals;
mod fleet;
mod machine;
mod service;
