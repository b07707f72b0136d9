//! A server that cannot start says why in one line, exits with code 2, and leaves nothing behind.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;

use hongbao_server::config::{Count, Settings};
use hongbao_server::node::{Bound, Stopped};
use tempfile::TempDir;

use crate::BINARY;
use hongbao_testing::server::write_secret;
use hongbao_testing::{Client, SECRET, Server, command, user_token};

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        write_secret(home.path().join("secret"), SECRET);
        Self(home)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Everything in the directory but the secret.
    fn contents(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "secret").collect();
        names.sort();
        names
    }

    /// Starts a server that must refuse. Usual flags are added where they are not given. Returns
    /// what it says.
    fn refused(&self, flags: &[&str]) -> String {
        let mut server = command(BINARY);
        for (flag, value) in [
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--admin", "127.0.0.1:0".to_owned()),
            ("--ledger", self.path("ledger")),
            ("--ready-file", self.path("ready")),
            ("--secret-file", self.path("secret")),
        ] {
            if !flags.contains(&flag) {
                server.args([flag, &value]);
            }
        }
        let output = server.args(flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(output.stdout.is_empty());
        said
    }

    /// [`Self::refused`] in one line that contains all of `words`, with nothing created.
    fn refused_in_one_line(&self, flags: &[&str], words: &[&str]) {
        let before = self.contents();
        let said = self.refused(flags);
        assert_eq!(said.lines().count(), 1, "{flags:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        // A cause is not said twice over.
        let (_, last) = said.trim().rsplit_once(": ").unwrap();
        assert_eq!(said.matches(last).count(), 1, "{said}");
        assert_eq!(self.contents(), before, "{flags:?}");
    }
}

#[test]
fn a_wrong_flag_is_named_with_its_value() {
    let home = Home::new();
    for (flags, words) in [
        (&["--lisen", "127.0.0.1:0"][..], &["--lisen", "--listen"][..]),
        (&["--listen", "nowhere"], &["--listen", "nowhere"]),
        (&["--shards", "many"], &["--shards", "many", "auto"]),
        (&["--shards", "0"], &["--shards", "0"]),
        (&["--max-qps", "-1"], &["-1"]),
        (&["--set-capacity", "1e9"], &["--set-capacity", "1e9"]),
        (&["--idle-timeout", "soon"], &["--idle-timeout", "soon"]),
        (&["--log-format", "xml"], &["--log-format", "xml", "json"]),
    ] {
        let said = home.refused(flags);
        assert!(words.iter().all(|word| said.contains(word)), "{flags:?}: {said}");
        assert_eq!(home.contents(), [""; 0]);
    }
}

#[test]
fn settings_out_of_range_or_contradicting_are_named_with_values() {
    let home = Home::new();
    home.refused_in_one_line(&["--shards", "2", "--sets", "5"], &["--sets 5", "--shards 2"]);
    home.refused_in_one_line(&["--sets", "5000", "--shards", "1"], &["--sets 5000", "1024"]);
    home.refused_in_one_line(&["--set-capacity", "0"], &["--set-capacity 0", "65536"]);
    home.refused_in_one_line(&["--set-capacity", "65537"], &["--set-capacity 65537", "65536"]);
    home.refused_in_one_line(&["--name", "no spaces"], &["--name", "no spaces"]);
    home.refused_in_one_line(&["--max-connection-qps", "0"], &["--max-connection-qps 0", "at least 1"]);
    home.refused_in_one_line(&["--login-timeout", "1ms"], &["--login-timeout 1ms", "1s"]);
    home.refused_in_one_line(&["--idle-timeout", "5s"], &["--idle-timeout 5s", "--login-timeout 10s"]);
    home.refused_in_one_line(&["--return-after", "2h"], &["--return-after 7200s", "3600s"]);
    home.refused_in_one_line(
        &["--listen", "127.0.0.1:7999", "--admin", "127.0.0.1:7999"],
        &["--listen 127.0.0.1:7999", "--admin 127.0.0.1:7999"],
    );
}

#[test]
fn a_bad_config_file_is_named_with_its_key() {
    let home = Home::new();
    let file = home.path("hongbao.toml");
    home.refused_in_one_line(&["--config", &file], &[&file, "No such file"]);
    for (text, words) in [
        ("set-capasity = 7", &["`set-capasity`"][..]),
        ("listen = \"nowhere\"", &["listen = "]),
        ("sets = \"some\"", &["\"some\""]),
        ("sets = [", &["TOML"]),
    ] {
        fs::write(&file, text).unwrap();
        let said = home.refused(&["--config", &file]);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&file) && words.iter().all(|word| said.contains(word)), "{text}: {said}");
        assert_eq!(home.contents(), ["hongbao.toml"]);
    }
}

