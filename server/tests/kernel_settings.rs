//! The kernel contract is data, and holds against the limits that it follows from.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use hongbao_server::limits;
use hongbao_server::transport::descriptors;
use hongbao_sysctl::files::{CLIENT, File, LIMITS, SERVER, UNIT};
use hongbao_sysctl::judge::USERS_PER_ADDRESS_MAX;

/// As the kernel has it unless told otherwise, since 2.6.25.
const NR_OPEN_DEFAULT: u64 = 1_048_576;

const MILLION: u64 = 1_000_000;

fn settings(file: File) -> HashMap<String, Vec<u64>> {
    file.lines().into_iter().map(|line| (line.setting, line.values)).collect()
}

/// `key=value` lines of the unit.
fn unit(key: &str) -> &'static str {
    let line = UNIT.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{}: no {key}", UNIT.name))
}

#[test]
fn server_settings_carry_what_the_code_asks_for() {
    let server = settings(SERVER);
    assert_eq!(server["net.core.somaxconn"], [u64::from(limits::LISTEN_BACKLOG.unsigned_abs())]);
    assert!(server["fs.file-max"][0] >= MILLION + descriptors::TABLES.besides(descriptors::TABLES.shards_max));
}

#[test]
fn client_ports_spare_the_servers_and_hold_two_runs_of_users() {
    let client = settings(CLIENT);
    let [low, high] = client["net.ipv4.ip_local_port_range"][..] else { panic!() };
    assert!(low > 7_404, "the ports 7400 to 7404 must lie outside");
    assert!(high - low >= 2 * USERS_PER_ADDRESS_MAX);
    assert_eq!(client["net.ipv4.tcp_tw_reuse"], [1]);
}

#[test]
fn every_line_sets_numbers_and_says_why() {
    for file in [SERVER, CLIENT, LIMITS] {
        let lines = file.lines();
        assert!(!lines.is_empty(), "{}", file.name);
        for line in lines {
            assert!(!line.values.is_empty(), "{}:{}: {} sets no number", file.name, line.number, line.setting);
            assert!(line.explained, "{}:{}: {} is unexplained", file.name, line.number, line.setting);
        }
    }
}

#[test]
fn every_setting_exists_in_this_kernel() {
    for file in [SERVER, CLIENT] {
        for line in file.lines() {
            let path = Path::new("/proc/sys").join(line.setting.replace('.', "/"));
            assert!(path.exists(), "{}:{}: {}", file.name, line.number, line.setting);
        }
    }
}

#[test]
fn a_table_for_a_million_is_allowed_and_granted_by_the_kernel() {
    let nofile: u64 = unit("LimitNOFILE").parse().unwrap();
    let logins = settings(LIMITS);
    assert_eq!(logins["nofile hard"], [nofile]);
    assert_eq!(logins["nofile soft"], [nofile]);
    assert!(nofile <= NR_OPEN_DEFAULT, "beyond fs.nr_open there is no limit to be had");
    assert!(descriptors::TABLES.room(nofile, 64) >= MILLION, "on 64 cores");
}

#[test]
fn the_service_has_threads_for_all_shards_and_time_for_its_stop() {
    let tasks: u64 = unit("TasksMax").parse().unwrap();
    assert!(tasks >= u64::from(descriptors::TABLES.shards_max) + 64);
    let patience = Duration::from_secs(unit("TimeoutStopSec").parse().unwrap());
    // --stop-deadline is 15 s unless configured; the ledger's audit comes after it.
    assert!(patience >= 3 * Duration::from_secs(15));
}

#[test]
fn the_service_gets_its_secret_by_a_file_and_never_by_argument() {
    assert_eq!(unit("LoadCredential"), "secret:/etc/hongbao/secret");
    assert!(unit("Environment").contains("HONGBAO_SECRET_FILE=%d/secret"));
    assert!(!unit("ExecStart").contains("secret"));
}
