//! Watches the chain from outside: asks every validator many times a second, and measures how long no height advanced.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use tokio::task::JoinHandle;

use crate::scene::{Scene, SceneError};

/// Time between two questions to a validator.
const INTERVAL: Duration = Duration::from_millis(120);
/// Time a validator has to answer. One that is silent does not hold up the questions to the others.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a validator said last.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// When its process started, seconds since 1970; tells one process from the next.
    pub process: u64,
    /// Its finalised height.
    pub height: u64,
    /// The latest finalised block that its present process has signed.
    pub voted: u64,
    /// Whether it says that it is in sync and able to vote.
    pub ready: bool,
    /// When `voted` was last seen to change.
    voted_at: Instant,
    /// Longest time in which it did not, in this act.
    vote_gap: Duration,
}

/// How long the chain stood still in one act.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stillness {
    /// Longest time in which no validator's finalised height was seen to advance.
    pub longest: Duration,
    /// Height at which that was.
    pub at_height: u64,
    /// Longest time without an answer from anybody: what the witness itself cannot tell from a chain that stands still.
    pub blind: Duration,
}

struct Record {
    head: u64,
    head_at: Instant,
    answered_at: Instant,
    stillness: Stillness,
    validators: BTreeMap<String, Sighting>,
    conflicts: u64,
}

impl Record {
    fn take(&mut self, validator: &str, text: &str, now: Instant) {
        let number = |name| metric(text, name);
        let (Some(process), Some(height), Some(voted)) =
            (number("process_start_time_seconds"), number("bizra_finalized_height"), number("bizra_last_voted_height"))
        else {
            return;
        };
        let ready = number("bizra_ready") == Some(1);
        self.conflicts = self.conflicts.max(number("bizra_consensus_evidence_total").unwrap_or(0));
        self.stillness.blind = self.stillness.blind.max(now - self.answered_at);
        self.answered_at = now;
        if height > self.head {
            self.rest(now);
            (self.head, self.head_at) = (height, now);
        }
        let fresh = Sighting { process, height, voted, ready, voted_at: now, vote_gap: Duration::ZERO };
        let before = self.validators.entry(validator.to_owned()).or_insert_with(|| fresh.clone());
        let same = before.voted == voted && before.process == process;
        let vote_gap = before.vote_gap.max(now - before.voted_at);
        *before = Sighting { voted_at: if same { before.voted_at } else { now }, vote_gap, ..fresh };
    }

    /// Counts the time since the height advanced last.
    fn rest(&mut self, now: Instant) {
        let still = now - self.head_at;
        if still > self.stillness.longest {
            (self.stillness.longest, self.stillness.at_height) = (still, self.head);
        }
    }
}

/// Asks all validators of a network until it is dropped.
pub struct Witness {
    record: Arc<Mutex<Record>>,
    questions: Vec<JoinHandle<()>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        for question in &self.questions {
            question.abort();
        }
    }
}

impl Witness {
    /// Begins to watch these validators.
    pub fn start(scene: &Scene, validators: &[&str]) -> Self {
        let now = Instant::now();
        let record = Record {
            head: 0,
            head_at: now,
            answered_at: now,
            stillness: Stillness::default(),
            validators: BTreeMap::new(),
            conflicts: 0,
        };
        let record = Arc::new(Mutex::new(record));
        let mut witness = Self { record, questions: Vec::new() };
        for validator in validators {
            witness.watch(scene, validator);
        }
        witness
    }

    /// Begins to watch another node.
    pub fn watch(&mut self, scene: &Scene, validator: &str) {
        let port = bizra_proto::port::MONITORING;
        let path = format!("/api/v1/namespaces/{}/pods/{validator}:{port}/proxy/metrics", scene.namespace);
        let question = ask(scene.client.clone(), validator.to_owned(), path, Arc::clone(&self.record));
        self.questions.push(tokio::spawn(question));
    }

