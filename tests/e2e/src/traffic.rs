//! Clients that send transactions all the while, as wallets do: each waits until its transfers are finalised before it sends
//! the next, and goes to another address when one does not answer.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bizra_node::transaction::{Address, ChainId, TransactionId, Transfer};
use bizra_proto::v1::{
    GetAccountRequest, GetChainRequest, GetTransactionRequest, SubmitRequest, ledger_client::LedgerClient,
};
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::scene::{Scene, SceneError};

/// Clients at the same time.
const CLIENTS: u8 = 8;
/// Transfers a client sends at once.
const TRANSFERS: u64 = 5;
/// What each client has: enough for hours.
const BALANCE: u64 = 100_000_000;
/// Longest time a client waits for one answer before it goes elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause of a client after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Transfers may be ordered within one to two times this many blocks.
const EXPIRY_BLOCKS: u64 = 10_000;

/// What the clients have seen in one act.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Transfers that were finalised and applied.
    pub applied: u64,
    /// Longest time from a client's first attempt to its receipt.
    pub longest_wait: Duration,
    /// Answers that did not come, or were refusals.
    pub failures: u64,
}

#[derive(Default)]
struct Ledger {
    tally: Tally,
    last_failure: String,
    /// For each client: its nonce after the last transfer that it has a receipt for.
    acknowledged: Vec<u64>,
    /// For each client: when it began to try what it is trying now.
    trying_since: Vec<Option<Instant>>,
}

