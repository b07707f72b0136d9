//! The monitor from outside, in one program: linking it is most of what a build of tests takes.

mod dashboard;
mod doors;
mod live;
mod page;
mod process;
mod report;
mod runs;
mod shake;
mod support;
mod top;
