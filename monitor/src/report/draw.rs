//! A chart on a canvas. The library gives lines, areas and text in both formats; axes and legends
//! are laid out here, so that nothing covers data and nothing overlaps, whatever the run was.

use std::ops::Range;
use std::sync::Once;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle, register_font};

use crate::report::charts::{Chart, MarkKind, Panel, Style, Tone};
use crate::report::words;
use crate::run::series::HEAT_BOUNDS_US;

/// Of a drawing, in pixels.
pub const WIDTH: u32 = 1_200;
/// Likewise, of one or two panels.
pub const HEIGHT: u32 = 500;
/// What a third panel and each further one adds.
const PANEL_HEIGHT: u32 = 140;
/// Of a row of what happened.
const LANE_HEIGHT: u32 = 34;

/// How high a chart is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful")]
fn height(chart: &Chart) -> u32 {
    let lanes: usize = chart.panels.iter().map(|panel| panel.lanes.len()).sum();
    if lanes > 0 {
        return (LANES_TOP + BOTTOM) as u32 + 12 + LANE_HEIGHT * lanes as u32;
    }
    HEIGHT + PANEL_HEIGHT * chart.panels.len().saturating_sub(2) as u32
}
/// A bitmap has so many pixels for one of these in both directions: it stays sharp on today's
/// screens.
const BITMAP_SCALE: u32 = 2;

const LEFT: f64 = 118.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 110.0;
/// There is neither a legend nor a label above what happened.
const LANES_TOP: f64 = 56.0;
const BOTTOM: f64 = 62.0;
const BETWEEN_PANELS: f64 = 26.0;

const TITLE: f64 = 25.0;
const LEGEND: f64 = 18.0;
const TICK: f64 = 17.0;

/// The colours of light surroundings; `page` maps them to those of dark ones.
pub const BACKGROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Text.
pub const INK: RGBColor = RGBColor(0x1f, 0x2a, 0x33);
/// Lesser text and axes.
pub const MUTED: RGBColor = RGBColor(0x5b, 0x68, 0x73);
/// Lines behind the data.
pub const GRID: RGBColor = RGBColor(0xe4, 0xe8, 0xec);
/// Lines of marks.
pub const MARK: RGBColor = RGBColor(0xa9, 0xb4, 0xbe);

/// Cells of a heat map, from few to many.
pub const HEAT: [RGBColor; 6] = [
    RGBColor(0xfd, 0xee, 0xd3),
    RGBColor(0xfb, 0xd3, 0x8f),
    RGBColor(0xf4, 0xa3, 0x4e),
    RGBColor(0xdf, 0x6c, 0x2c),
    RGBColor(0xb2, 0x3a, 0x22),
    RGBColor(0x74, 0x17, 0x1b),
];

impl Tone {
    /// In light surroundings.
    pub const fn colour(self) -> RGBColor {
        match self {
            Tone::Plan => RGBColor(0xb4, 0xbe, 0xc7),
            Tone::Server => RGBColor(0x2b, 0x6c, 0xb0),
            Tone::Fleet => RGBColor(0xdd, 0x84, 0x2a),
            Tone::Kernel => RGBColor(0x3a, 0x96, 0x8c),
            Tone::Red => RGBColor(0xc0, 0x39, 0x2b),
            Tone::Gold => RGBColor(0xc7, 0x9a, 0x1e),
            Tone::Violet => RGBColor(0x7d, 0x62, 0xa8),
            Tone::Idle => RGBColor(0xdc, 0xe2, 0xe7),
        }
    }
}

/// The chart as SVG.
pub fn svg(chart: &Chart) -> Result<String, String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height(chart))).into_drawing_area();
        paint(&area, chart, 1.0, false)?;
    }
    Ok(text)
}

/// The chart as PNG.
pub fn png(chart: &Chart) -> Result<Vec<u8>, String> {
    let (width, height) = (WIDTH * BITMAP_SCALE, height(chart) * BITMAP_SCALE);
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        paint(&area, chart, f64::from(BITMAP_SCALE), true)?;
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|error| error.to_string())?;
    writer.write_image_data(&pixels).map_err(|error| error.to_string())?;
    writer.finish().map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The font comes along: a fresh machine may have none.
