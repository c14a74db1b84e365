//! What nodes send each other. One frame is one message; its first byte is the version of the format.

use bizra_simplex::types::{Digest, Epoch, Height, View};
use bizra_simplex::{Block, Certificate, Message, SignedVote};
use bytes::Bytes;

use crate::batch::Batch;
use crate::codec::{DecodeError, Reader, Write};
use crate::holding::HELD_MAX;
use crate::light::Link;
use crate::ports::PublicKey;

/// Version of the peer protocol.
pub const WIRE_VERSION: u8 = 1;

/// Most blocks of one range, unless the finalization that proves them lies further up.
pub const RANGE_BLOCKS_MAX: u64 = 64;

/// Most blocks a receiver accepts in one range.
const RANGE_DECODE_MAX: usize = 4_096;

/// Most boundaries of one answer.
pub const BOUNDARIES_MAX: usize = 64;

/// Most chunks of one snapshot: 32 GiB of state. Bounds a manifest to 1 MiB.
pub const SNAPSHOT_CHUNKS_MAX: usize = 1 << 15;

/// Longest chunk of a snapshot. A chunk is what a lying peer can cost, and what a crash can lose.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 1 << 20;

/// A frame that says that no vote of a key was seen: version, kind and the key.
const NO_VOTE_BYTES: usize = 34;

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Proposals, votes and certificates.
    Consensus(Message),
    /// A batch, pushed by its origin or in answer to [`PeerMessage::FetchBatch`].
    Batch(Batch),
    /// Asks for a block by digest.
    FetchBlock(Digest),
    /// Answer to [`PeerMessage::FetchBlock`].
    Block(Block),
    /// Asks for the certificates of a view; they come as consensus messages.
    FetchView(View),
    /// Asks for a batch by digest.
    FetchBatch(Digest),
    /// Asks for finalised blocks from this height on.
    FetchRange(Height),
    /// Answer to [`PeerMessage::FetchRange`]: consecutive blocks and a finalization of the last.
    Range(Vec<Block>, Certificate),
    /// Asks which vote of this validator's key the receiver has seen in the highest view (S5).
    FetchHighestVote(PublicKey),
    /// Answer to [`PeerMessage::FetchHighestVote`].
    HighestVote(PublicKey, Option<SignedVote>),
    /// Last finalised height of the sender, every resend interval.
    Status(Height),
    /// Two votes of one validator that contradict each other (V6).
    Evidence(SignedVote, SignedVote),
    /// Asks which of these batches a validator holds (D4).
    FetchHeld(Vec<Digest>),
    /// Answer to [`PeerMessage::FetchHeld`]: these.
    Held(Vec<Digest>),
    /// Asks for the last blocks of epochs, from this epoch on.
    FetchBoundaries(Epoch),
    /// Answer to [`PeerMessage::FetchBoundaries`]: the oldest height whose state the sender keeps, the epoch asked for, and
    /// the boundaries of consecutive epochs from that one on, as many as fit. None if that epoch has not ended.
    Boundaries(Height, Epoch, Vec<Link>),
    /// Asks for the list of chunks of the snapshot at this cut-off height.
    FetchManifest(Height),
    /// Answer to [`PeerMessage::FetchManifest`]: the hash of each chunk, in order; none if the sender has no such snapshot.
    Manifest(Height, Vec<Digest>),
    /// Asks for one chunk of the snapshot at this cut-off height.
    FetchChunk(Height, u32),
    /// Answer to [`PeerMessage::FetchChunk`]; empty if the sender has no such chunk.
    Chunk(Height, u32, Bytes),
}