#[test]
fn a_missing_or_short_secret_is_refused_with_the_remedy() {
    let home = Home::new();
    let (missing, short) = (home.path("missing"), home.path("short"));
    write_secret(&short, "too short");
    home.refused_in_one_line(&["--secret-file", &missing], &[&missing, "hongbao-server secret"]);
    home.refused_in_one_line(&["--secret-file", &short], &[&short, "9 bytes", "32", "hongbao-server secret"]);
    let output = command(BINARY).args(["--ledger", &home.path("ledger")]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && said.lines().count() == 1 && said.contains("HONGBAO_SECRET_FILE"),
        "{said}"
    );
    let key = home.path("key");
    fs::write(&key, "no key").unwrap();
    home.refused_in_one_line(&["--user-key", &key], &[&key]);
    assert_eq!(home.contents(), ["key", "short"]);
}

#[test]
fn a_port_in_use_is_named_and_the_server_on_it_is_not_disturbed() {
    let (home, server) = (Home::new(), Server::start());
    let mut user = server.login(1);
    let (listen, admin) = (server.listen.to_string(), server.admin.to_string());
    home.refused_in_one_line(&["--listen", &listen], &[&listen, "--listen", "another port"]);
    home.refused_in_one_line(&["--admin", &admin], &[&admin, "--admin", "another port"]);
    // One that shares no port with anybody.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = plain.local_addr().unwrap().to_string();
    home.refused_in_one_line(&["--listen", &taken], &[&taken, "--listen"]);
    user.ping();
    for user in 2..20 {
        server.login(user).ping();
    }
}

#[test]
fn peers_reach_the_first_server_while_others_try_its_port() {
    let (home, server) = (Home::new(), Server::start());
    let listen = server.listen.to_string();
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| {
            for _ in 0..5 {
                home.refused_in_one_line(&["--listen", &listen], &[&listen]);
            }
        });
        let mut user = 0;
        while !refused.is_finished() {
            user += 1;
            server.login(user % 100 + 1).ping();
        }
    });
}

#[test]
fn an_unwritable_place_for_the_ledger_is_named() {
    let home = Home::new();
    let below_a_file = format!("{}/ledger", home.path("secret"));
    // /sys takes no files, from root either.
    for path in [below_a_file.as_str(), &home.path("missing/ledger"), "/sys/ledger"] {
        let said = home.refused(&["--ledger", path]);
        assert!(said.lines().count() == 1 && said.contains(path) && said.contains("--ledger"), "{said}");
        assert_eq!(home.contents(), [""; 0]);
    }
    let directory = home.path("directory");
    fs::create_dir(&directory).unwrap();
    let said = home.refused(&["--ledger", &directory]);
    assert!(said.lines().count() == 1 && said.contains(&directory), "{said}");
}

/// A ledger as a server leaves it.
fn made_ledger(home: &Home) -> String {
    let mut server = Server::start();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    let path = home.path("ledger");
    fs::copy(server.ledger(), &path).unwrap();
    path
}

fn bytes_of(path: &str) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn a_ledger_of_a_newer_version_is_left_alone() {
    let home = Home::new();
    let path = made_ledger(&home);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.close().unwrap();
    let before = bytes_of(&path);
    let said = home.refused(&[]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&path) && said.contains("schema 99") && said.contains("newer"), "{said}");
    assert_eq!(bytes_of(&path), before);
}

