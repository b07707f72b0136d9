//! The units and what they name: systemd accepts them, their walls stand as high as stated, and
//! every variable is one that a program reads.

use std::fs;
use std::path::Path;

use super::family::tool;
use crate::BINARY;
use hongbao_testing::{command, output, program, root};

const UNITS: [(&str, f64); 3] =
    [("hongbao-server.service", 1.2), ("hongbao-monitor.service", 1.1), ("hongbao-sim@.service", 1.2)];

fn read(name: &str) -> String {
    fs::read_to_string(root().join("sysctl").join(name)).unwrap()
}

#[test]
fn systemd_finds_nothing_wrong_with_any_unit() {
    // With programs and pages where the units name them, as an installation has them.
    let directory = tempfile::tempdir().unwrap();
    for (name, _) in UNITS {
        let text = read(name).replace("/usr/local/bin/hongbao-", "/bin/true --hongbao-");
        let text: String =
            text.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
        fs::write(directory.path().join(name), text).unwrap();
    }
    for (name, _) in UNITS {
        let name = name.replace('@', "@machine-01");
        let file = directory.path().join(name.replace("@machine-01", "@"));
        let (good, text) = output(tool("systemd-analyze").args(["verify", "--man=no"]).arg(file));
        assert!(good && !text.contains("hongbao"), "{name}: {text}");
    }
}

#[test]
fn the_exposure_of_each_unit_is_what_is_stated() {
    let stated = read("README.md");
    for (name, exposure) in UNITS {
        let unit = root().join("sysctl").join(name);
        let (_, text) = output(tool("systemd-analyze").args(["security", "--offline=true"]).arg(unit));
        let line = text.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
        let level: f64 = line.split(": ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        // Another systemd may weigh a little otherwise.
        assert!(level <= exposure + 0.3, "{name}: {level} instead of {exposure}\n{text}");
        assert!(
            stated.contains(&format!("| `{name}` | {exposure} |")),
            "sysctl/README.md states {exposure} for {name}"
        );
    }
}

/// `NAME=` at the start of a line, or in an `Environment=`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.trim_start_matches("Environment=").split(' '));
    words.filter_map(|word| word.split_once('=')).map(|(name, _)| name).filter(|name| name.starts_with("HONGBAO_"))
}

#[test]
fn every_variable_of_units_and_examples_is_read_by_somebody() {
    let help = |program: &Path| output(command(program).arg("--help")).1;
    let programs = help(Path::new(BINARY)) + &help(&program("hongbao-monitor"));
    let known = |name: &str| name == "HONGBAO_SECRET_FILE" || programs.contains(&format!("{name}="));
    for file in ["hongbao-server.service", "hongbao-monitor.service", "environment.example"] {
        for name in variables(&read(file)) {
            assert!(known(name), "{file}: nobody reads {name}");
        }
    }
    let (unit, example) = (read("hongbao-sim@.service"), read("sim.environment.example"));
    for name in variables(&example).chain(variables(&unit).filter(|name| *name != "HONGBAO_SECRET_FILE")) {
        assert!(unit.contains(&format!("${name}")) || unit.contains(&format!("${{{name}}}")), "nobody reads {name}");
    }
    let used = unit.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
    for name in used.map(|rest| rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap()) {
        let set = name == "INVOCATION_ID" || variables(&example).chain(variables(&unit)).any(|known| known == name);
        assert!(set, "{name} is set nowhere");
    }
    // The command line of a machine is one that it accepts.
    let (_, flags) = output(command(program("hongbao-sim")).args(["machine", "--help"]));
    let line = unit.replace("\\\n", " ");
    let line = line.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let example = example.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split([' ', '=']));
    for flag in line.split_whitespace().chain(example).filter(|word| word.starts_with("--")) {
        assert!(flags.contains(flag), "{flag} is no flag of a machine");
    }
}

#[test]
fn each_unit_notifies_has_a_watchdog_limits_and_a_credential() {
    for (name, _) in UNITS {
        let unit = read(name);
        for line in ["Type=notify", "NotifyAccess=main", "LoadCredential=secret:/etc/hongbao/secret", "DynamicUser=yes"]
        {
            assert!(unit.lines().any(|found| found == line), "{name}: {line}");
        }
        for key in ["WatchdogSec=", "LimitNOFILE=", "TasksMax=", "MemoryHigh=", "MemoryMax=", "TimeoutStopSec="] {
            assert!(unit.lines().any(|line| line.starts_with(key)), "{name}: {key}");
        }
        assert!(!unit.contains("--secret"), "{name}: the secret's file is named in the environment");
    }
}
