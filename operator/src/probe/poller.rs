//! Asks all nodes, again and again, some at a time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use super::{Connection, NodeKey, ProbeTarget, Probes, Which, Word, client};

/// How nodes are asked.
#[derive(Clone, Copy, Debug)]
pub struct PollSettings {
    /// Time between two rounds.
    pub interval: Duration,
    /// Time a node has to answer.
    pub timeout: Duration,
    /// Nodes asked at the same time.
    pub concurrency: usize,
}

/// Runs for ever. A node whose state changed in a way that matters is sent to `changed`.
pub async fn poll_forever(
    probes: Arc<Probes>,
    settings: PollSettings,
    answers: IntCounterVec,
    changed: mpsc::Sender<NodeKey>,
) {
    let mut rounds = tokio::time::interval(settings.interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let which = tokio::select! {
            _ = rounds.tick() => Which::All,
            () = probes.newcomer() => Which::Newcomers,
        };
        stream::iter(probes.targets(which))
            .for_each_concurrent(settings.concurrency, |(key, target, connection)| {
                let (probes, answers, changed) = (&probes, &answers, &changed);
                async move {
                    let (word, connection) = probe(probes, &key, &target, connection, settings.timeout).await;
                    let result = if matches!(word, Word::Status(_)) { "answered" } else { "silent" };
                    answers.with_label_values(&[result]).inc();
                    if probes.record(&key, &target, word, connection) {
                        // A full queue means the controllers are behind; they will come by anyway.
                        let _ = changed.try_send(key);
                    }
                }
            })
            .await;
    }
}

async fn probe(
    probes: &Probes,
    key: &NodeKey,
    target: &ProbeTarget,
    connection: Option<Connection>,
    timeout: Duration,
) -> (Word, Option<Connection>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let connection = if let Some(connection) = connection.filter(|connection| now < connection.renew_at) {
        connection
    } else {
        let Some(authority) = probes.authority(&target.network_uid) else {
            return (Word::Unknown("its network has no certificate authority yet".to_owned()), None);
        };
        match client::connect(&key.1, target, &authority, now) {
            Ok(connection) => connection,
            Err(error) => return (Word::Unknown(error.to_string()), None),
        }
    };
    match tokio::time::timeout(timeout, client::ask(connection.channel.clone())).await {
        Ok(Ok(status)) => (Word::Status(Box::new(status)), Some(connection)),
        // The next round connects anew, in case the certificates have changed.
        Ok(Err(error)) => (Word::Unknown(error.to_string()), None),
        Err(_) => (Word::Unknown(format!("no answer within {} s", timeout.as_secs())), None),
    }
}
