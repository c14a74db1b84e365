//! The end of an epoch by a restart (E6), on the core alone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod cluster;

use bizra_simplex::types::{Digest, Height, Millis};
use bizra_simplex::{Block, Certificate, Config, Effect, Event, Message, Record, Safety, State, VoteKind};
use cluster::{certificate, child, config, genesis};

const NOTHING: [Height; 0] = [];

/// Four blocks, one above the other.
fn chain() -> Vec<Block> {
    let mut chain = vec![genesis().block];
    for number in 0..4 {
        chain.push(child(chain.last().unwrap(), vec![Digest([number; 32])]));
    }
    chain
}

/// A node at the genesis that knows of a restart after the second block, and what it had persisted.
fn node(records: Vec<Record>, end: bool) -> State {
    let last = chain()[2].clone();
    let restarted_at = Some((last.height, last.digest()));
    let config = Config { restarted_at: restarted_at.filter(|_| end), ..config(0) };
    State::recover(config, genesis(), None, records, Safety::default())
}

/// Answers every question about signatures with yes; says what became final.
fn feed(state: &mut State, event: Event) -> Vec<Height> {
    let (mut events, mut finalized) = (vec![event], Vec::new());
    while let Some(event) = events.pop() {
        for effect in state.step(Millis(0), event) {
            match effect {
                Effect::Verify(token, _) => events.push(Event::Verified(token, true)),
                Effect::Commit(blocks, _) => finalized.extend(blocks.iter().map(|block| block.height)),
                Effect::Sign(vote) => panic!("it signs {vote:?}"),
                _ => {}
            }
        }
    }
    finalized
}

fn heard(certificate: Certificate) -> Event {
    Event::Received(Message::Certificate(certificate))
}

fn of(kind: VoteKind, height: usize) -> Certificate {
    certificate(kind, height as u64, chain()[height].digest())
}

#[test]
fn the_named_block_is_final_with_its_notarization_and_nothing_above_it_ever_is() {
    let blocks = || chain().into_iter().skip(1).map(Record::Block);
    let records = || blocks().chain([Record::Certificate(of(VoteKind::Notarize, 2))]).collect::<Vec<_>>();
    let mut without = node(records(), false);
    assert_eq!(feed(&mut without, Event::Started), NOTHING, "a notarization alone finalises nothing");

    let mut restarted = node(records(), true);
    assert_eq!(feed(&mut restarted, Event::Started), [Height(1), Height(2)]);
    assert!(restarted.is_over());
    assert_eq!(feed(&mut restarted, heard(of(VoteKind::Finalize, 3))), NOTHING);
    assert_eq!(restarted.anchor().height(), Height(2));

    // Also if it hears of the one above first.
    let mut restarted = node(blocks().collect(), true);
    feed(&mut restarted, Event::Started);
    assert_eq!(feed(&mut restarted, heard(of(VoteKind::Finalize, 3))), NOTHING);
    assert_eq!(feed(&mut restarted, heard(of(VoteKind::Finalize, 1))), [Height(1)]);
    assert_eq!(feed(&mut restarted, heard(of(VoteKind::Notarize, 2))), [Height(2)]);
    assert!(restarted.is_over());
}

#[test]
fn a_range_ends_at_the_named_block() {
    let range = |blocks: std::ops::Range<usize>, certificate| Event::Range(chain()[blocks].to_vec(), certificate);
    let mut without = node(Vec::new(), false);
    feed(&mut without, Event::Started);
    assert_eq!(feed(&mut without, range(1..3, of(VoteKind::Notarize, 2))), NOTHING);

    let mut restarted = node(Vec::new(), true);
    feed(&mut restarted, Event::Started);
    assert_eq!(feed(&mut restarted, range(1..4, of(VoteKind::Finalize, 3))), NOTHING);
    assert_eq!(feed(&mut restarted, range(1..2, of(VoteKind::Notarize, 1))), NOTHING);
    let other = child(&chain()[1], vec![Digest([77; 32])]);
    let finalized = certificate(VoteKind::Finalize, 2, other.digest());
    assert_eq!(feed(&mut restarted, Event::Range(vec![chain()[1].clone(), other], finalized)), NOTHING, "beside it");
    assert_eq!(feed(&mut restarted, range(1..3, of(VoteKind::Notarize, 2))), [Height(1), Height(2)]);
    assert!(restarted.is_over());
}
