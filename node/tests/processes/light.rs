//! A light client of a real network: over several epochs with changing validators, with a transaction proven from the
//! genesis alone, and with nodes in front of it that lie.

use std::time::Duration;

use crate::common::devnet::Devnet;
use crate::common::patience::wait;
use crate::common::process::{self, Process};
use bizra_driver::light::{Headers, Link};
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

fn light(devnet: &Devnet, more: &[&str]) -> Result<serde_json::Value, String> {
    let genesis = devnet.path("genesis.json");
    let output = process::run(&[&["light", "--genesis", &genesis, "--output", "json"], more].concat())?;
    Ok(serde_json::from_str(&output).unwrap())
}

/// Queues a new key for the validator of v3, whose node goes on without a vote.
fn rotate(devnet: &Devnet) -> String {
    let owner = devnet.genesis().genesis.validators[3].owner.clone().unwrap();
    SignerFolder::open_or_create(devnet.path("spare").as_ref(), "spare").unwrap();
    let (spare, node) = (devnet.path("spare"), devnet.url(0));
    let proof = ["prove-key", "--data-dir", &spare, "--volume-id", "spare", "--owner", &owner, "--node", &node];
    let proof = process::run(&[&["validator"], &proof[..]].concat()).unwrap();
    let (file, key) = (devnet.path("proof.json"), devnet.path("v3/owner.key"));
    std::fs::write(&file, proof).unwrap();
    let sent = process::json(&["validator", "rotate-key", "--proof", &file, "--key", &key, "--wait", "--node", &node]);
    assert_eq!(sent["status"], "Applied", "{sent}");
    sent["id"].as_str().unwrap().to_owned()
}

