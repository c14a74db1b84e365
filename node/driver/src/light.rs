//! Following the chain without executing it (PROTOCOL E5): from validators that are trusted, through the last block of
//! each epoch, to the validators of a later epoch, and from those to any header they finalised. Pure: no storage, no
//! clock, no randomness; every byte that comes in may be a liar's.
//!
//! What a walk shows: each boundary block was finalised by a quorum of its own epoch's validators and names the hash of the
//! next ones. What it rests on: the genesis file, or the digest of one boundary block that somebody trusted vouches for;
//! and that less than a third of the power of *every* epoch walked through is Byzantine. Validators that left long ago and
//! got their stake back have nothing to lose by signing another history, so whoever uses this refuses a starting point
//! older than the unbonding period: that needs a clock, which this room does not have.

use bizra_simplex::types::{Digest, Epoch, Height, Power, Signature};
use bizra_simplex::{
    Block, Boundary, Certificate, Checkpoint, Protocol, Reputation, VALIDATORS_MAX, ValidatorSet, ValidatorSetError,
    Version, VoteKind,
};
use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Write as _};
use crate::ports::{Member, PublicKey};
use crate::restart::Restart;
use crate::roster::{validator_set, validators_hash};

#[cfg(test)]
mod tests;

/// Most headers between the one that is asked for and the one a certificate finalises. A node that caught up keeps one
/// finalization for [`crate::wire::RANGE_BLOCKS_MAX`] blocks; more than that is a request for memory, not a proof.
pub const HEADERS_MAX: usize = 128;

const LINK_VERSION: u8 = 1;
const HEADERS_VERSION: u8 = 1;

/// A signature to check: key, signed bytes, signature.
pub type Check = (PublicKey, Vec<u8>, Signature);

/// What the genesis fixes for all epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainRules {
    /// The chain's identity, in every vote.
    pub genesis_hash: Digest,
    /// Blocks from one cut-off height to the next; `None` if the validators never change.
    pub epoch_blocks: Option<u64>,
    /// The version of the first epoch's rules.
    pub version: Version,
}

impl ChainRules {
    /// The height whose execution ends an epoch (E1).
    fn cutoff(&self, epoch: Epoch) -> Height {
        cutoff(self.epoch_blocks, epoch)
    }
}

/// The height whose execution ends an epoch of so many blocks (E1).
pub(crate) fn cutoff(epoch_blocks: Option<u64>, epoch: Epoch) -> Height {
    Height(epoch_blocks.map_or(u64::MAX, |blocks| blocks.saturating_mul(epoch.next().0)))
}

/// From one epoch to the next: the last block of the epoch, its finalization, and the validators whose hash it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The boundary block.
    pub block: Block,
    /// The quorum's finalize votes for exactly this block.
    pub finalization: Certificate,
    /// The next epoch's validators, in the order of their indices.
    pub next: Vec<Member>,
}

/// Consecutive headers, ascending, the last of them finalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// 1 to [`HEADERS_MAX`] blocks of one epoch, each the parent of the one after it.
    pub blocks: Vec<Block>,
    /// The finalization of the last.
    pub finalization: Certificate,
}

