//! What opening envelopes costs the ledger: shares per second in one thread, on a real file with
//! `synchronous=FULL`.
//!
//! `cargo bench -p hongbao-server --bench envelopes -- [ENVELOPES] [RECIPIENTS] [BATCH] [USERS]`;
//! the file lies in the temporary directory (`TMPDIR`). Every recipient opens; openers of different
//! envelopes alternate, as they do when many are sent at once.

use std::sync::Arc;
use std::time::Instant;

use hongbao_proto::{EnvelopeId, Fen, RequestId, UserId};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{Ledger, LedgerError, OpenResult, Posting, PostingResult};
use hongbao_server::market::campaign::Seed;
use hongbao_server::market::envelope::{Mode, NewEnvelope};

fn rate(count: u64, since: Instant) -> f64 {
    f64::from(u32::try_from(count).expect("fewer than 2^32")) / since.elapsed().as_secs_f64()
}

fn main() -> Result<(), LedgerError> {
    // cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let envelopes = numbers.next().unwrap_or(20_000);
    let recipients = numbers.next().unwrap_or(10);
    let batch = usize::try_from(numbers.next().unwrap_or(256)).expect("small");
    let users = numbers.next().unwrap_or(1_000_000);

    let directory = tempfile::tempdir().map_err(|error| LedgerError::Unavailable(error.to_string()))?;
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path)?;
    // Spread over all users by a multiplication, sorted, distinct.
    let recipients_of = |number: u64| -> Arc<[UserId]> {
        let mut drawn: Vec<u64> =
            (0..recipients).map(|turn| (number * recipients + turn).wrapping_mul(0x9e37_79b1) % users + 1).collect();
        drawn.sort_unstable();
        drawn.dedup();
        drawn.into_iter().map(|user| UserId::new(user).expect("in range")).collect()
    };
    let send = |number: u64| {
        let to = recipients_of(number);
        Posting::Send(Box::new(NewEnvelope {
            sender: None,
            request: RequestId::new(number + 1).expect("in range"),
            total: Fen(to.len() as u64 * 50),
            shares: u32::try_from(to.len()).expect("small"),
            mode: Mode::Random,
            seed: Seed([7; 32]),
            greeting: "".into(),
            recipients: to,
            room: None,
            lifetime_ms: 3_600_000,
        }))
    };
    let sends: Vec<Posting> = (0..envelopes).map(send).collect();
    let started = Instant::now();
    for chunk in sends.chunks(batch) {
        ledger.post(chunk, 1)?;
    }
    println!("sent: {:.0} envelopes/s in batches of {batch}", rate(envelopes, started));

    let opens: Vec<Posting> = (0..recipients)
        .flat_map(|turn| {
            (0..envelopes).filter_map(move |number| {
                let user = *recipients_of(number).get(usize::try_from(turn).ok()?)?;
                Some(Posting::Open { user, envelope: EnvelopeId::new(number + 1).ok()? })
            })
        })
        .collect();
    let (mut opened, started) = (0, Instant::now());
    for chunk in opens.chunks(batch) {
        let outcomes = ledger.post(chunk, 2)?;
        opened +=
            outcomes.iter().filter(|outcome| matches!(outcome, PostingResult::Open(OpenResult::Opened { .. }))).count()
                as u64;
    }
    println!("opened: {opened} shares, {:.0}/s", rate(opened, started));
    let size = std::fs::metadata(&path).map_err(|error| LedgerError::Unavailable(error.to_string()))?.len();
    println!("file: {} bytes per share", size / opened.max(1));
    Ok(())
}
