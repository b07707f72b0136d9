//! What the manual pages say beside the flags.

use hongbao_telemetry::program::manual::Manual;

/// Of `hongbao-sim` and its subcommands.
pub const MANUAL: Manual = Manual {
    exit_status: &[
        ("0", "The run passed, or the machine ended in order; check: this host carries the users wanted."),
        ("1", "A run that failed its judgement, a machine that could not go on, a host that is too small."),
        ("2", "A flag that cannot be used; nothing was begun."),
    ],
    files: &[
        ("machine-NN.csv", "The journal of a machine, in --journal-dir: all that its users were told."),
        ("/etc/hongbao/sim-NAME.environment", "What the service hongbao-sim@NAME simulates, as NAME=VALUE."),
        ("/etc/hongbao/secret", "The family's secret, as the service reads it; readable by root only."),
    ],
    environment: &[
        ("HONGBAO_SECRET_FILE", "The file with the shared secret, where --secret-file names none."),
        ("HONGBAO_SECRET", "The secret itself, where no file is named. Children inherit it: prefer the file."),
        ("RUST_LOG", "What is logged: a level, or directives such as hongbao_sim=debug."),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Set by systemd: a machine says when its control surface is bound and that it is alive.",
        ),
    ],
    examples: &[
        (
            "",
            "hongbao-sim fleet --machines 2 --users 1000 --server 127.0.0.1:7400 \\\n    --admin http://127.0.0.1:7402 --monitor 127.0.0.1:7403 --phases 500x10s,1000x10s --rain 50",
            "A thousand users on this host, at two rates:",
        ),
        (
            "machine",
            "hongbao-sim machine --users 1..20000 --total 100000 --server 10.0.0.1:7400 \\\n    --ntp 10.0.0.1:123 --monitor 10.0.0.1:7403 --http 0.0.0.0:7405",
            "The first of five hosts of a fleet of 100,000 users:",
        ),
        (
            "fleet",
            "hongbao-sim fleet --server 127.0.0.1:7400 --admin http://127.0.0.1:7402 --rain 200 --storm 30%@20s",
            "The default fleet, with rain and a storm:",
        ),
        (
            "check",
            "hongbao-sim check --users 1000000 --fix",
            "See whether this host carries a million users, and mend it:",
        ),
        (
            "completions",
            "hongbao-sim completions zsh > \"${fpath[1]}/_hongbao-sim\"",
            "Complete flags in every new zsh:",
        ),
        ("man", "hongbao-sim man /usr/local/share/man/man1", "Install these pages:"),
    ],
    see_also: &["hongbao-server(1)", "hongbao-monitor(1)", "chronyd(8)"],
};