/// Why something is not proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// Powers that make no validator set.
    #[error("the validators of epoch {epoch} are no validator set: {source}")]
    NoSet {
        /// Their epoch.
        epoch: Epoch,
        /// What is wrong.
        source: ValidatorSetError,
    },
    /// Two validators with one key would let one signature count twice.
    #[error("two validators of epoch {0} have the same key")]
    KeyTwice(Epoch),
    /// Rules that this build does not know (P3), or older ones than those of the epoch before.
    #[error("epoch {epoch} goes by version {version} of the rules, which this build cannot follow: upgrade it")]
    Version {
        /// The epoch.
        epoch: Epoch,
        /// Its version.
        version: Version,
    },
    /// A header of another epoch than the one whose validators are known.
    #[error("the header at height {height} is of epoch {found}, not of epoch {wanted}")]
    AnotherEpoch {
        /// Its height.
        height: Height,
        /// The epoch it names.
        found: Epoch,
        /// The one that comes next.
        wanted: Epoch,
    },
    /// A header whose fields contradict each other, or the epoch's cut-off (H1, E1, D3).
    #[error("the header at height {0} is not well-formed")]
    Malformed(Height),
    /// A link without the last block of an epoch.
    #[error("the block at height {0} is not the last of its epoch")]
    NotABoundary(Height),
    /// A height, time or checkpoint that should have grown.
    #[error("the header at height {height} does not come after the last block of the epoch before, at height {below}")]
    NotAbove {
        /// Its height.
        height: Height,
        /// The height of the last trusted block.
        below: Height,
    },
    /// No headers, or too many.
    #[error("{0} headers are no proof; 1 to {HEADERS_MAX} are")]
    Count(usize),
    /// A header that is not the child of the one before it.
    #[error("the header at height {0} does not follow the one before it")]
    Unlinked(Height),
    /// A certificate about something else.
    #[error("the certificate does not finalise the block at height {0}")]
    AnotherVote(Height),
    /// A certificate of another epoch, with signers out of order, unknown, twice, or too few.
    #[error("the certificate for the block at height {0} carries no quorum of its epoch's validators")]
    NoQuorum(Height),
    /// At least one signature is not valid.
    #[error("a signature on the certificate for the block at height {0} is not valid")]
    Signature(Height),
    /// Validators other than the boundary names.
    #[error("the validators given for epoch {epoch} have hash {found}; the boundary at height {height} names {wanted}")]
    AnotherSet {
        /// The epoch they are given for.
        epoch: Epoch,
        /// Height of the boundary block.
        height: Height,
        /// Hash of those given.
        found: Digest,
        /// Hash in the header.
        wanted: Digest,
    },
    /// A boundary other than the trusted one.
    #[error("the boundary block of epoch {epoch} has digest {found}; the trusted one is {wanted}")]
    AnotherAnchor {
        /// The epoch it ends.
        epoch: Epoch,
        /// Its digest.
        found: Digest,
        /// The trusted digest.
        wanted: Digest,
    },
}

/// A header that a quorum of its epoch's validators finalised, or an ancestor of one. Only this room makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedHeader(Block);

impl VerifiedHeader {
    /// The block.
    pub fn block(&self) -> &Block {
        &self.0
    }

    /// The executed state it vouches for.
    pub fn checkpoint(&self) -> Checkpoint {
        self.0.checkpoint
    }

    /// Hands the block out.
    pub fn into_block(self) -> Block {
        self.0
    }
}

/// The validators of an epoch that are trusted, and the block their epoch begins on.
#[derive(Clone, Debug)]
pub struct TrustedEpoch {
    rules: ChainRules,
    /// What votes of the epoch are signed with: the genesis hash, or the hash of the last restart (E6).
    domain: Digest,
    epoch: Epoch,
    protocol: Protocol,
    /// The last block of the epoch before; the genesis block for epoch 0.
    below: Block,
    below_digest: Digest,
    members: Vec<Member>,
    set: ValidatorSet,
}

impl TrustedEpoch {
    /// Epoch 0: the validators and the time of the genesis file. Whoever calls this trusts the file.
    pub fn genesis(rules: ChainRules, time_milliseconds: u64, members: Vec<Member>) -> Result<Self, LightError> {
        let below = Block::genesis(rules.genesis_hash, time_milliseconds);
        Self::new((rules, rules.genesis_hash), Epoch(0), rules.version, below, members)
    }

    /// The epoch after a boundary block of which the digest is trusted, whoever gave the block and the validators. Its
    /// finalization is not looked at: the digest is the trust.
    pub fn anchor(rules: ChainRules, trusted: Digest, block: Block, next: Vec<Member>) -> Result<Self, LightError> {
        let found = block.digest();
        if found != trusted {
            return Err(LightError::AnotherAnchor { epoch: block.epoch, found, wanted: trusted });
        }
        let boundary = named_by(&block, &next)?;
        if block.checkpoint.height < rules.cutoff(block.epoch) {
            return Err(LightError::Malformed(block.height));
        }
        Self::new((rules, rules.genesis_hash), block.epoch.next(), boundary.version, block, next)
    }

