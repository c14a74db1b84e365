//! What is sent when, and over which stream; signed before the clock starts.

use std::num::NonZeroUsize;
use std::time::Duration;

use bizra_proto::v1::GetChainResponse;
use bytes::Bytes;
use ed25519_zebra::SigningKey;

use crate::cli::owner_key;
use crate::cli::termination::CliError;
use crate::transaction::{ChainId, Transfer};

const AMOUNT: u64 = 1;
const FEE: u64 = 1;
/// What one transfer takes from its sender, base units.
pub(super) const COST: u64 = AMOUNT + FEE;

/// With this memo a transfer has 256 bytes, the size other systems are measured with.
const MEMO: [u8; 60] = [b'.'; 60];

/// Blocks a transfer may wait for its turn: longer than any run lasts, at 40 blocks a second.
const EXPIRY_BLOCKS: u64 = 90_000;

/// A transaction and when it is due, counted from the start.
#[derive(Clone, Debug)]
pub(super) struct Scheduled {
    pub(super) due: Duration,
    pub(super) bytes: Bytes,
}

/// The whole run.
pub(super) struct Plan {
    /// For each target its transactions, in the order of their time.
    pub(super) streams: Vec<Vec<Scheduled>>,
}

/// One transfer of the plan, before it is signed.
struct Slot {
    account: usize,
    nonce: u64,
    due: Duration,
}

impl Plan {
    /// Transaction `i` is due at `i / rate` and sent by account `i mod accounts`; each account keeps to one stream, so
    /// that its nonces arrive in order.
    pub(super) fn sign(
        chain: &GetChainResponse,
        keys: &[SigningKey],
        nonces: &[u64],
        count: u64,
        rate: u32,
        streams: NonZeroUsize,
    ) -> Result<Self, CliError> {
        let id = chain_id(chain)?;
        let expiry_height = chain.finalized_height.saturating_add(EXPIRY_BLOCKS);
        let mut nonces = nonces.to_vec();
        let mut slots: Vec<Vec<Slot>> = (0..streams.get()).map(|_| Vec::new()).collect();
        let accounts = keys.len().min(nonces.len());
        for index in 0..count {
            let account = (index % accounts.max(1) as u64) as usize;
            let due = Duration::from_secs_f64(index as f64 / f64::from(rate));
            if let (Some(nonce), Some(slots)) = (nonces.get_mut(account), slots.get_mut(account % streams)) {
                slots.push(Slot { account, nonce: *nonce, due });
                *nonce += 1;
            }
        }
        let sign = |slot: &Slot| -> Option<Scheduled> {
            let key = keys.get(slot.account)?;
            let recipient = owner_key::address(keys.get((slot.account + 1) % accounts)?);
            let transfer = Transfer {
                chain: id,
                nonce: slot.nonce,
                fee: FEE,
                expiry_height,
                recipient,
                amount: AMOUNT,
                memo: &MEMO,
            };
            transfer.sign(key).ok().map(|bytes| Scheduled { due: slot.due, bytes })
        };
        let streams = slots.iter().map(|slots| sign_all(slots, &sign)).collect();
        Ok(Self { streams })
    }
}

/// Signs on all cores; 20 µs each.
fn sign_all(slots: &[Slot], sign: &(impl Fn(&Slot) -> Option<Scheduled> + Sync)) -> Vec<Scheduled> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let piece = slots.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let pieces = slots.chunks(piece).map(|piece| scope.spawn(|| piece.iter().filter_map(sign).collect::<Vec<_>>()));
        let pieces: Vec<_> = pieces.collect();
        pieces.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

/// The chain a node named.
pub(super) fn chain_id(chain: &GetChainResponse) -> Result<ChainId, CliError> {
    ChainId::new(&chain.chain_id)
        .ok_or_else(|| CliError::Failed(format!("the node names an impossible chain {:?}", chain.chain_id)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::accounts;
    use super::*;
    use crate::transaction::Transaction;

    #[test]
    fn transfers_have_256_bytes_and_each_account_keeps_its_stream_and_nonces() {
        let chain = GetChainResponse { chain_id: "demo-1".to_owned(), ..GetChainResponse::default() };
        let keys = accounts::derive("test", 3);
        let streams = NonZeroUsize::new(2).unwrap();
        let plan = Plan::sign(&chain, &keys, &[5, 0, 7], 7, 10, streams).unwrap();
        let read = |stream: &[Scheduled]| -> Vec<_> {
            let nonce = |scheduled: &Scheduled| {
                assert_eq!(scheduled.bytes.len(), 256);
                Transaction::decode(&scheduled.bytes).unwrap().terms.nonce
            };
            stream.iter().map(|scheduled| (scheduled.due.as_millis(), nonce(scheduled))).collect()
        };
        assert_eq!(read(&plan.streams[0]), [(0, 5), (200, 7), (300, 6), (500, 8), (600, 7)]);
        assert_eq!(read(&plan.streams[1]), [(100, 0), (400, 1)]);
    }
}