/// Links and headers over REST are the same canonical bytes.
fn rest_serves_the_same_bytes(devnet: &Devnet) {
    let get = |path: &str| -> (u16, serde_json::Value) {
        let (status, body) = devnet.get(0, path).unwrap();
        (status, serde_json::from_str(&body).unwrap())
    };
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
    async fn start(devnet: &Devnet, lie: Lie) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let real = LedgerClient::connect(devnet.url(0)).await.unwrap();
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
fn client(devnet: &Devnet, urls: &[String]) -> LightClient {
    let genesis = devnet.genesis();
    let sources = urls.iter().map(|url| Source::new(url).unwrap()).collect();
    let period = Duration::from_hours(1);
    LightClient::new(genesis.clone(), Trust::genesis(&genesis).unwrap(), sources, period, now()).unwrap()
}

fn lied(client: &LightClient) -> bool {
    matches!(client.sources()[0].fault(), Some(Fault::Lied(_)))
}

/// Every lie is found and named, the next node is used, and alone a liar gets nobody anywhere.
async fn liars_are_named_and_passed_by(devnet: &Devnet, id: TransactionId) {
    let about_links = [Lie::Validators, Lie::Boundary, Lie::FewSigners, Lie::SkippedEpoch, Lie::Garbage, Lie::State];
    for lie in about_links {
        let liar = Liar::start(devnet, lie).await;
        let mut both = client(devnet, &[liar.clone(), devnet.url(1)]);
        let head = both.sync(now()).await.unwrap();
        assert!(lied(&both), "{lie:?}: {:?}", both.sources()[0].fault());
        assert_eq!(head.source, devnet.url(1));
        let alone = client(devnet, std::slice::from_ref(&liar)).sync(now()).await.unwrap_err();
        let LightClientError::NoHelp(faults) = &alone else { panic!("{alone}") };
        assert!(faults[0].0 == liar && alone.to_string().contains("LIED"), "{alone}");
    }
    for lie in [Lie::Outcome, Lie::Receipts] {
        let liar = Liar::start(devnet, lie).await;
        let mut both = client(devnet, &[liar.clone(), devnet.url(1)]);
        both.sync(now()).await.unwrap();
        assert!(!lied(&both), "{lie:?}");
        let proven = both.prove(id).await.unwrap();
        assert!(lied(&both), "{lie:?}");
        assert_eq!((proven.source, proven.failure), (devnet.url(1), None));
        let mut alone = client(devnet, &[liar]);
        alone.sync(now()).await.unwrap();
        assert!(alone.prove(id).await.is_err());
    }
}

#[test]
fn a_light_client_trusts_the_genesis_and_nobody_else() {
    let mut devnet = Devnet::make(4, &["--accounts", "50", "--epoch-blocks", "32"]);
    (0..4).for_each(|node| devnet.run(node));
    (0..4).for_each(|node| {
        devnet.wait_height(node, 0);
    });
    let id = rotate(&devnet);
    // Keeps the chain busy, so that epochs are short.
    let load = Process::quiet(&mut devnet.load(1, &["--duration", "180", "--rate", "40", "--accounts", "50"]));
    wait("the end of four epochs", || devnet.get(0, "/v1/validator-sets/5").filter(|(status, _)| *status == 200));
    let keys = |epoch: u64| {
        let set = process::json(&["validator", "set", "--node", &devnet.url(0), "--epoch", &epoch.to_string()]);
        set["members"].as_array().unwrap().iter().map(|member| member["consensusKey"].clone()).collect::<Vec<_>>()
    };
    assert_ne!(keys(0), keys(5), "the rotation changed the validators");

    // From the genesis, with a proof; then from where the last run ended.
    let trust = devnet.path("trust.json");
    let found =
        light(&devnet, &["--node", &devnet.url(1), "--trust", &trust, "--trust-period", "3600", "--transaction", &id])
            .unwrap();
    assert!(found["epoch"].as_u64().unwrap() >= 4, "{found}");
    assert_eq!(found["transaction"]["status"], "Applied", "{found}");
    let anchor = found["anchor"].as_str().unwrap().to_owned();
    let again = light(&devnet, &["--node", &devnet.url(2), "--trust", &trust, "--trust-period", "3600"]).unwrap();
    assert!(again["height"].as_u64() >= found["height"].as_u64(), "{again} after {found}");
    // What it believes is what the nodes hold.
    let height = found["height"].to_string();
    let block = process::json(&["blocks", "--from", &height, "--limit", "1", "--node", &devnet.url(3)]);
    assert_eq!((&block[0]["hash"], &block[0]["checkpoint"]), (&found["hash"], &found["checkpoint"]));

    // An anchor that somebody vouches for, and one that nobody should.
    assert!(light(&devnet, &["--node", &devnet.url(0), "--anchor", &anchor]).is_ok());
    let (epoch, _) = anchor.split_once(':').unwrap();
    let refused =
        light(&devnet, &["--node", &devnet.url(0), "--anchor", &format!("{epoch}:{}", "00".repeat(32))]).unwrap_err();
    assert!(refused.contains("the trusted one is 0000"), "{refused}");
    // Too old: by the clock, and for a client of another chain.
    let refused = light(&devnet, &["--node", &devnet.url(0), "--trust-period", "0"]).unwrap_err();
    assert!(refused.contains("--anchor EPOCH:DIGEST"), "{refused}");
    let genesis = devnet.genesis();
    assert_eq!(shortest_unbonding(&genesis.genesis.parameters), Duration::from_millis(64 * 32 * 25));

    // A proof by itself, checked from the genesis.
    let proof = process::run(&["proof", "get", &id, "--node", &devnet.url(0)]).unwrap();
    std::fs::write(devnet.path("inclusion.json"), &proof).unwrap();
    let genesis = devnet.path("genesis.json");
    let check = |file: &str| {
        let file = devnet.path(file);
        let period = ["--trust-period", "3600"];
        process::run(
            &[&["proof", "check", &file, "--genesis", &genesis, "--node", &devnet.url(1)], &period[..]].concat(),
        )
    };
    assert!(check("inclusion.json").unwrap().contains("Applied"));
    let forged = proof.replace("\"outcome\": 0", "\"outcome\": 1");
    assert_ne!(forged, proof);
    std::fs::write(devnet.path("forged.json"), forged).unwrap();
    let refused = check("forged.json").unwrap_err();
    assert!(refused.contains("leads to receipts root"), "{refused}");

    rest_serves_the_same_bytes(&devnet);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let id = TransactionId(bizra_proto::ceremony::decode_hex(&id).unwrap());
    runtime.block_on(liars_are_named_and_passed_by(&devnet, id));
    drop(runtime);

    // The whole chain, on disk, through every set of validators.
    drop(load);
    (0..4).for_each(|node| devnet.stop(node));
    let arguments = ["verify", "--data-dir", &devnet.path("v0"), "--genesis", &devnet.path("genesis.json")];
    let report = process::json(&arguments);
    assert!(report["blocks"].as_u64().unwrap() > 4 * 32, "{report}");
}
