//! The screen, drawn from a [`State`]: a pure function of it and of the size. What does not fit is
//! left out, the least important first; nothing here may panic, whatever the size.
//!
//! Sixteen colours at most, and none where they are not wanted: whatever a colour says is also said
//! by a word or a sign.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, BorderType, Cell, Chart, Clear, Dataset, GraphType, Padding, Paragraph, Row, Table,
};

use crate::terminal::state::{Book, Link, Source, State};
use crate::terminal::words::{bytes, clock, count, elapsed, grouped, percent, sparkline, time, yuan};

/// The smallest terminal on which something is shown.
pub const WIDTH_MIN: u16 = 24;
/// The same, in rows.
pub const HEIGHT_MIN: u16 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A bit of everything.
    Overview,
    /// Processes that report.
    Machines,
    Sets,
    /// Ends, answers, errors; marks.
    Events,
}

impl View {
    /// All, in the order of their keys.
    pub const ALL: [View; 4] = [View::Overview, View::Machines, View::Sets, View::Events];

    const fn title(self) -> &'static str {
        match self {
            View::Overview => "overview",
            View::Machines => "machines",
            View::Sets => "SETs",
            View::Events => "events",
        }
    }

    pub fn next(self) -> Self {
        let index = Self::ALL.iter().position(|view| *view == self).unwrap_or(0);
        Self::ALL[(index + 1) % Self::ALL.len()]
    }
}

/// What the keys have chosen.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub view: View,
    /// Rows of its list that are above the screen.
    pub scroll: usize,
    /// The picture stands still.
    pub paused: bool,
    /// The keys are explained.
    pub help: bool,
    pub colours: bool,
}

impl Default for Choice {
    fn default() -> Self {
        Self { view: View::Overview, scroll: 0, paused: false, help: false, colours: true }
    }
}

/// Styles, with or without colours.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new() }
    }
    fn dim(self) -> Style {
        if self.0 { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }
    fn good(self) -> Style {
        self.colour(Color::Green)
    }
    fn warn(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }
    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }
    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
    fn title(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

/// Draws everything; returns how far the list of this view can be scrolled.
pub fn draw(frame: &mut Frame<'_>, state: &State, choice: &Choice, now_seconds: u64) -> usize {
    let area = frame.area();
    let paint = Paint(choice.colours);
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        frame.render_widget(Paragraph::new("too small"), area);
        return 0;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    header(frame, head, state, choice, now_seconds, paint);
    footer(frame, foot, choice, paint);
    let scrollable = match choice.view {
        _ if state.rows.is_empty() && state.sources.is_empty() => {
            waiting(frame, body, state, paint);
            0
        }
        View::Overview => {
            overview(frame, body, state, paint);
            0
        }
        View::Machines => machines(frame, body, state, choice.scroll, paint, true),
        View::Sets => sets(frame, body, state, choice.scroll, paint),
        View::Events => events(frame, body, state, choice.scroll, paint),
    };
    if choice.help {
        help(frame, area, paint);
    }
    scrollable
}

fn header(frame: &mut Frame<'_>, area: Rect, state: &State, choice: &Choice, now_seconds: u64, paint: Paint) {
    let (sign, style) = match &state.link {
        _ if choice.paused => ("‖ paused".to_owned(), paint.warn()),
        Link::Live => ("● live".to_owned(), paint.good()),
        Link::Connecting => ("○ connecting".to_owned(), paint.warn()),
        Link::Ended => ("■ run over".to_owned(), paint.strong()),
        Link::Away(_) => ("○ monitor away".to_owned(), paint.bad()),
    };
    let at = state.last().map_or(now_seconds, |last| last.second);
    let lasting = elapsed(at.saturating_sub(state.started_at_ms / 1_000));
    let mut left = vec![Span::styled("hongbao ", paint.colour(Color::Red).add_modifier(Modifier::BOLD))];
    if !state.rows.is_empty() {
        left.push(Span::styled(lasting, paint.strong()));
        if area.width >= 64 {
            left.push(Span::styled(format!("  run {}", state.run), paint.dim()));
        }
    }
    let mut right = Vec::new();
    if let Some(last) = state.last() {
        if last.get("complete") == Some(0.0) {
            let there = |name| count(last.get(name).unwrap_or(0.0));
            let of = format!("{}/{} report ", there("sources_reported"), there("sources_expected"));
            right.push(Span::styled(
                if area.width >= 80 { format!("INCOMPLETE {of}") } else { "INCOMPLETE ".to_owned() },
                paint.warn(),
            ));
        }
        if area.width >= 48 {
            right.push(Span::styled(format!("{} UTC  ", clock(last.second)), paint.dim()));
        }
    }
    right.push(Span::styled(sign, style));
    let right = Line::from(right).alignment(Alignment::Right);
    let width = u16::try_from(right.width()).unwrap_or(area.width).min(area.width);
    let [begin, end] = Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
    frame.render_widget(Line::from(left), begin);
    frame.render_widget(right, end);
}

fn footer(frame: &mut Frame<'_>, area: Rect, choice: &Choice, paint: Paint) {
    let mut spans = Vec::new();
    for (key, view) in ('1'..).zip(View::ALL) {
        let style = if view == choice.view { paint.title().add_modifier(Modifier::REVERSED) } else { paint.dim() };
        let label = if area.width >= 60 { format!(" {key} {} ", view.title()) } else { format!(" {key} ") };
        spans.push(Span::styled(label, style));
    }
    let keys = if area.width >= 72 { "  p pause  ? help  q quit" } else { "  ? help" };
    spans.push(Span::styled(keys, paint.dim()));
    frame.render_widget(Line::from(spans), area);
}

fn waiting(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let said = match &state.link {
        Link::Away(problem) => format!("the monitor cannot be reached: {problem}"),
        Link::Connecting => "connecting to the monitor".to_owned(),
        Link::Live => "waiting for the first report".to_owned(),
        Link::Ended => "the run is over, and nobody reported".to_owned(),
    };
    let [_, middle, _] = Layout::vertical([Constraint::Fill(1), Constraint::Max(3), Constraint::Fill(2)]).areas(area);
    let text = Paragraph::new(said)
        .alignment(Alignment::Center)
        .wrap(ratatui::widgets::Wrap { trim: true })
        .style(paint.strong());
    frame.render_widget(text, middle);
}

fn panel(title: &str, paint: Paint) -> Block<'_> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(paint.dim())
        .title(Span::styled(format!(" {title} "), paint.title()))
        .padding(Padding::horizontal(1))
}

