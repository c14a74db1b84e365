//! The walk: asks nodes one after the other, believes none, and names those that lie.

use std::time::Duration;

use bizra_driver::Restarts;
use bizra_driver::light::{Headers, LightError, Link, TrustedEpoch, VerifiedHeader};
use bizra_proto::v1;
use bizra_simplex::Block;
use bizra_simplex::types::{Digest, Epoch, Height};

use super::source::{Fault, Source, inclusion_proof};
use super::trust::{Trust, genesis_epoch};
use super::{chain_rules, verify_signatures};
use crate::blockchain::{Failure, InclusionProof, ProofError};
use crate::configuration::LoadedGenesis;
use crate::transaction::TransactionId;

/// A node may move on to the next epoch while it is asked; more often than this within one walk it is playing.
const ROUNDS_MAX: usize = 8;

/// Why a client gets no further.
#[derive(Debug, thiserror::Error)]
pub enum LightClientError {
    /// The validators that are trusted may have nothing at stake any more.
    #[error(
        "epoch {epoch} was last seen to be the present one {age_seconds} s ago, and the unbonding period may be as short \
         as {period_seconds} s: its validators may have nothing to lose by a lie. Give the digest of a recent boundary \
         block from somebody you trust with --anchor EPOCH:DIGEST, or say with --trust-period how many seconds the \
         unbonding period of this chain lasts at the least"
    )]
    TooOld {
        /// The trusted epoch.
        epoch: Epoch,
        /// Its age on this machine's clock.
        age_seconds: u64,
        /// What is allowed.
        period_seconds: u64,
    },
    /// The chain has gone further than the unbonding period.
    #[error(
        "the chain is past epoch {reached}, more than the unbonding period of {period} epochs after epoch {epoch}, which \
         is trusted: its validators may have nothing to lose by a lie. Give the digest of a recent boundary block from \
         somebody you trust with --anchor EPOCH:DIGEST"
    )]
    TooFar {
        /// The trusted epoch.
        epoch: Epoch,
        /// Where the walk stopped.
        reached: Epoch,
        /// Epochs.
        period: u64,
    },
    /// Two histories, each signed by a quorum.
    #[error(transparent)]
    Fork(#[from] Box<Fork>),
    /// No node gave what was asked for.
    #[error("no node helped:{}", listed(.0))]
    NoHelp(Vec<(String, Fault)>),
    /// The proof is from an epoch this client did not walk through, or too long ago.
    #[error(
        "the proof rests on a header of epoch {0}, which is not among the epochs that this client walked through within the \
         unbonding period"
    )]
    OutOfReach(Epoch),
    /// The proof does not lead to what the header names.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The genesis holds no validator set.
    #[error(transparent)]
    Genesis(#[from] LightError),
}

/// Two blocks at one height that a quorum finalised: what the protocol excludes below a third of Byzantine power.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{first} and {second} each show a block at height {height} that a quorum of epoch {epoch} has finalised, {first_digest} \
     and {second_digest}: a third or more of the power is Byzantine. Trust neither; tell the owners of the network"
)]
pub struct Fork {
    /// A node.
    pub first: String,
    /// Another.
    pub second: String,
    /// Where they part.
    pub height: Height,
    /// The epoch whose validators signed both.
    pub epoch: Epoch,
    /// What the first shows.
    pub first_digest: Digest,
    /// What the second shows.
    pub second_digest: Digest,
}

fn listed(faults: &[(String, Fault)]) -> String {
    faults.iter().fold(String::new(), |listed, (url, fault)| listed + "\n  " + url + " " + &fault.to_string())
}

/// The highest header that verified, and who gave it.
#[derive(Clone, Debug)]
pub struct Head {
    /// The header.
    pub header: VerifiedHeader,
    /// The node's URL.
    pub source: String,
}

/// A transaction that was executed, as a quorum's header shows.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The proof, which leads to [`Self::header`]'s receipts root.
    pub proof: InclusionProof,
    /// Why it had no effect; `None` if it was applied.
    pub failure: Option<Failure>,
    /// The header it was verified against.
    pub header: VerifiedHeader,
    /// The node that gave it.
    pub source: String,
}

/// A client of one chain.
pub struct LightClient {
    genesis: LoadedGenesis,
    period_epochs: u64,
    trust: Trust,
    /// The epoch before the trusted one, if this run walked through it: to tell a fork from a lie.
    before: Option<(TrustedEpoch, String)>,
    sources: Vec<Source>,
    head: Option<Head>,
    /// Restarts of the chain that are trusted, as the genesis is.
    restarts: Restarts,
    /// Epochs that they have passed over in this walk.
    passed_over: u64,
}

