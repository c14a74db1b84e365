//! Contradictions of validators: kept, and told once to everybody (V6).

use bizra_simplex::SignedVote;

use crate::driver::{Destination, Driver};
use crate::ports::{Change, Disk, Keys, PublicKey};
use crate::wire::PeerMessage;

impl<D: Disk, K: Keys> Driver<D, K> {
    /// Takes two votes of which a peer says that they contradict each other. Anybody can send anything: both signatures
    /// are checked, and one contradiction of a key and epoch is enough.
    pub(crate) fn receive_evidence(&mut self, first: SignedVote, second: SignedVote) {
        let accused = |vote: &SignedVote| self.rosters.get(&vote.vote.epoch)?.key(vote.signer);
        let Some(key) = accused(&first) else { return };
        let one_signer = first.signer == second.signer && first.vote.conflicts_with(&second.vote);
        if !one_signer || self.accused.contains(&(key, first.vote.epoch)) {
            return;
        }
        let check = |vote: &SignedVote| (key, self.signed_bytes(vote), vote.signature);
        if self.keys.verify(&[check(&first), check(&second)]) {
            self.accuse(key, first, second);
        }
    }

    /// A contradiction whose signatures are valid.
    pub(crate) fn accuse(&mut self, key: PublicKey, first: SignedVote, second: SignedVote) {
        if self.accused.insert((key, first.vote.epoch)) {
            self.push_change(Change::Evidence(key, first, second));
            self.send(Destination::All, PeerMessage::Evidence(first, second));
            self.output.evidence.push((first, second));
        }
    }
}
