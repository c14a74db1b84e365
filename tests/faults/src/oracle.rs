//! What must hold after every fault, and at the end. Reads files of stopped validators with code of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use bizra_simplex::types::{Digest, Epoch, Signature, ValidatorIndex, View};
use bizra_simplex::{SignedVote, Vote, VoteKind};

use crate::campaign::Campaign;
use crate::database::RawDatabase;
use crate::record::{PlainVote, Remembered};
use crate::scene::Scene;
use crate::{FaultError, VALIDATORS};

/// How long accounts may wait for their last receipt, and validators for each other.
const SETTLE: Duration = Duration::from_secs(90);

/// What was checked of stopped validators, and how far their own databases were behind what they had said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) votes: u64,
    pub(crate) receipts: u64,
    pub(crate) blocks: u64,
    /// Receipts that a validator had given and its own disk did not hold after a power cut. The network must bring each
    /// of them back, with the same height.
    pub(crate) receipts_behind: u64,
    /// Power cuts after which a validator's last announced block was not on its own disk. As above.
    pub(crate) blocks_behind: u64,
}

/// How a validator died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Its process: everything written is still there.
    Kill,
    /// Its machine: what was not synced is gone.
    PowerCut,
}

/// Checks one validator that is down: every vote that was seen up to `died` is in its signing record or below the
/// record's floor, and so for what it said is final since `receipts_from`.
pub(crate) fn check_dead(
    scene: &Scene,
    node: usize,
    death: Death,
    died: Instant,
    receipts_from: usize,
    checked: &mut Checked,
    campaign: &mut Campaign,
) -> Result<(), FaultError> {
    let files = &scene.layout.nodes[node];
    let remembered = Remembered::read(&files.record())?;
    let seen = scene.watcher.votes_of(node, died, remembered.floor);
    checked.votes += seen.len() as u64;
    let mut lost = seen.iter().filter(|vote| !remembered.covers(vote));
    if let Some(vote) = lost.next() {
        let more = lost.count();
        campaign.found(format!(
            "v{node} after {death:?}: a vote was sent and is not recorded: {} ({more} more)",
            say(vote)
        ));
    }
    let database = match RawDatabase::open(&files.database()) {
        Ok(database) => database,
        Err(error) => {
            campaign.found(format!("v{node} after {death:?}: its database cannot be read: {error}"));
            return Ok(());
        }
    };
    if let Some(block) = scene.last_said(node, died) {
        checked.blocks += 1;
        // The genesis has no entry.
        if block.height > 0 && database.height_of(&block.hash)? != Some(block.height) {
            match death {
                Death::PowerCut => checked.blocks_behind += 1,
                Death::Kill => campaign.found(format!("v{node}: block {} was announced and is gone", block.height)),
            }
        }
    }
    let said = scene.traffic.acknowledged(receipts_from);
    for receipt in said.iter().filter(|receipt| receipt.node == node && receipt.at <= died) {
        checked.receipts += 1;
        match database.receipt(&receipt.id)? {
            Some(height) if height == receipt.height => {}
            None if death == Death::PowerCut => checked.receipts_behind += 1,
            other => {
                let id = hex::encode(receipt.id);
                campaign.found(format!("v{node}: {id} was final at height {}, now {other:?}", receipt.height));
            }
        }
    }
    Ok(())
}

fn say((epoch, view, kind, digest): &PlainVote) -> String {
    format!("kind {kind}, epoch {epoch}, view {view}, {}", hex::encode(digest))
}

/// What the end of a part showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) height: u64,
    pub(crate) receipts: u64,
    pub(crate) blocks: u64,
    pub(crate) votes: u64,
}

