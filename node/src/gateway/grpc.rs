//! gRPC: the Ledger service, health and reflection; the Events service is beside.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bizra_proto::v1;
use bizra_proto::v1::events_server::EventsServer;
use bizra_proto::v1::ledger_server::{Ledger, LedgerServer};
use bizra_simplex::Checkpoint;
use futures::{Stream, StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::grpc_events::EventsService;
use super::light::{LINKS_MAX, Wanted};
use super::queries::QueryError;
use super::trace::{TRACEPARENT, trace_id};
use super::{Gateway, GatewayError, SHUTDOWN_GRACE};
use crate::blockchain::{InclusionProof, Receipt};
use crate::transaction::{
    Address, Admission, REQUEST_TRANSACTIONS_MAX, StreamEvent, StreamEvents, StreamSubmitter, TraceId, TransactionId,
};

/// Largest message: 1,024 transactions of the longest kind.
const MESSAGE_MAX_BYTES: usize = 1024 * 1024;
/// Largest request for events: a position and the names of all types, with room to spare.
const EVENTS_REQUEST_MAX_BYTES: usize = 4 * 1024;
/// Most concurrent calls on one connection.
const CALLS_PER_CONNECTION_MAX: u32 = 256;
/// A silent connection is asked whether it lives, and closed if it does not answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The Ledger service, for any port.
pub type LedgerEndpoint = LedgerServer<LedgerService>;

/// The Ledger service of this gateway.
pub fn ledger_endpoint(gateway: Gateway) -> LedgerEndpoint {
    LedgerServer::new(LedgerService { gateway }).max_decoding_message_size(MESSAGE_MAX_BYTES)
}

/// Serves gRPC until `shutdown`; calls still open two seconds later are cut. `ready` drives the health service.
pub async fn serve_grpc(
    gateway: Gateway,
    listener: TcpListener,
    mut ready: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), GatewayError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let events = EventsServer::new(EventsService { gateway: gateway.clone() })
        .max_decoding_message_size(EVENTS_REQUEST_MAX_BYTES);
    let ledger = ledger_endpoint(gateway);
    let (stop, mut stopped) = watch::channel(false);
    let mut stopping = stop.subscribe();
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(ledger)
        .add_service(events)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            // An error means the sender is gone: then there is nobody left to serve for either.
            let _ = stopped.wait_for(|&stopped| stopped).await;
        });
    let cut = async move {
        shutdown.await;
        stop.send_replace(true);
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    let report = async move {
        loop {
            let serving = *ready.borrow_and_update();
            if serving {
                health.set_serving::<LedgerServer<LedgerService>>().await;
            } else {
                health.set_not_serving::<LedgerServer<LedgerService>>().await;
            }
            tokio::select! {
                change = ready.changed() => if change.is_err() { break },
                _ = stopping.changed() => break,
            }
        }
        health.set_not_serving::<LedgerServer<LedgerService>>().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = cut => Ok(()),
        () = report => Ok(()),
    }
}

/// Answers from a gateway.
pub struct LedgerService {
    gateway: Gateway,
}

impl LedgerService {
    fn counted<T>(&self, method: &str, result: Result<T, Status>) -> Result<Response<T>, Status> {
        let outcome = result.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.gateway.metrics.count("grpc", method, &format!("{outcome:?}"));
        result.map(Response::new)
    }
}

