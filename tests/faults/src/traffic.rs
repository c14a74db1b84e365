//! Signed transfers from many accounts, each of which waits for its receipt before it sends the next, and the receipts
//! that came: what was acknowledged as finalised must never be lost.
//!
//! An account whose transaction got lost on the way (its node died) submits the same bytes elsewhere until a receipt
//! comes, so that every transaction ends in one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bizra_node::cli::load::genesis_accounts;
use bizra_node::transaction::{Address, ChainId, TransactionId, Transfer};
use bizra_proto::ceremony::GenesisAccount;
use bizra_proto::v1;
use bizra_proto::v1::ledger_client::LedgerClient;
use bizra_proto::v1::submit_event::Event;
use bytes::Bytes;
use ed25519_zebra::{SigningKey, VerificationKeyBytes};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::FaultError;

/// As `bizra-node load` has them: a devnet's genesis gives these accounts money.
const SEED: &str = "bizra";
const KEY_DOMAIN: &[u8] = b"bizra/v1/load-account\0";

/// Of each account; enough for a transfer a millisecond for years.
const BALANCE: u64 = 1_000_000_000_000;

/// With this memo a transfer has 256 bytes.
const MEMO: [u8; 60] = [b'.'; 60];

/// Blocks until a transfer expires: longer than a campaign.
const EXPIRY_BLOCKS: u64 = 90_000;

/// How long a receipt may take before the transaction counts as lost on the way.
const RECEIPT: Duration = Duration::from_secs(3);

/// Pause before the next try when nobody answers.
const RETRY: Duration = Duration::from_millis(50);

/// Messages that wait for a stream at most.
const QUEUE_MAX: usize = 1_024;

/// A transaction that a node said is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) id: [u8; 32],
    pub(crate) height: u64,
    /// The node that said so.
    pub(crate) node: usize,
    pub(crate) at: Instant,
}

struct Shared {
    chain: ChainId,
    keys: Vec<SigningKey>,
    streams: Vec<mpsc::Sender<Submission>>,
    channels: Vec<Channel>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    remember: bool,
    finalised: AtomicU64,
    /// Receipts that name another height than an earlier one of the same transaction.
    contradictions: Mutex<Vec<String>>,
    resubmitted: AtomicU64,
    stopping: AtomicBool,
    running: AtomicU64,
    pause: Duration,
}

struct Submission {
    transaction: Bytes,
    answer: oneshot::Sender<Answer>,
}

enum Answer {
    /// Its height, and why it failed if it did.
    Receipt(u64, String),
    Rejected,
}

/// The load; goes on until [`Traffic::finish`].
pub(crate) struct Traffic {
    shared: Arc<Shared>,
}

/// The first accounts of `bizra-node load`, for a genesis.
pub(crate) fn accounts(count: u32) -> Vec<GenesisAccount> {
    genesis_accounts(SEED, count, BALANCE)
}

/// The key of an account, as `bizra-node load` derives it.
fn key(index: usize) -> SigningKey {
    let hash = Sha256::new().chain_update(KEY_DOMAIN).chain_update((index as u32).to_be_bytes()).chain_update(SEED);
    SigningKey::from(<[u8; 32]>::from(hash.finalize()))
}

