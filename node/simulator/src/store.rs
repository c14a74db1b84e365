//! What a database and a signing record contain.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bizra_driver::signing_record::{BLOCK_BYTES, BlockWrite, FILE_BLOCKS, Moment, SigningRecord};
use bizra_driver::{Batch, Change, PublicKey, Recovered};
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Digest, Epoch, Height, View};
use bizra_simplex::{Anchor, Block, Certificate, Checkpoint, Contradiction, Record, SignedVote, Vote, VoteKind};
use sha2::{Digest as _, Sha256};

use crate::ledger::Ledger;

/// A change as all copies of a volume share it.
#[derive(Debug)]
pub(crate) enum Written {
    Block(Digest, Rc<Block>),
    Certificate(Rc<Certificate>),
    Batch(Digest, Batch),
    Finalize(Vec<(Digest, Rc<Block>)>, Rc<Certificate>),
    Execute(Digest, Block, Vec<Batch>),
    Forget(Vec<Digest>),
    Evidence(PublicKey, Contradiction),
    HighestVote(PublicKey, SignedVote),
}

impl From<Change> for Written {
    fn from(change: Change) -> Self {
        match change {
            Change::Record(Record::Block(block)) => Self::Block(block.digest(), Rc::new(block)),
            Change::Record(Record::Certificate(certificate)) => Self::Certificate(Rc::new(certificate)),
            Change::Batch(digest, batch) => Self::Batch(digest, batch),
            Change::Finalize(blocks, certificate) => {
                let blocks = blocks.into_iter().map(|block| (block.digest(), Rc::new(block)));
                Self::Finalize(blocks.collect(), Rc::new(certificate))
            }
            Change::Execute(block, batches) => Self::Execute(block.digest(), block, batches),
            Change::Forget(digests) => Self::Forget(digests),
            Change::Evidence(key, first, second) => Self::Evidence(key, Contradiction { first, second }),
            Change::HighestVote(key, vote) => Self::HighestVote(key, vote),
        }
    }
}

/// Contents of one volume.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    genesis: Block,
    anchor: Anchor,
    anchor_certificate: Option<Rc<Certificate>>,
    /// Block at height h is at position h - 1.
    pub(crate) finalized: Vec<Rc<Block>>,
    heights: BTreeMap<Digest, Height>,
    finalizations: BTreeMap<Height, Rc<Certificate>>,
    blocks: BTreeMap<Digest, Rc<Block>>,
    certificates: BTreeMap<(View, VoteKind), Rc<Certificate>>,
    pub(crate) batches: BTreeMap<Digest, Batch>,
    ordered: BTreeSet<Digest>,
    executed: Height,
    /// What execution has come to: a hash over the executed chain.
    state: Digest,
    checkpoints: BTreeMap<Height, Checkpoint>,
    /// Accounts, stakes, validators.
    pub(crate) ledger: Ledger,
    /// The same before the first block.
    origin: Rc<Ledger>,
    /// Blocks from one cut-off to the next.
    epoch_blocks: Option<u64>,
    highest_votes: BTreeMap<PublicKey, SignedVote>,
    evidence: BTreeMap<(PublicKey, Epoch), Contradiction>,
    /// Written blocks of the signing record; the others are zeros.
    pub(crate) signing: BTreeMap<u64, Arc<[u8; BLOCK_BYTES]>>,
}

impl Store {
    pub(crate) fn new(genesis: Block, ledger: Ledger, epoch_blocks: Option<u64>) -> Self {
        Self {
            anchor: Anchor::first(genesis.clone()),
            genesis,
            anchor_certificate: None,
            finalized: Vec::new(),
            heights: BTreeMap::new(),
            finalizations: BTreeMap::new(),
            blocks: BTreeMap::new(),
            certificates: BTreeMap::new(),
            batches: BTreeMap::new(),
            ordered: BTreeSet::new(),
            executed: Height(0),
            state: Digest::default(),
            checkpoints: BTreeMap::new(),
            origin: Rc::new(ledger.clone()),
            ledger,
            epoch_blocks,
            highest_votes: BTreeMap::new(),
            evidence: BTreeMap::new(),
            signing: BTreeMap::new(),
        }
    }

    /// Everything but the signing record is gone; a ledger starts from its genesis.
    pub(crate) fn lose_database(&mut self) {
        let signing = std::mem::take(&mut self.signing);
        let fresh = Self::new(self.genesis.clone(), Ledger::clone(&self.origin), self.epoch_blocks);
        *self = Self { signing, ..fresh };
    }

