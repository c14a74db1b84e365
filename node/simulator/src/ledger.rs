//! The ledger of one simulated volume: the shipped rules over entries in memory. It does for a block what the node's ledger
//! does, in the same order, without receipts and commitments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bizra_driver::{Batch, Member, PublicKey};
use bizra_ledger::{
    Account, BlockAccounts, Conduct, Domain, Entries, EntryKey, Ground, Money, RECENT_BLOCKS, Registry, Stake, Step,
    StepAction, StorageError, Turn, Validator, ValidatorSetRecord, apply, is_reported,
};
use bizra_proto::parameters::Parameters;
use bizra_simplex::types::{Digest, Epoch, Signature};
use bizra_simplex::{Block, Version};
use bizra_transaction::{Action, Address, Transaction};

use crate::accounts::{CLIENTS, address};
use crate::keys::KeyBook;
use crate::oracle::VALID_PAYLOAD;
use crate::random::{fold, fold_bytes};
use crate::schedule::{Schedule, key_of, node_of};

/// Base units of stake for one unit of power.
pub(crate) const STAKE_PER_POWER: u64 = 100;

/// Epochs from a release to its payment.
const UNBONDING_EPOCHS: u32 = 2;

/// Base units every account begins with.
const BALANCE: u64 = 100_000;

/// Where a transaction begins in a payload that carries one: after the mark and the payload's number.
pub(crate) const PAYLOAD_HEADER: usize = 9;

/// State entries other than accounts, and a hash over everything that was ever set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    entries: BTreeMap<EntryKey, Vec<u8>>,
    hash: u64,
}

impl Entries for Book {
    fn get(&self, key: &EntryKey) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.entries.get(key).cloned())
    }

    fn set(&mut self, key: EntryKey, value: Option<Vec<u8>>) -> Result<(), StorageError> {
        self.hash = fold_bytes(fold_bytes(self.hash, &key.0), value.as_deref().unwrap_or_default());
        match value {
            Some(value) => drop(self.entries.insert(key, value)),
            None => drop(self.entries.remove(&key)),
        }
        Ok(())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    keys: Arc<KeyBook>,
    genesis_hash: Digest,
    book: Book,
    accounts: BTreeMap<Address, Account>,
    registry: Registry,
    fees: u64,
    money: Money,
    supply: u64,
    height: u64,
    next_cutoff: u64,
    recent: VecDeque<Digest>,
    broken: Option<String>,
}

impl Ledger {
    /// The ledger of a genesis. Whoever validates first has its power granted.
    pub(crate) fn genesis(schedule: &Schedule, keys: Arc<KeyBook>, genesis_hash: Digest) -> Self {
        let member = |(owner, (node, power)): (usize, &(usize, u64))| {
            let (owner, name) = (address(owner), name_of(owner));
            let consensus_key = key_of(*node).0;
            (bizra_ledger::Member { owner, name, consensus_key, power: *power, conduct: Conduct::default() }, 0)
        };
        let members = schedule.of(Epoch(0)).iter().enumerate().map(member).collect();
        let blocks = schedule.blocks().unwrap_or(u64::MAX);
        let parameters = Parameters {
            epoch_blocks: blocks,
            unbonding_epochs: UNBONDING_EPOCHS,
            stake_per_power: STAKE_PER_POWER,
            slash_per_mille: 100,
            protocol_version: schedule.first().version().0,
        };
        let mut book = Book::default();
        let registry = Registry::genesis(members, parameters, &mut book);
        let account = Account { balance: BALANCE, nonce: 0 };
        let accounts: BTreeMap<Address, Account> = (0..CLIENTS.end).map(|number| (address(number), account)).collect();
        Self {
            keys,
            genesis_hash,
            book,
            supply: BALANCE * accounts.len() as u64,
            accounts,
            // Entries in memory do not fail.
            registry: registry.unwrap_or_else(|error| unreachable!("{error}")),
            fees: 0,
            money: Money::default(),
            height: 0,
            next_cutoff: blocks,
            recent: VecDeque::new(),
            broken: None,
        }
    }