fn fonts() {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        for (style, bytes) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
            if register_font("sans-serif", style, bytes).is_err() {
                unreachable!("a font that is part of this program can be read");
            }
        }
    });
}

/// A canvas that is thought of as `WIDTH` by `HEIGHT`.
struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    scale: f64,
    bitmap: bool,
}

type Point = (f64, f64);

impl<B: DrawingBackend> Canvas<'_, B> {
    #[allow(clippy::cast_possible_truncation, reason = "pixels")]
    fn pixel(&self, (x, y): Point) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pixels")]
    fn line(&self, points: impl IntoIterator<Item = Point>, colour: RGBColor, width: f64) -> Result<(), String> {
        let points: Vec<_> = points.into_iter().map(|point| self.pixel(point)).collect();
        let style = ShapeStyle {
            color: colour.to_rgba(),
            filled: false,
            stroke_width: (width * self.scale).round().max(1.0) as u32,
        };
        self.area.draw(&PathElement::new(points, style)).map_err(|error| error.to_string())
    }

    fn fill(&self, points: impl IntoIterator<Item = Point>, colour: RGBColor) -> Result<(), String> {
        let points: Vec<_> = points.into_iter().map(|point| self.pixel(point)).collect();
        self.area.draw(&Polygon::new(points, colour.filled())).map_err(|error| error.to_string())
    }

    fn block(&self, from: Point, to: Point, colour: RGBColor) -> Result<(), String> {
        let corners = [self.pixel(from), self.pixel(to)];
        self.area.draw(&Rectangle::new(corners, colour.filled())).map_err(|error| error.to_string())
    }

    fn style(&self, size: f64, bold: bool, colour: RGBColor) -> TextStyle<'static> {
        let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
        ("sans-serif", size * self.scale, style).into_font().color(&colour)
    }

    fn text(&self, text: &str, at: Point, style: TextStyle<'static>, h_pos: HPos, v_pos: VPos) -> Result<(), String> {
        // In bitmaps the middle of a text is that of its tallest letters with room for accents; in
        // SVG it is that of an x.
        let lower =
            if self.bitmap && matches!(v_pos, VPos::Center) { style.font.get_size() * 0.12 / self.scale } else { 0.0 };
        let at = (at.0, at.1 + lower);
        let style = style.pos(Pos::new(h_pos, v_pos));
        self.area.draw(&Text::new(text.to_owned(), self.pixel(at), style)).map_err(|error| error.to_string())
    }

    fn width(&self, text: &str, style: &TextStyle<'_>) -> Result<f64, String> {
        let (width, _) = self.area.estimate_text_size(text, style).map_err(|error| error.to_string())?;
        Ok(f64::from(width) / self.scale)
    }
}

fn paint<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    chart: &Chart,
    scale: f64,
    bitmap: bool,
) -> Result<(), String> {
    fonts();
    let canvas = Canvas { area, scale, bitmap };
    area.fill(&BACKGROUND).map_err(|error| error.to_string())?;
    canvas.text(chart.title, (LEFT, 14.0), canvas.style(TITLE, true, INK), HPos::Left, VPos::Top)?;
    legend(&canvas, chart)?;
    let (right, bottom) = (f64::from(WIDTH) - RIGHT, f64::from(height(chart)) - BOTTOM);
    let weights: u32 = chart.panels.iter().map(|panel| panel.weight).sum();
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let mut top = if chart.panels.iter().any(|panel| panel.style == Style::Lanes) { LANES_TOP } else { TOP };
    let rows = bottom - top - BETWEEN_PANELS * (chart.panels.len() - 1) as f64;
    let across = Scale::linear(0.0..chart_seconds(chart), LEFT..right);
    for panel in &chart.panels {
        let own = rows * f64::from(panel.weight) / f64::from(weights);
        paint_panel(&canvas, panel, &across, top..top + own)?;
        top += own + BETWEEN_PANELS;
    }
    marks(&canvas, chart, &across)?;
    time_axis(&canvas, &across, bottom)?;
    area.present().map_err(|error| error.to_string())
}

