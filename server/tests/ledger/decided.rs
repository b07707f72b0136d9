//! Every place decides about every result of a posting, and a new one stops the build. Clippy finds
//! the wildcard arms (`wildcard_enum_match_arm`, denied where a result is matched; `scripts/test`
//! runs it with warnings as errors); what it does not see is sought in the sources.

use std::fs;
use std::path::{Path, PathBuf};

use hongbao_server::ledger::task::LedgerTask;
use hongbao_server::ledger::writer::WriterRequest;
use hongbao_server::set::message::ReplyPermit;

const RESULTS: [&str; 7] = [
    "PostingResult::",
    "ClaimResult::",
    "PayResult::",
    "CancelResult::",
    "SendResult::",
    "OpenResult::",
    "DepositResult::",
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The program's sources, without comments and without what is compiled for tests alone.
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut code = Vec::new();
    for path in paths {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        if name.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.push((name, lines.collect::<Vec<_>>().join("\n")));
    }
    code
}

fn names_a_result(text: &str) -> bool {
    RESULTS.iter().any(|name| text.contains(name))
}

/// Whether a result stands in the pattern of an arm.
fn is_matched(text: &str) -> bool {
    text.lines().any(|line| {
        let arm = line.trim_start().trim_start_matches("| ");
        RESULTS.iter().any(|name| arm.starts_with(name))
            && (line.contains("=>") || line.trim_start().starts_with("| ") || line.trim_end().ends_with(')'))
    })
}

/// What looks at one of a result's variants and passes over the others without a word.
fn looked_at(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for opening in ["if let ", "while let ", "matches!(", "let "] {
        for (at, _) in text.match_indices(opening) {
            if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let rest = &text[at..];
            let pattern = match opening {
                "matches!(" => rest.split(";\n").next().unwrap(),
                _ => rest.split([';', '=']).next().unwrap(),
            };
            if names_a_result(pattern) && pattern.len() < 400 {
                found.push(pattern.to_owned());
            }
        }
    }
    found
}

/// Arms for all that is left. Clippy does not see those inside of another type.
fn passed_over(text: &str) -> Vec<String> {
    let squeezed = text.split('\n').map(str::trim).collect::<Vec<_>>().join("\n ");
    let arms = ["\n _ =>", "Ok(_) =>"].into_iter();
    arms.filter(|arm| squeezed.contains(arm)).map(|arm| arm.trim().to_owned()).collect()
}

#[test]
fn a_new_result_of_a_posting_stops_the_build_everywhere() {
    let mut consumers = Vec::new();
    for (name, text) in code().into_iter().filter(|(name, _)| name != "ledger/results.rs") {
        assert_eq!(looked_at(&text), Vec::<String>::new(), "{name}");
        if !is_matched(&text) {
            continue;
        }
        assert!(text.contains("#![deny(clippy::wildcard_enum_match_arm)]"), "{name} may have wildcard arms");
        assert_eq!(passed_over(&text), Vec::<String>::new(), "{name}");
        consumers.push(name);
    }
    for name in [
        "admin/wallets.rs",
        "ledger/facts.rs",
        "ledger/user_event.rs",
        "services/envelope_runs.rs",
        "set/apply/replies.rs",
    ] {
        assert!(consumers.iter().any(|consumer| consumer == name), "{name} is not among {consumers:?}");
    }
}

#[test]
fn what_would_pass_over_a_result_is_found() {
    for text in [
        "if let ClaimResult::Won(win) = result {",
        "let PayResult::Paid(order) = result else { return };",
        "let is = matches!(result, Ok(SendResult::Sent { .. }));\n",
        "match x {\n    PayResult::Paid(_) => 1,\n    _ => 2,\n}",
        "match x {\n    Ok(PayResult::Paid(_)) => 1,\n    Ok(_) => 2,\n}",
    ] {
        assert!(!looked_at(text).is_empty() || !passed_over(text).is_empty(), "{text}");
    }
    let whole = "let x = match x {\n    PayResult::Paid(_) => 1,\n    PayResult::NoSuchOrder => 2,\n};";
    assert!(looked_at(whole).is_empty() && passed_over(whole).is_empty() && is_matched(whole));
}

#[test]
fn what_the_ledger_is_asked_is_a_closed_list() {
    fn travels<T: Send + 'static>() {}
    travels::<WriterRequest<ReplyPermit>>();
    travels::<LedgerTask>();
    let closures: Vec<_> =
        code().into_iter().filter(|(_, text)| text.contains("FnOnce(&mut dyn Ledger)")).map(|(name, _)| name).collect();
    assert_eq!(closures, Vec::<String>::new());
}
