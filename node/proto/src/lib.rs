//! What a node, the operator and clients say to each other: gRPC interfaces and the documents of the genesis ceremony.

pub mod ceremony;
pub mod exit;
pub mod parameters;

/// Generated gRPC types, package `bizra.node.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("bizra.node.v1");

    /// Encoded file descriptor set of the package, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("bizra");
}

/// Most peers a node may have: each costs two connections and two queues.
pub const PEERS_MAX: usize = 256;

/// Ports a node listens on by default.
pub mod port {
    /// Peer gRPC over mutual TLS.
    pub const PEER: u16 = 7100;
    /// Ledger gRPC with health and reflection.
    pub const GRPC: u16 = 7200;
    /// REST.
    pub const HTTP: u16 = 7300;
    /// Admin gRPC over mutual TLS, for the operator's certificate only.
    pub const ADMIN: u16 = 7400;
    /// `/livez`, `/readyz` and `/metrics`.
    pub const MONITORING: u16 = 7500;
}
