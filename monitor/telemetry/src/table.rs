//! Tables of text, aligned, in Markdown: the same for a terminal and for a file.

/// `rows` below `head`: the first column to the left, the others to the right. Ends without a
/// newline.
pub fn aligned(head: &[impl AsRef<str>], rows: &[Vec<String>]) -> String {
    const RULE_LEAST: usize = 3;
    let wide = |text: &str| text.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| wide(cell));
        cells.max().unwrap_or(0).max(wide(head[column].as_ref())).max(RULE_LEAST)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = widths.iter().enumerate().map(|(column, &width)| {
            let cell = cells.next().unwrap_or_default();
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(column, &width)| match column {
        0 => "-".repeat(width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    let rule = format!("| {} |", rule.collect::<Vec<_>>().join(" | "));
    let head = line(&mut head.iter().map(AsRef::as_ref));
    let rows = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    [head, rule].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_letters_are_in_them() {
        let rows = [vec!["a".into(), "1".into()], vec!["µµµµ".into(), "1,000".into()]];
        assert_eq!(
            aligned(&["name", "n"], &rows),
            "| name |     n |\n| ---- | ----: |\n| a    |     1 |\n| µµµµ | 1,000 |"
        );
    }
}
