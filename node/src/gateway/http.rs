//! REST: `/v1/transactions`, `/v1/accounts`, `/v1/validators`, `/v1/validator-sets`, `/v1/checkpoints`, `/v1/blocks`,
//! `/v1/headers`, `/v1/epochs`, `/v1/chain`, `/v1/events`. Amounts are decimal strings, bytes are
//! lower-case hex, errors are problem details.

use std::future::Future;
use std::time::Duration;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bizra_proto::ceremony::decode_hex;
use bizra_simplex::Checkpoint;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http_events::events;
use super::problem::Problem;
use super::queries::{FinalizedBlock, WAIT_MAX};
use super::trace::{TRACEPARENT, trace_id};
use super::{Gateway, GatewayError, SHUTDOWN_GRACE, light};
use crate::blockchain::InclusionProof;
use crate::transaction::{Address, TransactionId};

/// Largest request body: the longest transaction in hex, and JSON around it.
const BODY_MAX_BYTES: usize = 4 * 1024;
/// Deadline of a request that does not wait for finality.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(3);
/// Most blocks in one answer.
const BLOCKS_MAX: u64 = 100;
const BLOCKS_DEFAULT: u64 = 20;

/// Serves REST until `shutdown`; requests still open two seconds later are cut.
pub async fn serve_http(
    gateway: Gateway,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), GatewayError> {
    let (stop, mut stopped) = watch::channel(false);
    let server = axum::serve(listener, router(gateway)).with_graceful_shutdown(async move {
        // An error means the sender is gone: then there is nobody left to serve for either.
        let _ = stopped.wait_for(|&stopped| stopped).await;
    });
    let cut = async move {
        shutdown.await;
        stop.send_replace(true);
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = cut => Ok(()),
    }
}

/// The routes, for serving them elsewhere.
pub fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/transactions", post(submit))
        .route("/v1/transactions/{id}", get(transaction))
        .route("/v1/transactions/{id}/proof", get(proof))
        .route("/v1/accounts/{address}", get(account))
        .route("/v1/validators/{owner}", get(validator))
        .route("/v1/validator-sets/{epoch}", get(validator_set))
        .route("/v1/checkpoints/{height}", get(checkpoint))
        .route("/v1/checkpoints/{height}/headers", get(light::headers_naming))
        .route("/v1/headers/{height}", get(light::headers))
        .route("/v1/epochs", get(light::epochs))
        .route("/v1/epochs/{epoch}", get(light::epoch))
        .route("/v1/blocks", get(blocks))
        .route("/v1/blocks/{height}", get(block))
        .route("/v1/chain", get(chain))
        .route("/v1/events", get(events))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path has other methods")
        })
        .layer(axum::middleware::from_fn(deadline))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(gateway)
}

/// Ends requests that take too long, slow bodies included.
async fn deadline(request: Request, next: Next) -> Response {
    let limit = match request.uri().query() {
        Some(query) if query.contains("waitMilliseconds") => REQUEST_TIME_MAX + WAIT_MAX,
        _ => REQUEST_TIME_MAX,
    };
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "DeadlineExceeded", "the request took too long").into_response()
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitBody {
    transaction: String,
}

#[derive(Serialize)]
struct Submitted {
    id: String,
}

async fn submit(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let result = admit(&gateway, &headers, body).await;
    let outcome = result.as_ref().map_or_else(Problem::reason, |_| "Admitted");
    gateway.metrics.count("http", "Submit", outcome);
    let id = result?;
    let location = [(header::LOCATION, format!("/v1/transactions/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(Submitted { id: id.to_string() })).into_response())
}

async fn admit(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<TransactionId, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("a request body may have {BODY_MAX_BYTES} bytes at most");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", detail)
        }
        _ => Problem::bad_request(rejection.body_text()),
    })?;
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let transaction = read_transaction(content_type, body).map_err(Problem::bad_request)?;
    let trace = trace_id(headers.get(TRACEPARENT).map(axum::http::HeaderValue::as_bytes));
    let admission = gateway.pool.submit(vec![transaction], trace).await.pop();
    match admission.map(|admission| (admission.id, admission.result)) {
        Some((Some(id), Ok(()))) => Ok(id),
        Some((_, Err(rejection))) => Err(Problem::from(&rejection)),
        Some((None, Ok(()))) | None => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", "the node gave no answer"))
        }
    }
}

