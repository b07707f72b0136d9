//! A chart as SVG: axes and legends are laid out here, so that nothing covers data and nothing
//! overlaps, whatever the run was. A file needs no font: texts are texts.

use std::fmt::Write;
use std::ops::Range;

use crate::report::charts::{Chart, Lane, Panel, Series, Style, Tone};
use crate::run::series::{HEAT_BOUNDS_US, HeatCounts, heat_sum};
use crate::words;

/// Of a drawing, in pixels.
const WIDTH: f64 = 1_200.0;
/// Likewise, of one or two panels.
const HEIGHT: f64 = 500.0;
/// What a third panel and each further one adds.
const PANEL_HEIGHT: f64 = 140.0;
/// Of a row of what happened.
const LANE_HEIGHT: f64 = 34.0;

const LEFT: f64 = 118.0;
const RIGHT: f64 = WIDTH - 28.0;
const TOP: f64 = 110.0;
/// There is neither a legend nor a label above what happened.
const LANES_TOP: f64 = 56.0;
const BOTTOM: f64 = 62.0;
const BETWEEN_PANELS: f64 = 26.0;

const TITLE: f64 = 24.0;
const LEGEND: f64 = 17.0;
const TICK: f64 = 16.0;

const BACKGROUND: Tone = Tone("#FFFFFF", "#151A20");
const INK: Tone = Tone("#1F2A33", "#E8ECF1");
/// Lesser text and axes.
const MUTED: Tone = Tone("#5B6873", "#9AA7B2");
/// Lines behind the data.
const GRID: Tone = Tone("#E4E8EC", "#2B343C");
const MARK: Tone = Tone("#A9B4BE", "#5A6873");

/// Cells of a heat map, from few to many.
const HEAT: [Tone; 6] = [
    Tone("#FDEED3", "#2F2A1C"),
    Tone("#FBD38F", "#574417"),
    Tone("#F4A34E", "#8A6414"),
    Tone("#DF6C2C", "#C48A1D"),
    Tone("#B23A22", "#E9B64C"),
    Tone("#74171B", "#FFE9B0"),
];

type Point = (f64, f64);

/// What has been drawn, one element a line.
struct Svg(String);

