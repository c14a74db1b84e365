//! What nodes say of themselves. A poller asks every running node in the background, over mutual TLS; controllers read
//! the latest answer and never wait for one. No answer, or an old one, is not a healthy node.

mod client;
mod poller;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bizra_proto::v1::NodeStatus;
pub use poller::{PollSettings, poll_forever};
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::certificates::Trust;

/// Questions a second, of all nodes together. With more nodes than that times the interval each is asked less often, and its
/// answer counts for longer: what a node does not say itself, its pod's status does.
const QUESTIONS_PER_SECOND: usize = 250;

/// Connections that are kept. Nodes beyond are connected to for each question.
const CONNECTIONS_MAX: usize = 256;

/// Rounds of questions that an answer counts for, when there are more nodes than can be asked within the interval.
const ROUNDS_AN_ANSWER_COUNTS: u32 = 4;

/// How long a node has that is asked right before another one is taken down.
const ASK_NOW_PATIENCE: Duration = Duration::from_secs(2);

/// Namespace and name of a `BizraNode`.
pub type NodeKey = (String, String);

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// It runs and has not been asked yet, because this operator has just come to know it. Nothing is known against what
    /// was known before; the first answer, or the lack of one, comes within seconds.
    Unasked,
    /// Nothing that counts: it does not run, gives no answer, or its last answer is too old. The reason is for people.
    Unknown(String),
    /// Its latest answer.
    Status(Box<NodeStatus>),
}

/// A node to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Uid of the pod that runs it; an answer counts for this pod only.
    pub pod_uid: String,
    /// Address of the pod.
    pub address: IpAddr,
    /// Uid of its Network, whose authority signs both sides' certificates.
    pub network_uid: String,
}

/// A connection, and when its client certificate should be replaced.
#[derive(Clone)]
struct Connection {
    channel: Channel,
    renew_at: u64,
}

struct Entry {
    target: ProbeTarget,
    word: Word,
    known_since: Instant,
    asked_at: Option<Instant>,
    connection: Option<Connection>,
    /// The furthest that the node in this pod has said it is.
    furthest: Progress,
    /// When it last came further.
    progressed_at: Instant,
}

/// How far a node is: its height, and the chunks of a snapshot on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    height: u64,
    chunks: u64,
}

/// Whom a network's nodes and the operator believe, and what all connections to them share.
struct Trusted {
    trust: Trust,
    tls: client::SharedTls,
}

/// All nodes being asked, and what they said. Bounded by the number of `BizraNode`s.
pub struct Probes {
    entries: Mutex<BTreeMap<NodeKey, Entry>>,
    trusts: Mutex<BTreeMap<String, Arc<Trusted>>>,
    /// An answer older than this does not count.
    freshness: Duration,
    newcomer: Notify,
}

impl Probes {
    /// None yet. Answers count for `freshness`.
    pub fn new(freshness: Duration) -> Self {
        Self { entries: Mutex::default(), trusts: Mutex::default(), freshness, newcomer: Notify::new() }
    }

