//! What a recorded run came to, for people: charts, tables, and the same figures for programs.
//!
//! [`load`] reads a recording into types; [`figures`] computes every figure once; [`tables`] and [`charts`] decide what is told;
//! [`page`], [`markdown`] and [`draw`] decide how.

pub mod charts;
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

use figures::Figures;
use load::{RecapError, Recording};

use super::record::replace;

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

    /// Where to write report.html, report.md, report.json and the charts; made if needed [default: RECORDING/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes the report and returns what to tell whoever asked for it: the verdict, the memory, and where the report is. What was
/// there of an older report is replaced.
pub fn write(arguments: &ReportArguments) -> Result<String, RecapError> {
    let recording = Recording::load(&arguments.recording, arguments.summary.as_deref())?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.recording.join("report"));
    fs::create_dir_all(&out).map_err(|error| unwritable(&out, &error))?;
    let figures = Figures::of(&recording);
    let tables = tables::all(&figures);
    let charts = charts::all(&recording);

    let json = serde_json::to_vec_pretty(&figures).map_err(|error| unwritable(&out.join(FIGURES_FILE), &error))?;
    put(&out.join(FIGURES_FILE), &json)?;
    put(&out.join(MARKDOWN_FILE), markdown::render(&figures, &tables, &charts).as_bytes())?;
    let mut drawn = Vec::new();
    for chart in charts {
        let file = out.join(format!("{}.svg", chart.file));
        let svg = draw::svg(&chart).map_err(|problem| unwritable(&file, &problem))?;
        put(&file, svg.as_bytes())?;
        let file = file.with_extension("png");
        draw::png(&chart, &file).map_err(|problem| unwritable(&file, &problem))?;
        drawn.push((chart, svg));
    }
    let page = out.join(PAGE_FILE);
    put(&page, page::render(&figures, &tables, &drawn).as_bytes())?;
    let mut lines = vec![tables::verdict(&figures)];
    lines.extend(tables::memory_line(&figures));
    lines.push(format!("report: {}", page.display()));
    Ok(lines.join("\n"))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), RecapError> {
    replace(path, bytes).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, problem: &impl ToString) -> RecapError {
    RecapError::Unwritable { path: path.into(), problem: problem.to_string() }
}
