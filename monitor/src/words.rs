//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

pub fn count(value: u64) -> String {
    thousands(i64::try_from(value).unwrap_or(i64::MAX))
}

/// With so many decimals, and thousands told apart.
pub fn decimals(value: f64, places: usize) -> String {
    let text = format!("{:.places$}", value.abs());
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), thousands);
    let sign = if value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// Three figures or so, whatever the size.
pub fn figures(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    decimals(value, places)
}

/// Bytes in the unit that suits them.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (value, 0);
    while value.abs() >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{} {}", figures(value), UNITS[unit]) }
}

/// A part of 1 in percent.
pub fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// Fen as yuan.
pub fn yuan(fen: i64) -> String {
    let sign = if fen < 0 { "-" } else { "" };
    format!("{sign}¥{}.{:02}", count(fen.unsigned_abs() / 100), fen.unsigned_abs() % 100)
}

/// What `show` makes of a value, or a dash.
pub fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), show)
}

/// `server_rss_bytes` as `server rss bytes`.
pub fn plain(name: &str) -> String {
    name.replace('_', " ")
}

/// `60000/s` as `60,000/s`; any other name as it is.
pub fn phase(name: &str) -> String {
    match name.strip_suffix("/s").and_then(|qps| qps.parse().ok()) {
        Some(qps) => format!("{}/s", count(qps)),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!((thousands(0), thousands(-1_234_567)), ("0".into(), "-1,234,567".into()));
        assert_eq!((count(999), count(1_000)), ("999".into(), "1,000".into()));
        assert_eq!((decimals(1_234.56, 1), decimals(-0.001, 2)), ("1,234.6".into(), "0.00".into()));
        assert_eq!((figures(129.855), figures(18.783), figures(2.429)), ("130".into(), "18.8".into(), "2.43".into()));
        assert_eq!((bytes(907.0), bytes(886_255_616.0)), ("907 B".into(), "845 MiB".into()));
        assert_eq!((yuan(2_179_547), yuan(-5)), ("¥21,795.47".into(), "-¥0.05".into()));
        assert_eq!((phase("60000/s"), phase("storm")), ("60,000/s".into(), "storm".into()));
    }
}