#[allow(clippy::cast_precision_loss, reason = "seconds of a run")]
fn chart_seconds(chart: &Chart) -> f64 {
    chart.seconds.max(1) as f64
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
        let mut decades = Vec::new();
        let mut tick = from;
        while tick <= to * 1.001 {
            decades.push(tick);
            tick *= 10.0;
        }
        return (Scale { values: from..to, pixels, logarithmic: true }, decades);
    }
    let most = match panel.style {
        Style::Stacked => {
            stacked(panel).into_iter().flatten().filter_map(|layers| layers.last().copied()).fold(0.0, f64::max)
        }
        _ => all().fold(0.0, f64::max),
    };
    // A stack that is a whole, as all processors are, ends where the whole does; ticks of the
    // kernel's clock exceed it by little.
    let whole = panel.style == Style::Stacked && panel.at_least > 0.5 && most <= panel.at_least * 1.1;
    let top = if whole { panel.at_least } else { (most * 1.08).max(panel.at_least) };
    // A residual may be on either side of nought.
    let least = if panel.style == Style::Stacked { 0.0 } else { all().fold(0.0, f64::min) * 1.08 };
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

fn paint_panel<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    panel: &Panel,
    across: &Scale,
    rows: Range<f64>,
) -> Result<(), String> {
    match panel.style {
        Style::Heat => return paint_heat(canvas, panel, across, rows),
        Style::Lanes => return paint_lanes(canvas, panel, across, &rows),
        Style::Lines | Style::Logarithmic | Style::Stacked => {}
    }
    let (scale, ticks) = vertical(panel, &rows);
    let (left, right) = (across.pixels.start, across.pixels.end);
    let grid = |canvas: &Canvas<'_, B>| {
        ticks.iter().try_for_each(|&tick| canvas.line([(left, scale.at(tick)), (right, scale.at(tick))], GRID, 1.0))
    };
    // A stack would hide the grid, and a whole needs none.
    grid(canvas)?;
    match panel.style {
        Style::Stacked => areas(canvas, panel, across, &scale)?,
        _ => {
            for series in &panel.series {
                let plan = series.tone == Tone::Plan;
                for run in runs(&series.values) {
                    let values = run.clone().filter_map(|index| Some((index, series.values[index]?)));
                    let points: Vec<Point> = if plan || run.len() == 1 {
                        // What holds for a second holds for all of it.
                        let edges = |(index, value)| [(middle(index) - 0.5, value), (middle(index) + 0.5, value)];
                        values.flat_map(edges).map(|(x, value)| (across.at(x), scale.at(value))).collect()
                    } else {
                        values.map(|(index, value)| (across.at(middle(index)), scale.at(value))).collect()
                    };
                    canvas.line(points, series.tone.colour(), if plan { 6.0 } else { 2.0 })?;
                }
            }
        }
    }
    vertical_axis(canvas, panel, across, &scale, &ticks)
}

fn vertical_axis<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    panel: &Panel,
    across: &Scale,
    scale: &Scale,
    ticks: &[f64],
) -> Result<(), String> {
    let (left, right) = (across.pixels.start, across.pixels.end);
    let rows = scale.pixels.end..scale.pixels.start;
    canvas.line([(left, rows.start), (left, rows.end), (right, rows.end)], MUTED, 1.0)?;
    for &tick in ticks {
        canvas.text(
            &tick_text(tick),
            (left - 9.0, scale.at(tick)),
            canvas.style(TICK, false, MUTED),
            HPos::Right,
            VPos::Center,
        )?;
    }
    let turned = canvas.style(TICK, false, INK).transform(FontTransform::Rotate270);
    canvas.text(&panel.axis, (8.0, f64::midpoint(rows.start, rows.end)), turned, HPos::Center, VPos::Top)
}

/// Columns of a heat map at most: more are narrower than a screen shows, and each cell costs bytes
/// of the page.
const HEAT_COLUMNS_MAX: usize = 300;

