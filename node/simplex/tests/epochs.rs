//! Headers and the end of an epoch, on the core alone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::block::{CHECKPOINT_INTERVAL, CHECKPOINT_LAG_MAX};
use bizra_simplex::types::{Digest, Epoch, Height, Signature, ValidatorIndex, View};
use bizra_simplex::{Block, Checkpoint, Event, Message, Proposal, Protocol, Version, VoteKind};
use cluster::{Cluster, NEXT_EPOCH, by, certificate, child, contradiction, genesis};

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
    let sound = by(2, child(&parent, Vec::new()));
    assert_eq!(judged(&parent, sound.clone()), [VoteKind::Notarize]);

    let named = |height| Checkpoint { height: Height(height), ..CUTOFF };
    for (what, block) in [
        ("a checkpoint that is not below the block", Block { checkpoint: named(CHECKPOINT_INTERVAL), ..sound.clone() }),
        ("a height that is no checkpoint", Block { checkpoint: named(1), ..sound.clone() }),
        ("another state for the parent's checkpoint", Block { checkpoint: named(0), ..sound.clone() }),
        ("a boundary before the cut-off", Block { boundary: Some(NEXT_EPOCH), ..sound.clone() }),
        ("another proposer than the leader", Block { proposer: ValidatorIndex(1), ..sound.clone() }),
        ("another view than the proposal's", Block { view: View(6), ..sound.clone() }),
        ("a signal below the version of the epoch", Block { signals: Version(0), ..sound.clone() }),
        ("a report in version 1", Block { contradictions: vec![contradiction(0, 1, 3)], ..sound.clone() }),
    ] {
        assert!(!judged(&parent, block).contains(&VoteKind::Notarize), "{what}");
    }

    let ending = Block {
        height: Height(CHECKPOINT_INTERVAL + 1),
        checkpoint: CUTOFF,
        boundary: Some(NEXT_EPOCH),
        ..parent.clone()
    };
    assert!(ending.is_well_formed(CUTOFF.height, Protocol::V1));
    assert!(!Block { boundary: None, ..ending.clone() }.is_well_formed(CUTOFF.height, Protocol::V1));
    let after = by(2, child(&ending, Vec::new()));
    assert!(!judged(&ending, after).contains(&VoteKind::Notarize), "a child of the boundary");
}

/// H1: a receipt is provable only if a header names the checkpoint that covers it.
#[test]
fn no_checkpoint_is_skipped() {
    let parent = Block { height: Height(50), ..genesis().block };
    let names = |height| {
        let checkpoint = Checkpoint { height: Height(height), ..CUTOFF };
        Block { height: Height(51), view: View(1), checkpoint, ..parent.clone() }.follows(&parent)
    };
    assert!(names(CHECKPOINT_INTERVAL));
    assert!(!names(2 * CHECKPOINT_INTERVAL));
    let later = Block { height: Height(51), checkpoint: CUTOFF, ..parent.clone() };
    let after = Block { height: Height(52), view: View(1), ..later.clone() };
    assert!(after.follows(&later));
    assert!(!Block { checkpoint: Checkpoint::default(), ..after }.follows(&later));
}

/// T2: whose turns came to nothing is on record.
#[test]
fn views_grow_within_an_epoch_and_begin_anew_with_the_next() {
    let parent = Block { height: Height(50), view: View(7), ..genesis().block };
    let child = |view| Block { height: Height(51), view: View(view), ..parent.clone() };
    assert!(child(8).follows(&parent) && child(20).follows(&parent));
    assert!(!child(7).follows(&parent) && !child(6).follows(&parent));
    assert!(Block { epoch: Epoch(1), ..child(1) }.follows(&parent));
}

/// H1: ordering waits for execution.
#[test]
fn a_block_far_above_its_checkpoint_orders_nothing() {
    let full = |height| Block { height: Height(height), batches: vec![Digest([1; 32])], ..genesis().block };
    let never = Height(u64::MAX);
    assert!(full(CHECKPOINT_LAG_MAX).is_well_formed(never, Protocol::V1));
    assert!(!full(CHECKPOINT_LAG_MAX + 1).is_well_formed(never, Protocol::V1));
    assert!(Block { batches: Vec::new(), ..full(CHECKPOINT_LAG_MAX + 1) }.is_well_formed(never, Protocol::V1));
}

/// P1: every block names its maker and what that could go by, also when another leader proposes it again (E2).
#[test]
fn blocks_carry_the_signal_of_their_maker() {
    let mut cluster = Cluster::start();
    for _ in 0..8 {
        cluster.tick(1_000);
    }
    for block in &cluster.nodes[0].committed {
        // One block a view so far, so heights are views.
        assert_eq!(u64::from(block.proposer.0), block.height.0 % 4);
        assert_eq!(block.signals, Protocol::V2.version());
        assert!(block.contradictions.is_empty(), "version 1 carries none");
    }
    assert_eq!(cluster.nodes[0].committed.len(), 8);
}

/// V7: what a block of version 2 may report, by its form.
#[test]
fn reports_are_bounded_ordered_and_of_the_last_epochs() {
    let of_epoch_5 = Block { epoch: Epoch(5), signals: Version(2), ..genesis().block };
    let fits = |contradictions, protocol| {
        let block = Block { height: Height(1), contradictions, ..of_epoch_5.clone() };
        block.is_well_formed(Height(u64::MAX), protocol)
    };
    let told = contradiction;
    assert!(fits(vec![told(3, 9, 2), told(5, 1, 0), told(5, 7, 1)], Protocol::V2));
    assert!(!fits(vec![told(5, 1, 0)], Protocol::V1));
    for (what, contradictions) in [
        ("more than four", (0..5).map(|signer| told(5, 1, signer)).collect()),
        ("too old", vec![told(2, 1, 0)]),
        ("of an epoch to come", vec![told(6, 1, 0)]),
        ("out of order", vec![told(5, 1, 1), told(5, 1, 0)]),
        ("one validator twice", vec![told(5, 1, 0), told(5, 2, 0)]),
        ("no contradiction", {
            let mut agreeing = told(5, 1, 0);
            agreeing.second = agreeing.first;
            vec![agreeing]
        }),
        ("two signers", {
            let mut mixed = told(5, 1, 0);
            mixed.second.signer = ValidatorIndex(1);
            vec![mixed]
        }),
    ] {
        assert!(!fits(contradictions, Protocol::V2), "{what}");
    }
}
