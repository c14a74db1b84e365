//! Does what was planned: at most one write to the API server, or one transaction handed to the nodes.

use bizra_transaction::{Address, ChainId, Operation, Terms, TransactionId};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::{
    observe::Observed,
    plan::{FINALIZER, Step},
    replacement, saga,
};
use crate::{
    api::{PendingTransaction, SagaStep, Validator},
    controllers::{Context, ReconcileError, conditions::Reason, signed},
    kubernetes::{Announcement, Write, WriteOutcome},
    ledger::{self, OwnerKey, OwnerView},
};

/// How many blocks a transaction may wait for its turn.
pub(super) const EXPIRY_BLOCKS: u64 = 1_000;

/// What came of a step.
pub enum Outcome {
    /// It was done, or there was nothing to do.
    Done,
    /// A transaction was signed, and the status has to hold it before it is submitted.
    Prepared(Box<PendingTransaction>),
    /// Nothing was done, for this reason.
    NotYet(Reason),
}

/// Executes a step.
pub(super) async fn act(
    context: &Context,
    validator: &Validator,
    observed: &Observed,
    step: Option<&Step>,
) -> Result<Outcome, ReconcileError> {
    match step {
        None => Ok(Outcome::Done),
        Some(Step::Hold) => finalizers(context, validator, true).await,
        Some(Step::LetGo) => finalizers(context, validator, false).await,
        Some(Step::Prepare(operation)) => prepare(validator, observed, operation).await,
        Some(Step::Write(write, event)) => {
            if context.write(write).await? == WriteOutcome::Written
                && let Some(event) = event.clone()
            {
                context.announcer.announce(validator.object_ref(&()), Announcement::normal(event));
            }
            Ok(Outcome::Done)
        }
        Some(Step::Submit(pending)) => {
            if let Ok(bytes) = hex::decode(&pending.bytes) {
                observed.ledger.submit(&bytes).await;
            }
            Ok(Outcome::Done)
        }
    }
}

async fn finalizers(context: &Context, validator: &Validator, hold: bool) -> Result<Outcome, ReconcileError> {
    let mut finalizers: Vec<String> = validator.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if hold {
        finalizers.push(FINALIZER.to_owned());
    }
    context.write(&Write::merge(validator, json!({"metadata": {"finalizers": finalizers}}))).await?;
    Ok(Outcome::Done)
}

async fn prepare(
    validator: &Validator,
    observed: &Observed,
    operation: &saga::Operation,
) -> Result<Outcome, ReconcileError> {
    let (Some(Ok(owner)), Some(Ok(view)), Some(network)) = (&observed.owner, &observed.view, &observed.network) else {
        return Ok(Outcome::Done);
    };
    let step = operation.step();
    let address = owner.address();
    let operation = match operation {
        saga::Operation::Reserve(amount) => Operation::ReserveStake { amount: *amount },
        saga::Operation::Register(name) => Operation::RegisterValidator { name: name.clone() },
        saga::Operation::Activate | saga::Operation::Rotate => {
            let proof = match prove(validator, observed, address).await {
                Ok(proof) => proof,
                Err(reason) => return Ok(Outcome::NotYet(reason)),
            };
            match operation {
                saga::Operation::Activate => Operation::ActivateValidator(proof),
                _ => Operation::RotateConsensusKey(proof),
            }
        }
        saga::Operation::Deactivate => Operation::DeactivateValidator,
        saga::Operation::Deregister => Operation::DeregisterValidator,
        saga::Operation::Release(amount) => Operation::ReleaseStake { amount: *amount },
        saga::Operation::Collect => Operation::ReleaseStake { amount: 0 },
    };
    let signed = sign(validator, &network.spec.chain_id, view, owner, (step, &operation))?;
    Ok(Outcome::Prepared(Box::new(signed)))
}

/// The transaction of a step, with the nonce of what was read.
pub(super) fn sign(
    validator: &Validator,
    chain_id: &str,
    view: &OwnerView,
    owner: &OwnerKey,
    (step, operation): (SagaStep, &Operation),
) -> Result<PendingTransaction, ReconcileError> {
    let chain = ChainId::new(chain_id).ok_or_else(|| build_error(&"the chain id of the Network is none"))?;
    let expiry_height = view.height.saturating_add(EXPIRY_BLOCKS);
    let fee = validator.spec.fee.parse().map_err(|error| build_error(&error))?;
    let terms = Terms { chain, nonce: view.nonce, fee, expiry_height };
    let bytes = terms.sign(operation, owner.signing_key()).map_err(|error| build_error(&error))?;
    Ok(PendingTransaction {
        step,
        id: TransactionId::of(&bytes).to_string(),
        nonce: signed(view.nonce),
        expiry_height: signed(expiry_height),
        bytes: hex::encode(&bytes),
        generation: validator.metadata.generation.unwrap_or(0),
    })
}

async fn prove(
    validator: &Validator,
    observed: &Observed,
    owner: Address,
) -> Result<bizra_transaction::KeyProof, Reason> {
    let node = replacement::meant(validator);
    let not_ready = |why: String| Reason::new("NodeNotReady", why);
    let channel = observed.channel.clone().ok_or_else(|| not_ready(format!("BizraNode {node} cannot be reached")))?;
    ledger::prove_key(node, channel, owner).await.map_err(|error| not_ready(error.to_string()))
}

fn build_error(error: &dyn std::fmt::Display) -> ReconcileError {
    ReconcileError::Build(error.to_string())
}