    pub(crate) fn apply(&mut self, change: &Written) {
        match change {
            Written::Block(digest, block) => {
                self.blocks.insert(*digest, Rc::clone(block));
            }
            Written::Certificate(certificate) => {
                self.certificates.insert((certificate.view(), certificate.vote.kind), Rc::clone(certificate));
            }
            Written::Batch(digest, batch) => {
                self.batches.insert(*digest, batch.clone());
            }
            Written::Finalize(blocks, certificate) => {
                let Some((_, last)) = blocks.last() else { return };
                for (digest, block) in blocks {
                    self.ordered.extend(block.batches.iter().copied());
                    self.heights.insert(*digest, block.height);
                    self.finalized.push(Rc::clone(block));
                }
                let (height, view) = (last.height, certificate.view());
                self.anchor = Anchor { view, digest: certificate.vote.digest, block: Block::clone(last) };
                self.finalizations.insert(height, Rc::clone(certificate));
                self.anchor_certificate = Some(Rc::clone(certificate));
                self.blocks.retain(|_, block| block.height > height);
                self.certificates = self.certificates.split_off(&(view.next(), VoteKind::Propose));
                if last.boundary.is_some() {
                    self.blocks.clear();
                    self.certificates.clear();
                }
            }
            Written::Execute(digest, block, batches) => {
                self.executed = block.height;
                self.state = next_state(self.state, *digest);
                if block.height.0.is_multiple_of(CHECKPOINT_INTERVAL) {
                    self.checkpoints.insert(block.height, checkpoint(block.height, self.state));
                }
                self.ledger.execute(*digest, block, batches);
                for (digest, batch) in block.batches.iter().zip(batches) {
                    self.batches.insert(*digest, batch.clone());
                }
            }
            Written::Forget(digests) => digests.iter().for_each(|digest| drop(self.batches.remove(digest))),
            Written::Evidence(key, told) => {
                self.evidence.insert((*key, told.first.vote.epoch), *told);
            }
            Written::HighestVote(key, vote) => {
                self.highest_votes.insert(*key, *vote);
            }
        }
    }

    pub(crate) fn write(&mut self, (index, block): BlockWrite) {
        self.signing.insert(index, block);
    }

    /// All blocks of the signing record's file.
    pub(crate) fn signing_file(&self) -> Vec<&[u8; BLOCK_BYTES]> {
        const ZEROS: &[u8; BLOCK_BYTES] = &[0; BLOCK_BYTES];
        (0..FILE_BLOCKS).map(|index| self.signing.get(&index).map_or(ZEROS, |block| &**block)).collect()
    }

    pub(crate) fn recover(&self) -> Recovered {
        let blocks = self.blocks.values().map(|block| Record::Block(Block::clone(block)));
        let certificates = self.certificates.values().map(|held| Record::Certificate(Certificate::clone(held)));
        let unordered = self.batches.iter().filter(|(digest, _)| !self.ordered.contains(*digest));
        Recovered {
            anchor: self.anchor.clone(),
            anchor_certificate: self.anchor_certificate.as_deref().cloned(),
            records: blocks.chain(certificates).collect(),
            batches: unordered.map(|(_, batch)| batch.clone()).collect(),
            executed: self.executed,
            highest_votes: self.highest_votes.iter().map(|(key, vote)| (*key, *vote)).collect(),
            evidence: self.evidence.iter().map(|((key, _), told)| (*key, *told)).collect(),
        }
    }

    pub(crate) fn block(&self, height: Height) -> Option<&Block> {
        height.0.checked_sub(1).and_then(|position| self.finalized.get(position as usize)).map(Rc::as_ref)
    }

    pub(crate) fn height_of(&self, block: Digest) -> Option<Height> {
        self.heights.get(&block).copied()
    }

    pub(crate) fn finalization(&self, height: Height) -> Option<&Certificate> {
        self.finalizations.get(&height).map(Rc::as_ref)
    }

    pub(crate) fn is_ordered(&self, batch: Digest) -> bool {
        self.ordered.contains(&batch)
    }

    pub(crate) fn checkpoint(&self, height: Height) -> Option<Checkpoint> {
        self.checkpoints.get(&height).copied()
    }

    fn cutoff(&self, epoch: Epoch) -> Height {
        Height(self.epoch_blocks.map_or(u64::MAX, |blocks| blocks.saturating_mul(epoch.0.saturating_add(1))))
    }