    /// The same epoch after a restart (E6): its votes are signed in this domain, not over the genesis hash.
    #[must_use]
    pub fn in_domain(mut self, domain: Digest) -> Self {
        self.domain = domain;
        self
    }

    fn new(
        (rules, domain): (ChainRules, Digest),
        epoch: Epoch,
        version: Version,
        below: Block,
        members: Vec<Member>,
    ) -> Result<Self, LightError> {
        let protocol = Protocol::known(version).ok_or(LightError::Version { epoch, version })?;
        let set = validator_set(&members).map_err(|source| LightError::NoSet { epoch, source })?;
        let mut keys: Vec<PublicKey> = members.iter().map(|member| member.key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(LightError::KeyTwice(epoch));
        }
        let below_digest = below.digest();
        Ok(Self { rules, domain, epoch, protocol, below, below_digest, members, set })
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its validators, in the order of their indices.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The last block of the epoch before; the genesis block for epoch 0. Its checkpoint is the cut-off's, and vouched for.
    pub fn below(&self) -> &Block {
        &self.below
    }

    /// Digest of [`Self::below`].
    pub fn below_digest(&self) -> Digest {
        self.below_digest
    }

    /// [`Self::below`] as a verified header: a quorum finalised it, or it is the trust itself.
    pub fn below_header(&self) -> VerifiedHeader {
        VerifiedHeader(self.below.clone())
    }

    /// One epoch on. `verify` is true if every signature given to it is valid; it is asked once, and only about keys of
    /// this epoch's validators.
    pub fn advance(&self, link: &Link, verify: impl FnOnce(&[Check]) -> bool) -> Result<Self, LightError> {
        let Link { block, finalization, next } = link;
        self.check_header(block)?;
        let Boundary { version, .. } = named_by(block, next)?;
        if version < self.protocol.version() {
            return Err(LightError::Version { epoch: self.epoch.next(), version });
        }
        // Cheap checks first: a liar should not make anybody check 128 signatures.
        let grounds = (self.rules, self.domain);
        let after = Self::new(grounds, self.epoch.next(), version, block.clone(), next.clone())?;
        self.check_certificate(block, after.below_digest, finalization, verify)?;
        Ok(after)
    }

    /// The first epoch after a restart that ended this one (E6). Whoever calls this trusts the document: its owners were
    /// weighed, or the volume has pinned it.
    pub fn restart(&self, restart: &Restart) -> Result<Self, LightError> {
        self.check_header(&restart.block)?;
        let Restart { block, epoch, validators, domain, .. } = restart.clone();
        Self::new((self.rules, domain), epoch, self.protocol.version(), block, validators)
    }

    /// Headers of this epoch, in the order given. `verify` as in [`Self::advance`].
    pub fn headers(
        &self,
        headers: &Headers,
        verify: impl FnOnce(&[Check]) -> bool,
    ) -> Result<Vec<VerifiedHeader>, LightError> {
        let Headers { blocks, finalization } = headers;
        let Some(last) = blocks.last().filter(|_| blocks.len() <= HEADERS_MAX) else {
            return Err(LightError::Count(blocks.len()));
        };
        for block in blocks {
            self.check_header(block)?;
        }
        for pair in blocks.windows(2) {
            // Nothing follows the last block of an epoch within it (E2).
            let linked = pair[0].boundary.is_none() && pair[1].parent == pair[0].digest() && pair[1].follows(&pair[0]);
            if !linked {
                return Err(LightError::Unlinked(pair[1].height));
            }
        }
        self.check_certificate(last, last.digest(), finalization, verify)?;
        Ok(blocks.iter().cloned().map(VerifiedHeader).collect())
    }

    fn check_header(&self, block: &Block) -> Result<(), LightError> {
        let height = block.height;
        if block.epoch != self.epoch {
            return Err(LightError::AnotherEpoch { height, found: block.epoch, wanted: self.epoch });
        }
        if !block.is_well_formed(self.rules.cutoff(self.epoch), self.protocol) {
            return Err(LightError::Malformed(height));
        }
        let (before, now) = (self.below.checkpoint, block.checkpoint);
        let first = height == self.below.height.next();
        let above = height > self.below.height
            && block.time_milliseconds >= self.below.time_milliseconds
            && (before == now || before.height < now.height)
            && (!first || (block.parent == self.below_digest && block.follows(&self.below)));
        if above { Ok(()) } else { Err(LightError::NotAbove { height, below: self.below.height }) }
    }

    fn check_certificate(
        &self,
        block: &Block,
        digest: Digest,
        certificate: &Certificate,
        verify: impl FnOnce(&[Check]) -> bool,
    ) -> Result<(), LightError> {
        let vote = certificate.vote;
        if vote.kind != VoteKind::Finalize || vote.digest != digest {
            return Err(LightError::AnotherVote(block.height));
        }
        if !certificate.is_well_formed(self.epoch, &self.set) {
            return Err(LightError::NoQuorum(block.height));
        }
        let message = vote.signed_bytes(self.domain);
        let check = |(signer, signature): &(bizra_simplex::types::ValidatorIndex, Signature)| {
            let member = self.members.get(usize::from(signer.0))?;
            Some((member.key, message.clone(), *signature))
        };
        let checks: Option<Vec<Check>> = certificate.signatures.iter().map(check).collect();
        let checks = checks.ok_or(LightError::NoQuorum(block.height))?;
        if verify(&checks) { Ok(()) } else { Err(LightError::Signature(block.height)) }
    }
}

/// E1: the boundary, if it names exactly these validators.
fn named_by(block: &Block, next: &[Member]) -> Result<Boundary, LightError> {
    let boundary = block.boundary.ok_or(LightError::NotABoundary(block.height))?;
    let epoch = block.epoch.next();
    let found = validators_hash(epoch, next);
    if found == boundary.validators {
        return Ok(boundary);
    }
    Err(LightError::AnotherSet { epoch, height: block.height, found, wanted: boundary.validators })
}

impl Link {
    /// The canonical bytes: version, block, certificate, and the validators as count, then key, power and
    /// reputation of each.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![LINK_VERSION];
        bytes.put_block(&self.block);
        bytes.put_certificate(&self.finalization);
        bytes.extend_from_slice(&(self.next.len() as u16).to_be_bytes());
        for Member { key, power, reputation } in &self.next {
            bytes.extend_from_slice(&key.0);
            bytes.extend_from_slice(&power.0.to_be_bytes());
            bytes.extend_from_slice(&reputation.get().to_be_bytes());
        }
        bytes.into()
    }

