//! Joining a chain at a snapshot: walk the boundaries from the genesis, fetch the newest snapshot that they prove, and
//! the block that it belongs to (PROTOCOL E1, E5).
//!
//! Every step trusts the genesis only. A boundary is signed by the validators that the boundary before names; the newest
//! one names the root over the chunks of the snapshot at the cut-off before its own; each chunk is checked against it
//! when it arrives and is stored at once, so a crash costs the chunks under way and a liar one chunk. Which peer answers
//! does not matter: several are asked, and one that lied is left alone for a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bizra_driver::light::{ChainRules, Check, Headers, LightError, Link, TrustedEpoch};
use bizra_driver::wire::PeerMessage;
use bizra_driver::{Member, Restarts};
use bizra_simplex::types::{Digest, Epoch, Height, Millis};
use bizra_simplex::{Block, Certificate};
use bytes::Bytes;

use super::chunk::{chunk_hash, decode_chunk, snapshot_root};
use super::folders::DatabaseFolders;
use crate::block::BlockStore;
use crate::blockchain::{put_item, recent_block, seal_snapshot};
use crate::network::PeerId;
use crate::storage::{Database, Family, StorageError};

/// How long an answer may take, in milliseconds; a chunk may wait for its sender's budget.
const ANSWER_PATIENCE: u64 = 3_000;
const CHUNK_PATIENCE: u64 = 10_000;

/// Chunks under way at one time, from all peers and from each.
const CHUNKS_FLYING_MAX: usize = 8;
const CHUNKS_PER_PEER_MAX: usize = 2;

/// A peer that lied is not asked again for this long, in milliseconds; one that had nothing for a moment only.
const LIAR_PAUSE: u64 = 60_000;
const EMPTY_PAUSE: u64 = 2_000;

/// A snapshot without progress for this long is given up: its holders have moved on to a newer one.
const STALLED: u64 = 30_000;

/// Time between two looks at whether a snapshot is needed, in milliseconds.
const LOOK_INTERVAL: u64 = 2_000;

/// Epochs whose validators are remembered: the one of a snapshot's cut-off, the one whose last block names its root, and
/// the one after.
const EPOCHS_REMEMBERED: usize = 3;

/// Peers that must have nothing newer before a boundary counts as the last.
const AGREEING: usize = 2;

const TARGET_KEY: &[u8] = b"join";
const CHUNK_KEY: u8 = b'j';

fn chunk_key(index: u32) -> Vec<u8> {
    [&[CHUNK_KEY][..], &index.to_be_bytes()].concat()
}

/// When a node takes a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// From so many blocks on that the snapshot is ahead.
    pub(super) behind_blocks: u64,
    /// True if what the database holds may be replaced: it was empty at the start, or is no archive.
    pub(super) replaceable: bool,
    /// True if the database was empty at the start.
    pub(super) empty: bool,
}

/// The chain, as its genesis says.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) rules: ChainRules,
    pub(super) genesis: Block,
    pub(super) members: Vec<Member>,
    pub(super) epoch_blocks: u64,
    /// The restarts that this node has pinned.
    pub(super) restarts: Restarts,
}

/// What the node knows of itself and its peers at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) executed: Height,
    pub(super) network: Height,
    pub(super) connected: Vec<PeerId>,
}

/// How far a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its cut-off height.
    pub height: u64,
    /// Chunks stored.
    pub chunks: u64,
    /// Chunks it has; 0 until its manifest is known.
    pub chunks_total: u64,
}

/// A snapshot on its way.
struct Fetching {
    database: Database,
    cutoff: Height,
    root: Digest,
    /// The last block of the cut-off's epoch.
    boundary: Block,
    /// That epoch.
    epoch: TrustedEpoch,
    manifest: Vec<Digest>,
    missing: BTreeSet<u32>,
    flying: BTreeMap<u32, (PeerId, Millis)>,
    asked: Option<(PeerId, Millis)>,
    sealed: bool,
    last_progress: Millis,
}

