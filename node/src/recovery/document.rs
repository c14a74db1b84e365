//! The document of a restart: what owners sign.
//!
//! Its hash is SHA-256 over a domain and the canonical bytes of everything but the signatures, the hash of the document
//! before among them (the genesis hash for the first). That hash is what owners sign, and what takes the place of the
//! genesis hash in every vote and in every connection from then on: two documents never mix.

use std::collections::BTreeSet;

use bizra_driver::codec::{Reader, Write as _};
use bizra_driver::{RESTART_EPOCHS, Restart};
use bizra_proto::ceremony::{CeremonyError, Genesis, GenesisValidator, decode_hex, is_node_name};
use bizra_simplex::types::{Digest, Epoch};
use bizra_simplex::{Block, Certificate, VoteKind};
use ed25519_zebra::{Signature, SigningKey, VerificationKey, VerificationKeyBytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::blockchain::LedgerRestart;
use crate::configuration::LoadedGenesis;
use crate::transaction::Address;
use crate::validator::{Conduct, Member};

const DOCUMENT_DOMAIN: &[u8] = b"bizra/v1/restart\0";
const SIGNATURE_DOMAIN: &[u8] = b"bizra/v1/restart-owner\0";
const VERSION: u32 = 1;

/// A document's epoch may be this far above its block's: more would be a mistake, and leave too few numbers.
const EPOCHS_AHEAD_MAX: u64 = 1 << 20;

/// Owners that may sign one document, the validators of one epoch.
const SIGNATURES_MAX: usize = bizra_simplex::VALIDATORS_MAX;

/// The document, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartDocument {
    /// Format version; 1.
    pub version: u32,
    /// Name of the chain.
    pub chain_id: String,
    /// Hash of its genesis, lower-case hex.
    pub genesis_hash: String,
    /// The first restart of a chain is 1.
    pub number: u64,
    /// Hash of the document before; the genesis hash for the first.
    pub previous: String,
    /// Height of the last block before the restart.
    pub height: u64,
    /// Its hash.
    pub block_hash: String,
    /// The block, encoded; lower-case hex.
    pub block: String,
    /// Its notarization or finalization, encoded; lower-case hex.
    pub certificate: String,
    /// Commitment to the state after the block.
    pub state_commitment: String,
    /// The epoch that begins.
    pub epoch: u64,
    /// True if blocks above may have been final: too few survivors reported to rule it out.
    pub may_lose_finality: bool,
    /// Validators of that epoch, in the order of their indices; each with its owner.
    pub validators: Vec<GenesisValidator>,
    /// What owners have signed.
    #[serde(default)]
    pub signatures: Vec<OwnerSignature>,
}

/// One owner's signature over the document's hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnerSignature {
    /// Account of the owner, lower-case hex.
    pub owner: String,
    /// Ed25519, lower-case hex.
    pub signature: String,
}

