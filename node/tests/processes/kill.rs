//! A whole network of processes: load, a killed validator, and every database checked afterwards.

use std::process::Stdio;
use std::time::Duration;

use crate::common::devnet::Devnet;
use crate::common::process;

/// All events of a node's blocks up to a height, as server-sent events.
fn events(devnet: &Devnet, node: usize, height: u64) -> String {
    let (_, stream) = devnet.get(node, "/v1/events?from=1:0&follow=false").unwrap();
    let (before, _) = stream.split_once(&format!("id: {}:0\n", height + 1)).expect("the node has more blocks");
    before.to_owned()
}

/// What the command line prints of the same.
fn printed_events(devnet: &Devnet, node: usize, height: u64) -> Vec<serde_json::Value> {
    let lines = process::run(&["events", "--from", "1:0", "--output", "json", "--node", &devnet.url(node)]).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    events.filter(|event: &serde_json::Value| event["height"].as_u64().unwrap() <= height).collect()
}

/// Runs `verify` or `replay` on a stopped node.
fn check(command: &str, devnet: &Devnet, node: usize) -> serde_json::Value {
    let (data, genesis) = (devnet.path(&format!("v{node}")), devnet.path("genesis.json"));
    process::json(&[command, "--data-dir", &data, "--genesis", &genesis])
}

#[test]
fn a_validator_killed_under_load_catches_up_and_every_database_verifies() {
    let mut devnet = Devnet::make(4, &["--accounts", "50"]);
    (0..4).for_each(|node| devnet.run(node));
    let start = devnet.wait_height(0, 2);
    // Not at v3: it is the one that is killed.
    let mut load = devnet.load(3, &["--count", "4000", "--rate", "400", "--accounts", "50", "--require-all"]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    devnet.kill(3);
    // Without it the chain goes on.
    let without = devnet.wait_height(0, start + 20);
    std::thread::sleep(Duration::from_secs(2));
    devnet.run(3);
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Each of the nodes told of its own finalised blocks; the first may be behind the others.
    let finalized = (0..3).filter_map(|node| devnet.height(node)).max().unwrap();
    let end = devnet.wait_height(0, finalized.max(without + 3));
    devnet.wait_height(3, end);

    // All killed in the same moment: what was finalised stays, and the network goes on.
    (0..4).for_each(|node| devnet.kill(node));
    (0..4).for_each(|node| devnet.run(node));
    let again = devnet.wait_height(1, end + 3);
    (0..4).for_each(|node| {
        devnet.wait_height(node, again);
    });
    // One log, whoever was killed and caught up, and over every interface.
    let logs: Vec<String> = (0..4).map(|node| events(&devnet, node, end)).collect();
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "two nodes tell of different events");
    let data: Vec<serde_json::Value> = logs[0]
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let transfers = data.iter().filter(|event| event["type"] == "Transferred").count();
    assert!(transfers >= 4_000, "{transfers} transfers up to height {end}");
    assert!(data == printed_events(&devnet, 3, end), "gRPC and HTTP tell of different events");
    (0..4).for_each(|node| devnet.stop(node));
    for node in 0..4 {
        let report = check("verify", &devnet, node);
        assert!(report["blocks"].as_u64().unwrap() >= again, "{report}");
        assert!(report["events"].as_u64().unwrap() >= data.len() as u64, "{report}");
    }
    let report = check("replay", &devnet, 3);
    assert!(report["checkpoints"].as_u64().unwrap() >= again / 16, "{report}");
}
