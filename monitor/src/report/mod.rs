//! What a recorded run came to: the page with the run in it, tables, the experiment's charts, and
//! the same figures for programs.
//!
//! [`load`] reads a recording into types; [`figures`] computes every figure once; [`tables`] and
//! [`charts`] decide what is shown; [`page`], [`markdown`] and [`draw`] decide how.

pub mod charts;
pub mod compare;
pub mod draw;
pub mod figures;
pub mod load;
pub mod markdown;
pub mod page;
pub mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use compare::Comparison;
use figures::Figures;
use load::{Recording, ReportError};
use tables::Table;

use crate::recording::write::replace;

/// The page, in the report's directory.
pub const PAGE_FILE: &str = "report.html";
pub const MARKDOWN_FILE: &str = "report.md";
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
pub fn compare(arguments: &CompareArguments) -> Result<String, ReportError> {
    let figures = |directory: &Path| Ok::<_, ReportError>(Figures::of(&Recording::load(directory, None)?));
    let (a, b) = (figures(&arguments.a)?, figures(&arguments.b)?);
    let both = Comparison::of((&name(&arguments.a), &a), (&name(&arguments.b), &b));
    if arguments.json {
        Ok(String::from_utf8_lossy(&encoded("the comparison", &both)?).into())
    } else {
        Ok(both.table())
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A chart, drawn.
#[derive(Debug, Clone, Serialize)]
pub struct Drawing {
    /// Its file's name, without an ending.
    pub file: &'static str,
    pub title: &'static str,
    pub svg: String,
}

#[derive(Debug)]
pub struct Report {
    pub figures: Figures,
    tables: Vec<Table>,
    pub charts: Vec<Drawing>,
    /// One page that needs nothing else.
    pub page: String,
}

impl Report {
    pub fn of(recording: &Recording) -> Self {
        let figures = Figures::of(recording);
        let tables = tables::all(&figures);
        let charts: Vec<Drawing> = charts::all(recording)
            .iter()
            .map(|chart| Drawing { file: chart.file, title: chart.title, svg: draw::svg(chart) })
            .collect();
        let page = page::render(&carried(recording, &figures, &tables, &charts));
        Self { figures, tables, charts, page }
    }

    /// The figures for programs.
    pub fn json(&self) -> Result<Vec<u8>, ReportError> {
        encoded(FIGURES_FILE, &self.figures)
    }
}

/// What the page of a report needs: what a monitor would answer, by path, and the report itself.
fn carried(recording: &Recording, figures: &Figures, tables: &[Table], charts: &[Drawing]) -> serde_json::Value {
    let (run, told) = (name(&recording.directory), &recording.run);
    let entry = json!({
        "id": run,
        "title": run,
        "started_at_ms": told.started_at_ms,
        "ended_at_ms": told.ended_at_ms,
        "seconds": figures.run.seconds,
        "seconds_complete": figures.run.seconds_complete,
        "record_failures": told.record_failures,
    });
    let of = |part| format!("/api/v1/runs/{run}/{part}");
    json!({
        "run": run,
        "answers": {
            "/api/v1/runs": { "runs": [entry] },
            (of("series")): recording.series(&run),
            (of("marks")): { "marks": recording.marks },
            (of("sources")): { "sources": recording.processes },
            (of("sets")): { "sets": recording.sets },
        },
        "report": {
            "passed": figures.verdict.passed,
            "verdict": tables::verdict(figures),
            "failures": figures.verdict.failures,
            "tables": tables,
            "charts": charts,
        },
    })
}

/// Writes the report and returns what to print: the verdict, the memory, and where the report is.
/// What was there of an older report is replaced.
pub fn write(arguments: &ReportArguments) -> Result<String, ReportError> {
    let recording = Recording::load(&arguments.recording, arguments.summary.as_deref())?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.recording.join("report"));
    fs::create_dir_all(&out).map_err(|error| unwritable(&out, &error))?;
    let put = |file: &str, bytes: &[u8]| {
        let path = out.join(file);
        replace(&path, bytes).map_err(|error| unwritable(&path, &error))
    };
    let report = Report::of(&recording);
    put(FIGURES_FILE, &report.json()?)?;
    put(MARKDOWN_FILE, markdown::render(&report).as_bytes())?;
    for chart in &report.charts {
        put(&format!("{}.svg", chart.file), chart.svg.as_bytes())?;
    }
    put(PAGE_FILE, report.page.as_bytes())?;
    let mut lines = vec![tables::verdict(&report.figures)];
    lines.extend(tables::memory_line(&report.figures));
    lines.push(format!("report: {}", out.join(PAGE_FILE).display()));
    Ok(lines.join("\n"))
}

fn encoded(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, ReportError> {
    serde_json::to_vec_pretty(value).map_err(|error| ReportError::Encoding { what, problem: error.to_string() })
}

fn unwritable(path: &Path, problem: &impl ToString) -> ReportError {
    ReportError::Unwritable { path: path.into(), problem: problem.to_string() }
}
