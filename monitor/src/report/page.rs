//! The report as one file: the dashboard's page with the run in it. Its modules and styles are
//! within, so that it opens from a disk, without a monitor and without a network.
//!
//! A file's modules cannot import each other: each becomes a `data:` URL, by a name that an import
//! map knows. Nothing else may run: scripts need this file's nonce, and nothing may be fetched.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::page;

/// The page that carries this. Texts of a recording are data in it, never markup.
pub fn render(carried: &Value) -> String {
    let mut nonce = [0; 16];
    // Without it no script would run, which is seen at once; a guessable one would be worse.
    let nonce = getrandom::fill(&mut nonce).map_or_else(|_| String::new(), |()| STANDARD.encode(nonce));
    let carried = carried.to_string().replace('<', "\\u003c");
    let mut text = String::new();
    for line in page::text("index.html").lines() {
        let line = line.trim();
        let (tag, path) = (line.split(' ').next().unwrap_or_default(), line.split("\"/page/").nth(1));
        let path = path.and_then(|rest| rest.split('"').next()).unwrap_or_default();
        match (tag, path) {
            ("<title>Hongbao</title>", _) => {
                text.push_str(&format!(
                    "{line}\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
                     script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\" />"
                ));
            }
            ("<link", path) if path.ends_with(".css") => text.push_str(&format!("<style>{}</style>", page::text(path))),
            ("<link", _) => continue,
            ("<script", "app/theme.js") => {
                text.push_str(&format!("<script nonce=\"{nonce}\">{}</script>", page::text(path)))
            }
            ("<script", _) => text.push_str(&format!(
                "<script type=\"importmap\" nonce=\"{nonce}\">{}</script>\n\
                 <script type=\"application/json\" id=\"carried\">{carried}</script>\n\
                 <script type=\"module\" nonce=\"{nonce}\">import \"app/main.js\";</script>",
                imports()
            )),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Modules of the page for guests, and what listens to a monitor.
const OTHERS: [&str; 4] = ["shake", "proto", "pbf", "worker"];

/// The page's modules by the names that they import each other by.
fn imports() -> Value {
    let modules =
        page::FILES.iter().filter(|(path, _)| path.ends_with(".js") && !OTHERS.iter().any(|part| path.contains(part)));
    let urls = modules.map(|(path, bytes)| {
        let source =
            String::from_utf8_lossy(bytes).replace("from \"./", "from \"app/").replace("from \"../", "from \"");
        ((*path).to_owned(), format!("data:text/javascript;base64,{}", STANDARD.encode(source)).into())
    });
    Value::Object(Map::from_iter([("imports".to_owned(), Value::Object(urls.collect()))]))
}
