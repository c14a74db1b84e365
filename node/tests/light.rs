//! A light client of a real network: over several epochs with changing validators, with a transaction proven from the
//! genesis alone, and with nodes in front of it that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bizra_driver::light::{Headers, Link};
use bizra_node::configuration::LoadedGenesis;
use bizra_node::identity::SignerFolder;
use bizra_node::light::{Fault, LightClient, LightClientError, Source, Trust, shortest_unbonding};
use bizra_node::transaction::TransactionId;
use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use bizra_proto::v1::ledger_server::{Ledger, LedgerServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

const BINARY: &str = env!("CARGO_BIN_EXE_bizra-node");
const BASE_PORT: u16 = 32_300;
const PATIENCE: Duration = Duration::from_mins(2);

/// A devnet with epochs of 32 blocks, and load that makes them short.
struct Network {
    folder: tempfile::TempDir,
    devnet: Child,
    load: Option<Child>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Network {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let devnet = Command::new(BINARY)
            .args(["devnet", "--validators", "4", "--accounts", "50", "--epoch-blocks", "32", "--base-port"])
            .arg(BASE_PORT.to_string())
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let network = Self { folder, devnet, load: None };
        Network::until("the network is ready", || Network::run(&["blocks", "--node", &url(3), "--limit", "1"]).is_ok());
        network
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Keeps the chain busy, so that epochs are short.
    fn load(&mut self) {
        let load = Command::new(BINARY)
            .args(["load", "--duration", "180", "--rate", "40", "--accounts", "50", "--target", &url(0)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.load = Some(load.unwrap());
    }

    /// Stops the load, and the nodes, which are children of the devnet.
    fn stop(&mut self) {
        if let Some(mut load) = self.load.take() {
            let _ = load.kill();
            let _ = load.wait();
        }
        if matches!(self.devnet.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.devnet.id().to_string()).status();
        }
        let _ = self.devnet.wait();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs a command of the binary: its standard output as text, or its standard error.
    fn run(arguments: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } =
            Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
    }

    fn json(arguments: &[&str]) -> serde_json::Value {
        let output = Self::run(&[arguments, &["--output", "json"]].concat()).unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_str(&output).unwrap()
    }

    fn light(&self, more: &[&str]) -> Result<serde_json::Value, String> {
        let genesis = self.path("genesis.json");
        let output = Self::run(&[&["light", "--genesis", &genesis, "--output", "json"], more].concat())?;
        Ok(serde_json::from_str(&output).unwrap())
    }

    fn genesis(&self) -> LoadedGenesis {
        LoadedGenesis::load(&PathBuf::from(self.path("genesis.json"))).unwrap()
    }

    /// Queues a new key for the validator of v3, whose node goes on without a vote.
    fn rotate(&self) -> String {
        let owner = self.genesis().genesis.validators[3].owner.clone().unwrap();
        SignerFolder::open_or_create(&self.folder.path().join("spare"), "spare").unwrap();
        let proof = Self::run(&[
            "validator",
            "prove-key",
            "--data-dir",
            &self.path("spare"),
            "--volume-id",
            "spare",
            "--owner",
            &owner,
            "--node",
            &url(0),
        ]);
        std::fs::write(self.path("proof.json"), proof.unwrap()).unwrap();
        let (proof, key) = (self.path("proof.json"), self.path("v3/owner.key"));
        let sent =
            Self::json(&["validator", "rotate-key", "--proof", &proof, "--key", &key, "--wait", "--node", &url(0)]);
        assert_eq!(sent["status"], "Applied", "{sent}");
        sent["id"].as_str().unwrap().to_owned()
    }
}

fn url(node: u16) -> String {
    format!("http://127.0.0.1:{}", BASE_PORT + 10 * node + 1)
}

/// The JSON answer of v0's REST interface, and its status.
fn get(path: &str) -> (u16, serde_json::Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", BASE_PORT + 2)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// Links and headers over REST are the same canonical bytes.
fn rest_serves_the_same_bytes() {
    let (status, link) = get("/v1/epochs/1");
    assert_eq!(status, 200, "{link}");
    let decoded = Link::decode(hex::decode(link["link"].as_str().unwrap()).unwrap().into()).unwrap();
    assert_eq!(
        (decoded.block.epoch.0, decoded.block.digest().to_string()),
        (1, link["hash"].as_str().unwrap().to_owned())
    );
    let (_, page) = get("/v1/epochs?from=1&limit=2");
    assert_eq!(page["epochs"][0], link);
    assert_eq!(page["epochs"].as_array().unwrap().len(), 2);
    let (status, problem) = get("/v1/epochs/1000000");
    assert_eq!((status, &problem["title"]), (404, &"NotFound".into()));
    assert_eq!(get("/v1/epochs?limit=33").0, 400);
    for path in ["/v1/headers/latest", "/v1/headers/40", "/v1/checkpoints/32/headers"] {
        let (status, headers) = get(path);
        assert_eq!(status, 200, "{path}: {headers}");
        let decoded = Headers::decode(hex::decode(headers["headers"].as_str().unwrap()).unwrap().into()).unwrap();
        assert_eq!(decoded.blocks[0].digest().to_string(), headers["hash"].as_str().unwrap());
    }
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis().try_into().unwrap()
}

/// What a lying node changes in the answers of the real one behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Validators of its own in the first link.
    Validators,
    /// The same, with a boundary that names them.
    Boundary,
    /// A certificate without a quorum.
    FewSigners,
    /// The second link first.
    SkippedEpoch,
    /// Another state in the last header.
    State,
    /// A failed transaction instead of an applied one.
    Outcome,
    /// Another receipts root in the header that names the checkpoint, to fit nothing.
    Receipts,
    /// Bytes of no form.
    Garbage,
}

struct Liar {
    lie: Lie,
    real: LedgerClient<Channel>,
}

impl Liar {
    /// Serves on a port of its own; ends with the runtime.
    async fn start(lie: Lie) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let real = LedgerClient::connect(url(0)).await.unwrap();
        let service = LedgerServer::new(Self { lie, real });
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        format!("http://{address}")
    }

    fn twist_links(&self, links: &mut Vec<Vec<u8>>) {
        if self.lie == Lie::SkippedEpoch {
            links.remove(0);
            return;
        }
        let Some(first) = links.first_mut() else { return };
        let mut link = Link::decode(first.clone().into()).unwrap();
        match self.lie {
            Lie::Validators => link.next[0].key.0[0] ^= 1,
            Lie::Boundary => {
                link.next[0].key.0[0] ^= 1;
                let validators = bizra_driver::validators_hash(link.block.epoch.next(), &link.next);
                link.block.boundary.as_mut().unwrap().validators = validators;
                link.finalization.vote.digest = link.block.digest();
            }
            Lie::FewSigners => link.finalization.signatures.truncate(1),
            _ => {}
        }
        *first = link.encode().into();
        if self.lie == Lie::Garbage {
            first.truncate(17);
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn nothing<T>() -> Answer<T> {
    Err(Status::unimplemented("a liar only answers light clients"))
}

#[tonic::async_trait]
impl Ledger for Liar {
    type SubmitStreamStream = tokio_stream::Empty<Result<v1::SubmitEvent, Status>>;

    async fn get_chain(&self, request: Request<v1::GetChainRequest>) -> Answer<v1::GetChainResponse> {
        self.real.clone().get_chain(request.into_inner()).await
    }

    async fn get_epoch_links(&self, request: Request<v1::GetEpochLinksRequest>) -> Answer<v1::GetEpochLinksResponse> {
        let mut answer = self.real.clone().get_epoch_links(request.into_inner()).await?.into_inner();
        self.twist_links(&mut answer.links);
        Ok(Response::new(answer))
    }

    async fn get_headers(&self, request: Request<v1::GetHeadersRequest>) -> Answer<v1::GetHeadersResponse> {
        let request = request.into_inner();
        let naming = request.wanted.is_some();
        let mut answer = self.real.clone().get_headers(request).await?.into_inner();
        let mut headers = Headers::decode(answer.headers.clone().into()).unwrap();
        match self.lie {
            Lie::State if !naming => headers.blocks[0].checkpoint.state.0[0] ^= 1,
            Lie::Receipts if naming => headers.blocks[0].checkpoint.receipts.0[0] ^= 1,
            _ => return Ok(Response::new(answer)),
        }
        answer.headers = headers.encode().into();
        Ok(Response::new(answer))
    }

    async fn get_proof(&self, request: Request<v1::GetProofRequest>) -> Answer<v1::GetProofResponse> {
        let mut answer = self.real.clone().get_proof(request.into_inner()).await?.into_inner();
        if self.lie == Lie::Outcome {
            answer.outcome = 1;
        }
        Ok(Response::new(answer))
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Answer<v1::SubmitResponse> {
        nothing()
    }

    async fn submit_stream(&self, _: Request<Streaming<v1::SubmitRequest>>) -> Answer<Self::SubmitStreamStream> {
        nothing()
    }

    async fn get_transaction(&self, _: Request<v1::GetTransactionRequest>) -> Answer<v1::GetTransactionResponse> {
        nothing()
    }

    async fn get_account(&self, _: Request<v1::GetAccountRequest>) -> Answer<v1::GetAccountResponse> {
        nothing()
    }

    async fn get_block(&self, _: Request<v1::GetBlockRequest>) -> Answer<v1::GetBlockResponse> {
        nothing()
    }

    async fn get_checkpoint(&self, _: Request<v1::GetCheckpointRequest>) -> Answer<v1::GetCheckpointResponse> {
        nothing()
    }

    async fn get_validator(&self, _: Request<v1::GetValidatorRequest>) -> Answer<v1::GetValidatorResponse> {
        nothing()
    }

    async fn get_validator_set(&self, _: Request<v1::GetValidatorSetRequest>) -> Answer<v1::GetValidatorSetResponse> {
        nothing()
    }
}

/// A client that starts from the genesis and asks these nodes in turn.
fn client(network: &Network, urls: &[String]) -> LightClient {
    let genesis = network.genesis();
    let sources = urls.iter().map(|url| Source::new(url).unwrap()).collect();
    let period = Duration::from_hours(1);
    LightClient::new(genesis.clone(), Trust::genesis(&genesis).unwrap(), sources, period, now()).unwrap()
}

fn lied(client: &LightClient) -> bool {
    matches!(client.sources()[0].fault(), Some(Fault::Lied(_)))
}

/// Every lie is found and named, the next node is used, and alone a liar gets nobody anywhere.
async fn liars_are_named_and_passed_by(network: &Network, id: TransactionId) {
    let about_links = [Lie::Validators, Lie::Boundary, Lie::FewSigners, Lie::SkippedEpoch, Lie::Garbage, Lie::State];
    for lie in about_links {
        let liar = Liar::start(lie).await;
        let mut both = client(network, &[liar.clone(), url(1)]);
        let head = both.sync(now()).await.unwrap();
        assert!(lied(&both), "{lie:?}: {:?}", both.sources()[0].fault());
        assert_eq!(head.source, url(1));
        let alone = client(network, std::slice::from_ref(&liar)).sync(now()).await.unwrap_err();
        let LightClientError::NoHelp(faults) = &alone else { panic!("{alone}") };
        assert!(faults[0].0 == liar && alone.to_string().contains("LIED"), "{alone}");
    }
    for lie in [Lie::Outcome, Lie::Receipts] {
        let liar = Liar::start(lie).await;
        let mut both = client(network, &[liar.clone(), url(1)]);
        both.sync(now()).await.unwrap();
        assert!(!lied(&both), "{lie:?}");
        let proven = both.prove(id).await.unwrap();
        assert!(lied(&both), "{lie:?}");
        assert_eq!((proven.source, proven.failure), (url(1), None));
        let mut alone = client(network, &[liar]);
        alone.sync(now()).await.unwrap();
        assert!(alone.prove(id).await.is_err());
    }
}

#[test]
fn a_light_client_trusts_the_genesis_and_nobody_else() {
    let mut network = Network::start();
    let id = network.rotate();
    network.load();
    let set = |epoch: u64| Network::run(&["validator", "set", "--node", &url(0), "--epoch", &epoch.to_string()]);
    Network::until("four epochs are over", || set(5).is_ok());
    let keys = |epoch: u64| {
        let set = Network::json(&["validator", "set", "--node", &url(0), "--epoch", &epoch.to_string()]);
        set["members"].as_array().unwrap().iter().map(|member| member["consensusKey"].clone()).collect::<Vec<_>>()
    };
    assert_ne!(keys(0), keys(5), "the rotation changed the validators");

    // From the genesis, with a proof; then from where the last run ended.
    let trust = network.path("trust.json");
    let found =
        network.light(&["--node", &url(1), "--trust", &trust, "--trust-period", "3600", "--transaction", &id]).unwrap();
    assert!(found["epoch"].as_u64().unwrap() >= 4, "{found}");
    assert_eq!(found["transaction"]["status"], "Applied", "{found}");
    let anchor = found["anchor"].as_str().unwrap().to_owned();
    let again = network.light(&["--node", &url(2), "--trust", &trust, "--trust-period", "3600"]).unwrap();
    assert!(again["height"].as_u64() >= found["height"].as_u64(), "{again} after {found}");
    // What it believes is what the nodes hold.
    let height = found["height"].to_string();
    let block = Network::json(&["blocks", "--from", &height, "--limit", "1", "--node", &url(3)]);
    assert_eq!((&block[0]["hash"], &block[0]["checkpoint"]), (&found["hash"], &found["checkpoint"]));

    // An anchor that somebody vouches for, and one that nobody should.
    assert!(network.light(&["--node", &url(0), "--anchor", &anchor]).is_ok());
    let (epoch, _) = anchor.split_once(':').unwrap();
    let refused = network.light(&["--node", &url(0), "--anchor", &format!("{epoch}:{}", "00".repeat(32))]).unwrap_err();
    assert!(refused.contains("the trusted one is 0000"), "{refused}");
    // Too old: by the clock, and for a client of another chain.
    let refused = network.light(&["--node", &url(0), "--trust-period", "0"]).unwrap_err();
    assert!(refused.contains("--anchor EPOCH:DIGEST"), "{refused}");
    let genesis = network.genesis();
    assert_eq!(shortest_unbonding(&genesis.genesis.parameters), Duration::from_millis(64 * 32 * 25));

    // A proof by itself, checked from the genesis.
    let proof = Network::run(&["proof", "get", &id, "--node", &url(0)]).unwrap();
    std::fs::write(network.path("inclusion.json"), &proof).unwrap();
    let genesis = network.path("genesis.json");
    let check = |file: &str| {
        let file = network.path(file);
        let period = ["--trust-period", "3600"];
        Network::run(&[&["proof", "check", &file, "--genesis", &genesis, "--node", &url(1)], &period[..]].concat())
    };
    assert!(check("inclusion.json").unwrap().contains("Applied"));
    let forged = proof.replace("\"outcome\": 0", "\"outcome\": 1");
    assert_ne!(forged, proof);
    std::fs::write(network.path("forged.json"), forged).unwrap();
    let refused = check("forged.json").unwrap_err();
    assert!(refused.contains("leads to receipts root"), "{refused}");

    rest_serves_the_same_bytes();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let id = TransactionId(bizra_proto::ceremony::decode_hex(&id).unwrap());
    runtime.block_on(liars_are_named_and_passed_by(&network, id));
    drop(runtime);

    // The whole chain, on disk, through every set of validators.
    network.stop();
    let arguments = ["verify", "--data-dir", &network.path("v0"), "--genesis", &network.path("genesis.json")];
    let report = Network::json(&arguments);
    assert!(report["blocks"].as_u64().unwrap() > 4 * 32, "{report}");
}
