/// What is drawn on, and with.
struct Painter<'a, 'b> {
    frame: &'a mut Frame<'b>,
    state: &'a State,
    choice: &'a Choice,
    paint: Paint,
}

/// Draws everything; returns how far the list of this view can be scrolled.
pub fn draw(frame: &mut Frame<'_>, state: &State, choice: &Choice, now_seconds: u64) -> usize {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        frame.render_widget(Paragraph::new("too small"), area);
        return 0;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    let mut painter = Painter { frame, state, choice, paint: Paint(choice.colours) };
    painter.header(head, now_seconds);
    painter.footer(foot);
    let mut scrollable = 0;
    match choice.view {
        _ if state.rows.is_empty() && state.sources.is_empty() => painter.waiting(body),
        View::Overview if body.width >= 76 && body.height >= 17 => painter.large(body),
        View::Overview => painter.small(body),
        View::Machines => scrollable = painter.machines(body, Some(choice.scroll)),
        View::Sets => scrollable = painter.sets(body),
        View::Events => scrollable = painter.events(body),
    }
    if choice.help {
        painter.help(area);
    }
    scrollable
}

/// The longer title where there is room for it.
fn fitting(area: Rect, long: &'static str, short: &'static str) -> &'static str {
    if usize::from(area.width) >= long.len() + 6 { long } else { short }
}

fn right<'a>(text: impl Into<Line<'a>>) -> Line<'a> {
    text.into().alignment(Alignment::Right)
}

fn halves(layout: fn([Constraint; 2]) -> Layout, area: Rect) -> [Rect; 2] {
    layout([Constraint::Fill(1), Constraint::Fill(1)]).areas(area)
}

fn letters(text: &str) -> u16 {
    u16::try_from(text.chars().count()).unwrap_or(u16::MAX)
}

/// A figure of the overview without charts: label, column, how it is written, colour.
type Figure = (&'static str, &'static str, fn(f64) -> String, Option<Color>);

