//! Makes sure that every account of the load can pay, from a sponsor's account if there is one.

use std::path::Path;
use std::time::Duration;

use bizra_proto::v1::ledger_client::LedgerClient;
use bizra_proto::v1::{GetAccountResponse, GetChainResponse};
use ed25519_zebra::SigningKey;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;

use super::plan::{self, Scheduled};
use super::stream as submission;
use crate::cli::output::progress;
use crate::cli::termination::CliError;
use crate::cli::{client, owner_key};
use crate::transaction::Transfer;

/// Account reads in flight at a time.
const READS_AT_ONCE: usize = 64;
/// Funding transfers sent before waiting for them: the sponsor's nonces stay in order.
const TRANSFERS_AT_ONCE: usize = 500;
const EXPIRY_BLOCKS: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// The nonces of the accounts, once each holds at least `needed`.
pub(super) async fn prepare(
    client: &LedgerClient<Channel>,
    chain: &GetChainResponse,
    keys: &[SigningKey],
    needed: u64,
    sponsor: Option<&Path>,
) -> Result<Vec<u64>, CliError> {
    let accounts = read_accounts(client, keys).await?;
    let poor: Vec<_> = keys.iter().zip(&accounts).filter(|(_, account)| account.balance < needed).collect();
    if !poor.is_empty() {
        let Some(sponsor) = sponsor else {
            return Err(CliError::Failed(format!(
                "{} of {} accounts hold less than {needed}; put `load accounts` into the genesis, or give a --sponsor-key",
                poor.len(),
                keys.len()
            )));
        };
        let sponsor = owner_key::read(sponsor)?;
        progress(format_args!("funding {} accounts", poor.len()));
        fund(client, chain, &sponsor, &poor, needed).await?;
    }
    Ok(accounts.into_iter().map(|account| account.nonce).collect())
}

async fn read_accounts(
    client: &LedgerClient<Channel>,
    keys: &[SigningKey],
) -> Result<Vec<GetAccountResponse>, CliError> {
    let addresses: Vec<_> = keys.iter().map(owner_key::address).collect();
    let reads = addresses.into_iter().map(|address| {
        let mut client = client.clone();
        async move { client::account(&mut client, address.0).await }
    });
    stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
}

async fn fund(
    client: &LedgerClient<Channel>,
    chain: &GetChainResponse,
    sponsor: &SigningKey,
    poor: &[(&SigningKey, &GetAccountResponse)],
    needed: u64,
) -> Result<(), CliError> {
    let id = plan::chain_id(chain)?;
    let expiry_height = chain.finalized_height.saturating_add(EXPIRY_BLOCKS);
    let mut nonce = client::account(&mut client.clone(), owner_key::address(sponsor).0).await?.nonce;
    for group in poor.chunks(TRANSFERS_AT_ONCE) {
        let mut transfers = Vec::with_capacity(group.len());
        for (key, account) in group {
            let amount = needed.saturating_sub(account.balance);
            let recipient = owner_key::address(key);
            let transfer = Transfer { chain: id, nonce, fee: 0, expiry_height, recipient, amount, memo: &[] };
            let bytes = transfer.sign(sponsor).map_err(CliError::failed)?;
            transfers.push(Scheduled { due: Duration::ZERO, bytes });
            nonce += 1;
        }
        let count = transfers.len() as u64;
        let outcome = submission::run(client.clone(), transfers, tokio::time::Instant::now(), PATIENCE).await;
        if outcome.applied < count {
            return Err(CliError::Failed(format!(
                "only {} of {count} funding transfers were applied: {}",
                outcome.applied,
                outcome.complaints()
            )));
        }
    }
    Ok(())
}
