//! The signing record: what this key has signed, durable before the signature exists (S1–S3).
//!
//! Layout, in blocks of 4 KiB: block 0 and 1 are two copies of the header; slot `i` has its copies in blocks `2 + i` and
//! `2 + SLOTS + i`, so that one torn or rotten block never takes both. A slot holds the votes of one turn, a sequence
//! number, and a floor: the highest epoch and view of any slot written so far that is overwritten already or by the next
//! write. At or below the floor nothing new may be signed, so forgetting old slots is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::{Digest, Epoch, View};
use bizra_simplex::{Safety, Vote, VoteKind};
use bytes::Bytes;

use crate::codec::{Reader, Write};

/// Bytes of a block; what a disk writes or loses as a whole.
pub const BLOCK_BYTES: usize = 4_096;

/// Slots of the ring.
pub const SLOTS: u64 = 256;

/// Blocks of the file: two header copies and two copies of every slot.
pub const FILE_BLOCKS: u64 = 2 + 2 * SLOTS;

/// Votes one slot can hold. A turn signs a handful.
pub const VOTES_PER_SLOT_MAX: usize = 64;

const MAGIC: &[u8; 8] = b"BIZRASIG";
const VERSION: u8 = 2;

/// What a record belongs to. A record found elsewhere refuses to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The chain.
    pub genesis_hash: Digest,
    /// SHA-256 of the volume's identity.
    pub volume: Digest,
    /// The key, as public key bytes.
    pub public_key: [u8; 32],
}

/// One block of the file to be written. Both copies of a slot share the bytes.
pub type BlockWrite = (u64, Arc<[u8; BLOCK_BYTES]>);

/// Why a record refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The file has the wrong size.
    #[error("the signing record is {0} blocks long instead of {FILE_BLOCKS}: it was cut or replaced")]
    Size(u64),
    /// Neither header copy can be read.
    #[error("the header of the signing record is damaged")]
    Header,
    /// It belongs to another chain, volume or key.
    #[error("the signing record belongs to another {0}: it was copied here")]
    Foreign(&'static str),
    /// A slot other than the last written one is damaged in both copies.
    #[error("slot {0} of the signing record is damaged in both copies: what this key signed is no longer known")]
    Damaged(u64),
    /// More votes in one turn than a slot holds.
    #[error("{0} votes in one turn exceed a slot")]
    TooMany(usize),
}

/// A view of an epoch; ordered as they come after one another.
pub type Moment = (Epoch, View);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    floor: Moment,
    votes: Vec<Vote>,
}

/// The record in memory. Every change comes back as blocks to write and sync.
#[derive(Clone, Debug)]
pub struct SigningRecord {
    slots: BTreeMap<u64, Slot>,
    /// The votes of all slots.
    votes: BTreeSet<Vote>,
    next_sequence: u64,
    floor: Moment,
}

impl SigningRecord {
    /// A fresh record: all blocks of the file, in order. Only for a key that has never signed.
    pub fn create(binding: &Binding) -> Vec<BlockWrite> {
        let header = seal(&header(binding));
        let mut blocks = vec![(0, header.clone()), (1, header)];
        let zeros = Arc::new([0; BLOCK_BYTES]);
        blocks.extend((2..FILE_BLOCKS).map(|index| (index, Arc::clone(&zeros))));
        blocks
    }

    /// Reads a record from all blocks of its file.
    pub fn open(
        binding: &Binding,
        blocks: &[impl std::ops::Deref<Target = [u8; BLOCK_BYTES]>],
    ) -> Result<Self, RecordError> {
        if blocks.len() as u64 != FILE_BLOCKS {
            return Err(RecordError::Size(blocks.len() as u64));
        }
        let found =
            [&blocks[0], &blocks[1]].into_iter().find_map(|block| open_seal(block)).ok_or(RecordError::Header)?;
        let found = read_header(found).ok_or(RecordError::Header)?;
        for (same, what) in [
            (found.genesis_hash == binding.genesis_hash, "chain"),
            (found.volume == binding.volume, "volume"),
            (found.public_key == binding.public_key, "key"),
        ] {
            if !same {
                return Err(RecordError::Foreign(what));
            }
        }
        let mut slots = BTreeMap::new();
        for position in 0..SLOTS {
            let copies = [2 + position, 2 + SLOTS + position];
            let newest = copies
                .into_iter()
                .take(if planted(Bug::OneCopyRead) { 1 } else { 2 })
                .filter_map(|index| open_seal(&blocks[index as usize]).and_then(read_slot))
                .filter(|slot| slot.sequence % SLOTS == position)
                .max_by_key(|slot| slot.sequence);
            if let Some(slot) = newest {
                slots.insert(slot.sequence, slot);
            }
        }
        let next_sequence = slots.keys().next_back().map_or(1, |last| last + 1);
        // Every slot written before the last must be there. The one the next write overwrites may be torn: that write
        // was never acknowledged, and the floor has covered what it replaced.
        let oldest = next_sequence.saturating_sub(SLOTS).max(1);
        for sequence in oldest + u64::from(next_sequence > SLOTS)..next_sequence {
            if !slots.contains_key(&sequence) {
                return Err(RecordError::Damaged(sequence % SLOTS));
            }
        }
        if slots.is_empty() && !only_first_slot_torn(blocks) {
            return Err(RecordError::Damaged(0));
        }
        let floor = slots.values().map(|slot| slot.floor).max().unwrap_or_default();
        let votes = slots.values().flat_map(|slot| slot.votes.iter().copied()).collect();
        Ok(Self { slots, votes, next_sequence, floor })
    }