impl Svg {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        self.0.write_fmt(element).unwrap_or_else(|error| unreachable!("text in memory is always written: {error}"));
        self.0.push('\n');
    }

    fn points(points: impl IntoIterator<Item = Point>) -> String {
        points.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
    }

    fn line(&mut self, points: impl IntoIterator<Item = Point>, Tone(colour, _): Tone, width: f64) {
        let points = Self::points(points);
        self.put(format_args!(r#"<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{points}"/>"#));
    }

    fn fill(&mut self, points: impl IntoIterator<Item = Point>, Tone(colour, _): Tone) {
        let points = Self::points(points);
        self.put(format_args!(r#"<polygon fill="{colour}" points="{points}"/>"#));
    }

    fn block(&mut self, (left, top): Point, (right, bottom): Point, Tone(colour, _): Tone) {
        let (x, y, width, height) = (left.min(right), top.min(bottom), (right - left).abs(), (bottom - top).abs());
        self.put(format_args!(
            r#"<rect fill="{colour}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    /// `anchor` is what of the text is at the point: its `start`, `middle` or `end`. The middle of its
    /// height always is.
    fn text(&mut self, text: &str, (x, y): Point, size: f64, colour: Tone, anchor: &str) {
        self.styled(text, (x, y), size, colour, anchor, "");
    }

    fn styled(&mut self, text: &str, (x, y): Point, size: f64, Tone(colour, _): Tone, anchor: &str, more: &str) {
        // Half of the height of a capital lies above the middle.
        let (y, text) = (y + 0.36 * size, escaped(text));
        self.put(format_args!(
            r#"<text fill="{colour}" x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}"{more}>{text}</text>"#
        ));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// About: no font is at hand to measure it with.
fn width(text: &str, size: f64) -> f64 {
    let letter = |letter: char| match letter {
        letter if letter > '\u{2e80}' => 1.0,
        'i' | 'j' | 'l' | '.' | ',' | ':' | ' ' | '/' | '|' => 0.32,
        'm' | 'w' | 'M' | 'W' | '%' => 0.9,
        _ => 0.58,
    };
    text.chars().map(letter).sum::<f64>() * size
}

fn height(chart: &Chart) -> f64 {
    match chart.panels.iter().map(|panel| panel.lanes.len()).sum::<usize>() {
        0 => HEIGHT + PANEL_HEIGHT * chart.panels.len().saturating_sub(2) as f64,
        lanes => LANES_TOP + BOTTOM + 12.0 + LANE_HEIGHT * lanes as f64,
    }
}

pub fn svg(chart: &Chart) -> String {
    let height = height(chart);
    let mut svg = Svg(String::new());
    svg.put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\">"
    ));
    svg.put(format_args!("{}", dark()));
    svg.block((0.0, 0.0), (WIDTH, height), BACKGROUND);
    svg.styled(chart.title, (LEFT, 28.0), TITLE, INK, "start", " font-weight=\"600\"");
    legend(&mut svg, chart);
    let bottom = height - BOTTOM;
    let weights: f64 = chart.panels.iter().map(|panel| panel.weight).sum();
    let mut top = if chart.panels.iter().any(|panel| panel.style == Style::Lanes) { LANES_TOP } else { TOP };
    let rows = bottom - top - BETWEEN_PANELS * (chart.panels.len() - 1) as f64;
    let across = Scale::linear(0.0..chart.seconds.max(1) as f64, LEFT..RIGHT);
    for panel in &chart.panels {
        let own = rows * panel.weight / weights;
        paint_panel(&mut svg, panel, &across, top..top + own);
        top += own + BETWEEN_PANELS;
    }
    marks(&mut svg, chart, &across, bottom);
    time_axis(&mut svg, &across, bottom);
    svg.0.push_str("</svg>\n");
    svg.0
}

/// In dark surroundings each colour has another in its place.
fn dark() -> String {
    let lines = [Tone::PLAN, Tone::SERVER, Tone::FLEET, Tone::KERNEL, Tone::RED, Tone::GOLD, Tone::VIOLET, Tone::IDLE];
    let colours = [BACKGROUND, INK, MUTED, GRID, MARK].into_iter().chain(HEAT).chain(lines);
    let rules = colours
        .map(|Tone(light, dark)| format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}"));
    format!("<style>@media (prefers-color-scheme:dark){{{}}}</style>", rules.collect::<String>())
}

/// From values to pixels.
struct Scale {
    values: Range<f64>,
    pixels: Range<f64>,
    logarithmic: bool,
}

impl Scale {
    fn linear(values: Range<f64>, pixels: Range<f64>) -> Self {
        Self { values, pixels, logarithmic: false }
    }

    fn at(&self, value: f64) -> f64 {
        let on = |value: f64| if self.logarithmic { value.max(self.values.start).log10() } else { value };
        let (from, to) = (on(self.values.start), on(self.values.end));
        self.pixels.start + (on(value) - from) / (to - from) * (self.pixels.end - self.pixels.start)
    }
}

/// Steps of 1, 2 or 5 times a power of ten, about so many up to `most`.
fn nice_step(most: f64, about: f64) -> f64 {
    let rough = (most / about).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough).unwrap_or(10.0 * power)
}

/// Steps that people count seconds in.
fn time_step(seconds: f64) -> f64 {
    const STEPS: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
    STEPS.into_iter().find(|step| seconds / step <= 14.0).unwrap_or_else(|| nice_step(seconds, 12.0))
}

fn ticks(from: f64, to: f64, step: f64) -> impl Iterator<Item = f64> {
    (0u32..1_000).map(move |index| from + f64::from(index) * step).take_while(move |tick| *tick <= to + step * 1e-9)
}

/// The vertical axis of a panel: values and ticks.
fn vertical(panel: &Panel, rows: &Range<f64>) -> (Scale, Vec<f64>) {
    let all = || panel.series.iter().flat_map(|series| series.values.iter().flatten().copied());
    let pixels = rows.end..rows.start;
    if panel.style == Style::Logarithmic {
        let least = all().fold(f64::INFINITY, f64::min).clamp(1e-3, 1e9);
        let most = all().fold(0.0, f64::max).max(least);
        let from = 10f64.powf(least.log10().floor());
        let to = 10f64.powf(most.log10().ceil()).max(from * 10.0);
        let decades =
            std::iter::successors(Some(from), |tick| Some(tick * 10.0)).take_while(|tick| *tick <= to * 1.001);
        let decades = decades.collect();
        return (Scale { values: from..to, pixels, logarithmic: true }, decades);
    }
    let stack = panel.style == Style::Stacked;
    let most = if stack {
        stacked(panel).into_iter().flatten().filter_map(|layers| layers.last().copied()).fold(0.0, f64::max)
    } else {
        all().fold(0.0, f64::max)
    };
    // A stack that is a whole, as all processors are, ends where the whole does; ticks of the
    // kernel's clock exceed it by little.
    let whole = stack && panel.at_least > 0.5 && most <= panel.at_least * 1.1;
    let top = if whole { panel.at_least } else { (most * 1.08).max(panel.at_least) };
    // A residual may be on either side of nought.
    let least = if stack { 0.0 } else { all().fold(0.0, f64::min) * 1.08 };
    let mut about = (rows.end - rows.start) / 50.0;
    // A single number beside an axis says nothing of its scale.
    let ticks = loop {
        let step = nice_step(top - least, about);
        let ticks: Vec<f64> = ticks((least / step).ceil() * step, top, step).collect();
        if ticks.len() > 2 || about > 12.0 {
            break ticks;
        }
        about *= 1.5;
    };
    (Scale::linear(least..top, pixels), ticks)
}

fn tick_text(value: f64) -> String {
    match value {
        value if value >= 10.0 || value.fract().abs() < 1e-9 => words::decimals(value, 0),
        value if value >= 1.0 || (value * 10.0).fract().abs() < 1e-9 => words::decimals(value, 1),
        value => words::decimals(value, 2),
    }
}

fn paint_panel(svg: &mut Svg, panel: &Panel, across: &Scale, rows: Range<f64>) {
    match panel.style {
        Style::Heat => return paint_heat(svg, panel, across, rows),
        Style::Lanes => return paint_lanes(svg, &panel.lanes, across, &rows),
        Style::Lines | Style::Logarithmic | Style::Stacked => {}
    }
    let (scale, ticks) = vertical(panel, &rows);
    // A stack hides the grid: a whole needs none.
    for &tick in &ticks {
        svg.line([(LEFT, scale.at(tick)), (RIGHT, scale.at(tick))], GRID, 1.0);
    }
    if panel.style == Style::Stacked {
        areas(svg, panel, across, &scale);
    } else {
        panel.series.iter().for_each(|series| lines(svg, series, across, &scale));
    }
    vertical_axis(svg, panel, &scale, &ticks);
}

fn lines(svg: &mut Svg, series: &Series, across: &Scale, scale: &Scale) {
    let plan = series.tone == Tone::PLAN;
    for run in runs(&series.values) {
        let values = run.clone().filter_map(|index| Some((index, series.values[index]?)));
        let points: Vec<Point> = if plan || run.len() == 1 {
            // What holds for a second holds for all of it.
            values
                .flat_map(|(index, value)| {
                    [index as f64, index as f64 + 1.0].map(|at| (across.at(at), scale.at(value)))
                })
                .collect()
        } else {
            values.map(|(index, value)| (across.at(middle(index)), scale.at(value))).collect()
        };
        svg.line(points, series.tone, if plan { 6.0 } else { 2.0 });
    }
}

fn vertical_axis(svg: &mut Svg, panel: &Panel, scale: &Scale, ticks: &[f64]) {
    let rows = scale.pixels.end..scale.pixels.start;
    svg.line([(LEFT, rows.start), (LEFT, rows.end), (RIGHT, rows.end)], MUTED, 1.0);
    for &tick in ticks {
        svg.text(&tick_text(tick), (LEFT - 9.0, scale.at(tick)), TICK, MUTED, "end");
    }
    let (x, y) = (16.0, f64::midpoint(rows.start, rows.end));
    svg.styled(panel.axis, (x, y), TICK, INK, "middle", &format!(" transform=\"rotate(-90 {x} {y:.1})\""));
}

/// Columns of a heat map at most: more are narrower than a screen shows, and each cell costs bytes.
const HEAT_COLUMNS_MAX: usize = 300;

/// Seconds side by side, each cell coloured by the logarithm of its count.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts to one of six colours")]
fn paint_heat(svg: &mut Svg, panel: &Panel, across: &Scale, rows: Range<f64>) {
    let folded = panel.heat.len().div_ceil(HEAT_COLUMNS_MAX).max(1);
    let sums = panel.heat.chunks(folded).map(|seconds| heat_sum(seconds.iter().copied().flatten()).unwrap_or_default());
    let columns: Vec<HeatCounts> = sums.collect();
    let used = |row: &usize| columns.iter().any(|column| column[*row] > 0);
    let mut all = (0..=HEAT_BOUNDS_US.len()).filter(used);
    let first = all.next().unwrap_or(0);
    let last = all.next_back().unwrap_or(first);
    let ratio = 10f64.powf(0.25);
    let greatest = HEAT_BOUNDS_US[HEAT_BOUNDS_US.len() - 1] as f64;
    let upper = |row: usize| HEAT_BOUNDS_US.get(row).map_or(greatest * ratio, |&us| us as f64) / 1_000.0;
    let lower = |row: usize| row.checked_sub(1).map_or(HEAT_BOUNDS_US[0] as f64 / ratio / 1_000.0, upper);
    let scale = Scale { values: lower(first)..upper(last), pixels: rows.end..rows.start, logarithmic: true };
    let most = columns.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let level = |count: u64| {
        (count > 0).then(|| {
            let part = (count as f64).ln_1p() / most.ln_1p();
            ((part * HEAT.len() as f64).ceil() as usize).clamp(1, HEAT.len()) - 1
        })
    };
    for row in first..=last {
        let (top, bottom) = (scale.at(upper(row)), scale.at(lower(row)));
        let levels: Vec<Option<usize>> = columns.iter().map(|column| level(column[row])).collect();
        let mut from = 0;
        // Neighbours of one colour are one rectangle.
        for like in levels.chunk_by(PartialEq::eq) {
            let to = (from + like.len() * folded).min(panel.heat.len());
            if let Some(level) = like[0] {
                svg.block((across.at(from as f64), top), (across.at(to as f64), bottom), HEAT[level]);
            }
            from = to;
        }
    }
    let decades = (-1..=4).map(|power| 10f64.powi(power));
    let ticks: Vec<f64> = decades.filter(|tick| (lower(first)..=upper(last)).contains(tick)).collect();
    let ticks = if ticks.len() > 1 { ticks } else { vec![lower(first), upper(last)] };
    vertical_axis(svg, panel, &scale, &ticks);
}

/// A row for each kind, a diamond for each that happened, and what it was where there is room for
/// it.
fn paint_lanes(svg: &mut Svg, lanes: &[Lane], across: &Scale, rows: &Range<f64>) {
    const DIAMOND: f64 = 6.5;
    const TEXT: f64 = 14.0;
    for (number, lane) in lanes.iter().enumerate() {
        let y = rows.start + LANE_HEIGHT * (number as f64 + 0.5);
        svg.line([(LEFT, y), (RIGHT, y)], GRID, 1.0);
        svg.text(&words::plain(&lane.name), (LEFT - 9.0, y), TEXT, MUTED, "end");
        let at: Vec<f64> = lane.marks.iter().map(|(second, _)| across.at(*second).clamp(LEFT, RIGHT)).collect();
        for (index, (_, text)) in lane.marks.iter().enumerate() {
            let x = at[index];
            svg.fill([(x - DIAMOND, y), (x, y - DIAMOND), (x + DIAMOND, y), (x, y + DIAMOND)], lane.tone);
            let from = x + DIAMOND + 5.0;
            let room = at.get(index + 1).map_or(WIDTH - 6.0, |next| next - DIAMOND - 6.0) - from;
            if let Some(text) = fitting(text, TEXT, room) {
                svg.block((from - 2.0, y - 8.0), (from + width(&text, TEXT) + 3.0, y + 8.0), BACKGROUND);
                svg.text(&text, (from, y), TEXT, INK, "start");
            }
        }
    }
    svg.line([(LEFT, rows.start), (LEFT, rows.end), (RIGHT, rows.end)], MUTED, 1.0);
}

/// As much of a text as has room; none where that is next to nothing.
fn fitting(text: &str, size: f64, room: f64) -> Option<String> {
    const LETTERS_LEAST: usize = 4;
    let letters = text.chars().count();
    let cut = |keep| text.chars().take(keep).chain((keep < letters).then_some('…')).collect::<String>();
    let mut cuts = (LETTERS_LEAST.min(letters)..=letters).rev().map(cut);
    cuts.find(|cut| width(cut, size) <= room).filter(|cut| !cut.is_empty())
}

/// A second's values stand in its middle.
fn middle(index: usize) -> f64 {
    index as f64 + 0.5
}

/// Stretches without a gap.
fn runs<T>(values: &[Option<T>]) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    values.chunk_by(|one, next| one.is_some() == next.is_some()).filter_map(move |run| {
        let range = from..from + run.len();
        from = range.end;
        run[0].is_some().then_some(range)
    })
}

/// By second, the upper edge of each layer; a gap wherever one layer has one.
fn stacked(panel: &Panel) -> Vec<Option<Vec<f64>>> {
    let seconds = panel.series.iter().map(|series| series.values.len()).min().unwrap_or(0);
    let edges = |index: usize| {
        let mut sum = 0.0;
        let upper = panel.series.iter().map(|series| {
            sum += series.values[index]?;
            Some(sum)
        });
        upper.collect()
    };
    (0..seconds).map(edges).collect()
}

fn areas(svg: &mut Svg, panel: &Panel, across: &Scale, scale: &Scale) {
    let edges = stacked(panel);
    let top = scale.values.end;
    for run in runs(&edges) {
        for (layer, series) in panel.series.iter().enumerate() {
            let edge = |index: usize, layer: Option<usize>| {
                let value = layer.and_then(|layer| Some(edges.get(index)?.as_ref()?[layer])).unwrap_or(0.0);
                scale.at(value.min(top))
            };
            // Each second is a step: what it counted, over its whole length.
            let (from, to) = (|index: usize| across.at(index as f64), |index: usize| across.at(index as f64 + 1.0));
            let upper = run.clone().flat_map(|index| {
                let y = edge(index, Some(layer));
                [(from(index), y), (to(index), y)]
            });
            let lower = run.clone().rev().flat_map(|index| {
                let y = edge(index, layer.checked_sub(1));
                [(to(index), y), (from(index), y)]
            });
            svg.fill(upper.chain(lower).collect::<Vec<_>>(), series.tone);
        }
    }
}

/// One row below the title, in the order of the lines; of a stack, from the lowest layer up. A
/// single line needs none: the title and the axis say what it is.
fn legend(svg: &mut Svg, chart: &Chart) {
    const SWATCH: f64 = 16.0;
    let (mut x, y) = (LEFT, 60.0);
    if chart.panels.iter().any(|panel| panel.style == Style::Heat) {
        svg.text("few answers", (x, y), LEGEND, INK, "start");
        x += width("few answers", LEGEND) + 9.0;
        for colour in HEAT {
            svg.block((x, y - 6.0), (x + SWATCH, y + 6.0), colour);
            x += SWATCH;
        }
        return svg.text("many", (x + 9.0, y), LEGEND, INK, "start");
    }
    if chart.panels.iter().all(|panel| panel.series.len() < 2) {
        return;
    }
    // What is in two panels has one name.
    for series in chart.panels.iter().flat_map(|panel| &panel.series).filter(|series| !series.name.is_empty()) {
        svg.block((x, y - 6.0), (x + SWATCH, y + 6.0), series.tone);
        svg.text(&series.name, (x + SWATCH + 7.0, y), LEGEND, INK, "start");
        x += SWATCH + 7.0 + width(&series.name, LEGEND) + 22.0;
    }
}

/// Lines over all panels, arrows on top of them; a label that has no room beside the one before it
/// is left out.
fn marks(svg: &mut Svg, chart: &Chart, across: &Scale, bottom: f64) {
    const ARROW: f64 = 6.0;
    let mut free_from = 0.0;
    for mark in &chart.marks {
        let x = across.at(mark.second as f64);
        let Some(label) = &mark.phase else {
            let arrow = [(x - ARROW, TOP - 1.4 * ARROW), (x + ARROW, TOP - 1.4 * ARROW), (x, TOP)];
            svg.fill(arrow, Tone::RED);
            continue;
        };
        let (Tone(colour, _), top) = (MARK, TOP - 28.0);
        svg.put(format_args!(
            r#"<path fill="none" stroke="{colour}" stroke-dasharray="5 5" d="M{x:.1} {top:.1}V{bottom:.1}"/>"#
        ));
        let wide = width(label, TICK);
        if !label.is_empty() && x >= free_from && x + 5.0 + wide <= WIDTH {
            svg.text(label, (x + 5.0, TOP - 19.0), TICK, MUTED, "start");
            free_from = x + wide + 12.0;
        }
    }
}

fn time_axis(svg: &mut Svg, across: &Scale, bottom: f64) {
    let seconds = across.values.end;
    for tick in ticks(0.0, seconds, time_step(seconds)) {
        let x = across.at(tick);
        svg.line([(x, bottom), (x, bottom + 5.0)], MUTED, 1.0);
        svg.text(&tick_text(tick), (x, bottom + 17.0), TICK, MUTED, "middle");
    }
    svg.text("seconds since the run began", (f64::midpoint(LEFT, RIGHT), bottom + 43.0), TICK, INK, "middle");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::charts::Mark;

    fn chart(style: Style, values: &[&[Option<f64>]]) -> Chart {
        let series = |(index, values): (usize, &&[Option<f64>])| Series {
            name: format!("series {index} <&>"),
            tone: [Tone::SERVER, Tone::FLEET][index],
            values: values.to_vec(),
        };
        let series = values.iter().enumerate().map(series).collect();
        let panel = Panel { series, at_least: 0.1, ..Panel::of("things", style) };
        let marks = vec![Mark { second: 1, phase: Some("<script>".into()) }];
        Chart { file: "test", title: "A title", panels: vec![panel], marks, seconds: 6 }
    }

    /// Lines and areas of a tone in a drawing.
    fn shapes(svg: &str, tone: Tone, element: &str) -> usize {
        let colour = tone.0;
        svg.lines().filter(|line| line.starts_with(&format!("<{element} ")) && line.contains(colour)).count()
    }

    #[test]
    fn a_gap_is_a_gap() {
        let whole = svg(&chart(Style::Lines, &[&[Some(1.0), Some(2.0), Some(3.0)]]));
        let torn = svg(&chart(Style::Lines, &[&[Some(1.0), None, Some(3.0), Some(2.0)]]));
        assert_eq!((shapes(&whole, Tone::SERVER, "polyline"), shapes(&torn, Tone::SERVER, "polyline")), (1, 2));
        let stack: &[&[Option<f64>]] = &[&[Some(1.0), Some(1.0), Some(1.0)], &[Some(2.0), None, Some(2.0)]];
        assert_eq!(shapes(&svg(&chart(Style::Stacked, stack)), Tone::SERVER, "polygon"), 2);
    }

    #[test]
    fn names_cannot_become_markup() {
        let text = svg(&chart(Style::Lines, &[&[Some(1.0)], &[Some(2.0)]]));
        assert!(text.contains("&lt;script&gt;") && !text.contains("<script>") && !text.contains("<&>"));
    }

    #[test]
    fn ticks_are_round_and_reach_over_the_data() {
        assert_eq!((nice_step(61_000.0, 5.0), nice_step(2.0, 5.0)), (20_000.0, 0.5));
        assert_eq!((time_step(118.0), time_step(9.0), time_step(300.0)), (10.0, 1.0, 30.0));
        let drawn = chart(Style::Logarithmic, &[&[Some(0.4), Some(350.0)]]);
        let (scale, decades) = vertical(&drawn.panels[0], &(0.0..100.0));
        assert_eq!(decades.len(), 5);
        assert!(scale.values.start <= 0.4 && scale.values.end >= 350.0);
        assert!((scale.at(0.1) - 100.0).abs() < 1e-6 && scale.at(1_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_run_without_a_single_value_is_drawn_all_the_same() {
        for style in [Style::Lines, Style::Logarithmic, Style::Stacked, Style::Heat, Style::Lanes] {
            assert!(svg(&chart(style, &[&[None, None]])).contains("A title"));
        }
    }
}
