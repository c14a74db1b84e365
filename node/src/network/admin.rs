//! The admin server: what the node says of itself, what its consensus key proves, and what the ledger holds, to the operator's
//! client certificate only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bizra_proto::ceremony::decode_hex;
use bizra_proto::v1::admin_server::{Admin, AdminServer};
use bizra_proto::v1::{
    GetStatusRequest, GetStatusResponse, ProveKeyRequest, ProveKeyResponse, SigningState, SyncState,
};
use bizra_simplex::types::Digest;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::tls::{Audience, TlsMaterial};
use super::{NetworkError, listener};
use crate::gateway::{LedgerEndpoint, fixed};
use crate::identity::ConsensusKey;
use crate::monitoring::StatusHandle;
use crate::transaction::{Address, KeyProof};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const STREAMS_PER_CONNECTION_MAX: u32 = 16;
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The running admin server.
pub struct AdminEndpoint {
    local_address: SocketAddr,
    ledger: Arc<OnceLock<LedgerEndpoint>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl AdminEndpoint {
    /// Listens; callers need a certificate of the operators' authority. `data_dir` is the volume to report on.
    pub async fn start(
        listen: SocketAddr,
        tls: TlsMaterial,
        status: StatusHandle,
        key: Arc<ConsensusKey>,
        data_dir: PathBuf,
    ) -> Result<Self, NetworkError> {
        let (listener, local_address) = listener::bind("admin", listen).await?;
        let (stop, stopped) = watch::channel(false);
        let guests = listener::Guests::operators();
        let connections = listener::accept(listener, tls.clone(), Audience::Operators, guests, stopped.clone());
        let service = AdminServer::new(AdminService { tls, status, key, data_dir });
        let ledger = Arc::new(OnceLock::new());
        let opened_later = LedgerWhenOpen(Arc::clone(&ledger));
        let task = tokio::spawn(async move {
            let mut stopped = stopped;
            let served = Server::builder()
                .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .add_service(service)
                .add_service(opened_later)
                .serve_with_incoming_shutdown(connections, async move {
                    let _ = stopped.wait_for(|stop| *stop).await;
                })
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin server failed");
            }
        });
        Ok(Self { local_address, ledger, stop, task })
    }

    /// From now on operators may ask for the ledger, too, and submit transactions.
    pub fn open_ledger(&self, ledger: LedgerEndpoint) {
        // There is one ledger in a node, and it opens once.
        let _ = self.ledger.set(ledger);
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Lets running calls end, for two seconds at most.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// The ledger's service on a port that is there before the ledger is.
#[derive(Clone)]
struct LedgerWhenOpen(Arc<OnceLock<LedgerEndpoint>>);

impl NamedService for LedgerWhenOpen {
    const NAME: &'static str = LedgerEndpoint::NAME;
}

impl Service<http::Request<Body>> for LedgerWhenOpen {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.0.get() {
            Some(ledger) => ledger.clone().call(request),
            None => Box::pin(async { Ok(Status::unavailable("the node is starting").into_http()) }),
        }
    }
}

struct AdminService {
    tls: TlsMaterial,
    status: StatusHandle,
    key: Arc<ConsensusKey>,
    data_dir: PathBuf,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let mut status = self.status.current();
        status.certificate_not_after_seconds = self.tls.not_after_seconds();
        (status.trusted_authorities, status.certificate_authority) = self.tls.authorities();
        // Zero stands for unknown; the rest of the picture is worth more than an error.
        if let Ok(volume) = rustix::fs::statvfs(&self.data_dir) {
            status.volume_total_bytes = volume.f_blocks.saturating_mul(volume.f_frsize);
            status.volume_free_bytes = volume.f_bavail.saturating_mul(volume.f_frsize);
        }
        Ok(Response::new(GetStatusResponse { status: Some(status) }))
    }

    async fn prove_key(&self, request: Request<ProveKeyRequest>) -> Result<Response<ProveKeyResponse>, Status> {
        let owner = fixed(&request.into_inner().owner, "an owner")?;
        let status = self.status.current();
        if status.sync_state() != SyncState::InSync {
            return Err(Status::failed_precondition("the node is not in sync; ask again when it is"));
        }
        if matches!(status.signing_state(), SigningState::Fenced | SigningState::Refused) {
            let message = format!("the node signs nothing ({})", status.signing_state().as_str_name());
            return Err(Status::failed_precondition(message));
        }
        let block = decode_hex(&status.finalized_hash).map(Digest);
        let block = block.ok_or_else(|| Status::failed_precondition("the node has finalised no block yet"))?;
        let height = status.finalized_height;
        let signature = self.key.sign(&KeyProof::message(Address(owner), height, block));
        Ok(Response::new(ProveKeyResponse {
            public_key: self.key.public_key().to_vec(),
            height,
            block: block.0.to_vec(),
            signature: signature.to_bytes().to_vec(),
        }))
    }
}
