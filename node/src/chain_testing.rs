//! A chain for tests: real blocks, batches, certificates and epochs on a real database, made by hand instead of by
//! consensus. Every kind of event happens on it within 220 blocks.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bizra_driver::PublicKey;
use bizra_driver::batch::Batch;
use bizra_driver::light::Link;
use bizra_proto::ceremony::{Genesis, GenesisAccount, GenesisValidator};
use bizra_proto::parameters::Parameters;
use bizra_simplex::block::{Block, Boundary, CHECKPOINT_INTERVAL};
use bizra_simplex::types::{Digest, Epoch, Height, Power, Signature, ValidatorIndex, View};
use bizra_simplex::{Certificate, Contradiction, Protocol, Record, SignedVote, Version, Vote, VoteKind};
use bytes::Bytes;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};

use crate::block::BlockStore;
use crate::blockchain::{Ledger, LedgerMetrics};
use crate::configuration::LoadedGenesis;
use crate::configuration::genesis::Member;
use crate::event_store;
use crate::storage::Database;
use crate::transaction::{
    Address, ChainId, Equivocation, KeyProof, Operation, PayloadBuilder, Terms, TraceId, Transfer,
};

pub(crate) const GENESIS_HASH: Digest = Digest([5; 32]);
const EPOCH_BLOCKS: u64 = 32;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from([seed; 32])
}

pub(crate) fn public(seed: u8) -> [u8; 32] {
    VerificationKeyBytes::from(&key(seed)).into()
}

pub(crate) fn address(seed: u8) -> Address {
    Address(public(seed))
}

/// Owners 1 to 4 own validators with consensus keys 101 to 104 and power 100; accounts 1 to 9 have 1,000,000.
pub(crate) fn genesis() -> LoadedGenesis {
    let validator = |seed: u8| GenesisValidator {
        name: format!("v{seed}"),
        public_key: hex::encode(public(100 + seed)),
        proof_of_possession: String::new(),
        power: "100".to_owned(),
        owner: Some(address(seed).to_string()),
        stake: None,
    };
    let account = |seed: u8| GenesisAccount { address: address(seed).to_string(), balance: "1000000".to_owned() };
    let member = |seed: u8| Member { name: format!("v{seed}"), public_key: public(100 + seed), power: Power(100) };
    let genesis = Genesis {
        version: 1,
        chain_id: "demo-1".to_owned(),
        time_milliseconds: 0,
        validators: (1..=4).map(validator).collect(),
        accounts: (1..=9).map(account).collect(),
        parameters: Parameters { epoch_blocks: EPOCH_BLOCKS, unbonding_epochs: 2, ..Parameters::default() },
    };
    LoadedGenesis { genesis, hash: GENESIS_HASH, validators: (1..=4).map(member).collect() }
}

/// See the module.
pub(crate) struct TestChain {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) database: Database,
    pub(crate) blocks: BlockStore,
    pub(crate) ledger: Ledger,
    pub(crate) genesis: LoadedGenesis,
    parent: Block,
    view: u64,
    sequence: u64,
    nonces: [u64; 16],
    earlier: Option<Bytes>,
    /// What the block of a height reports.
    pub(crate) reports: BTreeMap<u64, Contradiction>,
    /// The height whose block another than its leader makes.
    pub(crate) usurped: Option<u64>,
    /// Not finalised yet.
    pending: Vec<(Block, Vec<Batch>)>,
}

pub(crate) fn genesis_block() -> Block {
    Block::genesis(GENESIS_HASH, 0)
}

pub(crate) fn open_ledger(database: &Database) -> Ledger {
    let metrics = LedgerMetrics::new(&prometheus::Registry::new()).unwrap();
    Ledger::open(database.clone(), &genesis().genesis, GENESIS_HASH, metrics).unwrap()
}

