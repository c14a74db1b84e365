//! The judge. It sees what honest nodes send, commit and execute, and knows the rules by itself: its own quorum
//! arithmetic, hashes and conflicts. It shares no code with the core but the plain data types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Batch, Change};
use bizra_simplex::types::Digest;
use bizra_simplex::{Block, Certificate, Message, SignedVote, Vote, VoteKind};
use sha2::{Digest as _, Sha256};

use crate::keys::KeyBook;

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
    powers: Vec<u64>,
    honest: Vec<bool>,
    keys: Arc<KeyBook>,
    genesis_hash: Digest,
    /// Digest of the finalised block at each height, whoever finalised it first; position 0 is the genesis block.
    chain: Vec<Digest>,
    /// Height that ordered each executed batch.
    batches: BTreeMap<Digest, u64>,
    nodes: Vec<Watched>,
    said: BTreeMap<(usize, u64), Said>,
    payloads: BTreeMap<Vec<u8>, Injected>,
    violations: Vec<Violation>,
}

impl Oracle {
    /// A judge of validators with these powers; nodes that are not honest are not watched. Nodes beyond the powers are
    /// full nodes.
    pub fn new(powers: Vec<u64>, honest: Vec<bool>, keys: Arc<KeyBook>, genesis_hash: Digest, genesis: &Block) -> Self {
        let nodes = vec![Watched::default(); honest.len()];
        Self {
            powers,
            honest,
            keys,
            genesis_hash,
            chain: vec![block_digest(genesis)],
            batches: BTreeMap::new(),
            nodes,
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

    /// Height a node has finalised.
    pub fn tip(&self, node: usize) -> u64 {
        self.nodes[node].tip
    }

    /// Notes something that the simulator itself found broken.
    pub fn accuse(&mut self, time: u64, node: usize, what: impl Into<String>) {
        self.violations.push(Violation { time, node, what: what.into() });
    }

    /// A node committed changes.
    pub fn committed(&mut self, time: u64, node: usize, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Finalize(blocks, certificate) => self.finalized(time, node, blocks, certificate),
                Change::Execute(block, batches) => self.executed(time, node, block, batches),
                Change::Record(_) | Change::Batch(..) | Change::HighestVote(_) => {}
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
                None => self.chain.push(digest),
                Some(known) if *known == digest => {}
                Some(known) => {
                    let what = format!("agreement: block {} is {digest:?}, elsewhere {known:?}", block.height);
                    self.accuse(time, node, what);
                }
            }
            self.nodes[node].tip = block.height.0;
        }
        let last = blocks.last().map(block_digest);
        let signers: BTreeSet<u16> = certificate.signatures.iter().map(|(signer, _)| signer.0).collect();
        let bytes = vote_bytes(self.genesis_hash, &certificate.vote);
        let sound = certificate.signatures.iter().all(|(signer, mark)| self.keys.verify(*signer, &bytes, *mark));
        let power: u128 =
            signers.iter().filter_map(|signer| self.powers.get(usize::from(*signer))).map(|p| u128::from(*p)).sum();
        let total: u128 = self.powers.iter().map(|power| u128::from(*power)).sum();
        if certificate.vote.kind != VoteKind::Finalize || last != Some(certificate.vote.digest) {
            self.accuse(time, node, "the certificate does not finalise the committed block");
        }
        if !sound || power * 3 <= total * 2 {
            self.accuse(time, node, format!("a certificate with power {power} of {total}, signatures valid: {sound}"));
        }
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
        if batches.len() != block.batches.len() {
            self.accuse(time, node, format!("executed {} of {} batches", batches.len(), block.batches.len()));
        }
        for (digest, batch) in block.batches.iter().zip(batches) {
            if *digest != batch_digest(self.genesis_hash, batch) {
                self.accuse(time, node, format!("executed another batch than {digest:?} at {height}"));
            }
            if !self.keys.verify(batch.origin, &digest.0, batch.signature) {
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

    /// True if the origin signed the batch and the application accepts its payload.
    pub fn accepts(&self, batch: &Batch) -> bool {
        let digest = batch_digest(self.genesis_hash, batch);
        self.keys.verify(batch.origin, &digest.0, batch.signature) && batch.payload.first() == Some(&VALID_PAYLOAD)
    }

    fn payload(&mut self, time: u64, node: usize, height: u64, batch: &Batch) {
        let origin = usize::from(batch.origin.0);
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

    /// A node starts from its disk.
    pub fn restarted(&mut self, time: u64, node: usize, tip: (u64, Digest), executed: u64) {
        let promised = self.nodes[node].promised;
        if tip.0 < promised {
            self.accuse(time, node, format!("durability: {promised} was final, after the restart {} is", tip.0));
        }
        if self.chain.get(tip.0 as usize) != Some(&tip.1) || executed > tip.0 {
            self.accuse(time, node, format!("restarted at {} (executed {executed}) off the chain", tip.0));
        }
        self.nodes[node] = Watched { tip: tip.0, promised: tip.0, executed };
    }

    /// An honest node sends a message.
    pub fn sent(&mut self, time: u64, node: usize, message: &PeerMessage) {
        let (vote, signature) = match message {
            PeerMessage::Consensus(Message::Vote(signed)) if usize::from(signed.signer.0) == node => {
                (signed.vote, signed.signature)
            }
            PeerMessage::Consensus(Message::Proposal(proposal)) => {
                let digest = block_digest(&proposal.block);
                let kind = VoteKind::Propose;
                (Vote { epoch: proposal.block.epoch, view: proposal.view, kind, digest }, proposal.signature)
            }
            _ => return,
        };
        let signer = bizra_simplex::types::ValidatorIndex(node as u16);
        if !self.keys.verify(signer, &vote_bytes(self.genesis_hash, &vote), signature) {
            self.accuse(time, node, format!("sent a vote with a wrong signature: {vote:?}"));
        }
        let said = self.said.entry((node, vote.view.0)).or_default();
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
    }

    /// A node shows evidence.
    pub fn evidence(&mut self, time: u64, node: usize, first: &SignedVote, second: &SignedVote) {
        let signer = usize::from(first.signer.0);
        if first.signer != second.signer || self.honest.get(signer).copied().unwrap_or(true) {
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
    let mut bytes = b"bizra/v1/block\0".to_vec();
    bytes.extend(block.epoch.0.to_be_bytes());
    bytes.extend(block.height.0.to_be_bytes());
    bytes.extend(block.parent.0);
    bytes.extend(block.time_milliseconds.to_be_bytes());
    bytes.extend((block.batches.len() as u64).to_be_bytes());
    block.batches.iter().for_each(|batch| bytes.extend(batch.0));
    Digest(Sha256::digest(&bytes).into())
}

/// SHA-256 of a batch as the specification lays it out.
pub fn batch_digest(genesis_hash: Digest, batch: &Batch) -> Digest {
    let mut bytes = b"bizra/v1/batch\0".to_vec();
    bytes.extend(genesis_hash.0);
    bytes.extend(batch.origin.0.to_be_bytes());
    bytes.extend(batch.sequence.to_be_bytes());
    bytes.extend(&batch.payload[..]);
    Digest(Sha256::digest(&bytes).into())
}

/// The bytes of a vote as the specification lays them out.
pub fn vote_bytes(genesis_hash: Digest, vote: &Vote) -> Vec<u8> {
    let mut bytes = b"bizra/v1/vote\0".to_vec();
    bytes.extend(genesis_hash.0);
    bytes.extend(vote.epoch.0.to_be_bytes());
    bytes.extend(vote.view.0.to_be_bytes());
    bytes.push(vote.kind as u8);
    bytes.extend(vote.digest.0);
    bytes
}