/// Seconds side by side, each cell coloured by the logarithm of its count.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts to one of six colours"
)]
fn paint_heat<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    panel: &Panel,
    across: &Scale,
    rows: Range<f64>,
) -> Result<(), String> {
    let folded = panel.heat.len().div_ceil(HEAT_COLUMNS_MAX).max(1);
    let columns: Vec<Vec<u64>> = panel
        .heat
        .chunks(folded)
        .map(|seconds| {
            let mut sum = vec![0; HEAT_BOUNDS_US.len() + 1];
            for counts in seconds.iter().flatten() {
                sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            sum
        })
        .collect();
    let used = |row: &usize| columns.iter().any(|column| column[*row] > 0);
    let all = 0..=HEAT_BOUNDS_US.len();
    let (first, last) = (all.clone().find(used).unwrap_or(0), all.clone().rev().find(used).unwrap_or(0));
    let ms = |us: f64| us / 1_000.0;
    let ratio = 10f64.powf(0.25);
    let upper = |row: usize| {
        ms(HEAT_BOUNDS_US.get(row).map_or(HEAT_BOUNDS_US[HEAT_BOUNDS_US.len() - 1] as f64 * ratio, |&us| us as f64))
    };
    let lower = |row: usize| row.checked_sub(1).map_or(ms(HEAT_BOUNDS_US[0] as f64 / ratio), upper);
    let pixels = rows.end..rows.start;
    let scale = Scale { values: lower(first)..upper(last), pixels, logarithmic: true };
    let most = columns.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let level = |count: u64| {
        (count > 0).then(|| {
            let part = (count as f64).ln_1p() / most.ln_1p();
            ((part * HEAT.len() as f64).ceil() as usize).clamp(1, HEAT.len()) - 1
        })
    };
    for row in first..=last {
        let mut column = 0;
        while column < columns.len() {
            let Some(own) = level(columns[column][row]) else {
                column += 1;
                continue;
            };
            // Neighbours of one colour are one rectangle.
            let like = columns[column..].iter().take_while(|next| level(next[row]) == Some(own)).count();
            let (from, to) = (column * folded, ((column + like) * folded).min(panel.heat.len()));
            let corner = (across.at(from as f64), scale.at(upper(row)));
            canvas.block(corner, (across.at(to as f64), scale.at(lower(row))), HEAT[own])?;
            column += like;
        }
    }
    let decades = (-1..=4).map(|power| 10f64.powi(power));
    let ticks: Vec<f64> = decades.filter(|tick| (lower(first)..=upper(last)).contains(tick)).collect();
    let ticks = if ticks.len() > 1 { ticks } else { vec![lower(first), upper(last)] };
    vertical_axis(canvas, panel, across, &scale, &ticks)
}

/// A row for each kind, a diamond for each that happened, and what it was where there is room for
/// it.
#[allow(clippy::cast_precision_loss, reason = "a handful")]
fn paint_lanes<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    panel: &Panel,
    across: &Scale,
    rows: &Range<f64>,
) -> Result<(), String> {
    const DIAMOND: f64 = 6.5;
    const TEXT: f64 = 15.0;
    let (left, right) = (across.pixels.start, across.pixels.end);
    let style = canvas.style(TEXT, false, INK);
    for (number, lane) in panel.lanes.iter().enumerate() {
        let y = rows.start + f64::from(LANE_HEIGHT) * (number as f64 + 0.5);
        canvas.line([(left, y), (right, y)], GRID, 1.0)?;
        canvas.text(
            &words::plain(&lane.name),
            (left - 9.0, y),
            canvas.style(TEXT, false, MUTED),
            HPos::Right,
            VPos::Center,
        )?;
        let at: Vec<f64> = lane.marks.iter().map(|(second, _)| across.at(*second).clamp(left, right)).collect();
        for (index, (_, text)) in lane.marks.iter().enumerate() {
            let x = at[index];
            let corners = [(x - DIAMOND, y), (x, y - DIAMOND), (x + DIAMOND, y), (x, y + DIAMOND)];
            canvas.fill(corners, lane.tone.colour())?;
            let from = x + DIAMOND + 5.0;
            let room = at.get(index + 1).map_or(f64::from(WIDTH) - 6.0, |next| next - DIAMOND - 6.0) - from;
            if let Some(text) = fitting(canvas, text, &style, room)? {
                let width = canvas.width(&text, &style)?;
                canvas.block((from - 2.0, y - 8.0), (from + width + 3.0, y + 8.0), BACKGROUND)?;
                canvas.text(&text, (from, y), style.clone(), HPos::Left, VPos::Center)?;
            }
        }
    }
    canvas.line([(left, rows.start), (left, rows.end), (right, rows.end)], MUTED, 1.0)
}

