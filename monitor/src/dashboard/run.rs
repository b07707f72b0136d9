//! The process: what is checked, bound and started in which order, and how it ends.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use hongbao_proto::token::{Audience, Secret, Verifier};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::limits::{CONNECTIONS_MAX, HTTP_CONNECTIONS_MAX, INBOX_MAX};
use super::owner::{Outcome, Owner};
use super::record::{RecordError, Recording, replace};
use super::view::{View, ViewMode};
use super::{api, heartbeat, ingest, sampler};
use crate::credentials::{self, CredentialError, unix_millis};
use crate::http;
use crate::service::Service;

/// Why the monitor does not run. One line each.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No secret.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// No recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An address is taken or not ours.
    #[error("cannot bind {flag} {address}: {source}")]
    Bind {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl RunError {
    /// The exit code: 2 where a setting is to blame, 1 else.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Credential(_) | RunError::Record(_) | RunError::Bind { .. } => 2,
            RunError::System { .. } => 1,
        }
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let what = what.into();
    move |source| RunError::System { what, source }
}

/// What is bound, for whoever connects.
#[derive(Debug)]
pub struct Monitor {
    /// Where reporters connect.
    pub ingest: SocketAddr,
    /// Where HTTP is served.
    pub http: SocketAddr,
    ingest_listener: TcpListener,
    http_listener: TcpListener,
    secret: Secret,
    recording: Recording,
    view: ViewMode,
    stragglers: std::time::Duration,
    started_at_ms: u64,
}

impl Monitor {
    /// Loads the secret, makes the recording, binds both addresses and, last, writes the ready file.
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        let secret = credentials::load_secret(config.secret_file.as_deref())?;
        let started_at_ms = unix_millis();
        let recording = Recording::create(&config.record, started_at_ms)?;
        let bound = async { Ok((bind("--listen", config.listen).await?, bind("--http", config.http).await?)) };
        let ((ingest_listener, ingest), (http_listener, http)) = match bound.await {
            Ok(bound) => bound,
            Err(error) => {
                recording.discard();
                return Err(error);
            }
        };
        let bound = json!({ "ingest": ingest, "http": http, "record": recording.directory() });
        if let Some(file) = &config.ready_file {
            let what = format!("cannot write the ready file {}", file.display());
            replace(file, format!("{bound}\n").as_bytes()).map_err(system(what))?;
        }
        let (view, stragglers) = (config.view, config.stragglers);
        Ok(Self { ingest, http, ingest_listener, http_listener, secret, recording, view, stragglers, started_at_ms })
    }

    /// What to tell a person first: one line per address, and where the recording lies.
    pub fn banner(&self) -> String {
        let record = self.recording.directory().display();
        format!("reporters: {}\nhttp: http://{}\nrecording: {record}", self.ingest, self.http)
    }

    /// Runs until `stop`.
    ///
    /// 1 stop accepting · 2 take what was sent, close every second, end the recording · 3 end HTTP
    pub async fn run(self, stop: CancellationToken) -> Result<Outcome, RunError> {
        let reporters = Arc::new(Verifier::hs256(&self.secret, Audience::Report));
        let admin = (!self.http.ip().is_loopback()).then(|| Arc::new(Verifier::hs256(&self.secret, Audience::Admin)));
        let view = View::start(self.view, self.banner()).map_err(system("cannot start the view"))?;
        let (owner, inbox) = mpsc::channel(INBOX_MAX);
        tokio::spawn(ingest::serve(self.ingest_listener, reporters, owner.clone(), CONNECTIONS_MAX, stop.clone()));
        tokio::spawn(sampler::run(owner.clone(), stop.clone()));
        let heartbeat = tokio::spawn(heartbeat::run(Service::from_environment(), owner.clone(), stop.clone()));
        let router = api::router(owner, admin);
        let http = tokio::spawn(http::serve_at_most(
            HTTP_CONNECTIONS_MAX,
            self.http_listener,
            router,
            stop.clone().cancelled_owned(),
        ));
        let outcome = Owner::new(self.started_at_ms, self.stragglers, self.recording, view).run(inbox, stop).await;
        if let Err(error) = heartbeat.await {
            tracing::error!(%error, "the service manager was not told of the end");
        }
        match http.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "http ended with a failure"),
            Err(error) => tracing::error!(%error, "http ended with a failure"),
        }
        Ok(outcome)
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Bind { flag, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Writes to standard output; a reader who has gone away is no failure of the run.
pub fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "nobody reads standard output");
    }
}
