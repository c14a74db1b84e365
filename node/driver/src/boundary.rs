//! The last block of an epoch with what proves it: how a node that was not there learns who votes now (PROTOCOL E5).

use bizra_simplex::types::{Digest, Epoch, Power};
use bizra_simplex::{Block, Certificate, ValidatorSet, VoteKind};

use crate::ports::{Member, PublicKey};
use crate::roster::validators_hash;

/// Checks one signature.
pub type VerifySignature<'a> = &'a dyn Fn(&PublicKey, &[u8], &bizra_simplex::types::Signature) -> bool;

/// The last block of an epoch, its finalization, and the validators that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundaryProof {
    /// The block.
    pub block: Block,
    /// Finalizes exactly this block, signed by the validators of its epoch.
    pub finalization: Certificate,
    /// The validators of the next epoch, in order.
    pub members: Vec<Member>,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundaryError {
    /// Not the last block of that epoch, or below the one before.
    #[error("it is not the last block of epoch {0}")]
    Block(Epoch),
    /// The certificate is of something else, or of too few.
    #[error("its certificate is not a finalization by a quorum of epoch {0}")]
    Certificate(Epoch),
    /// A signature is not valid.
    #[error("a signature under its finalization is not valid")]
    Signature,
    /// The validators are not those it names.
    #[error("its next validators are not those that its header names")]
    Members,
}

/// Checks that a finalization is of this block and signed by a quorum of these validators of its epoch.
pub fn verify_finalization(
    block: &Block,
    finalization: &Certificate,
    members: &[Member],
    genesis_hash: Digest,
    verify: VerifySignature<'_>,
) -> Result<(), BoundaryError> {
    let wrong = BoundaryError::Certificate(block.epoch);
    let powers: Vec<Power> = members.iter().map(|member| member.power).collect();
    let set = ValidatorSet::new(powers).map_err(|_| wrong)?;
    let vote = finalization.vote;
    if vote.kind != VoteKind::Finalize || vote.digest != block.digest() || !finalization.is_well_formed(block.epoch, &set)
    {
        return Err(wrong);
    }
    let message = vote.signed_bytes(genesis_hash);
    let valid = finalization.signatures.iter().all(|(signer, signature)| {
        members.get(usize::from(signer.0)).is_some_and(|member| verify(&member.key, &message, signature))
    });
    if valid { Ok(()) } else { Err(BoundaryError::Signature) }
}

impl BoundaryProof {
    /// Checks the proof with the validators of its epoch, which the proof before named; `before` is that one's block.
    pub fn verify(
        &self,
        epoch: Epoch,
        before: Option<&Block>,
        members: &[Member],
        genesis_hash: Digest,
        verify: VerifySignature<'_>,
    ) -> Result<(), BoundaryError> {
        let grows = before.is_none_or(|before| before.height < self.block.height);
        let Some(boundary) = self.block.boundary.filter(|_| self.block.epoch == epoch && grows) else {
            return Err(BoundaryError::Block(epoch));
        };
        verify_finalization(&self.block, &self.finalization, members, genesis_hash, verify)?;
        if validators_hash(epoch.next(), &self.members) == boundary.validators {
            Ok(())
        } else {
            Err(BoundaryError::Members)
        }
    }
}

#[cfg(test)]
mod tests {
    use bizra_simplex::Boundary;
    use bizra_simplex::types::{Height, Signature, ValidatorIndex, View};
    use bizra_simplex::Vote;

    use super::*;

    fn member(seed: u8) -> Member {
        Member { key: PublicKey([seed; 32]), power: Power(1) }
    }

    /// A signature is valid if it repeats the key.
    fn signed(key: &PublicKey, _: &[u8], signature: &Signature) -> bool {
        signature.0 == [key.0[0]; 64]
    }

    fn proof(signers: &[u8]) -> BoundaryProof {
        let members = vec![member(9)];
        let boundary = Boundary { validators: validators_hash(Epoch(1), &members), snapshot: Digest([1; 32]) };
        let block = Block { height: Height(40), boundary: Some(boundary), ..Block::genesis(Digest([2; 32]), 0) };
        let vote = Vote { epoch: Epoch(0), view: View(7), kind: VoteKind::Finalize, digest: block.digest() };
        let signature = |seed: &u8| (ValidatorIndex(u16::from(*seed)), Signature([*seed; 64]));
        let finalization = Certificate { vote, signatures: signers.iter().map(signature).collect() };
        BoundaryProof { block, finalization, members }
    }

    #[test]
    fn only_a_quorum_of_the_epoch_proves_its_last_block_and_the_next_validators() {
        let members: Vec<Member> = (0..4).map(member).collect();
        let check = |proof: &BoundaryProof, epoch, before: Option<&Block>| {
            proof.verify(Epoch(epoch), before, &members, Digest::default(), &signed)
        };
        let sound = proof(&[0, 1, 3]);
        assert_eq!(check(&sound, 0, None), Ok(()));
        assert_eq!(check(&sound, 1, None), Err(BoundaryError::Block(Epoch(1))));
        assert_eq!(check(&sound, 0, Some(&sound.block)), Err(BoundaryError::Block(Epoch(0))));
        assert_eq!(check(&proof(&[0, 1]), 0, None), Err(BoundaryError::Certificate(Epoch(0))));
        let mut forged = sound.clone();
        forged.finalization.signatures[1].1 = Signature([7; 64]);
        assert_eq!(check(&forged, 0, None), Err(BoundaryError::Signature));
        let stranger = BoundaryProof { members: vec![member(8)], ..sound.clone() };
        assert_eq!(check(&stranger, 0, None), Err(BoundaryError::Members));
        let mut other = sound;
        other.block.time_milliseconds = 1;
        assert_eq!(check(&other, 0, None), Err(BoundaryError::Certificate(Epoch(0))));
    }
}
