//! The process: what is checked, bound and started in which order, and how it ends.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hongbao_proto::token::{Audience, Secret, Verifier};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::operator::Access;
use crate::config::Config;
use crate::guests::service::{self as guests, Guests};
use crate::http::api;
use crate::http::api::Surface;
use crate::http::control::Control;
use crate::limits::{CONNECTIONS_MAX, HTTP_CONNECTIONS_MAX, INBOX_MAX};
use crate::owner::{Message, Outcome, Owner};
use crate::recording::write::{RecordError, Recording, replace};
use crate::runs::Runs;
use crate::terminal::lines::View;
use crate::{heartbeat, ingest, sampler};
use hongbao_telemetry::clock::unix_millis;
use hongbao_telemetry::credentials::{self, CredentialError};
use hongbao_telemetry::http;
use hongbao_telemetry::program::service::Service;

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
        flag: &'static str,
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else of the system.
    #[error("{what}: {source}")]
    System {
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
    pub ingest: SocketAddr,
    pub http: SocketAddr,
    ingest_listener: TcpListener,
    http_listener: TcpListener,
    secret: Secret,
    config: Config,
    recording: Recording,
    started_at_ms: u64,
}

impl Monitor {
    /// Loads the secret, makes the recording, binds both addresses and, last, writes the ready
    /// file.
    pub async fn bind(config: Config) -> Result<Self, RunError> {
        let given = &config.given;
        let secret = credentials::load_secret(given.secret_file.as_deref())?;
        let started_at_ms = unix_millis();
        let recording = Recording::create(&config.record, config.rotation.clone())?;
        let bound = async { Ok((bind("--listen", given.listen).await?, inherited_or_bound(given.http).await?)) };
        let ((ingest_listener, ingest), (http_listener, http)) = match bound.await {
            Ok(bound) => bound,
            Err(error) => {
                recording.discard();
                return Err(error);
            }
        };
        let bound = json!({ "ingest": ingest, "http": http, "record": recording.directory() });
        if let Some(file) = &given.ready_file {
            let what = format!("cannot write the ready file {}", file.display());
            replace(file, format!("{bound}\n").as_bytes()).map_err(system(what))?;
        }
        Ok(Self { ingest, http, ingest_listener, http_listener, secret, config, recording, started_at_ms })
    }

    /// What to tell a person first: one line per address, and where the recording lies.
    pub fn banner(&self) -> String {
        let record = self.recording.directory();
        format!("reporters: {}\nhttp: http://{}\nrecording: {}", self.ingest, self.http, record.display())
    }

    /// Runs until `stop`.
    ///
    /// 1 end HTTP · 2 guests leave, and what they were told is reported · 3 stop accepting · 4 take
    ///   what was sent, close every second, end the recording
    pub async fn run(self, stop: CancellationToken) -> Result<Outcome, RunError> {
        let reporters = Arc::new(Verifier::hs256(&self.secret, Audience::Report));
        let view = View::start(self.config.given.view).map_err(system("cannot start the view"))?;
        let (owner, inbox) = mpsc::channel(INBOX_MAX);
        let surface = self.surface(&owner)?;
        // What guests were told last is to be in the books: their reports are taken until they have
        // left.
        let over = CancellationToken::new();
        tokio::spawn(ingest::serve(self.ingest_listener, reporters, owner.clone(), CONNECTIONS_MAX, over.clone()));
        tokio::spawn(sampler::run(owner.clone(), over.clone()));
        let heartbeat = tokio::spawn(heartbeat::run(Service::from_environment(), owner.clone(), stop.clone()));
        let guests = tokio::spawn(Arc::clone(&surface.guests).report(reachable(self.ingest), stop.clone()));
        let router = api::router(owner, surface).map_err(system("cannot prepare the page"))?;
        let http =
            tokio::spawn(http::serve(HTTP_CONNECTIONS_MAX, self.http_listener, router, stop.clone().cancelled_owned()));
        let ended = over.clone();
        tokio::spawn(async move {
            if let Err(error) = guests.await {
                tracing::error!(event = "guests_reports_failed", %error, "the guests' reports ended with a failure");
                stop.cancelled().await;
            }
            ended.cancel();
        });
        let Config { given, rotation, .. } = self.config;
        let outcome =
            Owner::new(self.started_at_ms, given.stragglers, self.recording, rotation, view).run(inbox, over).await;
        if let Err(error) = heartbeat.await {
            tracing::error!(event = "service_failed", %error, "the service manager was not told of the end");
        }
        match http.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(event = "http_failed", %error, "http ended with a failure"),
            Err(error) => tracing::error!(event = "http_failed", %error, "http ended with a failure"),
        }
        Ok(outcome)
    }

    /// Operators, their orders, and guests.
    fn surface(&self, owner: &mpsc::Sender<Message>) -> Result<Surface, RunError> {
        let Config { given, guests, .. } = &self.config;
        let access = Access::new(Verifier::hs256(&self.secret, Audience::Admin), self.http, &given.http_name);
        let settings = guests::Settings {
            max: *guests,
            server: given.guest_server,
            trusted: given.trust_control.clone(),
            journal: self.recording.directory().join("journals").join("guests.csv"),
        };
        let guests = Arc::new(Guests::new(settings, &self.secret, owner.clone()));
        let control = Control::new(owner.clone(), Arc::clone(&guests), &self.secret, given.trust_control.clone())
            .map_err(|error| system("cannot prepare the orders of operators")(io::Error::other(error)))?;
        let runs =
            Runs::beside(self.recording.current()).map_err(system("cannot look at the recordings beside this one"))?;
        Ok(Surface { access: Arc::new(access), control, guests, runs })
    }
}

/// An address at which we reach ourselves.
fn reachable(mut bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bound.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bound.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    bound
}

/// The listener of HTTP: one that was handed to this process (`LISTEN_FDS`, as service managers
/// do), which may lie in another network namespace than everything else here; else one of our own.
async fn inherited_or_bound(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let unusable = || system("LISTEN_FDS names what is no one listening TCP socket; hand over that of --http, or none");
    let mut handed = listenfd::ListenFd::from_env();
    if handed.len() > 1 {
        return Err(unusable()(io::ErrorKind::InvalidInput.into()));
    }
    match handed.take_tcp_listener(0).map_err(unusable())? {
        None => bind("--http", address).await,
        Some(listener) => {
            listener.set_nonblocking(true).map_err(unusable())?;
            let bound = listener.local_addr().map_err(unusable())?;
            Ok((TcpListener::from_std(listener).map_err(unusable())?, bound))
        }
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Bind { flag, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Writes to standard output; a reader who has gone away is no failure of the run.
pub fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::warn!(event = "stdout_unread", %error, "nobody reads standard output");
    }
}
