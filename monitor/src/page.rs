//! The dashboard's page, its scripts and styles: parts of this program, so that they need no
//! network and no folder beside it. A monitor serves them; a report carries them.

macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_bytes!(concat!("../page/", $path)) as &[u8])),*] };
}

/// Everything below `/page/`; a test holds the list against the folder.
pub const FILES: [(&str, &[u8]); 39] = files![
    "app/books.js",
    "app/charts.js",
    "app/client.proto.js",
    "app/controls.js",
    "app/dom.js",
    "app/events.js",
    "app/figures.js",
    "app/format.js",
    "app/glance.js",
    "app/heat.js",
    "app/machines.js",
    "app/main.js",
    "app/plot.js",
    "app/report.js",
    "app/runs.js",
    "app/scales.js",
    "app/sets.js",
    "app/shake-client.js",
    "app/shake-words.js",
    "app/side.js",
    "app/state.js",
    "app/store.js",
    "app/stream-worker.js",
    "app/stream.js",
    "app/theme.js",
    "app/timeline.js",
    "app/verdict.js",
    "app/view.js",
    "app/words.js",
    "dashboard.css",
    "icon.svg",
    "index.html",
    "shake.css",
    "shake.html",
    "shake.js",
    "style.css",
    "vendor/pbf/pbf.js",
    "vendor/uplot/uPlot.esm.js",
    "vendor/uplot/uPlot.min.css",
];

pub fn text(path: &str) -> &'static str {
    let file = FILES.iter().find(|(known, _)| *known == path).and_then(|(_, bytes)| std::str::from_utf8(bytes).ok());
    file.unwrap_or_else(|| unreachable!("{path} is a part of the page"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::*;

    fn found(folder: &Path, root: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found(&path, root, into);
            } else {
                into.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_part_of_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut files = Vec::new();
        found(&root, &root, &mut files);
        let beside = |path: &String| {
            path.starts_with("tests/")
                || path.starts_with("screenshots/")
                || path.ends_with(".md")
                || path.ends_with("LICENSE")
        };
        files.retain(|path| !beside(path) && path != "package.json");
        files.sort();
        let served: Vec<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(served, files);
    }

    #[test]
    fn the_browsers_messages_are_generated_from_the_protocol() {
        let digest = const_hex::encode(Sha256::digest(hongbao_proto::CLIENT_PROTO));
        let generated = FILES.iter().find(|(path, _)| *path == "app/client.proto.js").unwrap().1;
        let first = String::from_utf8_lossy(generated).lines().next().unwrap().to_owned();
        assert_eq!(first, format!("// from client.proto, sha256 {digest}"), "see page/vendor/pbf/README.md");
    }
}
