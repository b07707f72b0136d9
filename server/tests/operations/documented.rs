//! Every metric is in the table of monitor/prometheus/README.md, and everything that rules and
//! dashboard look at exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::family::{Family, tool};
use hongbao_testing::{eventually, output, root};

const BEGIN: &str = "<!-- The table between these marks is checked by a test against a running family. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// A family of samples, as its metadata and its samples describe it.
#[derive(Debug, Default)]
struct Described {
    kind: String,
    labels: BTreeSet<String>,
    of: BTreeSet<&'static str>,
    help: String,
}

/// What three processes serve, by name.
fn described(scrapes: &[String; 3]) -> BTreeMap<String, Described> {
    let mut found: BTreeMap<String, Described> = BTreeMap::new();
    for (process, text) in ["server", "monitor", "machine"].into_iter().zip(scrapes) {
        let mut family = String::new();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    family = name.to_owned();
                    let entry = found.entry(family.clone()).or_default();
                    help.clone_into(&mut entry.help);
                    entry.of.insert(process);
                }
                ["#", "TYPE", _, kind] => kind.clone_into(&mut found.get_mut(&family).unwrap().kind),
                _ => {
                    let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
                    let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
                    let names = names.filter(|name| *name != "le").map(str::to_owned);
                    found.get_mut(&family).unwrap().labels.extend(names);
                }
            }
        }
    }
    found
}

fn table(found: &BTreeMap<String, Described>) -> String {
    let mut table = "| metric | type | labels | of | meaning |\n|---|---|---|---|---|\n".to_owned();
    for (name, Described { kind, labels, of, help }) in found {
        let list = |set: Vec<&str>| set.join(", ");
        let labels = list(labels.iter().map(String::as_str).collect());
        let of = if of.len() == 3 { "all".to_owned() } else { list(of.iter().copied().collect()) };
        table += &format!("| `{name}` | {kind} | {labels} | {of} | {help} |\n");
    }
    table
}

/// Names in an expression of PromQL that are ours or a process's.
fn used(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)))
        .filter(|word| ["hongbao_", "hongbao:", "instance:", "process_"].iter().any(|start| word.starts_with(start)))
}

/// Every query of a part of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if ["expr", "definition", "query"].contains(&key.as_str()) => {
                        found.push(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The dashboard, as it is imported into Grafana.
fn dashboard() -> Value {
    let text = fs::read_to_string(root().join("monitor/grafana/hongbao.json")).unwrap();
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// What its panels ask, with its variables as Grafana would fill them in.
pub fn panel_queries() -> Vec<String> {
    let mut found = Vec::new();
    expressions(&dashboard()["panels"], &mut found);
    found.iter().map(|query| query.replace("$__rate_interval", "10s").replace("$server", ".*")).collect()
}

#[test]
fn dashboard_panels_have_a_title_a_source_and_their_own_place() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let place = |panel: &Value| {
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        (of("x"), of("y"), of("x") + of("w"), of("y") + of("h"))
    };
    for (index, panel) in panels.iter().enumerate() {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        }
        let (left, top, right, bottom) = place(panel);
        assert!(right <= 24, "{}", panel["title"]);
        for other in &panels[..index] {
            let (others_left, others_top, others_right, others_bottom) = place(other);
            let apart = others_right <= left || right <= others_left || others_bottom <= top || bottom <= others_top;
            assert!(apart, "{} lies over {}", panel["title"], other["title"]);
            assert_ne!(panel["id"], other["id"]);
        }
    }
}