/// The most important first.
const FIGURES: [Figure; 12] = [
    ("users", "users_online", brief, Some(Color::Cyan)),
    ("sent/s", "sent", brief, Some(Color::Blue)),
    ("answers/s", "answered", brief, Some(Color::Green)),
    ("p99", "latency_p99_us", time, Some(Color::Magenta)),
    ("p50", "latency_p50_us", time, Some(Color::Magenta)),
    ("overload", "overloaded", brief, Some(Color::Yellow)),
    ("ends/s", "disconnects", brief, Some(Color::Yellow)),
    ("won/s", "won", brief, Some(Color::Red)),
    ("planned/s", "planned", brief, None),
    ("p99.9", "latency_p999_us", time, Some(Color::Magenta)),
    ("queue", "queue_depth_max", brief, Some(Color::Yellow)),
    ("srv mem", "server_resident_bytes", brief_bytes, Some(Color::Cyan)),
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

/// The first four are always shown.
const SET_COLUMNS: [Column<SetFigures>; 5] = [
    ("conns", 8, |set| brief(set.connections)),
    ("users", 8, |set| brief(set.online)),
    ("queue", 8, |set| brief(set.queue_depth)),
    ("owed", 8, |set| brief(set.owed)),
    ("stock", 8, |set| brief(set.stock)),
];

impl Painter<'_, '_> {
    fn put(&mut self, area: Rect, lines: Vec<Line<'_>>) {
        self.frame.render_widget(Paragraph::new(lines), area);
    }

    fn panel<'t>(&self, title: &'t str) -> Block<'t> {
        Block::bordered()
            .border_type(BorderType::Rounded)
            .border_style(self.paint.dim())
            .title(Span::styled(format!(" {title} "), self.paint.title()))
            .padding(Padding::horizontal(1))
    }

    /// Renders a panel's border and returns what is inside.
    fn inside(&mut self, area: Rect, title: &str) -> Rect {
        let block = self.panel(title);
        let inner = block.inner(area);
        self.frame.render_widget(block, area);
        inner
    }

    fn header(&mut self, area: Rect, now_seconds: u64) {
        let (state, paint) = (self.state, self.paint);
        let (sign, style) = match &state.link {
            _ if self.choice.paused => ("‖ paused", paint.warn()),
            Link::Live => ("● live", paint.good()),
            Link::Connecting => ("○ connecting", paint.warn()),
            Link::Ended => ("■ run over", paint.strong()),
            Link::Away(_) => ("○ monitor away", paint.bad()),
        };
        let at = state.last().map_or(now_seconds, Row::second);
        let mut left = vec![Span::styled("hongbao ", paint.colour(Color::Red).add_modifier(Modifier::BOLD))];
        let mut end = Vec::new();
        if let Some(last) = state.last() {
            left.push(Span::styled(elapsed(at.saturating_sub(state.status.started_at_ms / 1_000)), paint.strong()));
            if area.width >= 64 {
                left.push(Span::styled(format!("  run {}", state.run), paint.dim()));
            }
            if last.get("complete") == Some(0.0) {
                let there = |name| brief(last.get(name).unwrap_or(0.0));
                let of = format!("INCOMPLETE {}/{} report ", there("sources_reported"), there("sources_expected"));
                end.push(Span::styled(if area.width >= 80 { of } else { "INCOMPLETE ".to_owned() }, paint.warn()));
            }
            if area.width >= 48 {
                end.push(Span::styled(format!("{} UTC  ", clock(at)), paint.dim()));
            }
        }
        end.push(Span::styled(sign, style));
        let end = right(end);
        let width = u16::try_from(end.width()).unwrap_or(area.width).min(area.width);
        let [begin, rest] = Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
        self.frame.render_widget(Line::from(left), begin);
        self.frame.render_widget(end, rest);
    }

    fn footer(&mut self, area: Rect) {
        let paint = self.paint;
        let mut spans = Vec::new();
        for (key, view) in ('1'..).zip(View::ALL) {
            let chosen = view == self.choice.view;
            let style = if chosen { paint.title().add_modifier(Modifier::REVERSED) } else { paint.dim() };
            let label = if area.width >= 60 { format!(" {key} {} ", view.title()) } else { format!(" {key} ") };
            spans.push(Span::styled(label, style));
        }
        let keys = if area.width >= 72 { "  p pause  ? help  q quit" } else { "  ? help" };
        spans.push(Span::styled(keys, paint.dim()));
        self.frame.render_widget(Line::from(spans), area);
    }

    fn waiting(&mut self, area: Rect) {
        let text = match &self.state.link {
            Link::Away(problem) => format!("the monitor cannot be reached: {problem}"),
            Link::Connecting => "connecting to the monitor".to_owned(),
            Link::Live => "waiting for the first report".to_owned(),
            Link::Ended => "the run is over, and nobody reported".to_owned(),
        };
        let [_, middle, _] =
            Layout::vertical([Constraint::Fill(1), Constraint::Max(3), Constraint::Fill(2)]).areas(area);
        let text = Paragraph::new(text).alignment(Alignment::Center).wrap(Wrap { trim: true });
        self.frame.render_widget(text.style(self.paint.strong()), middle);
    }

    // ---- Overview

    /// One line for each figure, the most important first.
    fn small(&mut self, area: Rect) {
        let (state, paint) = (self.state, self.paint);
        let mut lines = vec![self.verdict()];
        if let Link::Away(problem) = &state.link {
            lines.push(Line::styled(problem.clone(), paint.warn()));
        }
        let bars = usize::from(area.width.saturating_sub(24));
        for (label, column, text, colour) in FIGURES {
            let values: Vec<_> = state.column(column, bars).map(|(_, value)| value).collect();
            let max = values.iter().flatten().fold(0.0f64, |max, value| max.max(*value));
            let now = or_dash(values.last().copied().flatten(), text);
            let mut spans = vec![
                Span::styled(format!("{label:<9}"), paint.dim()),
                Span::styled(format!("{now:>11}  "), paint.strong()),
            ];
            if area.width >= 40 {
                let style = colour.map_or(paint.dim(), |colour| paint.colour(colour));
                spans.push(Span::styled(sparkline(&values, max), style));
            }
            lines.push(Line::from(spans));
        }
        lines.extend(self.marks());
        self.put(area, lines);
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
        let verdict = match off.is_empty() {
            true => Span::styled("✓ residual 0", self.paint.good().add_modifier(Modifier::BOLD)),
            false => Span::styled(format!(" ✗ RESIDUAL {off} "), self.paint.bad()),
        };
        Line::from(vec![Span::styled("books    ", self.paint.dim()), verdict])
    }

    fn large(&mut self, area: Rect) {
        let tall = area.height >= 33;
        let details = if tall { area.height / 3 } else { 8 };
        let [gauge, charts, middle, lower, marks] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(6),
            Constraint::Length(8),
            Constraint::Length(if tall { details.clamp(7, 16) } else { 0 }),
            Constraint::Length(if tall { 2 + (area.height / 12).min(5) } else { 0 }),
        ])
        .areas(area);
        self.gauge(gauge);
        let [left, right] = halves(Layout::horizontal, charts);
        self.requests(left);
        self.latency(right);
        let [books, beside] = halves(Layout::horizontal, middle);
        self.books(books);
        let wide = beside.width >= 76;
        if wide {
            let [trouble, resources] = halves(Layout::horizontal, beside);
            self.trouble(trouble);
            self.resources(resources);
        } else {
            self.trouble(beside);
        }
        if !tall {
            return;
        }
        if wide || area.width >= 110 {
            let [machines, other] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(lower);
            self.machines(machines, None);
            if wide { self.odd_sets(other) } else { self.resources(other) }
        } else {
            let [machines, other] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(lower);
            self.machines(machines, None);
            self.resources(other);
        }
        let inner = self.inside(marks, "marks");
        let nothing = self.state.marks.is_empty().then(|| Line::styled("nothing yet", self.paint.dim()));
        let lines = self.marks().take(inner.height.into()).chain(nothing).collect();
        self.put(inner, lines);
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
        let style = if share >= 0.999 { self.paint.good() } else { self.paint.colour(Color::Cyan) };
        let bar = vec![
            Span::raw(" "),
            Span::styled("━".repeat(filled), style),
            Span::styled("┄".repeat(usize::from(room).saturating_sub(filled)), self.paint.dim()),
            Span::styled(text, self.paint.strong()),
        ];
        self.frame.render_widget(Line::from(bar), area);
    }

    fn requests(&mut self, area: Rect) {
        let inner = self.inside(area, "requests a second");
        let of = [
            ("sent", "sent", self.paint.colour(Color::Blue)),
            ("answered", "answered", self.paint.good()),
            ("planned", "planned", self.paint.dim()),
            ("received", "received", self.paint.colour(Color::Cyan)),
        ];
        let curves = self.curves(inner.width, &of, |value| value);
        let max = values(&curves).fold(1.0f64, f64::max) * 1.05;
        self.chart(inner, &curves, (0.0, max), &[0.0, max / 2.0, max].map(brief), brief);
    }

    fn latency(&mut self, area: Rect) {
        let inner = self.inside(area, fitting(area, "latency from the planned send time", "latency"));
        let of = [
            ("latency_p50_us", "p50", self.paint.good()),
            ("latency_p99_us", "p99", self.paint.colour(Color::Yellow)),
            ("latency_p999_us", "p99.9", self.paint.colour(Color::Red)),
        ];
        // Logarithms: what matters lies between a tenth of a millisecond and ten seconds.
        let curves = self.curves(inner.width, &of, |us| us.max(1.0).log10());
        let (min, max) =
            (values(&curves).fold(f64::INFINITY, f64::min), values(&curves).fold(f64::NEG_INFINITY, f64::max));
        let (min, max) = if min <= max { (min.floor(), max.ceil().max(min.floor() + 1.0)) } else { (2.0, 5.0) };
        let middle = (max - min >= 2.0 && inner.height >= 7).then(|| f64::midpoint(min, max));
        let powers = [Some(min), middle, Some(max)].into_iter().flatten();
        let labels: Vec<_> = powers.map(|power| round_time(10f64.powf(power))).collect();
        self.chart(inner, &curves, (min, max), &labels, time);
    }

    /// The latest seconds that fit into `width` cells, two points a cell.
    fn curves(&self, width: u16, of: &[(&str, &'static str, Style)], shape: fn(f64) -> f64) -> Vec<Curve> {
        let (state, seconds) = (self.state, usize::from(width.saturating_sub(9)) * 2);
        let last = state.last().map_or(0, Row::second);
        let curve = |&(column, label, style): &(&str, _, _)| {
            let recent = state.column(column, seconds).filter(|(second, _)| last - second < seconds as u64);
            let points = recent.filter_map(|(second, value)| Some((-((last - second) as f64), shape(value?))));
            Curve { label, style, points: points.collect(), now: state.now(column) }
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
            spans.push(Span::styled(format!("{} ", curve.label), self.paint.dim()));
            spans.push(Span::styled(format!("{now}  "), self.paint.strong()));
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
        let [top, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
        self.frame.render_widget(self.legend(curves, area.width, text), top);
        let ends = self.state.rows.first().zip(self.state.last());
        let oldest = ends.map_or(1.0, |(first, last)| (last.second() - first.second()) as f64);
        let span = (f64::from(below.width.saturating_sub(9).max(1)) * 2.0).min(oldest.max(30.0));
        // Later ones are drawn over earlier ones: the first named is on top.
        let datasets = curves.iter().rev().map(|curve| {
            let data = Dataset::default().data(&curve.points).style(curve.style);
            data.marker(Marker::Braille).graph_type(GraphType::Line)
        });
        let dim = self.paint.dim();
        let wide = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(7);
        let labels = labels.iter().map(|label| Span::styled(format!("{label:>wide$}"), dim));
        let x_labels = [Span::styled(format!("-{span:.0} s"), dim), Span::styled("now", dim)];
        let chart = Chart::new(datasets.collect())
            .x_axis(Axis::default().bounds([-span, 0.0]).labels(x_labels).style(dim))
            .y_axis(Axis::default().bounds([min, max]).labels(labels).style(dim))
            .legend_position(None);
        self.frame.render_widget(chart, below);
    }

    fn books(&mut self, area: Rect) {
        let inner = self.inside(area, fitting(area, "books: what servers paid, what users got", "books"));
        let paint = self.paint;
        let Some(balance) = &self.state.books else { return self.put(inner, vec![self.verdict()]) };
        // A figure of which the beginning is cut off would be another figure: what does not fit
        // whole is left out.
        let width = |column: &[String; 4]| column.iter().map(|text| letters(text)).max().unwrap_or(0);
        let fits = |columns: &Vec<[String; 4]>| columns.iter().map(|column| width(column) + 1).sum::<u16>() <= inner.width + 1;
        let columns = (0..3).map(|detail| book_columns(balance, detail)).find(fits);
        let columns = columns.unwrap_or_else(|| book_columns(balance, 3));
        let rows = (0..4).map(|row| {
            let style = match row.checked_sub(1).map(|book| balance.claims.sides(Book::ALL[book]).balanced()) {
                None => paint.dim(),
                Some(true) => paint.good(),
                Some(false) => paint.bad(),
            };
            Row_::new(columns.iter().enumerate().map(|(place, column)| match place {
                0 => Cell::from(column[row].clone()),
                place if place + 1 == columns.len() => Cell::from(right(column[row].clone()).style(style)),
                _ => Cell::from(right(column[row].clone())),
            }))
        });
    }
}
