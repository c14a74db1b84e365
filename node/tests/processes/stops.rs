//! A node that cannot or must not run stops with its own exit code and says why, and nothing it holds is changed.

use std::io::Write as _;
use std::net::TcpListener;

use crate::common::devnet::Devnet;
use crate::common::process::run as run_command;
use bizra_proto::exit::{ExitReason, Termination};

/// Runs the node until it stops by itself; its exit reason and termination message.
fn run(devnet: &Devnet) -> Termination {
    let log = devnet.path("termination.json");
    let output = devnet.node(0).env("BIZRA_TERMINATION_LOG", &log).output().unwrap();
    let text = std::fs::read_to_string(&log).unwrap_or_else(|_| {
        panic!("no termination message; {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
    });
    let termination: Termination = serde_json::from_str(&text).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(termination.reason.code())), "{termination:?}");
    termination
}

fn corrupt(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    for byte in bytes.iter_mut().skip(8) {
        *byte ^= 0x5a;
    }
    std::fs::write(path, bytes).unwrap();
}

fn manifest(database: &str) -> std::path::PathBuf {
    std::fs::read_dir(database)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"))
        .unwrap()
}

#[test]
fn a_broken_configuration_is_named() {
    let devnet = Devnet::make(1, &[]);
    let config = devnet.configuration_file(0);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("colour = \"red\"\n{text}")).unwrap();
    let termination = run(&devnet);
    assert_eq!(termination.reason, ExitReason::InvalidConfiguration);
    assert!(termination.message.contains("colour"), "{termination:?}");
}

#[test]
fn another_genesis_than_the_pinned_one_is_refused() {
    let devnet = Devnet::make(1, &[]);
    let genesis = devnet.path("genesis.json");
    let mut file = std::fs::OpenOptions::new().append(true).open(genesis).unwrap();
    // Still a valid genesis, but not the same bytes.
    writeln!(file).unwrap();
    let termination = run(&devnet);
    assert_eq!(termination.reason, ExitReason::WrongGenesis);
}

#[test]
fn a_taken_port_is_named() {
    let devnet = Devnet::make(1, &[]);
    let _taken = TcpListener::bind(("127.0.0.1", devnet.peer_port(0))).unwrap();
    let termination = run(&devnet);
    assert_eq!(termination.reason, ExitReason::AddressUnavailable);
    assert!(termination.message.contains(&devnet.peer_port(0).to_string()), "{termination:?}");
}

#[test]
fn a_corrupt_database_is_told_from_a_failing_disk() {
    let devnet = Devnet::make(1, &[]);
    let database = devnet.path("v0/database");
    corrupt(&manifest(&database));
    let termination = run(&devnet);
    assert_eq!(termination.reason, ExitReason::DatabaseCorrupt, "{termination:?}");
}

#[test]
fn a_reset_that_is_ordered_for_a_damaged_database_leaves_a_sound_one_alone() {
    let devnet = Devnet::make(1, &[]);
    let data = devnet.path("v0");
    let database = devnet.path("v0/database");
    let order = |order: &str| {
        run_command(&["reset-database", "--data-dir", &data, "--order", order, "--if-corrupt"]).unwrap();
    };
    let signer = || std::fs::read(devnet.path("v0/signer/record")).unwrap();
    let before = signer();
    order("pod-1");
    assert!(std::path::Path::new(&database).join("CURRENT").exists());

    corrupt(&manifest(&database));
    assert_eq!(run(&devnet).reason, ExitReason::DatabaseCorrupt);
    order("pod-1");
    assert!(std::path::Path::new(&database).exists(), "an order counts once");
    order("pod-2");
    assert!(!std::path::Path::new(&database).exists());
    assert_eq!(signer(), before);
}

#[test]
fn a_signing_record_that_lost_both_copies_of_a_slot_refuses() {
    let devnet = Devnet::make(1, &[]);
    let path = devnet.path("v0/signer/record");
    let mut bytes = std::fs::read(&path).unwrap();
    let block = 4_096;
    let slots = (bytes.len() / block - 2) / 2;
    for copy in [2 + 1, 2 + slots + 1] {
        bytes[copy * block + 100] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let termination = run(&devnet);
    assert_eq!(termination.reason, ExitReason::SigningRecordRefused, "{termination:?}");

    std::fs::remove_file(&path).unwrap();
    let termination = run(&devnet);
    assert_eq!(termination.reason, ExitReason::SigningRecordRefused, "a missing record is never made again");
}

#[test]
fn keys_copied_to_another_volume_are_refused() {
    let devnet = Devnet::make(1, &[]);
    let config = devnet.configuration_file(0);
    let text = std::fs::read_to_string(&config).unwrap();
    let other = text
        .lines()
        .map(|line| if line.starts_with("volume_id") { "volume_id = \"another\"" } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    std::fs::write(&config, other).unwrap();
    assert_eq!(run(&devnet).reason, ExitReason::SigningRecordRefused);
}

#[test]
fn keys_that_refuse_are_set_aside_by_order_and_sound_ones_never() {
    let devnet = Devnet::make(1, &[]);
    let (data, configuration) = (devnet.path("v0"), devnet.configuration(0));
    let chain = devnet.genesis().genesis.chain_id;
    let init = |order: &str| {
        let order = ["--replace-refused", order];
        let key = ["init-key", "--data-dir", &data, "--chain-id", &chain, "--node-name", "v0"];
        run_command(&[&key[..], &["--volume-id", &configuration.volume_id], &order].concat())
    };
    let key = || std::fs::read(devnet.path("v0/signer/consensus.key")).unwrap();
    let first = key();
    init("pod-1").unwrap();
    assert_eq!(key(), first, "its record is sound");

    std::fs::remove_file(devnet.path("v0/signer/record")).unwrap();
    init("pod-1").unwrap();
    let second = key();
    assert_ne!(second, first);
    let aside = std::fs::read(devnet.path("v0/signer.refused-pod-1/consensus.key")).unwrap();
    assert_eq!(aside, first, "nothing is deleted");
    init("pod-1").unwrap();
    assert_eq!(key(), second);
    // An order counts once, whatever becomes of the keys it made.
    std::fs::remove_file(devnet.path("v0/signer/tls.key")).unwrap();
    assert!(init("pod-1").is_err());
    assert_eq!(key(), second);
    init("pod-2").unwrap();
    assert_ne!(key(), second);
    assert!(init("../x").is_err(), "an order is no path");
}
