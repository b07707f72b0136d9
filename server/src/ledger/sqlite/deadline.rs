//! A deadline over what SQLite does in one go: a statement may take minutes.

use std::convert::Infallible;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// SQLite forgets an interruption when nothing runs, so it is repeated.
const REPEAT: Duration = Duration::from_millis(5);

/// From `until` on, whatever the connection runs fails as interrupted, until this is dropped.
pub struct Deadline {
    until: Option<Instant>,
    /// Dropping the sender ends the thread.
    interrupter: Option<(Sender<Infallible>, JoinHandle<()>)>,
}

impl Deadline {
    /// `None`: there is none.
    pub fn arm(connection: &Connection, until: Option<Instant>) -> Self {
        let interrupter = until.map(|until| {
            let handle = connection.get_interrupt_handle();
            let (sender, dropped) = mpsc::channel();
            let thread = thread::spawn(move || {
                let mut wait = until.saturating_duration_since(Instant::now());
                while dropped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    handle.interrupt();
                    wait = REPEAT;
                }
            });
            (sender, thread)
        });
        Self { until, interrupter }
    }

    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.interrupter.take() {
            drop(sender);
            // It cannot panic.
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_without_end_ends_at_its_deadline() {
        let connection = Connection::open_in_memory().unwrap();
        let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
        let count = |statement: &str| connection.query_row(statement, [], |row| row.get::<_, i64>(0));
        let deadline = Deadline::arm(&connection, Some(Instant::now() + Duration::from_millis(20)));
        for _ in 0..3 {
            let error = count(endless).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
            assert!(deadline.is_over());
        }
        drop(deadline);
        let few = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000) SELECT count(*) FROM n";
        assert_eq!(count(few), Ok(100_000), "nothing is interrupted any more");
    }
}
