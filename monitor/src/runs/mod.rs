//! Past runs: which there are, what they looked like second by second, and everything that one can
//! take away of them.
//!
//! All of it is read from recordings, by the [`replay`](crate::recording::replay) and the
//! [`report`](crate::report), never from the run that goes on: reading waits for disks and takes
//! cores, so it is done aside, little of it at once ([`jobs`]), and what it came to is kept while
//! its files stay as they are.

pub mod api;
pub mod catalog;
pub mod export;
pub mod jobs;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::limits::{READERS_MAX, REPORTS_KEPT_MAX, SERIES_KEPT_MAX, SERIES_ROWS_MAX};
use crate::recording::read::{self, Extent, ReadError, Reader};
use crate::report::compare::Comparison;
use crate::report::load::Recording;
use crate::report::{Drawing, Report};
use crate::run::mark::Mark;
use crate::run::series::{Row, Series};
use crate::runs::catalog::{BadRunId, Catalog, Entry, RunId, Stamp, without_directory};
use crate::runs::jobs::{Shelf, aside};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::http::ApiError;

/// What was made of a recording that is still being written is made anew after so long.
const UNENDED_SECONDS: u64 = 10;

/// The name of the run that goes on, beside its id.
pub const LIVE: &str = "live";

/// 404: a run has no such chart.
fn no_chart() -> ApiError {
    ApiError::not_found("this run has no chart of that name; GET /api/v1/runs/ID/charts lists those that it has")
}

/// A recording that was asked for.
#[derive(Debug, Clone)]
struct Found {
    id: RunId,
    directory: PathBuf,
    stamp: Stamp,
}

impl Found {
    /// What is made of the recording; or an error of its files, without where they lie.
    fn read<T>(&self, make: impl FnOnce(&Reader) -> Result<T, ReadError>) -> Result<T, ApiError> {
        Reader::open(&self.directory).and_then(|reader| make(&reader)).map_err(|error| self.damaged(&error))
    }

    fn damaged(&self, error: &impl ToString) -> ApiError {
        let message = without_directory(error, &self.directory);
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "damaged", message)
    }
}

/// Which seconds of a run are wanted, and how many to a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Window {
    /// The first second, Unix time; without it the run's first.
    pub from: Option<u64>,
    /// The last second; without it the run's last.
    pub until: Option<u64>,
    /// Seconds folded into one; without it 1, or more where the answer would be too long.
    pub every: Option<u64>,
}

/// What a [`Window`] comes to in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u64,
    until: u64,
    every: u64,
}

impl Window {
    fn within(&self, extent: Option<Extent>) -> Result<Range, ApiError> {
        if let (Some(from), Some(until)) = (self.from, self.until)
            && from > until
        {
            return Err(ApiError::bad_request(format!(
                "from is {from} and until is {until}; from must not be the later one"
            )));
        }
        if self.every == Some(0) {
            return Err(ApiError::bad_request("every is 0; it must be at least 1"));
        }
        let Extent { first, last } = extent.unwrap_or(Extent { first: 0, last: 0 });
        let (from, until) = (self.from.unwrap_or(first).max(first), self.until.unwrap_or(last).min(last));
        let least = (until.saturating_sub(from) + 1).div_ceil(SERIES_ROWS_MAX);
        let every = self.every.unwrap_or(least);
        if every < least {
            return Err(ApiError::bad_request(format!(
                "every is {every} over {} seconds; at most {SERIES_ROWS_MAX} values are told, so ask with every={least}, or for fewer seconds",
                until - from + 1
            )));
        }
        Ok(Range { from, until, every })
    }
}

type SeriesKey = (RunId, Stamp, Option<Range>);

/// What is told of recorded runs.
#[derive(Debug)]
pub struct Runs {
    catalog: Arc<Catalog>,
    listing: Shelf<Stamp, Vec<Entry>>,
    series: Shelf<SeriesKey, Vec<Row>>,
    reports: Shelf<(RunId, Stamp), Report>,
}

