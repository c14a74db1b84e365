//! Applying a document to a node's volume. The order is what makes it safe: everything is checked first; then the signing
//! record's floor goes up, durably, and this key can never again help the epoch that ended; then the document is pinned.
//! A crash between two steps leaves a node that signs nothing, and the same command goes on from there. The ledger's part
//! is not done here: it belongs to the first block after the restart, see [`crate::blockchain::LedgerRestart`].

use bizra_driver::signing_record::SigningRecord;
use bizra_simplex::ValidatorSet;
use bizra_simplex::types::{Epoch, Power, View};

use super::RecoveryError;
use super::document::{CheckedRestart, RestartDocument};
use super::survey::{Volume, highest_finalize};
use crate::configuration::Configuration;
use crate::consensus::{ConsensusError, NodeKeys, binding, open_record};
use crate::validator::ValidatorSetRecord;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Everything was checked against this node's own chain.
    Confirmed,
    /// The node holds no chain that reaches the restart: it checks signatures and state when it comes there, before its
    /// first vote, and stops if they are not right.
    Unconfirmed,
    /// The same document was pinned before.
    Before,
    /// The same document was pinned before, and owners have signed since.
    Signed,
}

/// Applies a document to a stopped node. Doing it again does no harm.
pub fn apply(configuration: &Configuration, document: RestartDocument) -> Result<Applied, RecoveryError> {
    let mut volume = Volume::open(configuration)?;
    volume.signer.pin_genesis(volume.genesis.hash)?;
    let restart = document.check(&volume.genesis)?;
    let number = restart.document.number;
    if let Some(known) = volume.pinned.get(number) {
        if known.hash != restart.hash {
            let (pinned, given) = (known.hash.to_string(), restart.hash.to_string());
            return Err(RecoveryError::AnotherPinned { number, pinned, given });
        }
        if restart.ledger.signers.is_subset(&known.ledger.signers) {
            return Ok(Applied::Before);
        }
        // A volume that could not weigh them may have pinned it with too few.
        let joined = known.clone().join(restart);
        volume.signer.pin_restart(number, &joined.document.to_file())?;
        return Ok(Applied::Signed);
    }
    if number != volume.pinned.count() + 1 {
        return Err(RecoveryError::OutOfOrder { given: number, pinned: volume.pinned.count() });
    }
    restart.follows(volume.pinned.last(), volume.genesis.hash)?;
    check_record(volume.record(configuration)?.as_ref(), &restart)?;
    let applied = confirm(&volume, &restart)?;
    raise_floor(configuration, restart.consensus.epoch)?;
    let file = restart.document.to_file();
    volume.pinned.push(restart)?;
    volume.signer.pin_restart(number, &file)?;
    Ok(applied)
}

/// What this key has signed must be before the restart, and not above its block.
fn check_record(record: Option<&SigningRecord>, restart: &CheckedRestart) -> Result<(), RecoveryError> {
    let Some(record) = record else { return Ok(()) };
    let (epoch, view) = record.latest();
    // Exactly this floor an interrupted attempt has left.
    if (epoch, view) != (restart.consensus.epoch, View(0)) && epoch >= restart.consensus.epoch {
        return Err(RecoveryError::Contradicts(format!(
            "this key has signed in epoch {epoch}, and the document begins epoch {}: draft it again with the report of this node",
            restart.consensus.epoch
        )));
    }
    let (chosen, block) = ((restart.consensus.block.epoch, restart.consensus.certificate.view()), restart.ledger.block);
    if let Some(vote) = highest_finalize(record).filter(|vote| (vote.epoch, vote.view) > chosen && vote.digest != block)
        && !restart.document.may_lose_finality
    {
        return Err(RecoveryError::Contradicts(format!(
            "this key has signed a finalize in view {} of epoch {}, above the document's block: that one may be final; draft it \
             again with the report of this node",
            vote.view, vote.epoch
        )));
    }
    Ok(())
}

/// Compares the document with this node's chain, as far as that reaches.
fn confirm(volume: &Volume, restart: &CheckedRestart) -> Result<Applied, RecoveryError> {
    let Some((_, blocks)) = volume.blocks()? else { return Ok(Applied::Unconfirmed) };
    let mut pinned = volume.pinned.clone();
    pinned.check_blocks(&blocks)?;
    pinned.push(restart.clone())?;
    pinned.check_blocks(&blocks)?;
    drop(blocks);
    let last = &restart.consensus.block;
    let Some(survey) = volume.survey(Some(last.digest()))? else { return Ok(Applied::Unconfirmed) };
    // Behind, it may know the validators all the same.
    let Some(set) = survey.ledger.validators_of_epoch(last.epoch.0) else { return Ok(Applied::Unconfirmed) };
    restart.ledger.weigh(&set)?;
    check_certificate(volume, restart, &set)?;
    if survey.best != *last {
        return Ok(Applied::Unconfirmed);
    }
    survey.ledger.confirm(&restart.ledger)?;
    Ok(Applied::Confirmed)
}

fn check_certificate(volume: &Volume, restart: &CheckedRestart, set: &ValidatorSetRecord) -> Result<(), RecoveryError> {
    let certificate = &restart.consensus.certificate;
    let (epoch, voters) = (restart.consensus.block.epoch, set.voters());
    let wrong = |what: &str| Err(RecoveryError::Contradicts(format!("the document's certificate {what}")));
    let Ok(powers) = ValidatorSet::new(set.members.iter().map(|member| Power(member.power)).collect()) else {
        return wrong("is of validators that are no set");
    };
    if !certificate.is_well_formed(epoch, &powers) {
        return wrong("carries no quorum");
    }
    let domain = volume.pinned.consensus().domain(volume.genesis.hash, epoch);
    let message = certificate.vote.signed_bytes(domain);
    let check = |(signer, signature): &(bizra_simplex::types::ValidatorIndex, _)| {
        Some((voters.get(usize::from(signer.0))?.key, message.clone(), *signature))
    };
    let checks: Option<Vec<_>> = certificate.signatures.iter().map(check).collect();
    if !checks.is_some_and(|checks| NodeKeys::are_valid(&checks)) {
        return wrong("holds a signature that is not valid");
    }
    Ok(())
}

/// Makes it impossible for this key to sign anything before this epoch, durably; the first step of [`apply`] that changes
/// something.
pub fn raise_floor(configuration: &Configuration, epoch: Epoch) -> Result<(), RecoveryError> {
    let volume = Volume::open(configuration)?;
    let binding = binding(volume.genesis.hash, &configuration.volume_id, volume.public_key);
    let (file, mut record) = open_record(&volume.signer, &binding)?;
    // Written again even if it reads as raised: what is read may not be durable.
    file.write(&record.raise_floor((epoch, View(0)))).map_err(ConsensusError::from)?;
    Ok(())
}
