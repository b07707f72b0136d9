//! What a recorded run came to, for people: charts, tables, and the same figures for programs.
//!
//! [`load`] reads a recording into types; [`figures`] computes every figure once; [`tables`] and
//! [`charts`] decide what is told; [`page`], [`markdown`] and [`draw`] decide how.

pub mod charts;
pub mod compare;
pub mod draw;
pub mod figures;
pub mod load;
pub mod markdown;
pub mod page;
pub mod tables;
pub mod words;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use charts::Chart;
use compare::Comparison;
use figures::Figures;
use load::{RecapError, Recording};
use tables::Table;

use crate::recording::write::replace;

/// The page, in the report's directory.
pub const PAGE_FILE: &str = "report.html";
/// The tables as Markdown.
pub const MARKDOWN_FILE: &str = "report.md";
/// The figures.
pub const FIGURES_FILE: &str = "report.json";

/// Arguments of `hongbao-monitor report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Directory that a monitor has recorded to
    recording: PathBuf,

    /// The fleet's summary [default: summary.json in the recording, if it is there]
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,

    /// Where to write report.html, report.md, report.json and the charts; made if needed [default:
    /// RECORDING/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Arguments of `hongbao-monitor compare`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// Directory of the first recording
    a: PathBuf,

    /// Directory of the second
    b: PathBuf,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Two recordings side by side, as text.
pub fn compare(arguments: &CompareArguments) -> Result<String, RecapError> {
    let figures = |directory: &Path| Ok::<_, RecapError>(Figures::of(&Recording::load(directory, None)?));
    let (a, b) = (figures(&arguments.a)?, figures(&arguments.b)?);
    let name = |path: &Path| {
        path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let both = Comparison::of((&name(&arguments.a), &a), (&name(&arguments.b), &b));
    if arguments.json {
        serde_json::to_string_pretty(&both).map_err(|error| undrawn("the comparison", &error))
    } else {
        Ok(both.table())
    }
}

/// A report drawn in memory, whatever becomes of it.
#[derive(Debug)]
pub struct Drawn {
    /// Every figure.
    pub figures: Figures,
    tables: Vec<Table>,
    /// Each with its drawing as SVG.
    charts: Vec<(Chart, String)>,
}

impl Drawn {
    /// Of a recording.
    pub fn of(recording: &Recording) -> Result<Self, RecapError> {
        let figures = Figures::of(recording);
        let tables = tables::all(&figures);
        let drawn = |chart: Chart| {
            let svg = draw::svg(&chart).map_err(|problem| undrawn(chart.file, &problem))?;
            Ok((chart, svg))
        };
        let charts = charts::all(recording).into_iter().map(drawn).collect::<Result<_, RecapError>>()?;
        Ok(Self { figures, tables, charts })
    }

    /// One page that needs nothing else.
    pub fn page(&self) -> String {
        page::render(&self.figures, &self.tables, &self.charts)
    }

    /// The figures for programs.
    pub fn json(&self) -> Result<Vec<u8>, RecapError> {
        serde_json::to_vec_pretty(&self.figures).map_err(|error| undrawn(FIGURES_FILE, &error))
    }

    /// Names of the charts, in the order of the page, each with its title.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.charts.iter().map(|(chart, _)| (chart.file, chart.title))
    }

    /// A chart as a PNG; `None` if there is none of that name.
    pub fn png(&self, name: &str) -> Option<Result<Vec<u8>, RecapError>> {
        let (chart, _) = self.charts.iter().find(|(chart, _)| chart.file == name)?;
        Some(draw::png(chart).map_err(|problem| undrawn(chart.file, &problem)))
    }
}

/// Writes the report and returns what to tell whoever asked for it: the verdict, the memory, and
/// where the report is. What was there of an older report is replaced.
pub fn write(arguments: &ReportArguments) -> Result<String, RecapError> {
    let recording = Recording::load(&arguments.recording, arguments.summary.as_deref())?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.recording.join("report"));
    fs::create_dir_all(&out).map_err(|error| unwritable(&out, &error))?;
    let drawn = Drawn::of(&recording)?;
    put(&out.join(FIGURES_FILE), &drawn.json()?)?;
    put(&out.join(MARKDOWN_FILE), markdown::render(&drawn.figures, &drawn.tables, &drawn.charts).as_bytes())?;
    for (chart, svg) in &drawn.charts {
        let file = out.join(format!("{}.svg", chart.file));
        put(&file, svg.as_bytes())?;
        let png = draw::png(chart).map_err(|problem| undrawn(chart.file, &problem))?;
        put(&file.with_extension("png"), &png)?;
    }
    let page = out.join(PAGE_FILE);
    put(&page, drawn.page().as_bytes())?;
    let mut lines = vec![tables::verdict(&drawn.figures)];
    lines.extend(tables::memory_line(&drawn.figures));
    lines.push(format!("report: {}", page.display()));
    Ok(lines.join("\n"))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), RecapError> {
    replace(path, bytes).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, problem: &impl ToString) -> RecapError {
    RecapError::Unwritable { path: path.into(), problem: problem.to_string() }
}

fn undrawn(what: &str, problem: &impl ToString) -> RecapError {
    RecapError::Undrawn { what: what.into(), problem: problem.to_string() }
}