/// The encoded transaction in a request's body: as it is, or in hex within JSON. The error tells the client what to send.
pub fn read_transaction(content_type: &[u8], body: Bytes) -> Result<Bytes, String> {
    if content_type == b"application/octet-stream" {
        return Ok(body);
    }
    let SubmitBody { transaction } = serde_json::from_slice(&body).map_err(|error| {
        format!("send {{\"transaction\": \"<hex>\"}}, or the bytes as application/octet-stream: {error}")
    })?;
    hex::decode(transaction).map(Bytes::from).map_err(|error| format!("the transaction is not hex: {error}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TransactionQuery {
    #[serde(default)]
    wait_milliseconds: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionBody {
    id: String,
    height: u64,
    index: u32,
    /// `Applied` or `Failed`.
    status: &'static str,
    failure: Option<&'static str>,
    trace_id: String,
    transaction: Option<String>,
}

async fn transaction(
    State(gateway): State<Gateway>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<TransactionQuery>, QueryRejection>,
) -> Result<Json<TransactionBody>, Problem> {
    let id = path_bytes(id, "a transaction id")?;
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let wait = Duration::from_millis(query.wait_milliseconds).min(WAIT_MAX);
    let found = gateway.transaction(TransactionId(id), wait).await?;
    let receipt = found.receipt;
    Ok(Json(TransactionBody {
        id: receipt.id.to_string(),
        height: receipt.height,
        index: receipt.index,
        status: receipt.failure.map_or("Applied", |_| "Failed"),
        failure: receipt.failure.map(crate::blockchain::Failure::reason),
        trace_id: receipt.trace.to_string(),
        transaction: found.encoded.map(hex::encode),
    }))
}

#[derive(Serialize)]
struct AccountBody {
    address: String,
    balance: String,
    nonce: u64,
    height: u64,
}

/// `?height=`: the executed height to answer for; the last one by default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeightQuery {
    height: Option<u64>,
}

fn height(query: Result<Query<HeightQuery>, QueryRejection>) -> Result<Option<u64>, Problem> {
    let Query(HeightQuery { height }) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(height)
}

async fn account(
    State(gateway): State<Gateway>,
    address: Result<Path<String>, PathRejection>,
    query: Result<Query<HeightQuery>, QueryRejection>,
) -> Result<Json<AccountBody>, Problem> {
    let address = Address(path_bytes(address, "an address")?);
    let (account, height) = gateway.account(address, height(query)?).await?;
    let balance = account.balance.to_string();
    Ok(Json(AccountBody { address: address.to_string(), balance, nonce: account.nonce, height }))
}

async fn proof(
    State(gateway): State<Gateway>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<InclusionProof>, Problem> {
    let id = TransactionId(path_bytes(id, "a transaction id")?);
    Ok(Json(gateway.proof(id).await?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ValidatorBody {
    owner: String,
    registered: bool,
    node_name: Option<String>,
    status: Option<&'static str>,
    consensus_key: Option<String>,
    granted_power: Option<String>,
    queued_at: Option<u64>,
    reserved_stake: String,
    unbonding: Vec<UnbondingBody>,
    turns_led: u64,
    turns_missed: u64,
    height: u64,
}

#[derive(Serialize)]
struct UnbondingBody {
    epoch: u64,
    amount: String,
}

async fn validator(
    State(gateway): State<Gateway>,
    owner: Result<Path<String>, PathRejection>,
    query: Result<Query<HeightQuery>, QueryRejection>,
) -> Result<Json<ValidatorBody>, Problem> {
    let owner = Address(path_bytes(owner, "an address")?);
    let ((validator, stake, turns), height) = gateway.validator(owner, height(query)?).await?;
    let unbonding = stake.unbonding.iter();
    Ok(Json(ValidatorBody {
        owner: owner.to_string(),
        registered: validator.is_some(),
        status: validator.as_ref().map(|validator| validator.status.name()),
        consensus_key: validator.as_ref().and_then(|validator| validator.consensus_key).map(hex::encode),
        granted_power: validator.as_ref().map(|validator| validator.granted_power.to_string()),
        queued_at: validator.as_ref().map(|validator| validator.queued_at),
        node_name: validator.map(|validator| validator.name),
        reserved_stake: stake.reserved.to_string(),
        unbonding: unbonding.map(|part| UnbondingBody { epoch: part.epoch, amount: part.amount.to_string() }).collect(),
        turns_led: turns.led,
        turns_missed: turns.missed,
        height,
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ValidatorSetBody {
    epoch: u64,
    cutoff: u64,
    protocol_version: u32,
    hash: String,
    members: Vec<MemberBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberBody {
    owner: String,
    node_name: String,
    consensus_key: String,
    power: String,
    reputation: u16,
    turns_led: u64,
    turns_missed: u64,
}

/// A number in a path, or `latest`.
pub(super) fn number_or_latest(path: Result<Path<String>, PathRejection>, what: &str) -> Result<Option<u64>, Problem> {
    let Path(text) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    if text == "latest" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Problem::bad_request(format!("{what} is a number or `latest`")))
}

async fn validator_set(
    State(gateway): State<Gateway>,
    epoch: Result<Path<String>, PathRejection>,
) -> Result<Json<ValidatorSetBody>, Problem> {
    let set = gateway.validator_set(number_or_latest(epoch, "an epoch")?).await?;
    let hash = set.hash().to_string();
    let members = set.members.into_iter().map(|member| MemberBody {
        owner: member.owner.to_string(),
        node_name: member.name,
        consensus_key: hex::encode(member.consensus_key),
        power: member.power.to_string(),
        reputation: member.conduct.reputation.get(),
        turns_led: member.conduct.turns.led,
        turns_missed: member.conduct.turns.missed,
    });
    let members = members.collect();
    let (epoch, cutoff, protocol_version) = (set.epoch, set.cutoff, set.version);
    Ok(Json(ValidatorSetBody { epoch, cutoff, protocol_version, hash, members }))
}

#[derive(Serialize)]
struct CheckpointBody {
    height: u64,
    state: String,
    receipts: String,
}

impl From<Checkpoint> for CheckpointBody {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            height: checkpoint.height.0,
            state: checkpoint.state.to_string(),
            receipts: checkpoint.receipts.to_string(),
        }
    }
}

async fn checkpoint(
    State(gateway): State<Gateway>,
    height: Result<Path<String>, PathRejection>,
) -> Result<Json<CheckpointBody>, Problem> {
    Ok(Json(gateway.checkpoint(number_or_latest(height, "a height")?).await?.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlocksQuery {
    from: Option<u64>,
    limit: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockBody {
    height: u64,
    hash: String,
    parent_hash: String,
    time_milliseconds: u64,
    batches: Vec<String>,
    transactions: u32,
    view: u64,
    epoch: u64,
    checkpoint: CheckpointBody,
    next_validators: Option<String>,
}

impl From<FinalizedBlock> for BlockBody {
    fn from(FinalizedBlock { view: block, transactions }: FinalizedBlock) -> Self {
        Self {
            height: block.height.0,
            hash: block.hash.to_string(),
            parent_hash: block.parent.to_string(),
            time_milliseconds: block.time_milliseconds,
            batches: block.batches.iter().map(ToString::to_string).collect(),
            transactions,
            view: block.view,
            epoch: block.epoch.0,
            checkpoint: block.checkpoint.into(),
            next_validators: block.next_validators.map(|digest| digest.to_string()),
        }
    }
}

#[derive(Serialize)]
struct BlocksBody {
    blocks: Vec<BlockBody>,
}

async fn blocks(
    State(gateway): State<Gateway>,
    query: Result<Query<BlocksQuery>, QueryRejection>,
) -> Result<Json<BlocksBody>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(BLOCKS_DEFAULT);
    if !(1..=BLOCKS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be 1 to {BLOCKS_MAX}")));
    }
    let blocks = gateway.blocks(query.from, limit).await?.into_iter().map(BlockBody::from).collect();
    Ok(Json(BlocksBody { blocks }))
}

async fn block(
    State(gateway): State<Gateway>,
    height: Result<Path<u64>, PathRejection>,
) -> Result<Json<BlockBody>, Problem> {
    let Path(height) = height.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(Json(gateway.block(height).await?.into()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainBody {
    chain_id: String,
    genesis_hash: String,
    finalized_height: u64,
    finalized_hash: String,
    transactions: u64,
    oldest_height: u64,
}

async fn chain(State(gateway): State<Gateway>) -> Result<Json<ChainBody>, Problem> {
    let chain = gateway.chain().await?;
    Ok(Json(ChainBody {
        chain_id: chain.id,
        genesis_hash: chain.genesis_hash.to_string(),
        finalized_height: chain.height.0,
        finalized_hash: chain.hash.to_string(),
        transactions: chain.transactions,
        oldest_height: chain.oldest,
    }))
}

fn path_bytes(path: Result<Path<String>, PathRejection>, what: &str) -> Result<[u8; 32], Problem> {
    let Path(text) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    decode_hex(&text).ok_or_else(|| Problem::bad_request(format!("{what} is 64 lower-case hex digits")))
}