/// What can be wrong with a document by itself.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the expected shape.
    #[error("it is not a restart document of version {VERSION}: {0}")]
    Malformed(String),
    /// A field.
    #[error("the document's {field} {what}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong.
        what: String,
    },
    /// A validator.
    #[error("the document's validators: {0}")]
    Validators(#[from] CeremonyError),
    /// A signature that is not valid, given twice, or one too many.
    #[error("the signature of owner {owner} {what}")]
    Signature {
        /// The owner.
        owner: String,
        /// What is wrong.
        what: &'static str,
    },
    /// It does not come after the one before.
    #[error("the document cannot follow restart {number}: {what}")]
    Sequence {
        /// Number of the one before.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A document that is right by itself: form, validators with proofs of their keys, and every signature that is there. Whether
/// enough have signed, and whether block and state are the chain's, only the chain's own state can say.
#[derive(Clone, Debug)]
pub struct CheckedRestart {
    /// The document.
    pub document: RestartDocument,
    /// Its hash.
    pub hash: Digest,
    /// Hash of the one before.
    pub previous: Digest,
    /// For consensus.
    pub consensus: Restart,
    /// For the ledger.
    pub ledger: LedgerRestart,
}

fn field(field: &'static str, what: impl Into<String>) -> DocumentError {
    DocumentError::Field { field, what: what.into() }
}

fn hash_of(name: &'static str, text: &str) -> Result<Digest, DocumentError> {
    decode_hex(text).map(Digest).ok_or_else(|| field(name, "is not 64 lower-case hex digits"))
}

/// Reads what was encoded, all of it.
fn decode<T>(
    name: &'static str,
    text: &str,
    read: impl Fn(&mut Reader) -> Result<T, bizra_driver::codec::DecodeError>,
) -> Result<T, DocumentError> {
    let bytes = hex::decode(text).map_err(|error| field(name, format!("is not hex: {error}")))?;
    let mut reader = Reader::new(bytes.into());
    let value = read(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| field(name, format!("does not decode: {error}")))
}

/// Hex of an encoded block.
pub(super) fn encode_block(block: &Block) -> String {
    let mut bytes = Vec::new();
    bytes.put_block(block);
    hex::encode(bytes)
}

/// Hex of an encoded certificate.
pub(super) fn encode_certificate(certificate: &Certificate) -> String {
    let mut bytes = Vec::new();
    bytes.put_certificate(certificate);
    hex::encode(bytes)
}

/// The block and its certificate behind their hex: of one another, and such as makes a block final or nearly so.
pub(super) fn decode_pair(block: &str, certificate: &str) -> Result<(Block, Certificate), DocumentError> {
    let block = decode("block", block, Reader::block)?;
    let certificate = decode("certificate", certificate, Reader::certificate)?;
    let vote = certificate.vote;
    if vote.digest != block.digest() || vote.epoch != block.epoch {
        return Err(field("certificate", "is about another block"));
    }
    if !matches!(vote.kind, VoteKind::Notarize | VoteKind::Finalize) {
        return Err(field("certificate", "is no notarization and no finalization"));
    }
    Ok((block, certificate))
}

fn signed_message(hash: Digest) -> Vec<u8> {
    [SIGNATURE_DOMAIN, &hash.0].concat()
}

impl RestartDocument {
    /// The format version that is written.
    pub const VERSION: u32 = VERSION;

    /// Reads a document; nothing in it is believed yet.
    pub fn parse(file: &[u8]) -> Result<Self, DocumentError> {
        serde_json::from_slice(file).map_err(|error| DocumentError::Malformed(error.to_string()))
    }

    /// As it is written to files.
    pub fn to_file(&self) -> Vec<u8> {
        // Strings and numbers only: it cannot fail.
        let mut file = serde_json::to_vec_pretty(self).unwrap_or_default();
        file.push(b'\n');
        file
    }

    /// Checks everything that the document can say of itself.
    pub fn check(self, genesis: &LoadedGenesis) -> Result<CheckedRestart, DocumentError> {
        if self.version != VERSION {
            return Err(field("version", format!("is {}; this build reads {VERSION}", self.version)));
        }
        if self.chain_id != genesis.genesis.chain_id || hash_of("genesisHash", &self.genesis_hash)? != genesis.hash {
            return Err(field("genesisHash", format!("is of chain {}, not of this one", self.chain_id)));
        }
        let previous = hash_of("previous", &self.previous)?;
        if self.number == 0 || (self.number == 1 && previous != genesis.hash) {
            return Err(field("previous", "must be the genesis hash in restart 1, the first"));
        }
        let (block, certificate) = decode_pair(&self.block, &self.certificate)?;
        let block_hash = block.digest();
        if (block.height.0, block_hash) != (self.height, hash_of("blockHash", &self.block_hash)?) {
            return Err(field("block", "is not the one of its height and hash"));
        }
        let epochs = self.epoch.saturating_sub(block.epoch.0);
        if !(RESTART_EPOCHS..=EPOCHS_AHEAD_MAX).contains(&epochs) {
            return Err(field("epoch", format!("must be {RESTART_EPOCHS} to {EPOCHS_AHEAD_MAX} above the block's")));
        }
        let state = hash_of("stateCommitment", &self.state_commitment)?;
        let members = self.members(genesis)?;
        let hash = self.hash(previous, &block, &certificate, state, &members)?;
        let signers = self.signers(hash)?;
        let epoch = Epoch(self.epoch);
        let ledger = LedgerRestart {
            number: self.number,
            height: self.height,
            block: block_hash,
            block_epoch: block.epoch.0,
            state,
            epoch: self.epoch,
            members,
            signers,
            domain: hash,
        };
        let validators = ledger.set(0).voters();
        let consensus = Restart { block, certificate, epoch, validators, domain: hash };
        Ok(CheckedRestart { document: self, hash, previous, consensus, ledger })
    }

    /// The validators, checked as a genesis checks its own.
    fn members(&self, genesis: &LoadedGenesis) -> Result<Vec<Member>, DocumentError> {
        let as_genesis =
            Genesis { validators: self.validators.clone(), accounts: Vec::new(), ..genesis.genesis.clone() };
        as_genesis.check()?;
        let member = |validator: &GenesisValidator| {
            let consensus_key = decode_hex(&validator.public_key)?;
            // Whoever owned none could never be asked again.
            let owner = Address(decode_hex(validator.owner.as_deref()?)?);
            let name = Some(&validator.name).filter(|name| is_node_name(name))?.clone();
            Some(Member { owner, name, consensus_key, power: validator.power()?, conduct: Conduct::default() })
        };
        let wrong = |name: &str| field("validators", format!("name {name:?} without an owner, or not as a DNS label"));
        self.validators.iter().map(|validator| member(validator).ok_or_else(|| wrong(&validator.name))).collect()
    }

    /// SHA-256 over a domain and the canonical bytes: fixed widths, big-endian, everything of variable length after its length.
    fn hash(
        &self,
        previous: Digest,
        block: &Block,
        certificate: &Certificate,
        state: Digest,
        members: &[Member],
    ) -> Result<Digest, DocumentError> {
        let mut bytes = DOCUMENT_DOMAIN.to_vec();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        let mut encoded = Vec::new();
        put(self.chain_id.as_bytes());
        put(&hash_of("genesisHash", &self.genesis_hash)?.0);
        put(&self.number.to_be_bytes());
        put(&previous.0);
        encoded.put_block(block);
        put(&encoded);
        encoded.clear();
        encoded.put_certificate(certificate);
        put(&encoded);
        put(&state.0);
        put(&self.epoch.to_be_bytes());
        put(&[u8::from(self.may_lose_finality)]);
        put(&(members.len() as u64).to_be_bytes());
        for (member, validator) in members.iter().zip(&self.validators) {
            put(&member.owner.0);
            put(member.name.as_bytes());
            put(&member.consensus_key);
            put(&member.power.to_be_bytes());
            let proof = decode_hex::<64>(&validator.proof_of_possession);
            put(&proof.ok_or_else(|| field("validators", "hold a proof that is no signature"))?);
        }
        Ok(Digest(Sha256::digest(&bytes).into()))
    }

    fn signers(&self, hash: Digest) -> Result<BTreeSet<Address>, DocumentError> {
        let mut signers = BTreeSet::new();
        for OwnerSignature { owner, signature } in &self.signatures {
            let wrong = |what| DocumentError::Signature { owner: owner.clone(), what };
            let account = decode_hex::<32>(owner).ok_or_else(|| wrong("names no account"))?;
            let signature = decode_hex::<64>(signature).ok_or_else(|| wrong("is not 128 lower-case hex digits"))?;
            let key = VerificationKey::try_from(account).map_err(|_| wrong("is of an account that is no key"))?;
            key.verify(&Signature::from(signature), &signed_message(hash))
                .map_err(|_| wrong("is not valid for this document"))?;
            if !signers.insert(Address(account)) {
                return Err(wrong("is given twice"));
            }
        }
        if signers.len() > SIGNATURES_MAX {
            return Err(field("signatures", format!("are more than {SIGNATURES_MAX}")));
        }
        Ok(signers)
    }
}

impl CheckedRestart {
    /// Adds the signature of an owner; replaces an earlier one of the same.
    #[must_use]
    pub fn sign(mut self, key: &SigningKey) -> Self {
        let account: [u8; 32] = VerificationKeyBytes::from(key).into();
        let owner = hex::encode(account);
        let signature = hex::encode(key.sign(&signed_message(self.hash)).to_bytes());
        self.document.signatures.retain(|signed| signed.owner != owner);
        self.document.signatures.push(OwnerSignature { owner, signature });
        self.ledger.signers.insert(Address(account));
        self
    }

    /// Adds the signatures of another copy of this document.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        if other.hash == self.hash {
            let known = &self.ledger.signers;
            let new = |signed: &OwnerSignature| {
                decode_hex(&signed.owner).is_some_and(|account| !known.contains(&Address(account)))
            };
            self.document.signatures.extend(other.document.signatures.into_iter().filter(new));
            self.ledger.signers.extend(other.ledger.signers);
        }
        self
    }

    /// Checks that it may come directly after `before`, or after the genesis.
    pub fn follows(&self, before: Option<&Self>, genesis_hash: Digest) -> Result<(), DocumentError> {
        let number = before.map_or(0, |before| before.document.number);
        let wrong = |what| Err(DocumentError::Sequence { number, what });
        if self.document.number != number + 1 {
            return wrong("its number is not the next");
        }
        if self.previous != before.map_or(genesis_hash, |before| before.hash) {
            return wrong("it names another document before it");
        }
        let Some(before) = before else { return Ok(()) };
        let (last, block) = (&before.consensus, &self.consensus.block);
        // Either the chain went on after the restart before, or nothing of that was ever final.
        let again = block.digest() == last.block.digest();
        if !again && (block.epoch < last.epoch || block.height <= last.block.height) {
            return wrong("its block is not above the one of that restart");
        }
        if self.consensus.epoch.0 < last.epoch.0.saturating_add(RESTART_EPOCHS) {
            return wrong("its epoch is too near to the one of that restart");
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
