//! The files of a devnet: what the operator's ceremony makes on Kubernetes, made in one folder.
//!
//! ```text
//! genesis.json   certificates/{ca,operator-ca,v0,…}.crt, operator.{crt,key}
//! v0/node.toml   v0/node.log   v0/termination.json   v0/signer/   v0/database/
//! ```

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bizra_proto::ceremony::{Genesis, GenesisAccount, GenesisValidator, KeyReport};
use bizra_proto::parameters::Parameters;
use bizra_simplex::types::Digest;

use super::{CliError, Devnet};
use crate::cli::genesis::{now_milliseconds, validator, write_genesis};
use crate::cli::owner_key;
use crate::configuration::{
    Configuration, ListenConfiguration, LoadedGenesis, PeerConfiguration, RetentionConfiguration, SigningConfiguration,
    SyncConfiguration, TlsConfiguration,
};
use crate::identity::{Authority, SignerFolder};

pub(super) const CHAIN_ID: &str = "devnet";
const GENESIS_FILE: &str = "genesis.json";
const PORTS_PER_NODE: u16 = 10;

/// A prepared devnet.
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) genesis_hash: Digest,
    /// Accounts in the genesis.
    pub(super) accounts: usize,
    pub(super) nodes: Vec<NodeFiles>,
}

/// The files of one node.
pub(super) struct NodeFiles {
    pub(super) configuration: Configuration,
    pub(super) configuration_file: PathBuf,
    pub(super) log_file: PathBuf,
    pub(super) termination_file: PathBuf,
}

impl Layout {
    /// True if there is no genesis yet.
    pub(super) fn is_new(dir: &Path) -> bool {
        !dir.join(GENESIS_FILE).exists()
    }

    /// Makes what is missing and keeps what is there: keys and genesis, which gets these accounts, are made once, the
    /// rest at every start.
    pub(super) fn prepare(options: &Devnet, accounts: Vec<GenesisAccount>) -> Result<Self, CliError> {
        fs::create_dir_all(&options.dir).map_err(failed("create", &options.dir))?;
        let dir = options.dir.canonicalize().map_err(failed("find", &options.dir))?;
        let names: Vec<String> = (0..options.validators).map(|index| format!("v{index}")).collect();
        let reports =
            names.iter().map(|name| key_report(&dir, name, options.chain_id())).collect::<Result<Vec<_>, _>>()?;

        let genesis_file = dir.join(GENESIS_FILE);
        if Self::is_new(&dir) {
            let owners = names.iter().map(|name| owner(&dir.join(name))).collect::<Result<Vec<_>, _>>()?;
            let validators = names.iter().zip(&reports).zip(owners);
            let validators = validators.map(|((name, report), owner)| GenesisValidator {
                owner: Some(owner),
                ..validator(name, report.clone(), "1")
            });
            let (epoch_blocks, protocol_version) = (options.epoch_blocks, options.protocol_version);
            let parameters = Parameters { epoch_blocks, protocol_version, ..Parameters::default() };
            create_genesis(&genesis_file, options.chain_id(), validators.collect(), accounts, parameters)?;
        }
        let genesis = LoadedGenesis::load(&genesis_file).map_err(CliError::failed)?;
        check_same_network(&genesis, options.chain_id(), &reports, &dir)?;
        create_certificates(&dir.join("certificates"), &names, &reports)?;

        let listens = names.iter().zip(0_u16..).map(|(_, index)| listen(options.base_port, index));
        let listens = listens.collect::<Result<Vec<_>, _>>()?;
        let nodes = names.iter().zip(&listens).map(|(name, listen)| {
            let others = names.iter().zip(&listens).filter(|(other, _)| *other != name);
            let peers =
                others.map(|(name, listen)| PeerConfiguration { name: name.clone(), address: listen.peer.to_string() });
            NodeFiles::create(&dir, name, &genesis_file, listen.clone(), retention(options), peers.collect())
        });
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { genesis_hash: genesis.hash, accounts: genesis.genesis.accounts.len(), nodes, dir })
    }
}

impl NodeFiles {
    fn create(
        dir: &Path,
        name: &str,
        genesis_file: &Path,
        listen: ListenConfiguration,
        retention: RetentionConfiguration,
        peers: Vec<PeerConfiguration>,
    ) -> Result<Self, CliError> {
        let data_dir = dir.join(name);
        let certificate = |name: &str| dir.join("certificates").join(format!("{name}.crt"));
        let tls = TlsConfiguration {
            certificate_file: certificate(name),
            ca_file: certificate("ca"),
            operator_ca_file: certificate("operator-ca"),
        };
        let configuration = Configuration {
            node_name: name.to_owned(),
            volume_id: volume_id(name),
            genesis_file: genesis_file.to_owned(),
            signing: SigningConfiguration::default(),
            data_dir: data_dir.clone(),
            tls,
            listen,
            retention,
            sync: SyncConfiguration::default(),
            peers,
        };
        let configuration_file = data_dir.join("node.toml");
        write(&configuration_file, toml::to_string(&configuration).map_err(CliError::failed)?.as_bytes())?;
        Ok(Self {
            configuration,
            configuration_file,
            log_file: data_dir.join("node.log"),
            termination_file: data_dir.join("termination.json"),
        })
    }
}

fn retention(options: &Devnet) -> RetentionConfiguration {
    let mut retention = RetentionConfiguration::default();
    if let Some(blocks) = options.keep_blocks {
        retention.archive = false;
        retention.blocks = blocks;
    }
    retention
}

fn volume_id(name: &str) -> String {
    format!("{CHAIN_ID}-{name}")
}