/// A snapshot that boundaries prove.
#[derive(Clone)]
struct Proven {
    cutoff: Height,
    root: Digest,
    /// The epoch of its cut-off.
    epoch: TrustedEpoch,
    /// That epoch's last block.
    boundary: Block,
}

enum Phase {
    /// Nothing to do before this time.
    Idle(Millis),
    /// Asking for boundaries; peers that know no newer one.
    Walking { asked: Option<(PeerId, Millis)>, agreeing: BTreeMap<PeerId, Height> },
    /// Fetching a snapshot.
    Fetching(Box<Fetching>),
    /// A whole snapshot waits for the next start.
    Done,
}

/// See the module.
pub(super) struct Joiner {
    chain: Chain,
    folders: DatabaseFolders,
    policy: Policy,
    phase: Phase,
    /// Links from the genesis on.
    walked: Vec<Link>,
    /// The last epochs that they lead to.
    epochs: VecDeque<TrustedEpoch>,
    /// The newest snapshot that they prove.
    proven: Option<Proven>,
    /// Peers not to ask before a time.
    paused: BTreeMap<PeerId, Millis>,
    turn: usize,
    looked: bool,
    sends: Vec<(PeerId, PeerMessage)>,
}

fn verify_signatures(checks: &[Check]) -> bool {
    checks.iter().all(|(key, message, signature)| {
        let key = ed25519_zebra::VerificationKey::try_from(key.0);
        key.is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
    })
}

impl Joiner {
    /// An error means that the genesis' validators are no set.
    pub(super) fn new(chain: Chain, folders: DatabaseFolders, policy: Policy) -> Result<Self, LightError> {
        let first = TrustedEpoch::genesis(chain.rules, chain.genesis.time_milliseconds, chain.members.clone())?;
        let mut joiner = Self {
            chain,
            folders,
            policy,
            phase: Phase::Idle(Millis(0)),
            walked: Vec::new(),
            epochs: VecDeque::from([first]),
            proven: None,
            paused: BTreeMap::new(),
            turn: 0,
            looked: false,
            sends: Vec::new(),
        };
        joiner.pass_restarts()?;
        Ok(joiner)
    }

    /// Goes on with the epochs that restarts have begun: no link leads there, the documents do.
    fn pass_restarts(&mut self) -> Result<(), LightError> {
        while let Some(last) = self.epochs.back()
            && let Some(restart) = self.chain.restarts.ending(last.epoch())
        {
            let next = last.restart(restart)?;
            self.remember(next);
        }
        Ok(())
    }

    fn remember(&mut self, epoch: TrustedEpoch) {
        self.epochs.push_back(epoch);
        if self.epochs.len() > EPOCHS_REMEMBERED {
            self.epochs.pop_front();
        }
    }

    /// The epoch whose last block is wanted next.
    fn next_epoch(&self) -> Epoch {
        self.epochs.back().map(TrustedEpoch::epoch).unwrap_or_default()
    }

    /// Notes the snapshot that the last link proves. The first epoch after a restart has none before it.
    fn note_proven(&mut self) {
        let [epoch, after, _] = self.epochs.make_contiguous() else { return };
        let Some(last) = self.walked.last().filter(|last| last.block.epoch == after.epoch()) else { return };
        let Some(boundary) = last.block.boundary.filter(|_| epoch.epoch().next() == after.epoch()) else { return };
        let cutoff = Height(self.chain.epoch_blocks.saturating_mul(last.block.epoch.0));
        let (epoch, below) = (epoch.clone(), after.below().clone());
        self.proven = Some(Proven { cutoff, root: boundary.snapshot, epoch, boundary: below });
    }

    /// True while answers with ranges of blocks are for this one.
    pub(super) fn wants_range(&self) -> bool {
        matches!(&self.phase, Phase::Fetching(fetching) if fetching.sealed)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        let Phase::Fetching(fetching) = &self.phase else { return None };
        let chunks_total = fetching.manifest.len() as u64;
        let chunks = chunks_total - fetching.missing.len() as u64;
        Some(Progress { height: fetching.cutoff.0, chunks, chunks_total })
    }