/// The longer title where there is room for it.
fn fitting(area: Rect, long: &'static str, short: &'static str) -> &'static str {
    if usize::from(area.width) >= long.len() + 6 { long } else { short }
}

/// Renders a panel's border and returns what is inside.
fn inside(frame: &mut Frame<'_>, area: Rect, title: &str, paint: Paint) -> Rect {
    let block = panel(title, paint);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

// ---- Overview

fn overview(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    if area.width >= 76 && area.height >= 17 {
        large(frame, area, state, paint);
    } else {
        small(frame, area, state, paint);
    }
}

/// One line for each figure, the most important first.
fn small(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let mut lines = vec![verdict(state, paint)];
    if let Link::Away(problem) = &state.link {
        lines.push(Line::from(Span::styled(problem.clone(), paint.warn())));
    }
    let bars = usize::from(area.width.saturating_sub(24));
    let mut figure = |label: &str, column: &str, text: fn(f64) -> String, style: Style| {
        let values: Vec<_> = state.column(column, bars).map(|(_, value)| value).collect();
        let max = values.iter().flatten().fold(0.0f64, |max, value| max.max(*value));
        let now = values.last().copied().flatten().map_or_else(|| "–".to_owned(), text);
        let mut spans = vec![
            Span::styled(format!("{label:<9}"), paint.dim()),
            Span::styled(format!("{now:>11}  "), paint.strong()),
        ];
        if area.width >= 40 {
            spans.push(Span::styled(sparkline(&values, max), style));
        }
        lines.push(Line::from(spans));
    };
    figure("users", "users_online", count, paint.colour(Color::Cyan));
    figure("sent/s", "sent", count, paint.colour(Color::Blue));
    figure("answers/s", "answered", count, paint.good());
    figure("p99", "latency_p99_us", time, paint.colour(Color::Magenta));
    figure("p50", "latency_p50_us", time, paint.colour(Color::Magenta));
    figure("overload", "overloaded", count, paint.colour(Color::Yellow));
    figure("ends/s", "disconnects", count, paint.colour(Color::Yellow));
    figure("won/s", "won", count, paint.colour(Color::Red));
    figure("planned/s", "planned", count, paint.dim());
    figure("p99.9", "latency_p999_us", time, paint.colour(Color::Magenta));
    figure("queue", "queue_depth_max", count, paint.colour(Color::Yellow));
    figure("srv mem", "server_resident_bytes", bytes, paint.colour(Color::Cyan));
    for mark in state.marks.iter().rev() {
        lines.push(mark_line(mark, paint));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The one line that says whether money is right.
fn verdict(state: &State, paint: Paint) -> Line<'static> {
    let names = [
        ("rain", "residual_prizes", "residual_fen"),
        ("sales", "residual_units", "residual_sale_fen"),
        ("envelopes", "residual_shares", "residual_share_fen"),
    ];
    let off: Vec<String> = names
        .iter()
        .filter_map(|(book, things, fen)| {
            let (things, fen) = (state.now(things).unwrap_or(0.0), state.now(fen).unwrap_or(0.0));
            (things != 0.0 || fen != 0.0).then(|| format!("{book} {} / {} yuan", grouped(things), yuan(fen)))
        })
        .collect();
    if off.is_empty() {
        Line::from(vec![
            Span::styled("books    ", paint.dim()),
            Span::styled("✓ residual 0", paint.good().add_modifier(Modifier::BOLD)),
        ])
    } else {
        Line::from(vec![
            Span::styled("books    ", paint.dim()),
            Span::styled(format!(" ✗ RESIDUAL {} ", off.join(", ")), paint.bad()),
        ])
    }
}

fn large(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let tall = area.height >= 33;
    let details = if tall { area.height / 3 } else { 8 };
    let marks = if tall { 2 + (area.height / 12).min(5) } else { 0 };
    let [gauge_area, charts, middle, lower, marks_area] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(6),
        Constraint::Length(if tall { 8 } else { details }),
        Constraint::Length(if tall { details.clamp(7, 16) } else { 0 }),
        Constraint::Length(marks),
    ])
    .areas(area);
    gauge(frame, gauge_area, state, paint);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
    requests(frame, left, state, paint);
    latency(frame, right, state, paint);
    let [books_area, beside] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    books(frame, books_area, state, paint);
    if beside.width >= 76 {
        let [trouble_area, resources_area] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(beside);
        trouble(frame, trouble_area, state, paint);
        resources(frame, resources_area, state, paint);
    } else {
        trouble(frame, beside, state, paint);
    }
    if tall {
        let beside_books = beside.width >= 76;
        let (machines_area, other) = if area.width >= 110 || !beside_books {
            let [one, other] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(lower);
            (one, Some(other))
        } else {
            (lower, None)
        };
        machines(frame, machines_area, state, 0, paint, false);
        match other {
            Some(other) if beside_books => odd_sets(frame, other, state, paint),
            Some(other) => resources(frame, other, state, paint),
            None => {}
        }
        let inner = inside(frame, marks_area, "marks", paint);
        let lines: Vec<_> =
            state.marks.iter().rev().take(inner.height.into()).map(|mark| mark_line(mark, paint)).collect();
        let lines = if lines.is_empty() { vec![Line::styled("nothing yet", paint.dim())] } else { lines };
        frame.render_widget(Paragraph::new(lines), inner);
    }
}

