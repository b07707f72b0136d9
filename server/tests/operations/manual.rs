//! `--version`, manual pages and completions of all three programs.

use std::fs;
use std::path::{Path, PathBuf};

use hongbao_telemetry::program::build;

use super::family::tool;
use crate::BINARY;
use hongbao_testing::{command, output, program};

const NAMES: [&str; 3] = ["hongbao-server", "hongbao-monitor", "hongbao-sim"];

fn path_of(name: &str) -> PathBuf {
    if name == "hongbao-server" { Path::new(BINARY).into() } else { program(name) }
}

#[test]
fn each_program_says_what_it_was_built_from() {
    for name in NAMES {
        let (good, text) = output(command(path_of(name)).arg("--version"));
        assert!(good);
        assert_eq!(text, format!("{name} {}\n", build::TEXT));
    }
}

#[test]
fn man_finds_nothing_wrong_and_each_page_has_its_sections() {
    let directory = tempfile::tempdir().unwrap();
    for name in NAMES {
        let (good, text) = output(command(path_of(name)).arg("man").arg(directory.path()));
        assert_eq!((good, text.as_str()), (true, ""));
    }
    let pages: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|page| page.unwrap().path()).collect();
    let named = |name: &str| pages.iter().any(|page| page.ends_with(format!("{name}.1")));
    for page in ["hongbao-server", "hongbao-server-audit", "hongbao-monitor-report", "hongbao-sim-fleet"] {
        assert!(named(page), "{page} in {pages:?}");
    }
    for page in &pages {
        let mut man = tool("man");
        man.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8").args(["--warnings", "-l"]).arg(page);
        let output = man.output().unwrap();
        let (text, warnings) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", page.display());
        let own = NAMES.iter().any(|name| page.ends_with(format!("{name}.1")));
        let sections: &[&str] = if own {
            &["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES", "SEE ALSO", "VERSION"]
        } else {
            &["NAME", "SYNOPSIS", "EXIT STATUS", "SEE ALSO"]
        };
        for section in sections {
            assert!(text.lines().any(|line| line == *section), "{}: {section}\n{text}", page.display());
        }
    }
}

#[test]
fn a_page_lists_every_flag_and_its_environment_variable() {
    for (name, flag, variable) in
        [("hongbao-server", "--ledger", "HONGBAO_LEDGER"), ("hongbao-monitor", "--record", "HONGBAO_MONITOR_RECORD")]
    {
        let (good, page) = output(command(path_of(name)).arg("man"));
        assert!(good && page.contains(&flag.replace('-', "\\-")) && page.contains(variable), "{page}");
    }
}

#[test]
fn every_shell_gets_completions_that_it_accepts() {
    for name in NAMES {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let (good, script) = output(command(path_of(name)).args(["completions", shell]));
            assert!(good && script.contains(name) && script.contains("completions"), "{name} {shell}");
        }
        let (_, script) = output(command(path_of(name)).args(["completions", "bash"]));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), script).unwrap();
        // Bash completes a subcommand of it.
        let ask = format!(
            "source {}; COMP_WORDS=({name} complet); COMP_CWORD=1; _{} {name} complet {name}; echo \"${{COMPREPLY[@]}}\"",
            file.path().display(),
            name.replace('-', "__")
        );
        let (good, answer) = output(command("bash").args(["-c", &ask]));
        assert!(good && answer.trim() == "completions", "{answer}");
    }
}
