#![allow(clippy::unwrap_used)]

use bizra_proto::ceremony::GenesisAccount;
use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use bizra_proto::v1::submit_event::Event;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::testing::{CHAIN, OneNode};
use super::*;
use crate::transaction::{Address, TransactionId, Transfer};

fn key(seed: u8) -> SigningKey {
    SigningKey::from([seed; 32])
}

fn address(seed: u8) -> Address {
    Address(VerificationKeyBytes::from(&key(seed)).into())
}

fn transfer(nonce: u64, amount: u64) -> Bytes {
    let chain = ChainId::new(CHAIN).unwrap();
    Transfer { chain, nonce, fee: 0, expiry_height: 1_000, recipient: address(2), amount, memo: &[] }
        .sign(&key(1))
        .unwrap()
}

async fn node() -> OneNode {
    OneNode::start(vec![GenesisAccount { address: address(1).to_string(), balance: "100".to_owned() }]).await
}

/// One HTTP exchange, by hand: whatever bytes a test wants to send.
async fn exchange(node: &OneNode, head: &str, body: &[u8]) -> (u16, Value) {
    let mut socket = TcpStream::connect(node.http).await.unwrap();
    let head = format!("{head}\r\nHost: node\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn get(node: &OneNode, path: &str) -> (u16, Value) {
    exchange(node, &format!("GET {path} HTTP/1.1"), b"").await
}

async fn post(node: &OneNode, transaction: &[u8]) -> (u16, Value) {
    let body = json!({ "transaction": hex::encode(transaction) }).to_string();
    exchange(node, "POST /v1/transactions HTTP/1.1\r\nContent-Type: application/json", body.as_bytes()).await
}

fn problem(status: u16, answer: &(u16, Value)) -> &str {
    assert_eq!(answer.0, status, "{:?}", answer.1);
    assert_eq!(answer.1["status"], status);
    answer.1["title"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_over_rest_is_admitted_finalised_and_readable() {
    let node = node().await;
    let transaction = transfer(0, 40);
    let id = TransactionId::of(&transaction).to_string();
    let head = "POST /v1/transactions HTTP/1.1\r\nContent-Type: application/octet-stream\r\n\
                traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(exchange(&node, head, &transaction).await, (202, json!({ "id": id })));
    let (status, found) = get(&node, &format!("/v1/transactions/{id}?waitMilliseconds=5000")).await;
    assert_eq!((status, &found["status"], &found["height"]), (200, &json!("Applied"), &json!(1)));
    assert_eq!(found["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(found["transaction"], hex::encode(&transaction));

    let (_, account) = get(&node, &format!("/v1/accounts/{}", address(1))).await;
    assert_eq!((&account["balance"], &account["nonce"]), (&json!("60"), &json!(1)));
    let (_, before) = get(&node, &format!("/v1/accounts/{}?height=0", address(1))).await;
    assert_eq!((&before["balance"], &before["height"]), (&json!("100"), &json!(0)));
    let future = get(&node, &format!("/v1/accounts/{}?height=9", address(1))).await;
    assert_eq!(problem(404, &future), "FutureHeight");
    let (_, checkpoint) = get(&node, "/v1/checkpoints/latest").await;
    assert_eq!((&checkpoint["height"], checkpoint["state"].as_str().unwrap().len()), (&json!(0), 64));
    assert_eq!(problem(404, &get(&node, &format!("/v1/transactions/{id}/proof")).await), "FutureHeight");
    let (_, validator) = get(&node, &format!("/v1/validators/{}", address(1))).await;
    assert_eq!((&validator["registered"], &validator["reservedStake"]), (&json!(false), &json!("0")));
    let (_, set) = get(&node, "/v1/validator-sets/latest").await;
    assert_eq!((&set["epoch"], set["members"].as_array().unwrap().len()), (&json!(0), 0));

    let (_, chain) = get(&node, "/v1/chain").await;
    assert_eq!(
        (&chain["chainId"], &chain["finalizedHeight"], &chain["transactions"]),
        (&json!(CHAIN), &json!(1), &json!(1))
    );
    let (_, blocks) = get(&node, "/v1/blocks?from=0&limit=5").await;
    assert_eq!(blocks["blocks"].as_array().unwrap().len(), 2);
    let (_, block) = get(&node, "/v1/blocks/1").await;
    assert_eq!((&block["transactions"], &block["hash"]), (&json!(1), &chain["finalizedHash"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_typed_problems_and_the_node_goes_on() {
    let node = node().await;
    let mut forged = transfer(0, 1).to_vec();
    forged[129] ^= 1;
    assert_eq!(problem(400, &post(&node, &forged).await), "InvalidSignature");
    assert_eq!(problem(400, &post(&node, b"").await), "Truncated");
    assert_eq!(problem(409, &post(&node, &transfer(0, 1_000)).await), "InsufficientBalance");
    assert_eq!(problem(413, &post(&node, &[1; 1_000]).await), "TooLarge");
    let large = vec![b'x'; 10_000];
    assert_eq!(problem(413, &exchange(&node, "POST /v1/transactions HTTP/1.1", &large).await), "TooLarge");
    for body in ["", "{}", "[1]", "{\"transaction\": \"zz\"}", "{\"transaction\": 1, \"more\": 2}"] {
        let answer = exchange(&node, "POST /v1/transactions HTTP/1.1", body.as_bytes()).await;
        assert_eq!(problem(400, &answer), "BadRequest");
    }
    assert_eq!(problem(404, &get(&node, &format!("/v1/transactions/{}", "0".repeat(64))).await), "NotFound");
    assert_eq!(problem(404, &get(&node, "/v1/blocks/99").await), "NotFound");
    assert_eq!(problem(404, &get(&node, "/v2").await), "NotFound");
    assert_eq!(problem(405, &exchange(&node, "DELETE /v1/chain HTTP/1.1", b"").await), "MethodNotAllowed");
    for path in ["/v1/transactions/xyz", "/v1/accounts/1", "/v1/blocks/-1", "/v1/blocks?limit=0", "/v1/blocks?limit=x"]
    {
        assert_eq!(problem(400, &get(&node, path).await), "BadRequest", "{path}");
    }
    assert_eq!(post(&node, &transfer(0, 1)).await.0, 202);
    let id = TransactionId::of(&transfer(0, 1));
    assert_eq!(get(&node, &format!("/v1/transactions/{id}?waitMilliseconds=5000")).await.0, 200);
    assert_eq!(problem(409, &post(&node, &transfer(0, 1)).await), "AlreadyFinalised");
    assert_eq!(problem(409, &post(&node, &transfer(0, 2)).await), "NonceTooLow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_hears_admissions_rejections_and_receipts() {
    let node = node().await;
    let mut client = LedgerClient::connect(node.grpc.clone()).await.unwrap();
    let request =
        v1::SubmitRequest { transactions: vec![transfer(0, 1), Bytes::from_static(b"noise"), transfer(1, 1)] };
    let mut events = client.submit_stream(futures::stream::iter([request])).await.unwrap().into_inner();
    let mut heard = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        heard.push(match event.event.unwrap() {
            Event::Admission(admission) => admission.rejection,
            Event::Receipt(receipt) => format!("{}/{}{}", receipt.height, receipt.index, receipt.failure),
        });
    }
    assert_eq!(heard, ["", "UnknownVersion", "", "1/0", "1/1"]);

    let id = TransactionId::of(&transfer(1, 1)).0.to_vec();
    let request = v1::GetTransactionRequest { transaction_id: id, wait_milliseconds: 0 };
    let found = client.get_transaction(request).await.unwrap().into_inner();
    assert_eq!(found.transaction, transfer(1, 1));
    let account =
        client.get_account(v1::GetAccountRequest { address: address(2).0.to_vec(), height: 0 }).await.unwrap();
    assert_eq!(account.into_inner().balance, 2);
    let chain = client.get_chain(v1::GetChainRequest {}).await.unwrap().into_inner();
    let block = client.get_block(v1::GetBlockRequest { height: 1 }).await.unwrap().into_inner();
    assert_eq!((chain.finalized_height, chain.finalized_hash, block.transactions), (1, block.hash, 2));

    let request = v1::GetAccountRequest { address: vec![1], height: 0 };
    assert_eq!(client.get_account(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let request = v1::SubmitRequest { transactions: vec![transfer(2, 1); 1_025] };
    assert_eq!(client.submit(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_served() {
    let node = node().await;
    let channel = tonic::transport::Endpoint::from_shared(node.grpc.clone()).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "bizra.node.v1.Ledger".to_owned() };
    let status = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
}
