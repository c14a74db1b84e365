//! The judge. It sees what honest nodes send, commit and execute, and knows the rules by itself: its own quorum
//! arithmetic, hashes and conflicts. It shares no code with the core but the plain data types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, Change, Member};
use bizra_simplex::types::{Digest, Epoch};
use bizra_simplex::{Block, Certificate, Message, Protocol, SignedVote, Version, Vote, VoteKind};
use sha2::{Digest as _, Sha256};

use crate::audit::{Audit, Turnover};
use crate::keys::KeyBook;
use crate::leaders::Leaders;
use crate::ledger::Ledger;
use crate::schedule::{Schedule, key_of};
use crate::store::{checkpoint, next_state, snapshot_root};
use crate::witness::Witness;

/// First byte of a payload that an application accepts; any other is invalid.
pub const VALID_PAYLOAD: u8 = 1;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Virtual milliseconds since the start.
    pub time: u64,
    /// The node that showed it.
    pub node: usize,
    /// What was broken.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at {} ms, node {}: {}", self.time, self.node, self.what)
    }
}

/// What an honest key has said of one view.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    proposed: Option<Digest>,
    notarized: Option<Digest>,
    nullified: bool,
    finalized: Option<Digest>,
}

/// What is known of one node.
#[derive(Clone, Debug, Default)]
struct Watched {
    /// Height finalised, durable or not.
    tip: u64,
    /// Height finalised and durable: it can never fall below.
    promised: u64,
    executed: u64,
}

/// A client's payload.
#[derive(Clone, Debug)]
struct Injected {
    origin: usize,
    /// Held by its origin: must be executed in the end.
    owed: bool,
    executed: bool,
}

/// Judge of one run.
pub struct Oracle {
    schedule: Schedule,
    honest: Vec<bool>,
    keys: Arc<KeyBook>,
    genesis_hash: Digest,
    /// Digest of the finalised block at each height, whoever finalised it first; position 0 is the genesis block.
    chain: Vec<Digest>,
    /// The state after each height, as execution must find it.
    states: Vec<Digest>,
    /// Header of the last block of `chain`.
    last: Block,
    /// Blocks of it that order something.
    loaded: u64,
    /// Height that ordered each executed batch.
    batches: BTreeMap<Digest, u64>,
    nodes: Vec<Watched>,
    witnesses: Vec<Witness>,
    /// The version of each epoch of which the chain tells, and what each node signalled last.
    versions: Vec<u32>,
    signals: BTreeMap<usize, u32>,
    /// Whose turns it was, and what came of them.
    leaders: Leaders,
    /// Whom final blocks report: the epoch of the block, and the node.
    reported: BTreeSet<(u64, usize)>,
    /// The ledger as the first to execute each block must find it, and a hash over it after each height.
    ledger: Ledger,
    ledgers: Vec<u64>,
    audit: Audit,
    /// Blocks that an epoch begins after.
    beginnings: BTreeSet<(u64, Digest)>,
    said: BTreeMap<(usize, u64, u64), Said>,
    payloads: BTreeMap<Vec<u8>, Injected>,
    violations: Vec<Violation>,
}