#[tonic::async_trait]
impl Ledger for LedgerService {
    type SubmitStreamStream = Pin<Box<dyn Stream<Item = Result<v1::SubmitEvent, Status>> + Send>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let trace = trace_of(&request);
        let transactions = request.into_inner().transactions;
        if transactions.len() > REQUEST_TRANSACTIONS_MAX {
            let message = format!("a request may carry {REQUEST_TRANSACTIONS_MAX} transactions at most");
            return self.counted("Submit", Err(Status::invalid_argument(message)));
        }
        let admissions = self.gateway.pool.submit(transactions, trace).await;
        let admissions = admissions.into_iter().map(v1::Admission::from).collect();
        self.counted("Submit", Ok(v1::SubmitResponse { admissions }))
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let (submitter, events) = self.gateway.pool.stream(trace_of(&request));
        let streams = self.gateway.metrics.streams.clone();
        streams.inc();
        tokio::spawn(async move {
            forward(request.into_inner(), submitter).await;
            streams.dec();
        });
        self.counted("SubmitStream", Ok(submit_events(events)))
    }

    async fn get_transaction(
        &self,
        request: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        let request = request.into_inner();
        let result = async {
            let id = TransactionId(fixed(&request.transaction_id, "a transaction id")?);
            let wait = Duration::from_millis(request.wait_milliseconds.into());
            let found = self.gateway.transaction(id, wait).await?;
            let transaction = found.encoded.map(Vec::from).unwrap_or_default();
            Ok(v1::GetTransactionResponse { receipt: Some(found.receipt.into()), transaction })
        };
        self.counted("GetTransaction", result.await)
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let result = async {
            let request = request.into_inner();
            let address = Address(fixed(&request.address, "an address")?);
            let (account, height) = self.gateway.account(address, wanted(request.height)).await?;
            Ok(v1::GetAccountResponse { balance: account.balance, nonce: account.nonce, height })
        };
        self.counted("GetAccount", result.await)
    }

    async fn get_block(&self, request: Request<v1::GetBlockRequest>) -> Result<Response<v1::GetBlockResponse>, Status> {
        let block = self.gateway.block(request.into_inner().height).await.map_err(Status::from);
        let result = block.map(|block| v1::GetBlockResponse {
            height: block.view.height.0,
            hash: block.view.hash.0.to_vec(),
            parent_hash: block.view.parent.0.to_vec(),
            time_milliseconds: block.view.time_milliseconds,
            batches: block.view.batches.iter().map(|batch| batch.0.to_vec()).collect(),
            transactions: block.transactions,
            view: block.view.view,
            epoch: block.view.epoch.0,
            checkpoint: Some(checkpoint_message(block.view.checkpoint)),
            next_validators: block.view.next_validators.map(|digest| digest.0.to_vec()).unwrap_or_default(),
        });
        self.counted("GetBlock", result)
    }

    async fn get_chain(&self, _: Request<v1::GetChainRequest>) -> Result<Response<v1::GetChainResponse>, Status> {
        let chain = self.gateway.chain().await.map_err(Status::from);
        let result = chain.map(|chain| v1::GetChainResponse {
            chain_id: chain.id,
            genesis_hash: chain.genesis_hash.to_string(),
            finalized_height: chain.height.0,
            finalized_hash: chain.hash.0.to_vec(),
            transactions: chain.transactions,
            oldest_height: chain.oldest,
        });
        self.counted("GetChain", result)
    }

    async fn get_proof(&self, request: Request<v1::GetProofRequest>) -> Result<Response<v1::GetProofResponse>, Status> {
        let result = async {
            let id = TransactionId(fixed(&request.into_inner().transaction_id, "a transaction id")?);
            Ok(self.gateway.proof(id).await?.into())
        };
        self.counted("GetProof", result.await)
    }

    async fn get_epoch_links(
        &self,
        request: Request<v1::GetEpochLinksRequest>,
    ) -> Result<Response<v1::GetEpochLinksResponse>, Status> {
        let v1::GetEpochLinksRequest { from, limit } = request.into_inner();
        let limit = if limit == 0 { LINKS_MAX } else { limit as usize };
        let links = self.gateway.links(from, limit).await.map_err(Status::from);
        let links = links.map(|links| v1::GetEpochLinksResponse { links: links.into_iter().map(Vec::from).collect() });
        self.counted("GetEpochLinks", links)
    }

    async fn get_headers(
        &self,
        request: Request<v1::GetHeadersRequest>,
    ) -> Result<Response<v1::GetHeadersResponse>, Status> {
        let wanted = match request.into_inner().wanted {
            None => Wanted::Latest,
            Some(v1::get_headers_request::Wanted::Height(height)) => Wanted::Height(height),
            Some(v1::get_headers_request::Wanted::Checkpoint(height)) => Wanted::Naming(height),
        };
        let headers = self.gateway.headers(wanted).await.map_err(Status::from);
        self.counted("GetHeaders", headers.map(|headers| v1::GetHeadersResponse { headers: headers.encode().into() }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let checkpoint = self.gateway.checkpoint(request.into_inner().height).await.map_err(Status::from);
        self.counted("GetCheckpoint", checkpoint.map(checkpoint_message))
    }

    async fn get_validator(
        &self,
        request: Request<v1::GetValidatorRequest>,
    ) -> Result<Response<v1::GetValidatorResponse>, Status> {
        let result = async {
            let request = request.into_inner();
            let owner = Address(fixed(&request.owner, "an address")?);
            let ((validator, stake, turns), height) = self.gateway.validator(owner, wanted(request.height)).await?;
            let stake_per_power = self.gateway.stake_per_power().await?;
            let unbonding = stake.unbonding.iter();
            let unbonding = unbonding.map(|part| v1::Unbonding { epoch: part.epoch, amount: part.amount }).collect();
            let stakes = v1::GetValidatorResponse {
                height,
                reserved_stake: stake.reserved,
                unbonding,
                turns_led: turns.led,
                turns_missed: turns.missed,
                ..Default::default()
            };
            Ok(match validator {
                None => stakes,
                Some(validator) => v1::GetValidatorResponse {
                    registered: true,
                    power: validator.power(&stake, stake_per_power),
                    status: validator.status.name().to_owned(),
                    node_name: validator.name,
                    consensus_key: validator.consensus_key.map(Vec::from).unwrap_or_default(),
                    granted_power: validator.granted_power,
                    queued_at: validator.queued_at,
                    ..stakes
                },
            })
        };
        self.counted("GetValidator", result.await)
    }

    async fn get_validator_set(
        &self,
        request: Request<v1::GetValidatorSetRequest>,
    ) -> Result<Response<v1::GetValidatorSetResponse>, Status> {
        let set = self.gateway.validator_set(request.into_inner().epoch).await.map_err(Status::from);
        let result = set.map(|set| v1::GetValidatorSetResponse {
            epoch: set.epoch,
            cutoff: set.cutoff,
            protocol_version: set.version,
            hash: set.hash().0.to_vec(),
            members: set
                .members
                .into_iter()
                .map(|member| v1::ValidatorSetMember {
                    owner: member.owner.0.to_vec(),
                    node_name: member.name,
                    consensus_key: member.consensus_key.to_vec(),
                    power: member.power,
                    reputation: member.conduct.reputation.get().into(),
                    turns_led: member.conduct.turns.led,
                    turns_missed: member.conduct.turns.missed,
                })
                .collect(),
        });
        self.counted("GetValidatorSet", result)
    }
}

/// Hands the client's requests to the pool until the client has no more, breaks off, or no longer reads.
async fn forward(mut requests: Streaming<v1::SubmitRequest>, submitter: StreamSubmitter) {
    while let Ok(Some(request)) = requests.message().await {
        let mut transactions = request.transactions;
        while !transactions.is_empty() {
            let later = transactions.split_off(transactions.len().min(REQUEST_TRANSACTIONS_MAX));
            if submitter.submit(transactions).await.is_err() {
                return;
            }
            transactions = later;
        }
    }
}

fn submit_events(events: StreamEvents) -> Pin<Box<dyn Stream<Item = Result<v1::SubmitEvent, Status>> + Send>> {
    let grouped = stream::unfold(Some(events), |events| async {
        let mut events = events?;
        let (group, events) = match events.next().await? {
            Ok(StreamEvent::Admissions(admissions)) => {
                let group = admissions.into_iter().map(|admission| Ok(admission_event(admission))).collect();
                (group, Some(events))
            }
            Ok(StreamEvent::Receipts(receipts)) => {
                (receipts.into_iter().map(|receipt| Ok(receipt_event(receipt))).collect(), Some(events))
            }
            Err(overflowed) => (vec![Err(Status::resource_exhausted(overflowed.to_string()))], None),
        };
        Some((stream::iter::<Vec<Result<v1::SubmitEvent, Status>>>(group), events))
    });
    Box::pin(grouped.flatten())
}

fn admission_event(admission: Admission) -> v1::SubmitEvent {
    v1::SubmitEvent { event: Some(v1::submit_event::Event::Admission(admission.into())) }
}

fn receipt_event(receipt: Receipt) -> v1::SubmitEvent {
    v1::SubmitEvent { event: Some(v1::submit_event::Event::Receipt(receipt.into())) }
}

impl From<Admission> for v1::Admission {
    fn from(admission: Admission) -> Self {
        let (rejection, message) = match admission.result {
            Ok(()) => (String::new(), String::new()),
            Err(rejection) => (rejection.reason().to_owned(), rejection.to_string()),
        };
        Self { transaction_id: admission.id.map(|id| id.0.to_vec()).unwrap_or_default(), rejection, message }
    }
}

impl From<Receipt> for v1::Receipt {
    fn from(receipt: Receipt) -> Self {
        Self {
            transaction_id: receipt.id.0.to_vec(),
            height: receipt.height,
            index: receipt.index,
            failure: receipt.failure.map_or(String::new(), |failure| failure.reason().to_owned()),
        }
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::NotFound(_) => Self::not_found(message),
            QueryError::Pruned { .. } | QueryError::Future { .. } => Self::out_of_range(message),
            QueryError::Busy => Self::resource_exhausted(message),
            QueryError::Storage(_) => Self::internal(message),
            QueryError::Stopping => Self::unavailable(message),
        }
    }
}

