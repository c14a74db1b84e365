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

/// All nodes being asked, and what they said. Bounded by the number of `BizraNode`s.
pub struct Probes {
    entries: Mutex<BTreeMap<NodeKey, Entry>>,
    trusts: Mutex<BTreeMap<String, Arc<Trust>>>,
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
                if entry.asked_at.unwrap_or(entry.known_since).elapsed() > self.freshness {
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
        let question = self.questions(Which::All).into_iter().find(|question| question.key == *key);
        match question.filter(|question| question.target.pod_uid == pod_uid) {
            Some(question) => poller::put(&question, ASK_NOW_PATIENCE).await.0,
            None => Word::Unasked,
        }
    }

    /// Makes a network's authorities known, so that its nodes can be asked. Until then they stay unasked: after a start
    /// of the operator a node may well be met before its network.
    pub fn trust(&self, network_uid: &str, trust: Trust) {
        let mut trusts = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        if trusts.get(network_uid).is_some_and(|known| **known == trust) {
            return;
        }
        trusts.insert(network_uid.to_owned(), Arc::new(trust));
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

    fn trust_of(&self, network_uid: &str) -> Option<Arc<Trust>> {
        self.trusts.lock().unwrap_or_else(PoisonError::into_inner).get(network_uid).cloned()
    }

    /// Resolves when there is a node that has not been asked yet.
    async fn newcomer(&self) {
        self.newcomer.notified().await;
    }

    fn questions(&self, which: Which) -> Vec<Question> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .filter(|(_, entry)| which == Which::All || entry.asked_at.is_none())
            .filter_map(|(key, entry)| {
                let trust = self.trust_of(&entry.target.network_uid)?;
                let (target, connection) = (entry.target.clone(), entry.connection.clone());
                Some(Question { key: key.clone(), target, trust, connection })
            })
            .collect()
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
    trust: Arc<Trust>,
    connection: Option<Connection>,
}

/// Which nodes to ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Newcomers,
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
        assert!(probes.questions(Which::All).is_empty());
        assert_eq!(probes.latest(&key, "pod-1"), Word::Unasked);
        let authority = Authority::generate("default", "n", 1, Duration::from_mins(1), 0).unwrap();
        probes.trust("n", Trust { roots: vec![authority.certificate.clone()], client: authority });
        assert_eq!(probes.questions(Which::Newcomers).len(), 1);
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
