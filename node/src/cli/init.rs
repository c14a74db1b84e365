//! The two init containers of a node's Pod: one makes or finds its keys and reports them, one waits until the network's
//! genesis and the node's certificates are there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bizra_proto::ceremony::{is_chain_id, is_node_name};
use bizra_proto::exit::{ExitReason, Termination};
use clap::Args;

use super::signals::StopSignals;
use super::termination::{self, CliError};
use crate::configuration::LoadedGenesis;
use crate::consensus::{self, ConsensusError};
use crate::identity::{CertificateFiles, Certificates, ConsensusKey, IdentityError, SignerFolder, TlsKey};

/// How often the mounts are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often waiting is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// Make or find the node's keys and report them as termination message.
#[derive(Args, Clone, Debug)]
pub struct InitKey {
    /// Folder of the node's data; keys go to `signer/` inside.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Chain the key is to validate on.
    #[arg(long, value_name = "ID")]
    pub chain_id: String,
    /// Name of the node.
    #[arg(long, value_name = "NAME")]
    pub node_name: String,
    /// Identity of the volume; keys made on another volume are refused.
    #[arg(long, value_name = "UID")]
    pub volume_id: String,
    /// Set `signer/` aside and make new keys if no node can sign with what is in it: for this order, at most once, however
    /// often the command is run with it.
    #[arg(long, value_name = "ORDER")]
    pub replace_refused: Option<String>,
}

impl InitKey {
    /// Runs the command.
    pub fn run(self) -> Result<(), CliError> {
        if !is_chain_id(&self.chain_id) {
            return Err(invalid(format!("--chain-id {:?}: 1 to 32 characters of a-z, 0-9 and '-'", self.chain_id)));
        }
        check_node_name(&self.node_name)?;
        if self.volume_id.is_empty() {
            return Err(invalid("--volume-id is empty; give the uid of the volume claim".to_owned()));
        }
        if let Some(order) = &self.replace_refused {
            if !is_node_name(order) {
                return Err(invalid(format!("--replace-refused {order:?}: 1 to 63 characters of a-z, 0-9 and '-'")));
            }
            if self.is_refused()? && SignerFolder::set_aside(&self.data_dir, order).map_err(CliError::stopped)? {
                tracing::warn!(order, "the former keys are refused and set aside; the node gets new ones");
            }
        }
        let folder = SignerFolder::open_or_create(&self.data_dir, &self.volume_id).map_err(CliError::stopped)?;
        let pinned = folder.pinned_genesis().map_err(CliError::stopped)?.map(|hash| hash.to_string());
        let key = folder.consensus_key().map_err(CliError::stopped)?;
        let tls = folder.tls_key().map_err(CliError::stopped)?;
        let report = key.report(&tls, &self.chain_id, &self.node_name, pinned).map_err(CliError::stopped)?;
        tracing::info!(public_key = report.public_key, pinned_genesis = report.genesis_hash, "keys are ready");
        termination::write(&report).map_err(|error| {
            CliError::Stopped(Termination {
                reason: ExitReason::StorageFailed,
                message: format!("cannot write the key report to the termination log: {error}"),
            })
        })
    }

    /// True if the folder is there and refuses for good (PROTOCOL S1, S3). One that could be signed with is never set aside,
    /// whoever orders it.
    fn is_refused(&self) -> Result<bool, CliError> {
        let judge = || -> Result<bool, ConsensusError> {
            let folder = SignerFolder::open(&self.data_dir, &self.volume_id)?;
            let key = folder.consensus_key()?;
            folder.tls_key()?;
            let Some(genesis) = folder.pinned_genesis()? else { return Ok(false) };
            let binding = consensus::binding(genesis, &self.volume_id, key.public_key());
            consensus::is_record_refused(&folder, &binding)
        };
        match judge() {
            Err(ConsensusError::Identity(IdentityError::Missing(_))) => Ok(false),
            Err(ConsensusError::Identity(error)) if error.reason() == ExitReason::SigningRecordRefused => Ok(true),
            judged => judged.map_err(CliError::stopped),
        }
    }
}