/// As much of a text as has room; none where that is next to nothing.
fn fitting<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    text: &str,
    style: &TextStyle<'_>,
    room: f64,
) -> Result<Option<String>, String> {
    const LETTERS_LEAST: usize = 4;
    let letters = text.chars().count();
    for keep in (LETTERS_LEAST.min(letters)..=letters).rev() {
        let cut: String =
            if keep == letters { text.to_owned() } else { text.chars().take(keep).chain(['…']).collect() };
        if canvas.width(&cut, style)? <= room {
            return Ok(Some(cut).filter(|cut| !cut.is_empty()));
        }
    }
    Ok(None)
}

/// A second's values stand in its middle.
#[allow(clippy::cast_precision_loss, reason = "seconds of a run")]
fn middle(index: usize) -> f64 {
    index as f64 + 0.5
}

/// Stretches without a gap.
fn runs<T>(values: &[Option<T>]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, _) in values.iter().enumerate().filter(|(_, value)| value.is_some()) {
        match runs.last_mut().filter(|run| run.end == index) {
            Some(run) => run.end = index + 1,
            None => runs.push(index..index + 1),
        }
    }
    runs
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

fn areas<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    panel: &Panel,
    across: &Scale,
    scale: &Scale,
) -> Result<(), String> {
    let edges = stacked(panel);
    let top = scale.values.end;
    for run in runs(&edges) {
        for (layer, series) in panel.series.iter().enumerate() {
            let mut outline: Vec<Point> = Vec::new();
            let edge = |index: usize, layer: Option<usize>| {
                layer.and_then(|layer| Some(edges.get(index)?.as_ref()?[layer])).unwrap_or(0.0).min(top)
            };
            // Each second is a step: what it counted, over its whole length.
            for index in run.clone() {
                let y = scale.at(edge(index, Some(layer)));
                outline.extend([(across.at(middle(index) - 0.5), y), (across.at(middle(index) + 0.5), y)]);
            }
            for index in run.clone().rev() {
                let y = scale.at(edge(index, layer.checked_sub(1)));
                outline.extend([(across.at(middle(index) + 0.5), y), (across.at(middle(index) - 0.5), y)]);
            }
            canvas.fill(outline, series.tone.colour())?;
        }
    }
    Ok(())
}

/// One row below the title, in the order of the lines; of a stack, from the lowest layer up. A
/// single line needs none: the title and the axis say what it is.
fn legend<B: DrawingBackend>(canvas: &Canvas<'_, B>, chart: &Chart) -> Result<(), String> {
    const SWATCH: f64 = 16.0;
    let style = canvas.style(LEGEND, false, INK);
    let (mut x, y) = (LEFT, 57.0);
    if chart.panels.iter().any(|panel| panel.style == Style::Heat) {
        for (words, colours) in [("few answers", HEAT.as_slice()), ("many", &[])] {
            canvas.text(words, (x, y), style.clone(), HPos::Left, VPos::Center)?;
            x += canvas.width(words, &style)? + 9.0;
            for &colour in colours {
                canvas.block((x, y - 6.0), (x + SWATCH, y + 6.0), colour)?;
                x += SWATCH;
            }
            x += 9.0;
        }
        return Ok(());
    }
    if chart.panels.iter().all(|panel| panel.series.len() < 2) {
        return Ok(());
    }
    // What is in two panels has one name.
    for series in chart.panels.iter().flat_map(|panel| &panel.series).filter(|series| !series.name.is_empty()) {
        canvas.block((x, y - 6.0), (x + SWATCH, y + 6.0), series.tone.colour())?;
        canvas.text(&series.name, (x + SWATCH + 7.0, y), style.clone(), HPos::Left, VPos::Center)?;
        x += SWATCH + 7.0 + canvas.width(&series.name, &style)? + 24.0;
    }
    Ok(())
}