    /// Most pairs of conflicting signatures that any node has said to have seen: each counts what all validators send it.
    pub fn conflicts(&self) -> u64 {
        self.record().conflicts
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Highest finalised height anybody has told.
    pub fn head(&self) -> u64 {
        self.record().head
    }

    /// What a validator said last; none if it has not said anything yet.
    pub fn sighting(&self, validator: &str) -> Option<Sighting> {
        self.record().validators.get(validator).cloned()
    }

    /// Longest time in this act in which this validator signed no further block, until now.
    pub fn vote_gap(&self, validator: &str) -> Option<Duration> {
        self.sighting(validator).map(|sighting| sighting.vote_gap.max(sighting.voted_at.elapsed()))
    }

    /// Begins to measure anew.
    pub fn begin(&self) {
        let mut record = self.record();
        record.stillness = Stillness::default();
        for sighting in record.validators.values_mut() {
            sighting.vote_gap = Duration::ZERO;
        }
    }

    /// How long the chain has stood still since the measure began.
    pub fn stillness(&self) -> Stillness {
        let mut record = self.record();
        record.rest(Instant::now());
        record.stillness
    }

    /// What to remember of a validator before a fault, to see later that it votes again.
    pub fn before(&self, validator: &str) -> Before {
        Before {
            validator: validator.to_owned(),
            process: self.sighting(validator).map(|seen| seen.process),
            head: self.head(),
        }
    }

    /// Waits until the validator has signed a block above what was finalised before the fault.
    pub async fn votes_again(&self, before: &Before, process: Process, seconds: u64) -> Result<(), SceneError> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let seen = self.sighting(&before.validator);
            if seen.as_ref().is_some_and(|seen| {
                let expected = process == Process::Any || before.is_other(seen);
                expected && seen.voted > before.head
            }) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!("{} signs a block above {}", before.validator, before.head);
                return Err(SceneError::Patience { what, seconds, seen: format!("{seen:?}") });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What was known of a validator before a fault.
#[derive(Clone, Debug)]
pub struct Before {
    validator: String,
    process: Option<u64>,
    head: u64,
}

impl Before {
    /// Name of the validator.
    pub fn validator(&self) -> &str {
        &self.validator
    }

    /// True if this was said by another process than before the fault.
    pub fn is_other(&self, sighting: &Sighting) -> bool {
        Some(sighting.process) != self.process
    }
}

/// Which process is expected to vote after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Another one than before.
    New,
    /// Whichever.
    Any,
}

async fn ask(client: Client, validator: String, path: String, record: Arc<Mutex<Record>>) {
    let mut rounds = tokio::time::interval(INTERVAL);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Ok(request) = http::Request::get(&path).body(Vec::new()) else { return };
        if let Ok(Ok(text)) = tokio::time::timeout(PATIENCE, client.request_text(request)).await {
            record.lock().unwrap_or_else(PoisonError::into_inner).take(&validator, &text, Instant::now());
        }
    }
}

/// A whole number from a text of Prometheus.
fn metric(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    let value: f64 = value.trim().parse().ok()?;
    // Heights and seconds are far below 2^53, and never negative.
    #[allow(clippy::cast_sign_loss)]
    (value >= 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(process: u64, height: u64, voted: u64) -> String {
        format!(
            "# HELP bizra_ready x\nbizra_ready 1\nbizra_finalized_height {height}\nbizra_last_voted_height {voted}\nprocess_start_time_seconds {process}\n"
        )
    }

    #[test]
    fn a_gap_is_the_longest_time_in_which_no_validator_advanced() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut record = Record {
            head: 0,
            head_at: start,
            answered_at: start,
            stillness: Stillness::default(),
            validators: BTreeMap::new(),
            conflicts: 0,
        };
        record.take("a", &answer(1, 5, 5), at(100));
        record.take("b", &answer(1, 4, 4), at(200));
        record.take("b", &answer(1, 6, 6), at(900));
        record.take("a", &answer(1, 6, 5), at(2_000));
        record.take("a", &answer(1, 7, 7), at(2_500));
        assert_eq!(record.stillness.longest, Duration::from_millis(1_600));
        assert_eq!(record.stillness.at_height, 6);
        assert_eq!(record.stillness.blind, Duration::from_millis(1_100));
        assert_eq!(record.validators["a"].vote_gap, Duration::from_millis(2_400));
        assert_eq!(record.validators["b"].vote_gap, Duration::from_millis(700));
        assert_eq!(record.conflicts, 0);
        // A node that starts anew counts anew; what was seen once stays seen.
        record.take("b", &format!("{}bizra_consensus_evidence_total 1\n", answer(1, 7, 7)), at(2_600));
        record.take("b", &format!("{}bizra_consensus_evidence_total 0\n", answer(2, 7, 0)), at(2_700));
        assert_eq!(record.conflicts, 1);
    }

    #[test]
    fn an_answer_without_a_height_says_nothing() {
        assert_eq!(metric("bizra_height_of 3\nbizra_height 7\n", "bizra_height"), Some(7));
        assert_eq!(metric("bizra_height NaN\n", "bizra_height"), None);
        assert_eq!(metric("", "bizra_height"), None);
    }
}