    /// The root of a snapshot becomes known some blocks after the cut-off that has to name it: making it takes time.
    pub(crate) fn snapshot(&self, epoch: Epoch) -> Option<Digest> {
        let named_after = self.cutoff(epoch.next());
        let late = named_after.0 / CHECKPOINT_INTERVAL % 3;
        let made = self.checkpoints.get(&self.cutoff(epoch))?;
        (self.executed.0 >= named_after.0.saturating_add(late)).then(|| snapshot_root(made.state))
    }

    /// V2, S4: a finalize vote recorded after `since`, above the last finalised block, whose notarization is not here.
    pub(crate) fn unfounded(&self, record: &SigningRecord, since: Moment) -> Option<Vote> {
        let last = &self.anchor.block;
        let (epoch, above) =
            if last.boundary.is_some() { (last.epoch.next(), View(0)) } else { (last.epoch, self.anchor.view) };
        let recorded = record.safety(epoch);
        let votes = recorded.views_above(above).filter(|(view, _)| (epoch, *view) > since);
        votes
            .filter_map(|(view, votes)| Some(Vote { epoch, view, kind: VoteKind::Finalize, digest: votes.finalized? }))
            .find(|vote| {
                let held = self.certificates.get(&(vote.view, VoteKind::Notarize));
                held.is_none_or(|held| held.vote.digest != vote.digest)
            })
    }

    /// The latest vote of a key that is kept here.
    pub(crate) fn highest_vote(&self, key: PublicKey) -> Option<Moment> {
        self.highest_votes.get(&key).map(|signed| (signed.vote.epoch, signed.vote.view))
    }

    /// Last finalised block: its height, its digest as stored, and the height executed.
    pub(crate) fn tip(&self) -> (Height, Digest, Height) {
        (self.anchor.height(), self.anchor.digest, self.executed)
    }
}

/// The state after one more block.
pub(crate) fn next_state(before: Digest, block: Digest) -> Digest {
    Digest(Sha256::new().chain_update(before.0).chain_update(block.0).finalize().into())
}

/// The root over the chunks of a snapshot of this state.
pub(crate) fn snapshot_root(state: Digest) -> Digest {
    next_state(Digest([1; 32]), state)
}

/// The checkpoint at a height with this state.
pub(crate) fn checkpoint(height: Height, state: Digest) -> Checkpoint {
    Checkpoint { height, state, receipts: next_state(state, Digest::default()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::KeyBook;
    use crate::random::Random;
    use crate::schedule::{Schedule, key_of};
    use bizra_driver::signing_record::Binding;

    /// V2, S4: what `finalize_before_notarization` breaks, and what the loss of a database excuses.
    #[test]
    fn a_recorded_finalize_vote_without_its_notarization_is_found() {
        let genesis = Block::genesis(Digest([7; 32]), 0);
        let binding = Binding { genesis_hash: Digest([7; 32]), volume: Digest([1; 32]), public_key: key_of(0).0 };
        let schedule = Schedule::fixed(&[1; 4]);
        let keys = KeyBook::new(&mut Random::new(1), 4);
        let ledger = Ledger::genesis(&schedule, keys, Digest([7; 32]));
        let mut store = Store::new(genesis.clone(), ledger, None);
        for write in SigningRecord::create(&binding) {
            store.write(write);
        }
        let mut record = SigningRecord::open(&binding, &store.signing_file()).unwrap();
        let block = Block { height: Height(1), parent: genesis.digest(), ..genesis };
        let vote = |view, kind| Vote { epoch: Epoch(0), view: View(view), kind, digest: block.digest() };
        let certified = |vote| Written::Certificate(Rc::new(Certificate { vote, signatures: Vec::new() }));
        let finalize = vote(2, VoteKind::Finalize);
        record.reserve(&[vote(2, VoteKind::Notarize), vote(1, VoteKind::Nullify), finalize]).unwrap();
        let since = Moment::default();
        // The notarization of another view, or of another block of this one, is none.
        store.apply(&certified(vote(1, VoteKind::Notarize)));
        store.apply(&certified(Vote { digest: Digest([9; 32]), ..vote(2, VoteKind::Notarize) }));
        assert_eq!(store.unfounded(&record, since), Some(finalize));
        assert_eq!(store.unfounded(&record, (Epoch(0), View(2))), None, "excused by the loss of the database");
        let mut sound = store.clone();
        sound.apply(&certified(vote(2, VoteKind::Notarize)));
        assert_eq!(sound.unfounded(&record, since), None);
        // A final block needs no other proof.
        let certificate = Rc::new(Certificate { vote: finalize, signatures: Vec::new() });
        store.apply(&Written::Finalize(vec![(block.digest(), Rc::new(block.clone()))], certificate));
        assert_eq!(store.unfounded(&record, since), None);
    }
}
