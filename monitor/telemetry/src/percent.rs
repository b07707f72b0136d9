//! Percentages in writing, kept as whole numbers: `12.5` is 12500 with three decimals.

use std::fmt;

/// Reads a number without its sign `%`; more than `decimals` digits behind the point are refused.
pub fn parse(text: &str, decimals: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > decimals || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part: u64 = format!("0{part:0<decimals$}").parse().ok()?;
    whole.checked_mul(10u64.pow(u32::try_from(decimals).ok()?))?.checked_add(part)
}

/// Writes what [`parse`] read, with the sign and without trailing zeros.
pub fn write(f: &mut fmt::Formatter<'_>, value: u64, decimals: usize) -> fmt::Result {
    let unit = 10u64.pow(u32::try_from(decimals).unwrap_or(0));
    let part = format!("{:0decimals$}", value % unit);
    let part = part.trim_end_matches('0');
    write!(f, "{}{}{part}%", value / unit, if part.is_empty() { "" } else { "." })
}