impl PeerMessage {
    /// Room that the encoding takes, nearly: growing on the way would copy it.
    fn usual_bytes(&self) -> usize {
        let certificate = |certificate: &Certificate| 64 + 66 * certificate.signatures.len();
        let block = |block: &Block| 192 + 32 * block.batches.len();
        match self {
            Self::Consensus(Message::Vote(_)) => 128,
            Self::Consensus(Message::Certificate(held)) => 16 + certificate(held),
            Self::Consensus(Message::Proposal(proposal)) => {
                96 + block(&proposal.block) + proposal.justification.as_ref().map_or(0, certificate)
            }
            Self::Batch(batch) => 128 + batch.payload.len(),
            Self::Block(held) => 16 + block(held),
            Self::Range(blocks, held) => 16 + certificate(held) + blocks.iter().map(block).sum::<usize>(),
            Self::FetchHeld(digests) | Self::Held(digests) => 16 + 32 * digests.len(),
            Self::Evidence(..) => 256,
            Self::HighestVote(..) => 160,
            Self::Boundaries(_, _, links) => {
                let link =
                    |link: &Link| 16 + block(&link.block) + certificate(&link.finalization) + 40 * link.next.len();
                32 + links.iter().map(link).sum::<usize>()
            }
            Self::Manifest(_, hashes) => 16 + 32 * hashes.len(),
            Self::Chunk(_, _, chunk) => 32 + chunk.len(),
            Self::FetchBlock(_)
            | Self::FetchView(_)
            | Self::FetchBatch(_)
            | Self::FetchRange(_)
            | Self::FetchHighestVote(_)
            | Self::FetchBoundaries(_)
            | Self::FetchManifest(_)
            | Self::FetchChunk(..)
            | Self::Status(_) => 40,
        }
    }