fn gauge(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let (online, goal) = (state.now("users_online").unwrap_or(0.0), state.now("users_goal").unwrap_or(0.0));
    let share = if goal > 0.0 { (online / goal).clamp(0.0, 1.0) } else { 0.0 };
    let said = if goal > 0.0 {
        format!(" {} of {} users on-line ({:.1}%)", grouped(online), grouped(goal), share * 100.0)
    } else {
        format!(" {} users on-line", grouped(online))
    };
    let room = area.width.saturating_sub(u16::try_from(said.chars().count()).unwrap_or(area.width)).saturating_sub(1);
    let room = if goal > 0.0 { room } else { 0 };
    // At most the width of a terminal.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let filled = (f64::from(room) * share).floor() as usize;
    let style = if share >= 0.999 { paint.good() } else { paint.colour(Color::Cyan) };
    let bar = Line::from(vec![
        Span::raw(" "),
        Span::styled("━".repeat(filled), style),
        Span::styled("┄".repeat(usize::from(room).saturating_sub(filled)), paint.dim()),
        Span::styled(said, paint.strong()),
    ]);
    frame.render_widget(bar, area);
}

/// A line of a chart.
struct Curve {
    column: &'static str,
    label: &'static str,
    style: Style,
    points: Vec<(f64, f64)>,
    now: Option<f64>,
}

