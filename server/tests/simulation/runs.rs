//! Runs of the simulation: one for each seed.

use std::env;
use std::panic::{self, AssertUnwindSafe};

use super::world::{Figures, World};

/// Steps of a run before its quiet end.
pub const STEPS: u64 = 6_000;

/// Runs a seed. What went wrong, with all that is needed to see it again.
pub fn run(seed: u64, steps: u64) -> (Figures, Result<u64, String>) {
    let mut world = World::new(seed, steps);
    let result = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = match result {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(world.report(&format!("panic: {}", text.unwrap_or_default())))
        }
    };
    (world.figures(), result.map(|()| world.hash()))
}

/// A number in the environment.
pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|value| value.parse().ok())
}