    /// What is to be sent since this was asked last.
    pub(super) fn take_sends(&mut self) -> Vec<(PeerId, PeerMessage)> {
        std::mem::take(&mut self.sends)
    }

    /// The next connected peer that may be asked and passes the test.
    fn choose(&mut self, now: Millis, connected: &[PeerId], test: impl Fn(PeerId) -> bool) -> Option<PeerId> {
        self.paused.retain(|_, until| *until > now);
        let may: Vec<PeerId> =
            connected.iter().copied().filter(|peer| !self.paused.contains_key(peer) && test(*peer)).collect();
        self.turn = self.turn.wrapping_add(1);
        may.get(self.turn.checked_rem(may.len())?).copied()
    }

    fn pause(&mut self, peer: PeerId, until: Millis) {
        self.paused.insert(peer, until);
    }

    fn distrust(&mut self, peer: PeerId, now: Millis, what: &dyn std::fmt::Display) {
        tracing::warn!(%peer, "a peer's answer is wrong and the peer not asked for a minute: {what}");
        self.pause(peer, now.plus(LIAR_PAUSE));
    }

    /// What time brings.
    pub(super) fn tick(&mut self, now: Millis, around: &Surroundings) -> Result<(), StorageError> {
        match &mut self.phase {
            Phase::Idle(until) => {
                if *until <= now {
                    self.look(now, around);
                }
            }
            Phase::Walking { asked, agreeing } => {
                if asked.is_some_and(|(_, due)| due > now) {
                    return Ok(());
                }
                let silent = asked.take().map(|(peer, _)| peer);
                let agreed: BTreeMap<PeerId, Height> = agreeing.clone();
                if let Some(peer) = silent {
                    self.pause(peer, now.plus(EMPTY_PAUSE));
                }
                if !agreed.is_empty() && agreed.len() >= AGREEING.min(around.connected.len()) {
                    return self.decide(now, around, &agreed);
                }
                let peer = self.choose(now, &around.connected, |peer| !agreed.contains_key(&peer));
                let next = self.next_epoch();
                if let (Some(peer), Phase::Walking { asked, .. }) = (peer, &mut self.phase) {
                    *asked = Some((peer, now.plus(ANSWER_PATIENCE)));
                    self.sends.push((peer, PeerMessage::FetchBoundaries(next)));
                }
            }
            Phase::Fetching(fetching) => {
                if now.0.saturating_sub(fetching.last_progress.0) > STALLED {
                    tracing::warn!(height = %fetching.cutoff, "no peer holds the snapshot any more; looking for a newer one");
                    self.phase = Phase::Idle(now);
                    self.looked = false;
                    return self.folders.forget_joining();
                }
                self.ask(now, &around.connected);
            }
            Phase::Done => {}
        }
        Ok(())
    }

    /// Whether a snapshot may be needed.
    fn look(&mut self, now: Millis, around: &Surroundings) {
        let behind = around.network.0.saturating_sub(around.executed.0);
        let first = self.policy.empty && !self.looked;
        let far = self.policy.replaceable && behind > self.chain.epoch_blocks.min(self.policy.behind_blocks);
        if first || far {
            self.phase = Phase::Walking { asked: None, agreeing: BTreeMap::new() };
        } else {
            self.phase = Phase::Idle(now.plus(LOOK_INTERVAL));
        }
    }

