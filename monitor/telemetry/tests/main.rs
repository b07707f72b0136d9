//! What every program embeds, from outside, in one program.

mod http;
mod logs;
mod metrics;
