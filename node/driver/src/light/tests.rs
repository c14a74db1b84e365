//! A chain of four epochs with changing validators, and everything a liar can do to the walk through it.

#![allow(clippy::unwrap_used, clippy::panic)]

use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{ValidatorIndex, View};
use bizra_simplex::{Boundary, Reputation, Version, Vote};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

const EPOCH_BLOCKS: u64 = 32;
const EPOCHS: u64 = 4;
const GENESIS: Digest = Digest([7; 32]);

/// A signature only who has the secret can make; here the secret is the key, and liars are only given what they own.
fn sign(key: PublicKey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    for (half, chunk) in bytes.chunks_mut(32).enumerate() {
        chunk.copy_from_slice(
            &Sha256::new().chain_update([half as u8]).chain_update(key.0).chain_update(message).finalize(),
        );
    }
    Signature(bytes)
}

fn verify(checks: &[Check]) -> bool {
    checks.iter().all(|(key, message, signature)| sign(*key, message) == *signature)
}

fn member(key: u8, power: u64) -> Member {
    Member { key: PublicKey([key; 32]), power: Power(power), reputation: Reputation::FULL }
}

/// Validators `1..=5` of epoch 0; each epoch a new one comes and the oldest goes.
fn members(epoch: u64, powers: &[u64]) -> Vec<Member> {
    (1..).zip(powers).map(|(key, power)| member(key + epoch as u8, power + epoch)).collect()
}

fn boundary(epoch: u64, next: &[Member]) -> Boundary {
    Boundary { validators: validators_hash(Epoch(epoch), next), snapshot: Digest::default(), version: Version(1) }
}

fn rules() -> ChainRules {
    ChainRules { genesis_hash: GENESIS, epoch_blocks: Some(EPOCH_BLOCKS), version: Version(1) }
}

fn certify(block: &Block, members: &[Member], signers: impl IntoIterator<Item = usize>) -> Certificate {
    let vote = Vote { epoch: block.epoch, view: View(9), kind: VoteKind::Finalize, digest: block.digest() };
    certify_vote(vote, members, signers, GENESIS)
}

fn certify_vote(
    vote: Vote,
    members: &[Member],
    signers: impl IntoIterator<Item = usize>,
    genesis_hash: Digest,
) -> Certificate {
    let message = vote.signed_bytes(genesis_hash);
    let signature = |index: usize| (ValidatorIndex(index as u16), sign(members[index].key, &message));
    Certificate { vote, signatures: signers.into_iter().map(signature).collect() }
}

/// The last block of an epoch: three blocks above its cut-off, which it names.
fn last_block(epoch: u64, parent: Digest, next: &[Member]) -> Block {
    let cutoff = EPOCH_BLOCKS * (epoch + 1);
    Block {
        epoch: Epoch(epoch),
        height: Height(cutoff + 3),
        checkpoint: Checkpoint {
            height: Height(cutoff),
            state: Digest([epoch as u8; 32]),
            receipts: Digest::default(),
        },
        boundary: Some(boundary(epoch + 1, next)),
        batches: vec![Digest([1; 32]), Digest([2; 32])],
        ..Block::genesis(parent, 1_000 * (epoch + 1))
    }
}

fn link(epoch: u64, powers: &[u64]) -> Link {
    let (now, next) = (members(epoch, powers), members(epoch + 1, powers));
    let block = last_block(epoch, Digest([9; 32]), &next);
    Link { finalization: certify(&block, &now, 0..now.len()), block, next }
}

fn start(powers: &[u64]) -> TrustedEpoch {
    TrustedEpoch::genesis(rules(), 0, members(0, powers)).unwrap()
}

/// The trusted epoch of that number, walked to.
fn walk(powers: &[u64], epochs: u64) -> TrustedEpoch {
    (0..epochs).fold(start(powers), |trusted, epoch| trusted.advance(&link(epoch, powers), verify).unwrap())
}

fn powers() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1_u64..50, 4..8)
}

/// Signs the block as a liar who owns only some keys: a coalition below a quorum, whatever it says.
fn weak_coalition(powers: &[u64], mask: u8) -> Option<Vec<usize>> {
    let signers: Vec<usize> = (0..powers.len()).filter(|index| mask >> index & 1 == 1).collect();
    let power: u64 = signers.iter().map(|&index| powers[index]).sum();
    (3 * power <= 2 * powers.iter().sum::<u64>()).then_some(signers)
}

