//! Modules import downwards only: a fleet knows machines, a machine knows no fleet, and what they
//! share knows neither.

use std::path::{Path, PathBuf};

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn nothing_imports_from_above_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap().display().to_string();
        let above: &[&str] = match inside.as_str() {
            "lib.rs" | "main.rs" => &[],
            name if name.starts_with("fleet") => &[],
            name if name.starts_with("machine") => &["crate::fleet"],
            _ => &["crate::fleet", "crate::machine"],
        };
        let text = std::fs::read_to_string(&path).unwrap();
        for module in above {
            assert!(!text.contains(module), "{inside} imports from {module}");
        }
    }
}