    /// The last boundary is known: takes the snapshot that it proves, if that is worth it.
    fn decide(
        &mut self,
        now: Millis,
        around: &Surroundings,
        agreed: &BTreeMap<PeerId, Height>,
    ) -> Result<(), StorageError> {
        self.phase = Phase::Idle(now.plus(LOOK_INTERVAL));
        self.looked = true;
        let Some(Proven { cutoff, root, epoch, boundary }) = self.proven.clone() else { return Ok(()) };
        let ahead = cutoff.0.saturating_sub(around.executed.0);
        // Ranges do not help if everybody has forgotten the next block.
        let forgotten = agreed.values().all(|oldest| *oldest > around.executed.next());
        if ahead == 0 || (ahead < self.policy.behind_blocks && !forgotten) {
            return Ok(());
        }
        let (database, resumed) = self.open_joining(cutoff, root)?;
        tracing::info!(
            height = %cutoff, executed = %around.executed, %root, resumed,
            "joining the chain at a snapshot from peers"
        );
        self.phase = Phase::Fetching(Box::new(Fetching {
            database,
            cutoff,
            root,
            boundary,
            epoch,
            manifest: Vec::new(),
            missing: BTreeSet::new(),
            flying: BTreeMap::new(),
            asked: None,
            sealed: false,
            last_progress: now,
        }));
        Ok(())
    }

    /// Opens what is there of this very snapshot, or begins anew; true if there was something.
    fn open_joining(&self, cutoff: Height, root: Digest) -> Result<(Database, bool), StorageError> {
        let target = [&cutoff.0.to_be_bytes()[..], &root.0].concat();
        let path = self.folders.joining();
        if path.join("CURRENT").exists() {
            match Database::open(&path) {
                Ok(database) if database.get(Family::Ledger, TARGET_KEY)?.as_ref() == Some(&target) => {
                    return Ok((database, true));
                }
                Ok(_) => {}
                Err(StorageError::Corrupt(what)) => tracing::warn!("a snapshot on its way is damaged: {what}"),
                Err(error) => return Err(error),
            }
        }
        self.folders.forget_joining()?;
        let database = Database::open(&path)?;
        let mut writes = database.writes();
        writes.put(Family::Ledger, TARGET_KEY, &target)?;
        writes.commit_synced()?;
        Ok((database, false))
    }

    /// Asks for what is missing of the snapshot.
    fn ask(&mut self, now: Millis, connected: &[PeerId]) {
        let Phase::Fetching(fetching) = &mut self.phase else { return };
        let mut late = Vec::new();
        fetching.flying.retain(|_, (peer, due)| {
            let waits = *due > now;
            if !waits {
                late.push(*peer);
            }
            waits
        });
        if let Some((peer, _)) = fetching.asked.take_if(|(_, due)| *due <= now) {
            late.push(peer);
        }
        let (cutoff, sealed, asked) = (fetching.cutoff, fetching.sealed, fetching.asked.is_some());
        let manifest = !fetching.manifest.is_empty();
        let wanted: Vec<u32> = fetching.missing.iter().copied().collect();
        let mut flying = std::mem::take(&mut fetching.flying);
        for peer in late {
            self.pause(peer, now.plus(EMPTY_PAUSE));
        }
        let mut asked_now = None;
        if sealed || !manifest {
            let peer = if asked { None } else { self.choose(now, connected, |_| true) };
            if let Some(peer) = peer {
                let message = if sealed { PeerMessage::FetchRange(cutoff) } else { PeerMessage::FetchManifest(cutoff) };
                self.sends.push((peer, message));
                asked_now = Some((peer, now.plus(ANSWER_PATIENCE)));
            }
        } else {
            let free: Vec<u32> = wanted.into_iter().filter(|index| !flying.contains_key(index)).collect();
            for index in free.into_iter().take(CHUNKS_FLYING_MAX.saturating_sub(flying.len())) {
                let busy = |peer| flying.values().filter(|(other, _)| *other == peer).count() >= CHUNKS_PER_PEER_MAX;
                let Some(peer) = self.choose(now, connected, |peer| !busy(peer)) else { break };
                self.sends.push((peer, PeerMessage::FetchChunk(cutoff, index)));
                flying.insert(index, (peer, now.plus(CHUNK_PATIENCE)));
            }
        }
        if let Phase::Fetching(fetching) = &mut self.phase {
            fetching.flying = flying;
            fetching.asked = fetching.asked.take().or(asked_now);
        }
    }

