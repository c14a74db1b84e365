//! A peer that never speaks: it takes in what every validator sends, keeps each vote with the time it was first seen, and
//! looks for votes of one key that contradict each other. Every signature is checked here, by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bizra_driver::wire::PeerMessage;
use bizra_node::identity::SignerFolder;
use bizra_node::network::{Network, NetworkConfig, NetworkEvent, TlsMaterial};
use bizra_simplex::types::{Digest, ValidatorIndex};
use bizra_simplex::{Message, SignedVote, VoteKind};
use ed25519_zebra::{Signature, VerificationKey};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::FaultError;
use crate::layout::Layout;
use crate::record::{Moment, PlainVote};

/// Frames that wait here at most.
const FRAMES_WAITING_MAX: usize = 4_096;

/// Kinds of votes, as numbered on the wire.
const NULLIFY: u8 = VoteKind::Nullify as u8;
const FINALIZE: u8 = VoteKind::Finalize as u8;

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// By validator, moment and kind: the digest, and when it was first seen.
    votes: HashMap<(usize, Moment, u8), ([u8; 32], Instant)>,
    /// How each validator went ahead: its highest moments and when they were first seen.
    progress: HashMap<usize, Vec<(Moment, Instant)>>,
    highest: Moment,
    conflicts: Vec<String>,
    forged: u64,
    /// Pairs of contradicting votes that validators themselves told of.
    evidence: u64,
}

/// The watcher; runs until its runtime ends.
#[derive(Clone)]
pub(crate) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    keys: Arc<Vec<VerificationKey>>,
    genesis_hash: Digest,
}

impl Watcher {
    pub(crate) fn start(layout: &Layout, runtime: &Handle) -> Result<Self, FaultError> {
        let setup = |error: &dyn std::fmt::Display| FaultError::Setup(format!("the watcher cannot start: {error}"));
        let configuration = &layout.watcher;
        let signer = SignerFolder::open(&configuration.data_dir, &configuration.volume_id);
        let signer = signer.map_err(|error| setup(&error))?;
        let tls_key = signer.tls_key().map_err(|error| setup(&error))?;
        let consensus_key = Arc::new(signer.consensus_key().map_err(|error| setup(&error))?);
        let keys = layout.keys.iter().map(|key| VerificationKey::try_from(*key));
        let keys: Vec<VerificationKey> = keys.collect::<Result<_, _>>().map_err(|error| setup(&error))?;
        let genesis_hash = layout.genesis_hash;
        let config = NetworkConfig {
            node_name: configuration.node_name.clone(),
            genesis_hash,
            consensus_key,
            listen: configuration.listen.peer,
            peers: configuration.peers.clone(),
        };
        let (sender, mut events) = mpsc::channel(FRAMES_WAITING_MAX);
        let network = runtime.block_on(async {
            let tls = TlsMaterial::load(configuration.tls.files(), tls_key, &configuration.node_name);
            let tls = tls.map_err(|error| setup(&error))?;
            let network = Network::start(config, tls, &prometheus::Registry::new(), sender).await;
            network.map_err(|error| setup(&error))
        })?;
        let watcher = Self { seen: Arc::default(), keys: Arc::new(keys), genesis_hash };
        let own = watcher.clone();
        runtime.spawn(async move {
            // Ends when the runtime does.
            let _network = network;
            while let Some(event) = events.recv().await {
                if let NetworkEvent::Frame(inbound) = event
                    && let Ok(message) = PeerMessage::decode(inbound.frame)
                {
                    own.take(inbound.from.0, message);
                }
            }
        });
        Ok(watcher)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, from: u16, message: PeerMessage) {
        let votes: Vec<SignedVote> = match message {
            // Sent by the leader only; peers are listed by their index.
            PeerMessage::Consensus(Message::Proposal(proposal)) => vec![proposal.signed_vote(ValidatorIndex(from))],
            PeerMessage::Consensus(Message::Vote(vote)) => vec![vote],
            PeerMessage::Consensus(Message::Certificate(certificate)) | PeerMessage::Range(_, certificate) => {
                certificate.votes().collect()
            }
            PeerMessage::HighestVote(_, vote) => vote.into_iter().collect(),
            PeerMessage::Evidence(first, second) => {
                self.seen().evidence += 1;
                vec![first, second]
            }
            _ => return,
        };
        self.note(votes);
    }

    /// Checks signatures and keeps what is new; also for votes found elsewhere, such as in a database.
    pub(crate) fn note(&self, votes: impl IntoIterator<Item = SignedVote>) {
        let now = Instant::now();
        for vote in votes {
            let plain = plain(&vote);
            // Indices are those of an epoch; with one set for ever they are the genesis' own, but the key decides.
            let claimed = usize::from(vote.signer.0);
            let known = self.seen().votes.get(&(claimed, (plain.0, plain.1), plain.2)).copied();
            if known.is_some_and(|(digest, _)| digest == plain.3) {
                continue;
            }
            let message = vote.vote.signed_bytes(self.genesis_hash);
            let signature = Signature::from(vote.signature.0);
            let signed =
                |signer: &usize| self.keys.get(*signer).is_some_and(|key| key.verify(&signature, &message).is_ok());
            match std::iter::once(claimed).chain(0..self.keys.len()).find(signed) {
                Some(validator) => self.seen().note(validator, plain, now),
                None => self.seen().forged += 1,
            }
        }
    }