impl Runs {
    /// Of the recordings that lie beside `current`, which is being made.
    pub fn beside(current: watch::Receiver<PathBuf>) -> std::io::Result<Arc<Self>> {
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        Ok(Arc::new(Self {
            catalog: Arc::new(Catalog::beside(current)?),
            listing: Shelf::new(1, Arc::new(Semaphore::new(1))),
            series: Shelf::new(SERIES_KEPT_MAX, readers),
            reports: Shelf::new(REPORTS_KEPT_MAX, Arc::new(Semaphore::new(1))),
        }))
    }

    /// The id of the run being recorded, if its directory has a name that may be one.
    pub fn current(&self) -> Option<RunId> {
        self.catalog.current()
    }

    /// Whether that names the run being recorded; it is told from memory, by somebody else.
    pub fn is_current(&self, id: &str) -> bool {
        id == LIVE || self.current().is_some_and(|current| current.as_str() == id)
    }

    /// Newest first.
    pub async fn list(&self) -> Result<Arc<Vec<Entry>>, ApiError> {
        let catalog = Arc::clone(&self.catalog);
        // A crowd that asks at once is answered from one look at the disk.
        self.listing
            .get(Stamp::moment(unix_seconds()), move || {
                catalog.list().map_err(|error| ApiError::internal(format!("cannot list the recordings: {error}")))
            })
            .await
    }

    async fn find(&self, id: &str) -> Result<Found, ApiError> {
        let id = match (id, self.current()) {
            (LIVE, Some(current)) => current,
            (id, _) => id.parse().map_err(|error: BadRunId| ApiError::not_found(error.to_string()))?,
        };
        let catalog = Arc::clone(&self.catalog);
        aside(move || {
            let unknown =
                || ApiError::not_found(format!("no run {id} is recorded here; GET /api/v1/runs lists those that are"));
            let directory = catalog.find(&id).ok_or_else(unknown)?;
            let run = Reader::open(&directory).and_then(|reader| reader.run());
            let stamp = match run.is_ok_and(|run| run.ended_at_ms.is_some()) {
                true => Stamp::of(&directory),
                false => Stamp::moment(unix_seconds() / UNENDED_SECONDS),
            };
            Ok(Found { id, directory, stamp })
        })
        .await
    }

    /// Rows of a run, and the range of it that was asked for.
    async fn rows(&self, found: &Found, window: Window) -> Result<(Arc<Vec<Row>>, Range), ApiError> {
        let reader = found.clone();
        let extent = aside(move || reader.read(Reader::extent)).await?;
        let range = window.within(extent)?;
        let whole = extent.is_none_or(|extent| extent.last - extent.first < SERIES_ROWS_MAX);
        // A run that fits is read once and folded for whoever asks; of a longer one each range is
        // read by itself.
        let asked = (!whole).then_some(range);
        let key = (found.id.clone(), found.stamp.clone(), asked);
        let reader = found.clone();
        let Range { from, until, every } = asked.unwrap_or(Range { from: 0, until: u64::MAX, every: 1 });
        let rows = self.series.get(key, move || reader.read(|recording| recording.rows(from, until, every))).await?;
        Ok((rows, range))
    }

    /// A range of a run, column by column, as JSON.
    pub async fn series(&self, id: &str, window: Window) -> Result<Vec<u8>, ApiError> {
        let found = self.find(id).await?;
        let (rows, range) = self.rows(&found, window).await?;
        aside(move || encoded(&series(&found.id, &rows, range))).await
    }

