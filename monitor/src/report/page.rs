//! The report as one page that needs nothing else: no file, no network, no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::style::RGBColor;

use crate::report::charts::{Chart, Tone};
use crate::report::draw::{BACKGROUND, GRID, HEAT, INK, MARK, MUTED};
use crate::report::figures::Figures;
use crate::report::tables::{Table, verdict};

const STYLE: &str = "
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2a33; --muted: #5b6873; --line: #e4e8ec; --stripe: #f6f8f9;
  --good: #2c7a4b; --bad: #b3302a; }
@media (prefers-color-scheme: dark) { :root { --page: #14191e; --ink: #e6ebef; --muted: #9aa7b2; --line: #2b343c; --stripe: #1a2127;
  --good: #63c08a; --bad: #ef7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 1.25rem 1rem 3rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, 'DejaVu Sans', sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .75rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .6rem; }
.verdict { border-left: .35rem solid var(--muted); padding: .6rem .9rem; background: var(--stripe); font-weight: 600; }
.passed { border-color: var(--good); } .failed { border-color: var(--bad); }
ul { padding-left: 1.3rem; } .note { color: var(--muted); font-size: .88rem; max-width: 75ch; margin: .5rem 0 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
th.text, td.text { text-align: left; } td.text:last-child { white-space: normal; min-width: 20rem; }
thead th { color: var(--muted); font-weight: 600; border-bottom: 2px solid var(--line); }
figure { margin: 1.25rem 0; } figure svg { display: block; width: 100%; min-width: 720px; height: auto; }
";

/// The whole report.
pub fn render(figures: &Figures, tables: &[Table], charts: &[(Chart, String)]) -> String {
    let title = format!("Hongbao: run of {}", figures.run.started_at);
    let judged = match figures.verdict.passed {
        Some(true) => "verdict passed",
        Some(false) => "verdict failed",
        None => "verdict",
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(dark_charts())) }
            }
            body {
                h1 { (title) }
                p class=(judged) { (verdict(figures)) }
                @if !figures.verdict.failures.is_empty() {
                    ul { @for failure in &figures.verdict.failures { li { (failure) } } }
                }
                // What a reader looks for first, what it looked like, and then everything else.
                @for one in tables.iter().filter(|one| one.leads) { (table(one)) }
                h2 { "Charts" }
                @for (chart, svg) in charts {
                    figure { div.wide role="img" aria-label=(chart.title) { (PreEscaped(inline(svg))) } }
                }
                @for one in tables.iter().filter(|one| !one.leads) { (table(one)) }
            }
        }
    };
    page.into_string()
}

fn table(table: &Table) -> Markup {
    let text = |column: usize| (table.text_from > 0 && column >= table.text_from).then_some("text");
    html! {
        h2 { (table.title) }
        div.wide {
            table {
                thead { tr { @for (column, cell) in table.head.iter().enumerate() { th class=[text(column)] { (cell) } } } }
                tbody {
                    @for row in &table.rows {
                        tr { @for (column, cell) in row.iter().enumerate() { td class=[text(column)] { (cell) } } }
                    }
                }
            }
        }
        @if !table.note.is_empty() { p.note { (table.note) } }
    }
}

/// A drawing of ours in the page: its size is the page's affair. Whatever text is in it has been
/// escaped when it was drawn.
fn inline(svg: &str) -> String {
    let Some(start) = svg.find("<svg ") else { return String::new() };
    let svg = &svg[start..];
    match (svg.find("viewBox"), svg.find('>')) {
        (Some(view), Some(end)) if view < end => format!("<svg {}", &svg[view..]),
        _ => svg.to_owned(),
    }
}

/// In dark surroundings each colour of a chart has another in its place.
fn dark_charts() -> String {
    let colours = [
        (BACKGROUND, "var(--page)"),
        (INK, "var(--ink)"),
        (MUTED, "var(--muted)"),
        (GRID, "var(--line)"),
        (MARK, "#5a6873"),
        (Tone::Plan.colour(), "#75828d"),
        (Tone::Server.colour(), "#5fa3e6"),
        (Tone::Fleet.colour(), "#eba04f"),
        (Tone::Kernel.colour(), "#4fb8ac"),
        (Tone::Red.colour(), "#e8675a"),
        (Tone::Gold.colour(), "#dcb540"),
        (Tone::Violet.colour(), "#a48bd0"),
        (Tone::Idle.colour(), "#28313a"),
    ];
    let heat = HEAT.into_iter().zip(["#2f2a1c", "#574417", "#8a6414", "#c48a1d", "#e9b64c", "#ffe9b0"]);
    let rule = |(RGBColor(red, green, blue), dark): (RGBColor, &str)| {
        let light = format!("#{red:02X}{green:02X}{blue:02X}");
        format!("svg [fill=\"{light}\"] {{ fill: {dark}; }} svg [stroke=\"{light}\"] {{ stroke: {dark}; }}\n")
    };
    let rules: String = colours.into_iter().chain(heat).map(rule).collect();
    format!("@media (prefers-color-scheme: dark) {{\n{rules}}}\n")
}
