//! What a survivor says of itself, as a file.

use bizra_simplex::types::{Digest, Epoch, View};
use serde::{Deserialize, Serialize};

use super::RecoveryError;
use super::document::{encode_block, encode_certificate};
use super::survey::{Volume, highest_finalize};
use crate::configuration::Configuration;

/// The report of one survivor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Format version; 1.
    pub version: u32,
    /// Name of the chain.
    pub chain_id: String,
    /// Hash of its genesis.
    pub genesis_hash: String,
    /// Restarts that this node has pinned.
    pub restarts: u64,
    /// Hash of the last of them; the genesis hash without one.
    pub previous: String,
    /// Name of the node.
    pub node_name: String,
    /// Its consensus key.
    pub public_key: String,
    /// Height of its last finalised block.
    pub finalized_height: u64,
    /// That block's hash.
    pub finalized_hash: String,
    /// Hashes of the blocks above, ascending; the last is the best one.
    pub above: Vec<String>,
    /// Height of the best block: notarized or final in the highest view, with every body at hand.
    pub height: u64,
    /// It, encoded.
    pub block: String,
    /// Its certificate, encoded.
    pub certificate: String,
    /// Commitment to the state after it.
    pub state_commitment: String,
    /// The latest moment with a recorded vote of this key.
    pub latest_vote: Option<ReportedVote>,
    /// The latest finalize vote that the record holds.
    pub latest_finalize: Option<ReportedFinalize>,
    /// The validators of the best block's epoch: whose owners decide.
    pub validators: Vec<ReportedValidator>,
}

/// When this key voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportedVote {
    /// Epoch.
    pub epoch: u64,
    /// View of that epoch.
    pub view: u64,
}

/// A finalize vote of this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportedFinalize {
    /// When.
    pub at: ReportedVote,
    /// Hash of the block.
    pub block: String,
}

/// A validator of the last set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportedValidator {
    /// Its owner.
    pub owner: String,
    /// Name of its node.
    pub name: String,
    /// Its consensus key.
    pub public_key: String,
    /// Its power.
    pub power: u64,
}

impl Report {
    /// The format version that is written.
    pub const VERSION: u32 = 1;
}

fn reported((epoch, view): (Epoch, View)) -> ReportedVote {
    ReportedVote { epoch: epoch.0, view: view.0 }
}

/// Reports of a stopped node. Writes nothing, and signs nothing.
pub fn report(configuration: &Configuration) -> Result<Report, RecoveryError> {
    let volume = Volume::open(configuration)?;
    let no_chain = || RecoveryError::NoChain(configuration.data_dir.display().to_string());
    if let Some((_, blocks)) = volume.blocks()? {
        volume.pinned.check_blocks(&blocks)?;
    }
    let record = volume.record(configuration)?;
    let survey = volume.survey(None)?.ok_or_else(no_chain)?;
    let hex = |digest: Digest| digest.to_string();
    Ok(Report {
        version: Report::VERSION,
        chain_id: volume.genesis.genesis.chain_id.clone(),
        genesis_hash: hex(volume.genesis.hash),
        restarts: volume.pinned.count(),
        previous: hex(volume.pinned.domain()),
        node_name: configuration.node_name.clone(),
        public_key: hex::encode(volume.public_key),
        finalized_height: survey.finalized.height().0,
        finalized_hash: hex(survey.finalized.digest),
        above: survey.above.iter().map(|block| hex(block.digest())).collect(),
        height: survey.best.height.0,
        block: encode_block(&survey.best),
        certificate: encode_certificate(&survey.certificate),
        state_commitment: hex(survey.ledger.state_commitment()?),
        latest_vote: record.as_ref().map(|record| reported(record.latest())),
        latest_finalize: record
            .as_ref()
            .and_then(highest_finalize)
            .map(|vote| ReportedFinalize { at: reported((vote.epoch, vote.view)), block: hex(vote.digest) }),
        validators: survey
            .set
            .members
            .iter()
            .map(|member| ReportedValidator {
                owner: member.owner.to_string(),
                name: member.name.clone(),
                public_key: hex::encode(member.consensus_key),
                power: member.power,
            })
            .collect(),
    })
}
