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

/// The text of an event stream that ends by itself, without its chunks' frames.
async fn event_stream(node: &OneNode, query: &str, header: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(node.http).await.unwrap();
    let request = format!("GET /v1/events{query} HTTP/1.0\r\nHost: node\r\n{header}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn ids(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

async fn finalize(node: &OneNode, nonce: u64) {
    let transaction = transfer(nonce, 1);
    assert_eq!(post(node, &transaction).await.0, 202);
    let id = TransactionId::of(&transaction);
    assert_eq!(get(node, &format!("/v1/transactions/{id}?waitMilliseconds=5000")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_begin_anywhere_and_go_on_behind_the_last_event_id() {
    let node = node().await;
    finalize(&node, 0).await;
    finalize(&node, 1).await;
    let (status, stream) = event_stream(&node, "?from=1:0&follow=false", "").await;
    assert_eq!(status, 200);
    assert!(stream.starts_with("retry: 1000\n\n"));
    let expected: Vec<String> =
        (1..=2).flat_map(|height| (0..7).map(move |index| format!("{height}:{index}"))).collect();
    assert_eq!(ids(&stream), expected);
    let types: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).take(7).collect();
    assert_eq!(
        types,
        [
            "TransactionSubmitted",
            "BlockCreated",
            "BlockValidated",
            "ConsensusReached",
            "TransactionApplied",
            "Transferred",
            "BlockFinalized"
        ]
    );
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).nth(5).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["amount"], &data["height"], &data["index"]), (&json!("1"), &json!(1), &json!(5)));
    assert_eq!(
        (&data["account"], &data["recipient"]),
        (&json!(address(1).to_string()), &json!(address(2).to_string()))
    );

    let (_, stream) = event_stream(&node, "?from=1:0&follow=false", "Last-Event-ID: 1:6\r\n").await;
    assert_eq!(ids(&stream), expected[7..]);
    let (_, stream) = event_stream(&node, "?from=1:3&types=Transferred,BlockFinalized&follow=false", "").await;
    assert_eq!(ids(&stream), ["1:5", "1:6", "2:5", "2:6"]);

    // Live: what is finalised after the subscription arrives, and the stream stays open.
    let mut socket = TcpStream::connect(node.http).await.unwrap();
    socket.write_all(b"GET /v1/events HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\n\n\r\n") {
        seen.push(socket.read_u8().await.unwrap());
    }
    finalize(&node, 2).await;
    while !String::from_utf8_lossy(&seen).contains("event: BlockFinalized") {
        seen.push(socket.read_u8().await.unwrap());
    }
    // Nothing more happens: a sign of life comes by itself.
    while !seen.ends_with(b"\n: heartbeat\n\n") {
        seen.push(socket.read_u8().await.unwrap());
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert_eq!(ids(&seen).first().zip(ids(&seen).last()), Some((&"3:0", &"3:6")));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_for_events_get_typed_problems() {
    let node = node().await;
    finalize(&node, 0).await;
    for (query, status, title) in [
        ("?from=1", 400, "BadRequest"),
        ("?from=-1:0", 400, "BadRequest"),
        ("?from=1:0&types=Nothing", 400, "BadRequest"),
        ("?from=1:0&types=", 400, "BadRequest"),
        ("?follow=perhaps", 400, "BadRequest"),
        ("?colour=red", 400, "BadRequest"),
        ("?from=3:0", 404, "FutureHeight"),
        ("?from=1:9", 404, "NoSuchIndex"),
    ] {
        assert_eq!(problem(status, &get(&node, &format!("/v1/events{query}")).await), title, "{query}");
    }
    let (status, body) = event_stream(&node, "?from=1:0", "Last-Event-ID: \"x\"\r\n").await;
    assert_eq!((status, body.contains("HEIGHT:INDEX")), (400, true), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_subscribers_get_every_event_once_and_errors_that_say_what_to_do() {
    use bizra_proto::v1::events_client::EventsClient;
    let node = node().await;
    finalize(&node, 0).await;
    let mut client = EventsClient::connect(node.grpc.clone()).await.unwrap();
    let from = |height, index| Some(v1::EventPosition { height, index });
    let request = v1::SubscribeRequest { from: from(1, 2), ..v1::SubscribeRequest::default() };
    let mut events = client.subscribe(request).await.unwrap().into_inner();
    finalize(&node, 1).await;
    for (height, index) in (2..7).map(|index| (1, index)).chain((0..7).map(|index| (2, index))) {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!((event.height, event.index), (height, index));
    }
    let request = v1::SubscribeRequest {
        from: from(1, 5),
        after: true,
        types: vec!["Transferred".to_owned()],
        history_only: true,
    };
    let mut events = client.subscribe(request).await.unwrap().into_inner();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!((event.height, event.index, event.amount, event.r#type.as_str()), (2, 5, Some(1), "Transferred"));
    assert_eq!(event.transaction_id, TransactionId::of(&transfer(1, 1)).0);
    assert!(events.message().await.unwrap().is_none());

    for (from, types, code) in [
        (from(9, 0), vec![], tonic::Code::OutOfRange),
        (from(1, 99), vec![], tonic::Code::OutOfRange),
        (from(1, 0), vec!["Nothing".to_owned()], tonic::Code::InvalidArgument),
        (from(1, 0), vec!["Transferred".repeat(1_000)], tonic::Code::OutOfRange),
    ] {
        let request = v1::SubscribeRequest { from, types, ..v1::SubscribeRequest::default() };
        let status = client.subscribe(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
}
