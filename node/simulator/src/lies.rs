//! Messages as a liar would put them: damaged, but most of them well-formed.

use bizra_driver::Batch;
use bizra_driver::wire::PeerMessage;
use bizra_simplex::types::{Height, View};
use bizra_simplex::{Message, VoteKind};

use crate::random::Random;

/// The message as a liar would put it; what is nothing to lie about stays.
pub(crate) fn lie(random: &mut Random, message: PeerMessage) -> PeerMessage {
    match message {
        PeerMessage::Status(_) => PeerMessage::Status(Height(random.pick(&[0, 1_000, u64::MAX]))),
        PeerMessage::HighestVote(validator, Some(mut vote)) => {
            if random.chance(500) {
                return PeerMessage::HighestVote(validator, None);
            }
            // A claim without a valid signature counts for nothing.
            vote.vote.view = View(vote.vote.view.0 + 1_000);
            PeerMessage::HighestVote(validator, Some(vote))
        }
        PeerMessage::Block(mut block) => {
            block.time_milliseconds ^= 1;
            PeerMessage::Block(block)
        }
        PeerMessage::Range(mut blocks, mut certificate) => {
            match random.below(4) {
                0 => drop(blocks.pop()),
                1 => certificate.signatures.truncate(1),
                2 => certificate.vote.view = View(certificate.vote.view.0 + 100),
                _ => {
                    if let Some(block) = blocks.first_mut() {
                        block.time_milliseconds ^= 1;
                    }
                }
            }
            PeerMessage::Range(blocks, certificate)
        }
        PeerMessage::Consensus(Message::Certificate(mut certificate)) => {
            match random.below(4) {
                0 => certificate.vote.view = View(certificate.vote.view.0 + random.between(1, 1_000)),
                1 => certificate.vote.kind = VoteKind::Finalize,
                2 => certificate.signatures.rotate_left(1),
                _ => {
                    let first = certificate.signatures.first().copied();
                    certificate.signatures.iter_mut().for_each(|entry| *entry = first.unwrap_or(*entry));
                }
            }
            PeerMessage::Consensus(Message::Certificate(certificate))
        }
        other => other,
    }
}

/// The batch with another payload or a broken signature.
pub(crate) fn forged(random: &mut Random, batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    if random.chance(500) {
        batch.signature.0[random.index(64)] ^= 1;
    } else {
        let mut payload = batch.payload.to_vec();
        payload.push(random.number() as u8);
        batch.payload = payload.into();
    }
    batch
}