    /// True if the receiver is to look something up and answer. Whoever limits what peers may cost starts here.
    pub fn is_question(&self) -> bool {
        match self {
            Self::FetchBlock(_)
            | Self::FetchView(_)
            | Self::FetchBatch(_)
            | Self::FetchRange(_)
            | Self::FetchHighestVote(_)
            | Self::FetchHeld(_)
            | Self::FetchBoundaries(_)
            | Self::FetchManifest(_)
            | Self::FetchChunk(..) => true,
            Self::Consensus(_)
            | Self::Batch(_)
            | Self::Block(_)
            | Self::Range(..)
            | Self::HighestVote(..)
            | Self::Status(_)
            | Self::Held(_)
            | Self::Evidence(..)
            | Self::Boundaries(..)
            | Self::Manifest(..)
            | Self::Chunk(..) => false,
        }
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.usual_bytes());
        bytes.push(WIRE_VERSION);
        match self {
            Self::Consensus(message) => {
                bytes.push(1);
                bytes.put_message(message);
            }
            Self::Batch(batch) => {
                bytes.push(2);
                bytes.put_batch(batch);
            }
            Self::FetchBlock(digest) => {
                bytes.push(3);
                bytes.extend_from_slice(&digest.0);
            }
            Self::Block(block) => {
                bytes.push(4);
                bytes.put_block(block);
            }
            Self::FetchView(view) => {
                bytes.push(5);
                bytes.extend_from_slice(&view.0.to_be_bytes());
            }
            Self::FetchBatch(digest) => {
                bytes.push(6);
                bytes.extend_from_slice(&digest.0);
            }
            Self::FetchRange(from) => {
                bytes.push(7);
                bytes.extend_from_slice(&from.0.to_be_bytes());
            }
            Self::Range(blocks, certificate) => {
                bytes.push(8);
                bytes.extend_from_slice(&(blocks.len() as u16).to_be_bytes());
                for block in blocks {
                    bytes.put_block(block);
                }
                bytes.put_certificate(certificate);
            }
            Self::FetchHighestVote(key) => {
                bytes.push(9);
                bytes.extend_from_slice(&key.0);
            }
            Self::HighestVote(key, vote) => {
                bytes.push(10);
                bytes.extend_from_slice(&key.0);
                if let Some(vote) = vote {
                    bytes.put_signed_vote(vote);
                }
            }
            Self::Status(height) => {
                bytes.push(11);
                bytes.extend_from_slice(&height.0.to_be_bytes());
            }
            Self::FetchHeld(digests) => {
                bytes.push(12);
                put_digests(&mut bytes, digests);
            }
            Self::Held(digests) => {
                bytes.push(13);
                put_digests(&mut bytes, digests);
            }
            Self::Evidence(first, second) => {
                bytes.push(14);
                bytes.put_signed_vote(first);
                bytes.put_signed_vote(second);
            }
            Self::FetchBoundaries(epoch) => {
                bytes.push(32);
                bytes.extend_from_slice(&epoch.0.to_be_bytes());
            }
            Self::Boundaries(oldest, epoch, links) => {
                bytes.push(33);
                bytes.extend_from_slice(&oldest.0.to_be_bytes());
                bytes.extend_from_slice(&epoch.0.to_be_bytes());
                bytes.push(links.len() as u8);
                for link in links {
                    put_link(&mut bytes, link);
                }
            }
            Self::FetchManifest(cutoff) => {
                bytes.push(34);
                bytes.extend_from_slice(&cutoff.0.to_be_bytes());
            }
            Self::Manifest(cutoff, hashes) => {
                bytes.push(35);
                bytes.extend_from_slice(&cutoff.0.to_be_bytes());
                bytes.extend_from_slice(&(hashes.len() as u32).to_be_bytes());
                for hash in hashes {
                    bytes.extend_from_slice(&hash.0);
                }
            }
            Self::FetchChunk(cutoff, index) => {
                bytes.push(36);
                bytes.extend_from_slice(&cutoff.0.to_be_bytes());
                bytes.extend_from_slice(&index.to_be_bytes());
            }
            Self::Chunk(cutoff, index, chunk) => {
                bytes.push(37);
                bytes.extend_from_slice(&cutoff.0.to_be_bytes());
                bytes.extend_from_slice(&index.to_be_bytes());
                bytes.extend_from_slice(&(chunk.len() as u32).to_be_bytes());
                bytes.extend_from_slice(chunk);
            }
        }
        bytes.into()
    }

    /// Reads one frame. Payloads stay slices of it.
    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        let nothing_follows_key = frame.len() == NO_VOTE_BYTES;
        let mut reader = Reader::new(frame);
        reader.version(WIRE_VERSION)?;
        let message = match reader.u8()? {
            1 => Self::Consensus(reader.message()?),
            2 => Self::Batch(reader.batch()?),
            3 => Self::FetchBlock(reader.digest()?),
            4 => Self::Block(reader.block()?),
            5 => Self::FetchView(View(reader.u64()?)),
            6 => Self::FetchBatch(reader.digest()?),
            7 => Self::FetchRange(Height(reader.u64()?)),
            8 => {
                let count = usize::from(reader.u16()?);
                if count > RANGE_DECODE_MAX {
                    return Err(DecodeError::Bounds("blocks of a range"));
                }
                let blocks = (0..count).map(|_| reader.block()).collect::<Result<_, _>>()?;
                Self::Range(blocks, reader.certificate()?)
            }
            9 => Self::FetchHighestVote(PublicKey(reader.digest()?.0)),
            10 => {
                let key = PublicKey(reader.digest()?.0);
                let vote = if nothing_follows_key { None } else { Some(reader.signed_vote()?) };
                Self::HighestVote(key, vote)
            }
            11 => Self::Status(Height(reader.u64()?)),
            12 => Self::FetchHeld(digests(&mut reader)?),
            13 => Self::Held(digests(&mut reader)?),
            14 => Self::Evidence(reader.signed_vote()?, reader.signed_vote()?),
            32 => Self::FetchBoundaries(Epoch(reader.u64()?)),
            33 => {
                let (oldest, epoch, count) = (Height(reader.u64()?), Epoch(reader.u64()?), usize::from(reader.u8()?));
                if count > BOUNDARIES_MAX {
                    return Err(DecodeError::Bounds("boundaries"));
                }
                Self::Boundaries(oldest, epoch, (0..count).map(|_| link(&mut reader)).collect::<Result<_, _>>()?)
            }
            34 => Self::FetchManifest(Height(reader.u64()?)),
            35 => {
                let (cutoff, count) = (Height(reader.u64()?), reader.u32()? as usize);
                if count > SNAPSHOT_CHUNKS_MAX {
                    return Err(DecodeError::Bounds("chunks of a snapshot"));
                }
                Self::Manifest(cutoff, (0..count).map(|_| reader.digest()).collect::<Result<_, _>>()?)
            }
            36 => Self::FetchChunk(Height(reader.u64()?), reader.u32()?),
            37 => {
                let (cutoff, index, length) = (Height(reader.u64()?), reader.u32()?, reader.u32()? as usize);
                if length > SNAPSHOT_CHUNK_BYTES_MAX {
                    return Err(DecodeError::Bounds("length of a chunk"));
                }
                Self::Chunk(cutoff, index, reader.bytes(length)?)
            }
            _ => return Err(DecodeError::Bounds("message kind")),
        };
        reader.end()?;
        Ok(message)
    }
}

