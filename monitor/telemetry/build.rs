//! What `--version` says of a build. A release names its commit; a development build does not,
//! because it would then be made anew with every commit.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

mod git_head;

/// As many digits of a commit's hash as people write.
const SHORT: usize = 7;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=git_head.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-env-changed=HONGBAO_COMMIT");
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let profile = given("PROFILE").unwrap_or_default();
    // Who builds from an archive may say what it is an archive of.
    let commit = given("HONGBAO_COMMIT").unwrap_or_else(|| checked_out(&profile));
    let commit = commit.get(..SHORT).unwrap_or(&commit);
    let date = given("SOURCE_DATE_EPOCH").and_then(|epoch| date_of(&epoch)).or_else(|| commit_date(commit));
    let built = match &date {
        Some(date) => format!("{commit} {date}"),
        None => commit.to_owned(),
    };
    let compiler = Command::new(given("RUSTC").unwrap_or_else(|| "rustc".to_owned())).arg("--version").output();
    let compiler = compiler.ok().and_then(|said| String::from_utf8(said.stdout).ok()).unwrap_or_default();
    let compiler = compiler.split_whitespace().nth(1).unwrap_or("?");
    let target = given("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let version = given("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=HONGBAO_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=HONGBAO_BUILD_DATE={}", date.unwrap_or_default());
    println!("cargo::rustc-env=HONGBAO_BUILD={version} ({built}, {profile}, rustc {compiler}, {target})");
}

fn checked_out(profile: &str) -> String {
    if profile != "release" {
        return "dev".to_owned();
    }
    let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let head = git_head::head(&Path::new(&package).join("../.."));
    for file in &head.files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    head.commit.unwrap_or_else(|| "unknown".to_owned())
}

/// The day of the commit, where there is a git to ask: the same for whoever builds it, whenever.
fn commit_date(commit: &str) -> Option<String> {
    if ["dev", "unknown"].contains(&commit) {
        return None;
    }
    let said = Command::new("git").args(["show", "-s", "--format=%ct", commit]).output().ok()?;
    date_of(String::from_utf8(said.stdout).ok()?.trim())
}

/// The day of so many seconds after 1970, in UTC.
fn date_of(seconds: &str) -> Option<String> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds.parse().ok()?))?;
    let year_10000 = Duration::from_secs(253_402_300_800);
    (time < UNIX_EPOCH + year_10000).then(|| humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned())
}