    /// Reserves votes that are about to be signed: the blocks to write and sync before signing. Votes that are recorded
    /// already need no block.
    pub fn reserve(&mut self, votes: &[Vote]) -> Result<Vec<BlockWrite>, RecordError> {
        let mut new: Vec<Vote> = votes.iter().filter(|vote| !self.contains(vote)).copied().collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        if new.len() > VOTES_PER_SLOT_MAX {
            return Err(RecordError::TooMany(new.len()));
        }
        Ok(self.append(new))
    }

    fn append(&mut self, new: Vec<Vote>) -> Vec<BlockWrite> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        for vote in self.slots.remove(&sequence.saturating_sub(SLOTS)).map(|slot| slot.votes).unwrap_or_default() {
            self.votes.remove(&vote);
        }
        self.votes.extend(&new);
        // Covers the slot that the next write will overwrite, before it does.
        let doomed = self.slots.get(&(sequence + 1).saturating_sub(SLOTS));
        if let Some(highest) = doomed.and_then(|slot| slot.votes.iter().map(moment).max()) {
            self.floor = if planted(Bug::NoFloor) { self.floor } else { self.floor.max(highest) };
        }
        let slot = Slot { sequence, floor: self.floor, votes: new };
        let block = seal(&encode_slot(&slot));
        let position = sequence % SLOTS;
        self.slots.insert(sequence, slot);
        vec![(2 + position, block.clone()), (2 + SLOTS + position, block)]
    }

    /// Raises the floor to this moment, by a slot without votes: the blocks to write and sync. Nothing new is ever signed at
    /// or before it again.
    pub fn raise_floor(&mut self, to: Moment) -> Vec<BlockWrite> {
        self.floor = self.floor.max(to);
        self.append(Vec::new())
    }

    /// True if exactly this vote is recorded.
    pub fn contains(&self, vote: &Vote) -> bool {
        self.votes.contains(vote)
    }

    /// Everything that is recorded.
    pub fn votes(&self) -> impl Iterator<Item = &Vote> {
        self.votes.iter()
    }

    /// The latest moment with a recorded vote, or the floor.
    pub fn latest(&self) -> Moment {
        self.votes.last().map(moment).unwrap_or_default().max(self.floor)
    }

    /// The moment at and before which nothing new is signed.
    pub fn floor(&self) -> Moment {
        self.floor
    }

    /// True if anything is recorded of this epoch.
    pub fn knows(&self, epoch: Epoch) -> bool {
        self.votes.iter().any(|vote| vote.epoch == epoch)
    }

    /// What the core needs to never contradict the record in this epoch.
    pub fn safety(&self, epoch: Epoch) -> Safety {
        let floor = match self.floor.0.cmp(&epoch) {
            std::cmp::Ordering::Less => View(0),
            std::cmp::Ordering::Equal => self.floor.1,
            // Its slots are overwritten: nothing new is ever signed in an epoch this far back.
            std::cmp::Ordering::Greater => View(u64::MAX),
        };
        let forgotten = |vote: &&Vote| match vote.kind {
            VoteKind::Propose => planted(Bug::ProposalForgotten),
            VoteKind::Notarize => planted(Bug::NotarizeForgotten),
            VoteKind::Nullify => planted(Bug::NullifyForgotten),
            VoteKind::Finalize => planted(Bug::FinalizeForgotten),
        };
        Safety::restore(floor, self.votes.iter().filter(|vote| vote.epoch == epoch && !forgotten(vote)).copied())
    }
}