/// The latest seconds that fit into `width` cells, two points a cell, as (seconds ago, value).
fn curves(state: &State, width: u16, of: &[(&'static str, &'static str, Style)], shape: fn(f64) -> f64) -> Vec<Curve> {
    let last = state.last().map_or(0, |last| last.second);
    of.iter()
        .map(|&(column, label, style)| {
            let seconds = usize::from(width) * 2;
            let points = state
                .column(column, seconds)
                .filter(|(second, _)| last - second < seconds as u64)
                .filter_map(|(second, value)| Some((-ago(last - second), shape(value?))))
                .collect();
            Curve { column, label, style, points, now: state.now(column) }
        })
        .collect()
}

fn ago(seconds: u64) -> f64 {
    f64::from(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// The curves' names with their latest values: what of them fits.
fn legend<'a>(curves: &[Curve], width: u16, text: fn(f64) -> String, paint: Paint) -> Line<'a> {
    let mut spans = Vec::new();
    let mut room = usize::from(width);
    for curve in curves {
        let now = curve.now.map_or_else(|| "–".to_owned(), text);
        let needed = curve.label.chars().count() + now.chars().count() + 5;
        if needed > room {
            break;
        }
        room -= needed;
        spans.push(Span::styled("▬ ", curve.style));
        spans.push(Span::styled(format!("{} ", curve.label), paint.dim()));
        spans.push(Span::styled(format!("{now}  "), paint.strong()));
    }
    Line::from(spans)
}

fn requests(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let inner = inside(frame, area, "requests a second", paint);
    if inner.height < 3 || inner.width < 20 {
        return;
    }
    let of = [
        ("sent", "sent", paint.colour(Color::Blue)),
        ("answered", "answered", paint.good()),
        ("planned", "planned", paint.dim()),
        ("received", "received", paint.colour(Color::Cyan)),
    ];
    let curves = curves(state, inner.width.saturating_sub(9), &of, |value| value);
    let max = curves.iter().flat_map(|curve| &curve.points).fold(1.0f64, |max, (_, value)| max.max(*value)) * 1.05;
    chart(frame, inner, state, &curves, (0.0, max), &[count(0.0), count(max / 2.0), count(max)], count, paint);
}

fn latency(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let inner = inside(frame, area, fitting(area, "latency from the planned send time", "latency"), paint);
    if inner.height < 3 || inner.width < 20 {
        return;
    }
    let of = [
        ("latency_p50_us", "p50", paint.good()),
        ("latency_p99_us", "p99", paint.colour(Color::Yellow)),
        ("latency_p999_us", "p99.9", paint.colour(Color::Red)),
    ];
    // Logarithms: what matters lies between a tenth of a millisecond and ten seconds.
    let curves = curves(state, inner.width.saturating_sub(9), &of, |us| us.max(1.0).log10());
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value);
    let min = values().fold(f64::INFINITY, f64::min);
    let max = values().fold(f64::NEG_INFINITY, f64::max);
    let (min, max) = if min <= max { (min.floor(), max.ceil().max(min.floor() + 1.0)) } else { (2.0, 5.0) };
    let labels =
        if max - min >= 2.0 && inner.height >= 7 { vec![min, f64::midpoint(min, max), max] } else { vec![min, max] };
    let labels: Vec<_> = labels.into_iter().map(|power| round_time(10f64.powf(power))).collect();
    chart(frame, inner, state, &curves, (min, max), &labels, time, paint);
}

/// A power of ten, or what lies half-way between two.
fn round_time(us: f64) -> String {
    match us {
        us if us < 995.0 => format!("{us:.0} µs"),
        us if us < 995_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

#[allow(clippy::too_many_arguments)] // what a chart is
fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    state: &State,
    curves: &[Curve],
    (min, max): (f64, f64),
    labels: &[String],
    text: fn(f64) -> String,
    paint: Paint,
) {
    let [top, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    frame.render_widget(legend(curves, area.width, text, paint), top);
    let span = f64::from(below.width.saturating_sub(9).max(1)) * 2.0;
    let oldest = state.rows.first().zip(state.last()).map_or(1.0, |(first, last)| ago(last.second - first.second));
    let span = span.min(oldest.max(30.0));
    let datasets = curves
        .iter()
        // Later ones are drawn over earlier ones: the first named is on top.
        .rev()
        .filter(|curve| !curve.column.is_empty())
        .map(|curve| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(curve.style)
                .data(&curve.points)
        })
        .collect();
    let wide = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(7);
    let labels = labels.iter().map(|label| Span::styled(format!("{label:>wide$}"), paint.dim()));
    let x_labels = [Span::styled(format!("-{span:.0} s"), paint.dim()), Span::styled("now", paint.dim())];
    let chart = Chart::new(datasets)
        .x_axis(Axis::default().bounds([-span, 0.0]).labels(x_labels).style(paint.dim()))
        .y_axis(Axis::default().bounds([min, max]).labels(labels).style(paint.dim()))
        .legend_position(None);
    frame.render_widget(chart, below);
}

fn books(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let inner = inside(frame, area, fitting(area, "books: what servers paid, what users got", "books"), paint);
    let balanced = state.books.iter().all(Book::is_balanced);
    if state.books.is_empty() {
        frame.render_widget(Paragraph::new(verdict(state, paint)), inner);
        return;
    }
    // A figure of which the beginning is cut off would be another figure: what does not fit whole
    // is left out.
    let columns = (0..3).map(|detail| book_columns(&state.books, detail)).find(|columns| fits(columns, inner.width));
    let columns = columns.unwrap_or_else(|| book_columns(&state.books, 3));
    let rows = state.books.iter().enumerate().map(|(index, book)| {
        let style = if book.is_balanced() { paint.good() } else { paint.bad() };
        let last = columns.len() - 1;
        let cells = columns.iter().enumerate().map(|(column, (_, texts))| match column {
            0 => Cell::from(texts[index].clone()),
            column if column == last => Cell::from(right(texts[index].clone()).style(style)),
            _ => Cell::from(right(texts[index].clone())),
        });
        Row::new(cells.collect::<Vec<_>>())
    });
    let head = columns.iter().map(|(title, _)| right((*title).to_owned()));
    let widths = columns.iter().map(|column| Constraint::Min(column_width(column)));
    let height = u16::try_from(state.books.len() + 1).unwrap_or(u16::MAX);
    let [table_area, below] = Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(inner);
    let table = Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>());
    frame.render_widget(table.header(Row::new(head.collect::<Vec<_>>()).style(paint.dim())), table_area);
    let longest = state.books.iter().fold(0.0f64, |longest, book| longest.max(book.unbalanced_seconds));
    let mut said = if balanced {
        vec![Span::styled("✓ they agree to the fen", paint.good().add_modifier(Modifier::BOLD))]
    } else {
        vec![Span::styled(format!(" ✗ THEY DIFFER, for {longest:.0} s "), paint.bad())]
    };
    if state.record_failures > 0.0 {
        said.push(Span::styled(
            format!("  {} writes to the recording FAILED", count(state.record_failures)),
            paint.bad(),
        ));
    }
    frame.render_widget(Line::from(said), below);
}

/// A column's title, and its text for each row.
type Column = (&'static str, Vec<String>);

/// The table of books, in many (0) or few (3) words.
fn book_columns(books: &[Book], detail: u8) -> Vec<Column> {
    let of = |text: &dyn Fn(&Book) -> String| books.iter().map(text).collect::<Vec<_>>();
    let residual = of(&|book| {
        let sign = if book.is_balanced() { "✓" } else { "✗" };
        format!("{sign} {} / {}", count(book.residual_count), yuan(book.residual_fen))
    });
    let name = ("", of(&|book| book.book.clone()));
    let residual = ("residual / yuan", residual);
    let both = |things: f64, fen: f64| format!("{} / {}", count(things), yuan(fen));
    match detail {
        0 => vec![
            name,
            ("servers / yuan", of(&|book| both(book.servers_count, book.servers_fen))),
            ("users / yuan", of(&|book| both(book.users_count, book.users_fen))),
            residual,
        ],
        1 => vec![
            name,
            ("servers", of(&|book| count(book.servers_count))),
            ("users", of(&|book| count(book.users_count))),
            residual,
        ],
        2 => vec![name, residual],
        _ => vec![name, ("residual", of(&|book| count(book.residual_count)))],
    }
}

fn column_width((title, texts): &Column) -> u16 {
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(title.chars().count());
    u16::try_from(longest).unwrap_or(u16::MAX)
}

fn fits(columns: &[Column], width: u16) -> bool {
    columns.iter().map(|column| u32::from(column_width(column)) + 1).sum::<u32>() <= u32::from(width) + 1
}

fn right<'a>(text: String) -> Line<'a> {
    Line::from(text).alignment(Alignment::Right)
}

fn trouble(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let inner = inside(
        frame,
        area,
        fitting(area, "refusals and ends, last second and minute", "refusals, ends: 1 s, 1 min"),
        paint,
    );
    let mut rows = Vec::new();
    let minute = |column: &str| state.column(column, 60).filter_map(|(_, value)| value).sum::<f64>();
    for (label, column) in [("overloaded", "overloaded"), ("refused", "refused"), ("disconnects", "disconnects")] {
        rows.push((label.to_owned(), state.now(column).unwrap_or(0.0), minute(column), column != "disconnects"));
    }
    for (group, label) in [("violations", "violation"), ("errors", "error"), ("ended", "ended")] {
        for (kind, second, minute) in state.reasons(group) {
            rows.push((format!("{label}: {kind}"), second, minute, group != "ended"));
        }
    }
    let rows = rows.into_iter().map(|(label, second, minute, is_bad)| {
        let style = if is_bad && second > 0.0 {
            paint.warn()
        } else if minute > 0.0 {
            Style::new()
        } else {
            paint.dim()
        };
        Row::new([Cell::from(label), Cell::from(right(count(second))), Cell::from(right(count(minute)))]).style(style)
    });
    let widths = [Constraint::Min(12), Constraint::Length(9), Constraint::Length(9)];
    frame.render_widget(Table::new(rows, widths), inner);
}

fn resources(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let inner = inside(frame, area, "resources", paint);
    let now = |column: &str| state.now(column);
    let cores = |us: Option<f64>| us.map(|us| percent(us / 1e6));
    let descriptors = now("open_descriptors").map(|open| match now("descriptors_limit") {
        Some(limit) if limit > 0.0 => format!("{} of {}", count(open), count(limit)),
        _ => count(open),
    });
    let near = now("open_descriptors").zip(now("descriptors_limit")).is_some_and(|(open, limit)| open > 0.9 * limit);
    let network = now("host_net_received_bytes")
        .zip(now("host_net_sent_bytes"))
        .map(|(received, sent)| format!("{} in, {} out", bytes(received), bytes(sent)));
    let rows = [
        ("server cpu", cores(now("server_cpu_us")), false),
        ("server memory", now("server_resident_bytes").map(bytes), false),
        ("fleet cpu", cores(now("fleet_cpu_us")), false),
        ("fleet memory", now("fleet_resident_bytes").map(bytes), false),
        ("queue, longest", now("queue_depth_max").map(count), false),
        ("descriptors", descriptors, near),
        ("ledger p99", now("ledger_commit_p99_us").map(time), false),
        ("send lag p99", now("send_lag_p99_us").map(time), false),
        ("clock error", now("clock_error_max_us").map(time), false),
        ("network a second", network, false),
        ("memory free", now("host_memory_available_bytes").map(bytes), false),
        ("prizes in SETs", now("prizes_in_sets").map(count), false),
    ];
    // What would lose its beginning would be another figure.
    let room = usize::from(inner.width.saturating_sub(17));
    let whole = |(label, value, is_bad): (&'static str, Option<String>, bool)| {
        Some((label, value.filter(|value| value.chars().count() <= room)?, is_bad))
    };
    let rows = rows.into_iter().filter_map(whole).map(|(label, value, is_bad)| {
        let style = if is_bad { paint.warn() } else { paint.strong() };
        Row::new([Cell::from(Span::styled(label, paint.dim())), Cell::from(right(value).style(style))])
    });
    frame.render_widget(Table::new(rows, [Constraint::Length(16), Constraint::Min(8)]), inner);
}

fn odd_sets(frame: &mut Frame<'_>, area: Rect, state: &State, paint: Paint) {
    let inner = inside(frame, area, "SETs that stand out", paint);
    let odd = state.odd_sets();
    if odd.is_empty() {
        let said = match state.sets.len() {
            0 => "no server has told of its SETs".to_owned(),
            sets => format!("✓ none of {sets}"),
        };
        frame.render_widget(Paragraph::new(Span::styled(said, paint.good())), inner);
        return;
    }
    let lines: Vec<_> = odd
        .into_iter()
        .take(inner.height.into())
        .map(|(set, what)| {
            Line::from(vec![
                Span::styled(format!("{} #{:<4} ", set.server, set.index), paint.strong()),
                Span::styled(what, paint.warn()),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

fn mark_line<'a>(mark: &crate::terminal::state::Mark, paint: Paint) -> Line<'a> {
    let style = match mark.kind.as_str() {
        "alert" => paint.bad(),
        "resolved" => paint.good(),
        "storm" | "drain" => paint.warn(),
        _ => paint.colour(Color::Cyan),
    };
    Line::from(vec![
        Span::styled(format!("{} ", clock(mark.at_ms / 1_000)), paint.dim()),
        Span::styled(format!("{:<9} ", mark.kind), style),
        Span::raw(mark.text.clone()),
        Span::styled(if mark.source.is_empty() { String::new() } else { format!("  {}", mark.source) }, paint.dim()),
    ])
}

// ---- The other views

/// A column's title and width, and what it says of a source.
type SourceColumn = (&'static str, u16, fn(&Source) -> String);

fn machines(frame: &mut Frame<'_>, area: Rect, state: &State, scroll: usize, paint: Paint, whole: bool) -> usize {
    let title = format!("machines and servers ({})", state.sources.len());
    let inner = inside(frame, area, &title, paint);
    let columns: [SourceColumn; 7] = [
        ("users", 9, |source| source.online.map_or_else(String::new, count)),
        ("goal", 9, |source| source.users.map_or_else(String::new, count)),
        ("cpu", 6, |source| source.cpu_us.map_or_else(String::new, |us| percent(us / 1e6))),
        ("memory", 8, |source| source.resident_bytes.map_or_else(String::new, bytes)),
        ("clock", 20, |source| match (source.clock_offset_us, source.clock_error_us) {
            (Some(offset), Some(error)) => format!("{} ± {}", time(offset), time(error)),
            _ => String::new(),
        }),
        ("reports", 8, |source| source.reports.map_or_else(String::new, count)),
        ("starts", 6, |source| source.instances.map_or_else(String::new, count)),
    ];
    let mut room = inner.width.saturating_sub(28);
    let shown: Vec<_> = columns
        .into_iter()
        .take_while(|(_, width, _)| {
            let fits = room > *width;
            room = room.saturating_sub(width + 1);
            fits
        })
        .collect();
    let head = [Line::from("name"), Line::from("state")]
        .into_iter()
        .chain(shown.iter().map(|(name, ..)| right((*name).to_owned())));
    let rows: Vec<_> = state
        .sources
        .iter()
        .map(|source| {
            let style = match source.presence.as_str() {
                "reporting" => paint.good(),
                "lost" => paint.bad(),
                _ => paint.dim(),
            };
            let name = format!("{}/{}", source.role, source.name);
            let cells = [Cell::from(name), Cell::from(Span::styled(source.presence.clone(), style))]
                .into_iter()
                .chain(shown.iter().map(|(_, _, text)| Cell::from(right(text(source)))));
            Row::new(cells)
        })
        .collect();
    let widths = [Constraint::Min(15), Constraint::Length(10)]
        .into_iter()
        .chain(shown.iter().map(|(_, width, _)| Constraint::Length(*width)));
    let (hidden, more) = window(rows.len(), inner.height.saturating_sub(1), scroll);
    let table = Table::new(rows.into_iter().skip(hidden), widths).header(Row::new(head).style(paint.dim()));
    frame.render_widget(table, inner);
    if whole { position(frame, area, hidden, more, paint) } else { 0 }
}

fn sets(frame: &mut Frame<'_>, area: Rect, state: &State, scroll: usize, paint: Paint) -> usize {
    let [above, below] = if area.height >= 16 {
        Layout::vertical([Constraint::Length(7), Constraint::Min(5)]).areas(area)
    } else {
        Layout::vertical([Constraint::Length(0), Constraint::Min(1)]).areas(area)
    };
    if above.height > 2 {
        odd_sets(frame, above, state, paint);
    }
    let title = format!("SETs ({})", state.sets.len());
    let inner = inside(frame, below, &title, paint);
    let most = |of: fn(&crate::terminal::state::SetFigures) -> f64| state.sets.iter().map(of).fold(0.0f64, f64::max);
    let (connections, queue) = (most(|set| set.connections), most(|set| set.queue_depth));
    let odd: Vec<_> = state.odd_sets().into_iter().map(|(set, _)| (set.server.clone(), set.index)).collect();
    let bar = |value: f64, max: f64| {
        let width = 10.0;
        // At most ten.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let filled = if max > 0.0 { (value / max * width).round().clamp(0.0, width) as usize } else { 0 };
        "■".repeat(filled)
    };
    let wide = inner.width >= 84;
    let rows: Vec<_> = state
        .sets
        .iter()
        .map(|set| {
            let style = if odd.contains(&(set.server.clone(), set.index)) { paint.warn() } else { Style::new() };
            let mut cells = vec![
                Cell::from(format!("{} #{}", set.server, set.index)),
                Cell::from(right(count(set.connections))),
                Cell::from(right(count(set.online))),
                Cell::from(right(count(set.queue_depth))),
            ];
            if wide {
                cells.extend([
                    Cell::from(right(count(set.owed))),
                    Cell::from(right(count(set.stock))),
                    Cell::from(Span::styled(bar(set.connections, connections), paint.colour(Color::Cyan))),
                    Cell::from(Span::styled(bar(set.queue_depth, queue), paint.colour(Color::Yellow))),
                ]);
            }
            Row::new(cells).style(style)
        })
        .collect();
    let mut head = vec![Line::from("SET"), right("conns".into()), right("users".into()), right("queue".into())];
    let mut widths = vec![Constraint::Min(10), Constraint::Length(8), Constraint::Length(8), Constraint::Length(8)];
    if wide {
        head.extend([right("owed".into()), right("stock".into()), Line::from("connections"), Line::from("queue")]);
        widths.extend([Constraint::Length(8), Constraint::Length(8), Constraint::Length(12), Constraint::Length(10)]);
    }
    let (hidden, more) = window(rows.len(), inner.height.saturating_sub(1), scroll);
    let table = Table::new(rows.into_iter().skip(hidden), widths).header(Row::new(head).style(paint.dim()));
    frame.render_widget(table, inner);
    position(frame, below, hidden, more, paint)
}

fn events(frame: &mut Frame<'_>, area: Rect, state: &State, scroll: usize, paint: Paint) -> usize {
    let wide = area.width >= 90;
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    let [left, marks_area] =
        if wide { Layout::horizontal(halves).areas(area) } else { Layout::vertical(halves).areas(area) };
    let inner = inside(frame, left, "last second, last minute", paint);
    let mut rows = Vec::new();
    for (group, label) in [("violations", "violation"), ("errors", "error"), ("ended", "ended"), ("answers", "answer")]
    {
        for (kind, second, minute) in state.reasons(group) {
            let style = if group == "violations" {
                paint.bad()
            } else if group == "errors" {
                paint.warn()
            } else {
                Style::new()
            };
            rows.push(
                Row::new([
                    Cell::from(format!("{label}: {kind}")),
                    Cell::from(right(count(second))),
                    Cell::from(right(count(minute))),
                ])
                .style(style),
            );
        }
    }
    let (hidden, more) = window(rows.len(), inner.height, scroll);
    let widths = [Constraint::Min(12), Constraint::Length(9), Constraint::Length(9)];
    frame.render_widget(Table::new(rows.into_iter().skip(hidden), widths), inner);
    let reasons = position(frame, left, hidden, more, paint);

    let inner = inside(frame, marks_area, "marks, the latest first", paint);
    let (hidden, more) = window(state.marks.len(), inner.height, scroll);
    let lines: Vec<_> = state.marks.iter().rev().skip(hidden).map(|mark| mark_line(mark, paint)).collect();
    frame.render_widget(Paragraph::new(lines), inner);
    reasons.max(position(frame, marks_area, hidden, more, paint))
}

/// How many rows to pass over, and how many could be at most.
fn window(rows: usize, height: u16, scroll: usize) -> (usize, usize) {
    let most = rows.saturating_sub(height.into());
    (scroll.min(most), most)
}

/// Says in the border that there is more.
fn position(frame: &mut Frame<'_>, area: Rect, hidden: usize, most: usize, paint: Paint) -> usize {
    if most > 0 && area.width > 20 && area.height > 1 {
        let said = format!(" ↑↓ {hidden} of {most} ");
        let width = u16::try_from(said.chars().count()).unwrap_or(0);
        let place =
            Rect { x: area.right().saturating_sub(width + 2), y: area.bottom().saturating_sub(1), width, height: 1 };
        frame.render_widget(Span::styled(said, paint.dim()), place.intersection(frame.area()));
    }
    most
}

fn help(frame: &mut Frame<'_>, area: Rect, paint: Paint) {
    let keys = [
        ("1 2 3 4  Tab", "overview, machines, SETs, events"),
        ("↑ ↓  PgUp PgDn", "scroll a list"),
        ("p  Space", "pause the picture, and go on"),
        ("? h", "this"),
        ("q  Esc  Ctrl-C", "quit"),
    ];
    let lines: Vec<_> = keys
        .iter()
        .map(|(key, what)| Line::from(vec![Span::styled(format!("{key:<16}"), paint.strong()), Span::raw(*what)]))
        .collect();
    let (width, height) = (54.min(area.width), 7.min(area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(panel("keys", paint)), place);
}
