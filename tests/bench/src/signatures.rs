//! What a signature check costs by itself: the floor under what a transaction can cost a validator.

use bizra_node::transaction::{
    Address, ChainId, PayloadBuilder, PayloadVerifier, SIGNATURES_AT_ONCE_MAX, TraceId, Transfer,
};
use bytes::Bytes;
use ed25519_zebra::batch::Verifier;
use ed25519_zebra::{Signature, SigningKey, VerificationKeyBytes};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};

use crate::BenchError;

/// Payloads of 1,024 transactions each; together as many senders as a run has.
const PAYLOADS: usize = 10;

/// Memo that makes a transfer 256 bytes long.
const MEMO: [u8; 60] = [b'.'; 60];

/// Microseconds of CPU a signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckCost {
    /// As a validator checks the payloads of others: decoding included, senders seen before.
    pub(crate) node: f64,
    /// `ed25519-zebra`'s own batch check of the same signatures.
    pub(crate) zebra: f64,
}

/// Measures on all cores at once, as busy as the validators keep them.
pub(crate) fn measure() -> Result<CheckCost, BenchError> {
    let failed = |what: &str| BenchError::Signatures(what.to_owned());
    let chain = ChainId::new("bench").ok_or_else(|| failed("the chain id is not one"))?;
    let keys: Vec<SigningKey> = (0..PAYLOADS * SIGNATURES_AT_ONCE_MAX).map(key).collect();
    let transactions: Option<Vec<Bytes>> = keys.iter().map(|key| transfer(chain, key)).collect();
    let transactions = transactions.ok_or_else(|| failed("a transfer cannot be signed"))?;
    let payloads: Option<Vec<Bytes>> = transactions.chunks(SIGNATURES_AT_ONCE_MAX).map(payload).collect();
    let payloads = payloads.ok_or_else(|| failed("a payload is empty"))?;
    let signed: Vec<_> = keys.iter().map(|key| (VerificationKeyBytes::from(key), key.sign(&[0; 213]))).collect();

    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let costs: Vec<Option<CheckCost>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| measure_here(chain, &payloads, &signed))).collect();
        threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let costs: Option<Vec<CheckCost>> = costs.into_iter().collect();
    let costs = costs.ok_or_else(|| failed("a valid signature was refused"))?;
    let mean = |cost: fn(&CheckCost) -> f64| costs.iter().map(cost).sum::<f64>() / costs.len() as f64;
    Ok(CheckCost { node: mean(|cost| cost.node), zebra: mean(|cost| cost.zebra) })
}

fn measure_here(chain: ChainId, payloads: &[Bytes], signed: &[(VerificationKeyBytes, Signature)]) -> Option<CheckCost> {
    let mut verifier = PayloadVerifier::new(chain);
    let mut check = || payloads.iter().all(|payload| verifier.verify(std::slice::from_ref(payload)) == [Ok(())]);
    // The first time its keys are new.
    let (warm, (valid, node)) = (check(), timed(&mut check));
    let (zebra_valid, zebra) = timed(|| {
        signed.chunks(SIGNATURES_AT_ONCE_MAX).all(|signed| {
            let mut verifier = Verifier::new();
            for (key, signature) in signed {
                verifier.queue((*key, *signature, &[0; 213]));
            }
            verifier.verify(UnwrapErr(SysRng)).is_ok()
        })
    });
    let count = signed.len() as f64;
    (warm && valid && zebra_valid).then_some(CheckCost { node: node / count, zebra: zebra / count })
}

/// Microseconds of this thread's CPU.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let start = cpu();
    let result = work();
    (result, cpu() - start)
}

fn key(index: usize) -> SigningKey {
    let mut seed = [b'b'; 32];
    seed[..8].copy_from_slice(&(index as u64).to_le_bytes());
    SigningKey::from(seed)
}

fn transfer(chain: ChainId, key: &SigningKey) -> Option<Bytes> {
    let recipient = Address([1; 32]);
    Transfer { chain, nonce: 0, fee: 1, expiry_height: 1, recipient, amount: 1, memo: &MEMO }.sign(key).ok()
}

fn payload(transactions: &[Bytes]) -> Option<Bytes> {
    let mut builder = PayloadBuilder::default();
    for transaction in transactions {
        builder.push(TraceId::default(), transaction);
    }
    builder.finish()
}