impl LightClient {
    /// A client that starts from `trust`, on a machine whose clock shows `now` (milliseconds since 1970). `period` is how
    /// long the unbonding period lasts at the least. Refuses what is older.
    pub fn new(
        genesis: LoadedGenesis,
        trust: Trust,
        sources: Vec<Source>,
        period: Duration,
        now: u64,
    ) -> Result<Self, LightClientError> {
        let age = Duration::from_millis(now.saturating_sub(trust.seen_milliseconds));
        if age > period {
            let (age_seconds, period_seconds) = (age.as_secs(), period.as_secs());
            return Err(LightClientError::TooOld { epoch: trust.epoch.epoch(), age_seconds, period_seconds });
        }
        Ok(Self::made(genesis, trust, sources))
    }

    fn made(genesis: LoadedGenesis, trust: Trust, sources: Vec<Source>) -> Self {
        let period_epochs = genesis.genesis.parameters.unbonding_epochs.into();
        let restarts = Restarts::default();
        Self { genesis, period_epochs, trust, before: None, sources, head: None, restarts, passed_over: 0 }
    }

    /// Trusts these restarts by owners (PROTOCOL E6) as it trusts the genesis.
    #[must_use]
    pub fn with_restarts(mut self, restarts: Restarts) -> Self {
        let domain = restarts.domain(self.genesis.hash, self.trust.epoch.epoch());
        self.trust.epoch = self.trust.epoch.clone().in_domain(domain);
        self.restarts = restarts;
        self
    }

    /// A client that starts from the boundary block of `epoch` with this digest, which somebody trusted says is recent;
    /// block and validators come from the nodes.
    pub async fn from_anchor(
        genesis: LoadedGenesis,
        (epoch, digest): (Epoch, Digest),
        mut sources: Vec<Source>,
        now: u64,
    ) -> Result<Self, LightClientError> {
        let rules = chain_rules(&genesis);
        for source in &mut sources {
            let answer = async {
                let link = one_link(source, epoch).await?;
                TrustedEpoch::anchor(rules, digest, link.block, link.next).map_err(lied)
            };
            match answer.await {
                Ok(trusted) => {
                    let boundaries = [(epoch.0, digest)].into();
                    let trust = Trust { epoch: trusted, seen_milliseconds: now, boundaries, resume: None };
                    return Ok(Self::made(genesis, trust, sources));
                }
                Err(fault) => source.fault = Some(fault),
            }
        }
        Err(no_help(&sources))
    }

    /// The chain.
    pub fn genesis(&self) -> &LoadedGenesis {
        &self.genesis
    }

    /// What is trusted now.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The nodes, with what is held against them.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Walks as far as the nodes lead, and returns the highest header that verifies. `now` is this machine's clock.
    pub async fn sync(&mut self, now: u64) -> Result<Head, LightClientError> {
        let start = self.trust.epoch.epoch();
        let mut sources = std::mem::take(&mut self.sources);
        let mut refused = Ok(());
        for source in sources.iter_mut().filter(|source| source.may_be_asked()) {
            let followed = self.follow(source, start).await;
            refused = source.note(followed).map(drop);
            if refused.is_err() {
                break;
            }
        }
        self.sources = sources;
        refused?;
        let head = self.head.clone().ok_or_else(|| no_help(&self.sources))?;
        // Not simply now: who shows the same old end of the chain for long enough must not make it look present.
        let shown = head.header.block().time_milliseconds.min(now);
        self.trust.seen_milliseconds = self.trust.seen_milliseconds.max(shown);
        Ok(head)
    }

    /// Follows one node to its end.
    async fn follow(&mut self, source: &mut Source, start: Epoch) -> Result<(), Stop> {
        let chain = source.genesis_hash().await?;
        if chain != self.genesis.hash.to_string() {
            return Err(Fault::Lacks(format!("it is a node of another chain, with genesis hash {chain}")).into());
        }
        self.compare_boundary(source).await?;
        for _ in 0..ROUNDS_MAX {
            while self.follow_links(source, start).await? {}
            let headers = Headers::decode(source.headers(None).await?.into()).map_err(lied)?;
            let last = headers.blocks.last().ok_or_else(|| lied(LightError::Count(0)))?;
            let present = self.trust.epoch.epoch();
            if last.epoch == present {
                let verified = self.trust.epoch.headers(&headers, verify_signatures).map_err(lied)?;
                return verified.into_iter().next_back().map_or(Ok(()), |header| self.take_head(header, source));
            }
            if last.epoch > present
                && let Some(restart) = self.restarts.ending(present)
            {
                let next = self.trust.epoch.restart(restart).map_err(lied)?;
                self.passed_over = self.passed_over.saturating_add(next.epoch().0.saturating_sub(present.next().0));
                self.trust.resume = Some(std::mem::replace(&mut self.trust.epoch, next));
                self.before = None;
                continue;
            }
            if last.digest() == self.trust.epoch.below_digest() {
                // The epoch has only just ended.
                return self.take_head(self.trust.epoch.below_header(), source);
            }
            if last.epoch < present {
                let walked = self.before.as_ref().filter(|(before, _)| before.epoch() == last.epoch);
                if let Some((before, _)) = walked {
                    before.headers(&headers, verify_signatures).map_err(lied)?;
                }
                return Err(Fault::Lacks(format!("it is in epoch {}, behind epoch {present}", last.epoch)).into());
            }
        }
        let what = "it names headers of later epochs and does not show the way there; if the owners of this network have \
                    restarted the chain, which they would have told you, give their document with --restart";
        Err(lied(what).into())
    }

