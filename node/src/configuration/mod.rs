//! What the node is told at its start: `node.toml` and the genesis file, parsed into types that cannot be wrong later.

pub mod genesis;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bizra_proto::ceremony::{NODE_NAME_MAX_BYTES, is_node_name};
use bizra_proto::exit::{ExitReason, Termination};
use bizra_proto::{PEERS_MAX, port};
use serde::{Deserialize, Serialize};

pub use genesis::{LoadedGenesis, Member};

use crate::identity::CertificateFiles;

/// A chunk of a snapshot, 1 MiB, must come within the patience of who asks for it.
const SERVE_BYTES_MIN: u64 = 256 << 10;

/// `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Name of this node, as in the genesis, in peers' configuration and in its certificate.
    pub node_name: String,
    /// Folder of `signer/` and `database/`.
    pub data_dir: PathBuf,
    /// Identity of the volume under `data_dir`; keys made on another volume are refused.
    pub volume_id: String,
    /// The genesis file.
    pub genesis_file: PathBuf,
    /// Whether the node may sign votes and batches. Taken up while the node runs.
    #[serde(default)]
    pub signing: SigningConfiguration,
    /// Certificates.
    pub tls: TlsConfiguration,
    /// Addresses to listen on.
    #[serde(default)]
    pub listen: ListenConfiguration,
    /// What is kept of the past.
    #[serde(default)]
    pub retention: RetentionConfiguration,
    /// How the node comes to know what it missed.
    #[serde(default)]
    pub sync: SyncConfiguration,
    /// The other nodes of the network.
    #[serde(default)]
    pub peers: Vec<PeerConfiguration>,
}

/// Field `signing`: whether the consensus key may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningConfiguration {
    /// As the validator set says.
    #[default]
    Allowed,
    /// Not at all: the node follows and serves the chain only.
    Fenced,
}

/// Section `[retention]`: how much of the past this node keeps. Peers and queries get what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfiguration {
    /// Keep everything since the genesis.
    pub archive: bool,
    /// Without `archive`: keep this many blocks below the last executed one, but never fewer than three epochs.
    pub blocks: u64,
}

impl Default for RetentionConfiguration {
    fn default() -> Self {
        Self { archive: true, blocks: 100_000 }
    }
}

/// Section `[sync]`: how a node that has nothing, or is far behind, comes to the present, and what it gives to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfiguration {
    /// Begin at a snapshot from peers if that is far ahead, instead of executing every block. An archive does so only while
    /// its database is empty, and then keeps everything from there on; without this it replays from the genesis.
    pub snapshot: bool,
    /// How far ahead, in blocks, a snapshot must be to be worth it. One is taken all the same if no peer keeps the block that
    /// is needed next.
    pub snapshot_behind_blocks: u64,
    /// Bytes of snapshots a second that one peer is served at most.
    pub serve_bytes_per_second: u64,
}

impl Default for SyncConfiguration {
    fn default() -> Self {
        Self { snapshot: true, snapshot_behind_blocks: 8_192, serve_bytes_per_second: 16 << 20 }
    }
}

/// Section `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfiguration {
    /// The node's own certificate, PEM.
    pub certificate_file: PathBuf,
    /// Authorities of nodes, PEM.
    pub ca_file: PathBuf,
    /// Authorities of operators, PEM.
    pub operator_ca_file: PathBuf,
}

impl TlsConfiguration {
    /// The same files, for `identity`.
    pub fn files(&self) -> CertificateFiles {
        let Self { certificate_file, ca_file, operator_ca_file } = self.clone();
        CertificateFiles { certificate_file, ca_file, operator_ca_file }
    }
}

/// Section `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfiguration {
    /// Peer gRPC.
    pub peer: SocketAddr,
    /// Ledger gRPC.
    pub grpc: SocketAddr,
    /// REST.
    pub http: SocketAddr,
    /// Admin gRPC.
    pub admin: SocketAddr,
    /// Liveness, readiness and metrics.
    pub monitoring: SocketAddr,
}

impl Default for ListenConfiguration {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self {
            peer: any(port::PEER),
            grpc: any(port::GRPC),
            http: any(port::HTTP),
            admin: any(port::ADMIN),
            monitoring: any(port::MONITORING),
        }
    }
}

/// One `[[peers]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfiguration {
    /// Name of the peer, as in its certificate.
    pub name: String,
    /// `host:port` of its peer gRPC.
    pub address: String,
}

/// What can be wrong with what the node is told.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown or a missing field, or a value of another type.
    #[error("the configuration {path} is not valid: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why, in the parser's words.
        reason: String,
    },
    /// A value that contradicts the rules or another value.
    #[error("the configuration field `{field}` {what}")]
    Field {
        /// Which field.
        field: String,
        /// What is wrong and what helps.
        what: String,
    },
    /// The genesis file cannot be read.
    #[error("cannot read the genesis file {path}: {source}")]
    GenesisUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The genesis is not one.
    #[error("the genesis file {path} is refused: {source}")]
    Genesis {
        /// The file.
        path: PathBuf,
        /// Why.
        source: bizra_proto::ceremony::CeremonyError,
    },
}

impl ConfigurationError {
    /// The exit code of a node that stops for this.
    pub fn reason(&self) -> ExitReason {
        match self {
            Self::Unreadable { .. } | Self::Malformed { .. } | Self::Field { .. } | Self::GenesisUnreadable { .. } => {
                ExitReason::InvalidConfiguration
            }
            Self::Genesis { .. } => ExitReason::WrongGenesis,
        }
    }
}

