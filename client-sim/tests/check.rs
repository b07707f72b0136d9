//! `hongbao-sim check` on the real binary and this host, whatever it carries. It only reads: no
//! test raises this host's settings.

use std::process::Command;

use serde_json::Value;

/// Exit code and what is said, by a shell with 1,024 descriptors, so that its machines are small
/// whatever the host grants.
fn check(flags: &[&str]) -> (i32, String) {
    let shell = ["-c", "ulimit -n 1024; exec \"$0\" check \"$@\"", env!("CARGO_BIN_EXE_hongbao-sim")];
    let output = Command::new("sh").args(shell).args(flags).output().unwrap();
    assert!(output.stderr.is_empty() || output.status.code() == Some(2), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn check_json(flags: &[&str]) -> (i32, Value) {
    let (code, said) = check(&[&["--json"], flags].concat());
    (code, serde_json::from_str(&said).unwrap())
}

fn of<'a>(verdict: &'a Value, setting: &str) -> &'a Value {
    let findings = verdict["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["setting"] == setting).unwrap_or_else(|| panic!("{setting}: {verdict}"))
}

#[test]
fn the_exit_code_says_whether_the_host_carries_the_users() {
    let (fits, verdict) = check_json(&["--users", "900", "--machines", "1", "--server", "127.0.0.1:7400"]);
    assert_eq!((fits, &verdict["fits"], &verdict["unit"]), (0, &Value::Bool(true), &Value::from("users")));
    let (too_many, verdict) = check_json(&["--users", "2000", "--machines", "2", "--server", "127.0.0.1:7400"]);
    assert_eq!((too_many, &verdict["fits"]), (1, &Value::Bool(false)));
    assert_eq!((&verdict["binds"], &verdict["carries"]), (&Value::from("nofile hard"), &Value::from(2 * (1_024 - 64))));
    assert!(of(&verdict, "nofile hard")["command"].as_str().unwrap().starts_with("hongbao-sim fleet --machines 3"));
    assert_eq!(verdict["changes"], Value::Array(Vec::new()), "without --fix nothing is changed");
}

#[test]
fn a_server_elsewhere_needs_an_address_for_every_25000_users() {
    // A documentation address: no host has it.
    let (code, verdict) = check_json(&["--users", "10000000", "--server", "192.0.2.1:7400"]);
    assert_eq!(code, 1);
    let addresses = of(&verdict, "source addresses");
    assert_eq!(addresses["needed"], 400);
    assert_eq!(addresses["carries"].as_u64().unwrap(), addresses["now"].as_u64().unwrap() * 25_000);
}

#[test]
fn the_clock_is_reported_and_bounds_nothing() {
    let (_, verdict) = check_json(&["--users", "1"]);
    let clock = of(&verdict, "clock");
    assert_eq!((&clock["weight"], &clock["carries"]), (&Value::from("hampers"), &Value::Null));
    assert!(clock["why"].as_str().unwrap().contains("estimated error"), "{clock}");
}

#[test]
fn the_table_ends_with_the_limit_that_binds_first() {
    let (code, said) = check(&["--users", "2000", "--machines", "1", "--server", "127.0.0.1:7400"]);
    assert_eq!(code, 1);
    let last = said.lines().last().unwrap();
    assert_eq!(last.split_once(" now").unwrap().0, "2,000 users do not fit: this host carries 960");
    assert!(last.ends_with("nofile hard binds first."), "{said}");
}

#[test]
fn what_makes_no_sense_is_bad_usage() {
    for flags in [["--users", "0"], ["--users", "many"], ["--machines", "0"], ["--server", "somewhere"]] {
        assert_eq!(check(&flags).0, 2, "{flags:?}");
    }
}
