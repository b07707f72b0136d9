//! Numbers as people read them: exact in tables, brief on a terminal.

/// `1234567` as `1,234,567`.
pub fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{}{}", if value < 0 { "-" } else { "" }, groups.join(","))
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

/// Fen as yuan: ¥1,234.05.
pub fn yuan(fen: i64) -> String {
    let sign = if fen < 0 { "-" } else { "" };
    format!("{sign}¥{}.{:02}", count(fen.unsigned_abs() / 100), fen.unsigned_abs() % 100)
}

/// The same where a column's head names the unit.
pub fn plain_yuan(fen: i64) -> String {
    yuan(fen).replace('¥', "")
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

/// A count in at most nine letters: 3.4, 12,345, 1.23M.
pub fn brief(value: f64) -> String {
    match value.abs() {
        m if m < 0.05 => "0".to_owned(),
        m if m < 10.0 && m.fract() > 0.05 => format!("{value:.1}"),
        m if m < 999_999.5 => decimals(value, 0),
        m if m < 999_500_000.0 => format!("{:.2}M", value / 1e6),
        m if m < 999_500_000_000.0 => format!("{:.2}G", value / 1e9),
        _ => format!("{value:.1e}"),
    }
}

/// A time in microseconds: 850 µs, 1.23 ms, 45.6 ms, 1.20 s.
pub fn time(us: f64) -> String {
    match us.abs() {
        m if m < 999.5 => format!("{us:.0} µs"),
        m if m < 9_995.0 => format!("{:.2} ms", us / 1e3),
        m if m < 99_950.0 => format!("{:.1} ms", us / 1e3),
        m if m < 999_500.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// Bytes in decimal units: 512 B, 1.5 kB, 997 MB.
pub fn brief_bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (value, 0);
    while value.abs() >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let places = usize::from(unit + 1 == UNITS.len() || (unit > 0 && value.abs() < 9.95));
    format!("{value:.places$} {}", UNITS[unit])
}

/// How long something has lasted: 00:12:34.
pub fn elapsed(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// The time of the day, UTC.
pub fn clock(unix_seconds: u64) -> String {
    elapsed(unix_seconds % 86_400)
}

/// Bars of eight heights, the latest value last, over the whole width.
pub fn sparkline(values: &[Option<f64>], max: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(_) if max <= 0.0 => BARS[0],
        Some(value) => {
            let height = (value / max * 8.0).ceil().clamp(1.0, 8.0);
            // From 1 to 8 by the line above.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            BARS[height as usize - 1]
        }
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn a_terminal_has_figures_in_few_letters() {
        let counts = [0.0, 3.4, 999.0, 12_345.0, 999_999.0, 1_234_567.0, 5e9].map(brief);
        assert_eq!(counts, ["0", "3.4", "999", "12,345", "999,999", "1.23M", "5.00G"]);
        assert_eq!(
            [850.0, 1_234.0, 45_600.0, 450_000.0, 1_200_000.0].map(time),
            ["850 µs", "1.23 ms", "45.6 ms", "450 ms", "1.20 s"]
        );
        assert_eq!([512.0, 1_500.0, 997e6, 24e9].map(brief_bytes), ["512 B", "1.5 kB", "997 MB", "24 GB"]);
        assert_eq!([0, 5, -205, 123_405].map(plain_yuan), ["0.00", "0.05", "-2.05", "1,234.05"]);
        assert_eq!(elapsed(754), "00:12:34");
        assert_eq!(sparkline(&[Some(0.0), Some(4.0), None, Some(8.0)], 8.0), "▁▄ █");
    }

    proptest! {
        #[test]
        fn no_figure_is_wider_than_its_column(value in -1e15f64..1e15) {
            prop_assert!(brief(value).len() <= 9, "{}", brief(value));
            prop_assert!(brief_bytes(value.abs()).chars().count() <= 9);
        }
    }
}
