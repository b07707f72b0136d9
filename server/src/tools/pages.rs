//! What the manual pages say beside the flags.

use hongbao_telemetry::program::manual::Manual;

/// Of `hongbao-server` and its subcommands.
pub const MANUAL: Manual = Manual {
    exit_status: &[
        ("0", "A server that was stopped in order; a tool that did what it was asked."),
        (
            "1",
            "The books do not balance (at the end of a stop, or found by audit), or check found this host too small.",
        ),
        ("2", "A flag, a setting or a file that cannot be used; nothing was bound or created."),
        ("3", "A stop that was cut short by its deadline, or by a second signal. The ledger is right all the same."),
        (
            "75",
            "A start that may succeed later: the address is taken or not there yet, the ledger is in use, the disk is full, \
             or there is no thread. The service tries it again.",
        ),
    ],
    files: &[
        (
            "hongbao.ledger",
            "The ledger, in the working directory unless --ledger says otherwise; beside it its log (-wal).",
        ),
        ("/etc/hongbao/secret", "The family's secret, as the service reads it; readable by root only."),
        (
            "/etc/hongbao/server.toml",
            "Settings of the service, if HONGBAO_CONFIG names it. Keys are the flags without dashes.",
        ),
        ("/etc/hongbao/environment", "Settings of the services on this host, as NAME=VALUE."),
        ("/var/lib/hongbao", "Where the service keeps its ledger."),
    ],
    environment: &[
        ("HONGBAO_SECRET_FILE", "The file with the shared secret, where --secret-file names none."),
        ("HONGBAO_SECRET", "The secret itself, where no file is named. Children inherit it: prefer the file."),
        ("RUST_LOG", "What is logged: a level, or directives such as hongbao_server=debug."),
        (
            "NOTIFY_SOCKET, WATCHDOG_USEC",
            "Set by systemd: the server says when it serves, how it is, and that it is alive.",
        ),
    ],
    examples: &[
        (
            "",
            "umask 077; hongbao-server secret > secret\nhongbao-server --secret-file secret --listen 127.0.0.1:7400",
            "Make a secret, and serve users on this host:",
        ),
        (
            "",
            "curl -s -H \"Authorization: Bearer $(hongbao-server token --for admin me)\" 127.0.0.1:7402/v1/stats",
            "Ask for the live books:",
        ),
        ("secret", "(umask 077; hongbao-server secret > /etc/hongbao/secret)", "Make the secret of a new family:"),
        ("token", "hongbao-server token --secret-file secret --ttl 8h 42", "A token with which user 42 logs in:"),
        (
            "audit",
            "hongbao-server audit --ledger hongbao.ledger --journal machine-01.csv",
            "Check a ledger, and what a machine's users were told against it:",
        ),
        (
            "archive",
            "hongbao-server archive --ledger hongbao.ledger --before 90d --to 2026-q3.archive --vacuum",
            "Move what is older than 90 days away, and give its room back:",
        ),
        (
            "check",
            "hongbao-server check --connections 1000000 --fix",
            "See whether this host carries a million, and mend it:",
        ),
        (
            "completions",
            "hongbao-server completions bash > /usr/share/bash-completion/completions/hongbao-server",
            "Complete flags in every new bash:",
        ),
        ("man", "hongbao-server man /usr/local/share/man/man1", "Install these pages:"),
    ],
    see_also: &["hongbao-monitor(1)", "hongbao-sim(1)", "systemd.exec(5)", "promtool(1)"],
};
