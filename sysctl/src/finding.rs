//! What is said of one setting.

use std::fmt;

use serde::Serialize;

use crate::files;

/// What it means that a setting does not suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Connections beyond it are refused.
    Bounds,
    /// They are served, at a price.
    Hampers,
    /// Nothing today; good to know.
    Informs,
}

/// What a setting says, or should say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// Bytes.
    Bytes(u64),
    Words(String),
    /// Whatever it is, it will do.
    Any,
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<String> for Value {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => f.pad(&thousands(*count)),
            Self::Bytes(bytes) => {
                let tenths = u128::from(*bytes) * 10 / (1 << 30);
                f.pad(&format!("{}.{} GiB", tenths / 10, tenths % 10))
            }
            Self::Words(words) => f.pad(words),
            Self::Any => f.pad("any"),
        }
    }
}

/// `1,234,567`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A kernel setting with values that suffice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    /// Its name with dots.
    pub key: &'static str,
    /// What `--fix` makes of it.
    pub to: To,
}

/// How a setting is mended. None of these takes anything from whoever counts on what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Each value at least this.
    AtLeast(Vec<u64>),
    /// From the first to the second, or wider.
    Range(u16, u16),
    /// A switch, which has no more and less.
    Switch(u64),
    /// A list of ports, as the kernel writes it.
    With(String),
}

/// As the kernel writes it.
impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(values) => f.write_str(&values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")),
            Self::Range(low, high) => write!(f, "{low} {high}"),
            Self::Switch(value) => write!(f, "{value}"),
            Self::With(ports) => f.write_str(ports),
        }
    }
}

impl To {
    pub fn is_reached_by(&self, values: &[u64]) -> bool {
        match (self, values) {
            (Self::AtLeast(wanted), _) => {
                wanted.len() == values.len() && wanted.iter().zip(values).all(|(wanted, value)| value >= wanted)
            }
            (Self::Range(low, high), [first, last]) => *first <= u64::from(*low) && *last >= u64::from(*high),
            (Self::Switch(wanted), [value]) => wanted == value,
            _ => false,
        }
    }
}

/// One setting, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, as `sysctl` or the shell has it.
    pub setting: &'static str,
    pub now: Value,
    /// What it should at least be.
    pub needed: Value,
    pub enough: bool,
    /// What it means if it does not.
    pub weight: Weight,
    pub why: String,
    /// What mends it, where it does not suffice.
    pub command: Option<String>,
    /// FILE:LINE of `sysctl/` that sets it to what suffices, at every boot.
    pub file: Option<String>,
    /// The most connections that it carries; `None`: however many.
    pub carries: Option<u64>,
    /// What `--fix` does about it.
    #[serde(skip)]
    pub raise: Option<Raise>,
}

impl Finding {
    /// One that suffices, and asks for nothing.
    pub(crate) fn fine(setting: &'static str, weight: Weight, now: impl Into<Value>, why: impl Into<String>) -> Self {
        Self {
            setting,
            now: now.into(),
            needed: Value::Any,
            enough: true,
            weight,
            why: why.into(),
            command: None,
            file: None,
            carries: None,
            raise: None,
        }
    }

    /// A kernel setting that `--fix` raises where it is below `needed`.
    pub(crate) fn sysctl(key: &'static str, weight: Weight, now: u64, needed: u64, why: impl Into<String>) -> Self {
        Self::fine(key, weight, now, why).needing(needed, now >= needed).raised(To::AtLeast(vec![needed]))
    }

    pub(crate) fn needing(self, needed: impl Into<Value>, enough: bool) -> Self {
        Self { needed: needed.into(), enough, ..self }
    }

    /// Says what mends it, if it does not suffice.
    pub(crate) fn mended_by(self, command: impl Into<String>) -> Self {
        Self { command: (!self.enough).then(|| command.into()), ..self }
    }

    /// Has `--fix` raise it, if it does not suffice.
    pub(crate) fn raised(self, to: To) -> Self {
        if self.enough {
            return self;
        }
        let text = to.to_string();
        // One argument to the shell.
        let text = if text.contains(' ') { format!("'{text}'") } else { text };
        let command = Some(format!("sysctl -w {}={text}", self.setting));
        let raise = Some(Raise { key: self.setting, to: to.clone() });
        Self { command, raise, ..self }.lasting(|values| to.is_reached_by(values))
    }

    /// Names the line of our files that sets it to what suffices.
    pub(crate) fn lasting(self, suffice: impl Fn(&[u64]) -> bool) -> Self {
        let line = files::line_for(self.setting, suffice).filter(|_| !self.enough);
        Self { file: line.map(|line| format!("{}:{}", line.file, line.number)), ..self }
    }

    pub(crate) fn carrying(self, connections: u64) -> Self {
        Self { carries: Some(connections), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let text: Vec<_> = [0, 999, 1_000, 12_345, 1_234_567].map(thousands).into();
        assert_eq!(text, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn what_does_not_suffice_names_the_line_that_makes_it_last() {
        let low = Finding::sysctl("net.core.somaxconn", Weight::Hampers, 128, 4_096, "");
        assert!(low.file.unwrap().starts_with("90-hongbao-server.conf:"));
        let enough = Finding::sysctl("net.core.somaxconn", Weight::Hampers, 4_096, 4_096, "");
        assert_eq!((enough.file, enough.command, enough.raise), (None, None, None));
    }
}
