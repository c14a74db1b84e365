//! `account`: balance and nonce of an account.

use std::path::PathBuf;

use bizra_proto::ceremony::decode_hex;
use clap::Args;
use serde::Serialize;

use super::client::{self, NodeArgs};
use super::output::OutputArgs;
use super::owner_key;
use super::termination::CliError;
use crate::transaction::Address;

/// Show the balance and nonce of an account.
#[derive(Args, Clone, Debug)]
pub struct AccountCommand {
    /// The account, 64 hex digits.
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    pub address: Option<String>,
    /// Show the account of this key file instead.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// As of this height; the last finalised one by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub height: u64,
    /// Where to ask.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Shown {
    address: String,
    balance: String,
    nonce: u64,
    height: u64,
}

impl AccountCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        let address = match (&self.key, &self.address) {
            (Some(path), _) => owner_key::address(&owner_key::read(path)?),
            (None, address) => parse_address(address.as_deref().unwrap_or_default())?,
        };
        let account = client::account_at(&mut self.node.connect().await?, address.0, self.height).await?;
        let shown = Shown {
            address: address.to_string(),
            balance: account.balance.to_string(),
            nonce: account.nonce,
            height: account.height,
        };
        self.output.print(&shown, |shown| {
            format!("balance {}  nonce {}  (height {})", shown.balance, shown.nonce, shown.height)
        })
    }
}

/// Reads an address as people type it.
pub(super) fn parse_address(text: &str) -> Result<Address, CliError> {
    let address = decode_hex(text).map(Address);
    address.ok_or_else(|| CliError::Failed(format!("{text:?} is not an address; it has 64 lower-case hex digits")))
}