impl Traffic {
    /// Starts `accounts` accounts that together send about `rate` transfers a second to the nodes' gRPC ports. With
    /// `remember`, receipts are kept; they are counted in any case.
    pub(crate) fn start(
        chain_id: &str,
        ports: &[u16],
        accounts: usize,
        rate: u32,
        remember: bool,
        runtime: &Handle,
    ) -> Result<Self, FaultError> {
        let setup = |what: &dyn std::fmt::Display| FaultError::Setup(format!("the load cannot start: {what}"));
        let chain = ChainId::new(chain_id).ok_or_else(|| setup(&"no chain id"))?;
        let _inside = runtime.enter();
        let channel = |port: &u16| -> Result<Channel, FaultError> {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(|error| setup(&error))?;
            Ok(endpoint.connect_timeout(RECEIPT).connect_lazy())
        };
        let channels: Vec<Channel> = ports.iter().map(channel).collect::<Result<_, _>>()?;
        let (streams, queues): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(QUEUE_MAX)).unzip();
        let shared = Arc::new(Shared {
            chain,
            keys: (0..accounts).map(key).collect(),
            streams,
            channels: channels.clone(),
            acknowledged: Mutex::default(),
            remember,
            finalised: AtomicU64::new(0),
            contradictions: Mutex::default(),
            resubmitted: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            running: AtomicU64::new(accounts as u64),
            pause: Duration::from_secs_f64(accounts as f64 / f64::from(rate.max(1))),
        });
        for (channel, queue) in channels.into_iter().zip(queues) {
            runtime.spawn(stream(channel, queue));
        }
        for account in 0..accounts {
            let shared = Arc::clone(&shared);
            runtime.spawn(async move {
                send(&shared, account).await;
                shared.running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(Self { shared })
    }

    /// Everything acknowledged since the given count.
    pub(crate) fn acknowledged(&self, since: usize) -> Vec<Acknowledged> {
        lock(&self.shared.acknowledged).get(since..).unwrap_or_default().to_vec()
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.shared.acknowledged).len()
    }

    /// Receipts that came.
    pub(crate) fn finalised(&self) -> u64 {
        self.shared.finalised.load(Ordering::Relaxed)
    }

    pub(crate) fn contradictions(&self) -> Vec<String> {
        lock(&self.shared.contradictions).clone()
    }

    pub(crate) fn resubmitted(&self) -> u64 {
        self.shared.resubmitted.load(Ordering::Relaxed)
    }

    /// Lets every account end its transaction; true if all did in time.
    pub(crate) fn finish(&self, limit: Duration) -> bool {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + limit;
        while self.shared.running.load(Ordering::Relaxed) > 0 {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One account's life: a transfer, its receipt, a pause.
async fn send(shared: &Shared, account: usize) {
    let Some(key) = shared.keys.get(account) else { return };
    let recipient = shared
        .keys
        .get((account + 1) % shared.keys.len())
        .map_or([0; 32], |key| VerificationKeyBytes::from(key).into());
    let mut node = account % shared.streams.len();
    let (mut nonce, mut last_height) = (0, 0);
    // Not all at once.
    tokio::time::sleep(shared.pause * (account as u32) / (shared.keys.len() as u32).max(1)).await;
    let mut due = tokio::time::Instant::now();
    while !shared.stopping.load(Ordering::Relaxed) {
        let transfer = Transfer {
            chain: shared.chain,
            nonce,
            fee: 1,
            expiry_height: last_height + EXPIRY_BLOCKS,
            recipient: Address(recipient),
            amount: 1,
            memo: &MEMO,
        };
        let Ok(transaction) = transfer.sign(key) else { return };
        let id = TransactionId::of(&transaction).0;
        let mut tries = 0_u32;
        let height = loop {
            if let Some(height) = submit(shared, node, transaction.clone()).await {
                break height;
            }
            node = (node + 1) % shared.streams.len();
            // Perhaps it is final and only the notice was lost.
            if let Some(height) = look_up(shared, node, id).await {
                break height;
            }
            tries += 1;
            shared.resubmitted.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RETRY * tries.min(10)).await;
        };
        let at = Instant::now();
        shared.finalised.fetch_add(1, Ordering::Relaxed);
        if shared.remember {
            lock(&shared.acknowledged).push(Acknowledged { id, height, node, at });
        }
        if let Some(other) = look_up_again(shared, tries, node, id).await.filter(|other| *other != height) {
            let what = format!("transaction {} was final at height {height}, then at {other}", hex::encode(id));
            lock(&shared.contradictions).push(what);
        }
        nonce += 1;
        last_height = height;
        due += shared.pause;
        tokio::time::sleep_until(due).await;
        due = due.max(tokio::time::Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(due));
    }
}

/// The height of its receipt, or none if it did not come.
async fn submit(shared: &Shared, node: usize, transaction: Bytes) -> Option<u64> {
    let (answer, answered) = oneshot::channel();
    let submission = Submission { transaction, answer };
    let answered = async {
        shared.streams.get(node)?.send(submission).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(RECEIPT, answered).await {
        Ok(Some(Answer::Receipt(height, failure))) => {
            if !failure.is_empty() {
                // Every account can pay and counts its nonces: its own view of the chain is wrong, or the chain's.
                lock(&shared.contradictions).push(format!("a transfer failed at height {height}: {failure}"));
            }
            Some(height)
        }
        Ok(Some(Answer::Rejected) | None) | Err(_) => None,
    }
}

async fn look_up(shared: &Shared, node: usize, id: [u8; 32]) -> Option<u64> {
    let mut client = LedgerClient::new(shared.channels.get(node)?.clone());
    let request = v1::GetTransactionRequest { transaction_id: id.to_vec(), wait_milliseconds: 200 };
    let answer = tokio::time::timeout(RECEIPT, client.get_transaction(request)).await.ok()?.ok()?;
    answer.into_inner().receipt.map(|receipt| receipt.height)
}

/// A transaction that was sent twice must still have one receipt, on other nodes too.
async fn look_up_again(shared: &Shared, tries: u32, node: usize, id: [u8; 32]) -> Option<u64> {
    if tries == 0 { None } else { look_up(shared, (node + 1) % shared.streams.len(), id).await }
}

/// Keeps one stream to one node, for ever; what waits on it when it breaks learns so at once.
async fn stream(channel: Channel, mut queue: mpsc::Receiver<Submission>) {
    let mut client = LedgerClient::new(channel);
    while let Some(first) = queue.recv().await {
        let (sender, outgoing) = mpsc::channel(QUEUE_MAX);
        let mut waiting: HashMap<[u8; 32], oneshot::Sender<Answer>> = HashMap::new();
        // There is room: the channel is new.
        let _ = sender.try_send(wait_for(first, &mut waiting));
        let opened = tokio::time::timeout(RECEIPT, client.submit_stream(ReceiverStream::new(outgoing)));
        // Dropping the submission tells its account.
        let Ok(Ok(events)) = opened.await else { continue };
        let mut events = events.into_inner();
        loop {
            tokio::select! {
                submission = queue.recv() => match submission {
                    Some(submission) => {
                        if sender.send(wait_for(submission, &mut waiting)).await.is_err() {
                            break;
                        }
                    }
                    None => return,
                },
                event = events.message() => match event {
                    Ok(Some(v1::SubmitEvent { event: Some(event) })) => take(event, &mut waiting),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                },
            }
        }
    }
}

fn wait_for(submission: Submission, waiting: &mut HashMap<[u8; 32], oneshot::Sender<Answer>>) -> v1::SubmitRequest {
    waiting.insert(TransactionId::of(&submission.transaction).0, submission.answer);
    v1::SubmitRequest { transactions: vec![submission.transaction] }
}

fn take(event: Event, waiting: &mut HashMap<[u8; 32], oneshot::Sender<Answer>>) {
    let (id, answer) = match event {
        Event::Admission(admission) if admission.rejection.is_empty() => return,
        Event::Admission(admission) => (admission.transaction_id, Answer::Rejected),
        Event::Receipt(receipt) => (receipt.transaction_id, Answer::Receipt(receipt.height, receipt.failure)),
    };
    if let Some(waiter) = <[u8; 32]>::try_from(id).ok().and_then(|id| waiting.remove(&id)) {
        // The account may have given up.
        let _ = waiter.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_accounts_in_the_genesis() {
        let addresses: Vec<String> = accounts(3).into_iter().map(|account| account.address).collect();
        let derived = (0..3).map(|index| hex::encode(<[u8; 32]>::from(VerificationKeyBytes::from(&key(index)))));
        assert_eq!(derived.collect::<Vec<_>>(), addresses);
    }
}