#[test]
fn a_file_that_is_no_ledger_is_left_alone() {
    let home = Home::new();
    let path = home.path("ledger");
    fs::write(&path, "Dear diary, today I won 8.88 yuan.".repeat(100)).unwrap();
    let before = bytes_of(&path);
    let said = home.refused(&[]);
    assert!(said.lines().count() == 1 && said.contains(&path) && said.contains("not a ledger"), "{said}");
    assert_eq!(bytes_of(&path), before);

    fs::remove_file(&path).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE somebody_elses (id INTEGER)").unwrap();
    connection.close().unwrap();
    let before = bytes_of(&path);
    let said = home.refused(&[]);
    assert!(said.lines().count() == 1 && said.contains(&path) && said.contains("not a ledger"), "{said}");
    assert_eq!(bytes_of(&path), before);
}

#[test]
fn a_second_server_on_one_ledger_is_refused_undisturbing() {
    let (home, server) = (Home::new(), Server::start());
    let campaign = server.rain(1_000, 1_000, &serde_json::Value::Null);
    let mut user = server.login(1);
    user.win(campaign);
    let ledger = server.ledger();
    let path = ledger.to_str().unwrap();
    home.refused_in_one_line(&["--ledger", path], &[path, "in use by another process"]);
    user.win(campaign);
    server.check_books();
}

#[test]
fn a_place_where_the_ready_file_cannot_be_written_is_named() {
    let home = Home::new();
    let path = home.path("missing/ready");
    home.refused_in_one_line(&["--ready-file", &path], &[&path, "--ready-file"]);
}

#[test]
fn the_small_tools_refuse_in_one_line_too() {
    let home = Home::new();
    let secret = home.path("secret");
    for (arguments, words) in [
        (&["token", "--secret-file", &secret, "0"][..], &["user id 0"][..]),
        (&["token", "--secret-file", &secret, "9007199254740992"], &["9007199254740992"]),
        (&["token", "--secret-file", &secret, "somebody"], &["somebody"]),
        (&["audit", "--ledger", "/nonexistent/ledger"], &["/nonexistent/ledger"]),
    ] {
        let output = command(BINARY).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.lines().count() == 1 && words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    assert!(!Path::new("/nonexistent").exists());
}

#[test]
fn a_made_secret_signs_tokens_that_open_the_door() {
    let home = Home::new();
    let secret = command(BINARY).arg("secret").output().unwrap();
    assert!(secret.status.success());
    let other = command(BINARY).arg("secret").output().unwrap();
    assert_ne!(secret.stdout, other.stdout);
    write_secret(home.path("made"), &secret.stdout);
    let server = Server::with(&[]);
    // A token of the tool, signed by the server's own secret.
    let token = command(BINARY)
        .args(["token", "--secret-file", server.path("secret").to_str().unwrap(), "42"])
        .output()
        .unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    assert_eq!(server.connect().login(token.trim()).user_id, 42);
    // One of another secret.
    let token = command(BINARY).args(["token", "--secret-file", &home.path("made"), "42"]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let mut peer = server.connect();
    peer.send(1, hongbao_testing::client::login(token.trim()));
    assert_eq!(peer.ending().errors, [(1, hongbao_proto::v1::ErrorCode::TokenInvalid)]);
}

#[test]
fn a_peer_is_refused_until_a_login_can_be_answered() {
    let home = Home::new();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().ok(),
        admin: "127.0.0.1:0".parse().ok(),
        ledger: Some(home.path("ledger").into()),
        secret_file: Some(home.path("secret").into()),
        shards: NonZeroU32::new(2).map(Count::Exactly),
        ..Settings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bound = Bound::bind(settings.check().unwrap()).unwrap();
        let addresses = [bound.listen(), bound.admin().unwrap()];
        let refused = || {
            for address in addresses {
                let error = TcpStream::connect(address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            }
        };
        refused();
        let opened = bound.open().await.unwrap();
        refused();
        let running = opened.serve().await.unwrap();
        assert_eq!([running.listen, running.admin], addresses);
        // Without a word of ours in between.
        let user = tokio::task::spawn_blocking(move || Client::connect(addresses[0]).login(&user_token(7)).user_id);
        assert_eq!(user.await.unwrap(), 7);
        TcpStream::connect(addresses[1]).unwrap();
        assert_eq!(running.stop().finish().await, Stopped::InOrder);
    });
}
