//! Work that takes seconds of a core, off the thread that serves: few at once, the same one only
//! once, and its result kept.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use hongbao_telemetry::http::ApiError;
use hongbao_telemetry::lock::locked;

/// How long a request waits for its work; then it is told to come back, while the work goes on.
/// Below the deadline of requests.
const PATIENCE: Duration = Duration::from_secs(8);

/// Seconds after which whoever found all readers busy may ask again.
const RETRY_SECONDS: u64 = 2;

/// 503: other runs are being read, or this one takes its time.
fn busy() -> ApiError {
    let message = format!("recordings are being read; ask again in {RETRY_SECONDS} s");
    ApiError::unavailable(message).retry_after(RETRY_SECONDS)
}

type Job<V> = Shared<BoxFuture<'static, Result<Arc<V>, ApiError>>>;

/// What was worked out last, by what it was worked out from.
#[derive(Debug)]
pub struct Shelf<K, V> {
    /// Least recently used first.
    jobs: Mutex<Vec<(K, Job<V>)>>,
    kept_max: usize,
    permits: Arc<Semaphore>,
    patience: Duration,
}

impl<K: PartialEq, V: Send + Sync + 'static> Shelf<K, V> {
    /// Keeps so many results; each work under way holds one of `permits`.
    pub fn new(kept_max: usize, permits: Arc<Semaphore>) -> Self {
        Self { jobs: Mutex::default(), kept_max, permits, patience: PATIENCE }
    }

    /// What `work` comes to, or has come to before. [`busy`] where there is no permit, or
    /// it takes too long.
    pub async fn get<F>(&self, key: K, work: F) -> Result<Arc<V>, ApiError>
    where
        F: FnOnce() -> Result<V, ApiError> + Send + 'static,
    {
        let job = self.job(key, work)?;
        tokio::time::timeout(self.patience, job).await.unwrap_or(Err(busy()))
    }

    fn job<F>(&self, key: K, work: F) -> Result<Job<V>, ApiError>
    where
        F: FnOnce() -> Result<V, ApiError> + Send + 'static,
    {
        let mut jobs = locked(&self.jobs);
        // What failed is tried again.
        jobs.retain(|(_, job)| !matches!(job.clone().now_or_never(), Some(Err(_))));
        if let Some(at) = jobs.iter().position(|(known, _)| *known == key) {
            let held = jobs.remove(at);
            let job = held.1.clone();
            jobs.push(held);
            return Ok(job);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| busy())?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work().map(Arc::new);
            drop(permit);
            result
        });
        let job = finished(task).boxed().shared();
        while jobs.len() >= self.kept_max {
            let done = jobs.iter().position(|(_, job)| job.clone().now_or_never().is_some());
            // Those under way are no more than there are permits.
            let Some(done) = done else { break };
            drop(jobs.remove(done));
        }
        jobs.push((key, job.clone()));
        Ok(job)
    }
}

async fn finished<T>(
    task: impl Future<Output = Result<Result<T, ApiError>, tokio::task::JoinError>>,
) -> Result<T, ApiError> {
    task.await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// Runs something short that touches the disk off the thread that serves.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    finished(tokio::task::spawn_blocking(work)).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn shelf(kept_max: usize, permits: usize) -> Shelf<&'static str, usize> {
        Shelf::new(kept_max, Arc::new(Semaphore::new(permits)))
    }

    #[tokio::test]
    async fn the_same_work_is_done_once_and_the_least_used_is_forgotten() {
        let (shelf, done) = (shelf(2, 1), Arc::new(AtomicUsize::new(0)));
        let work = |done: &Arc<AtomicUsize>| {
            let done = Arc::clone(done);
            move || Ok(done.fetch_add(1, Ordering::Relaxed))
        };
        for (key, worked) in [("a", 1), ("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)] {
            shelf.get(key, work(&done)).await.unwrap();
            assert_eq!(done.load(Ordering::Relaxed), worked, "{key}");
        }
    }

    #[tokio::test]
    async fn without_a_permit_one_is_to_return_and_equal_requests_wait() {
        let shelf = shelf(4, 1);
        let (go, wait) = mpsc::channel::<()>();
        let slow = shelf.get("slow", move || {
            wait.recv().map_err(|error| ApiError::internal(error.to_string()))?;
            Ok(7)
        });
        let others = async {
            assert_eq!(shelf.get("other", || Ok(0)).await, Err(busy()));
            let same = shelf.get("slow", || Ok(0));
            go.send(()).unwrap();
            assert_eq!(*same.await.unwrap(), 7);
        };
        let (slow, ()) = tokio::join!(slow, others);
        assert_eq!(*slow.unwrap(), 7);
        assert_eq!(*shelf.get("other", || Ok(1)).await.unwrap(), 1, "the permit is back");
    }

    #[tokio::test]
    async fn what_failed_is_tried_again() {
        let shelf = shelf(4, 1);
        assert!(shelf.get("a", || Err(ApiError::internal("torn"))).await.is_err());
        assert_eq!(*shelf.get("a", || Ok(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn work_that_takes_too_long_goes_on_without_its_request() {
        let shelf = Shelf { patience: Duration::from_millis(1), ..shelf(4, 1) };
        let (go, wait) = mpsc::channel::<()>();
        let answer = shelf
            .get("slow", move || {
                wait.recv().map_err(|error| ApiError::internal(error.to_string()))?;
                Ok(9)
            })
            .await;
        assert_eq!(answer, Err(busy()));
        go.send(()).unwrap();
        let shelf = Shelf { patience: PATIENCE, ..shelf };
        assert_eq!(*shelf.get("slow", || Ok(0)).await.unwrap(), 9);
    }
}
