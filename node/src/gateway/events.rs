//! Events as clients see them: one form for gRPC, and from it the one for JSON.

use bizra_proto::parameters::Parameters;
use bizra_proto::v1;
use serde_json::{Map, Value};

use crate::event_store::{Event, EventData};

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        let trace = event.trace.0;
        let form = Self {
            height: event.position.height,
            index: event.position.index,
            r#type: event.data.kind().name().to_owned(),
            trace_id: if trace == [0; 16] { Vec::new() } else { trace.to_vec() },
            transaction_id: event.transaction.map(|id| id.0.to_vec()).unwrap_or_default(),
            ..Self::default()
        };
        match event.data {
            EventData::TransactionSubmitted { sender } => Self { account: sender.0.to_vec(), ..form },
            EventData::BlockCreated { hash, parent, epoch, time_milliseconds, batches } => Self {
                block_hash: hash.0.to_vec(),
                parent_hash: parent.0.to_vec(),
                epoch: Some(epoch.0),
                time_milliseconds: Some(time_milliseconds),
                batches: Some(batches),
                ..form
            },
            EventData::BlockValidated { hash, epoch } | EventData::ConsensusReached { hash, epoch } => {
                Self { block_hash: hash.0.to_vec(), epoch: Some(epoch.0), ..form }
            }
            EventData::TransactionApplied { sender, nonce, fee } => {
                Self { account: sender.0.to_vec(), nonce: Some(nonce), fee: Some(fee), ..form }
            }
            EventData::TransactionFailed { sender, failure } => {
                Self { account: sender.0.to_vec(), failure: failure.reason().to_owned(), ..form }
            }
            EventData::Transferred { sender, recipient, amount } => {
                Self { account: sender.0.to_vec(), recipient: recipient.0.to_vec(), amount: Some(amount), ..form }
            }
            EventData::StakeReserved { owner, amount }
            | EventData::StakeReleased { owner, amount }
            | EventData::StakePaidOut { owner, amount } => {
                Self { account: owner.0.to_vec(), amount: Some(amount), ..form }
            }
            EventData::ValidatorRegistered { owner, node_name } => {
                Self { account: owner.0.to_vec(), node_name, ..form }
            }
            EventData::ValidatorDeregistered { owner } | EventData::ValidatorDeactivated { owner } => {
                Self { account: owner.0.to_vec(), ..form }
            }
            EventData::ValidatorActivated { owner, consensus_key }
            | EventData::ConsensusKeyRotated { owner, consensus_key } => {
                Self { account: owner.0.to_vec(), consensus_key: consensus_key.to_vec(), ..form }
            }
            EventData::ValidatorJailed { owner, consensus_key, slashed } => {
                Self { account: owner.0.to_vec(), consensus_key: consensus_key.to_vec(), amount: Some(slashed), ..form }
            }
            EventData::ReportRefused { owner, consensus_key, failure } => Self {
                account: owner.0.to_vec(),
                consensus_key: consensus_key.to_vec(),
                failure: failure.reason().to_owned(),
                ..form
            },
            EventData::ParametersApproved { owner, parameters } => {
                Self { account: owner.0.to_vec(), parameters: Some(parameters_message(parameters)), ..form }
            }
            EventData::ParametersUpdated { parameters } => {
                Self { parameters: Some(parameters_message(parameters)), ..form }
            }
            EventData::ValidatorSetChosen { epoch, hash, members, power, waiting } => Self {
                epoch: Some(epoch),
                validators_hash: hash.0.to_vec(),
                validators: Some(members.into()),
                total_power: Some(power),
                waiting: waiting.iter().map(|owner| owner.0.to_vec()).collect(),
                ..form
            },
            EventData::EpochEnded { epoch, next_validators } => {
                Self { epoch: Some(epoch.0), validators_hash: next_validators.0.to_vec(), ..form }
            }
            EventData::BlockFinalized { hash, epoch, transactions, failed } => Self {
                block_hash: hash.0.to_vec(),
                epoch: Some(epoch.0),
                transactions: Some(transactions),
                failed: Some(failed),
                ..form
            },
        }
    }
}

fn parameters_message(parameters: Parameters) -> v1::EventParameters {
    let Parameters { epoch_blocks, unbonding_epochs, stake_per_power, slash_per_mille, protocol_version } = parameters;
    let slash_per_mille = slash_per_mille.into();
    v1::EventParameters { epoch_blocks, unbonding_epochs, stake_per_power, slash_per_mille, protocol_version }
}

/// An event as JSON: camel-case names, bytes in lower-case hex, amounts as decimal strings, what is not set left out.
pub fn event_json(event: &v1::Event) -> Value {
    // Named one by one, so that a field that is added must be put somewhere.
    let v1::Event {
        height,
        index,
        r#type,
        trace_id,
        transaction_id,
        account,
        recipient,
        amount,
        fee,
        nonce,
        failure,
        node_name,
        consensus_key,
        block_hash,
        parent_hash,
        epoch,
        time_milliseconds,
        batches,
        transactions,
        failed,
        validators_hash,
        validators,
        total_power,
        waiting,
        parameters,
    } = event;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    put("height", (*height).into());
    put("index", (*index).into());
    put("type", r#type.as_str().into());
    for (name, bytes) in [
        ("traceId", trace_id),
        ("transactionId", transaction_id),
        ("account", account),
        ("recipient", recipient),
        ("consensusKey", consensus_key),
        ("blockHash", block_hash),
        ("parentHash", parent_hash),
        ("validatorsHash", validators_hash),
    ] {
        if !bytes.is_empty() {
            put(name, hex::encode(bytes).into());
        }
    }
    for (name, text) in [("failure", failure), ("nodeName", node_name)] {
        if !text.is_empty() {
            put(name, text.as_str().into());
        }
    }
    for (name, amount) in [("amount", amount), ("fee", fee), ("totalPower", total_power)] {
        if let Some(amount) = amount {
            put(name, amount.to_string().into());
        }
    }
    for (name, number) in [("nonce", nonce), ("epoch", epoch), ("timeMilliseconds", time_milliseconds)] {
        if let Some(number) = number {
            put(name, (*number).into());
        }
    }
    for (name, count) in
        [("batches", batches), ("transactions", transactions), ("failed", failed), ("validators", validators)]
    {
        if let Some(count) = count {
            put(name, (*count).into());
        }
    }
    if !waiting.is_empty() {
        put("waiting", waiting.iter().map(hex::encode).collect());
    }
    if let Some(parameters) = parameters {
        put(
            "parameters",
            serde_json::json!({
                "epochBlocks": parameters.epoch_blocks,
                "unbondingEpochs": parameters.unbonding_epochs,
                "stakePerPower": parameters.stake_per_power,
                "slashPerMille": parameters.slash_per_mille,
                "protocolVersion": parameters.protocol_version,
            }),
        );
    }
    Value::Object(fields)
}