    /// Takes a peer's answer. An error means that this node's own disk failed.
    pub(super) fn receive(
        &mut self,
        now: Millis,
        from: PeerId,
        message: PeerMessage,
        around: &Surroundings,
    ) -> Result<(), StorageError> {
        match message {
            PeerMessage::Boundaries(oldest, epoch, links) => self.boundaries(now, from, oldest, epoch, links),
            PeerMessage::Manifest(cutoff, hashes) => self.manifest(now, from, cutoff, hashes)?,
            PeerMessage::Chunk(cutoff, index, chunk) => self.chunk(now, from, cutoff, index, &chunk)?,
            PeerMessage::Range(blocks, certificate) => self.range(now, from, &blocks, &certificate)?,
            _ => return Ok(()),
        }
        self.tick(now, around)
    }

    fn boundaries(&mut self, now: Millis, from: PeerId, oldest: Height, epoch: Epoch, links: Vec<Link>) {
        let next = self.next_epoch();
        let Phase::Walking { asked, agreeing } = &mut self.phase else { return };
        if asked.take_if(|(peer, _)| *peer == from).is_none() || epoch != next {
            return;
        }
        if links.is_empty() {
            agreeing.insert(from, oldest);
            return;
        }
        agreeing.clear();
        for link in links {
            let Some(trusted) = self.epochs.back() else { return };
            if self.chain.restarts.beginning(trusted.epoch()).is_some() && link.block.epoch < trusted.epoch() {
                // To an epoch that was named before a restart, and has never begun.
                return;
            }
            match trusted.advance(&link, verify_signatures) {
                Ok(next) => self.remember(next),
                Err(error) => return self.distrust(from, now, &error),
            }
            self.walked.push(link);
            self.note_proven();
            if let Err(error) = self.pass_restarts() {
                tracing::error!(%error, "a pinned restart does not fit the chain that leads to it");
                return;
            }
        }
    }

    fn manifest(&mut self, now: Millis, from: PeerId, cutoff: Height, hashes: Vec<Digest>) -> Result<(), StorageError> {
        let Phase::Fetching(fetching) = &mut self.phase else { return Ok(()) };
        if fetching.cutoff != cutoff || fetching.asked.take_if(|(peer, _)| *peer == from).is_none() {
            return Ok(());
        }
        if hashes.is_empty() {
            self.pause(from, now.plus(EMPTY_PAUSE));
            return Ok(());
        }
        if snapshot_root(&hashes) != fetching.root {
            self.distrust(from, now, &"its list of chunks has another root than the boundary names");
            return Ok(());
        }
        let mut missing = BTreeSet::new();
        for index in 0..hashes.len() as u32 {
            if fetching.database.get(Family::Ledger, &chunk_key(index))?.is_none() {
                missing.insert(index);
            }
        }
        tracing::info!(
            height = %cutoff, chunks = hashes.len(), missing = missing.len(), "the snapshot's chunks are known"
        );
        fetching.manifest = hashes;
        fetching.missing = missing;
        fetching.last_progress = now;
        self.seal_if_whole(now)
    }

    fn chunk(
        &mut self,
        now: Millis,
        from: PeerId,
        cutoff: Height,
        index: u32,
        chunk: &Bytes,
    ) -> Result<(), StorageError> {
        let Phase::Fetching(fetching) = &mut self.phase else { return Ok(()) };
        let asked = fetching.flying.get(&index).is_some_and(|(peer, _)| *peer == from);
        if fetching.cutoff != cutoff || !asked {
            return Ok(());
        }
        fetching.flying.remove(&index);
        if chunk.is_empty() {
            self.pause(from, now.plus(EMPTY_PAUSE));
            return Ok(());
        }
        if fetching.manifest.get(index as usize) != Some(&chunk_hash(chunk)) {
            self.distrust(from, now, &format_args!("chunk {index} has another hash than the snapshot's"));
            return Ok(());
        }
        // A quorum vouches for these bytes. What does not decode all the same is a format that this build does not know.
        let items = decode_chunk(chunk).map_err(|error| {
            StorageError::Failed(format!("the snapshot cannot be used: {error}; use a newer binary"))
        })?;
        let mut writes = fetching.database.writes();
        for item in &items {
            put_item(&mut writes, item)?;
        }
        writes.put(Family::Ledger, &chunk_key(index), &[])?;
        writes.commit_unsynced()?;
        fetching.missing.remove(&index);
        fetching.last_progress = now;
        tracing::debug!(height = %cutoff, index, missing = fetching.missing.len(), "chunk stored");
        self.seal_if_whole(now)
    }

