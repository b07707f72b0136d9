//! A seeded, replayable simulation of SETs, services and ledger, with a plain model beside it.
//!
//! **Own clock and queues, not turmoil, not shuttle.** turmoil simulates hosts and a network
//! between tokio programs, and shuttle the interleaving of threads around locks and atomics. What
//! can go wrong here is neither: every state has one owner, which is a plain function over messages
//! (`Set::apply`, `Generator::{run_command, on_report, step}`, `Service::step`, `Writer::{apply, flush}`) with
//! the time passed in, and what is open is only who is served next, and what is lost. That is
//! decided here, on one thread, by one source of chance: finer steps than a simulated network has,
//! disks and crashes at any of them, tens of thousands of steps a second, and the same seed is the
//! same run. The queues are the production ones, only smaller; so are the readers that cut frames,
//! the writer's batching and its rules of order, the futures of offers, expiry and runs of envelopes (polled by hand)
//! and the ledger in its file.
//!
//! Order inside a queue is kept, because the code relies on it; between queues there is none.
//!
//! `watched` tells each posting and each question to the model as well and compares; `hearing`
//! compares every frame that a client reads with what is durable; `world` decides, and at the end
//! of a run buys everything that is left.

#[path = "../../../monitor/telemetry/git_head.rs"]
mod git_head;
mod hearing;
mod node;
mod rng;
mod runs;
mod trace;
mod user;
mod watched;
mod wire;
mod world;

use hongbao_testing::root;

use self::git_head::head;
use self::runs::{STEPS, number, run};
use self::world::Figures;
use crate::ledger::support as model;

/// Seeds of a run of the tests.
const SEEDS: u64 = 20;

fn must_hold(seed: u64, steps: u64) -> (Figures, u64) {
    match run(seed, steps) {
        (figures, Ok(hash)) => (figures, hash),
        (_, Err(report)) => panic!("{report}"),
    }
}

#[test]
fn a_seed_is_a_run_and_the_same_seed_the_same_run() {
    let mut hashes = Vec::new();
    for seed in 1..=6 {
        let (first, second) = (must_hold(seed, 2_000), must_hold(seed, 2_000));
        assert_eq!(first, second, "seed {seed}");
        hashes.push(first.1);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 6);
}

/// The seeds of the commit that is checked out: each commit looks where none has looked, and whoever
/// has the commit sees the same. A tree without git has fixed ones.
fn seeds() -> Vec<u64> {
    if let Some(again) = number("HONGBAO_SIM_SEED") {
        return vec![again];
    }
    let commit = head(&root()).commit;
    let first = commit.and_then(|commit| u64::from_str_radix(&commit[..8], 16).ok()).unwrap_or(100);
    (first..first + SEEDS).collect()
}

/// A failing seed is seen again by `HONGBAO_SIM_SEED=… [HONGBAO_SIM_STEPS=…] cargo nextest run -p
/// hongbao-server --test server nothing_is_lost --no-capture`.
#[test]
fn nothing_is_lost_or_paid_twice_whatever_fails_or_is_killed() {
    let (seeds, steps) = (seeds(), number("HONGBAO_SIM_STEPS").unwrap_or(STEPS));
    println!("seeds {seeds:?}");
    let mut sum = Figures::default();
    for &seed in &seeds {
        let (figures, hash) = must_hold(seed, steps);
        println!("seed {seed}: hash {hash:016x}");
        sum.add(&figures);
    }
    println!("{} faults, {sum:?}", sum.faults());
    if seeds.len() > 1 {
        assert!(sum.crashes > 0 && sum.stops > 0 && sum.full_disks > 0 && sum.drops > 0, "{sum:?}");
        assert!(sum.wins > 0 && sum.orders > 0 && sum.shares > 0 && sum.messages > 0 && sum.recovered > 0, "{sum:?}");
    }
}