/// Wait for genesis and certificates, check them and pin the genesis.
#[derive(Args, Clone, Debug)]
pub struct InitGenesis {
    /// Folder of the node's data.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Folder where `genesis.json` appears.
    #[arg(long, value_name = "FOLDER")]
    pub genesis_dir: PathBuf,
    /// Folder where `<node-name>.crt`, `ca.crt` and `operator-ca.crt` appear.
    #[arg(long, value_name = "FOLDER")]
    pub certificates_dir: PathBuf,
    /// Name of the node.
    #[arg(long, value_name = "NAME")]
    pub node_name: String,
}

impl InitGenesis {
    /// Runs the command: waits as long as it takes, or until SIGTERM.
    pub async fn run(self) -> Result<(), CliError> {
        let mut signals = StopSignals::listen().map_err(CliError::failed)?;
        tokio::select! {
            done = self.wait() => done,
            () = signals.wait() => Err(CliError::Interrupted),
        }
    }

    async fn wait(&self) -> Result<(), CliError> {
        check_node_name(&self.node_name)?;
        let folder = SignerFolder::open_unchecked(&self.data_dir).map_err(CliError::stopped)?;
        let key = folder.consensus_key().map_err(CliError::stopped)?;
        let tls = folder.tls_key().map_err(CliError::stopped)?;

        let genesis_file = self.genesis_dir.join("genesis.json");
        let mut progress = Progress::new();
        while !is_filled(&genesis_file) {
            progress.report(&format!("{} is not there yet", genesis_file.display()));
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let genesis = LoadedGenesis::load(&genesis_file).map_err(CliError::stopped)?;
        folder.pin_genesis(genesis.hash).map_err(CliError::stopped)?;
        tracing::info!(chain_id = genesis.genesis.chain_id, genesis_hash = %genesis.hash, "genesis is pinned");
        self.report_membership(&genesis, &key);

        let mut progress = Progress::new();
        while let Err(missing) = self.certificates(&tls) {
            progress.report(&missing.to_string());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        tracing::info!("certificates are ready");
        Ok(())
    }

    /// A node whose key is not in the genesis is a full node; nothing is wrong with that, but it is worth a line.
    fn report_membership(&self, genesis: &LoadedGenesis, key: &ConsensusKey) {
        let by_key = genesis.index_of_key(&key.public_key());
        let by_name = genesis.index_of_name(&self.node_name);
        match (by_key, by_name) {
            (Some(index), Some(named)) if index == named => tracing::info!(%index, "this node is a validator"),
            (Some(index), _) => {
                tracing::warn!(%index, "the genesis lists this node's key under another name");
            }
            (None, Some(_)) => tracing::warn!(
                "KeyNotInGenesis: the genesis lists this node's name with another key; it runs as a full node until \
                 its key is rotated in on chain"
            ),
            (None, None) => tracing::info!("this node is a full node: the genesis does not list its key"),
        }
    }

    /// Everything that can be wrong here may be put right by the next version of the `ConfigMap`, so it is waited for.
    fn certificates(&self, tls: &TlsKey) -> Result<Certificates, IdentityError> {
        let file = |name: &str| self.certificates_dir.join(name);
        let files = CertificateFiles {
            certificate_file: file(&format!("{}.crt", self.node_name)),
            ca_file: file("ca.crt"),
            operator_ca_file: file("operator-ca.crt"),
        };
        Certificates::load(&files, tls, &self.node_name)
    }
}

/// An optional `ConfigMap` mount appears whole, but copies made by other tools may not.
fn is_filled(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

fn check_node_name(name: &str) -> Result<(), CliError> {
    if is_node_name(name) {
        return Ok(());
    }
    Err(invalid(format!("--node-name {name:?}: a DNS label of 1 to 63 characters of a-z, 0-9 and '-'")))
}

fn invalid(message: String) -> CliError {
    CliError::Stopped(Termination { reason: ExitReason::InvalidConfiguration, message })
}

/// Logs what is waited for, at once and when it changes, then every fifteen seconds.
struct Progress {
    since: Instant,
    last: Option<(Instant, String)>,
}

impl Progress {
    fn new() -> Self {
        Self { since: Instant::now(), last: None }
    }

    fn report(&mut self, what: &str) {
        let due = self.last.as_ref().is_none_or(|(at, text)| text != what || at.elapsed() >= PROGRESS_INTERVAL);
        if due {
            tracing::info!(seconds = self.since.elapsed().as_secs(), "waiting: {what}");
            self.last = Some((Instant::now(), what.to_owned()));
        }
    }
}
