//! A validator that lost its database joins again at a snapshot from its peers, which have forgotten the beginning of the
//! chain: real processes, real disks, killed in the middle of it.

use std::fs;

use crate::common::devnet::Devnet;
use crate::common::patience::wait;
use crate::common::process;

/// Short epochs, enough accounts for a snapshot of several chunks, peers that prune and serve slowly.
fn start() -> Devnet {
    let mut devnet = Devnet::make(4, &["--accounts", "70000", "--epoch-blocks", "32"]);
    for node in 0..4 {
        let file = devnet.configuration_file(node);
        let mut text = fs::read_to_string(&file).unwrap();
        for (default, wanted) in [
            ("archive = true", "archive = false"),
            ("blocks = 100000", "blocks = 256"),
            ("snapshot_behind_blocks = 8192", "snapshot_behind_blocks = 64"),
            ("serve_bytes_per_second = 16777216", "serve_bytes_per_second = 262144"),
        ] {
            assert!(text.contains(default), "{text}");
            text = text.replace(default, wanted);
        }
        fs::write(file, text).unwrap();
        devnet.run(node);
    }
    devnet
}

fn has_block(devnet: &Devnet, node: usize, height: u64) -> bool {
    devnet.json(node, &format!("/v1/blocks/{height}")).is_some_and(|block| block["height"].as_u64() == Some(height))
}

/// The lowest height that a node keeps above the genesis.
fn first_height(devnet: &Devnet, node: usize) -> u64 {
    let last = devnet.wait_height(node, 1);
    (1..=last).find(|&height| has_block(devnet, node, height)).unwrap()
}

#[test]
fn a_validator_without_a_database_joins_at_a_snapshot_resumes_after_a_kill_and_votes_again() {
    let mut devnet = start();
    devnet.wait_height(0, 2);
    let arguments = ["--count", "4000", "--rate", "100", "--accounts", "50", "--require-all"];
    let load = devnet.load(1, &arguments).output().unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    // Everybody has forgotten the first blocks.
    let start = devnet.wait_height(0, 330);
    wait("pruning", || (0..3).all(|node| !has_block(&devnet, node, 2)).then_some(()));

    devnet.kill(3);
    let signer = |file: &str| fs::read(devnet.path(&format!("v3/signer/{file}"))).unwrap();
    let record = signer("record");
    let reset = |node: &str| process::run(&["reset-database", "--data-dir", &devnet.path(node)]);
    reset("v3").unwrap();
    assert!(signer("record") == record, "the signing record is as it was");
    let exists = |devnet: &Devnet, name: &str| fs::exists(devnet.path("v3") + "/" + name).unwrap();
    assert!(!exists(&devnet, "database") && exists(&devnet, "database.old-1"));

    assert!(reset("v0").is_err(), "a running node's database is not reset");

    // Killed when a chunk is there, it goes on with that snapshot, unless an epoch has ended meanwhile.
    let mut from = devnet.log(3).len();
    devnet.run(3);
    let mut resumed = false;
    for _ in 0..4 {
        wait("a chunk", || devnet.log(3)[from..].contains("chunk stored").then_some(()));
        devnet.kill(3);
        assert!(exists(&devnet, "database.joining") && !exists(&devnet, "database.joined"));
        from = devnet.log(3).len();
        devnet.run(3);
        let begun = wait("the snapshot", || {
            let log = devnet.log(3).split_off(from);
            log.lines().find(|line| line.contains("joining the chain at a snapshot")).map(str::to_owned)
        });
        resumed = begun.contains("\"resumed\":true");
        if resumed {
            break;
        }
    }
    assert!(resumed, "{}", devnet.log(3));
    devnet.wait_height(3, start);
    assert!(devnet.log(3).contains("the database begins at a snapshot"), "{}", devnet.log(3));
    assert!(!has_block(&devnet, 3, start - 150), "it begins in the middle");

    // Without v0 every block needs the vote of v3.
    devnet.kill(0);
    let now = devnet.wait_height(1, start);
    devnet.wait_height(1, now + 5);
    devnet.wait_height(3, now + 5);

    // What a snapshot brought is checked like any other database, and what came after it executed again.
    devnet.run(0);
    devnet.wait_height(0, now + 5);
    let from = first_height(&devnet, 3);
    let arguments = ["--count", "1500", "--rate", "150", "--accounts", "50", "--require-all"];
    let load = devnet.load(1, &arguments).output().unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    devnet.wait_height(3, from + 140);
    devnet.kill(3);
    let (data, genesis) = (devnet.path("v3"), devnet.path("genesis.json"));
    let verified = process::json(&["verify", "--data-dir", &data, "--genesis", &genesis]);
    let height = |name: &str| verified[name].as_u64().unwrap();
    assert!(height("oldestHeight") > 1 && height("baseHeight") > height("oldestHeight"), "{verified}");
    assert!(height("checkpoints") > 0, "blocks were executed again: {verified}");
}
