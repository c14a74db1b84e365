//! The ledger at height 0.

use bizra_proto::ceremony::{Genesis, decode_hex};
use bizra_simplex::types::Digest;
use bizra_simplex::{Block, Checkpoint};

use super::checkpoint::{BlockSummary, checkpoint_key, encode_checkpoint, summary_key};
use super::history::Value;
use super::ledger::LedgerError;
use super::record::{LATTICE_KEY, STATE_KEY, State};
use super::sealing;
use super::state_entries::StateEntries;
use crate::storage::{Database, Family};
use crate::transaction::{Address, ChainId};
use crate::validator::{Conduct, Domain, EntryKey, Member, Money, Registry};
use bizra_ledger::Account;

fn state(genesis: &Genesis) -> Result<(State, Vec<(Address, Account)>), LedgerError> {
    let invalid = |what: String| LedgerError::Genesis(what);
    let chain = ChainId::new(&genesis.chain_id)
        .ok_or_else(|| invalid(format!("{:?} does not name a chain", genesis.chain_id)))?;
    let mut accounts = Vec::with_capacity(genesis.accounts.len());
    let invalid_supply = || invalid("the supply is too large".to_owned());
    let mut staked: u64 = 0;
    for validator in &genesis.validators {
        staked = validator.stake().and_then(|stake| staked.checked_add(stake)).ok_or_else(invalid_supply)?;
    }
    let mut supply = staked;
    for account in &genesis.accounts {
        let read = || Some((Address(decode_hex(&account.address)?), account.balance()?));
        let (address, balance) = read().ok_or_else(|| invalid(format!("account {} is malformed", account.address)))?;
        supply = supply.checked_add(balance).ok_or_else(invalid_supply)?;
        accounts.push((address, Account { balance, nonce: 0 }));
    }
    genesis.parameters.check().map_err(|error| invalid(error.to_string()))?;
    let next_cutoff = genesis.parameters.epoch_blocks;
    let money = Money { staked, slashed: 0 };
    let state = State { chain, executed: 0, supply, fees: 0, transactions: 0, money, next_cutoff };
    Ok((state, accounts))
}

/// The members of the first set, each with its stake.
fn members(genesis: &Genesis) -> Result<Vec<(Member, u64)>, LedgerError> {
    let member = |validator: &bizra_proto::ceremony::GenesisValidator| {
        let consensus_key = decode_hex(&validator.public_key)?;
        let owner = Address(validator.owner(consensus_key)?);
        let (name, power, conduct) = (validator.name.clone(), validator.power()?, Conduct::default());
        Some((Member { owner, name, consensus_key, power, conduct }, validator.stake()?))
    };
    let invalid = |name: &str| LedgerError::Genesis(format!("validator {name} is malformed"));
    genesis.validators.iter().map(|validator| member(validator).ok_or_else(|| invalid(&validator.name))).collect()
}

/// The state of a database that was opened before, if it is of the same chain.
pub(super) fn existing_state(bytes: &[u8], genesis: &Genesis) -> Result<State, LedgerError> {
    let found = State::decode(bytes)?;
    let (wanted, _) = state(genesis)?;
    if (found.chain, found.supply) == (wanted.chain, wanted.supply) {
        return Ok(found);
    }
    Err(LedgerError::AnotherChain {
        found: found.chain,
        found_supply: found.supply,
        wanted: wanted.chain,
        supply: wanted.supply,
    })
}

/// Writes the genesis state, durably.
pub(super) fn write(
    database: &Database,
    genesis: &Genesis,
    genesis_hash: Digest,
) -> Result<(State, Registry), LedgerError> {
    let (state, accounts) = state(genesis)?;
    let mut writes = database.writes();
    let mut lattice = super::commitment::LtHash::default();
    for (address, account) in accounts {
        if let Some(bytes) = Value::account(account).bytes() {
            writes.put(Family::Accounts, &address.0, bytes)?;
            lattice.add(&EntryKey::of(Domain::Account, address), bytes);
        }
    }
    let mut entries = StateEntries::new(database.clone());
    let registry = Registry::genesis(members(genesis)?, genesis.parameters, &mut entries)?;
    for (key, value) in entries.new_entries() {
        lattice.add(key, value);
    }
    entries.write(&mut writes, 0, &mut Vec::new())?;

    let hash = Block::genesis(genesis_hash, genesis.time_milliseconds).digest();
    let summary = BlockSummary::of(hash, &[]);
    writes.put(Family::Ledger, &summary_key(0), &summary.encode())?;
    writes.put(Family::Ledger, &checkpoint_key(0), &encode_checkpoint(&Checkpoint::default()))?;
    writes.put(Family::Ledger, LATTICE_KEY, &sealing::encode_lattice(&lattice, &state))?;
    writes.put(Family::Ledger, STATE_KEY, &state.encode())?;
    writes.commit_synced()?;
    Ok((state, registry))
}