#[test]
fn every_metric_is_documented_and_those_that_rules_use_exist() {
    let family = Family::start();
    let mut scrapes = family.scrapes();
    eventually("all to have reported", || {
        scrapes = family.scrapes();
        scrapes[2].contains("hongbao_machine_latency_seconds_count").then_some(())
    });

    // promtool has nothing to object to any of them.
    for text in &scrapes {
        for extended in [&[][..], &["--extended"]] {
            let mut promtool = tool("promtool");
            promtool.args(["check", "metrics"]).args(extended);
            let mut child =
                promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let (table, problems) =
                (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert!(output.status.success() && problems.is_empty(), "{problems}\n{text}");
            if extended.is_empty() {
                assert_eq!(table, "");
            } else {
                // Metric, cardinality, percentage: none has a label that could grow with users.
                let most = table
                    .lines()
                    .filter(|line| !line.starts_with("Total"))
                    .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok())
                    .max();
                assert!(most.is_some_and(|most| (1..=100).contains(&most)), "{table}");
            }
        }
    }

    let found = described(&scrapes);
    for (name, one) in &found {
        assert!(!one.help.is_empty() && !one.kind.is_empty(), "{name}: {one:?}");
    }
    let readme = root().join("monitor/prometheus/README.md");
    let text = fs::read_to_string(&readme).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark before the table");
    let (documented, after) = rest.split_once(END).expect("the mark behind the table");
    let actual = table(&found);
    if std::env::var_os("UPDATE_METRICS_TABLE").is_some() {
        fs::write(&readme, format!("{before}{BEGIN}{actual}{END}{after}")).unwrap();
    } else {
        let (documented, actual): (BTreeSet<_>, BTreeSet<_>) = (documented.lines().collect(), actual.lines().collect());
        let (missing, stale): (Vec<_>, Vec<_>) =
            (actual.difference(&documented).collect(), documented.difference(&actual).collect());
        assert!(
            missing.is_empty() && stale.is_empty(),
            "{} is not what is served; run this test with UPDATE_METRICS_TABLE=1\nmissing: {missing:#?}\nstale: {stale:#?}",
            readme.display()
        );
    }

    // Names that exist: samples, of histograms in three parts, and what the recording rules make.
    let rules = fs::read_to_string(root().join("monitor/prometheus/recording.yml")).unwrap();
    let alerts = fs::read_to_string(root().join("monitor/prometheus/alerts.yml")).unwrap();
    let recorded = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned);
    let recorded: BTreeSet<String> = recorded.collect();
    assert!(recorded.len() > 10);
    let mut exist = recorded.clone();
    for (name, one) in &found {
        if one.kind == "histogram" {
            exist.extend(["_bucket", "_count", "_sum"].map(|part| format!("{name}{part}")));
        } else {
            exist.insert(name.clone());
        }
    }
    let mut looked_at = Vec::new();
    expressions(&dashboard(), &mut looked_at);
    assert!(looked_at.len() > 40);
    let lines = rules.lines().chain(alerts.lines()).filter(|line| !line.trim().starts_with(['#', '-']));
    looked_at.extend(lines.map(str::to_owned));
    let mut names = BTreeSet::new();
    for expression in &looked_at {
        for name in used(expression) {
            // A pattern such as hongbao_monitor_residual_.+ names the beginning of some.
            let known = exist.contains(name) || name.ends_with('_') && exist.iter().any(|one| one.starts_with(name));
            assert!(known, "{name} does not exist, in {expression}");
            names.insert(name.to_owned());
        }
    }
    let unused: Vec<_> = recorded.difference(&names).collect();
    assert!(unused.is_empty(), "recorded and looked at by nobody: {unused:?}");
}

#[test]
fn promtool_accepts_the_rules_and_tests_each_alert_both_ways() {
    let directory = root().join("monitor/prometheus");
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "recording.yml", "alerts.yml"],
        &["test", "rules", "tests.yml"],
    ] {
        let (good, text) = output(tool("promtool").current_dir(&directory).args(arguments));
        assert!(good && text.contains("SUCCESS"), "{arguments:?}: {text}");
    }
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let (alerts, tests) = (read("alerts.yml"), read("tests.yml"));
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 12);
    for name in &names {
        let test = tests.split("\n  - name: ").find(|test| test.starts_with(&format!("{name}\n")));
        let test = test.unwrap_or_else(|| panic!("{name} has no test"));
        let quiet = test.split("alertname: ").filter(|rest| rest.starts_with(name) && rest.contains("exp_alerts: []"));
        assert!(quiet.count() >= 1, "{name} is never seen quiet");
        assert!(test.contains(&format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}")), "{name} never fires");
        assert!(test.contains("value: 1"), "{name} never fires");
    }
    for part in ["severity: ", "summary: ", "description: ", "runbook: "] {
        assert_eq!(alerts.matches(part).count(), names.len(), "each alert has a {part}");
    }
}