/// Lines over all panels, arrows on top of them; a label that has no room beside the one before it
/// is left out.
fn marks<B: DrawingBackend>(canvas: &Canvas<'_, B>, chart: &Chart, across: &Scale) -> Result<(), String> {
    const DASH: f64 = 5.0;
    const ARROW: f64 = 6.0;
    let style = canvas.style(TICK, false, MUTED);
    let bottom = f64::from(height(chart)) - BOTTOM;
    let mut free_from = 0.0;
    for mark in &chart.marks {
        #[allow(clippy::cast_precision_loss, reason = "seconds of a run")]
        let x = across.at(mark.second as f64);
        if mark.kind == MarkKind::Event {
            canvas
                .fill([(x - ARROW, TOP - 1.4 * ARROW), (x + ARROW, TOP - 1.4 * ARROW), (x, TOP)], Tone::Red.colour())?;
            continue;
        }
        let mut y = TOP - 28.0;
        while y < bottom {
            canvas.line([(x, y), (x, (y + DASH).min(bottom))], MARK, 1.0)?;
            y += 2.0 * DASH;
        }
        let MarkKind::Phase(label) = &mark.kind else { continue };
        let width = canvas.width(label, &style)?;
        if x >= free_from && x + 5.0 + width <= f64::from(WIDTH) {
            canvas.text(label, (x + 5.0, TOP - 19.0), style.clone(), HPos::Left, VPos::Center)?;
            free_from = x + width + 12.0;
        }
    }
    Ok(())
}

fn time_axis<B: DrawingBackend>(canvas: &Canvas<'_, B>, across: &Scale, bottom: f64) -> Result<(), String> {
    let seconds = across.values.end;
    for tick in ticks(0.0, seconds, time_step(seconds)) {
        let x = across.at(tick);
        canvas.line([(x, bottom), (x, bottom + 5.0)], MUTED, 1.0)?;
        canvas.text(&tick_text(tick), (x, bottom + 10.0), canvas.style(TICK, false, MUTED), HPos::Center, VPos::Top)?;
    }
    let middle = f64::midpoint(across.pixels.start, across.pixels.end);
    canvas.text(
        "seconds since the run began",
        (middle, bottom + 34.0),
        canvas.style(TICK, false, INK),
        HPos::Center,
        VPos::Top,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::charts::{Mark, Series};

    fn chart(style: Style, values: &[&[Option<f64>]]) -> Chart {
        let series = |(index, values): (usize, &&[Option<f64>])| Series {
            name: format!("series {index} <&>"),
            tone: [Tone::Server, Tone::Fleet][index],
            values: values.to_vec(),
        };
        let series = values.iter().enumerate().map(series).collect();
        let panel =
            Panel { axis: "things".into(), style, series, at_least: 0.1, weight: 1, heat: vec![], lanes: vec![] };
        let marks = vec![Mark { second: 1, kind: MarkKind::Phase("<script>".into()) }];
        Chart { file: "test", title: "A title", panels: vec![panel], marks, seconds: 6 }
    }

    /// Lines and areas of a tone in a drawing.
    fn shapes(svg: &str, tone: Tone, element: &str) -> usize {
        let RGBColor(red, green, blue) = tone.colour();
        let colour = format!("#{red:02X}{green:02X}{blue:02X}");
        svg.lines().filter(|line| line.starts_with(&format!("<{element} ")) && line.contains(&colour)).count()
    }

    #[test]
    fn a_gap_is_a_gap() {
        let whole = svg(&chart(Style::Lines, &[&[Some(1.0), Some(2.0), Some(3.0)]])).unwrap();
        let torn = svg(&chart(Style::Lines, &[&[Some(1.0), None, Some(3.0), Some(2.0)]])).unwrap();
        assert_eq!((shapes(&whole, Tone::Server, "polyline"), shapes(&torn, Tone::Server, "polyline")), (1, 2));
        let stack: &[&[Option<f64>]] = &[&[Some(1.0), Some(1.0), Some(1.0)], &[Some(2.0), None, Some(2.0)]];
        assert_eq!(shapes(&svg(&chart(Style::Stacked, stack)).unwrap(), Tone::Server, "polygon"), 2);
    }

    #[test]
    fn names_cannot_become_markup() {
        let text = svg(&chart(Style::Lines, &[&[Some(1.0)], &[Some(2.0)]])).unwrap();
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
            assert!(svg(&chart(style, &[&[None, None]])).unwrap().contains("A title"));
        }
    }
}
