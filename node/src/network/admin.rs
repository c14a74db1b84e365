//! The admin server: what the node says of itself, to the operator's client certificate only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bizra_proto::v1::admin_server::{Admin, AdminServer};
use bizra_proto::v1::{GetStatusRequest, GetStatusResponse};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::tls::{Audience, TlsMaterial};
use super::{NetworkError, listener};
use crate::monitoring::StatusHandle;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const STREAMS_PER_CONNECTION_MAX: u32 = 16;
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The running admin server.
pub struct AdminEndpoint {
    local_address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl AdminEndpoint {
    /// Listens; callers need a certificate of the operators' authority. `data_dir` is the volume to report on.
    pub async fn start(
        listen: SocketAddr,
        tls: TlsMaterial,
        status: StatusHandle,
        data_dir: PathBuf,
    ) -> Result<Self, NetworkError> {
        let (listener, local_address) = listener::bind("admin", listen).await?;
        let (stop, stopped) = watch::channel(false);
        let guests = listener::Guests::operators();
        let connections = listener::accept(listener, tls.clone(), Audience::Operators, guests, stopped.clone());
        let service = AdminServer::new(AdminService { tls, status, data_dir });
        let task = tokio::spawn(async move {
            let mut stopped = stopped;
            let served = Server::builder()
                .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .add_service(service)
                .serve_with_incoming_shutdown(connections, async move {
                    let _ = stopped.wait_for(|stop| *stop).await;
                })
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin server failed");
            }
        });
        Ok(Self { local_address, stop, task })
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

struct AdminService {
    tls: TlsMaterial,
    status: StatusHandle,
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
}
