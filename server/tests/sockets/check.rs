//! `hongbao-server check` on the real binary and this host, whatever it carries. It only reads: no
//! test raises this host's settings.

use serde_json::Value;

use crate::BINARY;
use hongbao_testing::command;

/// Exit code and what is said, by a shell with 1,024 descriptors, so that no host however large
/// carries 100 million connections.
fn check(flags: &[&str]) -> (i32, String) {
    let shell = ["-c", "ulimit -n 1024; exec \"$0\" check \"$@\"", BINARY];
    let output = command("sh").args(shell).args(flags).output().unwrap();
    assert!(output.stderr.is_empty() || output.status.code() == Some(2), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn check_json(connections: u64) -> (i32, Value) {
    let (code, said) = check(&["--json", "--connections", &connections.to_string()]);
    (code, serde_json::from_str(&said).unwrap())
}

#[test]
fn the_exit_code_says_whether_the_host_carries_the_connections() {
    let (fits, verdict) = check_json(1);
    assert_eq!((fits, &verdict["fits"]), (0, &Value::Bool(true)));
    let (too_many, verdict) = check_json(100_000_000);
    assert_eq!((too_many, &verdict["fits"]), (1, &Value::Bool(false)));
    assert!(verdict["carries"].as_u64().unwrap() < 100_000_000);
}

#[test]
fn the_data_names_the_limit_that_binds_and_what_mends_it() {
    let (_, verdict) = check_json(100_000_000);
    let findings = verdict["findings"].as_array().unwrap();
    let binding = findings.iter().find(|finding| finding["setting"] == verdict["binds"]).unwrap();
    assert_eq!(binding["enough"], false);
    assert_eq!(binding["weight"], "bounds");
    assert_eq!(binding["carries"], verdict["carries"]);
    assert!(binding["now"].is_u64() && binding["needed"].is_u64(), "{binding}");
    assert!(binding["command"].is_string() && binding["why"].is_string(), "{binding}");
    assert_eq!(verdict["changes"], Value::Array(Vec::new()), "without --fix nothing is changed");
}

#[test]
fn the_table_ends_with_the_limit_that_binds_first() {
    let (code, said) = check(&["--connections", "100000000"]);
    assert_eq!(code, 1);
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("100,000,000 connections do not fit: this host carries "), "{said}");
    assert!(last.ends_with(" binds first."), "{said}");
    let columns: Vec<_> = said.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["setting", "now", "needed", "carries"]);
}

#[test]
fn with_the_fleet_here_its_ports_and_the_clock_are_judged_too() {
    let settings = |flags: &[&str]| {
        let verdict: Value = serde_json::from_str(&check(flags).1).unwrap();
        let findings = verdict["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["setting"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let ports = "net.ipv4.ip_local_port_range".to_owned();
    let (alone, both) = (settings(&["--json"]), settings(&["--json", "--with-fleet"]));
    assert!(!alone.contains(&ports) && both.contains(&ports), "{both:?}");
    assert!(alone.contains(&"clock".to_owned()) && both.contains(&"clock".to_owned()), "{alone:?}");
}

#[test]
fn what_does_not_suffice_names_the_line_that_mends_it() {
    let (_, verdict) = check_json(900_000);
    let findings = verdict["findings"].as_array().unwrap();
    let nofile = findings.iter().find(|finding| finding["setting"] == "nofile hard").unwrap();
    assert!(
        nofile["enough"] == true || nofile["file"].as_str().unwrap().starts_with("90-hongbao-limits.conf:"),
        "{nofile}"
    );
}

#[test]
fn a_number_of_connections_that_makes_no_sense_is_bad_usage() {
    for connections in ["0", "many", "100000001"] {
        assert_eq!(check(&["--connections", connections]).0, 2, "{connections}");
    }
}
