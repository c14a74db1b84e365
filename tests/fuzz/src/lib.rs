//! Fuzz targets: for each decoder that bytes from outside reach, what must hold whatever the bytes are. A target panics
//! if it does not hold. `tests/corpus.rs` runs all of them on the kept corpora; `make fuzz` looks for new inputs.

mod rest;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bizra_driver::signing_record::{BLOCK_BYTES, Binding, FILE_BLOCKS, RecordError, SigningRecord};
use bizra_driver::wire::PeerMessage;
use bizra_node::configuration::{Configuration, LoadedGenesis};
use bizra_node::event_store::{BlockRecord, EventFilter, Position};
use bizra_node::gateway::read_transaction;
use bizra_node::identity::Authority;
use bizra_node::identity::certificates::dns_names;
use bizra_node::network::read_hello;
use bizra_node::snapshot::chunk::{Chunker, decode_chunk};
use bizra_node::transaction::{ChainId, Payload, PayloadVerifier, Transaction};
use bizra_proto::ceremony::{KeyReport, verify_possession};
use bizra_proto::exit::Termination;
use bizra_proto::v1;
use bizra_simplex::types::{Digest, Epoch, Height, Millis, Power, ValidatorIndex, View};
use bizra_simplex::{
    Anchor, Block, Config, Effect, Event, Protocol, Safety, State, Timing, ValidatorSet, Verdict, Vote, VoteKind,
};
use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::CertificateDer;

/// A name and what must hold.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("hello", hello),
    ("peer_message", peer_message),
    ("consensus", consensus),
    ("signing_record", signing_record),
    ("transaction", transaction),
    ("batch", batch),
    ("event_record", event_record),
    ("grpc_requests", grpc_requests),
    ("rest_json", rest_json),
    ("rest_request", rest::request),
    ("configuration", configuration),
    ("genesis", genesis),
    ("key_report", key_report),
    ("termination", termination),
    ("certificate", certificate),
    ("snapshot_chunk", snapshot_chunk),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).copied()
}

/// The first frame of a stream, from whoever holds a certificate: what decodes is canonical.
fn hello(data: &[u8]) {
    if let Some(again) = read_hello(data) {
        assert_eq!(again, data, "two encodings of one introduction");
    }
}

/// Frames between nodes: what decodes is canonical.
fn peer_message(data: &[u8]) {
    if let Ok(message) = PeerMessage::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(message.encode(), data, "two encodings of one message");
    }
}

/// The consensus core under any sequence of messages, all of whose signatures are valid: it answers every one, and never
/// signs what contradicts an earlier vote (its own assertion).
fn consensus(data: &[u8]) {
    let Ok(validators) = ValidatorSet::new(vec![Power(1); 4]) else { return };
    let config = Config {
        epoch: Epoch(0),
        cutoff: Height(16),
        restarted_at: None,
        validators,
        me: Some(ValidatorIndex(0)),
        timing: Timing::default(),
        protocol: Protocol::LATEST,
        signals: Protocol::LATEST.version(),
    };
    let anchor = Anchor::first(Block::genesis(Digest([9; 32]), 0));
    let mut state = State::recover(config, anchor, None, Vec::new(), Safety::default());
    let mut events = VecDeque::from([Event::Started, Event::SigningAllowed]);
    let mut now = 0;
    let mut rest = data;
    loop {
        while let Some(event) = events.pop_front() {
            for effect in state.step(Millis(now), event) {
                match effect {
                    Effect::Verify(token, _) => events.push_back(Event::Verified(token, true)),
                    Effect::Check { block, .. } => events.push_back(Event::Checked(block.digest(), Verdict::Held)),
                    Effect::Sign(vote) => {
                        let signature = bizra_simplex::types::Signature([0; 64]);
                        let signer = ValidatorIndex(0);
                        events.push_back(Event::Signed(bizra_simplex::SignedVote { vote, signer, signature }));
                    }
                    _ => {}
                }
            }
        }
        // One input: milliseconds that pass, length, frame.
        let [milliseconds, high, low, tail @ ..] = rest else { return };
        now += 8 * u64::from(*milliseconds);
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (frame, tail) = tail.split_at(length);
        rest = tail;
        match PeerMessage::decode(Bytes::copy_from_slice(frame)) {
            Ok(PeerMessage::Consensus(message)) => events.push_back(Event::Received(message)),
            Ok(PeerMessage::Block(block)) => events.push_back(Event::Fetched(block)),
            Ok(PeerMessage::Range(blocks, certificate)) => events.push_back(Event::Range(blocks, certificate)),
            _ => events.push_back(Event::Tick),
        }
    }
}

