//! Manual pages and shell completions, made from the flags, so that neither can say what a program
//! does not do. What flags do not know (exit codes, files, examples) each program states once, as a
//! [`Manual`].

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::program::build;

/// Arguments of the subcommand `man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory for the pages of the program and of each subcommand, made if needed; without it
    /// the program's own page goes to standard output
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Arguments of the subcommand `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell that reads them
    #[arg(value_enum)]
    shell: Shell,
}

/// What the flags do not know. Pairs are a term and what it stands for.
#[derive(Debug, Clone, Copy)]
pub struct Manual {
    /// Exit codes and when each is given.
    pub exit_status: &'static [(&'static str, &'static str)],
    /// Files that the program reads or writes.
    pub files: &'static [(&'static str, &'static str)],
    /// Variables of the environment beside those that stand for a flag.
    pub environment: &'static [(&'static str, &'static str)],
    /// For the program ("") or one of its subcommands: a command line, and what it does.
    pub examples: &'static [(&'static str, &'static str, &'static str)],
    /// Pages of others, with their section: `promtool(1)`.
    pub see_also: &'static [&'static str],
}

impl Manual {
    /// Obeys `man`.
    pub fn write(&self, program: Command, arguments: &ManArguments) -> io::Result<()> {
        let program = built(program);
        match &arguments.directory {
            None => io::stdout().lock().write_all(&self.page(&program, &program)?),
            Some(directory) => self.write_all(&program, directory).map_err(|error| named(directory, &error)),
        }
    }

    fn write_all(&self, program: &Command, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        for command in [program].into_iter().chain(shown(program)) {
            fs::write(directory.join(format!("{}.1", page_name(command))), self.page(program, command)?)?;
        }
        Ok(())
    }

    /// The page of `command`: of `program` itself, or one of its subcommands.
    fn page(&self, program: &Command, command: &Command) -> io::Result<Vec<u8>> {
        let mut page = Vec::new();
        let own = command.get_name() == program.get_name();
        // An empty field of the title would be taken by the next one.
        let date = if build::DATE.is_empty() { build::COMMIT } else { build::DATE };
        let man = Man::new(command.clone())
            .title(page_name(command))
            .date(date)
            .source(format!("Hongbao {}", build::VERSION))
            .manual("Hongbao");
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if own {
            man.render_subcommands_section(&mut page)?;
        }
        let mut rest = Roff::new();
        terms(&mut rest, "EXIT STATUS", self.exit_status.iter().copied());
        if own {
            terms(&mut rest, "FILES", self.files.iter().copied());
        }
        let flags: Vec<_> = command.get_arguments().filter_map(environment_of).collect();
        let flags = flags.iter().map(|(name, stands_for)| (name.as_str(), stands_for.as_str()));
        terms(&mut rest, "ENVIRONMENT", flags.chain(self.environment.iter().copied()));
        let wanted = if own { "" } else { command.get_name() };
        let examples: Vec<_> = self.examples.iter().filter(|(name, ..)| *name == wanted).collect();
        if !examples.is_empty() {
            rest.control("SH", ["EXAMPLES"]);
        }
        for (_, line, what) in examples {
            rest.control("PP", []).text([roman(*what)]);
            rest.control("PP", []).control("RS", ["4"]).control("nf", []);
            for line in line.lines() {
                rest.text([bold(line)]);
            }
            rest.control("fi", []).control("RE", []);
        }
        rest.control("SH", ["SEE ALSO"]);
        let others = [program].into_iter().chain(shown(program)).filter(|other| other.get_name() != command.get_name());
        let others: Vec<_> = others.map(|other| format!("{}(1)", page_name(other))).collect();
        let others: Vec<_> = others.iter().map(String::as_str).chain(self.see_also.iter().copied()).collect();
        rest.text([roman(others.join(", "))]);
        rest.control("SH", ["VERSION"]).text([roman(build::TEXT)]);
        rest.to_writer(&mut page)?;
        Ok(page)
    }
}

/// Obeys `completions`.
pub fn complete(program: Command, arguments: &CompletionsArguments) -> io::Result<()> {
    let mut program = built(program);
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    io::stdout().lock().write_all(&script)
}

/// With the names that subcommands have in full, and without `help`, which says nothing that the
/// pages do not.
fn built(program: Command) -> Command {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    program
}

fn shown(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|command| !command.is_hide_set())
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn environment_of(argument: &clap::Arg) -> Option<(String, String)> {
    let name = argument.get_env().filter(|_| !argument.is_hide_set())?;
    Some((name.to_string_lossy().into_owned(), format!("Stands for --{}, which wins.", argument.get_long()?)))
}

fn terms<'a>(page: &mut Roff, heading: &str, terms: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut terms = terms.peekable();
    if terms.peek().is_some() {
        page.control("SH", [heading]);
    }
    for (term, meaning) in terms {
        page.control("TP", []).text([italic(term)]).text([roman(meaning)]);
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}; choose another directory", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: Manual = Manual {
        exit_status: &[("0", "All went well.")],
        files: &[("/etc/some", ".Begins with a dot, which is no command of the page's.")],
        environment: &[("SOME_SECRET", "A secret.")],
        examples: &[("", "some --flag", "Does it."), ("tool", "some tool", "Does more.")],
        see_also: &["other(5)"],
    };

    fn program() -> Command {
        let flag = clap::Arg::new("flag").long("flag").env("SOME_FLAG").help("A flag");
        let tool = Command::new("tool").about("A tool");
        Command::new("some").about("Some program").arg(flag).subcommand(tool)
    }

    #[test]
    fn each_program_and_subcommand_has_its_page() {
        let directory = tempfile::tempdir().unwrap();
        let pages = directory.path().join("deep/man1");
        MANUAL.write(program(), &ManArguments { directory: Some(pages.clone()) }).unwrap();
        let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
        let (own, tool) = (read("some.1"), read("some-tool.1"));
        for text in ["SH \"EXIT STATUS\"", "SH FILES", "SOME_FLAG", "SOME_SECRET", "some \\-\\-flag", "some\\-tool(1)"]
        {
            assert!(own.contains(text), "{text} in {own}");
        }
        assert!(own.contains("\\&.Begins"), "{own}");
        assert!(tool.contains("some tool") && tool.contains("some(1), other(5)"), "{tool}");
        assert!(!tool.contains("SOME_FLAG") && !tool.contains("/etc/some"), "{tool}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let under_a_file = ManArguments { directory: Some(file.path().join("man1")) };
        let error = MANUAL.write(program(), &under_a_file).unwrap_err().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
    }
}