    /// A node that shows another end of the last epoch than the one walked over lies, or a third of the power does.
    async fn compare_boundary(&self, source: &mut Source) -> Result<(), Stop> {
        let Some((before, first)) = &self.before else { return Ok(()) };
        let link = match one_link(source, before.epoch()).await {
            Err(Fault::Lacks(_)) => return Ok(()),
            link => link?,
        };
        let (digest, trusted) = (link.block.digest(), self.trust.epoch.below_digest());
        if digest == trusted {
            return Ok(());
        }
        before.advance(&link, verify_signatures).map_err(lied)?;
        Err(fork(first, source, &link.block, trusted))
    }

    /// One page of links; false if there are no more.
    async fn follow_links(&mut self, source: &mut Source, start: Epoch) -> Result<bool, Stop> {
        if self.restarts.ending(self.trust.epoch.epoch()).is_some() {
            // A link from here leads to an epoch that was named and has never begun.
            return Ok(false);
        }
        let links = source.links(self.trust.epoch.epoch().0, 0).await?;
        let any = !links.is_empty();
        for bytes in links {
            if self.restarts.ending(self.trust.epoch.epoch()).is_some() {
                return Ok(false);
            }
            let link = Link::decode(bytes.into()).map_err(lied)?;
            let next = self.trust.epoch.advance(&link, verify_signatures).map_err(lied)?;
            let reached = next.epoch();
            if reached.0.saturating_sub(start.0).saturating_sub(self.passed_over) > self.period_epochs {
                let period = self.period_epochs;
                return Err(Stop::Refused(Box::new(LightClientError::TooFar { epoch: start, reached, period })));
            }
            self.trust.boundaries.insert(link.block.epoch.0, next.below_digest());
            while self.trust.boundaries.len() as u64 > self.period_epochs {
                self.trust.boundaries.pop_first();
            }
            let before = std::mem::replace(&mut self.trust.epoch, next);
            self.trust.resume = None;
            self.before = Some((before, source.url().to_owned()));
        }
        Ok(any)
    }

    fn take_head(&mut self, header: VerifiedHeader, source: &Source) -> Result<(), Stop> {
        let height = header.block().height;
        if let Some(Head { header: known, source: first }) = &self.head {
            if known.block().height == height && known != &header {
                return Err(fork(first, source, header.block(), known.block().digest()));
            }
            if known.block().height >= height {
                return Ok(());
            }
        }
        self.head = Some(Head { header, source: source.url().to_owned() });
        Ok(())
    }

