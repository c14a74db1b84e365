//! `light`: what the chain is, from nodes that are not trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bizra_driver::Restarts;
use bizra_proto::ceremony::decode_hex;
use bizra_simplex::types::{Digest, Epoch};
use clap::Args;
use serde::Serialize;

use super::genesis::now_milliseconds;
use super::output::{OutputArgs, progress};
use super::proof::Checked;
use super::termination::CliError;
use super::transaction::transaction_id;
use crate::configuration::LoadedGenesis;
use crate::light::{Head, LightClient, Proven, Source, Trust, shortest_unbonding};
use crate::recovery::{PinnedRestarts, RecoveryError, RestartDocument};

/// Most nodes to ask.
const NODES_MAX: usize = 16;

/// Verify the end of the chain, and a transaction if asked to, trusting the genesis file and no node.
#[derive(Args, Clone, Debug)]
pub struct LightCommand {
    /// The genesis file of the chain.
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// Whom to ask, and where to start.
    #[command(flatten)]
    pub light: LightArgs,
    /// Prove that this transaction was executed, 64 hex digits.
    #[arg(long, value_name = "ID")]
    pub transaction: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Whom a light client asks, and what it trusts beside the genesis.
#[derive(Args, Clone, Debug)]
pub struct LightArgs {
    /// gRPC address of a node; give several, and one that lies or is behind is passed by.
    #[arg(
        long = "node",
        env = "BIZRA_NODE",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7200"
    )]
    pub nodes: Vec<String>,
    /// File to keep what was verified in; the next run goes on from there.
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Start from the boundary block with this digest, the last of this epoch, which somebody you trust says is recent.
    #[arg(long, value_name = "EPOCH:DIGEST", value_parser = parse_anchor)]
    pub anchor: Option<(u64, [u8; 32])>,
    /// The document of a restart by the owners of the network, trusted as the genesis is; of several, the oldest first.
    #[arg(long = "restart", value_name = "FILE")]
    pub restarts: Vec<PathBuf>,
    /// How many seconds the unbonding period of this chain lasts at the least; by default as short as blocks can be.
    #[arg(long, value_name = "SECONDS")]
    pub trust_period: Option<u64>,
}

fn parse_anchor(text: &str) -> Result<(u64, [u8; 32]), String> {
    let read = || {
        let (epoch, digest) = text.split_once(':')?;
        Some((epoch.parse().ok()?, decode_hex(digest)?))
    };
    read().ok_or_else(|| "an anchor is an epoch, a colon, and 64 lower-case hex digits".to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    genesis_hash: String,
    epoch: u64,
    height: u64,
    hash: String,
    time_milliseconds: u64,
    /// How far behind this machine's clock the header's time is.
    age_seconds: u64,
    /// The executed state that the header vouches for.
    checkpoint: ShownCheckpoint,
    validators: usize,
    /// Give this to others as `--anchor`; absent in epoch 0, and in the first epoch after a restart.
    anchor: Option<String>,
    node: String,
    nodes: Vec<ShownNode>,
    transaction: Option<ShownTransaction>,
}

#[derive(Serialize)]
struct ShownCheckpoint {
    height: u64,
    state: String,
    receipts: String,
}

#[derive(Serialize)]
struct ShownNode {
    url: String,
    fault: Option<String>,
}

/// A proven transaction.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownTransaction {
    #[serde(flatten)]
    checked: Checked,
    header_height: u64,
    node: String,
}

impl From<Proven> for ShownTransaction {
    fn from(Proven { proof, failure, header, source }: Proven) -> Self {
        Self { checked: Checked::new(proof, failure), header_height: header.block().height.0, node: source }
    }
}

impl std::fmt::Display for ShownTransaction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} in the verified header {}", self.checked, self.header_height)
    }
}

impl LightArgs {
    fn restarts(&self, genesis: &LoadedGenesis) -> Result<Restarts, CliError> {
        let mut restarts = PinnedRestarts::new(genesis.hash);
        for path in &self.restarts {
            let wrong = |error: RecoveryError| CliError::Failed(format!("{}: {error}", path.display()));
            let file = std::fs::read(path).map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?;
            let checked = RestartDocument::parse(&file).and_then(|document| document.check(genesis));
            checked.map_err(RecoveryError::from).and_then(|checked| restarts.push(checked)).map_err(wrong)?;
        }
        Ok(restarts.consensus())
    }

