//! The sources against the table of events, and the page that is made of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hongbao_telemetry::logs::events::{FACTS, KINDS, Limit, Program, page};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// An event as a source says it.
#[derive(Debug)]
struct Said {
    place: String,
    level: String,
    event: Option<String>,
    fields: Vec<String>,
}

/// What lies between a parenthesis that is open at the beginning of `text` and its end, split at
/// its own commas.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut from) = (0, false, false, 0);
    let mut found = Vec::new();
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[from..index].trim());
                from = index + 1;
            }
            ')' => {
                found.push(text[from..index].trim());
                return found;
            }
            _ => {}
        }
    }
    panic!("no end: {text:.80}");
}

fn events_of(package: &str) -> Vec<Said> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut found = Vec::new();
    for path in sources(&root.join(package).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        // Tests of the log itself log anything.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for level in ["error", "warn", "info", "debug", "trace"] {
            let call = format!("tracing::{level}!(");
            for (index, _) in text.match_indices(&call) {
                let arguments = arguments(&text[index + call.len()..]);
                let name = |argument: &&str| {
                    let name = argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
                    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                    (is_name && !name.is_empty()).then(|| name.to_owned())
                };
                // Facts, which a test of the server holds against the table.
                if arguments[0].starts_with("target:") {
                    continue;
                }
                let event = arguments.iter().find_map(|argument| {
                    let (name, value) = argument.split_once('=')?;
                    (name.trim() == "event").then(|| value.trim().trim_matches('"').to_owned())
                });
                let line = text[..index].matches('\n').count() + 1;
                found.push(Said {
                    place: format!("{}:{line}", path.strip_prefix(&root).unwrap().display()),
                    level: level.to_owned(),
                    event,
                    fields: arguments.iter().filter_map(name).filter(|name| name != "event").collect(),
                });
            }
        }
    }
    found
}

#[test]
fn every_event_of_the_sources_is_in_the_table_and_vice_versa() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::from(["foreign", "withheld", "log_lines_lost"]);
    used.extend(FACTS);
    for (package, by, at_least) in [
        ("server", Program::Server, 10),
        ("client-sim", Program::Fleet, 10),
        ("monitor", Program::Monitor, 10),
        ("monitor/telemetry", Program::Any, 1),
    ] {
        let events = events_of(package);
        assert!(events.len() >= at_least, "{package}: {events:?}");
        for Said { place, level, event, fields } in events {
            let Some(event) = event else {
                wrong.push(format!("{place}: no event is named"));
                continue;
            };
            let Some(kind) = KINDS.iter().find(|kind| kind.name == event) else {
                wrong.push(format!("{place}: {event} is not in the table"));
                continue;
            };
            used.insert(kind.name);
            if kind.level.as_str().to_lowercase() != level {
                wrong.push(format!("{place}: {event} is {level}, and {} in the table", kind.level));
            }
            if kind.by != by && kind.by != Program::Any {
                wrong.push(format!("{place}: {event} belongs to another program"));
            }
            for field in fields.iter().filter(|field| !kind.fields.contains(&field.as_str())) {
                wrong.push(format!("{place}: {event} has the field {field}, which is not in the table"));
            }
        }
    }
    for kind in KINDS.iter().filter(|kind| !used.contains(kind.name)) {
        wrong.push(format!("{} is in the table, and nobody says it", kind.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_is_made_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../LOGS.md");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("HONGBAO_WRITE_PAGES").is_some() {
        fs::write(&path, page()).unwrap();
    } else {
        assert!(
            kept == page(),
            "LOGS.md is out of date: run this test with HONGBAO_WRITE_PAGES=1, and look at the difference"
        );
    }
}

#[test]
fn a_peers_deeds_are_no_warning_and_money_is_never_withheld() {
    let kind = |name: &str| KINDS.iter().find(|kind| kind.name == name).unwrap();
    for peers in [
        "peer_refused",
        "connection_limited",
        "connection_ended",
        "reporter_refused",
        "report_refused",
        "http_peer_failed",
    ] {
        assert!(kind(peers).level >= tracing::Level::INFO, "{peers}");
    }
    for money in [
        "prizes_unaccounted",
        "equation_broken",
        "prize_void",
        "ledger_failing",
        "stop_unbalanced",
        "journal_failing",
        "win",
    ] {
        assert_eq!(kind(money).limit, Limit::Never, "{money}");
    }
}
