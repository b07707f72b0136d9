//! What a win costs the ledger, as the file grows: wins per second in one thread, on a real file with `synchronous=FULL`.
//!
//! `cargo bench -p hongbao-server --bench ledger -- [WINS] [USERS] [BATCH]`; the file lies in the temporary directory
//! (`TMPDIR`). Users are drawn at random, which is the worst order for the index by (user, request). Reads are timed on the
//! full file.

use std::time::Instant;

use hongbao_proto::{Fen, RequestId, Serial, UserId};
use hongbao_server::campaign::{Amounts, CampaignKind, CampaignTerms, Seed};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{Claim, Ledger, LedgerError, Posting};

/// Serials differ, so a multiplication by an odd constant spreads them without repeats (Fibonacci hashing).
fn user_of(serial: u64, users: u64) -> UserId {
    let spread = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
    UserId::new(1 + spread % users).expect("users are at most 2^40")
}

fn main() -> Result<(), LedgerError> {
    // cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let wins = numbers.next().unwrap_or(500_000);
    let users = numbers.next().unwrap_or(1_000_000);
    let batch = numbers.next().unwrap_or(4_096);

    let directory = tempfile::tempdir().map_err(|error| LedgerError::Unavailable(error.to_string()))?;
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path)?;
    let terms = CampaignTerms {
        title: "bench".to_owned(),
        kind: CampaignKind::Rain,
        total: wins,
        rate_per_second: 1,
        amounts: Amounts { min: Fen(1), max: Fen(20_000) },
        seed: Seed([1; 32]),
        starts_at: 0,
        ends_at: None,
        per_user_limit: std::env::var_os("LIMIT").map(|_| 1_000_000),
    };
    let started = Instant::now();
    let campaign = ledger.create_campaign(terms, 1)?;
    println!("create a campaign of {wins}: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);

    println!("{:>10}  {:>10}  {:>12}", "wins", "wins/s", "commit mean");
    let mut posted = 0;
    while posted < wins {
        let round = (wins - posted).min(batch * 24);
        let postings: Vec<Posting> = (posted..posted + round)
            .map(|serial| {
                Posting::Claim(Claim {
                    user: user_of(serial, users),
                    request: RequestId::new(serial + 1).expect("small"),
                    campaign: campaign.id,
                    serial: Serial(serial),
                    amount: campaign.terms.amount(Serial(serial)),
                })
            })
            .collect();
        let chunks = postings.chunks(usize::try_from(batch).expect("small"));
        let commits = f64::from(u32::try_from(chunks.len()).expect("small"));
        let started = Instant::now();
        for chunk in chunks {
            ledger.post(chunk, 2)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        posted += round;
        let round = f64::from(u32::try_from(round).expect("small"));
        println!("{posted:>10}  {:>10.0}  {:>9.2} ms", round / seconds, seconds / commits * 1e3);
    }

    let reads = 200_000;
    for (name, first) in [("recall of users who won", 0), ("recall of users who never did", users)] {
        let started = Instant::now();
        for n in 0..reads {
            let user = UserId::new(first + user_of(n % posted, users).get()).expect("small");
            std::hint::black_box(ledger.recall(user)?);
        }
        println!(
            "{name}: {:.3} µs",
            started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(reads).expect("small"))
        );
    }
    let size = std::fs::metadata(&path).map_err(|error| LedgerError::Unavailable(error.to_string()))?.len();
    println!("file: {} bytes per win", size / posted);
    drop(ledger);
    let started = Instant::now();
    drop(SqliteLedger::open(&path)?);
    println!("open: {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