    fn seal_if_whole(&mut self, now: Millis) -> Result<(), StorageError> {
        let Phase::Fetching(fetching) = &mut self.phase else { return Ok(()) };
        if !fetching.missing.is_empty() || fetching.sealed {
            return Ok(());
        }
        let checkpoint = match seal_snapshot(&fetching.database, fetching.cutoff.0) {
            Err(StorageError::Corrupt(what)) => {
                // Every chunk was right when it came: this disk has lost something since.
                tracing::error!("{what}; it is fetched anew");
                self.phase = Phase::Idle(now.plus(LOOK_INTERVAL));
                self.looked = false;
                return self.folders.forget_joining();
            }
            sealed => sealed?,
        };
        let named = fetching.boundary.checkpoint;
        if named.height == fetching.cutoff && named != checkpoint {
            return Err(StorageError::Failed(format!(
                "the snapshot at {} has state {}, and the header of block {} names {}: the validators contradict themselves",
                fetching.cutoff, checkpoint.state, fetching.boundary.height, named.state
            )));
        }
        tracing::info!(height = %fetching.cutoff, state = %checkpoint.state, "the snapshot is whole; its commitment is right");
        fetching.sealed = true;
        fetching.last_progress = now;
        Ok(())
    }

    /// The block at the cut-off and those above, up to one with a finalization: where the node goes on.
    fn range(
        &mut self,
        now: Millis,
        from: PeerId,
        blocks: &[Block],
        finalization: &Certificate,
    ) -> Result<(), StorageError> {
        let Phase::Fetching(fetching) = &mut self.phase else { return Ok(()) };
        if !fetching.sealed || fetching.asked.take_if(|(peer, _)| *peer == from).is_none() {
            return Ok(());
        }
        let Some(first) = blocks.first() else { return Ok(()) };
        let begins = recent_block(&fetching.database, fetching.cutoff.0)? == Some(first.digest());
        let headers = Headers { blocks: blocks.to_vec(), finalization: finalization.clone() };
        if let Err(error) = fetching.epoch.headers(&headers, verify_signatures) {
            self.distrust(from, now, &error);
            return Ok(());
        }
        if !begins {
            self.distrust(from, now, &"its blocks do not begin where the snapshot ends");
            return Ok(());
        }
        self.install(blocks, finalization)
    }

    /// Completes the database and hands it over to the next start.
    fn install(&mut self, blocks: &[Block], finalization: &Certificate) -> Result<(), StorageError> {
        let Phase::Fetching(fetching) = std::mem::replace(&mut self.phase, Phase::Done) else { return Ok(()) };
        let Fetching { database, cutoff, manifest, .. } = *fetching;
        {
            let store = BlockStore::open(database.clone(), self.chain.genesis.clone())?;
            let mut writes = database.writes();
            for link in &self.walked {
                store.put_link(&mut writes, link)?;
            }
            store.finalize(&mut writes, blocks, finalization)?;
            for index in 0..manifest.len() as u32 {
                writes.delete(Family::Ledger, &chunk_key(index))?;
            }
            writes.delete(Family::Ledger, TARGET_KEY)?;
            writes.commit_synced()?;
        }
        drop(database);
        self.folders.finish_joining()?;
        tracing::info!(height = %cutoff, "the database is made from the snapshot; the node starts on it now");
        Ok(())
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
