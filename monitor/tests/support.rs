//! A monitor in this process, on real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use hongbao_monitor::app::Monitor;
use hongbao_monitor::config::{Arguments, Config};
use hongbao_monitor::owner::Outcome;
use hongbao_telemetry::clock::unix_seconds;
use hongbao_testing::{SECRET, soon};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Running {
    pub ingest: SocketAddr,
    pub http: SocketAddr,
    pub record: PathBuf,
    pub client: reqwest::Client,
    pub stop: CancellationToken,
    task: JoinHandle<Outcome>,
    pub home: TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "the-run", flags).await
    }

    /// Records to `recordings/NAME` of `home`, or to runs that follow one another if the flags say so.
    pub async fn start_in(home: TempDir, name: &str, flags: &[&str]) -> Self {
        let (secret, one) = (home.path().join("secret"), home.path().join("recordings").join(name));
        std::fs::write(&secret, SECRET).unwrap();
        let mut arguments = vec!["hongbao-monitor".to_owned(), "--view=none".into(), "--stragglers=500ms".into()];
        for flag in ["--listen", "--http"] {
            if !flags.contains(&flag) {
                arguments.extend([flag.to_owned(), "127.0.0.1:0".into()]);
            }
        }
        if !flags.iter().any(|flag| flag.starts_with("--recordings")) {
            arguments.push(format!("--record={}", one.display()));
        }
        arguments.push(format!("--secret-file={}", secret.display()));
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        let config = Config::checked(Arguments::try_parse_from(arguments).unwrap(), unix_seconds()).unwrap();
        let record = config.record.clone();
        let monitor = Monitor::bind(config).await.unwrap();
        let (ingest, http) = (monitor.ingest, monitor.http);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move { monitor.run(stopping).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { ingest, http, record, client, stop, task, home }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http.port())
    }

    pub async fn response(&self, path: &str) -> reqwest::Response {
        soon(path, self.client.get(self.url(path)).send()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.response(path).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub async fn good(&self, path: &str) -> Value {
        let (status, answer) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(self.url(path)).bearer_auth(token).json(body);
        let response = soon(path, request.send()).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Asks again until it is as wanted; there is no event for it outside the monitor.
    pub async fn get_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let (_, answer) = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
            }
        };
        soon(path, asked).await
    }

    pub async fn metrics(&self) -> String {
        self.response("/metrics").await.text().await.unwrap()
    }

    /// What has become of the run, the recording's place, and what keeps it there.
    pub async fn stop(self) -> (Outcome, PathBuf, TempDir) {
        self.stop.cancel();
        (soon("the monitor to stop", self.task).await.unwrap(), self.record, self.home)
    }
}