    /// Reads the canonical bytes; nothing in them is believed yet.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(LINK_VERSION)?;
        let (block, finalization) = (reader.block()?, reader.certificate()?);
        let count = usize::from(reader.u16()?);
        if count > VALIDATORS_MAX {
            return Err(DecodeError::Bounds("validators of a link"));
        }
        let member = |reader: &mut Reader| {
            let (key, power) = (PublicKey(reader.digest()?.0), Power(reader.u64()?));
            let reputation = Reputation::new(reader.u16()?).ok_or(DecodeError::Bounds("reputation of a validator"))?;
            Ok(Member { key, power, reputation })
        };
        let next = (0..count).map(|_| member(&mut reader)).collect::<Result<_, DecodeError>>()?;
        reader.end()?;
        Ok(Self { block, finalization, next })
    }
}

impl Headers {
    /// The canonical bytes: version, count, blocks, certificate.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![HEADERS_VERSION];
        bytes.extend_from_slice(&(self.blocks.len() as u16).to_be_bytes());
        for block in &self.blocks {
            bytes.put_block(block);
        }
        bytes.put_certificate(&self.finalization);
        bytes.into()
    }

    /// Reads the canonical bytes; nothing in them is believed yet.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version(HEADERS_VERSION)?;
        let count = usize::from(reader.u16()?);
        if count > HEADERS_MAX {
            return Err(DecodeError::Bounds("headers of a proof"));
        }
        let blocks = (0..count).map(|_| reader.block()).collect::<Result<_, _>>()?;
        let finalization = reader.certificate()?;
        reader.end()?;
        Ok(Self { blocks, finalization })
    }
}