impl Oracle {
    /// A judge of these validators; nodes that are not honest are not watched.
    pub fn new(
        schedule: Schedule,
        honest: Vec<bool>,
        keys: Arc<KeyBook>,
        genesis_hash: Digest,
        genesis: &Block,
    ) -> Self {
        let nodes = vec![Watched::default(); honest.len()];
        let witnesses = vec![Witness::default(); honest.len()];
        let versions = vec![schedule.first().version().0];
        let ledger = Ledger::genesis(&schedule, Arc::clone(&keys), genesis_hash);
        Self {
            versions,
            signals: BTreeMap::new(),
            leaders: Leaders::new(),
            ledgers: vec![ledger.hash()],
            audit: Audit::new(&schedule, &ledger),
            ledger,
            reported: BTreeSet::new(),
            schedule,
            honest,
            keys,
            genesis_hash,
            chain: vec![block_digest(genesis)],
            states: vec![Digest::default()],
            last: genesis.clone(),
            loaded: 0,
            batches: BTreeMap::new(),
            nodes,
            witnesses,
            beginnings: BTreeSet::from([(0, block_digest(genesis))]),
            said: BTreeMap::new(),
            payloads: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Blocks finalised by anybody honest.
    pub fn height(&self) -> u64 {
        self.chain.len() as u64 - 1
    }

    /// Those of them that order something.
    pub fn loaded(&self) -> u64 {
        self.loaded
    }

    /// Epochs whose last block anybody honest has finalised.
    pub fn epochs(&self) -> u64 {
        self.last.epoch.0 + u64::from(self.last.boundary.is_some())
    }

    /// Height a node has finalised.
    pub fn tip(&self, node: usize) -> u64 {
        self.nodes[node].tip
    }

    /// Notes something that the simulator itself found broken.
    pub fn accuse(&mut self, time: u64, node: usize, what: impl Into<String>) {
        self.violations.push(Violation { time, node, what: what.into() });
    }

    /// A node committed changes, all those of one turn.
    pub fn committed(&mut self, time: u64, node: usize, changes: &[Change]) {
        self.witnesses[node].turn();
        for change in changes {
            if let Some(certificate) = self.witnesses[node].committed(change) {
                self.certificate(time, node, certificate);
            }
            match change {
                Change::Finalize(blocks, certificate) => self.finalized(time, node, blocks, certificate),
                Change::Execute(block, batches) => self.executed(time, node, block, batches),
                Change::Record(_)
                | Change::Batch(..)
                | Change::Forget(_)
                | Change::Evidence(..)
                | Change::HighestVote(..) => {}
            }
        }
    }

    fn finalized(&mut self, time: u64, node: usize, blocks: &[Block], certificate: &Certificate) {
        for block in blocks {
            let digest = block_digest(block);
            let tip = self.nodes[node].tip;
            if block.height.0 != tip + 1 {
                self.accuse(time, node, format!("finalised height {} after {tip}", block.height));
                return;
            }
            if self.chain[tip as usize] != block.parent {
                self.accuse(time, node, format!("block {} does not follow the finalised block {tip}", block.height));
            }
            match self.chain.get(block.height.0 as usize) {
                None => {
                    self.header(time, node, block);
                    self.chain.push(digest);
                    self.states.push(next_state(self.states[tip as usize], digest));
                    self.last = block.clone();
                    self.loaded += u64::from(!block.batches.is_empty());
                    if block.boundary.is_some() {
                        self.beginnings.insert((block.epoch.0 + 1, digest));
                    }
                }
                Some(known) if *known == digest => {}
                Some(known) => {
                    let what = format!("agreement: block {} is {digest:?}, elsewhere {known:?}", block.height);
                    self.accuse(time, node, what);
                }
            }
            self.nodes[node].tip = block.height.0;
        }
        let last = blocks.last().map(block_digest);
        if certificate.vote.kind != VoteKind::Finalize || last != Some(certificate.vote.digest) {
            self.accuse(time, node, "the certificate does not finalise the committed block");
        }
        if blocks.iter().any(|block| block.epoch != certificate.vote.epoch) {
            self.accuse(time, node, format!("a certificate of epoch {} for blocks of another", certificate.vote.epoch));
        }
        self.certificate(time, node, certificate);
    }

    /// A certificate that a node keeps must prove itself (R1).
    fn certificate(&mut self, time: u64, node: usize, certificate: &Certificate) {
        let signers: BTreeSet<u16> = certificate.signatures.iter().map(|(signer, _)| signer.0).collect();
        let bytes = vote_bytes(self.genesis_hash, &certificate.vote);
        let epoch = certificate.vote.epoch;
        let sound = certificate.signatures.iter().all(|(signer, mark)| {
            self.schedule.node(epoch, signer.0).is_some_and(|node| self.keys.verify(node, &bytes, *mark))
        });
        let members = self.schedule.of(epoch);
        let power: u128 =
            signers.iter().filter_map(|signer| members.get(usize::from(*signer))).map(|m| u128::from(m.1)).sum();
        let total: u128 = members.iter().map(|(_, power)| u128::from(*power)).sum();
        if !sound || power * 3 <= total * 2 {
            self.accuse(time, node, format!("a certificate with power {power} of {total}, signatures valid: {sound}"));
        }
    }

    /// H1, E1: what the header of a newly final block must say, given the chain below it.
    fn header(&mut self, time: u64, node: usize, block: &Block) {
        let (named, before) = (block.checkpoint, self.last.checkpoint);
        let height = named.height.0;
        let own = self.states.get(height as usize).map(|state| checkpoint(named.height, *state));
        let in_order = height == before.height.0 || height == before.height.0 + 16;
        if height >= block.height.0 || !in_order || (height > 0 && own != Some(named)) {
            self.accuse(time, node, format!("block {} vouches for {named:?} after {before:?}", block.height));
        }
        if !block.batches.is_empty() && block.height.0 - height.min(block.height.0) > 64 {
            self.accuse(time, node, format!("block {} orders batches and names {height}", block.height));
        }
        if block.time_milliseconds < self.last.time_milliseconds {
            self.accuse(time, node, format!("H4: block {} is earlier than its parent", block.height));
        }
        let epoch = self.last.epoch.0 + u64::from(self.last.boundary.is_some());
        let ends = named.height >= self.schedule.cutoff(block.epoch);
        if block.epoch.0 != epoch || block.boundary.is_some() != ends {
            self.accuse(
                time,
                node,
                format!("block {} of epoch {}, not {epoch}, ends: {ends}", block.height, block.epoch),
            );
        }
        let above = if block.epoch == self.last.epoch { self.last.view.0 } else { 0 };
        if block.view.0 <= above || !self.leaders.leads(block, &self.schedule) {
            let (height, view, maker) = (block.height, block.view, block.proposer);
            self.accuse(time, node, format!("T2: block {height} of view {view} by {maker}, who does not lead in it"));
        }
        let next = block.epoch.next();
        if block.boundary.is_some_and(|boundary| Some(boundary.version.0) != self.version(next)) {
            let own = self.version(next);
            self.accuse(
                time,
                node,
                format!("block {} announces {:?}, not version {own:?}", block.height, block.boundary),
            );
        }
        if block.boundary.is_some_and(|boundary| boundary.validators != self.validators_hash(next)) {
            self.accuse(time, node, format!("block {} announces other validators than the state names", block.height));
        }
        self.reports(time, node, block);
        let snapshot = block.epoch.0.checked_sub(1).map_or(Some(Digest::default()), |before| {
            self.states.get(self.schedule.cutoff(Epoch(before)).0 as usize).map(|state| snapshot_root(*state))
        });
        if block.boundary.is_some_and(|boundary| Some(boundary.snapshot) != snapshot) {
            self.accuse(time, node, format!("block {} vouches for another snapshot than the state's", block.height));
        }
    }

    /// The hash of the validators of an epoch.
    fn validators_hash(&self, next: Epoch) -> Digest {
        let (members, owners) = (self.schedule.of(next), self.schedule.owners(next));
        let mut bytes = b"bizra/v1/validators\0".to_vec();
        bytes.extend(next.0.to_be_bytes());
        bytes.extend((members.len() as u64).to_be_bytes());
        for ((node, power), owner) in members.iter().zip(owners.iter()) {
            bytes.extend(key_of(*node).0);
            bytes.extend(power.to_be_bytes());
            bytes.extend((self.leaders.share(next, *owner) as u16).to_be_bytes());
        }
        Digest(Sha256::digest(&bytes).into())
    }

    /// The version of an epoch, as signals in the chain have decided it.
    fn version(&self, epoch: Epoch) -> Option<u32> {
        self.versions.get(usize::try_from(epoch.0).ok()?).copied()
    }

    /// P1, P2: what a final block says of its maker, and what comes of all that was said at a cut-off.
    fn signal(&mut self, block: &Block) {
        if let Some(maker) = self.schedule.node(block.epoch, block.proposer.0) {
            self.signals.insert(maker, block.signals.0);
        }
        let ending = Epoch(self.versions.len() as u64 - 1);
        if block.height != self.schedule.cutoff(ending) {
            return;
        }
        let mut version = self.versions.last().copied().unwrap_or_default();
        // Nobody but a liar names versions that do not exist, and liars have no two thirds.
        for candidate in version + 1..=Protocol::LATEST.version().0 {
            let agreed = [ending, ending.next()].into_iter().all(|epoch| {
                let members = self.schedule.of(epoch);
                let total: u64 = members.iter().map(|(_, power)| power).sum();
                let says = |node: &usize| self.signals.get(node).is_some_and(|signal| *signal >= candidate);
                let power: u64 = members.iter().filter(|(node, _)| says(node)).map(|(_, power)| power).sum();
                power * 3 > total * 2
            });
            if agreed {
                version = candidate;
            }
        }
        self.versions.push(version);
        let stays: BTreeSet<usize> = self.schedule.of(ending.next()).iter().map(|(node, _)| *node).collect();
        self.signals.retain(|node, _| stays.contains(node));
    }

    /// V7: what a final block reports is true, new, and allowed by the version of its epoch.
    fn reports(&mut self, time: u64, node: usize, block: &Block) {
        let version = self.version(block.epoch).unwrap_or_default();
        if block.signals.0 < version || (version < 2 && !block.contradictions.is_empty()) {
            self.accuse(time, node, format!("block {} against the rules of version {version}", block.height));
        }
        for told in &block.contradictions {
            self.evidence(time, node, &told.first, &told.second);
            let epoch = told.first.vote.epoch;
            let Some(signer) = self.schedule.node(epoch, told.first.signer.0) else { continue };
            let sound = [told.first, told.second]
                .iter()
                .all(|vote| self.keys.verify(signer, &vote_bytes(self.genesis_hash, &vote.vote), vote.signature));
            // Who was not punished, because a third of the power would have been, may be reported in a later epoch.
            let named = block.checkpoint.height.0;
            let punished = self.ledger.punished(key_of(signer)).is_some_and(|height| height <= named);
            let new = self.reported.insert((block.epoch.0, signer)) && !punished;
            let in_time = epoch <= block.epoch && epoch.0 + 2 >= block.epoch.0;
            if !sound || !new || !in_time || told.first.vote == told.second.vote {
                let what = format!("block {} reports {signer}, signed: {sound}, new: {new}: {told:?}", block.height);
                self.accuse(time, node, what);
            }
        }
    }

    /// An honest node goes by this version in an epoch.
    pub fn runs(&mut self, time: u64, node: usize, epoch: Epoch, version: Version) {
        if self.version(epoch) != Some(version.0) {
            let decided = self.version(epoch);
            self.accuse(time, node, format!("version {version} in epoch {epoch}, where {decided:?} was decided"));
        }
    }

    /// The version of the last epoch that the chain has decided upon.
    pub fn last_version(&self) -> u32 {
        self.versions.last().copied().unwrap_or_default()
    }

    /// The share of its power with which a node takes turns to lead in an epoch, in 1/1024.
    pub fn share(&self, epoch: Epoch, node: usize) -> u64 {
        let index = self.schedule.index(epoch, node).map(usize::from);
        let owner = index.and_then(|index| self.schedule.owners(epoch).get(index).copied());
        owner.map_or(1024, |owner| self.leaders.share(epoch, owner))
    }

    /// Byzantine validators that final blocks report.
    pub fn reported(&self) -> u64 {
        self.reported.iter().map(|(_, node)| *node).collect::<BTreeSet<_>>().len() as u64
    }

    fn executed(&mut self, time: u64, node: usize, block: &Block, batches: &[Batch]) {
        let height = block.height.0;
        let before = std::mem::replace(&mut self.nodes[node].executed, height);
        if height != before + 1 || height > self.nodes[node].tip {
            self.accuse(
                time,
                node,
                format!("executed height {height} after {before}, finalised {}", self.nodes[node].tip),
            );
        }
        if self.chain.get(height as usize) != Some(&block_digest(block)) {
            self.accuse(time, node, format!("executed a block at {height} that is not the finalised one"));
        }
        if height == self.ledger.height() + 1 {
            self.settle(time, node, block, batches);
        }
        if batches.len() != block.batches.len() {
            self.accuse(time, node, format!("executed {} of {} batches", batches.len(), block.batches.len()));
        }
        for (digest, batch) in block.batches.iter().zip(batches) {
            if *digest != batch_digest(self.genesis_hash, batch) {
                self.accuse(time, node, format!("executed another batch than {digest:?} at {height}"));
            }
            if batch.epoch > block.epoch || batch.epoch.next() < block.epoch {
                self.accuse(time, node, format!("block {height} orders a batch of epoch {}", batch.epoch));
            }
            let origin = self.schedule.node(batch.epoch, batch.origin.0);
            if !origin.is_some_and(|origin| self.keys.verify(origin, &digest.0, batch.signature)) {
                self.accuse(time, node, format!("executed a batch that its origin {} did not sign", batch.origin));
            }
            match self.batches.insert(*digest, height) {
                Some(earlier) if earlier != height => {
                    self.accuse(time, node, format!("batch {digest:?} is ordered at {earlier} and at {height}"));
                }
                _ => {}
            }
            self.payload(time, node, height, batch);
        }
    }

    /// Somebody is the first to execute a block: its money and validators are looked at.
    fn settle(&mut self, time: u64, node: usize, block: &Block, batches: &[Batch]) {
        self.ledger.execute(block_digest(block), block, batches);
        self.ledgers.push(self.ledger.hash());
        let mut found = self.audit.block(&self.ledger);
        if let Some(set) = self.ledger.set_at_cutoff(block.height.0) {
            let is_bad = |node: usize| !self.honest.get(node).copied().unwrap_or(false);
            found.extend(self.audit.cutoff(set, &self.ledger, is_bad));
            self.schedule.name(set);
        }
        self.leaders.count(block, &self.schedule);
        self.signal(block);
        for what in found {
            self.accuse(time, node, what);
        }
    }

    /// An honest node has executed everything up to this height, and its ledger is this.
    pub(crate) fn holds(&mut self, time: u64, node: usize, ledger: &Ledger) {
        let height = ledger.height();
        if self.ledgers.get(height as usize).is_some_and(|hash| *hash != ledger.hash()) {
            self.accuse(time, node, format!("its ledger is another one after height {height}"));
        }
        if let Some(error) = ledger.broken() {
            self.accuse(time, node, format!("its ledger broke after height {height}: {error}"));
        }
    }

    /// An honest node was told who validates in an epoch.
    pub(crate) fn named(&mut self, time: u64, node: usize, epoch: Epoch, members: &[Member]) {
        let seats = self.schedule.of(epoch);
        let same = |(member, seat): (&Member, &(usize, u64))| (member.key, member.power.0) == (key_of(seat.0), seat.1);
        if members.len() != seats.len() || !members.iter().zip(seats.iter()).all(same) {
            self.accuse(
                time,
                node,
                format!("E1: takes {members:?} for the validators of epoch {epoch}, not {seats:?}"),
            );
        }
    }

    /// The ledger after the last block that anybody has executed.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How the validators have changed.
    pub fn turnover(&self) -> &Turnover {
        self.audit.turnover()
    }

    /// True if the origin signed the batch and the application accepts its payload.
    pub fn accepts(&self, batch: &Batch) -> bool {
        let digest = batch_digest(self.genesis_hash, batch);
        let origin = self.schedule.node(batch.epoch, batch.origin.0);
        origin.is_some_and(|origin| self.keys.verify(origin, &digest.0, batch.signature))
            && batch.payload.first() == Some(&VALID_PAYLOAD)
    }

    fn payload(&mut self, time: u64, node: usize, height: u64, batch: &Batch) {
        let origin = self.schedule.node(batch.epoch, batch.origin.0).unwrap_or(usize::MAX);
        if batch.payload.first() != Some(&VALID_PAYLOAD) {
            self.accuse(time, node, format!("executed an invalid payload of {origin} at {height}"));
        }
        // A Byzantine validator may wrap whatever it likes, also what others wrapped: the ledger skips duplicates.
        if !self.honest.get(origin).copied().unwrap_or(false) {
            return;
        }
        match self.payloads.get_mut(&batch.payload[..]) {
            Some(injected) if injected.origin == origin => injected.executed = true,
            _ => self.accuse(time, node, format!("executed a payload at {height} that no client gave to {origin}")),
        }
    }

    /// A client hands a payload to a node.
    pub fn injected(&mut self, payload: Vec<u8>, origin: usize) {
        self.payloads.insert(payload, Injected { origin, owed: true, executed: false });
    }

    /// After a crash of `origin`, it holds these payloads; others of it are not owed any more.
    pub fn survived(&mut self, origin: usize, holds: &BTreeSet<Vec<u8>>) {
        for (payload, injected) in &mut self.payloads {
            injected.owed &= injected.origin != origin || holds.contains(payload);
        }
    }

    /// Everything a node did until now is durable and may have been told to clients.
    pub fn promised(&mut self, node: usize) {
        let watched = &mut self.nodes[node];
        watched.promised = watched.tip;
    }

    /// A node will start from another volume: what it promised is not to be expected of it.
    pub fn starts_over(&mut self, node: usize) {
        self.nodes[node].promised = 0;
    }

    /// A node starts from its disk.
    pub fn restarted(&mut self, time: u64, node: usize, tip: (u64, Digest), executed: u64) {
        let promised = self.nodes[node].promised;
        if tip.0 < promised {
            self.accuse(time, node, format!("durability: {promised} was final, after the restart {} is", tip.0));
        }
        if self.chain.get(tip.0 as usize) != Some(&tip.1) || executed > tip.0 {
            self.accuse(time, node, format!("restarted at {} (executed {executed}) off the chain", tip.0));
        }
        self.witnesses[node].restarted(tip.0);
        // What a killed process wrote and did not sync is there, and may still be lost.
        self.nodes[node] = Watched { tip: tip.0, promised, executed };
    }

    /// An honest node sends a message.
    pub fn sent(&mut self, time: u64, node: usize, message: &PeerMessage) {
        let (vote, signature) = match message {
            PeerMessage::Consensus(Message::Vote(signed))
                if self.schedule.node(signed.vote.epoch, signed.signer.0) == Some(node) =>
            {
                (signed.vote, signed.signature)
            }
            PeerMessage::Consensus(Message::Proposal(proposal)) => {
                let digest = block_digest(&proposal.block);
                let kind = VoteKind::Propose;
                (Vote { epoch: proposal.block.epoch, view: proposal.view, kind, digest }, proposal.signature)
            }
            PeerMessage::Consensus(Message::Vote(signed))
                if self.keys.verify(node, &vote_bytes(self.genesis_hash, &signed.vote), signed.signature) =>
            {
                return self.accuse(time, node, format!("E1: votes in an epoch that is not its own: {signed:?}"));
            }
            _ => return,
        };
        if !self.keys.verify(node, &vote_bytes(self.genesis_hash, &vote), signature) {
            self.accuse(time, node, format!("sent a vote with a wrong signature: {vote:?}"));
        }
        let said = self.said.entry((node, vote.epoch.0, vote.view.0)).or_default();
        let repeated = match vote.kind {
            VoteKind::Notarize => said.notarized == Some(vote.digest),
            VoteKind::Finalize => said.finalized == Some(vote.digest),
            VoteKind::Propose => said.proposed == Some(vote.digest),
            VoteKind::Nullify => true,
        };
        let digest = vote.digest;
        let other = |known: Option<Digest>| known.is_some_and(|known| known != digest);
        let conflict = match vote.kind {
            VoteKind::Propose => other(said.proposed.replace(digest)),
            VoteKind::Notarize => {
                let late = said.nullified && said.notarized.is_none();
                other(said.notarized.replace(digest)) || late
            }
            VoteKind::Nullify => {
                said.nullified = true;
                said.finalized.is_some()
            }
            VoteKind::Finalize => other(said.finalized.replace(digest)) || said.nullified,
        };
        if conflict {
            self.accuse(time, node, format!("contradicts itself with {vote:?}"));
        }
        let begins = |digest| self.beginnings.contains(&(vote.epoch.0, digest));
        let lack = if repeated { None } else { self.witnesses[node].lacks(&vote, begins) };
        if let Some(lack) = lack {
            self.accuse(time, node, format!("{lack}: {vote:?}"));
        }
    }

    /// A node shows evidence.
    pub fn evidence(&mut self, time: u64, node: usize, first: &SignedVote, second: &SignedVote) {
        let signer = self.schedule.node(first.vote.epoch, first.signer.0).unwrap_or(usize::MAX);
        if first.signer != second.signer
            || first.vote.epoch != second.vote.epoch
            || self.honest.get(signer).copied().unwrap_or(true)
        {
            self.accuse(time, node, format!("evidence against the honest {signer}: {first:?} {second:?}"));
        }
    }

    /// The honest nodes that have not executed up to `height`, and how many owed payloads nobody has executed.
    pub fn lagging(&self, height: u64) -> (Vec<(usize, u64)>, usize) {
        let honest = |node: &usize| self.honest[*node];
        let nodes = (0..self.nodes.len()).filter(honest).map(|node| (node, self.nodes[node].executed));
        let owed = self.payloads.values().filter(|payload| payload.owed && !payload.executed).count();
        (nodes.filter(|(_, executed)| *executed < height).collect(), owed)
    }

    /// Payloads of honest nodes executed.
    pub fn payloads_executed(&self) -> u64 {
        self.payloads.values().filter(|payload| payload.executed).count() as u64
    }
}

/// SHA-256 of a block as the specification lays it out.
pub fn block_digest(block: &Block) -> Digest {
    let mut bytes = Vec::with_capacity(256 + 32 * block.batches.len());
    bytes.extend(b"bizra/v1/block\0");
    bytes.extend(block.epoch.0.to_be_bytes());
    bytes.extend(block.height.0.to_be_bytes());
    bytes.extend(block.parent.0);
    bytes.extend(block.view.0.to_be_bytes());
    bytes.extend(block.proposer.0.to_be_bytes());
    bytes.extend(block.signals.0.to_be_bytes());
    bytes.extend(block.time_milliseconds.to_be_bytes());
    bytes.extend(block.checkpoint.height.0.to_be_bytes());
    bytes.extend(block.checkpoint.state.0);
    bytes.extend(block.checkpoint.receipts.0);
    match &block.boundary {
        None => bytes.push(0),
        Some(boundary) => {
            bytes.push(1);
            bytes.extend(boundary.validators.0);
            bytes.extend(boundary.snapshot.0);
            bytes.extend(boundary.version.0.to_be_bytes());
        }
    }
    bytes.extend((block.batches.len() as u64).to_be_bytes());
    block.batches.iter().for_each(|batch| bytes.extend(batch.0));
    bytes.extend((block.contradictions.len() as u64).to_be_bytes());
    for signed in block.contradictions.iter().flat_map(|told| [&told.first, &told.second]) {
        bytes.extend(signed.signer.0.to_be_bytes());
        bytes.extend(signed.vote.epoch.0.to_be_bytes());
        bytes.extend(signed.vote.view.0.to_be_bytes());
        bytes.push(signed.vote.kind as u8);
        bytes.extend(signed.vote.digest.0);
        bytes.extend(signed.signature.0);
    }
    Digest(Sha256::digest(&bytes).into())
}

/// SHA-256 of a batch as the specification lays it out.
pub fn batch_digest(genesis_hash: Digest, batch: &Batch) -> Digest {
    let mut bytes = Vec::with_capacity(80 + batch.payload.len());
    bytes.extend(b"bizra/v1/batch\0");
    bytes.extend(genesis_hash.0);
    bytes.extend(batch.epoch.0.to_be_bytes());
    bytes.extend(batch.origin.0.to_be_bytes());
    bytes.extend(batch.sequence.to_be_bytes());
    bytes.extend(&batch.payload[..]);
    Digest(Sha256::digest(&bytes).into())
}

/// The bytes of a vote as the specification lays them out.
pub fn vote_bytes(genesis_hash: Digest, vote: &Vote) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    bytes.extend(b"bizra/v1/vote\0");
    bytes.extend(genesis_hash.0);
    bytes.extend(vote.epoch.0.to_be_bytes());
    bytes.extend(vote.view.0.to_be_bytes());
    bytes.push(vote.kind as u8);
    bytes.extend(vote.digest.0);
    bytes
}
