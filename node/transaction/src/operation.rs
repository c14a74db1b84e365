//! What a transaction can do beside moving money: its body, byte by byte. Integers are big-endian; each body has one
//! width for its kind, but for a name, and one form.
//!
//! | kind | body |
//! | --- | --- |
//! | 2 reserve stake, 3 release stake | amount (8) |
//! | 4 register validator | length of the node's name (1), name |
//! | 5 deregister, 7 deactivate validator | nothing |
//! | 6 activate validator, 8 rotate consensus key | public key (32), height (8), block digest (32), signature (64) |
//! | 9 report equivocation | public key (32), epoch (8), view (8), then twice: vote kind (1), digest (32), signature (64) |
//! | 10 update parameters | [`Parameters`] (26) |

use bizra_proto::ceremony::is_node_name;
use bizra_proto::parameters::Parameters;
use bizra_simplex::types::{Digest, Epoch, Signature, View};
use bizra_simplex::{Vote, VoteKind};
use ed25519_zebra::{Signature as Ed25519Signature, VerificationKey};

use super::codec::{DecodeError, take};
use super::identifier::Address;

const KEY_PROOF_DOMAIN: &[u8] = b"bizra/v1/consensus-key\0";

/// A change of the validator registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Moves money from the sender's balance to its stake.
    ReserveStake {
        /// Base units, above 0.
        amount: u64,
    },
    /// Starts the unbonding of stake, and pays out what has unbonded.
    ReleaseStake {
        /// Base units; 0 only collects what has unbonded.
        amount: u64,
    },
    /// Registers the sender as owner of a validator.
    RegisterValidator {
        /// Name of its node, a DNS label.
        name: String,
    },
    /// Removes the sender's validator from the registry.
    DeregisterValidator,
    /// Queues the validator for the set.
    ActivateValidator(KeyProof),
    /// Queues the validator for leaving the set.
    DeactivateValidator,
    /// Queues a new consensus key.
    RotateConsensusKey(KeyProof),
    /// Shows that a validator signed two conflicting votes (PROTOCOL V6).
    ReportEquivocation(Equivocation),
    /// Approves these parameters; they hold from the cut-off at which more than two thirds of the power approve them.
    UpdateParameters(Parameters),
}

/// Shows that a consensus key lives on a synced node: its signature over a recent header (PROTOCOL E3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyProof {
    /// The consensus key.
    pub public_key: [u8; 32],
    /// Height of the header.
    pub height: u64,
    /// Digest of the block of that height.
    pub block: Digest,
    /// By the consensus key over [`KeyProof::message`].
    pub signature: Signature,
}

impl KeyProof {
    /// What the consensus key signs to belong to `owner`. A block digest names its chain by itself.
    pub fn message(owner: Address, height: u64, block: Digest) -> Vec<u8> {
        [KEY_PROOF_DOMAIN, &owner.0, &height.to_be_bytes(), &block.0].concat()
    }

    /// True if the key signed for this owner. Takes about 50 µs.
    pub fn is_valid(&self, owner: Address) -> bool {
        self.is_valid_by(owner, &verify)
    }

    /// The same by another check of signatures.
    pub fn is_valid_by(&self, owner: Address, verify: Verify<'_>) -> bool {
        verify(self.public_key, self.signature, &Self::message(owner, self.height, self.block))
    }
}

/// Two votes of one key that no honest validator signs both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// The key that signed both.
    pub public_key: [u8; 32],
    /// The first vote.
    pub first: (Vote, Signature),
    /// The second vote, of the same epoch and view.
    pub second: (Vote, Signature),
}

impl Equivocation {
    /// True if the votes conflict and the key signed both, in this domain: that of their epoch. Takes about 100 µs with
    /// [`verify`].
    pub fn is_valid_by(&self, domain: Digest, verify: Verify<'_>) -> bool {
        let Self { public_key, first, second } = self;
        let signed =
            |(vote, signature): &(Vote, Signature)| verify(*public_key, *signature, &vote.signed_bytes(domain));
        first.0.conflicts_with(&second.0) && signed(first) && signed(second)
    }
}

/// A check of signatures: whether this key signed these bytes.
pub type Verify<'a> = &'a dyn Fn([u8; 32], Signature, &[u8]) -> bool;

