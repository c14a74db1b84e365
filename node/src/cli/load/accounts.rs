//! Accounts of the load: keys derived from a seed, so that a genesis can fund them before any of them exists.

use std::io::Write as _;
use std::num::NonZeroU32;

use bizra_proto::ceremony::GenesisAccount;
use clap::Args;
use ed25519_zebra::SigningKey;
use sha2::{Digest as _, Sha256};

use crate::cli::owner_key;
use crate::cli::termination::CliError;

/// Seed of the accounts unless another is given.
pub(super) const DEFAULT_SEED: &str = "bizra";

const KEY_DOMAIN: &[u8] = b"bizra/v1/load-account\0";

/// Arguments of `load accounts`.
#[derive(Args, Clone, Debug)]
pub struct AccountsArgs {
    /// How many.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub count: NonZeroU32,
    /// Balance of each, base units.
    #[arg(long, default_value_t = 1_000_000)]
    pub balance: u64,
    /// The keys are derived from this.
    #[arg(long, value_name = "TEXT", default_value = DEFAULT_SEED)]
    pub keys_seed: String,
}

impl AccountsArgs {
    pub(super) fn print(&self) -> Result<(), CliError> {
        let accounts = genesis_accounts(&self.keys_seed, self.count.get(), self.balance);
        let document = serde_json::to_string_pretty(&accounts).map_err(CliError::failed)?;
        writeln!(std::io::stdout(), "{document}").map_err(CliError::failed)
    }
}

/// The first `count` accounts of a seed, as a genesis lists them.
pub fn genesis_accounts(seed: &str, count: u32, balance: u64) -> Vec<GenesisAccount> {
    let account = |key: &SigningKey| GenesisAccount {
        address: owner_key::address(key).to_string(),
        balance: balance.to_string(),
    };
    derive(seed, count).iter().map(account).collect()
}

/// The first `count` keys of a seed.
pub(super) fn derive(seed: &str, count: u32) -> Vec<SigningKey> {
    let key = |index: u32| {
        let hash = Sha256::new().chain_update(KEY_DOMAIN).chain_update(index.to_be_bytes()).chain_update(seed);
        SigningKey::from(<[u8; 32]>::from(hash.finalize()))
    };
    (0..count).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_accounts_for_ever_and_another_seed_others() {
        let addresses = |seed: &str, count| genesis_accounts(seed, count, 1);
        assert_eq!(addresses("a", 3)[..2], addresses("a", 2)[..]);
        assert_ne!(addresses("a", 1), addresses("b", 1));
    }
}