/// Ends the load, waits until all validators are equally far, stops them, and compares everything that anybody was told
/// with every disk.
pub(crate) fn settle(scene: &mut Scene, campaign: &mut Campaign) -> Result<Settled, FaultError> {
    if !scene.traffic.finish(SETTLE) {
        campaign.found(format!("accounts wait for a receipt {} s after the last fault", SETTLE.as_secs()));
    }
    let heights = |scene: &Scene| -> Vec<u64> {
        let height = |node: &crate::node::Node| node.get("/v1/chain")?["finalizedHeight"].as_u64();
        scene.nodes.iter().map(|node| height(node).unwrap_or_default()).collect()
    };
    let target = heights(scene).into_iter().max().unwrap_or_default() + 2;
    let deadline = Instant::now() + SETTLE;
    while heights(scene).into_iter().any(|height| height < target) {
        campaign.pause(Duration::from_millis(100))?;
        if Instant::now() > deadline {
            campaign.found(format!("height {target} was not reached by all: {:?}", heights(scene)));
            break;
        }
    }
    for (index, node) in scene.nodes.iter().enumerate() {
        if let Some(pairs) = node.metric("bizra_consensus_evidence_total").filter(|pairs| *pairs > 0.0) {
            campaign.found(format!("v{index} counted {pairs} pairs of contradicting votes"));
        }
    }
    for node in &mut scene.nodes {
        if !node.stop() {
            campaign.found(format!("{} did not stop cleanly", node.name()));
        }
    }
    let settled = compare(scene, campaign)?;
    let found = [scene.watcher.conflicts(), scene.contradictions(), scene.traffic.contradictions()].concat();
    for what in found {
        campaign.found(what);
    }
    for files in &scene.layout.nodes {
        let verify = Command::new(&campaign.options.node)
            .args(["verify", "--data-dir"])
            .arg(&files.configuration.data_dir)
            .arg("--genesis")
            .arg(&scene.layout.genesis_file)
            .output()
            .map_err(|error| FaultError::Io("bizra-node verify".to_owned(), error))?;
        if !verify.status.success() {
            let words = String::from_utf8_lossy(&verify.stderr).trim().to_owned();
            campaign.found(format!("{}: `bizra-node verify` refuses: {words}", files.configuration.node_name));
        }
    }
    Ok(settled)
}

/// Compares the databases of stopped validators with each other and with what anybody was told.
fn compare(scene: &Scene, campaign: &mut Campaign) -> Result<Settled, FaultError> {
    let databases: Vec<RawDatabase> =
        scene.layout.nodes.iter().map(|files| RawDatabase::open(&files.database())).collect::<Result<_, _>>()?;
    let heights: Vec<u64> = databases.iter().map(RawDatabase::last_height).collect::<Result<_, _>>()?;
    let height = heights.into_iter().min().unwrap_or_default();
    let mut settled = Settled { height, ..Settled::default() };
    for height in 1..=height {
        let blocks: Vec<_> = databases.iter().map(|database| database.block(height)).collect::<Result<_, _>>()?;
        if blocks.iter().any(|block| block.is_none() || *block != blocks[0]) {
            campaign.found(format!("height {height} is not the same on all validators"));
        }
        for database in &databases {
            let votes = database.finalization(height)?;
            scene
                .watcher
                .note(votes.into_iter().filter_map(|(signer, vote, signature)| signed(signer, vote, signature)));
        }
    }
    for (said, hash) in scene.said().into_iter().filter(|(said, _)| (1..=height).contains(said)) {
        settled.blocks += 1;
        for (index, database) in databases.iter().enumerate() {
            if database.height_of(&hash)? != Some(said) {
                campaign.found(format!("block {said} was announced as {} and v{index} has another", hex::encode(hash)));
            }
        }
    }
    for receipt in scene.traffic.acknowledged(0) {
        settled.receipts += 1;
        for (index, database) in databases.iter().enumerate() {
            let found = database.receipt(&receipt.id)?;
            if found != Some(receipt.height) {
                let (id, height) = (hex::encode(receipt.id), receipt.height);
                campaign.found(format!("{id} was final at height {height}, and v{index} has it at {found:?}"));
            }
        }
    }
    settled.votes = scene.watcher.count() as u64;
    if settled.receipts == 0 || settled.blocks == 0 || settled.votes < VALIDATORS as u64 {
        campaign.found("nothing was acknowledged: the run shows nothing".to_owned());
    }
    Ok(settled)
}

fn signed(signer: usize, (epoch, view, kind, digest): PlainVote, signature: [u8; 64]) -> Option<SignedVote> {
    let kind = VoteKind::from_number(kind)?;
    let vote = Vote { epoch: Epoch(epoch), view: View(view), kind, digest: Digest(digest) };
    Some(SignedVote { vote, signer: ValidatorIndex(signer as u16), signature: Signature(signature) })
}