impl TestChain {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        Self {
            blocks: BlockStore::open(database.clone(), genesis_block()).unwrap(),
            ledger: open_ledger(&database),
            genesis: genesis(),
            folder,
            database,
            parent: genesis_block(),
            view: 0,
            sequence: 0,
            nonces: [0; 16],
            earlier: None,
            // It would jail a third of the power: refused.
            reports: BTreeMap::from([(42, contradiction(0, 2))]),
            usurped: None,
            pending: Vec::new(),
        }
    }

    pub(crate) fn height(&self) -> u64 {
        self.ledger.executed().0
    }

    /// Closes the database and opens it again, as a restart does: what was in the log becomes tables. `lose` makes a turn
    /// before that is never committed.
    pub(crate) fn reopen(self, lose: bool) -> Self {
        let Self {
            folder,
            database,
            blocks,
            mut ledger,
            genesis,
            parent,
            view,
            sequence,
            nonces,
            earlier,
            reports,
            usurped,
            pending,
        } = self;
        assert!(pending.is_empty());
        if lose {
            let next =
                Block { height: parent.height.next(), ..Block::genesis(parent.digest(), parent.time_milliseconds) };
            let mut writes = database.writes();
            let outcome = ledger.execute(&next, &[], &mut writes).unwrap();
            event_store::append(&mut writes, &outcome).unwrap();
        }
        drop((database, blocks, ledger));
        let database = Database::open(folder.path()).unwrap();
        let (blocks, ledger) = (BlockStore::open(database.clone(), genesis_block()).unwrap(), open_ledger(&database));
        Self {
            folder,
            database,
            blocks,
            ledger,
            genesis,
            parent,
            view,
            sequence,
            nonces,
            earlier,
            reports,
            usurped,
            pending,
        }
    }

    /// Makes and finalises blocks until this height is finalised and executed.
    pub(crate) fn run_to(&mut self, height: u64) {
        while self.parent.height.0 < height {
            self.make_block(height);
        }
    }

    fn signer(&self, epoch: Epoch, index: usize) -> SigningKey {
        let set = self.ledger.validators_of_epoch(epoch.0).unwrap();
        let seed = (101..=120).find(|&seed| public(seed) == set.members[index].consensus_key);
        key(seed.unwrap())
    }

    fn make_block(&mut self, last: u64) {
        let height = self.parent.height.next();
        let epoch = if self.parent.boundary.is_some() { self.parent.epoch.next() } else { self.parent.epoch };
        if self.parent.boundary.is_some() {
            self.view = 0;
        }
        // One turn in ten comes to nothing.
        self.view += 1 + u64::from(height.0.is_multiple_of(10));
        let (view, set) = (View(self.view), self.ledger.validators_of_epoch(epoch.0).unwrap());
        let leader = set.validator_set().unwrap().leader(view);
        let executed = self.height();
        let named = executed - executed % CHECKPOINT_INTERVAL;
        let checkpoint = self.ledger.checkpoint(named).unwrap().unwrap_or_default();
        let ends = named >= (epoch.0 + 1) * EPOCH_BLOCKS;
        let boundary = ends.then(|| {
            let next = self.ledger.validators_of_epoch(epoch.0 + 1).unwrap();
            Boundary { validators: next.hash(), snapshot: Digest::default(), version: Version(next.version) }
        });
        let transactions = self.transactions(height.0);
        // Two batches when there are enough transactions, of two origins.
        let (first, second) = transactions.split_at(transactions.len().min(3));
        let batches: Vec<Batch> = [first, second]
            .into_iter()
            .enumerate()
            .filter(|(_, transactions)| !transactions.is_empty())
            .map(|(origin, transactions)| self.batch(epoch, origin, transactions))
            .collect();
        let block = Block {
            epoch,
            height,
            parent: self.parent.digest(),
            view,
            time_milliseconds: height.0,
            checkpoint,
            boundary,
            contradictions: self.reports.get(&height.0).copied().into_iter().collect(),
            proposer: if self.usurped == Some(height.0) { ValidatorIndex((leader.0 + 1) % 4) } else { leader },
            signals: Protocol::LATEST.version(),
            batches: batches.iter().map(|batch| batch.digest(GENESIS_HASH)).collect(),
        };
        self.parent = block.clone();
        self.pending.push((block, batches));
        // Every seventh block is finalised by the one above it.
        if !height.0.is_multiple_of(7) || ends || height.0 == last {
            self.finalize();
        }
    }

    fn certificate(&self, kind: VoteKind, block: &Block) -> Certificate {
        let vote = Vote { epoch: block.epoch, view: View(self.view), kind, digest: block.digest() };
        let message = vote.signed_bytes(GENESIS_HASH);
        let sign = |index: usize| Signature(self.signer(block.epoch, index).sign(&message).into());
        let members = self.ledger.validators_of_epoch(block.epoch.0).unwrap().members.len();
        let signatures = (0..members).map(|index| (ValidatorIndex(index as u16), sign(index))).collect();
        Certificate { vote, signatures }
    }

    fn finalize(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let blocks: Vec<Block> = pending.iter().map(|(block, _)| block.clone()).collect();
        let last = blocks.last().unwrap().clone();
        let certificate = self.certificate(VoteKind::Finalize, &last);
        let mut writes = self.database.writes();
        for batch in pending.iter().flat_map(|(_, batches)| batches) {
            self.blocks.put_batch(&mut writes, batch.digest(GENESIS_HASH), batch).unwrap();
        }
        self.blocks.finalize(&mut writes, &blocks, &certificate).unwrap();
        for (block, batches) in &pending {
            let outcome = self.ledger.execute(block, batches, &mut writes).unwrap();
            event_store::append(&mut writes, &outcome).unwrap();
        }
        if last.boundary.is_some() {
            let next = self.ledger.validators_of_epoch(last.epoch.0 + 1).unwrap().voters();
            let link = Link { block: last.clone(), finalization: certificate, next };
            self.blocks.put_link(&mut writes, &link).unwrap();
        }
        writes.commit_unsynced().unwrap();
        self.blocks.finalized_to(&last);
    }

    fn batch(&mut self, epoch: Epoch, origin: usize, transactions: &[Bytes]) -> Batch {
        let mut builder = PayloadBuilder::default();
        for (number, transaction) in (1..).zip(transactions) {
            builder.push(TraceId([number; 16]), transaction);
        }
        self.sequence += 1;
        let payload = builder.finish().unwrap();
        let (origin_index, sequence) = (ValidatorIndex(origin as u16), self.sequence);
        let unsigned = Batch { epoch, origin: origin_index, sequence, payload, signature: Signature([0; 64]) };
        let signature = self.signer(epoch, origin).sign(&unsigned.digest(GENESIS_HASH).0);
        Batch { signature: Signature(signature.into()), ..unsigned }
    }

    fn terms(&mut self, seed: u8) -> Terms {
        let nonce = self.nonces[usize::from(seed)];
        self.nonces[usize::from(seed)] += 1;
        Terms { chain: ChainId::new("demo-1").unwrap(), nonce, fee: 1, expiry_height: 5_000 }
    }

    fn transfer(&mut self, from: u8, to: u8, amount: u64) -> Bytes {
        let Terms { chain, nonce, fee, expiry_height } = self.terms(from);
        let memo = &[from; 300];
        Transfer { chain, nonce, fee, expiry_height, recipient: address(to), amount, memo }.sign(&key(from)).unwrap()
    }

    fn key_proof(&self, owner: u8, consensus: u8) -> KeyProof {
        let height = self.height();
        let block = self.blocks.get(Height(height)).unwrap().unwrap().block.digest();
        let message = KeyProof::message(address(owner), height, block);
        let signature = Signature(key(consensus).sign(&message).into());
        KeyProof { public_key: public(consensus), height, block, signature }
    }

    fn transactions(&mut self, height: u64) -> Vec<Bytes> {
        let mut transactions = Vec::new();
        if height % 11 == 10 {
            return transactions;
        }
        for from in 6..9 {
            transactions.push(self.transfer(from, 10 + (height % 3) as u8, height));
        }
        if height.is_multiple_of(5) {
            let broke = Transfer {
                chain: ChainId::new("demo-1").unwrap(),
                nonce: 1_000 + height,
                fee: 1,
                expiry_height: 5_000,
                recipient: address(1),
                amount: 1,
                memo: b"a wrong nonce",
            };
            transactions.push(broke.sign(&key(1)).unwrap());
        }
        if let Some(earlier) = self.earlier.take().filter(|_| height.is_multiple_of(6)) {
            transactions.push(earlier);
        }
        self.earlier = transactions.first().cloned();
        for (owner, operation) in self.operations(height) {
            let terms = self.terms(owner);
            transactions.push(terms.sign(&operation, &key(owner)).unwrap());
        }
        transactions
    }

    fn operations(&self, height: u64) -> Vec<(u8, Operation)> {
        let wanted = Parameters { stake_per_power: 900, ..self.genesis.genesis.parameters };
        match height {
            2 => vec![
                (5, Operation::ReserveStake { amount: 50_000 }),
                (9, Operation::ReserveStake { amount: 5_000 }),
                (1, Operation::ReserveStake { amount: 10_000 }),
            ],
            3 => vec![
                (5, Operation::RegisterValidator { name: "v5".to_owned() }),
                (9, Operation::RegisterValidator { name: "v9".to_owned() }),
            ],
            4 => vec![
                (5, Operation::ActivateValidator(self.key_proof(5, 105))),
                (9, Operation::ActivateValidator(self.key_proof(9, 109))),
                (1, Operation::RotateConsensusKey(self.key_proof(1, 111))),
            ],
            5 => vec![(9, Operation::DeactivateValidator), (1, Operation::ReleaseStake { amount: 4_000 })],
            6 => vec![(9, Operation::DeregisterValidator)],
            40 => vec![(9, Operation::ReportEquivocation(equivocation(102, 0)))],
            41 => [1, 3, 4, 5].map(|owner| (owner, Operation::UpdateParameters(wanted))).to_vec(),
            200 => vec![(1, Operation::ReleaseStake { amount: 0 })],
            _ => Vec::new(),
        }
    }

    /// Adds what a running node has above its last finalised block: a proposal, its notarization, votes, evidence, and a
    /// batch that nobody ordered.
    pub(crate) fn add_unfinalized(&mut self) {
        let epoch = self.parent.epoch;
        self.view += 1;
        let view = View(self.view);
        let (height, parent) = (self.parent.height.next(), self.parent.digest());
        let block = Block { height, parent, view, ..self.parent.clone() };
        let certificate = self.certificate(VoteKind::Notarize, &block);
        let transaction = self.transfer(6, 7, 1);
        let batch = self.batch(epoch, 1, &[transaction]);
        let (signer, signature) = certificate.signatures[0];
        let vote = SignedVote { vote: certificate.vote, signer, signature };
        let public_key = PublicKey(self.ledger.validators_of_epoch(epoch.0).unwrap().members[0].consensus_key);
        let other = Vote { digest: Digest([1; 32]), ..vote.vote };
        let signature = Signature(self.signer(epoch, 0).sign(&other.signed_bytes(GENESIS_HASH)).into());
        let told = Contradiction::new(vote, SignedVote { vote: other, signer, signature });
        let mut writes = self.database.writes();
        self.blocks.put_record(&mut writes, &Record::Block(block)).unwrap();
        self.blocks.put_record(&mut writes, &Record::Certificate(certificate)).unwrap();
        self.blocks.put_vote(&mut writes, public_key, &vote).unwrap();
        self.blocks.put_evidence(&mut writes, public_key, &told.first, &told.second).unwrap();
        self.blocks.put_batch(&mut writes, batch.digest(GENESIS_HASH), &batch).unwrap();
        writes.commit_unsynced().unwrap();
    }
}

/// Two votes of one view that the validator of this index in the set of the genesis signed.
pub(crate) fn contradiction(epoch: u64, signer: u16) -> Contradiction {
    let Equivocation { first, second, .. } = equivocation(101 + signer as u8, epoch);
    let by_signer = |(vote, signature)| SignedVote { vote, signer: ValidatorIndex(signer), signature };
    Contradiction::new(by_signer(first), by_signer(second))
}

fn equivocation(consensus: u8, epoch: u64) -> Equivocation {
    let vote = |digest: u8| {
        let vote = Vote { epoch: Epoch(epoch), view: View(7), kind: VoteKind::Notarize, digest: Digest([digest; 32]) };
        (vote, Signature(key(consensus).sign(&vote.signed_bytes(GENESIS_HASH)).into()))
    };
    Equivocation { public_key: public(consensus), first: vote(1), second: vote(2) }
}
