//! Asks all nodes, again and again, some at a time and never more than so many a second.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use super::{
    Connection, Keep, NodeKey, Probes, QUESTIONS_PER_SECOND, Question, Trusted, Word,
    client::{self, ProbeError},
};

/// Longest time between two looks at who is to be asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How nodes are asked.
#[derive(Clone, Copy, Debug)]
pub struct PollSettings {
    /// Time between two questions to a node.
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
    let look = LOOK_INTERVAL.min(settings.interval);
    let others_max = QUESTIONS_PER_SECOND * look.as_millis().max(1) as usize / 1000;
    let mut looks = tokio::time::interval(look);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let others_max = tokio::select! {
            _ = looks.tick() => others_max.max(1),
            () = probes.newcomer() => 0,
        };
        // Who will be due before the next look is due now.
        let interval = settings.interval.saturating_sub(look / 2);
        stream::iter(probes.questions(interval, others_max))
            .for_each_concurrent(settings.concurrency, |question| {
                let (probes, answers, changed) = (&probes, &answers, &changed);
                async move {
                    let (word, connection) = put(&question, settings.timeout).await;
                    let result = if matches!(word, Word::Status(_)) { "answered" } else { "silent" };
                    answers.with_label_values(&[result]).inc();
                    let connection = connection.filter(|_| question.keep == Keep::Yes);
                    if probes.record(&question.key, &question.target, word, connection) {
                        // A full queue means the controllers are behind; they will come by anyway.
                        let _ = changed.try_send(question.key);
                    }
                }
            })
            .await;
    }
}

/// The connection that is there, or another one.
pub(super) fn connection(question: &Question) -> Result<Connection, ProbeError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let known = question.connection.clone().filter(|connection| now < connection.renew_at);
    let Trusted { trust, tls } = question.trusted.as_ref();
    known.map_or_else(|| client::connect(&question.key.1, &question.target, trust, tls, now), Ok)
}

pub(super) async fn put(question: &Question, timeout: Duration) -> (Word, Option<Connection>) {
    let connection = match connection(question) {
        Ok(connection) => connection,
        Err(error) => return (Word::Unknown(error.to_string()), None),
    };
    match tokio::time::timeout(timeout, client::ask(connection.channel.clone())).await {
        Ok(Ok(status)) => (Word::Status(Box::new(status)), Some(connection)),
        // The next round connects anew, in case the certificates have changed.
        Ok(Err(error)) => (Word::Unknown(error.to_string()), None),
        Err(_) => (Word::Unknown(format!("no answer within {} s", timeout.as_secs())), None),
    }
}