impl From<ConfigurationError> for Termination {
    fn from(error: ConfigurationError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

impl Configuration {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigurationError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a configuration file's text; `path` is for error messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigurationError> {
        let configuration: Self = toml::from_str(text).map_err(|error| ConfigurationError::Malformed {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        configuration.check()?;
        Ok(configuration)
    }

    fn check(&self) -> Result<(), ConfigurationError> {
        let field = |field: &str, what: String| Err(ConfigurationError::Field { field: field.to_owned(), what });
        if !is_node_name(&self.node_name) {
            return field("node_name", node_name_rule(&self.node_name));
        }
        if self.volume_id.is_empty() {
            return field("volume_id", "is empty; give the uid of the volume claim, or any fixed text".to_owned());
        }
        self.check_listen()?;
        if self.sync.serve_bytes_per_second < SERVE_BYTES_MIN {
            let found = self.sync.serve_bytes_per_second;
            return field(
                "sync.serve_bytes_per_second",
                format!("is {found}; peers that join need at least {SERVE_BYTES_MIN}, a quarter of a chunk"),
            );
        }
        if self.peers.len() > PEERS_MAX {
            return field("peers", format!("lists {} peers; at most {PEERS_MAX} are supported", self.peers.len()));
        }
        let mut names = BTreeSet::new();
        for (index, peer) in self.peers.iter().enumerate() {
            let name = format!("peers[{index}].name");
            if !is_node_name(&peer.name) {
                return field(&name, node_name_rule(&peer.name));
            }
            if peer.name == self.node_name {
                return field(&name, "is this node itself; list only the others".to_owned());
            }
            if !names.insert(&peer.name) {
                return field(&name, format!("repeats {:?}; list each peer once", peer.name));
            }
            if !is_host_and_port(&peer.address) {
                let what = format!("is {:?}; write host:port, as in demo-v1.demo-nodes:7100", peer.address);
                return field(&format!("peers[{index}].address"), what);
            }
        }
        Ok(())
    }

    fn check_listen(&self) -> Result<(), ConfigurationError> {
        let ListenConfiguration { peer, grpc, http, admin, monitoring } = &self.listen;
        let mut taken: Vec<(&str, &SocketAddr)> = Vec::new();
        for (name, address) in
            [("peer", peer), ("grpc", grpc), ("http", http), ("admin", admin), ("monitoring", monitoring)]
        {
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address && address.port() != 0) {
                return Err(ConfigurationError::Field {
                    field: format!("listen.{name}"),
                    what: format!("is {address}, the same as listen.{other}; give each its own port"),
                });
            }
            taken.push((name, address));
        }
        Ok(())
    }
}

fn node_name_rule(name: &str) -> String {
    format!("is {name:?}; a node name has 1 to {NODE_NAME_MAX_BYTES} characters of a-z, 0-9 and '-', not '-' at an end")
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SMALLEST: &str = r#"
        node_name = "demo-v0"
        data_dir = "data"
        volume_id = "uid"
        genesis_file = "genesis.json"
        [tls]
        certificate_file = "demo-v0.crt"
        ca_file = "ca.crt"
        operator_ca_file = "operator-ca.crt"
    "#;

    fn load(text: &str) -> Result<Configuration, ConfigurationError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Configuration::load(file.path())
    }

    #[test]
    fn the_smallest_file_gets_the_default_ports_and_survives_a_round_trip() {
        let configuration = load(SMALLEST).unwrap();
        assert_eq!(configuration.listen.peer.port(), 7100);
        assert_eq!(configuration.listen.monitoring.to_string(), "0.0.0.0:7500");
        assert!(configuration.retention.archive);
        let pruned = load(&format!("{SMALLEST}\n[retention]\narchive = false\nblocks = 500\n")).unwrap();
        assert_eq!(pruned.retention, RetentionConfiguration { archive: false, blocks: 500 });
        assert_eq!(load(&toml::to_string(&configuration).unwrap()).unwrap(), configuration);
    }

    #[test]
    fn an_unknown_or_missing_field_is_named() {
        let error = load(&format!("colour = 1\n{SMALLEST}")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
        assert_eq!(error.reason(), ExitReason::InvalidConfiguration);
        let error = load(&SMALLEST.replace("volume_id = \"uid\"", "")).unwrap_err();
        assert!(error.to_string().contains("volume_id"), "{error}");
    }

    #[test]
    fn values_that_contradict_are_refused_by_field() {
        let peer = |name: &str, address: &str| format!("\n[[peers]]\nname = \"{name}\"\naddress = \"{address}\"\n");
        for (text, field) in [
            (SMALLEST.replace("demo-v0\"\n        data", "Demo\"\n        data"), "node_name"),
            (format!("{SMALLEST}{}", peer("demo-v0", "a:1")), "peers[0].name"),
            (format!("{SMALLEST}{}{}", peer("demo-v1", "a:1"), peer("demo-v1", "b:1")), "peers[1].name"),
            (format!("{SMALLEST}{}", peer("demo-v1", "https://a")), "peers[0].address"),
            (format!("{SMALLEST}\n[sync]\nserve_bytes_per_second = 1"), "sync.serve_bytes_per_second"),
            (format!("{SMALLEST}\n[listen]\nhttp = \"0.0.0.0:7100\""), "listen.http"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
