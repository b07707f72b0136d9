//! The house holds: imports run one way, packages depend downwards, tests' names can be read.

mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imports::{circle, rooms, sources};

/// The top rooms of each crate, from the top down. A room imports only from those after it.
const ROOMS: [(&str, &[&str]); 6] = [
    ("proto", &["frame", "token", "id", "limits"]),
    ("sysctl", &["report", "mend", "judge", "finding", "files", "tables", "facts", "cores", "sys"]),
    (
        "monitor/telemetry",
        &[
            "metrics",
            "http",
            "report",
            "program",
            "logs",
            "journal",
            "disk",
            "process",
            "sse",
            "credentials",
            "clock",
            "summary",
            "table",
            "percent",
            "lock",
            "labels",
        ],
    ),
    (
        "monitor",
        &[
            "pages",
            "app",
            "http",
            "sampler",
            "ingest",
            "heartbeat",
            "guests",
            "runs",
            "report",
            "page",
            "owner",
            "config",
            "terminal",
            "words",
            "recording",
            "run",
            "access",
            "limits",
        ],
    ),
    (
        "server",
        &[
            "node",
            "watchdog",
            "admin",
            "telemetry",
            "services",
            "generator",
            "shard",
            "tools",
            "set",
            "ledger",
            "config",
            "transport",
            "market",
            "admission",
            "ends",
            "limits",
            "clock",
        ],
    ),
    (
        "client-sim",
        &[
            "pages",
            "check",
            "fleet",
            "machine",
            "results",
            "ntp_responder",
            "storm",
            "source",
            "arguments",
            "schedule",
            "clock",
            "backoff",
            "histogram",
            "sum",
            "ids",
            "descriptors",
            "limits",
        ],
    ),
];

/// A sentence that is read at a glance.
const TEST_NAME_MAX: usize = 60;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn a_room_imports_only_from_those_below_it() {
    let mut wrong = Vec::new();
    for (package, order) in ROOMS {
        let rooms = rooms(&root().join(package).join("src"));
        let top = &rooms[&Vec::new()];
        for (name, imports) in top {
            let Some(depth) = order.iter().position(|room| room == name) else {
                wrong.push(format!("{package}: {name} has no place in the order"));
                continue;
            };
            for (above, file) in imports {
                if order[..depth].contains(&above.as_str()) {
                    wrong.push(format!("{}: {name} imports {above}, which lies above it", file.display()));
                }
            }
        }
        for name in order.iter().filter(|name| !top.contains_key(**name)) {
            wrong.push(format!("{package}: there is no {name}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_imports_run_in_a_circle() {
    let mut wrong = Vec::new();
    for (package, _) in ROOMS {
        for (module, room) in rooms(&root().join(package).join("src")) {
            if let Some(way) = circle(&room) {
                let files: Vec<_> = way.windows(2).map(|pair| room[pair[0]][pair[1]].display().to_string()).collect();
                wrong.push(format!(
                    "{package}, {}: {}\n    {}",
                    module.join("::"),
                    way.join(" → "),
                    files.join("\n    ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_depend_downwards_only() {
    for (package, below) in [
        ("proto", [].as_slice()),
        ("sysctl", &[]),
        ("monitor/telemetry", &["proto"]),
        ("monitor", &["proto", "telemetry"]),
        ("client-sim", &["proto", "sysctl", "telemetry"]),
        ("server", &["proto", "sysctl", "telemetry"]),
    ] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        // Tests may use what lies beside them, too.
        let (_, dependencies) = manifest.split_once("\n[dependencies]").unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        let named = |line: &str| Some(line.strip_prefix("hongbao-")?.split(['.', ' ']).next()?.to_owned());
        for name in dependencies.lines().filter_map(named) {
            assert!(below.contains(&name.as_str()), "{package} depends on hongbao-{name}");
        }
    }
}

/// What draws, for a screen or a terminal, is in the monitor only.
#[test]
fn neither_server_nor_fleet_is_built_with_what_draws() {
    for package in ["hongbao-server", "hongbao-sim"] {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--offline", "--package", package, "--edges", "normal,build,dev", "--prefix", "none"]);
        let output = tree.current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).unwrap();
        let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(names.contains("hongbao-telemetry"), "{tree}");
        for name in ["hongbao-monitor", "plotters", "image", "ratatui", "crossterm", "maud", "comfy-table"] {
            assert!(!names.contains(name), "{package} is built with {name}");
        }
    }
}

#[test]
fn names_of_tests_can_be_read() {
    let (mut seen, mut long) = (0, Vec::new());
    for (package, _) in ROOMS.into_iter().chain([("monitor/testing", [].as_slice())]) {
        for path in ["src", "tests"].map(|folder| root().join(package).join(folder)).iter().filter(|path| path.exists())
        {
            for path in sources(path) {
                let text = fs::read_to_string(&path).unwrap();
                for rest in text.split("#[test]").chain(text.split("#[tokio::test")).skip(1) {
                    let name = rest.split_once("fn ").and_then(|(_, rest)| rest.split('(').next()).unwrap_or_default();
                    seen += 1;
                    if name.len() > TEST_NAME_MAX {
                        long.push(format!("{}: {name}", path.display()));
                    }
                }
            }
        }
    }
    assert!(seen > 500, "{seen} tests were found");
    assert!(long.is_empty(), "longer than {TEST_NAME_MAX}:\n{}", long.join("\n"));
}
