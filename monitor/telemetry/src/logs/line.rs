//! What a line looks like. Names in JSON are stable: `ts`, `level`, `event`, `msg`, then the fields
//! of the event. What comes from peers is bounded and cannot end a line or speak to a terminal.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Format;

/// Bytes of one field; what is beyond is cut.
pub const FIELD_BYTES_MAX: usize = 2 * 1024;

/// The field that names an event's kind.
pub const KIND_FIELD: &str = "event";

/// The kind of what libraries say.
const FOREIGN: &str = "foreign";

#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub format: Format,
    /// Whether a terminal shows them.
    pub colours: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// Written as it is: numbers that JSON knows, true and false.
    Bare(String),
    Text(String),
}

/// What an event says.
#[derive(Debug)]
pub struct Fields {
    kind: Option<String>,
    target: &'static str,
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Everything that `event` says.
    pub fn of(event: &Event<'_>) -> Self {
        let mut fields =
            Self { kind: None, target: event.metadata().target(), message: String::new(), others: Vec::new() };
        event.record(&mut fields);
        fields
    }

    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or(self.target)
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            (KIND_FIELD, Value::Bare(text) | Value::Text(text)) => self.kind = Some(text),
            ("message", Value::Bare(text) | Value::Text(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Bounded::default();
        // A Bounded takes everything, and keeps what fits.
        text.write_str(value).ok();
        self.add(field, Value::Text(text.0));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded::default();
        write!(text, "{value:?}").ok();
        self.add(field, Value::Text(text.0));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bare(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.add(field, if value.is_finite() { Value::Bare(text) } else { Value::Text(text) });
    }
}

/// Text that stops growing at [`FIELD_BYTES_MAX`], and shows it.
#[derive(Debug, Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() > FIELD_BYTES_MAX {
            return Ok(());
        }
        let room = FIELD_BYTES_MAX - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
        } else {
            let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            self.0.push_str(&text[..end]);
            while self.0.len() <= FIELD_BYTES_MAX {
                self.0.push('…');
            }
        }
        Ok(())
    }
}

/// The line of an event, with its end.
pub fn render(style: Style, at: SystemTime, level: Level, fields: &Fields) -> String {
    let foreign = [("target", Value::Text(fields.target.to_owned()))];
    let (kind, target) = match &fields.kind {
        Some(kind) => (kind.as_str(), [].as_slice()),
        None => (FOREIGN, foreign.as_slice()),
    };
    compose(style, at, level, kind, &fields.message, target.iter().chain(&fields.others))
}

/// The line that says what was not said.
pub fn withheld(style: Style, at: SystemTime, level: Level, of: &str, count: u64) -> String {
    let fields = [("of", Value::Text(of.to_owned())), ("count", Value::Bare(count.to_string()))];
    compose(style, at, level, "withheld", "more of these were not logged, lest they fill the log", fields.iter())
}

/// The line that says how many were dropped before it.
pub fn lost(style: Style, at: SystemTime, count: u64) -> String {
    let fields = [("count", Value::Bare(count.to_string()))];
    compose(
        style,
        at,
        Level::WARN,
        "log_lines_lost",
        "nobody read the log fast enough: lines were dropped",
        fields.iter(),
    )
}

fn compose<'a>(
    style: Style,
    at: SystemTime,
    level: Level,
    kind: &str,
    message: &str,
    fields: impl Iterator<Item = &'a (&'static str, Value)>,
) -> String {
    let ts = humantime::format_rfc3339_micros(at);
    let mut line = String::with_capacity(256);
    // Writing to a String cannot fail.
    match style.format {
        Format::Json => {
            let level = level.as_str().to_ascii_lowercase();
            write!(line, "{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"event\":").ok();
            quote(&mut line, kind);
            line.push_str(",\"msg\":");
            quote(&mut line, message);
            for (name, value) in fields {
                line.push(',');
                quote(&mut line, name);
                line.push(':');
                match value {
                    Value::Bare(text) => line.push_str(text),
                    Value::Text(text) => quote(&mut line, text),
                }
            }
            line.push('}');
        }
        Format::Pretty => {
            let (dim, colour, plain) = match (style.colours, level) {
                (false, _) => ("", "", ""),
                (true, Level::ERROR) => ("\u{1b}[2m", "\u{1b}[31m", "\u{1b}[0m"),
                (true, Level::WARN) => ("\u{1b}[2m", "\u{1b}[33m", "\u{1b}[0m"),
                (true, Level::INFO) => ("\u{1b}[2m", "\u{1b}[32m", "\u{1b}[0m"),
                (true, _) => ("\u{1b}[2m", "\u{1b}[34m", "\u{1b}[0m"),
            };
            write!(line, "{dim}{ts}{plain} {colour}{level:>5}{plain} {kind}: ").ok();
            escape(&mut line, message);
            for (name, value) in fields {
                write!(line, " {dim}{name}={plain}").ok();
                match value {
                    Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                        line.push('"');
                        escape(&mut line, text);
                        line.push('"');
                    }
                    Value::Bare(text) | Value::Text(text) => escape(&mut line, text),
                }
            }
        }
    }
    line.push('\n');
    line
}

/// As a string of JSON.
fn quote(line: &mut String, text: &str) {
    write!(line, "{}", serde_json::Value::from(text)).ok();
}

/// Without anything that a terminal, or whoever reads line by line, would act on.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}
