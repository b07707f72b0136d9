//! The screen, drawn from a [`State`]: a pure function of it and of the size. What does not fit is
//! left out, the least important first; nothing here may panic, whatever the size.
//!
//! Sixteen colours at most, and none where they are not wanted: whatever a colour says is also said
//! by a word or a sign.

use ratatui::Frame;
use ratatui::layout::Constraint::{self, Fill, Length, Max, Min};
use ratatui::layout::{Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, BorderType, Chart, Clear, Dataset, GraphType, Padding, Paragraph, Row as TableRow, Table, Wrap,
};

use crate::run::books::Trade;
use crate::run::mark::{ALERT, Mark, RESOLVED};
use crate::run::merge::{Presence, SourceStatus};
use crate::run::series::{Kinds, Reasons, Row};
use crate::terminal::state::{Link, SetFigures, State};
use crate::words::{brief, brief_bytes, clock, decimals, elapsed, or_dash, plain_yuan, sparkline, time};

/// The smallest terminal on which something is shown.
pub const WIDTH_MIN: u16 = 24;
/// The same, in rows.
pub const HEIGHT_MIN: u16 = 4;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    /// A bit of everything.
    #[default]
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
        ["overview", "machines", "SETs", "events"][self as usize]
    }

    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

/// What the keys have chosen.
#[derive(Debug, Clone, Copy, Default)]
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

const DIM: Style = ink(Color::DarkGray);
const GOOD: Style = ink(Color::Green);
const WARN: Style = ink(Color::Yellow).add_modifier(Modifier::BOLD);
const BAD: Style = ink(Color::Red).add_modifier(Modifier::BOLD.union(Modifier::REVERSED));
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const TITLE: Style = ink(Color::Cyan).add_modifier(Modifier::BOLD);

const fn ink(colour: Color) -> Style {
    Style::new().fg(colour)
}

/// What is drawn on, and with.
struct Painter<'a, 'b> {
    frame: &'a mut Frame<'b>,
    state: &'a State,
    choice: &'a Choice,
}

/// Draws everything; returns how far the list of this view can be scrolled.
pub fn draw(frame: &mut Frame<'_>, state: &State, choice: &Choice, now_seconds: u64) -> usize {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        frame.render_widget(Paragraph::new("too small"), area);
        return 0;
    }
    let [head, body, foot] = Layout::vertical([Length(1), Min(1), Length(1)]).areas(area);
    let mut painter = Painter { frame, state, choice };
    painter.header(head, now_seconds);
    painter.footer(foot);
    let scrollable = match choice.view {
        _ if state.rows.is_empty() && state.sources.is_empty() => painter.waiting(body),
        View::Overview if body.width >= 76 && body.height >= 17 => painter.large(body),
        View::Overview => painter.small(body),
        View::Machines => painter.machines(body, Some(choice.scroll)),
        View::Sets => painter.sets(body),
        View::Events => painter.events(body),
    };
    if choice.help {
        painter.help(area);
    }
    if !choice.colours {
        frame.buffer_mut().set_style(area, Style::new().fg(Color::Reset).bg(Color::Reset));
    }
    scrollable
}

/// The longer title where there is room for it.
fn fitting(area: Rect, long: &'static str, short: &'static str) -> &'static str {
    if usize::from(area.width) >= long.len() + 6 { long } else { short }
}

fn right<'a>(text: impl Into<Line<'a>>) -> Line<'a> {
    text.into().right_aligned()
}

fn halves(area: Rect) -> [Rect; 2] {
    Layout::horizontal([Fill(1); 2]).areas(area)
}

fn letters(text: &str) -> u16 {
    u16::try_from(text.chars().count()).unwrap_or(u16::MAX)
}

/// A figure of the overview without charts: label, column, how it is written, colour.
type Figure = (&'static str, &'static str, fn(f64) -> String, Color);

/// The most important first.
const FIGURES: [Figure; 12] = [
    ("users", "users_online", brief, Color::Cyan),
    ("sent/s", "sent", brief, Color::Blue),
    ("answers/s", "answered", brief, Color::Green),
    ("p99", "latency_p99_us", time, Color::Magenta),
    ("p50", "latency_p50_us", time, Color::Magenta),
    ("overload", "overloaded", brief, Color::Yellow),
    ("ends/s", "disconnects", brief, Color::Yellow),
    ("won/s", "won", brief, Color::Red),
    ("planned/s", "planned", brief, Color::DarkGray),
    ("p99.9", "latency_p999_us", time, Color::Magenta),
    ("queue", "queue_depth_max", brief, Color::Yellow),
    ("srv mem", "server_resident_bytes", brief_bytes, Color::Cyan),
];

