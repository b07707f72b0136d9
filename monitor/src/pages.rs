//! What the manual pages say beside the flags.

use hongbao_telemetry::program::manual::Manual;

/// Of `hongbao-monitor` and its subcommands.
pub const MANUAL: Manual = Manual {
    exit_status: &[
        ("0", "A run that was ended by SIGTERM or SIGINT; a tool that did what it was asked."),
        ("1", "A failure of the system."),
        (
            "2",
            "A flag or a setting that cannot be used, an address that is taken, a recording that cannot be made or read.",
        ),
        ("75", "A start that may succeed later: an address is taken or not there yet. The service tries it again."),
        ("3", "--expect-balanced was given, and the books do not agree."),
        ("130", "Ended at once by a second signal."),
    ],
    files: &[
        ("recordings/TIME", "The recording of a run, below --recordings, unless --record says otherwise."),
        (
            "run.sqlite",
            "In it, for any SQLite: seconds and hosts, one named column for each figure; marks; run; and, deflated by zlib, what each process and SET had in each second.",
        ),
        ("journals/guests.csv", "In it: what guests were told."),
        ("/etc/hongbao/secret", "The family's secret, as the service reads it; readable by root only."),
        ("/var/lib/hongbao-monitor", "Where the service keeps its recordings."),
    ],
    environment: &[
        ("HONGBAO_SECRET_FILE", "The file with the shared secret, where --secret-file names none."),
        ("HONGBAO_SECRET", "The secret itself, where no file is named. Children inherit it: prefer the file."),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Set by systemd: the monitor says when it is bound, how the run is, and that it is alive.",
        ),
    ],
    examples: &[
        ("", "hongbao-monitor --secret-file secret --record run-1 --view lines", "Record a run, one line a second:"),
        ("", "curl -s 127.0.0.1:7404/api/v1/books", "Ask whether the books agree:"),
        ("report", "hongbao-monitor report recordings/20261121T200000Z", "Draw what a recorded run came to:"),
        (
            "completions",
            "hongbao-monitor completions fish > ~/.config/fish/completions/hongbao-monitor.fish",
            "Complete flags in every new fish:",
        ),
        ("man", "hongbao-monitor man /usr/local/share/man/man1", "Install these pages:"),
    ],
    see_also: &["hongbao-server(1)", "hongbao-sim(1)", "prometheus(1)", "promtool(1)"],
};