/// A signing record whose blocks anything may have happened to.
fn signing_record(data: &[u8]) {
    let binding = Binding { genesis_hash: Digest([1; 32]), volume: Digest([2; 32]), public_key: [3; 32] };
    let written = || {
        let mut blocks: Vec<_> = SigningRecord::create(&binding).into_iter().map(|(_, block)| block).collect();
        let mut record = SigningRecord::open(&binding, &blocks)?;
        for view in 1..=3 {
            let vote = Vote { epoch: Epoch(0), view: View(view), kind: VoteKind::Nullify, digest: Digest::default() };
            for (position, block) in record.reserve(&[vote])? {
                blocks[position as usize] = block;
            }
        }
        Ok::<_, RecordError>(blocks)
    };
    // Two megabytes: made once, patched, and mended afterwards.
    static BLOCKS: Mutex<Vec<Arc<[u8; BLOCK_BYTES]>>> = Mutex::new(Vec::new());
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    if blocks.is_empty() {
        *blocks = written().expect("a fresh record can be written");
    }
    let mut sound = BTreeMap::new();
    // Patches: block, offset, length, bytes.
    let mut rest = data;
    while let [high, low, at, offset, length, tail @ ..] = rest {
        let block = usize::from(u16::from_be_bytes([*high, *low])) % FILE_BLOCKS as usize;
        let offset = usize::from(u16::from_be_bytes([*at, *offset])) % BLOCK_BYTES;
        let length = usize::from(*length).min(tail.len()).min(BLOCK_BYTES - offset);
        sound.entry(block).or_insert_with(|| blocks[block].clone());
        Arc::make_mut(&mut blocks[block])[offset..offset + length].copy_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    if let Ok(record) = SigningRecord::open(&binding, &blocks) {
        let (epoch, _) = record.latest();
        let _ = record.safety(epoch);
    }
    for (position, block) in sound {
        blocks[position] = block;
    }
}

/// Encoded transactions.
fn transaction(data: &[u8]) {
    let _ = Transaction::decode(data);
}

/// Payloads of batches, checked as a validator checks those of its peers.
fn batch(data: &[u8]) {
    if let Ok(payload) = Payload::parse(data) {
        assert_eq!(payload.entries().count(), payload.count(), "a payload counts what it holds");
    }
    if let Some(chain) = ChainId::new("fuzz") {
        let _ = PayloadVerifier::new(chain).verify(&[Bytes::copy_from_slice(data)]);
    }
}

/// Records of events: what decodes is canonical. Positions and filters, as clients send them.
fn event_record(data: &[u8]) {
    if let Some(record) = BlockRecord::decode(data) {
        assert_eq!(record.encode(), data, "two encodings of one record");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(position) = text.parse::<Position>() {
            assert_eq!(position.to_string().parse(), Ok(position), "a position survives being written");
        }
        let _ = EventFilter::from_names(text.split(','));
    }
}

/// Requests of the client and the admin interface.
fn grpc_requests(data: &[u8]) {
    let _ = v1::SubmitRequest::decode(data);
    let _ = v1::GetTransactionRequest::decode(data);
    let _ = v1::GetAccountRequest::decode(data);
    let _ = v1::GetBlockRequest::decode(data);
    let _ = v1::GetChainRequest::decode(data);
    let _ = v1::GetProofRequest::decode(data);
    let _ = v1::GetCheckpointRequest::decode(data);
    let _ = v1::GetValidatorRequest::decode(data);
    let _ = v1::GetValidatorSetRequest::decode(data);
    let _ = v1::GetStatusRequest::decode(data);
    let _ = v1::Frame::decode(data);
    let _ = v1::SubscribeRequest::decode(data);
}

/// Bodies of submitted transactions over HTTP.
fn rest_json(data: &[u8]) {
    for content_type in [&b"application/json"[..], b"application/octet-stream", b""] {
        let _ = read_transaction(content_type, Bytes::copy_from_slice(data));
    }
}

/// A node's configuration file.
fn configuration(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Configuration::parse(text, "fuzz.toml".as_ref());
    }
}

/// A genesis file.
fn genesis(data: &[u8]) {
    let _ = LoadedGenesis::parse(data);
}

/// Chunks of a snapshot: what decodes is canonical.
fn snapshot_chunk(data: &[u8]) {
    if let Ok(items) = decode_chunk(data) {
        let mut chunker = Chunker::default();
        assert!(items.iter().all(|item| chunker.push(item).is_none()), "a chunk is longer than a chunk");
        assert_eq!(chunker.finish().as_deref(), Some(data), "two encodings of one chunk");
    }
}

/// What a node says of its keys in its termination message, as the operator reads it.
fn key_report(data: &[u8]) {
    if let Ok(report) = serde_json::from_slice::<KeyReport>(data) {
        let _ = verify_possession(&report.public_key, &report.proof_of_possession, "fuzz");
    }
}

/// Why a node says that it stopped, as the operator reads it.
fn termination(data: &[u8]) {
    if let Ok(termination) = serde_json::from_slice::<Termination>(data) {
        let again = serde_json::to_vec(&termination).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Termination>(&again).ok(), Some(termination));
    }
}

/// A peer's certificate after the handshake, and a certificate request in a key report.
fn certificate(data: &[u8]) {
    let _ = dns_names(&CertificateDer::from(data));
    static AUTHORITY: OnceLock<Option<Authority>> = OnceLock::new();
    if let (Some(authority), Ok(request)) =
        (AUTHORITY.get_or_init(|| Authority::generate("fuzz").ok()), std::str::from_utf8(data))
    {
        let _ = authority.sign_request(request, &["v0".to_owned()]);
    }
}