/// Clients at work until this is dropped.
pub struct Traffic {
    ledger: Arc<Mutex<Ledger>>,
    clients: Vec<JoinHandle<()>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

fn key(client: u8) -> SigningKey {
    SigningKey::from([client.wrapping_add(1); 32])
}

fn address(key: &SigningKey) -> Address {
    Address(VerificationKeyBytes::from(key).into())
}

/// The accounts of the clients, as a Network's `spec.genesis.accounts` lists them.
pub fn accounts() -> Value {
    let account = |client| json!({ "address": address(&key(client)).to_string(), "balance": BALANCE.to_string() });
    (0..CLIENTS).map(account).collect()
}

impl Traffic {
    /// Starts clients of these gRPC addresses, which are tried in turn.
    pub fn start(targets: &[String]) -> Self {
        let idle = usize::from(CLIENTS);
        let ledger = Ledger { acknowledged: vec![0; idle], trying_since: vec![None; idle], ..Ledger::default() };
        let ledger = Arc::new(Mutex::new(ledger));
        let clients =
            (0..CLIENTS).map(|client| tokio::spawn(work(client, targets.to_vec(), Arc::clone(&ledger)))).collect();
        Self { ledger, clients }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all clients.
    pub fn stop(&self) {
        for client in &self.clients {
            client.abort();
        }
    }

    /// Begins to count anew.
    pub fn begin(&self) {
        let mut ledger = self.ledger();
        ledger.tally = Tally::default();
        let now = Instant::now();
        for since in ledger.trying_since.iter_mut().flatten() {
            *since = now;
        }
    }

    /// What the clients have seen since the count began; a client that still waits counts, too.
    pub fn tally(&self) -> Tally {
        let ledger = self.ledger();
        let waiting = ledger.trying_since.iter().flatten().map(Instant::elapsed).max().unwrap_or_default();
        Tally { longest_wait: ledger.tally.longest_wait.max(waiting), ..ledger.tally }
    }

    /// The last thing that went wrong, for people.
    pub fn last_failure(&self) -> String {
        self.ledger().last_failure.clone()
    }

    /// Checks with this validator that nothing is lost which a client has a receipt for.
    pub async fn check_receipts(&self, scene: &Scene, validator: &str) -> Result<(), SceneError> {
        let acknowledged = self.ledger().acknowledged.clone();
        for (client, acknowledged) in (0..CLIENTS).zip(acknowledged) {
            let address = address(&key(client));
            let account = scene.ask(validator, &format!("/v1/accounts/{address}")).await?;
            if account["nonce"].as_u64().is_none_or(|nonce| nonce < acknowledged) {
                return Err(SceneError::Unexpected(format!(
                    "{validator} says {account}, but a client has receipts up to nonce {acknowledged}"
                )));
            }
        }
        Ok(())
    }
}

/// One client, for ever.
async fn work(client: u8, targets: Vec<String>, ledger: Arc<Mutex<Ledger>>) {
    let mut turn = usize::from(client);
    let slot = usize::from(client);
    loop {
        let Some(target) = targets.get(turn % targets.len().max(1)) else { return };
        let Err(failure) = converse(client, target, |event| {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::Tries => {
                    let since = ledger.trying_since.get_mut(slot);
                    since.map(|since| since.get_or_insert_with(Instant::now));
                }
                Event::Applied { nonce } => {
                    ledger.tally.applied += TRANSFERS;
                    let waited = ledger.trying_since.get_mut(slot).and_then(Option::take);
                    let waited = waited.map(|since| since.elapsed()).unwrap_or_default();
                    ledger.tally.longest_wait = ledger.tally.longest_wait.max(waited);
                    if let Some(acknowledged) = ledger.acknowledged.get_mut(slot) {
                        *acknowledged = nonce;
                    }
                }
            }
        })
        .await;
        {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.tally.failures += 1;
            ledger.last_failure = format!("{target}: {failure}");
        }
        tokio::time::sleep(PAUSE).await;
        turn += 1;
    }
}

enum Event {
    /// The client has something to send.
    Tries,
    /// All of it is finalised; the account has this nonce now.
    Applied { nonce: u64 },
}

/// Sends group after group over one connection until something goes wrong.
async fn converse(client: u8, target: &str, tell: impl Fn(Event)) -> Result<Infallible, Status> {
    tell(Event::Tries);
    let endpoint = Endpoint::from_shared(target.to_owned()).map_err(|error| Status::internal(error.to_string()))?;
    let endpoint = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut ledger = LedgerClient::new(channel);
    let key = key(client);
    let recipient = address(&self::key(client.wrapping_add(1) % CLIENTS));
    let chain = patiently(ledger.get_chain(GetChainRequest {})).await?;
    let id = ChainId::new(&chain.chain_id).ok_or_else(|| Status::internal("the node names an impossible chain"))?;
    let asked = GetAccountRequest { address: address(&key).0.to_vec(), height: 0 };
    let mut nonce = patiently(ledger.get_account(asked)).await?.nonce;
    // The same for every attempt at a nonce as far as possible: whatever comes twice has the same id, and counts once.
    let expiry_height = (chain.finalized_height / EXPIRY_BLOCKS + 2) * EXPIRY_BLOCKS;
    loop {
        tell(Event::Tries);
        let sign = |nonce| {
            let transfer = Transfer { chain: id, nonce, fee: 1, expiry_height, recipient, amount: 1, memo: &[] };
            transfer.sign(&key).map_err(|error| Status::internal(error.to_string()))
        };
        let transactions = (nonce..nonce + TRANSFERS).map(sign).collect::<Result<Vec<_>, _>>()?;
        let last = transactions.last().map(|encoded| TransactionId::of(encoded).0.to_vec()).unwrap_or_default();
        submit(&mut ledger, transactions).await?;
        let wait_milliseconds = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
        let question = GetTransactionRequest { transaction_id: last, wait_milliseconds };
        let found = patiently(ledger.get_transaction(question)).await?;
        let failure = found.receipt.map_or_else(|| "no receipt".to_owned(), |receipt| receipt.failure);
        if !failure.is_empty() {
            return Err(Status::aborted(failure));
        }
        nonce += TRANSFERS;
        tell(Event::Applied { nonce });
    }
}

async fn submit(ledger: &mut LedgerClient<Channel>, transactions: Vec<bytes::Bytes>) -> Result<(), Status> {
    let answer = patiently(ledger.submit(SubmitRequest { transactions })).await?;
    // What a node knows already is on its way.
    let refused = answer
        .admissions
        .into_iter()
        .find(|admission| !matches!(admission.rejection.as_str(), "" | "AlreadyPending" | "AlreadyFinalised"));
    refused.map_or(Ok(()), |admission| Err(Status::aborted(format!("{}: {}", admission.rejection, admission.message))))
}

async fn patiently<T>(answer: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let patience = PATIENCE + Duration::from_millis(500);
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}
