//! Where the machines of a fleet can be scraped, as a file for Prometheus's `file_sd_configs`:
//! their ports are the system's choice.

use std::path::Path;
use std::{fs, io};

use serde_json::json;

/// Replaces the file; `machines`: name and `host:port` of each. Prometheus sees the old list or the
/// new one, never a part.
pub fn write<'a>(file: &Path, machines: impl Iterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    let groups: Vec<_> =
        machines.map(|(name, address)| json!({ "targets": [address], "labels": { "machine": name } })).collect();
    // Not beside it under a name that a pattern such as targets/*.json would match.
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    fs::write(&unfinished, format!("{:#}\n", json!(groups)))?;
    fs::rename(&unfinished, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_is_a_named_group_and_none_is_an_empty_list() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("fleet.json");
        let read = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&file).unwrap()).unwrap();
        write(&file, [("machine-01", "127.0.0.1:1"), ("machine-02", "127.0.0.1:2")].into_iter()).unwrap();
        assert_eq!(read()[1], json!({ "targets": ["127.0.0.1:2"], "labels": { "machine": "machine-02" } }));
        write(&file, std::iter::empty()).unwrap();
        assert_eq!(read(), json!([]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
