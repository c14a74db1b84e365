//! From the reports of survivors to a document that owners can sign. Needs no volume and no network.

use bizra_driver::RESTART_EPOCHS;
use bizra_proto::ceremony::GenesisValidator;
use bizra_simplex::{Block, Certificate};

use super::document::{DocumentError, RestartDocument, decode_pair};
use super::report::{Report, ReportedFinalize, ReportedVote};

/// A draft, and what its signers should know of it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The document, without signatures.
    pub document: RestartDocument,
    /// Power of the validators that reported, of that of all in the last block's epoch.
    pub reporting: u64,
    /// That of all.
    pub total: u64,
}

/// Why there is no draft.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// No reports.
    #[error("a draft needs the report of every survivor; none is given")]
    None,
    /// Of one of them.
    #[error("the report of {node}: {what}")]
    Report {
        /// The node.
        node: String,
        /// What is wrong.
        what: String,
    },
    /// Nobody can rule out that more was final.
    #[error(
        "{what}: blocks above height {height} may have been final, and clients may hold receipts of them. Find more survivors \
         and draft again; if there are none, give --may-lose-finality, which every owner then signs"
    )]
    MayLoseFinality {
        /// Why.
        what: String,
        /// Height of the best block.
        height: u64,
    },
}

struct Read<'a> {
    report: &'a Report,
    block: Block,
    certificate: Certificate,
}

fn of(report: &Report, what: impl Into<String>) -> DraftError {
    DraftError::Report { node: report.node_name.clone(), what: what.into() }
}

fn read(report: &Report) -> Result<Read<'_>, DraftError> {
    if report.version != Report::VERSION {
        return Err(of(report, format!("version {} is not known here", report.version)));
    }
    let (block, certificate) = decode_pair(&report.block, &report.certificate)
        .map_err(|error: DocumentError| of(report, error.to_string()))?;
    if block.height.0 != report.height {
        return Err(of(report, "its block is not of its height"));
    }
    Ok(Read { report, block, certificate })
}

/// Chooses the block of the highest view of the highest epoch: if a block was final, and honest validators with a third of the
/// power or more report, one of them signed a finalize for it and holds its notarization, and whatever is notarized in a
/// later view descends from it. `may_lose_finality` is the signers' word that they go on without that certainty.
pub fn draft(
    reports: &[Report],
    validators: Vec<GenesisValidator>,
    may_lose_finality: bool,
) -> Result<Draft, DraftError> {
    let read: Vec<Read<'_>> = reports.iter().map(read).collect::<Result<_, _>>()?;
    let rank = |read: &Read<'_>| (read.block.epoch, read.certificate.view(), read.certificate.vote.kind);
    let best = read.iter().max_by_key(|read| rank(read)).ok_or(DraftError::None)?;
    for other in &read {
        agree(best, other)?;
    }
    let mut keys: Vec<&str> = reports.iter().map(|report| report.public_key.as_str()).collect();
    keys.sort_unstable();
    if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        let report = reports.iter().find(|report| report.public_key == twice[0]).unwrap_or(best.report);
        return Err(of(report, "its key reports twice; give one report of each node"));
    }
    let chosen = ReportedVote { epoch: best.block.epoch.0, view: best.certificate.view().0 };
    let power = |reporting: bool| {
        let counted = best.report.validators.iter();
        let counted = counted.filter(|validator| !reporting || keys.contains(&validator.public_key.as_str()));
        counted.fold(0_u64, |sum, validator| sum.saturating_add(validator.power))
    };
    let (reporting, total) = (power(true), power(false));
    // The last block of an epoch may be voted for in several views (PROTOCOL E2).
    let hash = best.block.digest().to_string();
    let above = |vote: &ReportedFinalize| vote.at > chosen && vote.block != hash;
    let voted_above = reports.iter().find(|report| report.latest_finalize.as_ref().is_some_and(above));
    let doubt = if 3 * u128::from(reporting) < u128::from(total) {
        Some(format!("the reports are of validators with {reporting} of a power of {total}, less than a third"))
    } else {
        voted_above.map(|report| {
            format!(
                "{} has signed a finalize above the best block, and its database does not hold it",
                report.node_name
            )
        })
    };
    if let Some(what) = doubt.filter(|_| !may_lose_finality) {
        return Err(DraftError::MayLoseFinality { what, height: best.block.height.0 });
    }
    let latest = reports.iter().filter_map(|report| report.latest_vote).map(|vote| vote.epoch).max();
    let document = RestartDocument {
        version: RestartDocument::VERSION,
        chain_id: best.report.chain_id.clone(),
        genesis_hash: best.report.genesis_hash.clone(),
        number: best.report.restarts.saturating_add(1),
        previous: best.report.previous.clone(),
        height: best.block.height.0,
        block_hash: hash,
        block: best.report.block.clone(),
        certificate: best.report.certificate.clone(),
        state_commitment: best.report.state_commitment.clone(),
        epoch: latest.unwrap_or_default().max(best.block.epoch.0).saturating_add(RESTART_EPOCHS),
        may_lose_finality,
        validators,
        signatures: Vec::new(),
    };
    Ok(Draft { document, reporting, total })
}

/// Refuses reports of two chains.
fn agree(best: &Read<'_>, other: &Read<'_>) -> Result<(), DraftError> {
    let (a, b) = (best.report, other.report);
    if (&a.chain_id, &a.genesis_hash) != (&b.chain_id, &b.genesis_hash) {
        return Err(of(b, format!("it is of another chain than that of {}", a.node_name)));
    }
    if (a.restarts, &a.previous) != (b.restarts, &b.previous) {
        let (here, there) = (b.restarts, a.restarts);
        return Err(of(b, format!("it has pinned {here} restarts, and {} has {there}, or others", a.node_name)));
    }
    // What it holds as final must be below the best block, as far as that one's own report reaches down.
    let above = b.finalized_height.checked_sub(a.finalized_height);
    let Some(above) = above.and_then(|above| usize::try_from(above).ok()) else { return Ok(()) };
    let there = match above.checked_sub(1) {
        None => Some(&a.finalized_hash),
        Some(index) => a.above.get(index),
    };
    if there != Some(&b.finalized_hash) {
        let height = b.finalized_height;
        return Err(of(
            b,
            format!("its final block at height {height} is not below the best block, of {}", a.node_name),
        ));
    }
    if a.height == b.height && a.block == b.block && a.state_commitment != b.state_commitment {
        return Err(of(b, format!("it computes another state after block {} than {}", a.height, a.node_name)));
    }
    Ok(())
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
