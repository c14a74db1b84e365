//! Contradictions of validators: kept, told once to everybody (V6), and reported in blocks until the chain has them (V7).

use std::collections::BTreeSet;

use bizra_simplex::planted::{Bug, planted};
use bizra_simplex::types::Epoch;
use bizra_simplex::{Block, CONTRADICTIONS_MAX, Contradiction, SignedVote};

use crate::driver::{Destination, Driver};
use crate::ports::{Change, Disk, DiskError, Keys, PublicKey};
use crate::wire::PeerMessage;

impl<D: Disk, K: Keys> Driver<D, K> {
    /// Takes two votes of which a peer says that they contradict each other. Anybody can send anything: both signatures
    /// are checked, and one contradiction of a key and epoch is enough.
    pub(crate) fn receive_evidence(&mut self, first: SignedVote, second: SignedVote) {
        let told = Contradiction::new(first, second);
        let Some(key) = self.contradicting_key(&told) else { return };
        if !self.evidence.contains_key(&(key, told.of().0)) && self.is_signed_by(key, &told) {
            self.accuse(key, told);
        }
    }

    /// The key of a validator of the last epochs, if the form of its contradiction is right.
    fn contradicting_key(&self, told: &Contradiction) -> Option<PublicKey> {
        let (epoch, signer) = told.of();
        self.rosters.get(&epoch).filter(|_| told.is_well_formed())?.key(signer)
    }

    fn is_signed_by(&self, key: PublicKey, told: &Contradiction) -> bool {
        let check = |vote: &SignedVote| (key, self.signed_bytes(vote), vote.signature);
        self.keys.verify(&[check(&told.first), check(&told.second)])
    }

    /// A contradiction whose signatures are valid.
    pub(crate) fn accuse(&mut self, key: PublicKey, told: Contradiction) {
        let Contradiction { first, second } = told;
        if self.evidence.insert((key, told.of().0), told).is_none() {
            self.push_change(Change::Evidence(key, first, second));
            self.send(Destination::All, PeerMessage::Evidence(first, second));
            self.output.evidence.push((first, second));
        }
    }

    /// V7: what a block on these ancestors should report, ascending.
    pub(crate) fn reportable(&self, ancestors: &[Block]) -> Result<Vec<Contradiction>, DiskError> {
        let mut chosen = Vec::new();
        if self.core.config().protocol.rules().contradictions_max == 0 {
            return Ok(chosen);
        }
        let above = ancestors.iter().flat_map(|block| &block.contradictions);
        let mut named: BTreeSet<PublicKey> = above.filter_map(|told| self.contradicting_key(told)).collect();
        for ((key, _), told) in &self.evidence {
            // One reported in the epoch before may be punished when that is executed: a leader waits to see.
            if chosen.len() < CONTRADICTIONS_MAX && !named.contains(key) && !self.is_reported(*key, true)? {
                named.insert(*key);
                chosen.push(*told);
            }
        }
        chosen.sort_unstable_by_key(Contradiction::of);
        Ok(chosen)
    }

    /// V7: whether everything that a block reports is true, told once, and new to the finalised chain. What it tells is kept:
    /// whoever votes for the block can tell it again if the block does not become final.
    pub(crate) fn contradictions_hold(&mut self, block: &Block) -> Result<bool, DiskError> {
        let mut proven: Vec<(PublicKey, Contradiction)> = Vec::new();
        for told in &block.contradictions {
            let Some(key) = self.contradicting_key(told) else { return Ok(false) };
            let known = self.evidence.get(&(key, told.of().0)) == Some(told);
            let twice = proven.iter().any(|(other, _)| *other == key);
            if twice || self.is_reported(key, false)? {
                return Ok(false);
            }
            if !known && !self.is_signed_by(key, told) && !planted(Bug::ReportUnchecked) {
                return Ok(false);
            }
            proven.push((key, *told));
        }
        for (key, told) in proven {
            if !self.evidence.contains_key(&(key, told.of().0)) {
                self.accuse(key, told);
            }
        }
        Ok(true)
    }

    /// True if a finalised block of the present epoch reports this key, or the ledger has punished it. The state tells of
    /// executed blocks; those above are looked at, also those of this very turn, and of the epoch before if `doubtful`.
    fn is_reported(&self, key: PublicKey, doubtful: bool) -> Result<bool, DiskError> {
        let epoch = self.core.config().epoch;
        let of_key = |told: &Contradiction| self.contradicting_key(told) == Some(key);
        let reports = |block: &Block| (doubtful || block.epoch == epoch) && block.contradictions.iter().any(of_key);
        let this_turn = |change: &Change| matches!(change, Change::Execute(block, _) if reports(block));
        Ok(self.to_execute.iter().any(reports)
            || self.changes.iter().any(this_turn)
            || self.disk.is_reported(key, epoch)?)
    }

    /// Contradictions of epochs that no block may tell of any more stay on the disk only.
    pub(crate) fn forget_old_evidence(&mut self) {
        let rosters = &self.rosters;
        self.evidence.retain(|(_, epoch), _| rosters.contains_key(epoch));
    }

    /// Contradictions held that the chain may still be told of, with the key that signed both votes.
    pub fn evidence(&self) -> impl Iterator<Item = (PublicKey, Epoch)> + '_ {
        self.evidence.keys().copied()
    }
}
