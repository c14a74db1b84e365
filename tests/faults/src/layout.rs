//! The files of a network under test: keys, genesis, certificates, configurations. As `bizra-node devnet` makes them, with
//! data folders where the faults want them, and one peer more: the watcher, which every validator sends its votes to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bizra_node::configuration::{Configuration, LoadedGenesis};
use bizra_node::identity::{Authority, SignerFolder};
use bizra_proto::ceremony::{Genesis, GenesisAccount, GenesisValidator, KeyReport};
use bizra_proto::parameters::Parameters;
use bizra_simplex::types::Digest;
use serde_json::json;

use crate::{FaultError, VALIDATORS};

pub(crate) const CHAIN_ID: &str = "faults";

const WATCHER: &str = "watcher";

/// Blocks of an epoch: a few seconds, so that faults meet boundaries.
const EPOCH_BLOCKS: u64 = 256;

const PORTS_PER_NODE: u16 = 10;

/// The files of a network.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) genesis_file: PathBuf,
    pub(crate) genesis_hash: Digest,
    /// Consensus keys of the validators.
    pub(crate) keys: Vec<[u8; 32]>,
    pub(crate) nodes: Vec<NodeFiles>,
    /// The watcher's configuration, which it does not read from a file.
    pub(crate) watcher: Configuration,
}

/// The files of one validator.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles {
    pub(crate) configuration: Configuration,
    pub(crate) configuration_file: PathBuf,
    pub(crate) log_file: PathBuf,
    pub(crate) termination_file: PathBuf,
}

impl Layout {
    /// Makes everything in `root`; the data folders exist already.
    pub(crate) fn make(
        root: &Path,
        data: &[PathBuf],
        base_port: u16,
        accounts: Vec<GenesisAccount>,
    ) -> Result<Self, FaultError> {
        let setup = |error: &dyn std::fmt::Display| FaultError::Setup(format!("cannot make a network: {error}"));
        let watcher = root.join(WATCHER);
        create_folder(&watcher)?;
        let names: Vec<String> = (0..VALIDATORS).map(|index| format!("v{index}")).chain([WATCHER.to_owned()]).collect();
        let folders: Vec<&PathBuf> = data.iter().chain([&watcher]).collect();
        let report = |name: &String, folder: &Path| -> Result<KeyReport, FaultError> {
            let signer = SignerFolder::open_or_create(folder, name).map_err(|error| setup(&error))?;
            let tls = signer.tls_key().map_err(|error| setup(&error))?;
            let key = signer.consensus_key().map_err(|error| setup(&error))?;
            key.report(&tls, CHAIN_ID, name, None).map_err(|error| setup(&error))
        };
        let reports: Vec<KeyReport> =
            names.iter().zip(&folders).map(|(name, folder)| report(name, folder)).collect::<Result<_, _>>()?;

        let validators = names.iter().zip(&reports).take(VALIDATORS).map(|(name, report)| GenesisValidator {
            name: name.clone(),
            public_key: report.public_key.clone(),
            proof_of_possession: report.proof_of_possession.clone(),
            power: "1".to_owned(),
            owner: None,
            stake: None,
        });
        let genesis = Genesis {
            version: 1,
            chain_id: CHAIN_ID.to_owned(),
            time_milliseconds: now_milliseconds(),
            validators: validators.collect(),
            accounts,
            parameters: Parameters { epoch_blocks: EPOCH_BLOCKS, ..Parameters::default() },
        };
        genesis.check().map_err(|error| setup(&error))?;
        let genesis_file = root.join("genesis.json");
        write(&genesis_file, &serde_json::to_vec_pretty(&genesis).map_err(|error| setup(&error))?)?;
        let loaded = LoadedGenesis::load(&genesis_file).map_err(|error| setup(&error))?;

        let certificates = root.join("certificates");
        create_folder(&certificates)?;
        let authority = Authority::generate("BIZRA faults").map_err(|error| setup(&error))?;
        for name in ["ca", "operator-ca"] {
            write(&certificates.join(format!("{name}.crt")), authority.certificate_pem().as_bytes())?;
        }
        for (name, report) in names.iter().zip(&reports) {
            let dns_names = [name.clone(), "localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
            let signed = authority.sign_request(&report.certificate_request, &dns_names);
            write(&certificates.join(format!("{name}.crt")), signed.map_err(|error| setup(&error))?.as_bytes())?;
        }

        // By way of JSON: what a later version adds has its defaults.
        let configuration = |index: usize| -> Result<Configuration, FaultError> {
            let certificate = |name: &str| certificates.join(format!("{name}.crt"));
            let [peer, grpc, http, admin, monitoring] = listen(base_port, index);
            let others = names.iter().enumerate().filter(|(other, _)| *other != index);
            let peers = others.map(|(other, name)| json!({ "name": name, "address": listen(base_port, other)[0] }));
            let configuration = json!({
                "node_name": names[index],
                "volume_id": names[index],
                "genesis_file": genesis_file,
                "data_dir": folders[index],
                "tls": {
                    "certificate_file": certificate(&names[index]),
                    "ca_file": certificate("ca"),
                    "operator_ca_file": certificate("operator-ca"),
                },
                "listen": { "peer": peer, "grpc": grpc, "http": http, "admin": admin, "monitoring": monitoring },
                "peers": peers.collect::<Vec<_>>(),
            });
            serde_json::from_value(configuration).map_err(|error| setup(&error))
        };
        let nodes = (0..VALIDATORS).map(|index| NodeFiles::write(root, configuration(index)?));
        Ok(Self {
            genesis_hash: loaded.hash,
            keys: loaded.validators.iter().map(|member| member.public_key).collect(),
            nodes: nodes.collect::<Result<_, _>>()?,
            watcher: configuration(VALIDATORS)?,
            genesis_file,
        })
    }
}

impl NodeFiles {
    pub(crate) fn write(root: &Path, configuration: Configuration) -> Result<Self, FaultError> {
        let file = |ending: &str| root.join(format!("{}.{ending}", configuration.node_name));
        let files = Self {
            configuration_file: file("toml"),
            log_file: file("log"),
            termination_file: file("termination"),
            configuration,
        };
        let text = toml::to_string(&files.configuration).map_err(|error| FaultError::Setup(error.to_string()))?;
        write(&files.configuration_file, text.as_bytes())?;
        Ok(files)
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.configuration.data_dir.join("signer").join("record")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.configuration.data_dir.join("database")
    }
}

/// For peers, gRPC, REST, the operator and monitoring.
fn listen(base_port: u16, index: usize) -> [SocketAddr; 5] {
    let first = base_port + index as u16 * PORTS_PER_NODE;
    [0, 1, 2, 3, 4].map(|offset| SocketAddr::from((Ipv4Addr::LOCALHOST, first + offset)))
}

pub(crate) fn create_folder(path: &Path) -> Result<(), FaultError> {
    std::fs::create_dir_all(path).map_err(|error| FaultError::Io(path.display().to_string(), error))
}

fn write(path: &Path, content: &[u8]) -> Result<(), FaultError> {
    std::fs::write(path, content).map_err(|error| FaultError::Io(path.display().to_string(), error))
}

fn now_milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
