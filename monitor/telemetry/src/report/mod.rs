//! The reporting half: what a process measures, pushed to the monitor once per wall-clock second
//! and shown at `/metrics`.
//!
//! A process describes itself with one function that returns a [`Sample`]. Both outlets read that
//! one description, so a metric, a recorded column and a wire name can never drift apart.

pub mod events;
pub mod names;
pub mod reporter;
pub mod sample;

pub use events::Events;
pub use reporter::{Reporter, ReporterStats};
pub use sample::{Key, Sample};
