//! Imports of the dashboard run one way.

use std::fs;
use std::path::Path;

/// From the top down. A module may import those after it.
const DASHBOARD: [&str; 22] = [
    "recap",
    "run",
    "config",
    "api",
    "heartbeat",
    "live",
    "ingest",
    "sampler",
    "owner",
    "view",
    "record",
    "alert",
    "series",
    "mark",
    "sets",
    "merge",
    "ends",
    "second",
    "books",
    "histogram",
    "host",
    "column",
];

/// The same of the part that tells what a recording came to.
const RECAP: [&str; 8] = ["page", "markdown", "draw", "charts", "tables", "figures", "load", "words"];

fn check(folder: &str, layers: &[&str], beside: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    for (depth, module) in layers.iter().enumerate() {
        let text = fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        for above in &layers[..depth] {
            for path in [format!("super::{above}"), format!("dashboard::{above}"), format!("recap::{above}")] {
                assert!(!text.contains(&path), "{module} imports {path}, which lies above it");
            }
        }
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(layers.contains(&&*name) || beside.contains(&&*name), "{name} has no place in the order");
    }
}

#[test]
fn a_module_of_the_dashboard_imports_only_what_lies_below_it() {
    check("src/dashboard", &DASHBOARD, &["mod", "limits"]);
    check("src/dashboard/recap", &RECAP, &[]);
}
