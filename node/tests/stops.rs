//! A node that cannot or must not run stops with its own exit code and says why, and nothing it holds is changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bizra_proto::exit::{ExitReason, Termination};

const BINARY: &str = env!("CARGO_BIN_EXE_bizra-node");

/// The folder of a devnet that has run and stopped; each test has its own ports.
fn devnet(base_port: u16) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(BINARY)
        .args(["devnet", "--validators", "1", "--duration", "2", "--base-port", &base_port.to_string(), "--dir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn node(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("v0")
}

/// Runs the node until it stops by itself; its exit reason and termination message.
fn run(folder: &tempfile::TempDir) -> Termination {
    let log = folder.path().join("termination.json");
    let output = Command::new(BINARY)
        .args(["run", "--config"])
        .arg(node(folder).join("node.toml"))
        .env("BIZRA_TERMINATION_LOG", &log)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&log).unwrap_or_else(|_| {
        panic!("no termination message; {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
    });
    let termination: Termination = serde_json::from_str(&text).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(termination.reason.code())), "{termination:?}");
    termination
}

fn corrupt(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    for byte in bytes.iter_mut().skip(8) {
        *byte ^= 0x5a;
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_broken_configuration_is_named() {
    let folder = devnet(31_100);
    let config = node(&folder).join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("colour = \"red\"\n{text}")).unwrap();
    let termination = run(&folder);
    assert_eq!(termination.reason, ExitReason::InvalidConfiguration);
    assert!(termination.message.contains("colour"), "{termination:?}");
}

#[test]
fn another_genesis_than_the_pinned_one_is_refused() {
    let folder = devnet(31_200);
    let genesis = folder.path().join("genesis.json");
    let mut file = std::fs::OpenOptions::new().append(true).open(genesis).unwrap();
    // Still a valid genesis, but not the same bytes.
    writeln!(file).unwrap();
    let termination = run(&folder);
    assert_eq!(termination.reason, ExitReason::WrongGenesis);
}

#[test]
fn a_taken_port_is_named() {
    let folder = devnet(31_300);
    let _taken = TcpListener::bind("127.0.0.1:31300").unwrap();
    let termination = run(&folder);
    assert_eq!(termination.reason, ExitReason::AddressUnavailable);
    assert!(termination.message.contains("31300"), "{termination:?}");
}

#[test]
fn a_corrupt_database_is_told_from_a_failing_disk() {
    let folder = devnet(31_400);
    let database = node(&folder).join("database");
    let manifest = std::fs::read_dir(&database)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"))
        .unwrap();
    corrupt(&manifest);
    let termination = run(&folder);
    assert_eq!(termination.reason, ExitReason::DatabaseCorrupt, "{termination:?}");
}

#[test]
fn a_signing_record_that_lost_both_copies_of_a_slot_refuses() {
    let folder = devnet(31_500);
    let path = node(&folder).join("signer").join("record");
    let mut bytes = std::fs::read(&path).unwrap();
    let block = 4_096;
    let slots = (bytes.len() / block - 2) / 2;
    for copy in [2 + 1, 2 + slots + 1] {
        bytes[copy * block + 100] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let termination = run(&folder);
    assert_eq!(termination.reason, ExitReason::SigningRecordRefused, "{termination:?}");

    std::fs::remove_file(&path).unwrap();
    let termination = run(&folder);
    assert_eq!(termination.reason, ExitReason::SigningRecordRefused, "a missing record is never made again");
}

#[test]
fn keys_copied_to_another_volume_are_refused() {
    let folder = devnet(31_600);
    let config = node(&folder).join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let other = text
        .lines()
        .map(|line| if line.starts_with("volume_id") { "volume_id = \"another\"" } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    std::fs::write(&config, other).unwrap();
    assert_eq!(run(&folder).reason, ExitReason::SigningRecordRefused);
}