/// The check of Ed25519 signatures.
pub fn verify(public_key: [u8; 32], signature: Signature, message: &[u8]) -> bool {
    let signature = Ed25519Signature::from(signature.0);
    VerificationKey::try_from(public_key).is_ok_and(|key| key.verify(&signature, message).is_ok())
}

impl Operation {
    /// Its kind's number in the encoding.
    pub fn kind(&self) -> u8 {
        match self {
            Self::ReserveStake { .. } => 2,
            Self::ReleaseStake { .. } => 3,
            Self::RegisterValidator { .. } => 4,
            Self::DeregisterValidator => 5,
            Self::ActivateValidator(_) => 6,
            Self::DeactivateValidator => 7,
            Self::RotateConsensusKey(_) => 8,
            Self::ReportEquivocation(_) => 9,
            Self::UpdateParameters(_) => 10,
        }
    }

    pub(crate) fn write(&self, buffer: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self {
            Self::ReserveStake { amount } | Self::ReleaseStake { amount } => {
                buffer.extend_from_slice(&amount.to_be_bytes());
            }
            Self::RegisterValidator { name } => {
                if !is_node_name(name) {
                    return Err(DecodeError::MalformedBody);
                }
                buffer.push(name.len() as u8);
                buffer.extend_from_slice(name.as_bytes());
            }
            Self::DeregisterValidator | Self::DeactivateValidator => {}
            Self::ActivateValidator(proof) | Self::RotateConsensusKey(proof) => {
                buffer.extend_from_slice(&proof.public_key);
                buffer.extend_from_slice(&proof.height.to_be_bytes());
                buffer.extend_from_slice(&proof.block.0);
                buffer.extend_from_slice(&proof.signature.0);
            }
            Self::ReportEquivocation(Equivocation { public_key, first, second }) => {
                buffer.extend_from_slice(public_key);
                buffer.extend_from_slice(&first.0.epoch.0.to_be_bytes());
                buffer.extend_from_slice(&first.0.view.0.to_be_bytes());
                for (vote, signature) in [first, second] {
                    buffer.push(vote.kind as u8);
                    buffer.extend_from_slice(&vote.digest.0);
                    buffer.extend_from_slice(&signature.0);
                }
            }
            Self::UpdateParameters(parameters) => buffer.extend_from_slice(&parameters.encode()),
        }
        Ok(())
    }

    pub(crate) fn read(kind: u8, rest: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            2 => Self::ReserveStake { amount: u64::from_be_bytes(take(rest)?) },
            3 => Self::ReleaseStake { amount: u64::from_be_bytes(take(rest)?) },
            4 => {
                let [length] = take(rest)?;
                let (name, tail) = rest.split_at_checked(usize::from(length)).ok_or(DecodeError::Truncated)?;
                *rest = tail;
                let name = std::str::from_utf8(name).ok().filter(|name| is_node_name(name));
                Self::RegisterValidator { name: name.ok_or(DecodeError::MalformedBody)?.to_owned() }
            }
            5 => Self::DeregisterValidator,
            6 => Self::ActivateValidator(read_proof(rest)?),
            7 => Self::DeactivateValidator,
            8 => Self::RotateConsensusKey(read_proof(rest)?),
            9 => {
                let public_key = take(rest)?;
                let (epoch, view) = (u64::from_be_bytes(take(rest)?), u64::from_be_bytes(take(rest)?));
                let mut read = || {
                    let [kind] = take(rest)?;
                    let kind = VoteKind::from_number(kind).ok_or(DecodeError::MalformedBody)?;
                    let digest = Digest(take(rest)?);
                    let vote = Vote { epoch: Epoch(epoch), view: View(view), kind, digest };
                    Ok((vote, Signature(take(rest)?)))
                };
                Self::ReportEquivocation(Equivocation { public_key, first: read()?, second: read()? })
            }
            10 => {
                let parameters = Parameters::decode(&take(rest)?);
                parameters.check().map_err(|_| DecodeError::MalformedBody)?;
                Self::UpdateParameters(parameters)
            }
            kind => return Err(DecodeError::UnknownKind(kind)),
        })
    }
}

fn read_proof(rest: &mut &[u8]) -> Result<KeyProof, DecodeError> {
    Ok(KeyProof {
        public_key: take(rest)?,
        height: u64::from_be_bytes(take(rest)?),
        block: Digest(take(rest)?),
        signature: Signature(take(rest)?),
    })
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