proptest! {
    #[test]
    fn a_walk_leads_from_the_genesis_to_the_validators_of_every_epoch(powers in powers()) {
        let reached = walk(&powers, EPOCHS);
        prop_assert_eq!(reached.epoch(), Epoch(EPOCHS));
        prop_assert_eq!(reached.members(), &members(EPOCHS, &powers)[..]);
        prop_assert_eq!(reached.below().height, Height(EPOCH_BLOCKS * EPOCHS + 3));
    }

    #[test]
    fn a_link_survives_a_round_trip(powers in powers(), epoch in 0..EPOCHS) {
        let link = link(epoch, &powers);
        prop_assert_eq!(Link::decode(link.encode()), Ok(link));
    }

    #[test]
    fn no_flipped_bit_survives(powers in powers(), epoch in 0..EPOCHS, at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = link(epoch, &powers).encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(forged) = Link::decode(bytes.into()) {
            prop_assert!(walk(&powers, epoch).advance(&forged, verify).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let framed: Bytes = [&[LINK_VERSION], &bytes[..]].concat().into();
        let _ = Link::decode(framed.clone());
        let _ = Headers::decode(framed);
    }

    /// Less than a quorum may own its keys and sign whatever it likes.
    #[test]
    fn what_a_coalition_below_a_quorum_signs_is_refused(
        powers in powers(), epoch in 0..EPOCHS, mask: u8, evil in 100_u8..200, time in 1_000_u64..9_000,
    ) {
        let Some(signers) = weak_coalition(&members(epoch, &powers).iter().map(|m| m.power.0).collect::<Vec<_>>(), mask)
        else { return Ok(()) };
        let (now, next) = (members(epoch, &powers), vec![member(evil, 1)]);
        let block = Block { time_milliseconds: time, ..last_block(epoch, Digest([evil; 32]), &next) };
        let finalization = certify(&block, &now, signers.clone());
        let trusted = walk(&powers, epoch);
        let forged = Link { block: block.clone(), finalization, next: next.clone() };
        let refused = trusted.advance(&forged, verify);
        prop_assert!(matches!(refused, Err(LightError::NoQuorum(_) | LightError::NotAbove { .. })), "{refused:?}");

        // Signatures made up for the rest, signers named twice, or out of order do not help.
        let mut padded = certify(&block, &now, 0..now.len());
        for (index, signature) in &mut padded.signatures {
            if !signers.contains(&usize::from(index.0)) {
                *signature = Signature([evil; 64]);
            }
        }
        let forged = Link { finalization: padded, ..forged };
        prop_assert!(trusted.advance(&forged, verify).is_err());
        if let Some(&first) = signers.first() {
            let repeated = certify(&block, &now, std::iter::repeat_n(first, now.len()));
            let forged = Link { finalization: repeated, ..forged };
            prop_assert!(trusted.advance(&forged, verify).is_err());
        }
    }

    /// Validators that left long ago have all their keys, and nothing to lose.
    #[test]
    fn validators_of_an_earlier_epoch_finalise_nothing_in_a_later_one(powers in powers(), epoch in 1..EPOCHS) {
        let (old, next) = (members(epoch - 1, &powers), vec![member(200, 1)]);
        let block = last_block(epoch, Digest([9; 32]), &next);
        let forged = Link { finalization: certify(&block, &old, 0..old.len()), block, next };
        prop_assert_eq!(
            walk(&powers, epoch).advance(&forged, verify).unwrap_err(),
            LightError::Signature(Height(EPOCH_BLOCKS * (epoch + 1) + 3))
        );
    }

    #[test]
    fn an_epoch_cannot_be_skipped_or_repeated(powers in powers(), at in 0..EPOCHS, other in 0..EPOCHS) {
        let result = walk(&powers, at).advance(&link(other, &powers), verify);
        match result {
            Ok(_) => prop_assert_eq!(at, other),
            Err(error) => {
                let height = Height(EPOCH_BLOCKS * (other + 1) + 3);
                prop_assert_eq!(error, LightError::AnotherEpoch { height, found: Epoch(other), wanted: Epoch(at) });
            }
        }
    }
}

const POWERS: [u64; 5] = [10, 10, 10, 10, 10];

/// The refusal of epoch 0's link after `change`, signed anew by everybody if `resign`.
fn refusal(change: impl FnOnce(&mut Link), resign: bool) -> LightError {
    let mut changed = link(0, &POWERS);
    change(&mut changed);
    if resign {
        changed.finalization = certify(&changed.block, &members(0, &POWERS), 0..POWERS.len());
    }
    start(&POWERS).advance(&changed, verify).unwrap_err()
}

#[test]
fn each_lie_has_its_own_name() {
    let height = Height(35);
    let other = || vec![member(77, 1)];
    let swapped = refusal(|link| link.next = other(), false);
    assert!(matches!(swapped, LightError::AnotherSet { epoch: Epoch(1), .. }), "{swapped}");
    let reordered = refusal(|link| link.next.swap(0, 1), false);
    assert!(matches!(reordered, LightError::AnotherSet { .. }), "{reordered}");
    let renamed = |link: &mut Link| {
        link.next = other();
        link.block.boundary = Some(boundary(1, &link.next));
    };
    assert_eq!(refusal(renamed, false), LightError::AnotherVote(height));
    let with_vote = |link: &mut Link| {
        renamed(link);
        link.finalization.vote.digest = link.block.digest();
    };
    assert_eq!(refusal(with_vote, false), LightError::Signature(height));
    let notarized = |link: &mut Link| {
        let vote = Vote { kind: VoteKind::Notarize, ..link.finalization.vote };
        link.finalization = certify_vote(vote, &members(0, &POWERS), 0..5, GENESIS);
    };
    assert_eq!(refusal(notarized, false), LightError::AnotherVote(height));
    let elsewhere = |link: &mut Link| {
        link.finalization = certify_vote(link.finalization.vote, &members(0, &POWERS), 0..5, Digest([8; 32]));
    };
    assert_eq!(refusal(elsewhere, false), LightError::Signature(height));
    let of_another_epoch = |link: &mut Link| {
        let vote = Vote { epoch: Epoch(1), ..link.finalization.vote };
        link.finalization = certify_vote(vote, &members(0, &POWERS), 0..5, GENESIS);
    };
    assert_eq!(refusal(of_another_epoch, false), LightError::NoQuorum(height));
    let stranger = |link: &mut Link| link.finalization.signatures[4].0 = ValidatorIndex(9);
    assert_eq!(refusal(stranger, false), LightError::NoQuorum(height));
    // 3 of 5 are less than two thirds, 4 of 5 are more.
    assert_eq!(refusal(|link| link.finalization.signatures.truncate(3), false), LightError::NoQuorum(height));
    let mut enough = link(0, &POWERS);
    enough.finalization.signatures.truncate(4);
    assert!(start(&POWERS).advance(&enough, verify).is_ok());
}

#[test]
fn even_a_quorum_cannot_sign_what_the_rules_forbid() {
    let height = Height(35);
    assert_eq!(refusal(|link| link.block.boundary = None, true), LightError::Malformed(height));
    let early = |link: &mut Link| link.block.checkpoint.height = Height(EPOCH_BLOCKS - CHECKPOINT_INTERVAL);
    assert_eq!(refusal(early, true), LightError::Malformed(height));
    let twice = |link: &mut Link| {
        link.next[1].key = link.next[0].key;
        link.block.boundary = Some(boundary(1, &link.next));
    };
    assert_eq!(refusal(twice, true), LightError::KeyTwice(Epoch(1)));
    let nobody = |link: &mut Link| {
        link.next.clear();
        link.block.boundary = Some(boundary(1, &[]));
    };
    assert!(matches!(refusal(nobody, true), LightError::NoSet { epoch: Epoch(1), .. }));
    let powerless = |link: &mut Link| {
        link.next[0].power = Power(0);
        link.block.boundary = Some(boundary(1, &link.next));
    };
    assert!(matches!(refusal(powerless, true), LightError::NoSet { .. }));
    let unknown = |link: &mut Link| link.block.boundary.as_mut().unwrap().version = Version(77);
    assert_eq!(refusal(unknown, true), LightError::Version { epoch: Epoch(1), version: Version(77) });
    let mut back = link(1, &POWERS);
    back.block.time_milliseconds = 1;
    back.finalization = certify(&back.block, &members(1, &POWERS), 0..5);
    let below = Height(35);
    let refused = walk(&POWERS, 1).advance(&back, verify).unwrap_err();
    assert_eq!(refused, LightError::NotAbove { height: Height(67), below });
}

#[test]
fn cheap_checks_come_before_signatures() {
    let mut few = link(0, &POWERS);
    few.finalization.signatures.truncate(1);
    assert!(start(&POWERS).advance(&few, |_| panic!("asked to check signatures of no quorum")).is_err());
}

#[test]
fn an_anchor_is_a_digest_that_somebody_trusted_vouches_for() {
    let Link { block, next, .. } = link(1, &POWERS);
    let digest = block.digest();
    let trusted = TrustedEpoch::anchor(rules(), digest, block.clone(), next.clone()).unwrap();
    assert_eq!((trusted.epoch(), trusted.members()), (Epoch(2), &next[..]));
    assert!(trusted.advance(&link(2, &POWERS), verify).is_ok());
    let another = TrustedEpoch::anchor(rules(), Digest([1; 32]), block.clone(), next.clone()).unwrap_err();
    assert!(matches!(another, LightError::AnotherAnchor { .. }));
    // E1, T2: other validators, and the same ones with other turns to lead.
    let mut humbled = next.clone();
    humbled[0].reputation = Reputation::FLOOR;
    for others in [vec![member(77, 1)], humbled] {
        let set = TrustedEpoch::anchor(rules(), digest, block.clone(), others).unwrap_err();
        assert!(matches!(set, LightError::AnotherSet { .. }));
    }
    // A digest of any other block is no anchor.
    let plain =
        Block { boundary: None, checkpoint: Checkpoint::default(), batches: Vec::new(), ..link(0, &POWERS).block };
    let inner = TrustedEpoch::anchor(rules(), plain.digest(), plain, next).unwrap_err();
    assert_eq!(inner, LightError::NotABoundary(Height(35)));
}

/// Blocks of epoch 1 above its first, the last of them finalised.
fn headers(count: u64) -> Headers {
    let below = link(0, &POWERS).block;
    let mut blocks: Vec<Block> = Vec::new();
    for number in 1..=count {
        let parent = blocks.last().map_or(below.digest(), Block::digest);
        let height = below.height.0 + number;
        let batches = vec![Digest([number as u8; 32])];
        blocks.push(Block {
            epoch: Epoch(1),
            height: Height(height),
            parent,
            view: View(2 * number),
            boundary: None,
            batches,
            ..below.clone()
        });
    }
    let finalization = certify(blocks.last().unwrap(), &members(1, &POWERS), 0..5);
    Headers { blocks, finalization }
}

#[test]
fn a_header_is_verified_through_its_finalised_descendant() {
    let trusted = walk(&POWERS, 1);
    let good = headers(20);
    assert_eq!(Headers::decode(good.encode()), Ok(good.clone()));
    let verified = trusted.headers(&good, verify).unwrap();
    assert_eq!(verified.iter().map(VerifiedHeader::block).collect::<Vec<_>>(), good.blocks.iter().collect::<Vec<_>>());
    let later = Headers { blocks: good.blocks[5..].to_vec(), ..good.clone() };
    assert_eq!(trusted.headers(&later, verify).unwrap()[0].block(), &good.blocks[5]);

    let refused = |change: &dyn Fn(&mut Headers)| {
        let mut changed = good.clone();
        change(&mut changed);
        trusted.headers(&changed, verify).unwrap_err()
    };
    assert_eq!(refused(&|headers| headers.blocks.clear()), LightError::Count(0));
    let (first, last) = (Height(36), Height(55));
    assert_eq!(refused(&|headers| headers.blocks[3].batches.clear()), LightError::Unlinked(Height(40)));
    assert_eq!(refused(&|headers| headers.blocks[19].view = View(38)), LightError::Unlinked(last));
    assert_eq!(
        refused(&|headers| headers.blocks[0].checkpoint.receipts = Digest([3; 32])),
        LightError::NotAbove { height: first, below: Height(35) }
    );
    assert!(matches!(refused(&|headers| drop(headers.blocks.remove(4))), LightError::Unlinked(_)));
    assert_eq!(refused(&|headers| drop(headers.blocks.pop())), LightError::AnotherVote(Height(54)));
    assert_eq!(refused(&|headers| headers.finalization.signatures.truncate(3)), LightError::NoQuorum(last));
    let another = walk(&POWERS, 2).headers(&good, verify).unwrap_err();
    assert!(matches!(another, LightError::AnotherEpoch { wanted: Epoch(2), .. }));
    let orphan = refused(&|headers| headers.blocks[0].parent = Digest([1; 32]));
    assert!(matches!(orphan, LightError::NotAbove { .. }), "{orphan}");
}