fn checkpoint_message(checkpoint: Checkpoint) -> v1::GetCheckpointResponse {
    v1::GetCheckpointResponse {
        height: checkpoint.height.0,
        state: checkpoint.state.0.to_vec(),
        receipts: checkpoint.receipts.0.to_vec(),
    }
}

impl From<InclusionProof> for v1::GetProofResponse {
    fn from(proof: InclusionProof) -> Self {
        // The proof was made here, so its hex is sound.
        let bytes = |text: &String| hex::decode(text).unwrap_or_default();
        Self {
            transaction_id: bytes(&proof.transaction_id),
            height: proof.height,
            index: proof.index,
            outcome: proof.outcome.into(),
            transactions: proof.transactions,
            transaction_path: proof.transaction_path.iter().map(bytes).collect(),
            receipt_path: proof.receipt_path.iter().map(bytes).collect(),
            checkpoint: proof.checkpoint,
            block_path: proof.block_path.iter().map(bytes).collect(),
        }
    }
}

/// The height of a request; 0 stands for the last one.
fn wanted(height: u64) -> Option<u64> {
    (height > 0).then_some(height)
}

fn trace_of<T>(request: &Request<T>) -> TraceId {
    trace_id(request.metadata().get(TRACEPARENT).map(tonic::metadata::MetadataValue::as_encoded_bytes))
}

/// The 32 bytes of an id or key in a request.
pub(crate) fn fixed(bytes: &[u8], what: &str) -> Result<[u8; 32], Status> {
    bytes.try_into().map_err(|_| Status::invalid_argument(format!("{what} has 32 bytes, not {}", bytes.len())))
}
