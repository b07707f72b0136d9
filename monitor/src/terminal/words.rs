//! Figures as people read them at a glance: short, and never wider than they must be.

/// A count: 987, 12,345, 1.23M.
pub fn count(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        m if m < 0.05 => "0".to_owned(),
        m if m < 10.0 && m.fract() > 0.05 => format!("{value:.1}"),
        m if m < 999_999.5 => grouped(value),
        m if m < 999_500_000.0 => format!("{:.2}M", value / 1e6),
        m if m < 999_500_000_000.0 => format!("{:.2}G", value / 1e9),
        _ => format!("{value:.1e}"),
    }
}

/// A whole number with its thousands apart.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
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

/// Bytes: 512 B, 1.5 kB, 997 MB.
pub fn bytes(value: f64) -> String {
    let mut scaled = value;
    for unit in ["B", "kB", "MB", "GB"] {
        if scaled.abs() < 999.5 {
            return if scaled.abs() < 9.95 && unit != "B" {
                format!("{scaled:.1} {unit}")
            } else {
                format!("{scaled:.0} {unit}")
            };
        }
        scaled /= 1_000.0;
    }
    format!("{scaled:.1} TB")
}

/// Fen as yuan: 1,234.05.
pub fn yuan(fen: f64) -> String {
    let fen = fen.round();
    let (whole, rest) = ((fen.abs() / 100.0).trunc(), fen.abs() % 100.0);
    let sign = if fen < 0.0 { "-" } else { "" };
    format!("{sign}{}.{rest:02.0}", grouped(whole))
}

/// A share of one core or of all: 173%.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
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
    fn figures_are_said_in_few_characters() {
        let counts = [0.0, 3.4, 999.0, 12_345.0, 999_999.0, 1_234_567.0, 5e9].map(count);
        assert_eq!(counts, ["0", "3.4", "999", "12,345", "999,999", "1.23M", "5.00G"]);
        assert_eq!(
            [850.0, 1_234.0, 45_600.0, 450_000.0, 1_200_000.0].map(time),
            ["850 µs", "1.23 ms", "45.6 ms", "450 ms", "1.20 s"]
        );
        assert_eq!([512.0, 1_500.0, 997e6, 24e9].map(bytes), ["512 B", "1.5 kB", "997 MB", "24 GB"]);
        assert_eq!([0.0, 5.0, -205.0, 123_405.0].map(yuan), ["0.00", "0.05", "-2.05", "1,234.05"]);
        assert_eq!(elapsed(754), "00:12:34");
        assert_eq!(sparkline(&[Some(0.0), Some(4.0), None, Some(8.0)], 8.0), "▁▄ █");
    }

    proptest! {
        #[test]
        fn no_figure_is_wider_than_its_column(value in -1e15f64..1e15) {
            prop_assert!(count(value).len() <= 9, "{}", count(value));
            prop_assert!(bytes(value.abs()).chars().count() <= 9);
        }
    }
}
