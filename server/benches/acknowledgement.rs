//! How long a win waits for its acknowledgement at a steady rate: claims come evenly at RATE a
//! second, whatever the ledger does, and are answered by its thread once they are durable. Counted
//! from the moment at which each was due.
//!
//! `cargo bench -p hongbao-server --bench acknowledgement -- [RATE] [SECONDS] [USERS]`; the file
//! lies in the temporary directory (`TMPDIR`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hongbao_proto::{Fen, RequestId, Serial, UserId};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::writer::{self, Reply, ReplyTo, WriterRequest};
use hongbao_server::ledger::{Claim, ClaimResult, Ledger, LedgerError, Posting, PostingResult};
use hongbao_server::market::campaign::{Amounts, CampaignTerms, Goods, Seed};

/// From one look at what is due to the next.
const STEP: Duration = Duration::from_millis(1);

struct Measures {
    micros: Histogram<u64>,
    last: Instant,
    refused: u64,
}

/// One claim's way back.
struct Waiting {
    due: Instant,
    measures: Arc<Mutex<Measures>>,
}

impl ReplyTo for Waiting {
    fn deliver(self, reply: Reply) {
        let micros = u64::try_from(self.due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(reply, Reply::Posted(Ok(PostingResult::Claim(ClaimResult::Won(_))))) {
            measures.micros.saturating_record(micros);
            measures.last = Instant::now();
        } else {
            measures.refused += 1;
        }
    }
}

fn main() -> Result<(), LedgerError> {
    // cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let rate = numbers.next().unwrap_or(50_000);
    let seconds = numbers.next().unwrap_or(20);
    let users = numbers.next().unwrap_or(1_000_000);

    let directory = tempfile::tempdir().map_err(|error| LedgerError::Unavailable(error.to_string()))?;
    let mut ledger = SqliteLedger::open(directory.path().join("ledger.db"))?;
    let terms = CampaignTerms {
        title: "bench".to_owned(),
        goods: Goods::Rain { rate_per_second: 1, amounts: Amounts { min: Fen(1), max: Fen(20_000) } },
        total: (rate * seconds).min(10_000_000),
        seed: Seed([1; 32]),
        starts_at: 0,
        ends_at: None,
        per_user_limit: None,
    };
    let campaign = ledger.create_campaign(terms, 1)?;
    let (handle, status, thread) = writer::spawn::<Waiting>(Box::new(ledger), || 2);
    let bounds = Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds are valid");
    let measures = Arc::new(Mutex::new(Measures { micros: bounds, last: Instant::now(), refused: 0 }));

    let (started, mut serial, mut full) = (Instant::now(), 0u64, 0u64);
    while serial < campaign.terms.total {
        let elapsed = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        while serial < campaign.terms.total && serial * 1_000_000 / rate <= elapsed {
            let user = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) % users + 1;
            let posting = Posting::Claim(Claim {
                user: UserId::new(user).expect("small"),
                request: RequestId::new(serial + 1).expect("small"),
                campaign: campaign.id,
                serial: Serial(serial),
                amount: campaign.terms.amount(Serial(serial)),
            });
            let due = started + Duration::from_micros(serial * 1_000_000 / rate);
            let reply_to = Waiting { due, measures: Arc::clone(&measures) };
            if handle.try_send(WriterRequest::Post { posting, reply_to }).is_err() {
                // As a SET would: the user is told to come back, and the prize goes to the next
                // one.
                full += 1;
            }
            serial += 1;
        }
        std::thread::sleep(STEP);
    }
    drop(handle);
    thread.join().expect("the ledger's thread ends in order");
    let measures = measures.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = measures.last.saturating_duration_since(started).as_secs_f64();
    let ms = |quantile: f64| {
        let micros = u32::try_from(measures.micros.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(micros) / 1e3
    };
    println!(
        "{rate} wins/s asked for, {:.0} durable in {seconds:.1} s; {full} met a full queue, {} refused; {} commits",
        f64::from(u32::try_from(measures.micros.len()).expect("fewer than 2^32")) / seconds,
        measures.refused,
        status.counts().batches,
    );
    println!(
        "acknowledged after p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms from the moment due",
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0)
    );
    Ok(())
}
