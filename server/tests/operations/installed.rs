//! `scripts/install` into a directory of its own, and out again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::BINARY;
use hongbao_testing::{command, output, program, root};

fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_installed_works_from_there_and_goes_away_again() {
    let (script, root) = (root().join("scripts/install"), tempfile::tempdir().unwrap());
    program("hongbao-sim");
    let binaries = Path::new(BINARY).parent().unwrap();
    let install = |more: &[&str]| {
        let mut install = command(&script);
        install.args(["--prefix", "/opt/hongbao", "--destdir"]).arg(root.path()).arg("--binaries").arg(binaries);
        output(install.args(more))
    };
    // Something of somebody else's, which must survive.
    let other = root.path().join("opt/hongbao/bin/other");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "").unwrap();

    let (good, text) = install(&[]);
    assert!(good, "{text}");
    let found = files(root.path());
    for file in [
        "opt/hongbao/bin/hongbao-server",
        "opt/hongbao/bin/hongbao-sim",
        "opt/hongbao/bin/hongbao-monitor",
        "opt/hongbao/share/man/man1/hongbao-server-check.1",
        "opt/hongbao/share/bash-completion/completions/hongbao-sim",
        "opt/hongbao/share/zsh/site-functions/_hongbao-monitor",
        "opt/hongbao/share/fish/vendor_completions.d/hongbao-server.fish",
        "opt/hongbao/lib/systemd/system/hongbao-server.service",
        "opt/hongbao/lib/systemd/system/hongbao-sim@.service",
        "opt/hongbao/lib/sysctl.d/90-hongbao-server.conf",
        "opt/hongbao/share/hongbao/prometheus/alerts.yml",
        "opt/hongbao/share/hongbao/grafana/hongbao.json",
        "opt/hongbao/share/doc/hongbao/OPERATING.md",
        "opt/hongbao/share/doc/hongbao/environment.example",
    ] {
        assert!(found.iter().any(|one| one == file), "{file} in {found:#?}");
    }
    let server = root.path().join("opt/hongbao/bin/hongbao-server");
    assert_eq!(fs::metadata(&server).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(output(command(server).arg("--version")).0);
    let unit = fs::read_to_string(root.path().join("opt/hongbao/lib/systemd/system/hongbao-server.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/hongbao/bin/hongbao-server"), "the unit starts what is installed");
    // Again, over itself.
    assert!(install(&[]).0);
    assert_eq!(files(root.path()), found);

    let (good, text) = install(&["--uninstall"]);
    assert!(good, "{text}");
    assert_eq!(files(root.path()), ["opt/hongbao/bin/other"]);
}

#[test]
fn help_says_every_option_and_an_unknown_one_is_refused() {
    let script = root().join("scripts/install");
    let (good, text) = output(command(&script).arg("--help"));
    assert!(good);
    for option in ["--prefix", "--destdir", "--binaries", "--uninstall", "--help"] {
        assert!(text.contains(option), "{option}");
    }
    let (good, text) = output(command(&script).arg("--perfix"));
    assert!(!good && text.contains("--perfix"), "{text}");
}
