//! Seed after seed on every core until the time is over: what `scripts/soak` runs. A program of its
//! own, made of the simulation's parts.

mod hearing;
#[path = "../ledger/support.rs"]
#[allow(dead_code)]
mod model;
mod node;
mod rng;
mod runs;
mod trace;
mod user;
mod watched;
mod wire;
mod world;

use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hongbao_telemetry::clock::unix_seconds;

use crate::runs::{STEPS, number, run};
use crate::world::Figures;

/// From one line of progress to the next.
const PROGRESS: Duration = Duration::from_secs(10);

/// Every so many seeds a long run: what needs a history is not reached by short ones.
const LONG_EVERY: u64 = 8;

#[derive(Debug, Default)]
struct Sum {
    figures: Figures,
    seeds: u64,
    failing: Vec<u64>,
    said_at: Duration,
}

impl Sum {
    fn line(&self, elapsed: Duration) -> String {
        let Figures { steps, operations, crashes, full_disks, drops, commits, failed_commits, .. } = self.figures;
        format!(
            "{:>6} s: {} seeds, {steps} steps, {operations} operations, {commits} commits, {crashes} crashes, {full_disks} full disks \
             ({failed_commits} failed commits), {drops} drops, {} differences",
            elapsed.as_secs(),
            self.seeds,
            self.failing.len(),
        )
    }

    fn json(&self, elapsed: Duration) -> serde_json::Value {
        let Figures { steps, operations, crashes, full_disks, drops, commits, failed_commits, .. } = self.figures;
        serde_json::json!({
            "faults": self.figures.faults(),
            "operations": operations,
            "differences": self.failing.len(),
            "seeds": self.seeds,
            "steps": steps,
            "crashes": crashes,
            "full_disks": full_disks,
            "drops": drops,
            "commits": commits,
            "failed_commits": failed_commits,
            "failing_seeds": self.failing,
            "seconds": elapsed.as_secs(),
        })
    }
}

fn main() -> ExitCode {
    let began = Instant::now();
    let time = Duration::from_secs(number("HONGBAO_SOAK_SECONDS").unwrap_or(60));
    let first = number("HONGBAO_SIM_SEED").unwrap_or_else(unix_seconds);
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Sum::default()));
    println!("seeds from {first} on, for {} s", time.as_secs());
    let work = || {
        while began.elapsed() < time {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let steps = if seed.is_multiple_of(LONG_EVERY) { 8 * STEPS } else { STEPS };
            let (figures, result) = run(seed, steps);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.figures.add(&figures);
            sum.seeds += 1;
            if let Err(report) = result {
                sum.failing.push(seed);
                println!("{report}");
            }
            if began.elapsed() >= sum.said_at + PROGRESS {
                sum.said_at = began.elapsed();
                println!("{}", sum.line(sum.said_at));
            }
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", sum.line(began.elapsed()));
    if let Some(path) = env::var_os("HONGBAO_SOAK_SUMMARY") {
        std::fs::write(&path, format!("{:#}\n", sum.json(began.elapsed()))).expect("the summary can be written");
    }
    if sum.failing.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("differences with the seeds {:?}", sum.failing);
    ExitCode::FAILURE
}