    /// A process starts: what it knows of validators is what is stored.
    pub(crate) fn reopen(&mut self) {
        let stored = self.book.entries.iter().map(|(key, value)| Ok((*key, value.clone())));
        match Registry::load(stored) {
            Ok(registry) => self.registry = registry,
            Err(error) => self.broken = Some(error.to_string()),
        }
    }

    /// Executes the block after the last executed one.
    pub(crate) fn execute(&mut self, digest: Digest, block: &Block, batches: &[Batch]) {
        if let Err(error) = self.run(block, batches) {
            self.broken = Some(error.to_string());
        }
        self.height = block.height.0;
        self.recent.push_back(digest);
        if self.recent.len() > RECENT_BLOCKS as usize {
            self.recent.pop_front();
        }
    }

    fn run(&mut self, block: &Block, batches: &[Batch]) -> Result<(), StorageError> {
        let height = block.height.0;
        let Self { keys, genesis_hash, book, accounts, registry, fees, money, recent, .. } = self;
        let mut touched = BlockAccounts::default();
        let steps: Vec<Step> = batches.iter().filter_map(|batch| plan(&batch.payload, &mut touched)).collect();
        touched.load(|address| Some(accounts.get(address).copied().unwrap_or_default()), |_| Ok(Vec::new()))?;
        let recent_block = |wanted: u64| {
            let below = height.checked_sub(wanted).filter(|below| (1..=RECENT_BLOCKS).contains(below))?;
            recent.get(recent.len().checked_sub(below as usize)?).copied()
        };
        let verify = |key: [u8; 32], signature: Signature, message: &[u8]| {
            let node = node_of(key);
            key_of(node).0 == key && keys.verify(node, message, signature)
        };
        let mut ground = Ground {
            fees,
            money,
            registry,
            turn: Turn {
                entries: book,
                height,
                recent_block: &recent_block,
                domain: &|_| *genesis_hash,
                verify: &verify,
                signature_checks: &mut 0,
            },
        };
        ground.registry.note_signal(block, ground.turn.entries)?;
        ground.registry.note_turns(block, ground.turn.entries)?;
        for told in &block.contradictions {
            let Ground { registry, money, turn, .. } = &mut ground;
            registry.take_report(block.epoch.0, told, money, turn)?;
        }
        for step in &steps {
            apply(step, height, &mut touched, &mut ground)?;
        }
        if height == self.next_cutoff {
            self.registry.cut_off(height, &mut self.book)?;
            self.next_cutoff = height.saturating_add(self.registry.parameters().epoch_blocks);
        }
        for account in touched.touched().iter().filter(|account| account.changed()) {
            self.book.hash = fold(
                fold_bytes(self.book.hash, &account.address.0),
                account.account.balance ^ account.account.nonce << 48,
            );
            self.accounts.insert(account.address, account.account);
        }
        Ok(())
    }

    /// Hash over everything that execution has ever written.
    pub(crate) fn hash(&self) -> u64 {
        self.book.hash
    }

    /// Why it could not go on.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Height of the block executed last.
    pub(crate) fn height(&self) -> u64 {
        self.height
    }

    /// Digest of that block, once there is one.
    pub(crate) fn last_block(&self) -> Option<Digest> {
        self.recent.back().copied()
    }

    /// The set of an epoch, as the rules know it now.
    pub(crate) fn set(&self, epoch: u64) -> Option<&Arc<ValidatorSetRecord>> {
        self.registry.set(epoch)
    }

    /// The set named last.
    pub(crate) fn latest(&self) -> Option<&Arc<ValidatorSetRecord>> {
        self.registry.latest().ok()
    }

    /// A signature of a node's consensus key.
    pub(crate) fn sign(&self, node: usize, message: &[u8]) -> Option<Signature> {
        self.keys.sign(node, message)
    }

