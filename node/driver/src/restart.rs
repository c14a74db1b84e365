//! Restarts by owners after the loss of a third of the power (E6): where each was, the epoch that began there, and the
//! domain in which votes are signed since. Who may restart, and what a document of one must say, is the node's to check.

use bizra_simplex::block::CONTRADICTION_EPOCHS;
use bizra_simplex::types::{Digest, Epoch, Height};
use bizra_simplex::{Block, Certificate, Record};

use crate::ports::Member;

/// How far the first epoch after a restart must be above any in which something was signed: so far that no batch and no
/// contradiction of an epoch before it may be in a block of it (D3, V7).
pub const RESTART_EPOCHS: u64 = CONTRADICTION_EPOCHS + 1;

/// One restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The block below its first: final by the word of the owners.
    pub block: Block,
    /// That block's notarization or finalization.
    pub certificate: Certificate,
    /// The epoch that begins there.
    pub epoch: Epoch,
    /// Its validators, in the order of their indices.
    pub validators: Vec<Member>,
    /// What takes the place of the genesis hash in every vote from that epoch on.
    pub domain: Digest,
}

/// The restarts of a chain, the oldest first; most chains have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restarts(Vec<Restart>);

impl Restarts {
    /// One more. Epochs only grow; that, and all the rest, the caller has checked.
    pub fn push(&mut self, restart: Restart) {
        self.0.push(restart);
    }

    /// The restart that ends this epoch. Of two at the same block the later one: nothing was ever final after the first.
    pub fn ending(&self, epoch: Epoch) -> Option<&Restart> {
        self.0.iter().rev().find(|restart| restart.block.epoch == epoch)
    }

    /// The restart that this epoch begins with.
    pub fn beginning(&self, epoch: Epoch) -> Option<&Restart> {
        self.0.iter().find(|restart| restart.epoch == epoch)
    }

    /// The restart at a block of this height and digest.
    pub fn at(&self, height: Height, digest: Digest) -> Option<&Restart> {
        let here = |restart: &&Restart| restart.block.height == height && restart.block.digest() == digest;
        self.0.iter().rev().find(here)
    }

    /// The newest.
    pub fn last(&self) -> Option<&Restart> {
        self.0.last()
    }

    /// The epoch after this one, as far as restarts decide: one that ends here goes on with its own.
    pub fn after(&self, last: &Block) -> Option<Epoch> {
        match self.at(last.height, last.digest()) {
            Some(restart) => Some(restart.epoch),
            None => last.boundary.is_some().then(|| last.epoch.next()),
        }
    }

    /// True of an epoch that was passed over.
    pub(crate) fn passes_over(&self, epoch: Epoch) -> bool {
        self.0.iter().any(|restart| restart.block.epoch < epoch && epoch < restart.epoch)
    }

    /// What is signed with every vote of an epoch: the genesis hash until the first restart.
    pub fn domain(&self, genesis_hash: Digest, epoch: Epoch) -> Digest {
        let begun = self.0.iter().rev().find(|restart| restart.epoch <= epoch);
        begun.map_or(genesis_hash, |restart| restart.domain)
    }

    /// Where the core of an epoch ends by a restart, and the certificate that it then holds from the start.
    pub(crate) fn end(&self, epoch: Epoch) -> (Option<(Height, Digest)>, Option<Record>) {
        let restart = self.ending(epoch);
        let end = restart.map(|restart| (restart.block.height, restart.block.digest()));
        (end, restart.map(|restart| Record::Certificate(restart.certificate.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bizra_simplex::types::{Signature, ValidatorIndex, View};
    use bizra_simplex::{Protocol, Timing, Vote, VoteKind};

    use super::*;
    use crate::driver::{Fence, Settings};

    fn restart(block_epoch: u64, height: u64, epoch: u64, domain: u8) -> Restart {
        let genesis = Block::genesis(Digest([1; 32]), 0);
        let block = Block { epoch: Epoch(block_epoch), height: Height(height), ..genesis };
        let vote = Vote { epoch: block.epoch, view: View(1), kind: VoteKind::Notarize, digest: block.digest() };
        let certificate = Certificate { vote, signatures: vec![(ValidatorIndex(0), Signature([0; 64]))] };
        Restart { block, certificate, epoch: Epoch(epoch), validators: Vec::new(), domain: Digest([domain; 32]) }
    }

    #[test]
    fn every_epoch_has_the_domain_of_the_last_restart_before_it() {
        let mut restarts = Restarts::default();
        restarts.push(restart(2, 40, 5, 7));
        restarts.push(restart(6, 90, 9, 8));
        let domains = [0, 4, 5, 8, 9, 99].map(|epoch| restarts.domain(Digest([1; 32]), Epoch(epoch)).0[0]);
        assert_eq!(domains, [1, 1, 7, 7, 8, 8]);
        let passed = [2, 3, 4, 5, 6, 7, 8, 9].map(|epoch| restarts.passes_over(Epoch(epoch)));
        assert_eq!(passed, [false, true, true, false, false, true, true, false]);
    }

    #[test]
    fn votes_are_signed_in_the_domain_of_their_epoch() {
        let (genesis_hash, timing, supported) = (Digest([1; 32]), Timing::default(), Protocol::LATEST);
        let mut restarts = Restarts::default();
        restarts.push(restart(2, 40, 5, 7));
        let settings = Settings {
            genesis_hash,
            timing,
            epoch_blocks: None,
            supported,
            nodes: BTreeMap::new(),
            restarts,
            fence: Fence::Open,
        };
        for (epoch, domain) in [(2, genesis_hash), (4, genesis_hash), (5, Digest([7; 32])), (6, Digest([7; 32]))] {
            let vote = Vote { epoch: Epoch(epoch), view: View(1), kind: VoteKind::Nullify, digest: Digest::default() };
            assert_eq!(settings.signed_bytes(&vote), vote.signed_bytes(domain), "epoch {epoch}");
        }
    }

    #[test]
    fn of_two_restarts_at_one_block_the_later_one_counts() {
        let mut restarts = Restarts::default();
        let (first, second) = (restart(2, 40, 5, 7), restart(2, 40, 8, 8));
        restarts.push(first.clone());
        restarts.push(second.clone());
        assert_eq!(restarts.after(&first.block), Some(Epoch(8)));
        assert_eq!(restarts.ending(Epoch(2)), Some(&second));
        assert!(restarts.passes_over(Epoch(5)), "the first epoch never had a final block");
        let another = Block { time_milliseconds: 9, ..first.block };
        assert_eq!(restarts.after(&another), None);
    }
}
