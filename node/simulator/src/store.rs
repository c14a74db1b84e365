//! What a database and a signing record contain.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bizra_driver::signing_record::{BLOCK_BYTES, BlockWrite, FILE_BLOCKS, Moment, SigningRecord};
use bizra_driver::{Batch, Change, Member, PublicKey, Recovered};
use bizra_simplex::block::CHECKPOINT_INTERVAL;
use bizra_simplex::types::{Digest, Epoch, Height, View};
use bizra_simplex::{
    Anchor, Block, Certificate, Checkpoint, Contradiction, Record, Reputation, SignedVote, Turns, ValidatorSet,
    Version, Vote, VoteKind,
};
use sha2::{Digest as _, Sha256};

use crate::schedule::{Schedule, key_of};

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
    schedule: Schedule,
    highest_votes: BTreeMap<PublicKey, SignedVote>,
    evidence: BTreeMap<(PublicKey, Epoch), Contradiction>,
    /// The version that each node signalled last.
    signals: BTreeMap<usize, Version>,
    /// The version of each epoch whose validators are known.
    versions: Vec<Version>,
    /// The reputation of each node in each epoch whose validators are known (T2).
    reputations: Vec<BTreeMap<usize, Reputation>>,
    /// Turns since the cut-off executed last.
    turns: BTreeMap<usize, Turns>,
    /// Epoch and view of the block executed last, and who leads in that epoch.
    last: (Epoch, View),
    leaders: Option<Rc<ValidatorSet>>,
    /// Keys that finalised blocks report.
    reported: BTreeSet<PublicKey>,
    /// Written blocks of the signing record; the others are zeros.
    pub(crate) signing: BTreeMap<u64, Arc<[u8; BLOCK_BYTES]>>,
}

impl Store {
    pub(crate) fn new(genesis: Block, schedule: Schedule) -> Self {
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
            versions: vec![schedule.first().version()],
            signals: BTreeMap::new(),
            reputations: vec![BTreeMap::new()],
            turns: BTreeMap::new(),
            last: (Epoch(0), View(0)),
            leaders: None,
            reported: BTreeSet::new(),
            schedule,
            highest_votes: BTreeMap::new(),
            evidence: BTreeMap::new(),
            signing: BTreeMap::new(),
        }
    }

    /// Everything but the signing record is gone; a ledger starts from its genesis.
    pub(crate) fn lose_database(&mut self) {
        let signing = std::mem::take(&mut self.signing);
        *self = Self { signing, ..Self::new(self.genesis.clone(), self.schedule.clone()) };
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
                // Before the signals, which begin the next epoch.
                self.note_turns(block);
                self.note_signal(block);
                for told in &block.contradictions {
                    let (epoch, signer) = told.of();
                    self.reported.extend(self.schedule.node(epoch, signer.0).map(key_of));
                }
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

    pub(crate) fn validators(&self, epoch: Epoch) -> Option<Vec<Member>> {
        let known = epoch.0.checked_sub(1).is_none_or(|before| self.executed >= self.schedule.cutoff(Epoch(before)));
        known.then(|| self.members(epoch))
    }

    fn members(&self, epoch: Epoch) -> Vec<Member> {
        let reputations = self.reputations.get(epoch.0 as usize);
        self.schedule.members(epoch, |node| reputations.and_then(|known| known.get(&node)).copied().unwrap_or_default())
    }

    /// T2, as the ledger counts: who had a turn since the block before, and at a cut-off what comes of all turns.
    fn note_turns(&mut self, block: &Block) {
        let epoch = block.epoch;
        if self.leaders.is_none() || self.last.0 != epoch {
            let members = self.members(epoch).into_iter().map(|member| (member.power, member.reputation)).collect();
            self.leaders = ValidatorSet::with_reputations(members).ok().map(Rc::new);
            self.last = (epoch, View(0));
        }
        let Some(leaders) = self.leaders.clone() else { return };
        for (missed, index) in leaders.turns_between(self.last.1, block.view).into_iter().zip(0..) {
            if let Some(node) = self.schedule.node(epoch, index) {
                self.turns.entry(node).or_default().missed += missed;
            }
        }
        if let Some(node) = self.schedule.node(epoch, block.proposer.0) {
            self.turns.entry(node).or_default().led += 1;
        }
        self.last.1 = block.view;
        let ending = Epoch(self.reputations.len() as u64 - 1);
        if block.height != self.schedule.cutoff(ending) {
            return;
        }
        let turns = std::mem::take(&mut self.turns);
        let before = self.reputations.last().cloned().unwrap_or_default();
        let member = |node: &usize| before.get(node).copied().unwrap_or_default();
        let after = |node: usize| (node, member(&node).after(turns.get(&node).copied().unwrap_or_default()));
        self.reputations.push(self.schedule.of(ending.next()).iter().map(|(node, _)| after(*node)).collect());
    }

    /// The root of a snapshot becomes known some blocks after the cut-off that has to name it: making it takes time.
    pub(crate) fn snapshot(&self, epoch: Epoch) -> Option<Digest> {
        let named_after = self.schedule.cutoff(epoch.next());
        let late = named_after.0 / CHECKPOINT_INTERVAL % 3;
        let made = self.checkpoints.get(&self.schedule.cutoff(epoch))?;
        (self.executed.0 >= named_after.0.saturating_add(late)).then(|| snapshot_root(made.state))
    }

    /// P1, P2, as the ledger keeps them: the last signal of each validator, and what comes of them at a cut-off.
    fn note_signal(&mut self, block: &Block) {
        let Self { schedule, signals, versions, .. } = self;
        signals.extend(schedule.node(block.epoch, block.proposer.0).map(|node| (node, block.signals)));
        let ending = Epoch(versions.len() as u64 - 1);
        if block.height != schedule.cutoff(ending) {
            return;
        }
        let agree = |epoch: Epoch, version: Version| {
            let members = schedule.of(epoch);
            let speaks = |member: &&(usize, u64)| signals.get(&member.0).is_some_and(|signal| *signal >= version);
            let power: u64 = members.iter().filter(speaks).map(|(_, power)| power).sum();
            3 * power > 2 * members.iter().map(|(_, power)| power).sum::<u64>()
        };
        let present = versions.last().copied().unwrap_or_default();
        let next =
            signals.values().copied().filter(|version| agree(ending, *version) && agree(ending.next(), *version));
        versions.push(next.max().unwrap_or(present).max(present));
        signals.retain(|node, _| schedule.index(ending.next(), *node).is_some());
    }

    pub(crate) fn version(&self, epoch: Epoch) -> Option<Version> {
        self.versions.get(usize::try_from(epoch.0).ok()?).copied()
    }

    pub(crate) fn is_reported(&self, key: PublicKey) -> bool {
        self.reported.contains(&key)
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
    use bizra_driver::signing_record::Binding;

    /// V2, S4: what `finalize_before_notarization` breaks, and what the loss of a database excuses.
    #[test]
    fn a_recorded_finalize_vote_without_its_notarization_is_found() {
        let genesis = Block::genesis(Digest([7; 32]), 0);
        let binding = Binding { genesis_hash: Digest([7; 32]), volume: Digest([1; 32]), public_key: key_of(0).0 };
        let mut store = Store::new(genesis.clone(), Schedule::fixed(&[1; 4]));
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