    /// Fetches the proof that a transaction was executed, and verifies it against a header that this client verified. To
    /// be called after [`Self::sync`].
    pub async fn prove(&mut self, id: TransactionId) -> Result<Proven, LightClientError> {
        let mut sources = std::mem::take(&mut self.sources);
        let mut found = Ok(None);
        for source in sources.iter_mut().filter(|source| source.may_be_asked()) {
            let proven = self.prove_from(source, id).await;
            found = source.note(proven);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        self.sources = sources;
        found?.ok_or_else(|| no_help(&self.sources))
    }

    async fn prove_from(&self, source: &mut Source, id: TransactionId) -> Result<Proven, Stop> {
        let proof = inclusion_proof(source.proof(id.0).await?).map_err(lied)?;
        if proof.transaction_id != id.to_string() {
            return Err(lied(format_args!("it proves another transaction, {}", proof.transaction_id)).into());
        }
        let header = self.header_naming(source, proof.checkpoint).await?;
        let failure = proof.verify(header.checkpoint().receipts).map_err(lied)?;
        Ok(Proven { proof, failure, header, source: source.url().to_owned() })
    }

    /// Verifies a proof, wherever it comes from, against a header that this client verified. To be called after
    /// [`Self::sync`].
    pub async fn check(&mut self, proof: InclusionProof) -> Result<Proven, LightClientError> {
        let mut sources = std::mem::take(&mut self.sources);
        let mut found = Ok(None);
        for source in sources.iter_mut().filter(|source| source.may_be_asked()) {
            let header = self.header_naming(source, proof.checkpoint).await;
            found = source.note(header.map(|header| (header, source.url().to_owned())));
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        self.sources = sources;
        let (header, source) = found?.ok_or_else(|| no_help(&self.sources))?;
        let failure = proof.verify(header.checkpoint().receipts)?;
        Ok(Proven { proof, failure, header, source })
    }

    /// The first header that names this checkpoint, verified.
    async fn header_naming(&self, source: &mut Source, checkpoint: u64) -> Result<VerifiedHeader, Stop> {
        let wanted = v1::get_headers_request::Wanted::Checkpoint(checkpoint);
        let headers = Headers::decode(source.headers(Some(wanted)).await?.into()).map_err(lied)?;
        let epoch = headers.blocks.first().map(|block| block.epoch).ok_or_else(|| lied(LightError::Count(0)))?;
        let trusted = self.trusted_at(source, epoch).await?;
        let verified = trusted.headers(&headers, verify_signatures).map_err(lied)?;
        let header = verified.into_iter().next().ok_or_else(|| lied(LightError::Count(0)))?;
        let named = header.checkpoint().height;
        if named.0 == checkpoint {
            return Ok(header);
        }
        Err(lied(format_args!("asked for a header that names checkpoint {checkpoint}, it gave one that names {named}"))
            .into())
    }

    /// The validators of an epoch up to the present one, which this client walked through.
    async fn trusted_at(&self, source: &mut Source, epoch: Epoch) -> Result<TrustedEpoch, Stop> {
        let present = self.trust.epoch.epoch();
        if epoch == present {
            return Ok(self.trust.epoch.clone());
        }
        let out_of_reach = || Stop::Refused(Box::new(LightClientError::OutOfReach(epoch)));
        if epoch > present {
            return Err(Fault::Lacks(format!(
                "the proof is of epoch {epoch}, which began during this walk; ask again"
            ))
            .into());
        }
        // Whoever left longer ago can sign a second header of that epoch at no cost.
        if present.0 - epoch.0 > self.period_epochs {
            return Err(out_of_reach());
        }
        // The first epoch after a restart is reached from the one that it ended.
        let restart = self.restarts.beginning(epoch);
        let from = restart.map_or(epoch, |restart| restart.block.epoch);
        let trusted = if let Some(before) = from.previous() {
            let digest = *self.trust.boundaries.get(&before.0).ok_or_else(out_of_reach)?;
            let link = one_link(source, before).await?;
            TrustedEpoch::anchor(chain_rules(&self.genesis), digest, link.block, link.next).map_err(lied)?
        } else {
            genesis_epoch(&self.genesis).map_err(|error| Stop::Refused(Box::new(error.into())))?
        };
        let trusted = trusted.in_domain(self.restarts.domain(self.genesis.hash, from));
        Ok(restart.map_or(Ok(trusted.clone()), |restart| trusted.restart(restart)).map_err(lied)?)
    }
}

/// Why a node is left.
pub(super) enum Stop {
    /// Something is held against it; another may help.
    Fault(Fault),
    /// No other node can help.
    Refused(Box<LightClientError>),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// `block` is what the second shows.
fn fork(first: &str, second: &Source, block: &Block, first_digest: Digest) -> Stop {
    let (first, second) = (first.to_owned(), second.url().to_owned());
    let (height, epoch, second_digest) = (block.height, block.epoch, block.digest());
    let fork = Fork { first, second, height, epoch, first_digest, second_digest };
    Stop::Refused(Box::new(Box::new(fork).into()))
}

fn lied(what: impl std::fmt::Display) -> Fault {
    Fault::Lied(what.to_string())
}

async fn one_link(source: &mut Source, epoch: Epoch) -> Result<Link, Fault> {
    let link = source.links(epoch.0, 1).await?.pop();
    let link = link.ok_or_else(|| Fault::Lacks(format!("it does not have the end of epoch {epoch}")))?;
    Link::decode(link.into()).map_err(lied)
}

fn no_help(sources: &[Source]) -> LightClientError {
    let silent = Fault::Lacks("it gave nothing".to_owned());
    let fault = |source: &Source| (source.url().to_owned(), source.fault().cloned().unwrap_or_else(|| silent.clone()));
    LightClientError::NoHelp(sources.iter().map(fault).collect())
}