fn put_link(bytes: &mut Vec<u8>, link: &Link) {
    let link = link.encode();
    bytes.extend_from_slice(&(link.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&link);
}

fn link(reader: &mut Reader) -> Result<Link, DecodeError> {
    let length = reader.u32()? as usize;
    Link::decode(reader.bytes(length)?)
}

fn put_digests(bytes: &mut Vec<u8>, digests: &[Digest]) {
    bytes.push(digests.len() as u8);
    for digest in digests {
        bytes.extend_from_slice(&digest.0);
    }
}

fn digests(reader: &mut Reader) -> Result<Vec<Digest>, DecodeError> {
    let count = usize::from(reader.u8()?);
    if count > HELD_MAX {
        return Err(DecodeError::Bounds("batches asked for"));
    }
    (0..count).map(|_| reader.digest()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ports::Member;
    use bizra_simplex::types::{Power, Signature, ValidatorIndex};
    use bizra_simplex::{Boundary, Checkpoint, Contradiction, Proposal, Reputation, Version, Vote, VoteKind};
    use proptest::prelude::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest)
    }

    fn signature() -> impl Strategy<Value = Signature> {
        (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(left, right)| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&left);
            bytes[32..].copy_from_slice(&right);
            Signature(bytes)
        })
    }

    fn vote() -> impl Strategy<Value = SignedVote> {
        (any::<u64>(), any::<u64>(), 1_u8..=4, digest(), any::<u16>(), signature()).prop_map(
            |(epoch, view, kind, digest, signer, signature)| {
                let kind = VoteKind::from_number(kind).unwrap();
                let vote = Vote { epoch: Epoch(epoch), view: View(view), kind, digest };
                SignedVote { vote, signer: ValidatorIndex(signer), signature }
            },
        )
    }

    fn certificate() -> impl Strategy<Value = Certificate> {
        (vote(), prop::collection::vec((any::<u16>(), signature()), 0..6)).prop_map(|(vote, signatures)| Certificate {
            vote: vote.vote,
            signatures: signatures.into_iter().map(|(signer, signature)| (ValidatorIndex(signer), signature)).collect(),
        })
    }

    fn block() -> impl Strategy<Value = Block> {
        let checkpoint = (any::<u64>(), digest(), digest()).prop_map(|(height, state, receipts)| Checkpoint {
            height: Height(height),
            state,
            receipts,
        });
        let boundary = (digest(), digest(), any::<u32>()).prop_map(|(validators, snapshot, version)| Boundary {
            validators,
            snapshot,
            version: Version(version),
        });
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
        let maker = (any::<u16>(), any::<u32>());
        let contradictions = (vote(), vote()).prop_map(|(first, second)| Contradiction { first, second });
        let lists = (prop::collection::vec(digest(), 0..5), prop::collection::vec(contradictions, 0..3));
        (numbers, digest(), maker, checkpoint, prop::option::of(boundary), lists).prop_map(
            |(numbers, parent, (proposer, signals), checkpoint, boundary, (batches, contradictions))| Block {
                epoch: Epoch(numbers.0),
                height: Height(numbers.1),
                parent,
                view: View(numbers.3),
                proposer: ValidatorIndex(proposer),
                signals: Version(signals),
                time_milliseconds: numbers.2,
                checkpoint,
                boundary,
                batches,
                contradictions,
            },
        )
    }

    fn links() -> impl Strategy<Value = Link> {
        let member = (any::<[u8; 32]>(), any::<u64>(), 128_u16..=1024).prop_map(|(key, power, reputation)| Member {
            key: PublicKey(key),
            power: Power(power),
            reputation: Reputation::new(reputation).unwrap(),
        });
        (block(), certificate(), prop::collection::vec(member, 0..4)).prop_map(|(block, finalization, next)| Link {
            block,
            finalization,
            next,
        })
    }

    fn message() -> impl Strategy<Value = PeerMessage> {
        prop_oneof![
            vote().prop_map(|vote| PeerMessage::Consensus(Message::Vote(vote))),
            certificate().prop_map(|certificate| PeerMessage::Consensus(Message::Certificate(certificate))),
            (any::<u64>(), any::<u64>(), block(), prop::option::of(certificate()), signature()).prop_map(
                |(view, parent_view, block, justification, signature)| {
                    let (view, parent_view) = (View(view), View(parent_view));
                    let proposal = Proposal { view, parent_view, block, justification, signature };
                    PeerMessage::Consensus(Message::Proposal(proposal))
                }
            ),
            ((any::<u64>(), any::<u16>(), any::<u64>()), prop::collection::vec(any::<u8>(), 0..300), signature())
                .prop_map(|((epoch, origin, sequence), payload, signature)| {
                    let (epoch, origin) = (Epoch(epoch), ValidatorIndex(origin));
                    PeerMessage::Batch(Batch { epoch, origin, sequence, payload: payload.into(), signature })
                }),
            digest().prop_map(PeerMessage::FetchBlock),
            block().prop_map(PeerMessage::Block),
            any::<u64>().prop_map(|view| PeerMessage::FetchView(View(view))),
            digest().prop_map(PeerMessage::FetchBatch),
            any::<u64>().prop_map(|height| PeerMessage::FetchRange(Height(height))),
            (prop::collection::vec(block(), 0..4), certificate())
                .prop_map(|(blocks, certificate)| PeerMessage::Range(blocks, certificate)),
            any::<[u8; 32]>().prop_map(|key| PeerMessage::FetchHighestVote(PublicKey(key))),
            (any::<[u8; 32]>(), prop::option::of(vote()))
                .prop_map(|(key, vote)| PeerMessage::HighestVote(PublicKey(key), vote)),
            any::<u64>().prop_map(|height| PeerMessage::Status(Height(height))),
            prop::collection::vec(digest(), 0..HELD_MAX).prop_map(PeerMessage::FetchHeld),
            prop::collection::vec(digest(), 0..HELD_MAX).prop_map(PeerMessage::Held),
            (vote(), vote()).prop_map(|(first, second)| PeerMessage::Evidence(first, second)),
            any::<u64>().prop_map(|epoch| PeerMessage::FetchBoundaries(Epoch(epoch))),
            (any::<u64>(), any::<u64>(), prop::collection::vec(links(), 0..3))
                .prop_map(|(oldest, epoch, links)| PeerMessage::Boundaries(Height(oldest), Epoch(epoch), links)),
            any::<u64>().prop_map(|cutoff| PeerMessage::FetchManifest(Height(cutoff))),
            (any::<u64>(), prop::collection::vec(digest(), 0..5))
                .prop_map(|(cutoff, hashes)| PeerMessage::Manifest(Height(cutoff), hashes)),
            (any::<u64>(), any::<u32>()).prop_map(|(cutoff, index)| PeerMessage::FetchChunk(Height(cutoff), index)),
            (any::<u64>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(cutoff, index, chunk)| PeerMessage::Chunk(Height(cutoff), index, chunk.into())),
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_a_round_trip(message in message()) {
            prop_assert_eq!(PeerMessage::decode(message.encode()), Ok(message));
        }

        #[test]
        fn no_cut_or_extension_decodes(message in message(), cut in 1_usize..40) {
            let bytes = message.encode();
            let shorter = bytes.slice(..bytes.len().saturating_sub(cut));
            // A highest vote cut off whole is the answer "none seen".
            let none_seen = matches!(message, PeerMessage::HighestVote(..)) && shorter.len() == NO_VOTE_BYTES;
            prop_assert!(none_seen || PeerMessage::decode(shorter).is_err());
            let longer: Bytes = [&bytes[..], &[0]].concat().into();
            prop_assert!(PeerMessage::decode(longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..40) {
            let framed: Bytes = [&[WIRE_VERSION, kind], &bytes[..]].concat().into();
            let _ = PeerMessage::decode(framed);
            let _ = PeerMessage::decode(bytes.into());
        }
    }
}