    /// The votes of a validator that were seen up to an instant, of this moment and later.
    pub(crate) fn votes_of(&self, validator: usize, until: Instant, from: Moment) -> Vec<PlainVote> {
        let seen = self.seen();
        let all = seen
            .votes
            .iter()
            .filter(|((signer, moment, _), (_, at))| *signer == validator && *moment >= from && *at <= until);
        all.map(|((_, moment, kind), (digest, _))| (moment.0, moment.1, *kind, *digest)).collect()
    }

    /// The highest moment anybody voted in.
    pub(crate) fn highest(&self) -> Moment {
        self.seen().highest
    }

    /// When a validator first voted above a moment.
    pub(crate) fn voted_above(&self, validator: usize, fence: Moment) -> Option<Instant> {
        let seen = self.seen();
        let steps = seen.progress.get(&validator)?;
        let after = steps.partition_point(|(moment, _)| *moment <= fence);
        steps.get(after).map(|(_, at)| *at)
    }

    pub(crate) fn count(&self) -> usize {
        self.seen().votes.len()
    }

    /// Contradictions found so far, and those that validators told of.
    pub(crate) fn conflicts(&self) -> Vec<String> {
        let seen = self.seen();
        let mut all = seen.conflicts.clone();
        if seen.evidence > 0 {
            all.push(format!("validators sent evidence {} times", seen.evidence));
        }
        if seen.forged > 0 {
            all.push(format!("{} votes carry a signature of no validator", seen.forged));
        }
        all
    }
}

impl Seen {
    fn note(&mut self, signer: usize, (epoch, view, kind, digest): PlainVote, now: Instant) {
        let moment = (epoch, view);
        match self.votes.get(&(signer, moment, kind)) {
            Some((known, _)) if *known == digest => return,
            Some((known, _)) => {
                let (known, digest) = (hex::encode(known), hex::encode(digest));
                let what =
                    format!("v{signer} signed kind {kind} of epoch {epoch}, view {view} twice: {known} and {digest}");
                self.conflicts.push(what);
                return;
            }
            None => {}
        }
        let opposite = match kind {
            NULLIFY => Some(FINALIZE),
            FINALIZE => Some(NULLIFY),
            _ => None,
        };
        if opposite.is_some_and(|kind| self.votes.contains_key(&(signer, moment, kind))) {
            self.conflicts.push(format!("v{signer} nullified and finalized epoch {epoch}, view {view}"));
        }
        self.votes.insert((signer, moment, kind), (digest, now));
        self.highest = self.highest.max(moment);
        let steps = self.progress.entry(signer).or_default();
        if steps.last().is_none_or(|(last, _)| *last < moment) {
            steps.push((moment, now));
        }
    }
}

fn plain(vote: &SignedVote) -> PlainVote {
    (vote.vote.epoch.0, vote.vote.view.0, vote.vote.kind as u8, vote.vote.digest.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_seen_and_repetitions_are_not() {
        let mut seen = Seen::default();
        let notarize = VoteKind::Notarize as u8;
        let mut note = |signer, vote| {
            seen.note(signer, vote, Instant::now());
            seen.conflicts.len()
        };
        note(0, (0, 7, notarize, [1; 32]));
        note(0, (0, 7, notarize, [1; 32]));
        note(1, (0, 7, notarize, [2; 32]));
        note(0, (0, 7, NULLIFY, [0; 32]));
        note(1, (0, 7, FINALIZE, [2; 32]));
        assert_eq!(note(0, (1, 7, FINALIZE, [3; 32])), 0);
        assert_eq!(note(0, (0, 7, notarize, [2; 32])), 1);
        assert_eq!(note(1, (0, 7, NULLIFY, [0; 32])), 2);
    }

    #[test]
    fn voting_again_means_above_everything_seen_before() {
        let mut seen = Seen::default();
        for view in [3, 5, 4] {
            seen.note(0, (0, view, NULLIFY, [0; 32]), Instant::now());
        }
        assert_eq!(seen.highest, (0, 5));
        let watcher = Watcher { seen: Arc::new(Mutex::new(seen)), keys: Arc::default(), genesis_hash: Digest([0; 32]) };
        assert!(watcher.voted_above(0, (0, 4)).is_some());
        assert!(watcher.voted_above(0, (0, 5)).is_none());
        assert!(watcher.voted_above(1, (0, 0)).is_none());
    }
}