fn moment(vote: &Vote) -> Moment {
    (vote.epoch, vote.view)
}

/// A first write that was torn in both copies leaves no slot but noise in those two blocks; a fresh record not even that.
fn only_first_slot_torn(blocks: &[impl std::ops::Deref<Target = [u8; BLOCK_BYTES]>]) -> bool {
    let first = 1 % SLOTS;
    blocks.iter().enumerate().skip(2).all(|(index, block)| {
        let index = index as u64;
        index == 2 + first || index == 2 + SLOTS + first || block.iter().all(|byte| *byte == 0)
    })
}

fn header(binding: &Binding) -> Vec<u8> {
    [&MAGIC[..], &[VERSION], &binding.genesis_hash.0, &binding.volume.0, &binding.public_key].concat()
}

fn read_header(body: &[u8]) -> Option<Binding> {
    let rest = body.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let mut reader = Reader::new(Bytes::copy_from_slice(rest));
    Some(Binding {
        genesis_hash: reader.digest().ok()?,
        volume: reader.digest().ok()?,
        public_key: reader.digest().ok()?.0,
    })
}

fn encode_slot(slot: &Slot) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + 49 * slot.votes.len());
    body.extend_from_slice(&slot.sequence.to_be_bytes());
    body.extend_from_slice(&slot.floor.0.0.to_be_bytes());
    body.extend_from_slice(&slot.floor.1.0.to_be_bytes());
    body.push(slot.votes.len() as u8);
    for vote in &slot.votes {
        body.put_vote(vote);
    }
    body
}

fn read_slot(body: &[u8]) -> Option<Slot> {
    let mut reader = Reader::new(Bytes::copy_from_slice(body));
    let sequence = reader.u64().ok()?;
    let floor = (Epoch(reader.u64().ok()?), View(reader.u64().ok()?));
    let count = reader.u8().ok()?;
    let votes = (0..count).map(|_| reader.vote().ok()).collect::<Option<_>>()?;
    reader.end().ok()?;
    (sequence > 0).then_some(Slot { sequence, floor, votes })
}

/// Length, checksum, body, zeros.
fn seal(body: &[u8]) -> Arc<[u8; BLOCK_BYTES]> {
    let mut block = [0; BLOCK_BYTES];
    block[..2].copy_from_slice(&(body.len() as u16).to_be_bytes());
    block[2..6].copy_from_slice(&crc32fast::hash(body).to_be_bytes());
    block[6..6 + body.len()].copy_from_slice(body);
    Arc::new(block)
}