    /// The set of an epoch as consensus asks for it.
    pub(crate) fn voters(&self, epoch: Epoch) -> Option<Vec<Member>> {
        self.registry.set(epoch.0).map(|set| set.voters())
    }

    pub(crate) fn version(&self, epoch: Epoch) -> Option<Version> {
        self.registry.set(epoch.0).map(|set| Version(set.version))
    }

    /// The set that the state at a cut-off height has named.
    pub(crate) fn set_at_cutoff(&self, height: u64) -> Option<&Arc<ValidatorSetRecord>> {
        self.registry.set_at_cutoff(height)
    }

    pub(crate) fn is_reported(&self, key: PublicKey, epoch: Epoch) -> bool {
        is_reported(&self.book, key.0, epoch.0).unwrap_or(true)
    }

    /// Height at which a key was punished.
    pub(crate) fn punished(&self, key: PublicKey) -> Option<u64> {
        let value = self.book.entries.get(&EntryKey::new(Domain::Punished, key.0))?;
        value.as_slice().try_into().ok().map(u64::from_be_bytes)
    }

    /// An account.
    pub(crate) fn account(&self, owner: usize) -> Account {
        self.accounts.get(&address(owner)).copied().unwrap_or_default()
    }

    /// The stake of an account, as stored.
    pub(crate) fn stake(&self, owner: usize) -> Stake {
        let value = self.book.entries.get(&EntryKey::of(Domain::Stake, address(owner)));
        value.and_then(|bytes| Stake::decode(bytes).ok()).unwrap_or_default()
    }

    /// The validator of an account, as stored.
    pub(crate) fn validator(&self, owner: usize) -> Option<Validator> {
        let value = self.book.entries.get(&EntryKey::of(Domain::Validator, address(owner)))?;
        Validator::decode(value).ok()
    }

    /// Sums of the money there is, added up anew from every account and every stake.
    pub(crate) fn sums(&self) -> Sums {
        let stakes = self.book.entries.range(EntryKey::single(Domain::Stake)..).map_while(|(key, value)| {
            (key.0[0] == Domain::Stake as u8).then(|| Stake::decode(value).map_or(0, |stake| u128::from(stake.total())))
        });
        Sums {
            balances: self.accounts.values().map(|account| u128::from(account.balance)).sum(),
            stakes: stakes.sum(),
            staked: self.money.staked,
            fees: self.fees,
            slashed: self.money.slashed,
            supply: self.supply,
        }
    }
}

/// Money in base units, by where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    balances: u128,
    stakes: u128,
    staked: u64,
    fees: u64,
    slashed: u64,
    supply: u64,
}

impl Sums {
    /// True if none was made and none was lost.
    pub(crate) fn are_conserved(&self) -> bool {
        let held = self.balances + self.stakes + u128::from(self.fees) + u128::from(self.slashed);
        held == u128::from(self.supply) && self.stakes == u128::from(self.staked)
    }
}

/// The name of an owner's validator.
pub(crate) fn name_of(owner: usize) -> String {
    format!("v{owner}")
}

/// The transaction of a payload, if it carries one: others are for no ledger.
fn plan(payload: &[u8], accounts: &mut BlockAccounts) -> Option<Step> {
    let (header, transaction) = payload.split_at_checked(PAYLOAD_HEADER)?;
    if header.first() != Some(&VALID_PAYLOAD) {
        return None;
    }
    let Transaction { sender, terms, action, .. } = Transaction::decode(transaction).ok()?;
    let slot = accounts.mention(sender);
    let action = match action {
        Action::Transfer { recipient, amount, .. } => {
            StepAction::Transfer { recipient: accounts.mention(recipient), amount }
        }
        Action::Operation(operation) => StepAction::Operation(sender, operation),
    };
    Some(Step { sender: slot, nonce: terms.nonce, fee: terms.fee, expiry_height: terms.expiry_height, action })
}