    /// What `make` reads of a run.
    pub async fn read<T: Send + 'static>(
        &self,
        id: &str,
        make: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let found = self.find(id).await?;
        aside(move || found.read(make)).await
    }

    /// What a list tells of a run, and all that its recording says of it.
    pub async fn run(&self, id: &str) -> Result<Value, ApiError> {
        let found = self.find(id).await?;
        let entries = self.list().await?;
        aside(move || {
            let entry = entries.iter().find(|entry| entry.id == found.id.as_str());
            let document = found.read(Reader::document).ok();
            Ok(json!({ "entry": entry, "recorded": document }))
        })
        .await
    }

    /// The whole run as one document: what it was, its marks, its series.
    pub async fn export(&self, id: &str) -> Result<(RunId, Vec<u8>), ApiError> {
        #[derive(Serialize)]
        struct Export {
            run: Value,
            summary: Option<Value>,
            marks: Vec<Mark>,
            series: Series,
        }
        let found = self.find(id).await?;
        let (rows, range) = self.rows(&found, Window::default()).await?;
        aside(move || {
            let export = Export {
                run: found.read(Reader::document)?,
                summary: read::json(&found.directory.join(hongbao_telemetry::summary::SUMMARY_FILE)).ok(),
                marks: found.read(Reader::marks)?,
                series: series(&found.id, &rows, range),
            };
            Ok((found.id, encoded(&export)?))
        })
        .await
    }

    /// The whole run as a table, read while it is sent.
    pub async fn table(&self, id: &str) -> Result<(RunId, export::Table), ApiError> {
        let found = self.find(id).await?;
        aside(move || {
            let table = export::Table::open(&found.directory).map_err(|error| found.damaged(&error))?;
            Ok((found.id, table))
        })
        .await
    }

    /// The report of a run, as far as it is recorded.
    pub async fn report(&self, id: &str) -> Result<(RunId, Arc<Report>), ApiError> {
        let found = self.find(id).await?;
        let key = (found.id.clone(), found.stamp.clone());
        let reader = found.clone();
        let drawn = self.reports.get(key, move || {
            let mut recording = Recording::load(&reader.directory, None).map_err(|error| reader.damaged(&error))?;
            recording.directory = PathBuf::from(reader.id.as_str());
            Ok(Report::of(&recording))
        });
        Ok((found.id, drawn.await?))
    }

    pub async fn chart(&self, id: &str, name: &str) -> Result<(RunId, Drawing), ApiError> {
        let (id, report) = self.report(id).await?;
        let chart = report.charts.iter().find(|chart| chart.file == name).ok_or_else(no_chart)?;
        Ok((id, chart.clone()))
    }

    /// Two runs side by side.
    pub async fn compare(&self, a: &str, b: &str) -> Result<Comparison, ApiError> {
        let (a_id, a) = self.report(a).await?;
        let (b_id, b) = self.report(b).await?;
        Ok(Comparison::of((a_id.as_str(), &a.figures), (b_id.as_str(), &b.figures)))
    }
}

fn series(id: &RunId, rows: &[Row], range: Range) -> Series {
    let Range { from, until, every } = range;
    // A row of several seconds is named by the first that it has.
    let wanted = rows.iter().filter(|row| (from..=until).contains(&row.second()));
    Series::of(id.as_str(), every, wanted)
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| ApiError::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_cut_to_the_run_and_folds_what_would_be_too_long() {
        let extent = Some(Extent { first: 1_000, last: 1_000 + 2 * SERIES_ROWS_MAX });
        let window = |from, until, every| Window { from, until, every }.within(extent);
        assert_eq!(
            window(None, None, None).unwrap(),
            Range { from: 1_000, until: 1_000 + 2 * SERIES_ROWS_MAX, every: 3 }
        );
        assert_eq!(window(Some(0), Some(1_009), None).unwrap(), Range { from: 1_000, until: 1_009, every: 1 });
        assert_eq!(window(Some(2_000), Some(2_100), Some(5)).unwrap().every, 5);
        for (from, until, every, part) in [
            (Some(9), Some(8), None, "must not be the later"),
            (None, None, Some(0), "at least 1"),
            (None, None, Some(2), "every=3"),
        ] {
            assert!(window(from, until, every).unwrap_err().to_string().contains(part), "{part}");
        }
        assert!(Window::default().within(None).is_ok());
    }
}