fn open_seal(block: &[u8; BLOCK_BYTES]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([block[0], block[1]]));
    let body = block.get(6..6 + length).filter(|body| !body.is_empty())?;
    let checksum = u32::from_be_bytes([block[2], block[3], block[4], block[5]]);
    let clean_rest = block[6 + length..].iter().all(|byte| *byte == 0);
    (checksum == crc32fast::hash(body) && clean_rest || planted(Bug::ChecksumIgnored)).then_some(body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bizra_simplex::VoteKind;
    use proptest::prelude::*;

    const BINDING: Binding = Binding { genesis_hash: Digest([1; 32]), volume: Digest([2; 32]), public_key: [3; 32] };

    fn fresh() -> Vec<Box<[u8; BLOCK_BYTES]>> {
        SigningRecord::create(&BINDING).into_iter().map(|(_, block)| Box::new(*block)).collect()
    }

    fn vote(view: u64) -> Vote {
        Vote { epoch: Epoch(0), view: View(view), kind: VoteKind::Notarize, digest: Digest([view as u8; 32]) }
    }

    /// Another vote in the same view.
    fn rival(view: u64) -> Vote {
        let mut digest = [0xab; 32];
        digest[0] = 0xcd;
        Vote { digest: Digest(digest), ..vote(view) }
    }

    fn write(file: &mut [Box<[u8; BLOCK_BYTES]>], writes: Vec<BlockWrite>) {
        for (index, block) in writes {
            *file[index as usize] = *block;
        }
    }

    #[test]
    fn what_was_reserved_is_known_after_a_restart() {
        let mut file = fresh();
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        for view in 1..=3 {
            let writes = record.reserve(&[vote(view)]).unwrap();
            write(&mut file, writes);
        }
        let again = SigningRecord::open(&BINDING, &file).unwrap();
        assert!((1..=3).all(|view| again.contains(&vote(view))));
        assert!(again.votes().copied().eq((1..=3).map(vote)));
        assert_eq!(again.latest(), (Epoch(0), View(3)));
        assert!(!again.safety(Epoch(0)).may_sign(&rival(3)));
        assert!(again.safety(Epoch(0)).may_sign(&vote(4)));
    }

    #[test]
    fn the_floor_covers_every_forgotten_slot() {
        let mut file = fresh();
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        for view in 1..=SLOTS + 50 {
            let writes = record.reserve(&[vote(view)]).unwrap();
            write(&mut file, writes);
            let again = SigningRecord::open(&BINDING, &file).unwrap();
            let safety = again.safety(Epoch(0));
            for old in view.saturating_sub(SLOTS + 5).max(1)..=view {
                assert!(!safety.may_sign(&rival(old)), "view {old} after {view}");
            }
        }
    }

    #[test]
    fn a_torn_last_write_is_ignored_and_safe() {
        let mut file = fresh();
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        for view in 1..=SLOTS + 3 {
            let writes = record.reserve(&[vote(view)]).unwrap();
            write(&mut file, writes);
        }
        let torn = record.reserve(&[vote(SLOTS + 4)]).unwrap();
        for (index, block) in torn {
            *file[index as usize] = *block;
            file[index as usize][20] ^= 0xff;
        }
        let again = SigningRecord::open(&BINDING, &file).unwrap();
        assert_eq!(again.latest(), (Epoch(0), View(SLOTS + 3)));
        assert!(!again.safety(Epoch(0)).may_sign(&rival(5)));
    }

    #[test]
    fn an_epoch_begins_with_view_1_and_leaves_the_one_before_closed() {
        let mut file = fresh();
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        for view in 1..=SLOTS {
            let writes = record.reserve(&[vote(view)]).unwrap();
            write(&mut file, writes);
        }
        assert!(record.knows(Epoch(0)) && !record.knows(Epoch(1)));
        let next = |view| Vote { epoch: Epoch(1), ..vote(view) };
        for view in 1..=SLOTS {
            assert!(record.safety(Epoch(1)).may_sign(&next(view)), "view {view}");
            let writes = record.reserve(&[next(view)]).unwrap();
            write(&mut file, writes);
        }
        let again = SigningRecord::open(&BINDING, &file).unwrap();
        assert_eq!(again.floor(), (Epoch(1), View(1)));
        assert!(again.knows(Epoch(1)) && !again.knows(Epoch(0)));
        assert!(!again.safety(Epoch(0)).may_sign(&rival(SLOTS)));
        assert!(!again.safety(Epoch(0)).may_sign(&vote(SLOTS + 1)));
        assert!(!again.safety(Epoch(1)).may_sign(&Vote { epoch: Epoch(1), ..rival(3) }));
        assert!(again.safety(Epoch(1)).may_sign(&next(SLOTS + 1)));
        assert!(again.safety(Epoch(2)).may_sign(&Vote { epoch: Epoch(2), ..vote(1) }));
    }

    #[test]
    fn a_raised_floor_forbids_all_below_for_ever_and_nothing_above() {
        for voted in [0, 3, SLOTS + 7] {
            let mut file = fresh();
            let mut record = SigningRecord::open(&BINDING, &file).unwrap();
            for view in 1..=voted {
                let writes = record.reserve(&[vote(view)]).unwrap();
                write(&mut file, writes);
            }
            write(&mut file, record.raise_floor((Epoch(3), View(0))));
            let mut again = SigningRecord::open(&BINDING, &file).unwrap();
            assert_eq!(again.floor(), (Epoch(3), View(0)));
            let next = |view| Vote { epoch: Epoch(3), ..vote(view) };
            for view in 1..=2 * SLOTS {
                assert!(
                    !again.safety(Epoch(0)).may_sign(&vote(voted + view)) && !again.safety(Epoch(2)).may_sign(&vote(1))
                );
                assert!(again.safety(Epoch(3)).may_sign(&next(view)), "view {view}");
                let writes = again.reserve(&[next(view)]).unwrap();
                write(&mut file, writes);
                again = SigningRecord::open(&BINDING, &file).unwrap();
                assert!(again.floor() >= (Epoch(3), View(0)));
            }
        }
    }

    #[test]
    fn one_rotten_copy_is_survived_and_two_refuse() {
        let mut file = fresh();
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        for view in 1..=10 {
            let writes = record.reserve(&[vote(view)]).unwrap();
            write(&mut file, writes);
        }
        file[2 + 4][100] ^= 1;
        assert!(SigningRecord::open(&BINDING, &file).unwrap().contains(&vote(4)));
        file[(2 + SLOTS + 4) as usize][100] ^= 1;
        assert_eq!(SigningRecord::open(&BINDING, &file).unwrap_err(), RecordError::Damaged(4));
        file[2 + 4][100] ^= 1;
        assert!(SigningRecord::open(&BINDING, &file).unwrap().contains(&vote(4)));
    }

    #[test]
    fn a_torn_first_write_leaves_a_fresh_record_and_rubbish_anywhere_else_does_not() {
        let torn = SigningRecord::open(&BINDING, &fresh()).unwrap().reserve(&[vote(1)]).unwrap();
        for copies in [&torn[..1], &torn[1..], &torn[..]] {
            let mut file = fresh();
            for (index, block) in copies {
                *file[*index as usize] = **block;
                file[*index as usize][20] ^= 0xff;
            }
            assert!(SigningRecord::open(&BINDING, &file).unwrap().safety(Epoch(0)).may_sign(&rival(1)));
        }
        for index in (2..FILE_BLOCKS).filter(|index| torn.iter().all(|(written, _)| written != index)) {
            let mut file = fresh();
            file[index as usize][20] ^= 0xff;
            assert_eq!(SigningRecord::open(&BINDING, &file).unwrap_err(), RecordError::Damaged(0), "block {index}");
        }
    }

    #[test]
    fn no_write_has_the_number_0() {
        let mut file = fresh();
        let slot = seal(&encode_slot(&Slot { sequence: 0, floor: Moment::default(), votes: vec![vote(1)] }));
        write(&mut file, vec![(2, slot.clone()), (2 + SLOTS, slot)]);
        assert_eq!(SigningRecord::open(&BINDING, &file).unwrap_err(), RecordError::Damaged(0));
    }

    #[test]
    fn until_the_ring_is_full_the_first_slot_must_be_there() {
        let mut file = fresh();
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        for view in 1..SLOTS {
            let writes = record.reserve(&[vote(view)]).unwrap();
            write(&mut file, writes);
        }
        for copy in [2 + 1, 2 + SLOTS + 1] {
            file[copy as usize][100] ^= 1;
        }
        assert_eq!(SigningRecord::open(&BINDING, &file).unwrap_err(), RecordError::Damaged(1));
    }

    #[test]
    fn a_slot_holds_64_votes_and_the_file_514_blocks() {
        let mut file = fresh();
        assert_eq!(file.len(), 514);
        let mut record = SigningRecord::open(&BINDING, &file).unwrap();
        let votes: Vec<Vote> = (1..=66).map(vote).collect();
        for count in [65, 66] {
            assert_eq!(record.reserve(&votes[..count]).unwrap_err(), RecordError::TooMany(count));
        }
        let writes = record.reserve(&votes[..64]).unwrap();
        write(&mut file, writes);
        let again = SigningRecord::open(&BINDING, &file).unwrap();
        assert!(votes[..64].iter().all(|vote| again.contains(vote)));
    }

    #[test]
    fn a_record_from_elsewhere_refuses() {
        let file = fresh();
        for (binding, what) in [
            (Binding { genesis_hash: Digest([9; 32]), ..BINDING }, "chain"),
            (Binding { volume: Digest([9; 32]), ..BINDING }, "volume"),
            (Binding { public_key: [9; 32], ..BINDING }, "key"),
        ] {
            assert_eq!(SigningRecord::open(&binding, &file).unwrap_err(), RecordError::Foreign(what));
        }
        assert_eq!(SigningRecord::open(&BINDING, &file[1..]).unwrap_err(), RecordError::Size(FILE_BLOCKS - 1));
    }

    proptest! {
        #[test]
        fn a_flipped_byte_never_forgets_a_vote(turns in 1_u64..20, at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut file = fresh();
            let mut record = SigningRecord::open(&BINDING, &file).unwrap();
            for view in 1..=turns {
                let writes = record.reserve(&[vote(view)]).unwrap();
                write(&mut file, writes);
            }
            let at = at.index(file.len() * BLOCK_BYTES);
            file[at / BLOCK_BYTES][at % BLOCK_BYTES] ^= flip;
            if let Ok(again) = SigningRecord::open(&BINDING, &file) {
                prop_assert!((1..=turns).all(|view| again.contains(&vote(view))));
            }
        }
    }
}
