//! The files of this folder, as they were when this was built: what makes a setting last beyond the
//! next boot.

/// A file that somebody copies to a host.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Its name in `sysctl/`.
    pub name: &'static str,
    pub text: &'static str,
}

/// For a host that runs the server.
pub const SERVER: File = File { name: "90-hongbao-server.conf", text: include_str!("../90-hongbao-server.conf") };

/// For a host that runs machines of the fleet.
pub const CLIENT: File = File { name: "91-hongbao-client.conf", text: include_str!("../91-hongbao-client.conf") };

/// What logins may ask for, on either.
pub const LIMITS: File = File { name: "90-hongbao-limits.conf", text: include_str!("../90-hongbao-limits.conf") };

pub const UNIT: File = File { name: "hongbao-server.service", text: include_str!("../hongbao-server.service") };

/// A line that sets something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub file: &'static str,
    /// From 1.
    pub number: usize,
    /// `net.core.somaxconn`, or `nofile hard`.
    pub setting: String,
    pub values: Vec<u64>,
    /// Whether a comment stands right above it, or above the settings that stand right above it.
    pub explained: bool,
}

impl File {
    /// The lines that set something: `key = value value`, or `* hard nofile value` as
    /// limits.conf(5) has it.
    pub fn lines(self) -> Vec<Line> {
        let mut explained = false;
        let mut lines = Vec::new();
        for (index, text) in self.text.lines().enumerate() {
            match text.chars().next() {
                None => explained = false,
                Some('#') => explained = true,
                Some(_) => {
                    let (setting, values) = match text.split_once('=') {
                        Some((key, values)) => (key.trim().to_owned(), values),
                        None => limit(text),
                    };
                    // What is no number makes a line of no values, which its test refuses.
                    let values =
                        values.split_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
                    lines.push(Line { file: self.name, number: index + 1, setting, values, explained });
                }
            }
        }
        lines
    }
}

/// `* hard nofile 1000` → `nofile hard`, `1000`
fn limit(text: &str) -> (String, &str) {
    let words: Vec<_> = text.split_whitespace().collect();
    match words[..] {
        [_, kind, item, value] => (format!("{item} {kind}"), value),
        _ => (text.to_owned(), ""),
    }
}

/// The line that sets `setting`, where its values suffice.
pub fn line_for(setting: &str, suffice: impl Fn(&[u64]) -> bool) -> Option<Line> {
    let lines = [SERVER, CLIENT, LIMITS].into_iter().flat_map(File::lines);
    lines.filter(|line| line.setting == setting).find(|line| suffice(&line.values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds_are_read_with_whether_they_are_explained() {
        let text = "# Why.\na.b = 1 2\nc.d = 3\n\n# A title.\n\n* hard nofile 9\n";
        let lines = File { name: "some", text }.lines();
        let read: Vec<_> =
            lines.iter().map(|line| (line.number, line.setting.as_str(), &line.values[..], line.explained)).collect();
        assert_eq!(read, [(2, "a.b", &[1, 2][..], true), (3, "c.d", &[3], true), (7, "nofile hard", &[9], false)]);
    }

    #[test]
    fn a_line_that_sets_too_little_mends_nothing() {
        assert!(
            line_for("net.core.somaxconn", |values| values == [4_096]).is_some_and(|line| line.file == SERVER.name)
        );
        assert_eq!(line_for("net.core.somaxconn", |values| values[0] > 4_096), None);
        assert_eq!(line_for("net.core.nothing", |_| true), None);
    }
}