    /// Opens the client, walks to the end of the chain, and keeps what was verified.
    pub(super) async fn sync(&self, genesis: &Path) -> Result<(LightClient, Head), CliError> {
        let genesis = LoadedGenesis::load(genesis).map_err(CliError::failed)?;
        if self.nodes.len() > NODES_MAX {
            return Err(CliError::Failed(format!("at most {NODES_MAX} nodes can be asked")));
        }
        let sources = self.nodes.iter().map(|url| Source::new(url)).collect::<Result<Vec<_>, _>>();
        let sources = sources.map_err(CliError::Failed)?;
        let restarts = self.restarts(&genesis)?;
        let now = now_milliseconds();
        let client = if let Some((epoch, digest)) = self.anchor {
            let anchor = (Epoch(epoch), Digest(digest));
            LightClient::from_anchor(genesis.clone(), anchor, sources, now).await.map_err(CliError::failed)?
        } else {
            let stored = self.trust.as_ref().map_or(Ok(None), |path| Trust::load(path, &genesis));
            let trust = match stored.map_err(CliError::failed)? {
                Some(trust) => trust,
                None => Trust::genesis(&genesis).map_err(CliError::failed)?,
            };
            let shortest = shortest_unbonding(&genesis.genesis.parameters);
            let period = self.trust_period.map_or(shortest, Duration::from_secs);
            LightClient::new(genesis.clone(), trust, sources, period, now).map_err(CliError::failed)?
        };
        let mut client = client.with_restarts(restarts);
        let synced = client.sync(now).await;
        for source in client.sources() {
            if let Some(fault) = source.fault() {
                progress(format_args!("{} {fault}", source.url()));
            }
        }
        let head = synced.map_err(CliError::failed)?;
        if let Some(path) = &self.trust {
            client.trust().store(path, &genesis).map_err(CliError::failed)?;
        }
        Ok((client, head))
    }
}

impl LightCommand {
    /// Runs the command.
    pub async fn run(self) -> Result<(), CliError> {
        let id = self.transaction.as_deref().map(transaction_id).transpose()?;
        let (mut client, head) = self.light.sync(&self.genesis).await?;
        let transaction = match id {
            Some(id) => Some(client.prove(id).await.map_err(CliError::failed)?.into()),
            None => None,
        };
        let shown = shown(&client, &head, transaction);
        self.output.print(&shown, text)
    }
}

fn shown(client: &LightClient, Head { header, source }: &Head, transaction: Option<ShownTransaction>) -> Shown {
    let block = header.block();
    let trusted = client.trust().epoch();
    let nodes = client.sources().iter();
    let nodes =
        nodes.map(|source| ShownNode { url: source.url().to_owned(), fault: source.fault().map(ToString::to_string) });
    Shown {
        genesis_hash: client.genesis().hash.to_string(),
        epoch: trusted.epoch().0,
        height: block.height.0,
        hash: block.digest().to_string(),
        time_milliseconds: block.time_milliseconds,
        age_seconds: now_milliseconds().saturating_sub(block.time_milliseconds) / 1_000,
        checkpoint: ShownCheckpoint {
            height: block.checkpoint.height.0,
            state: block.checkpoint.state.to_string(),
            receipts: block.checkpoint.receipts.to_string(),
        },
        validators: trusted.members().len(),
        anchor: trusted
            .below()
            .boundary
            .and_then(|_| trusted.epoch().previous())
            .map(|before| format!("{before}:{}", trusted.below_digest())),
        node: source.clone(),
        nodes: nodes.collect(),
        transaction,
    }
}

fn text(shown: &Shown) -> String {
    let Shown { epoch, height, hash, age_seconds, checkpoint, validators, anchor, node, transaction, .. } = shown;
    let ShownCheckpoint { height: executed, state, .. } = checkpoint;
    let mut lines = vec![
        format!("verified header {height} {hash}"),
        format!("  epoch {epoch} with {validators} validators, {age_seconds} s old, from {node}"),
        format!("  state {state} at height {executed}"),
    ];
    lines.extend(anchor.as_ref().map(|anchor| format!("  anchor {anchor}")));
    lines.extend(transaction.as_ref().map(|transaction| format!("  {transaction}")));
    lines.join("\n")
}
