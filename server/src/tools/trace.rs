//! `hongbao-server trace`: prints what one user does and is told, as a running server sees it.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use hongbao_proto::UserId;
use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::credentials::load_secret;
use hongbao_telemetry::sse::{Event, Stream, StreamError, client};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::tools::user_id;

/// Between two attempts to reach a server that has gone.
const RETRY: Duration = Duration::from_secs(1);

/// Lifetime of the token of one attempt, seconds: it is looked at when the stream begins.
const TOKEN_SECONDS: u64 = 60;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Whom
    #[arg(long, value_name = "ID", value_parser = user_id)]
    user: UserId,
    /// The server's operators' surface
    #[arg(long, value_name = "URL", env = "HONGBAO_ADMIN_URL", default_value = "http://127.0.0.1:7402")]
    admin: String,
    /// File with the secret; else HONGBAO_SECRET_FILE, else HONGBAO_SECRET
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Print a JSON object for each event
    #[arg(long)]
    json: bool,
}

/// Follows until a signal comes.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let admin = &arguments.admin;
    if !admin.starts_with("http://") {
        anyhow::bail!("--admin {admin}: give http://HOST:PORT");
    }
    let secret = load_secret(arguments.secret_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            never = follow(arguments, &secret) => match never? {},
            _ = terminate.recv() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        }
    })
}

/// Follows until it is cancelled. A server that goes away is waited for; one that was never there,
/// or refuses, is an error.
async fn follow(wanted: &Arguments, secret: &Secret) -> anyhow::Result<Infallible> {
    let refused = |error: StreamError| anyhow!("--admin {}: {error}", wanted.admin);
    let client = client().map_err(refused)?;
    let signer = Signer::new(secret);
    let url = format!("{}/v1/users/{}/trace", wanted.admin.trim_end_matches('/'), wanted.user);
    let mut was_there = false;
    let mut is_reported = false;
    loop {
        let token = signer.sign("trace", Audience::Admin, unix_seconds(), TOKEN_SECONDS)?;
        let problem = match Stream::open(&client, &url, Some(&token), None).await {
            Ok(mut stream) => {
                (was_there, is_reported) = (true, false);
                loop {
                    match stream.next().await {
                        Ok(event) => print(wanted.json, &event).map_err(|error| anyhow!("standard output: {error}"))?,
                        Err(problem) => break problem,
                    }
                }
            }
            Err(problem) if !was_there || is_unauthorized(&problem) => return Err(refused(problem)),
            Err(problem) => problem,
        };
        if !std::mem::replace(&mut is_reported, true) {
            eprintln!("hongbao-server: {}: {problem}; waiting for it to come back", wanted.admin);
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn is_unauthorized(problem: &StreamError) -> bool {
    matches!(problem, StreamError::Refused { status: StatusCode::UNAUTHORIZED, .. })
}

fn print(json: bool, Event { name, data, .. }: &Event) -> io::Result<()> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(data) else { return Ok(()) };
    let mut out = io::stdout().lock();
    if json {
        if name != "step" {
            fields.insert("what".to_owned(), name.clone().into());
        }
        writeln!(out, "{}", Value::Object(fields))?;
    } else {
        writeln!(out, "{}", line(name, &Value::Object(fields)))?;
    }
    out.flush()
}

fn line(event: &str, fields: &Value) -> String {
    let at = fields["at_us"].as_u64().map(|us| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(us);
        humantime::format_rfc3339_micros(time).to_string().get(11..26).unwrap_or_default().to_owned()
    });
    // Writing to a String cannot fail.
    let mut line = format!("{:15} ", at.unwrap_or_default());
    let number = |name: &str| fields[name].as_u64();
    let word = |name: &str| fields[name].as_str().unwrap_or_default();
    match event {
        "step" => {
            write!(line, "SET {:<3} {:8}", number("set").unwrap_or_default(), word("what")).ok();
            if let Some(request) = number("request") {
                write!(line, " {request}").ok();
            }
            let what = ["kind", "decision", "reason"].map(word).concat();
            write!(line, " {what}").ok();
            for name in ["campaign", "serial", "order", "envelope", "share", "count"] {
                if let Some(value) = number(name) {
                    write!(line, " {name} {value}").ok();
                }
            }
            if let Some(fen) = number("amount_fen") {
                write!(line, " {}.{:02} yuan", fen / 100, fen % 100).ok();
            }
            if !word("code").is_empty() {
                write!(line, " {}", word("code")).ok();
            }
            if !word("fault").is_empty() {
                write!(line, " (fault: {})", word("fault")).ok();
            }
            if let Some(us) = number("latency_us") {
                write!(line, " after {}.{:03} ms", us / 1_000, us % 1_000).ok();
            }
        }
        "following" => {
            write!(line, "following user {}, ", number("user").unwrap_or_default()).ok();
            match (number("set"), number("slot")) {
                (Some(set), Some(slot)) => write!(line, "who is in SET {set}, slot {slot}").ok(),
                _ => write!(line, "who is not on-line").ok(),
            };
        }
        "lost" => {
            write!(line, "{} steps were lost here: they came faster than they were read", number("count").unwrap_or(0))
                .ok();
        }
        "stopping" => line.push_str("the server stops"),
        other => line.push_str(other),
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_is_one_line_with_all_that_it_names() {
        let step = json!({"at_us": 1_700_000_000_123_456u64, "set": 3, "slot": 9, "what": "answer", "request": 77, "kind": "won",
            "latency_us": 1_234, "campaign": 1, "serial": 5, "amount_fen": 120});
        let expected = "22:13:20.123456 SET 3   answer   77 won campaign 1 serial 5 1.20 yuan after 1.234 ms";
        assert_eq!(line("step", &step), expected);
        let end = json!({"at_us": 0, "set": 0, "slot": 0, "what": "end", "reason": "kicked", "fault": "us"});
        assert_eq!(line("step", &end), "00:00:00.000000 SET 0   end      kicked (fault: us)");
    }
}
