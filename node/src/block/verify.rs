//! Checks a whole chain on disk: every hash, certificate, signature and body.

use bizra_driver::batch::Batch;
use bizra_simplex::types::{Digest, Height, ValidatorIndex};
use bizra_simplex::{Certificate, ValidatorSet, VoteKind};
use ed25519_zebra::{Signature, VerificationKey};

use super::store::{BlockStore, StoredBlock};
use crate::configuration::LoadedGenesis;
use crate::gateway::BlockReader as _;
use crate::storage::StorageError;
use crate::transaction::{ChainId, PayloadVerifier};

/// Payloads checked at one time; their signatures are verified together.
const PAYLOADS_AT_ONCE: usize = 16;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Finalised blocks above the genesis.
    pub blocks: u64,
    /// Certificates, with every signature.
    pub certificates: u64,
    /// Batches, with the origin's signature and every transaction's.
    pub batches: u64,
}

/// The first thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A value cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A block is not what the chain says it is.
    #[error("block {height}: {what}")]
    Block {
        /// Its height.
        height: Height,
        /// What is wrong.
        what: String,
    },
    /// The validators of the genesis do not form a set.
    #[error("the genesis has no valid validator set")]
    Validators,
}

/// Walks the chain from the genesis to the last finalised block.
pub fn verify_chain(store: &BlockStore, genesis: &LoadedGenesis) -> Result<ChainReport, VerifyError> {
    let chain = ChainId::new(&genesis.genesis.chain_id).ok_or(VerifyError::Validators)?;
    let mut payloads = PayloadVerifier::new(chain);
    let powers = genesis.validators.iter().map(|member| member.power).collect();
    let validators = ValidatorSet::new(powers).map_err(|_| VerifyError::Validators)?;
    let keys: Vec<VerificationKey> = genesis
        .validators
        .iter()
        .map(|member| VerificationKey::try_from(member.public_key).map_err(|_| VerifyError::Validators))
        .collect::<Result<_, _>>()?;
    let (top, _) = store.finalized();
    let mut report = ChainReport::default();
    let mut parent = store.get(Height(0))?.map(|stored| stored.block.digest()).unwrap_or_default();
    let mut uncertified = 0_u64;
    let mut waiting: Vec<(Height, Batch)> = Vec::new();
    for height in 1..=top.0 {
        let height = Height(height);
        let wrong = |what: String| VerifyError::Block { height, what };
        let StoredBlock { block, .. } = store.get(height)?.ok_or_else(|| wrong("it is missing".to_owned()))?;
        if block.height != height || block.parent != parent {
            return Err(wrong("it does not follow the block below".to_owned()));
        }
        parent = block.digest();
        if store.height_of(parent)? != Some(height) {
            return Err(wrong("its digest is not indexed under its height".to_owned()));
        }
        report.blocks += 1;
        uncertified += 1;
        if let Some(certificate) = store.finalization(height)? {
            check_certificate(&certificate, parent, &validators, &keys, genesis.hash).map_err(wrong)?;
            report.certificates += 1;
            uncertified = 0;
        }
        for digest in block.batches {
            let batch = store.batch(digest)?.ok_or_else(|| wrong(format!("its batch {digest} is missing")))?;
            if batch.digest(genesis.hash) != digest {
                return Err(wrong(format!("its batch {digest} is another one")));
            }
            let key = keys.get(usize::from(batch.origin.0));
            let signed = key.is_some_and(|key| key.verify(&Signature::from(batch.signature.0), &digest.0).is_ok());
            if !signed {
                return Err(wrong(format!("its batch {digest} is not signed by its origin")));
            }
            waiting.push((height, batch));
        }
        if waiting.len() >= PAYLOADS_AT_ONCE {
            report.batches += check_payloads(&mut payloads, &mut waiting)?;
        }
    }
    report.batches += check_payloads(&mut payloads, &mut waiting)?;
    if uncertified > 0 {
        return Err(VerifyError::Block {
            height: top,
            what: "no certificate finalises the end of the chain".to_owned(),
        });
    }
    Ok(report)
}

fn check_payloads(verifier: &mut PayloadVerifier, waiting: &mut Vec<(Height, Batch)>) -> Result<u64, VerifyError> {
    let batches = std::mem::take(waiting);
    let payloads: Vec<_> = batches.iter().map(|(_, batch)| batch.payload.clone()).collect();
    for ((height, _), verdict) in batches.iter().zip(verifier.verify(&payloads)) {
        verdict.map_err(|error| VerifyError::Block { height: *height, what: error.to_string() })?;
    }
    Ok(payloads.len() as u64)
}

fn check_certificate(
    certificate: &Certificate,
    block: Digest,
    validators: &ValidatorSet,
    keys: &[VerificationKey],
    genesis_hash: Digest,
) -> Result<(), String> {
    if certificate.vote.kind != VoteKind::Finalize || certificate.vote.digest != block {
        return Err("its certificate finalises another block".to_owned());
    }
    if !certificate.is_well_formed(certificate.vote.epoch, validators) {
        return Err("its certificate carries no quorum".to_owned());
    }
    let message = certificate.vote.signed_bytes(genesis_hash);
    let valid = |signer: ValidatorIndex, signature: [u8; 64]| {
        let key = keys.get(usize::from(signer.0));
        key.is_some_and(|key| key.verify(&Signature::from(signature), &message).is_ok())
    };
    match certificate.signatures.iter().find(|(signer, signature)| !valid(*signer, signature.0)) {
        Some((signer, _)) => Err(format!("the signature of validator {signer} on its certificate is not valid")),
        None => Ok(()),
    }
}