    /// Starts asking a node, or goes on if it is the same pod at the same address.
    pub fn ask(&self, key: NodeKey, target: ProbeTarget) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(&key).is_none_or(|entry| entry.target != target) {
            let known_since = Instant::now();
            let entry = Entry {
                target,
                word: Word::Unasked,
                known_since,
                asked_at: None,
                connection: None,
                furthest: Progress::default(),
                progressed_at: known_since,
            };
            entries.insert(key, entry);
            self.newcomer.notify_one();
        }
    }

    /// Stops asking a node.
    pub fn forget(&self, key: &NodeKey) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What the node in this pod said last.
    pub fn latest(&self, key: &NodeKey, pod_uid: &str) -> Word {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(key) {
            Some(entry) if entry.target.pod_uid == pod_uid => {
                let round = Duration::from_secs((entries.len() / QUESTIONS_PER_SECOND) as u64);
                let freshness = self.freshness.max(round * ROUNDS_AN_ANSWER_COUNTS);
                if entry.asked_at.unwrap_or(entry.known_since).elapsed() > freshness {
                    Word::Unknown("there is no recent answer".to_owned())
                } else {
                    entry.word.clone()
                }
            }
            _ => Word::Unasked,
        }
    }

    /// For how long the node in this pod has come no further, as far as this operator has looked on.
    pub fn idle(&self, key: &NodeKey, pod_uid: &str) -> Duration {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key).filter(|entry| entry.target.pod_uid == pod_uid);
        entry.map_or(Duration::ZERO, |entry| entry.progressed_at.elapsed())
    }

    /// The highest block that the node was known to have finalised, also after it has fallen silent.
    pub fn last_height(&self, key: &NodeKey) -> Option<u64> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).map(|entry| entry.furthest.height).filter(|height| *height > 0)
    }

    /// Asks the node in this pod now. A pod that is not known has not been asked.
    pub async fn ask_now(&self, key: &NodeKey, pod_uid: &str) -> Word {
        match self.question(key).filter(|question| question.target.pod_uid == pod_uid) {
            Some(question) => poller::put(&question, ASK_NOW_PATIENCE).await.0,
            None => Word::Unasked,
        }
    }

    /// A connection to the node in this pod and to no other, over which it can be asked for more than its status; none if it is
    /// not known how to reach it.
    pub fn channel(&self, key: &NodeKey, pod_uid: &str) -> Option<Channel> {
        let question = self.question(key).filter(|question| question.target.pod_uid == pod_uid)?;
        poller::connection(&question).ok().map(|connection| connection.channel)
    }

    /// Makes a network's authorities known, so that its nodes can be asked. Until then they stay unasked: after a start
    /// of the operator a node may well be met before its network.
    pub fn trust(&self, network_uid: &str, trust: Trust) {
        let mut trusts = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        if trusts.get(network_uid).is_some_and(|known| known.trust == trust) {
            return;
        }
        let trusted = Trusted { trust, tls: client::SharedTls::default() };
        trusts.insert(network_uid.to_owned(), Arc::new(trusted));
        drop(trusts);
        // Connections show and believe certificates of the time they were made.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.values_mut().filter(|entry| entry.target.network_uid == network_uid) {
            entry.connection = None;
        }
        self.newcomer.notify_one();
    }

    /// Forgets a network's authorities.
    pub fn distrust(&self, network_uid: &str) {
        self.trusts.lock().unwrap_or_else(PoisonError::into_inner).remove(network_uid);
    }

    fn trusted(&self, network_uid: &str) -> Option<Arc<Trusted>> {
        self.trusts.lock().unwrap_or_else(PoisonError::into_inner).get(network_uid).cloned()
    }

    /// Resolves when there is a node that has not been asked yet.
    async fn newcomer(&self) {
        self.newcomer.notified().await;
    }

    fn question(&self, key: &NodeKey) -> Option<Question> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        self.question_to(key, entries.get(key)?, Keep::No)
    }

    fn question_to(&self, key: &NodeKey, entry: &Entry, keep: Keep) -> Option<Question> {
        let trusted = self.trusted(&entry.target.network_uid)?;
        let (target, connection) = (entry.target.clone(), entry.connection.clone());
        Some(Question { key: key.clone(), target, trusted, connection, keep })
    }

    /// Nodes that have never been asked, and at most `others_max` of those that were asked longer ago than `interval`, the
    /// longest first.
    fn questions(&self, interval: Duration, others_max: usize) -> Vec<Question> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: Vec<(Instant, usize, &NodeKey, &Entry)> = Vec::new();
        let mut newcomers = Vec::new();
        for (place, (key, entry)) in entries.iter().enumerate() {
            match entry.asked_at {
                None => newcomers.push((entry.known_since, place, key, entry)),
                Some(at) if at.elapsed() >= interval => due.push((at, place, key, entry)),
                Some(_) => {}
            }
        }
        due.sort_unstable_by_key(|(at, ..)| *at);
        due.truncate(others_max);
        let chosen = newcomers.into_iter().chain(due);
        let questions = chosen.filter_map(|(_, place, key, entry)| {
            self.question_to(key, entry, if place < CONNECTIONS_MAX { Keep::Yes } else { Keep::No })
        });
        questions.collect()
    }

    /// Keeps an answer; true if something changed that a controller should look at.
    fn record(&self, key: &NodeKey, target: &ProbeTarget, word: Word, connection: Option<Connection>) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get_mut(key).filter(|entry| entry.target == *target) else { return false };
        let changed = significance(&entry.word) != significance(&word);
        if let Word::Status(said) = &word {
            let chunks = said.snapshot.as_ref().map_or(0, |snapshot| snapshot.chunks);
            let now = Progress { height: said.finalized_height, chunks };
            if now > entry.furthest {
                entry.furthest = now;
                entry.progressed_at = Instant::now();
            }
        }
        entry.word = word;
        entry.asked_at = Some(Instant::now());
        entry.connection = connection;
        changed
    }
}

/// A node to be asked now, with what is needed for it.
struct Question {
    key: NodeKey,
    target: ProbeTarget,
    trusted: Arc<Trusted>,
    connection: Option<Connection>,
    keep: Keep,
}

/// Whether a connection is kept for the next question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}

/// The part of an answer that is worth waking a controller for. Heights are not.
#[derive(PartialEq)]
enum Significance<'a> {
    Unasked,
    Silent,
    Says { sync_state: i32, signing_state: i32, power: u64, version: &'a str, genesis_hash: &'a str },
}

