//! A validator is fenced and let go by its configuration file while it runs; killed in between, it stays fenced.

use crate::common::devnet::Devnet;
use crate::common::patience::wait;

const FENCED: usize = 3;

fn number(devnet: &Devnet, metric: &str) -> Option<u64> {
    let metrics = devnet.metrics(FENCED)?;
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(metric))?;
    line.split(' ').nth(1)?.parse().ok()
}

fn order(devnet: &Devnet, signing: &str) {
    let file = devnet.configuration_file(FENCED);
    let text = std::fs::read_to_string(&file).unwrap();
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("signing = ")).collect();
    std::fs::write(&file, format!("signing = \"{signing}\"\n{}", rest.join("\n"))).unwrap();
}

/// In sync, not ready, and silent: none of the blocks that are final meanwhile has its vote.
fn is_fenced(devnet: &Devnet) -> Option<()> {
    let state = ["bizra_in_sync", "bizra_ready", "bizra_last_voted_height"].map(|metric| number(devnet, metric));
    (state == [Some(1), Some(0), Some(0)]).then_some(())
}

#[test]
fn a_fenced_validator_follows_and_signs_nothing_also_after_it_was_killed() {
    let mut devnet = Devnet::make(4, &[]);
    (0..4).for_each(|node| devnet.run(node));
    wait("the validator votes", || number(&devnet, "bizra_last_voted_height").filter(|height| *height > 0));

    order(&devnet, "fenced");
    wait("the fence is taken up", || is_fenced(&devnet));
    let height = devnet.height(FENCED).unwrap();
    devnet.wait_height(FENCED, height + 5);
    assert_eq!(is_fenced(&devnet), Some(()));

    devnet.kill(FENCED);
    devnet.run(FENCED);
    wait("it is fenced when it comes back", || is_fenced(&devnet));
    let height = devnet.height(FENCED).unwrap();
    devnet.wait_height(FENCED, height + 5);
    assert_eq!(is_fenced(&devnet), Some(()));

    order(&devnet, "allowed");
    wait("it votes again", || number(&devnet, "bizra_last_voted_height").filter(|height| *height > 0));
    wait("it is ready again", || number(&devnet, "bizra_ready").filter(|ready| *ready == 1));
}
