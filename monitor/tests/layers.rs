//! Imports of the dashboard run one way.

use std::fs;
use std::path::Path;

/// From the top down. A module may import those after it.
const LAYERS: [&str; 15] = [
    "recap",
    "run",
    "config",
    "api",
    "ingest",
    "sampler",
    "owner",
    "view",
    "record",
    "merge",
    "ends",
    "second",
    "books",
    "histogram",
    "host",
];

#[test]
fn a_module_of_the_dashboard_imports_only_what_lies_below_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard");
    for (depth, module) in LAYERS.iter().enumerate() {
        let text = fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        for above in &LAYERS[..depth] {
            assert!(!text.contains(&format!("super::{above}")), "{module} imports {above}, which lies above it");
        }
    }
    let known = |name: &str| LAYERS.contains(&name) || ["mod", "limits"].contains(&name);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(known(&name), "{name} has no place in the order");
    }
}
