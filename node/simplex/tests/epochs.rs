//! Headers and the end of an epoch, on the core alone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::block::{CHECKPOINT_INTERVAL, CHECKPOINT_LAG_MAX};
use bizra_simplex::types::{Digest, Height, Signature, View};
use bizra_simplex::{Block, Checkpoint, Event, Message, Proposal, VoteKind};
use cluster::{Cluster, NEXT_EPOCH, certificate, child, genesis};

const CUTOFF: Checkpoint =
    Checkpoint { height: Height(CHECKPOINT_INTERVAL), state: Digest([5; 32]), receipts: Digest([6; 32]) };

/// Grows the chain to where the next block ends the epoch.
fn at_the_end_of_the_epoch() -> Cluster {
    let mut cluster = Cluster::start();
    for _ in 0..CHECKPOINT_INTERVAL {
        cluster.tick(1_000);
    }
    assert_eq!(cluster.heights(), [CHECKPOINT_INTERVAL; 4]);
    cluster.checkpoint = CUTOFF;
    cluster
}

/// E1.
#[test]
fn the_first_block_whose_checkpoint_reaches_the_cutoff_ends_the_epoch() {
    let mut cluster = at_the_end_of_the_epoch();
    for _ in 0..5 {
        cluster.tick(1_000);
    }
    assert_eq!(cluster.heights(), [CHECKPOINT_INTERVAL + 1; 4]);
    cluster.agree();
    let signed: Vec<usize> = cluster.nodes.iter().map(|node| node.signed.len()).collect();
    for node in &cluster.nodes {
        assert!(node.state.is_over());
        assert_eq!(node.anchor.block.boundary, Some(NEXT_EPOCH));
        assert_eq!(node.anchor.block.checkpoint, CUTOFF);
    }
    for _ in 0..20 {
        cluster.tick(1_000);
    }
    let later: Vec<usize> = cluster.nodes.iter().map(|node| node.signed.len()).collect();
    assert_eq!(signed, later, "nothing is signed in an epoch that is over");
}

/// E2.
#[test]
fn a_notarized_boundary_is_proposed_again_until_a_view_finalises_it() {
    let mut cluster = at_the_end_of_the_epoch();
    cluster.now += 1_000;
    for node in 0..4 {
        cluster.feed(node, Event::Tick);
    }
    // The proposal and the notarize votes arrive, the finalize votes of that view never do.
    cluster.one_network_delay();
    cluster.one_network_delay();
    cluster
        .wire
        .retain(|(_, message)| !matches!(message, Message::Vote(signed) if signed.vote.kind == VoteKind::Finalize));
    assert_eq!(cluster.heights(), [CHECKPOINT_INTERVAL; 4]);
    // Finalize votes are sent again only every resend interval; the next leader is faster.
    cluster.tick(0);
    let first = View(CHECKPOINT_INTERVAL + 1);
    let proposed = |cluster: &Cluster, view: View| {
        let votes = cluster.nodes.iter().flat_map(|node| node.signed.iter());
        votes.filter(|vote| vote.kind == VoteKind::Propose && vote.view == view).map(|vote| vote.digest).next()
    };
    for node in 0..4 {
        cluster.feed(node, Event::Work(true));
    }
    cluster.tick(30);
    let again = proposed(&cluster, first.next());
    assert!(again.is_some());
    assert_eq!(again, proposed(&cluster, first), "nothing follows a boundary but itself");
    assert_eq!(cluster.heights(), [CHECKPOINT_INTERVAL + 1; 4]);
    assert!(cluster.nodes.iter().all(|node| node.state.is_over()));
}

fn proposal(block: Block, parent: &Block) -> Proposal {
    let _ = parent;
    Proposal { view: View(2), parent_view: View(1), block, justification: None, signature: Signature([0; 64]) }
}

/// What node 0 signs in view 2 for a block on a notarized parent.
fn judged(parent: &Block, block: Block) -> Vec<VoteKind> {
    let mut cluster = Cluster::start();
    let notarization = certificate(VoteKind::Notarize, 1, parent.digest());
    cluster.feed(0, Event::Received(Message::Certificate(notarization.clone())));
    cluster.feed(0, Event::Fetched(parent.clone()));
    let proposal = Proposal { justification: Some(notarization), ..proposal(block, parent) };
    cluster.feed(0, Event::Received(Message::Proposal(proposal)));
    cluster.nodes[0].signed.iter().filter(|vote| vote.view == View(2)).map(|vote| vote.kind).collect()
}

/// H1, E1, E2: what no validator votes for.
#[test]
fn headers_that_break_a_rule_get_no_vote() {
    let parent = child(&genesis().block, Vec::new());
    let sound = child(&parent, Vec::new());
    assert_eq!(judged(&parent, sound.clone()), [VoteKind::Notarize]);

    let named = |height| Checkpoint { height: Height(height), ..CUTOFF };
    for (what, block) in [
        ("a checkpoint that is not below the block", Block { checkpoint: named(CHECKPOINT_INTERVAL), ..sound.clone() }),
        ("a height that is no checkpoint", Block { checkpoint: named(1), ..sound.clone() }),
        ("another state for the parent's checkpoint", Block { checkpoint: named(0), ..sound.clone() }),
        ("a boundary before the cut-off", Block { boundary: Some(NEXT_EPOCH), ..sound.clone() }),
    ] {
        assert!(!judged(&parent, block).contains(&VoteKind::Notarize), "{what}");
    }

    let ending = Block {
        height: Height(CHECKPOINT_INTERVAL + 1),
        checkpoint: CUTOFF,
        boundary: Some(NEXT_EPOCH),
        ..parent.clone()
    };
    assert!(ending.is_well_formed(CUTOFF.height));
    assert!(!Block { boundary: None, ..ending.clone() }.is_well_formed(CUTOFF.height));
    let after = child(&ending, Vec::new());
    assert!(!judged(&ending, after).contains(&VoteKind::Notarize), "a child of the boundary");
}

/// H1: a receipt is provable only if a header names the checkpoint that covers it.
#[test]
fn no_checkpoint_is_skipped() {
    let parent = Block { height: Height(50), ..genesis().block };
    let names = |height| {
        let checkpoint = Checkpoint { height: Height(height), ..CUTOFF };
        Block { height: Height(51), checkpoint, ..parent.clone() }.follows(&parent)
    };
    assert!(names(CHECKPOINT_INTERVAL));
    assert!(!names(2 * CHECKPOINT_INTERVAL));
    let later = Block { height: Height(51), checkpoint: CUTOFF, ..parent.clone() };
    assert!(!Block { height: Height(52), checkpoint: Checkpoint::default(), ..later.clone() }.follows(&later));
}

/// H1: ordering waits for execution.
#[test]
fn a_block_far_above_its_checkpoint_orders_nothing() {
    let full = |height| Block { height: Height(height), batches: vec![Digest([1; 32])], ..genesis().block };
    let never = Height(u64::MAX);
    assert!(full(CHECKPOINT_LAG_MAX).is_well_formed(never));
    assert!(!full(CHECKPOINT_LAG_MAX + 1).is_well_formed(never));
    assert!(Block { batches: Vec::new(), ..full(CHECKPOINT_LAG_MAX + 1) }.is_well_formed(never));
}
