//! `hongbao-server secret` and `token`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hongbao_proto::UserId;
use hongbao_proto::token::{Audience, Signer};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::credentials::load_secret;

#[derive(Debug, Args)]
pub struct Arguments {
    /// File with the secret; else HONGBAO_SECRET_FILE, else HONGBAO_SECRET
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What it is good for
    #[arg(long = "for", value_enum, default_value_t = Purpose::User)]
    purpose: Purpose,
    /// User id (1 to 2^53-1) for a user's token, else any name
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// Lifetime
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Purpose {
    /// Log in as the subject
    User,
    /// Call the HTTP surface of any process
    Admin,
    /// Report to the monitor
    Report,
}

pub fn run(Arguments { secret_file, purpose, subject, ttl }: &Arguments) -> anyhow::Result<ExitCode> {
    let audience = match purpose {
        Purpose::User => Audience::User,
        Purpose::Admin => Audience::Admin,
        Purpose::Report => Audience::Report,
    };
    if audience == Audience::User {
        let id = subject.parse().map_err(|_| anyhow::anyhow!("user id {subject:?} is not a number"))?;
        UserId::new(id)?;
    }
    let signer = Signer::new(&load_secret(secret_file.as_deref())?);
    writeln!(std::io::stdout(), "{}", signer.sign(subject, audience, unix_seconds(), ttl.as_secs())?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn secret() -> anyhow::Result<ExitCode> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    writeln!(std::io::stdout(), "{}", const_hex::encode(bytes))?;
    Ok(ExitCode::SUCCESS)
}
