//! What a win costs the ledger as its file grows, and what it takes to open it again: one thread, a
//! real file, `synchronous=FULL`.
//!
//! `cargo bench -p hongbao-server --bench ledger -- [WINS] [USERS] [BATCH] [--acknowledge]`; the
//! file lies in the temporary directory (`TMPDIR`). Users are drawn at random. With
//! `--acknowledge`, each batch also acknowledges the wins of the batch before, as clients do: what
//! nobody has acknowledged must be read when the ledger is opened. 10,000,000 wins take about three
//! minutes.

use std::path::Path;
use std::time::Instant;

use hongbao_proto::{Fen, RequestId, Serial, UserId};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{Claim, Ledger, LedgerError, Posting, Question, Seen};
use hongbao_server::market::campaign::{Amounts, Campaign, CampaignTerms, Goods, Seed};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Wins between two lines of the table.
const ROUND: u64 = 100_000;

/// Serials differ, so a multiplication by an odd constant spreads them without repeats (Fibonacci
/// hashing).
fn user_of(serial: u64, users: u64) -> UserId {
    let spread = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
    UserId::new(1 + spread % users).expect("users are at most 2^40")
}

fn claim(campaign: &Campaign, serial: u64, users: u64) -> Posting {
    Posting::Claim(Claim {
        user: user_of(serial, users),
        request: RequestId::new(serial + 1).expect("small"),
        campaign: campaign.id,
        serial: Serial(serial),
        amount: campaign.terms.amount(Serial(serial)),
    })
}

fn acknowledge(campaign: &Campaign, serial: u64, users: u64) -> Posting {
    let prizes = [(campaign.id, Serial(serial))].into();
    Posting::Acknowledge { user: user_of(serial, users), seen: Box::new(Seen { prizes, ..Seen::default() }) }
}

fn main() -> Result<(), LedgerError> {
    // cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let wins = numbers.next().unwrap_or(500_000);
    let users = numbers.next().unwrap_or(1_000_000);
    let batch = numbers.next().unwrap_or(4_096);
    let acknowledges = std::env::args().any(|argument| argument == "--acknowledge");

    let directory = tempfile::tempdir().map_err(io)?;
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path)?;
    let terms = CampaignTerms {
        title: "bench".to_owned(),
        goods: Goods::Rain { rate_per_second: 1, amounts: Amounts { min: Fen(1), max: Fen(20_000) } },
        total: wins,
        seed: Seed([1; 32]),
        starts_at: 0,
        ends_at: None,
        per_user_limit: std::env::var_os("LIMIT").map(|_| 1_000_000),
    };
    let started = Instant::now();
    let campaign = ledger.create_campaign(terms, 1)?;
    println!("create a campaign of {wins}: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);

    println!("{:>10}  {:>10}  {:>12}  {:>12}  {:>10}", "wins", "wins/s", "commit mean", "commit max", "processor");
    let mut posted = 0;
    while posted < wins {
        let round: Vec<Vec<Posting>> = (posted..wins.min(posted + ROUND))
            .step_by(usize::try_from(batch).expect("small"))
            .map(|first| {
                let claims = (first..wins.min(posted + ROUND).min(first + batch)).map(|n| claim(&campaign, n, users));
                let before = first.saturating_sub(batch)..if acknowledges { first } else { 0 };
                claims.chain(before.map(|n| acknowledge(&campaign, n, users))).collect()
            })
            .collect();
        let (mut seconds, mut slowest, busy) = (0.0, 0f64, processor());
        for postings in &round {
            let started = Instant::now();
            ledger.post(postings, 2)?;
            let took = started.elapsed().as_secs_f64();
            seconds += took;
            slowest = slowest.max(took);
        }
        let won = wins.min(posted + ROUND) - posted;
        posted += won;
        println!(
            "{posted:>10}  {:>10.0}  {:>9.2} ms  {:>9.2} ms  {:>7.2} µs",
            float(won) / seconds,
            seconds * 1e3 / float(round.len() as u64),
            slowest * 1e3,
            (processor() - busy) * 1e6 / float(won)
        );
    }

    let reads = 200_000;
    for (name, first) in [("recall of users who won", 0), ("recall of users who never did", users)] {
        let started = Instant::now();
        for n in 0..reads {
            let user = UserId::new(first + user_of(n % posted, users).get()).expect("small");
            std::hint::black_box(ledger.ask(user, &Question::Recall)?);
        }
        println!("{name}: {:.3} µs", started.elapsed().as_secs_f64() * 1e6 / float(reads));
    }

    // As `kill -9` leaves it.
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).map_err(io)?;
    std::fs::copy(directory.path().join("ledger.db-wal"), directory.path().join("copy.db-wal")).map_err(io)?;
    open("open after a copy without closing", &copy)?;

    let started = Instant::now();
    ledger.checkpoint(None)?;
    drop(ledger);
    println!("checkpoint and close: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    let size = std::fs::metadata(&path).map_err(io)?.len();
    println!("file: {} bytes per win", size / posted);
    open("open after a clean close", &path)
}

fn open(what: &str, path: &Path) -> Result<(), LedgerError> {
    let (started, busy) = (Instant::now(), processor());
    let ledger = SqliteLedger::open(path)?;
    let took = started.elapsed().as_secs_f64();
    println!("{what}: {:.0} ms, of the processor {:.0} ms", took * 1e3, (processor() - busy) * 1e3);
    drop(ledger);
    Ok(())
}

/// Seconds that this process has had of the processor: what is left of a measurement on a machine
/// that others use too.
#[allow(clippy::cast_precision_loss)] // for printing
fn processor() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("its own usage can be read");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

#[allow(clippy::cast_precision_loss)] // for printing
fn float(count: u64) -> f64 {
    count as f64
}

fn io(error: std::io::Error) -> LedgerError {
    LedgerError::Unavailable(error.to_string())
}