fn key_report(dir: &Path, name: &str, chain_id: &str) -> Result<KeyReport, CliError> {
    let report = || {
        let folder = SignerFolder::open_or_create(&dir.join(name), &volume_id(name))?;
        folder.consensus_key()?.report(&folder.tls_key()?, chain_id, name, None)
    };
    report().map_err(CliError::failed)
}

/// Makes or finds the key that owns a validator on chain, and returns its account.
fn owner(dir: &Path) -> Result<String, CliError> {
    let path = dir.join("owner.key");
    let key = if path.exists() { owner_key::read(&path)? } else { owner_key::create(&path)? };
    Ok(owner_key::address(&key).to_string())
}

fn create_genesis(
    path: &Path,
    chain_id: &str,
    validators: Vec<GenesisValidator>,
    accounts: Vec<GenesisAccount>,
    parameters: Parameters,
) -> Result<(), CliError> {
    let genesis = Genesis {
        version: 1,
        chain_id: chain_id.to_owned(),
        time_milliseconds: now_milliseconds(),
        validators,
        accounts,
        parameters,
    };
    write_genesis(&genesis, path).map(drop)
}

/// A folder from an earlier start must hold the same validators.
fn check_same_network(
    genesis: &LoadedGenesis,
    chain_id: &str,
    reports: &[KeyReport],
    dir: &Path,
) -> Result<(), CliError> {
    let (earlier, now) = (genesis.validators.len(), reports.len());
    if genesis.genesis.chain_id != chain_id {
        return Err(CliError::Failed(format!(
            "{} holds a devnet of chain {}, not {chain_id}; use another `--dir`",
            dir.display(),
            genesis.genesis.chain_id
        )));
    }
    if earlier != now {
        return Err(CliError::Failed(format!(
            "{} holds a devnet of {earlier} validators, not {now}; use `--validators {earlier}` or another `--dir`",
            dir.display()
        )));
    }
    let same = genesis.genesis.validators.iter().zip(reports).all(|(old, new)| old.public_key == new.public_key);
    if same {
        return Ok(());
    }
    Err(CliError::Failed(format!("the keys in {} are not those of its genesis; use another `--dir`", dir.display())))
}

/// The authorities live as long as this call: certificates are made anew at every start.
fn create_certificates(folder: &Path, names: &[String], reports: &[KeyReport]) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let nodes = Authority::generate("BIZRA devnet nodes").map_err(CliError::failed)?;
    let operators = Authority::generate("BIZRA devnet operators").map_err(CliError::failed)?;
    let operator = operators.issue("operator").map_err(CliError::failed)?;
    write(&folder.join("ca.crt"), nodes.certificate_pem().as_bytes())?;
    write(&folder.join("operator-ca.crt"), operators.certificate_pem().as_bytes())?;
    write(&folder.join("operator.crt"), operator.certificate_pem.as_bytes())?;
    write(&folder.join("operator.key"), operator.key_pem.as_bytes())?;
    for (name, report) in names.iter().zip(reports) {
        let dns_names = [name.clone(), "localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let certificate = nodes.sign_request(&report.certificate_request, &dns_names).map_err(CliError::failed)?;
        write(&folder.join(format!("{name}.crt")), certificate.as_bytes())?;
    }
    Ok(())
}

fn listen(base_port: u16, index: u16) -> Result<ListenConfiguration, CliError> {
    let first = index.checked_mul(PORTS_PER_NODE).and_then(|offset| base_port.checked_add(offset));
    let first = first
        .filter(|first| first.checked_add(PORTS_PER_NODE).is_some())
        .ok_or_else(|| CliError::Failed("the ports end above 65535; choose a lower `--base-port`".to_owned()))?;
    let address = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, first + offset));
    Ok(ListenConfiguration {
        peer: address(0),
        grpc: address(1),
        http: address(2),
        admin: address(3),
        monitoring: address(4),
    })
}

/// Writes or replaces a file only its owner can read: some of them hold keys.
fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    options.and_then(|mut file| file.write_all(content)).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_owned();
    move |error| CliError::Failed(format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::identity::Certificates;

    fn options(dir: &Path, validators: u16) -> Devnet {
        Devnet {
            validators,
            dir: dir.to_owned(),
            duration: None,
            rate: None,
            accounts: 0,
            epoch_blocks: 64,
            keep_blocks: None,
            protocol_version: 1,
            base_port: 27100,
            opaque: false,
            stop_on_stdin_close: false,
        }
    }

    #[test]
    fn a_devnet_is_made_once_and_continued_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::prepare(&options(dir.path(), 4), Vec::new()).unwrap();
        let second = Layout::prepare(&options(dir.path(), 4), Vec::new()).unwrap();
        assert_eq!(first.genesis_hash, second.genesis_hash);
        let refusal = Layout::prepare(&options(dir.path(), 5), Vec::new()).err().unwrap();
        assert!(refusal.to_string().contains("--validators 4"), "{refusal}");
    }

    #[test]
    fn what_it_writes_is_what_a_node_reads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&options(dir.path(), 4), Vec::new()).unwrap();
        let genesis = LoadedGenesis::load(&dir.path().join("genesis.json")).unwrap();
        for node in &layout.nodes {
            let read = Configuration::load(&node.configuration_file).unwrap();
            assert_eq!(read, node.configuration);
            assert!(read.listen.http.ip().is_loopback());
            let folder = SignerFolder::open(&read.data_dir, &read.volume_id).unwrap();
            Certificates::load(&read.tls.files(), &folder.tls_key().unwrap(), &read.node_name).unwrap();
            let index = genesis.index_of_key(&folder.consensus_key().unwrap().public_key());
            assert_eq!(index, genesis.index_of_name(&read.node_name));
            assert!(index.is_some());
        }
    }
}