/// A label, and what of the reasons it stands for.
type Family = (&'static str, fn(&Reasons) -> &Kinds);

const FAMILIES: [Family; 4] = [
    ("violation", |of| &of.violations),
    ("error", |of| &of.errors),
    ("ended", |of| &of.ended),
    ("answer", |of| &of.answers),
];

/// A column of a table: title, width, and what it says of a row.
type Column<T> = (&'static str, u16, fn(&T) -> String);

const SOURCE_COLUMNS: [Column<SourceStatus>; 7] = [
    ("users", 9, |source| some(source.figures.online, brief)),
    ("goal", 9, |source| some(source.figures.users, brief)),
    ("cpu", 6, |source| some(source.figures.cpu_us, cores)),
    ("memory", 8, |source| some(source.figures.resident_bytes, brief_bytes)),
    ("clock", 20, |source| match (source.figures.clock_offset_us, source.figures.clock_error_us) {
        (Some(offset), Some(error)) => format!("{} ± {}", time(offset as f64), time(error as f64)),
        _ => String::new(),
    }),
    ("reports", 8, |source| brief(source.reports as f64)),
    ("starts", 6, |source| brief(source.instances.into())),
];

fn some(value: Option<i64>, text: fn(f64) -> String) -> String {
    value.map_or_else(String::new, |value| text(value as f64))
}

/// Processor time in a second, in percent of one processor.
fn cores(us: f64) -> String {
    format!("{:.0}%", us / 1e4)
}

/// The first three are always shown.
const SET_COLUMNS: [Column<SetFigures>; 5] = [
    ("conns", 8, |set| brief(set.connections)),
    ("users", 8, |set| brief(set.online)),
    ("queue", 8, |set| brief(set.queue_depth)),
    ("owed", 8, |set| brief(set.owed)),
    ("stock", 8, |set| brief(set.stock)),
];

/// A line of a chart.
struct Curve {
    label: &'static str,
    style: Style,
    points: Vec<(f64, f64)>,
    now: Option<f64>,
}

fn values(curves: &[Curve]) -> impl Iterator<Item = f64> {
    curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value)
}

/// A power of ten, or what lies half-way between two.
fn round_time(us: f64) -> String {
    match us {
        us if us < 995.0 => format!("{us:.0} µs"),
        us if us < 995_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

/// A column of the table of books: title, and what it says of a book.
type BookColumn = (&'static str, fn(&Trade) -> String);

const BOOK: BookColumn = ("", |trade| trade.book.to_owned());
const SERVERS: BookColumn = ("servers", |trade| brief(trade.sides.servers_count as f64));
const SERVERS_MONEY: BookColumn = ("servers / yuan", |trade| both(trade.sides.servers_count, trade.sides.servers_fen));
const USERS: BookColumn = ("users", |trade| brief(trade.sides.users_count as f64));
const USERS_MONEY: BookColumn = ("users / yuan", |trade| both(trade.sides.users_count, trade.sides.users_fen));
const RESIDUAL: BookColumn = ("residual", |trade| brief(trade.residual_count as f64));
const RESIDUAL_MONEY: BookColumn = ("residual / yuan", |trade| {
    let sign = if trade.sides.balanced() { "✓" } else { "✗" };
    format!("{sign} {}", both(trade.residual_count, trade.residual_fen))
});

/// In many words, and in ever fewer.
const BOOK_COLUMNS: [&[BookColumn]; 4] = [
    &[BOOK, SERVERS_MONEY, USERS_MONEY, RESIDUAL_MONEY],
    &[BOOK, SERVERS, USERS, RESIDUAL_MONEY],
    &[BOOK, RESIDUAL_MONEY],
    &[BOOK, RESIDUAL],
];

fn both(things: i64, fen: i64) -> String {
    format!("{} / {}", brief(things as f64), plain_yuan(fen))
}

/// A figure of the host or of a process: label, and what it is now.
type Resource = (&'static str, fn(&State) -> Option<String>);

const DESCRIPTORS: &str = "descriptors";

const RESOURCES: [Resource; 12] = [
    ("server cpu", |state| state.now("server_cpu_us").map(cores)),
    ("server memory", |state| state.now("server_resident_bytes").map(brief_bytes)),
    ("fleet cpu", |state| state.now("fleet_cpu_us").map(cores)),
    ("fleet memory", |state| state.now("fleet_resident_bytes").map(brief_bytes)),
    ("queue, longest", |state| state.now("queue_depth_max").map(brief)),
    (DESCRIPTORS, |state| {
        let open = brief(state.now("open_descriptors")?);
        let limit = state.now("descriptors_limit").filter(|limit| *limit > 0.0);
        Some(limit.map_or(open.clone(), |limit| format!("{open} of {}", brief(limit))))
    }),
    ("ledger p99", |state| state.now("ledger_commit_p99_us").map(time)),
    ("send lag p99", |state| state.now("send_lag_p99_us").map(time)),
    ("clock error", |state| state.now("clock_error_max_us").map(time)),
    ("network a second", |state| {
        let (received, sent) = (state.now("host_net_received_bytes")?, state.now("host_net_sent_bytes")?);
        Some(format!("{} in, {} out", brief_bytes(received), brief_bytes(sent)))
    }),
    ("memory free", |state| state.now("host_memory_available_bytes").map(brief_bytes)),
    ("prizes in SETs", |state| state.now("prizes_in_sets").map(brief)),
];

const OCCURRENCE_WIDTHS: [Constraint; 3] = [Min(12), Length(9), Length(9)];

/// How often something occurred in the last second and in the last minute.
fn occurrence<'a>(label: String, second: f64, minute: f64) -> TableRow<'a> {
    TableRow::new([Line::from(label), right(brief(second)), right(brief(minute))])
}

fn panel(title: &str) -> Block<'_> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(DIM)
        .title(Span::styled(format!(" {title} "), TITLE))
        .padding(Padding::horizontal(1))
}

impl<'a> Painter<'a, '_> {
    /// Renders a panel's border and returns what is inside.
    fn inside(&mut self, area: Rect, title: &str) -> Rect {
        let block = panel(title);
        let inner = block.inner(area);
        self.frame.render_widget(block, area);
        inner
    }

    fn text(&mut self, area: Rect, title: &str, lines: Vec<Line<'_>>) {
        self.frame.render_widget(Paragraph::new(lines).block(panel(title)), area);
    }

    /// A panel with a table. One that scrolls says in its border that there is more; returns how far
    /// it can be scrolled.
    fn table<'t>(
        &mut self,
        area: Rect,
        title: &'t str,
        (widths, head): (&[Constraint], Option<TableRow<'t>>),
        rows: Vec<TableRow<'t>>,
        scroll: Option<usize>,
    ) -> usize {
        let mut block = panel(title);
        let height = usize::from(block.inner(area).height).saturating_sub(head.is_some().into());
        let most = rows.len().saturating_sub(height);
        let hidden = scroll.unwrap_or(0).min(most);
        if scroll.is_some() && most > 0 {
            let place = format!(" ↑↓ {hidden} of {most} ─");
            block = block.title_bottom(right(Span::styled(place, DIM)));
        }
        let mut table = Table::new(rows.into_iter().skip(hidden), widths).block(block);
        if let Some(head) = head {
            table = table.header(head.style(DIM));
        }
        self.frame.render_widget(table, area);
        most
    }

    fn header(&mut self, area: Rect, now_seconds: u64) {
        let state = self.state;
        let (sign, style) = match &state.link {
            _ if self.choice.paused => ("‖ paused", WARN),
            Link::Live => ("● live", GOOD),
            Link::Connecting => ("○ connecting", WARN),
            Link::Ended => ("■ run over", STRONG),
            Link::Away(_) => ("○ monitor away", BAD),
        };
        let at = state.last().map_or(now_seconds, Row::second);
        let mut left = vec![Span::styled("hongbao ", ink(Color::Red).add_modifier(Modifier::BOLD))];
        let mut end = Vec::new();
        if let Some(last) = state.last() {
            left.push(Span::styled(elapsed(at.saturating_sub(state.status.started_at_ms / 1_000)), STRONG));
            if area.width >= 64 {
                left.push(Span::styled(format!("  run {}", state.run), DIM));
            }
            if last.get("complete") == Some(0.0) {
                let there = |name| brief(last.get(name).unwrap_or(0.0));
                let of = format!("INCOMPLETE {}/{} report ", there("sources_reported"), there("sources_expected"));
                end.push(Span::styled(if area.width >= 80 { of } else { "INCOMPLETE ".to_owned() }, WARN));
            }
            if area.width >= 48 {
                end.push(Span::styled(format!("{} UTC  ", clock(at)), DIM));
            }
        }
        end.push(Span::styled(sign, style));
        let end = right(end);
        let width = u16::try_from(end.width()).unwrap_or(area.width).min(area.width);
        let [begin, rest] = Layout::horizontal([Min(0), Length(width)]).areas(area);
        self.frame.render_widget(Line::from(left), begin);
        self.frame.render_widget(end, rest);
    }

    fn footer(&mut self, area: Rect) {
        let mut spans = Vec::new();
        for (key, view) in ('1'..).zip(View::ALL) {
            let chosen = view == self.choice.view;
            let style = if chosen { TITLE.add_modifier(Modifier::REVERSED) } else { DIM };
            let label = if area.width >= 60 { format!(" {key} {} ", view.title()) } else { format!(" {key} ") };
            spans.push(Span::styled(label, style));
        }
        let keys = if area.width >= 72 { "  p pause  ? help  q quit" } else { "  ? help" };
        spans.push(Span::styled(keys, DIM));
        self.frame.render_widget(Line::from(spans), area);
    }

    fn waiting(&mut self, area: Rect) -> usize {
        let text = match &self.state.link {
            Link::Away(problem) => format!("the monitor cannot be reached: {problem}"),
            Link::Connecting => "connecting to the monitor".to_owned(),
            Link::Live => "waiting for the first report".to_owned(),
            Link::Ended => "the run is over, and nobody reported".to_owned(),
        };
        let [_, middle, _] = Layout::vertical([Fill(1), Max(3), Fill(2)]).areas(area);
        let text = Paragraph::new(text).centered().wrap(Wrap { trim: true });
        self.frame.render_widget(text.style(STRONG), middle);
        0
    }

    // ---- Overview

    /// One line for each figure, the most important first.
    fn small(&mut self, area: Rect) -> usize {
        let state = self.state;
        let mut lines = vec![self.verdict()];
        if let Link::Away(problem) = &state.link {
            lines.push(Line::styled(problem.clone(), WARN));
        }
        let bars = usize::from(area.width.saturating_sub(24));
        for (label, column, text, colour) in FIGURES {
            let values: Vec<_> = state.column(column, bars).map(|(_, value)| value).collect();
            let max = values.iter().flatten().fold(0.0f64, |max, value| max.max(*value));
            let now = or_dash(values.last().copied().flatten(), text);
            let mut spans =
                vec![Span::styled(format!("{label:<9}"), DIM), Span::styled(format!("{now:>11}  "), STRONG)];
            if area.width >= 40 {
                spans.push(Span::styled(sparkline(&values, max), ink(colour)));
            }
            lines.push(Line::from(spans));
        }
        lines.extend(self.marks());
        self.frame.render_widget(Paragraph::new(lines), area);
        0
    }

    /// The one line that says whether money is right.
    fn verdict(&self) -> Line<'static> {
        let books = [
            ("rain", "residual_prizes", "residual_fen"),
            ("sales", "residual_units", "residual_sale_fen"),
            ("envelopes", "residual_shares", "residual_share_fen"),
        ];
        let off = books.into_iter().filter_map(|(book, things, fen)| {
            let [things, fen] = [things, fen].map(|column| self.state.now(column).unwrap_or(0.0));
            (things != 0.0 || fen != 0.0)
                .then(|| format!("{book} {} / {} yuan", decimals(things, 0), decimals(fen / 100.0, 2)))
        });
        let off = off.collect::<Vec<_>>().join(", ");
        let verdict = if off.is_empty() {
            Span::styled("✓ residual 0", GOOD.add_modifier(Modifier::BOLD))
        } else {
            Span::styled(format!(" ✗ RESIDUAL {off} "), BAD)
        };
        Line::from(vec![Span::styled("books    ", DIM), verdict])
    }

    fn large(&mut self, area: Rect) -> usize {
        let tall = area.height >= 33;
        let (lower, marks) =
            if tall { ((area.height / 3).clamp(7, 16), 2 + (area.height / 12).min(5)) } else { (0, 0) };
        let rows = Layout::vertical([Length(1), Min(6), Length(8), Length(lower), Length(marks)]);
        let [gauge, charts, middle, lower, marks] = rows.areas(area);
        self.gauge(gauge);
        let [left, right] = halves(charts);
        self.requests(left);
        self.latency(right);
        let [books, beside] = halves(middle);
        self.books(books);
        let wide = beside.width >= 76;
        if wide {
            let [trouble, resources] = halves(beside);
            self.trouble(trouble);
            self.resources(resources);
        } else {
            self.trouble(beside);
        }
        if tall {
            let [machines, other] = Layout::horizontal([Fill(3), Fill(2)]).areas(lower);
            self.machines(machines, None);
            if wide {
                self.odd_sets(other)
            } else {
                self.resources(other)
            }
            let mut lines = self.marks();
            if lines.is_empty() {
                lines.push(Line::styled("nothing yet", DIM));
            }
            self.text(marks, "marks", lines);
        }
        0
    }

    fn gauge(&mut self, area: Rect) {
        let [online, goal] = ["users_online", "users_goal"].map(|column| self.state.now(column).unwrap_or(0.0));
        let share = if goal > 0.0 { (online / goal).clamp(0.0, 1.0) } else { 0.0 };
        let text = if goal > 0.0 {
            format!(" {} of {} users on-line ({:.1}%)", decimals(online, 0), decimals(goal, 0), share * 100.0)
        } else {
            format!(" {} users on-line", decimals(online, 0))
        };
        let room = if goal > 0.0 { area.width.saturating_sub(letters(&text)).saturating_sub(1) } else { 0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a terminal's width")]
        let filled = (f64::from(room) * share).floor() as usize;
        let style = if share >= 0.999 { GOOD } else { ink(Color::Cyan) };
        let bar = vec![
            Span::raw(" "),
            Span::styled("━".repeat(filled), style),
            Span::styled("┄".repeat(usize::from(room).saturating_sub(filled)), DIM),
            Span::styled(text, STRONG),
        ];
        self.frame.render_widget(Line::from(bar), area);
    }

    fn requests(&mut self, area: Rect) {
        let inner = self.inside(area, "requests a second");
        let of = [
            ("sent", "sent", Color::Blue),
            ("answered", "answered", Color::Green),
            ("planned", "planned", Color::DarkGray),
            ("received", "received", Color::Cyan),
        ];
        let curves = self.curves(inner.width, &of, |value| value);
        let max = values(&curves).fold(1.0f64, f64::max) * 1.05;
        self.chart(inner, &curves, (0.0, max), &[0.0, max / 2.0, max].map(brief), brief);
    }

    fn latency(&mut self, area: Rect) {
        let inner = self.inside(area, fitting(area, "latency from the planned send time", "latency"));
        let of = [
            ("latency_p50_us", "p50", Color::Green),
            ("latency_p99_us", "p99", Color::Yellow),
            ("latency_p999_us", "p99.9", Color::Red),
        ];
        // Logarithms: what matters lies between a tenth of a millisecond and ten seconds.
        let curves = self.curves(inner.width, &of, |us| us.max(1.0).log10());
        let min = values(&curves).fold(f64::INFINITY, f64::min);
        let max = values(&curves).fold(f64::NEG_INFINITY, f64::max);
        let (min, max) = if min <= max { (min.floor(), max.ceil().max(min.floor() + 1.0)) } else { (2.0, 5.0) };
        let middle = (max - min >= 2.0 && inner.height >= 7).then(|| f64::midpoint(min, max));
        let powers = [Some(min), middle, Some(max)].into_iter().flatten();
        let labels: Vec<_> = powers.map(|power| round_time(10f64.powf(power))).collect();
        self.chart(inner, &curves, (min, max), &labels, time);
    }

    /// The latest seconds that fit into `width` cells, two points a cell, as (seconds ago, value).
    fn curves(&self, width: u16, of: &[(&str, &'static str, Color)], shape: fn(f64) -> f64) -> Vec<Curve> {
        let (state, seconds) = (self.state, usize::from(width.saturating_sub(9)) * 2);
        let last = state.last().map_or(0, Row::second);
        let curve = |&(column, label, colour): &(&str, _, _)| {
            let recent = state.column(column, seconds).filter(|(second, _)| last - second < seconds as u64);
            let points = recent.filter_map(|(second, value)| Some((-((last - second) as f64), shape(value?))));
            Curve { label, style: ink(colour), points: points.collect(), now: state.now(column) }
        };
        of.iter().map(curve).collect()
    }

    /// The curves' names with their latest values: what of them fits.
    fn legend(&self, curves: &[Curve], width: u16, text: fn(f64) -> String) -> Line<'static> {
        let mut spans = Vec::new();
        let mut room = width;
        for curve in curves {
            let now = or_dash(curve.now, text);
            let needed = letters(curve.label) + letters(&now) + 5;
            if needed > room {
                break;
            }
            room -= needed;
            spans.push(Span::styled("▬ ", curve.style));
            spans.push(Span::styled(format!("{} ", curve.label), DIM));
            spans.push(Span::styled(format!("{now}  "), STRONG));
        }
        Line::from(spans)
    }

    fn chart(
        &mut self,
        area: Rect,
        curves: &[Curve],
        (min, max): (f64, f64),
        labels: &[String],
        text: fn(f64) -> String,
    ) {
        if area.height < 3 || area.width < 20 {
            return;
        }
        let [top, below] = Layout::vertical([Length(1), Min(1)]).areas(area);
        self.frame.render_widget(self.legend(curves, area.width, text), top);
        let ends = self.state.rows.first().zip(self.state.last());
        let oldest = ends.map_or(1.0, |(first, last)| (last.second() - first.second()) as f64);
        let span = (f64::from(below.width.saturating_sub(9).max(1)) * 2.0).min(oldest.max(30.0));
        // Later ones are drawn over earlier ones: the first named is on top.
        let datasets = curves.iter().rev().map(|curve| {
            let data = Dataset::default().data(&curve.points).style(curve.style);
            data.marker(Marker::Braille).graph_type(GraphType::Line)
        });
        let wide = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(7);
        let labels = labels.iter().map(|label| Span::styled(format!("{label:>wide$}"), DIM));
        let x_labels = [Span::styled(format!("-{span:.0} s"), DIM), Span::styled("now", DIM)];
        let chart = Chart::new(datasets.collect())
            .x_axis(Axis::default().bounds([-span, 0.0]).labels(x_labels).style(DIM))
            .y_axis(Axis::default().bounds([min, max]).labels(labels).style(DIM))
            .legend_position(None);
        self.frame.render_widget(chart, below);
    }

    fn books(&mut self, area: Rect) {
        let state = self.state;
        let title = fitting(area, "books: what servers paid, what users got", "books");
        let Some(balance) = &state.books else { return self.text(area, title, vec![self.verdict()]) };
        let inner = self.inside(area, title);
        let [table, below] = Layout::vertical([Length(4), Min(0)]).areas(inner);
        // A figure of which the beginning is cut off would be another figure: what does not fit
        // whole is left out.
        let trades = balance.claims.trades();
        let width = |(title, text): &BookColumn| {
            trades.iter().map(|trade| letters(&text(trade))).fold(letters(title), u16::max)
        };
        let fits =
            |columns: &&[BookColumn]| columns.iter().map(|column| width(column) + 1).sum::<u16>() <= inner.width + 1;
        let columns = BOOK_COLUMNS.into_iter().find(fits).unwrap_or(BOOK_COLUMNS[3]);
        let rows = trades.iter().map(|trade| {
            let style = if trade.sides.balanced() { GOOD } else { BAD };
            let mut cells: Vec<_> = columns.iter().map(|(_, text)| right(text(trade))).collect();
            cells[0].alignment = None;
            let last = cells.pop().map(|cell| cell.style(style));
            TableRow::new(cells.into_iter().chain(last))
        });
        let head = TableRow::new(columns.iter().map(|(title, _)| right(*title))).style(DIM);
        let widths = columns.iter().map(|column| Min(width(column)));
        self.frame.render_widget(Table::new(rows, widths).header(head), table);
        let mut verdict = vec![if balance.balanced() {
            Span::styled("✓ they agree to the fen", GOOD.add_modifier(Modifier::BOLD))
        } else {
            Span::styled(format!(" ✗ THEY DIFFER, for {} s ", balance.unbalanced_seconds), BAD)
        }];
        if state.status.record_failures > 0 {
            let failures = brief(state.status.record_failures as f64);
            verdict.push(Span::styled(format!("  {failures} writes to the recording FAILED"), BAD));
        }
        self.frame.render_widget(Line::from(verdict), below);
    }

    fn trouble(&mut self, area: Rect) {
        let state = self.state;
        let minute = |column: &str| state.column(column, 60).filter_map(|(_, value)| value).sum::<f64>();
        let columns = [("overloaded", true), ("refused", true), ("disconnects", false)]
            .map(|(column, is_bad)| (column.to_owned(), state.now(column).unwrap_or(0.0), minute(column), is_bad));
        let kinds = FAMILIES.iter().take(3).flat_map(|&(label, of)| {
            let kinds = state.reasons(of).into_iter();
            kinds.map(move |(kind, second, minute)| (format!("{label}: {kind}"), second, minute, label != "ended"))
        });
        let rows = columns.into_iter().chain(kinds).map(|(label, second, minute, is_bad)| {
            let style = match (is_bad && second > 0.0, minute > 0.0) {
                (true, _) => WARN,
                (false, true) => Style::new(),
                (false, false) => DIM,
            };
            occurrence(label, second, minute).style(style)
        });
        let title = fitting(area, "refusals and ends, last second and minute", "refusals, ends: 1 s, 1 min");
        self.table(area, title, (&OCCURRENCE_WIDTHS, None), rows.collect(), None);
    }

    fn resources(&mut self, area: Rect) {
        let state = self.state;
        // What would lose its beginning would be another figure.
        let room = area.width.saturating_sub(21);
        let limit = state.now("descriptors_limit").filter(|limit| *limit > 0.0);
        let nearly_full = state.now("open_descriptors").zip(limit).is_some_and(|(open, limit)| open > 0.9 * limit);
        let rows = RESOURCES.iter().filter_map(|(label, text)| {
            let value = text(state).filter(|value| letters(value) <= room)?;
            let style = if nearly_full && *label == DESCRIPTORS { WARN } else { STRONG };
            Some(TableRow::new([Line::styled(*label, DIM), right(value).style(style)]))
        });
        let widths = [Length(16), Min(8)];
        self.table(area, "resources", (&widths, None), rows.collect(), None);
    }

    fn odd_sets(&mut self, area: Rect) {
        let state = self.state;
        let line = |(set, what): (&SetFigures, _)| {
            let name = format!("{} #{:<4} ", set.server, set.index);
            Line::from(vec![Span::styled(name, STRONG), Span::styled(what, WARN)])
        };
        let mut lines: Vec<_> = state.odd_sets().into_iter().map(line).collect();
        if lines.is_empty() {
            let text = match state.sets.len() {
                0 => "no server has told of its SETs".to_owned(),
                sets => format!("✓ none of {sets}"),
            };
            lines.push(Line::styled(text, GOOD));
        }
        self.text(area, "SETs that stand out", lines);
    }

    /// The latest first.
    fn marks(&self) -> Vec<Line<'a>> {
        let line = |mark: &'a Mark| {
            let style = match mark.kind.as_str() {
                ALERT => BAD,
                RESOLVED => GOOD,
                "storm" | "drain" => WARN,
                _ => ink(Color::Cyan),
            };
            Line::from(vec![
                Span::styled(format!("{} ", clock(mark.at_ms / 1_000)), DIM),
                Span::styled(format!("{:<9} ", mark.kind), style),
                Span::raw(&mark.text),
                Span::styled(format!("  {}", mark.source), DIM),
            ])
        };
        self.state.marks.iter().rev().map(line).collect()
    }

    // ---- The other views

    fn machines(&mut self, area: Rect, scroll: Option<usize>) -> usize {
        let state = self.state;
        let mut room = area.width.saturating_sub(32);
        let fits = |column: &&Column<SourceStatus>| {
            let fits = room > column.1;
            room = room.saturating_sub(column.1 + 1);
            fits
        };
        let shown: Vec<_> = SOURCE_COLUMNS.iter().take_while(fits).collect();
        let row = |source: &SourceStatus| {
            let SourceStatus { role, name, presence, .. } = source;
            let style = match presence {
                Presence::Reporting => GOOD,
                Presence::Lost => BAD,
                Presence::Left => DIM,
            };
            let cells = [format!("{role}/{name}").into(), Span::styled(<&str>::from(presence), style).into()];
            TableRow::new(cells.into_iter().chain(shown.iter().map(|(.., text)| right(text(source)))))
        };
        let rows = state.sources.iter().map(row).collect();
        let titles = shown.iter().map(|(title, ..)| right(*title));
        let head = [Line::from("name"), Line::from("state")].into_iter().chain(titles);
        let widths = [Min(15), Length(10)].into_iter();
        let widths: Vec<_> = widths.chain(shown.iter().map(|(_, width, _)| Length(*width))).collect();
        let title = format!("machines and servers ({})", state.sources.len());
        self.table(area, &title, (&widths, Some(TableRow::new(head))), rows, scroll)
    }

    fn sets(&mut self, area: Rect) -> usize {
        let state = self.state;
        let above = if area.height >= 16 { 7 } else { 0 };
        let [above, below] = Layout::vertical([Length(above), Min(1)]).areas(area);
        if above.height > 0 {
            self.odd_sets(above);
        }
        let most = |of: fn(&SetFigures) -> f64| state.sets.iter().map(of).fold(0.0f64, f64::max);
        let (connections, queue) = (most(|set| set.connections), most(|set| set.queue_depth));
        let odd = state.odd_sets();
        let bar = |value: f64, max: f64, colour| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most ten")]
            let filled = if max > 0.0 { (value / max * 10.0).round().clamp(0.0, 10.0) as usize } else { 0 };
            Line::styled("■".repeat(filled), ink(colour))
        };
        let wide = below.width >= 88;
        let columns = if wide { &SET_COLUMNS[..] } else { &SET_COLUMNS[..3] };
        let row = |set: &SetFigures| {
            let is_odd = odd.iter().any(|(other, _)| std::ptr::eq(*other, set));
            let mut cells = vec![Line::from(format!("{} #{}", set.server, set.index))];
            cells.extend(columns.iter().map(|(.., text)| right(text(set))));
            if wide {
                let bars = [(set.connections, connections, Color::Cyan), (set.queue_depth, queue, Color::Yellow)];
                cells.extend(bars.map(|(value, max, colour)| bar(value, max, colour)));
            }
            TableRow::new(cells).style(if is_odd { WARN } else { Style::new() })
        };
        let rows = state.sets.iter().map(row).collect();
        let mut head = vec![Line::from("SET")];
        head.extend(columns.iter().map(|(title, ..)| right(*title)));
        let mut widths = vec![Min(10)];
        widths.extend(columns.iter().map(|(_, width, _)| Length(*width)));
        if wide {
            head.extend(["connections", "queue"].map(Line::from));
            widths.extend([12, 10].map(Length));
        }
        let title = format!("SETs ({})", state.sets.len());
        self.table(below, &title, (&widths, Some(TableRow::new(head))), rows, Some(self.choice.scroll))
    }

    fn events(&mut self, area: Rect) -> usize {
        let (state, scroll) = (self.state, Some(self.choice.scroll));
        let layout = if area.width >= 90 { Layout::horizontal } else { Layout::vertical };
        let [left, right] = layout([Fill(1); 2]).areas(area);
        let rows = FAMILIES.iter().zip([BAD, WARN, Style::new(), Style::new()]);
        let rows = rows.flat_map(|(&(label, of), style)| {
            let kinds = state.reasons(of).into_iter();
            kinds.map(move |(kind, second, minute)| occurrence(format!("{label}: {kind}"), second, minute).style(style))
        });
        let title = "last second, last minute";
        let reasons = self.table(left, title, (&OCCURRENCE_WIDTHS, None), rows.collect(), scroll);
        let marks = self.marks().into_iter().map(|mark| TableRow::new([mark])).collect();
        let title = "marks, the latest first";
        reasons.max(self.table(right, title, (&[Fill(1)], None), marks, scroll))
    }

    fn help(&mut self, area: Rect) {
        let keys = [
            ("1 2 3 4  Tab", "overview, machines, SETs, events"),
            ("↑ ↓  PgUp PgDn", "scroll a list"),
            ("p  Space", "pause the picture, and go on"),
            ("? h", "this"),
            ("q  Esc  Ctrl-C", "quit"),
        ];
        let line = |(key, what)| Line::from(vec![Span::styled(format!("{key:<16}"), STRONG), Span::raw(what)]);
        let (width, height) = (54.min(area.width), 7.min(area.height));
        let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
        self.frame.render_widget(Clear, place);
        self.text(place, "keys", keys.map(line).to_vec());
    }
}
