//! Asks all nodes, again and again, some at a time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use super::{Connection, NodeKey, Probes, Question, Which, Word, client};

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
        stream::iter(probes.questions(which))
            .for_each_concurrent(settings.concurrency, |question| {
                let (probes, answers, changed) = (&probes, &answers, &changed);
                async move {
                    let (word, connection) = put(&question, settings.timeout).await;
                    let result = if matches!(word, Word::Status(_)) { "answered" } else { "silent" };
                    answers.with_label_values(&[result]).inc();
                    if probes.record(&question.key, &question.target, word, connection) {
                        // A full queue means the controllers are behind; they will come by anyway.
                        let _ = changed.try_send(question.key);
                    }
                }
            })
            .await;
    }
}

pub(super) async fn put(question: &Question, timeout: Duration) -> (Word, Option<Connection>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let known = question.connection.clone().filter(|connection| now < connection.renew_at);
    let connection = match known {
        Some(connection) => connection,
        None => match client::connect(&question.key.1, &question.target, &question.trust, now) {
            Ok(connection) => connection,
            Err(error) => return (Word::Unknown(error.to_string()), None),
        },
    };
    match tokio::time::timeout(timeout, client::ask(connection.channel.clone())).await {
        Ok(Ok(status)) => (Word::Status(Box::new(status)), Some(connection)),
        // The next round connects anew, in case the certificates have changed.
        Ok(Err(error)) => (Word::Unknown(error.to_string()), None),
        Err(_) => (Word::Unknown(format!("no answer within {} s", timeout.as_secs())), None),
    }
}