fn significance(word: &Word) -> Significance<'_> {
    match word {
        Word::Unasked => Significance::Unasked,
        Word::Unknown(_) => Significance::Silent,
        Word::Status(status) => Significance::Says {
            sync_state: status.sync_state,
            signing_state: status.signing_state,
            power: status.power,
            version: &status.version,
            genesis_hash: &status.genesis_hash,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::certificates::Authority;

    fn target(uid: &str) -> ProbeTarget {
        ProbeTarget { pod_uid: uid.to_owned(), address: IpAddr::from([127, 0, 0, 1]), network_uid: "n".to_owned() }
    }

    fn status(height: u64) -> Word {
        Word::Status(Box::new(NodeStatus { finalized_height: height, sync_state: 3, ..NodeStatus::default() }))
    }

    #[test]
    fn an_answer_counts_for_its_pod_only_and_heights_wake_nobody() {
        let probes = Probes::new(Duration::from_mins(1));
        let key = ("default".to_owned(), "demo-v0".to_owned());
        probes.ask(key.clone(), target("pod-1"));
        assert!(probes.record(&key, &target("pod-1"), status(1), None));
        assert!(!probes.record(&key, &target("pod-1"), status(2), None));
        assert_eq!(probes.latest(&key, "pod-1"), status(2));
        assert_eq!(probes.latest(&key, "pod-2"), Word::Unasked);
        probes.ask(key.clone(), target("pod-2"));
        assert!(!probes.record(&key, &target("pod-1"), status(3), None));
        assert_eq!(probes.latest(&key, "pod-2"), Word::Unasked);
    }

    #[test]
    fn a_node_met_before_its_network_stays_unasked() {
        let probes = Probes::new(Duration::from_mins(1));
        let key = ("default".to_owned(), "demo-v0".to_owned());
        probes.ask(key.clone(), target("pod-1"));
        assert!(probes.questions(Duration::ZERO, 10).is_empty());
        assert_eq!(probes.latest(&key, "pod-1"), Word::Unasked);
        probes.trust("n", trust());
        assert_eq!(probes.questions(Duration::ZERO, 0).len(), 1);
    }

    fn trust() -> Trust {
        let authority = Authority::generate("default", "n", 1, Duration::from_mins(1), 0).unwrap();
        Trust { roots: vec![authority.certificate.clone()], client: authority }
    }

    #[test]
    fn who_was_asked_longest_ago_is_asked_first_and_newcomers_do_not_wait() {
        let probes = Probes::new(Duration::from_mins(1));
        probes.trust("n", trust());
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        for name in ["a", "b", "c"] {
            probes.ask(key(name), target("pod-1"));
        }
        for name in ["c", "a"] {
            probes.record(&key(name), &target("pod-1"), status(1), None);
        }
        let asked = |interval, others_max| {
            let questions = probes.questions(interval, others_max);
            questions.into_iter().map(|question| question.key.1).collect::<Vec<_>>()
        };
        assert_eq!(asked(Duration::ZERO, 1), ["b", "c"]);
        assert_eq!(asked(Duration::ZERO, 9), ["b", "c", "a"]);
        assert_eq!(asked(Duration::from_mins(1), 9), ["b"]);
    }

    #[test]
    fn a_node_that_falls_silent_has_come_no_further_and_its_height_is_remembered() {
        let probes = Probes::new(Duration::from_mins(1));
        let key = ("default".to_owned(), "demo-v0".to_owned());
        probes.ask(key.clone(), target("pod-1"));
        probes.record(&key, &target("pod-1"), status(7), None);
        std::thread::sleep(Duration::from_millis(5));
        probes.record(&key, &target("pod-1"), Word::Unknown("no answer".to_owned()), None);
        probes.record(&key, &target("pod-1"), status(7), None);
        assert!(probes.idle(&key, "pod-1") >= Duration::from_millis(5));
        assert_eq!((probes.last_height(&key), probes.idle(&key, "pod-2")), (Some(7), Duration::ZERO));
        probes.record(&key, &target("pod-1"), status(8), None);
        assert!(probes.idle(&key, "pod-1") < Duration::from_millis(5));
    }

    #[test]
    fn an_old_answer_is_no_answer() {
        let probes = Probes::new(Duration::ZERO);
        let key = ("default".to_owned(), "demo-v0".to_owned());
        probes.ask(key.clone(), target("pod-1"));
        probes.record(&key, &target("pod-1"), status(1), None);
        std::thread::sleep(Duration::from_millis(2));
        assert!(matches!(probes.latest(&key, "pod-1"), Word::Unknown(_)));
    }
}
