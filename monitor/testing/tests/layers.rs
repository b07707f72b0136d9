//! Imports run one way: a module uses only what lies below it. The order is the map in
//! ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of each crate, from the top down. A module may import those after it.
const LAYERS: [(&str, &[&str]); 5] = [
    ("sysctl", &["report", "mend", "judge", "finding", "files", "tables", "facts", "cores", "sys"]),
    ("proto", &["frame", "token", "id", "limits", "v1", "report_v1"]),
    (
        "monitor",
        &[
            "main",
            "pages",
            "cli",
            "top",
            "dashboard",
            "metrics",
            "http",
            "report",
            "service",
            "journal",
            "manual",
            "build",
            "disk",
            "process",
            "sse",
            "logs",
            "credentials",
        ],
    ),
    (
        "server",
        &[
            "main",
            "pages",
            "node",
            "admin",
            "watchdog",
            "telemetry",
            "find",
            "trace",
            "house",
            "generator",
            "clerk",
            "rooms",
            "shard",
            "ledger",
            "stock",
            "lot",
            "order",
            "envelope",
            "campaign",
            "config",
            "admission",
            "ends",
            "host",
            "descriptors",
            "limits",
        ],
    ),
    (
        "client-sim",
        &[
            "main",
            "pages",
            "cli",
            "check",
            "fleet",
            "machine",
            "results",
            "ntp_responder",
            "clock",
            "storm",
            "schedule",
            "arguments",
            "source",
            "backoff",
            "histogram",
            "ids",
            "percent",
            "descriptors",
            "limits",
        ],
    ),
];

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

/// Names that follow `crate::` in a source text.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
}

#[test]
fn a_module_imports_only_what_lies_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut uphill = Vec::new();
    for (package, layers) in LAYERS {
        let src = root.join(package).join("src");
        for path in sources(&src) {
            let relative = path.strip_prefix(&src).unwrap();
            let module =
                relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            if module == "lib" {
                continue;
            }
            let depth = layers.iter().position(|layer| *layer == module);
            let depth = depth.unwrap_or_else(|| panic!("{package}: module {module} has no place in the order"));
            for used in imports(&fs::read_to_string(&path).unwrap()) {
                if layers.iter().position(|layer| *layer == used).is_some_and(|below| below < depth) {
                    uphill.push(format!("{package}/{}: uses {used}, which lies above {module}", relative.display()));
                }
            }
        }
    }
    assert!(uphill.is_empty(), "{}", uphill.join("\n"));
}

#[test]
fn packages_depend_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (package, forbidden) in [
        ("proto", ["hongbao-monitor", "hongbao-server", "hongbao-sim", "hongbao-sysctl"].as_slice()),
        ("sysctl", &["hongbao-proto", "hongbao-monitor", "hongbao-server", "hongbao-sim"]),
        ("monitor", &["hongbao-server", "hongbao-sim", "hongbao-sysctl"]),
        ("client-sim", &["hongbao-server"]),
        ("server", &["hongbao-sim"]),
    ] {
        let manifest = fs::read_to_string(root.join(package).join("Cargo.toml")).unwrap();
        for name in forbidden {
            assert!(!manifest.lines().any(|line| line.starts_with(name)), "{package} depends on {name}");
        }
    }
}
