//! A validator's key is copied to another volume, record and binding are forged, and both nodes run. What its peers say keeps the
//! copy from signing (PROTOCOL S5): it stops, and nobody sees two conflicting signatures.
//!
//! With the cargo feature `planted` the copy does not believe its peers. Then the watching nodes must see conflicting signatures:
//! this test can fail.

use std::fs;

use bizra_proto::exit::ExitReason;

use crate::common::devnet::Devnet;
use crate::common::patience::wait;

/// Whose key is copied.
const VALIDATOR: usize = 3;
/// Who holds the copy; its own key is lost. The other four of five are a quorum.
const COPY: usize = 4;

fn number(devnet: &Devnet, node: usize, metric: &str) -> Option<u64> {
    let metrics = devnet.metrics(node)?;
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(metric))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Pairs of conflicting signatures that the other nodes have seen.
fn conflicts(devnet: &Devnet) -> u64 {
    (0..VALIDATOR).filter_map(|node| number(devnet, node, "bizra_consensus_evidence_total")).sum()
}

/// As somebody does who can write to the volume: the other key, and a record that has never signed.
fn forge(devnet: &Devnet) {
    let file = |node: usize, name: &str| devnet.path(&format!("v{node}/signer/{name}"));
    fs::copy(file(VALIDATOR, "consensus.key"), file(COPY, "consensus.key")).unwrap();
    fs::remove_file(file(COPY, "record")).unwrap();
    fs::write(file(COPY, "unsigned"), "").unwrap();
}

#[test]
fn a_copied_key_beside_the_running_validator_signs_nothing() {
    let mut devnet = Devnet::make(5, &[]);
    forge(&devnet);
    (0..=VALIDATOR).for_each(|node| devnet.run(node));
    wait("the validator votes", || number(&devnet, VALIDATOR, "bizra_last_voted_height").filter(|height| *height > 0));
    assert_eq!(conflicts(&devnet), 0);
    if cfg!(feature = "planted") {
        devnet.run(COPY);
        wait("the watching nodes see two conflicting signatures", || (conflicts(&devnet) > 0).then_some(()));
        return;
    }
    let output = devnet.node(COPY).output().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(ExitReason::SignedElsewhere.code())), "{output:?}");
    let height = devnet.height(0).unwrap();
    devnet.wait_height(0, height + 20);
    assert_eq!(conflicts(&devnet), 0);
    let voted = number(&devnet, VALIDATOR, "bizra_last_voted_height");
    assert!(voted.is_some_and(|voted| voted > height), "the validator goes on: {voted:?}");
}
