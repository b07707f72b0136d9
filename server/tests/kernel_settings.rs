//! The kernel contract is data, and holds against the limits that it follows from.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use hongbao_server::limits;

fn settings(file: &str) -> HashMap<String, Vec<i64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("sysctl").join(file);
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, values) = line.split_once('=').unwrap_or_else(|| panic!("{file}: {line:?} is no setting"));
            (key.trim().to_owned(), values.split_whitespace().map(|value| value.parse().unwrap()).collect())
        })
        .collect()
}

#[test]
fn server_settings_carry_what_the_code_asks_for() {
    let server = settings("90-hongbao-server.conf");
    let backlog = i64::from(limits::LISTEN_BACKLOG);
    assert!(server["net.core.somaxconn"][0] >= backlog);
    assert!(server["net.ipv4.tcp_max_syn_backlog"][0] >= backlog);
    assert!(server["fs.nr_open"][0] >= 1_000_000);
    assert!(server["fs.file-max"][0] >= server["fs.nr_open"][0]);
}

#[test]
fn client_settings_leave_the_servers_ports_alone_and_twice_the_users_of_an_address() {
    let client = settings("91-hongbao-client.conf");
    let [low, high] = client["net.ipv4.ip_local_port_range"][..] else { panic!() };
    assert!(low > 7_404, "the ports 7400 to 7404 must lie outside");
    assert!(high - low >= 2 * 25_000);
}

#[test]
fn every_setting_exists_in_this_kernel() {
    for file in ["90-hongbao-server.conf", "91-hongbao-client.conf"] {
        for key in settings(file).keys() {
            assert!(Path::new("/proc/sys").join(key.replace('.', "/")).exists(), "{file}: {key}");
        }
    }
}
