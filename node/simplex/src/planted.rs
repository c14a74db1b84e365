//! Bugs that the simulator plants to see whether its oracles find them. Without the cargo feature `planted`, which no
//! shipped binary is built with, [`planted`] is a constant `false` and every hook is compiled away.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A bug that a test can plant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[$doc])* $name,)* }

        impl Bug {
            /// All bugs.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    /// More than half of the power counts as a quorum.
    WrongQuorum = "wrong_quorum",
    /// Two thirds of the power are enough.
    QuorumOfTwoThirds = "quorum_of_two_thirds",
    /// A vote counts twice towards a quorum.
    VoterCountedTwice = "voter_counted_twice",
    /// A certificate may name one signer more than once.
    DuplicateSigners = "duplicate_signers",
    /// V2: finalizes what is proposed, not what is notarized.
    FinalizeWithoutNotarization = "finalize_without_notarization",
    /// V4: the parent need not be the block that the named certificate is about.
    ParentUnchecked = "parent_unchecked",
    /// V4: views between parent and block need no nullification.
    GapNotNullified = "gap_not_nullified",
    /// V1: notarizes after its own nullify.
    NotarizeAfterNullify = "notarize_after_nullify",
    /// V2: finalizes after its own nullify.
    FinalizeAfterNullify = "finalize_after_nullify",
    /// V3: nullifies after its own finalize.
    NullifyAfterFinalize = "nullify_after_finalize",
    /// Signatures of votes are not checked.
    VoteSignatureUnchecked = "vote_signature_unchecked",
    /// Signatures of proposals are not checked.
    ProposalSignatureUnchecked = "proposal_signature_unchecked",
    /// Signatures of certificates are not checked.
    CertificateSignaturesUnchecked = "certificate_signatures_unchecked",
    /// A justification from before the last view counts without a look at its signatures.
    StaleCertificate = "stale_certificate",
    /// A certificate of another epoch is accepted.
    CrossEpochReplay = "cross_epoch_replay",
    /// Votes do not name the chain.
    CrossChainReplay = "cross_chain_replay",
    /// R1: certificates are not persisted.
    CertificateNotPersisted = "certificate_not_persisted",
    /// R4: votes of all future views are kept.
    FutureViewsUnbounded = "future_views_unbounded",
    /// R3: nothing is sent again.
    NoResend = "no_resend",
    /// T3: the timer does not back off.
    TimerNoBackOff = "timer_no_back_off",
    /// H4: header time may run backwards.
    TimeNotMonotone = "time_not_monotone",
    /// H1: the state that a header names is not compared.
    StateNotCompared = "state_not_compared",
    /// V7: what a block reports is not checked.
    ReportUnchecked = "report_unchecked",
    /// P3: a node that does not know the version of an epoch goes on with the one it knows.
    VersionIgnored = "version_ignored",
    /// E2: the old validators build past the boundary.
    PastTheBoundary = "past_the_boundary",
    /// E3: a new key counts in the set named last.
    RotationTooEarly = "rotation_too_early",
    /// E3: the power of stakes counts twice.
    PowerCountedTwice = "power_counted_twice",
    /// E3: changes of one cut-off may reach a third of the power.
    ChangeUnbounded = "change_unbounded",
    /// E4: somebody may come to hold a third of the power.
    ThirdHeld = "third_held",
    /// E4: who is jailed goes on validating.
    JailedStays = "jailed_stays",
    /// H4: a release is paid at once, and once more when it has unbonded.
    ReleasePaidTwice = "release_paid_twice",
    /// H4: what is slashed belongs to nobody, and is not counted.
    SlashedLost = "slashed_lost",
    /// D2: votes without holding the bodies.
    BatchNotHeld = "batch_not_held",
    /// D1: an invalid batch is taken.
    InvalidBatchTaken = "invalid_batch_taken",
    /// D1: the origin's signature is not checked.
    BatchSignatureUnchecked = "batch_signature_unchecked",
    /// D3: a batch that a finalised block orders is ordered again.
    BatchOrderedTwice = "batch_ordered_twice",
    /// D3: a batch that an unfinalised ancestor orders is ordered again.
    AncestorBatchRepeated = "ancestor_batch_repeated",
    /// Unordered batches are forgotten in a restart.
    UnorderedBatchLost = "unordered_batch_lost",
    /// A finalised block is executed without the bodies that lack.
    ExecutedWithoutBodies = "executed_without_bodies",
    /// The certificate of a range is not checked.
    CatchUpUnchecked = "catch_up_unchecked",
    /// Ranges of finalised blocks are not served.
    RangeNotServed = "range_not_served",
    /// Batches are not served.
    BatchNotServed = "batch_not_served",
    /// S2: votes leave before the disk has synced.
    VoteBeforeSync = "vote_before_sync",
    /// S2: the driver goes on after a failed write.
    WriteErrorIgnored = "write_error_ignored",
    /// A process takes for durable what the one before it wrote.
    StartNotSynced = "start_not_synced",
    /// S4: a finalize vote is recorded beside the notarization it rests on, not after it.
    FinalizeBeforeNotarization = "finalize_before_notarization",
    /// S2: the signing record is not written.
    RecordNotWritten = "record_not_written",
    /// S3: a restart forgets nullify votes.
    NullifyForgotten = "nullify_forgotten",
    /// S3: a restart forgets finalize votes.
    FinalizeForgotten = "finalize_forgotten",
    /// S3: a restart forgets notarize votes.
    NotarizeForgotten = "notarize_forgotten",
    /// S3: a restart forgets proposals.
    ProposalForgotten = "proposal_forgotten",
    /// S3: no floor covers the slots that are overwritten.
    NoFloor = "no_floor",
    /// S3: only one of the two copies of a slot is read.
    OneCopyRead = "one_copy_read",
    /// S3: checksums of slots are not compared.
    ChecksumIgnored = "checksum_ignored",
    /// S5: what peers claim to have seen is not compared with the record.
    ClaimUnchecked = "claim_unchecked",
    /// S5: signs before any peer has answered.
    ClaimNotAwaited = "claim_not_awaited",
}

#[cfg(feature = "planted")]
mod active {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that runs on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    /// True if this bug is planted.
    pub fn planted(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use active::{plant, planted};

/// True if this bug is planted: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn planted(_bug: Bug) -> bool {
    false
}

/// Whether this build can plant bugs. A binary that is shipped asserts that it cannot.
pub const PLANTABLE: bool = cfg!(feature = "planted");
