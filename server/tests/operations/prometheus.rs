//! A real Prometheus with our configuration and rules scrapes a real run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Url, blocking};
use serde_json::Value;

use super::documented::panel_queries;
use super::family::{Family, QPS, SECONDS, USERS, tool};
use hongbao_testing::{Running, eventually, root, until};

struct Prometheus {
    _process: Running,
    log: PathBuf,
    api: String,
    http: blocking::Client,
}

impl Prometheus {
    /// With the configuration as it is shipped but for the ports, and a clock that is five times as
    /// fast.
    fn start(family: &Family) -> Self {
        let home = family.path("prometheus");
        fs::create_dir(&home).unwrap();
        let shipped = root().join("monitor/prometheus");
        for rules in ["recording.yml", "alerts.yml"] {
            fs::copy(shipped.join(rules), home.join(rules)).unwrap();
        }
        let mut config = fs::read_to_string(shipped.join("prometheus.yml")).unwrap();
        let targets = family.path("targets").join("*.json").display().to_string();
        for (shipped, ours) in [
            ("127.0.0.1:7402", family.server.admin.to_string().as_str()),
            ("127.0.0.1:7404", &family.monitor.http.to_string()),
            ("targets/*.json]", &format!("{targets}]")),
            ("scrape_timeout: 4s", "scrape_timeout: 1s"),
            ("interval: 5s", "interval: 1s"),
        ] {
            assert!(config.contains(shipped), "{shipped}");
            config = config.replace(shipped, ours);
        }
        fs::write(home.join("prometheus.yml"), config).unwrap();
        let mut prometheus = tool("prometheus");
        prometheus.arg(format!("--config.file={}", home.join("prometheus.yml").display()));
        prometheus.arg(format!("--storage.tsdb.path={}", home.join("data").display()));
        prometheus.arg("--web.listen-address=127.0.0.1:0");
        let log = family.path("prometheus.log");
        let process = Running::start(&mut prometheus, log.clone());
        let address = eventually("Prometheus to listen", || address_in(&log));
        let http = blocking::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let started = Self { _process: process, log, api: format!("http://{address}"), http };
        until("Prometheus to be ready", || {
            started.http.get(format!("{}/-/ready", started.api)).send().is_ok_and(|answer| answer.status().is_success())
        });
        started
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = Url::parse_with_params(&format!("{}{path}", self.api), parameters).unwrap();
        let answer: Value = serde_json::from_str(&self.http.get(url).send().unwrap().text().unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// The values of an instant vector.
    fn query(&self, expression: &str) -> Vec<f64> {
        let result = self.get("/api/v1/query", &[("query", expression)]);
        let values = result["result"].as_array().unwrap().iter();
        values.map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    /// What is the only one.
    fn value(&self, expression: &str) -> Option<f64> {
        match self.query(expression)[..] {
            [] => None,
            [value] => Some(value),
            ref several => panic!("{expression}: {several:?}"),
        }
    }

    fn until(&self, expression: &str, wanted: f64) {
        let mut seen = Vec::new();
        let mut looks = 0;
        until(&format!("{expression} to be {wanted}"), || {
            seen = self.query(expression);
            looks += 1;
            let there = seen.len() == 1 && (seen[0] - wanted).abs() < 1e-9;
            if !there && looks % 500 == 0 {
                println!("{expression}: {seen:?} {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            there
        });
    }

    /// Every rule has been evaluated and none has failed, now or ever.
    fn rules_are_healthy(&self) {
        let rules = || -> Vec<Value> {
            let groups = self.get("/api/v1/rules", &[]);
            groups["groups"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|group| group["rules"].as_array().unwrap().clone())
                .collect()
        };
        until("every rule to be evaluated", || rules().iter().all(|rule| rule["health"] != "unknown"));
        let rules = rules();
        assert!(rules.len() > 30, "{}", rules.len());
        for rule in rules {
            assert_eq!((&rule["health"], rule["lastError"].as_str().unwrap_or("")), (&"ok".into(), ""), "{rule}");
        }
        let own = self.http.get(format!("{}/metrics", self.api)).send().unwrap().text().unwrap();
        let failures: Vec<_> =
            own.lines().filter(|line| line.starts_with("prometheus_rule_evaluation_failures_total{")).collect();
        assert!(!failures.is_empty() && failures.iter().all(|line| line.ends_with(" 0")), "{failures:?}");
    }
}

fn address_in(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("msg=\"Listening on\""))?;
    Some(line.split_once("address=")?.1.trim().to_owned())
}

#[test]
fn a_real_prometheus_scrapes_a_run_and_notices_who_is_missing() {
    let mut family = Family::start();
    let prometheus = Prometheus::start(&family);

    prometheus.until("count(up == 1)", 4.0);
    prometheus.until("hongbao:users_online:sum", USERS as f64);
    prometheus.until("count(hongbao_build_info)", 4.0);
    let targets = prometheus.get("/api/v1/targets", &[]);
    for target in targets["activeTargets"].as_array().unwrap() {
        assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    }
    until("the schedule to be seen", || {
        prometheus.value("hongbao:grabs_planned:rate30s").is_some_and(|rate| rate > 0.5 * QPS as f64)
    });
    until("latencies to be seen", || prometheus.value("hongbao:latency_seconds:p99_30s").is_some_and(|p99| p99 > 0.0));
    until("commits to be seen", || {
        prometheus.value("instance:hongbao_ledger_commit_seconds:p99_30s").is_some_and(|p99| p99 > 0.0)
    });
    prometheus.rules_are_healthy();
    let queries = panel_queries();
    let empty: Vec<_> = queries.iter().filter(|query| prometheus.query(query).is_empty()).collect();
    // What nothing has happened of yet: no table of rates of errors, say.
    assert!(
        empty.len() <= queries.len() / 8,
        "of {} queries of the dashboard these find nothing: {empty:#?}",
        queries.len()
    );

    // Every Grab of the schedule has come by the time at which the fleet lets its machines go.
    prometheus.until("hongbao_server_grabs_received_total", (QPS * SECONDS) as f64);
    family.fleet.process.end();
    until("the books to come to rest", || family.server.stats()["prizes"]["in_flight"] == 0);
    let stats = family.server.stats();
    let won = stats["ledger"]["won"].as_u64().unwrap();
    assert!(won > 0, "{stats}\n{}", family.fleet.process.log());
    prometheus.until("hongbao_server_prizes_won_total", won as f64);
    prometheus.until("hongbao_server_ledger_commit_seconds_count - hongbao_server_ledger_batches_total", 0.0);
    prometheus.until("count(hongbao:residual != 0) or vector(0)", 0.0);
    assert!(prometheus.query("hongbao:residual").len() >= 2);
    prometheus.until("hongbao_monitor_sources_left", 2.0);
    // Machines that have taken their leave are not looked for any more.
    prometheus.until("count(up == 1)", 2.0);
    prometheus.until("count(up{job=\"hongbao-machine\"}) or vector(0)", 0.0);
    for quiet in [
        "ResidualStanding",
        "LedgerUnhealthy",
        "MachineMissing",
        "TargetDown",
        "EquationsBroken",
        "RecordingFailing",
        "Violations",
        "DescriptorsLow",
        "ConnectionsFull",
    ] {
        assert_eq!(
            prometheus.query(&format!("ALERTS{{alertname=\"Hongbao{quiet}\",alertstate=\"firing\"}}")),
            [0.0; 0]
        );
    }

    // One that goes without a word is missed.
    family.monitor.process.kill();
    prometheus.until("ALERTS{alertname=\"HongbaoTargetDown\",alertstate=\"firing\",job=\"hongbao-monitor\"}", 1.0);
    prometheus.rules_are_healthy();
}
