//! Kinds of faults, and how often each was injected.

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

faults! {
    /// A node lost power between two turns.
    Crash = "crash",
    /// A node lost power inside a commit: nothing of that turn left it.
    CrashInCommit = "crash_in_commit",
    /// A node lost power while its messages went out: some had left, some had not.
    CrashInSend = "crash_in_send",
    /// A process was killed; what it had written is still there, synced or not.
    Kill = "kill",
    /// All honest nodes lost power at once.
    CrashOfAll = "crash_of_all",
    /// Unsynced database writes were lost in a crash.
    LostWrites = "lost_writes",
    /// A block of the signing record was lost in a crash.
    LostSigningBlock = "lost_signing_block",
    /// A block of the signing record was garbled in a crash.
    TornSigningBlock = "torn_signing_block",
    /// One copy of a written slot of the signing record rotted while the node was down.
    RottenSigningBlock = "rotten_signing_block",
    /// A disk took long to sync.
    SlowDisk = "slow_disk",
    /// A write or sync failed, and the process stopped.
    WriteError = "write_error",
    /// A read failed, and the process stopped.
    ReadError = "read_error",
    /// A node lost its database and kept its signing record.
    DatabaseLost = "database_lost",
    /// A node was started from an old copy of its whole volume.
    OldVolume = "old_volume",
    /// A node stood still for a while.
    Pause = "pause",
    /// A node met an epoch whose rules its binary did not know, and stopped until it was upgraded.
    OldBinary = "old_binary",
    /// A node's wall clock is wrong by minutes.
    ClockSkew = "clock_skew",
    /// A node's clocks run too fast or too slow.
    ClockDrift = "clock_drift",
    /// A node's wall clock was set by minutes, forwards or backwards.
    ClockStep = "clock_step",
    /// A message was lost.
    Loss = "loss",
    /// A message was delivered twice.
    Duplication = "duplication",
    /// A message overtook another of the same link.
    Reordering = "reordering",
    /// A message took many times longer than usual.
    DelaySpike = "delay_spike",
    /// The network fell into parts.
    Partition = "partition",
    /// A link worked in one direction only.
    OneWayPartition = "one_way_partition",
    /// A Byzantine leader proposed two blocks to two halves.
    EquivocatingProposal = "equivocating_proposal",
    /// A Byzantine leader proposed a block that breaks a rule.
    UnsoundProposal = "unsound_proposal",
    /// A Byzantine leader signalled a version that it does not know, or that does not exist.
    FalseSignal = "false_signal",
    /// A Byzantine leader reported what nobody signed, or what was reported already.
    FalseReport = "false_report",
    /// A Byzantine leader proposed to skip a view that may be final.
    ForkingProposal = "forking_proposal",
    /// A Byzantine leader built upon a block that is not certified, or with a certificate that nobody signed.
    UncertifiedParent = "uncertified_parent",
    /// A Byzantine validator spoke in the name of others.
    Impersonation = "impersonation",
    /// A Byzantine validator claimed with forged signatures that blocks are final.
    ForgedFinality = "forged_finality",
    /// A Byzantine validator notarized two blocks of a view.
    DoubleNotarize = "double_notarize",
    /// A Byzantine validator nullified and finalized one view.
    NullifyAndFinalize = "nullify_and_finalize",
    /// A Byzantine validator kept a message to itself.
    Silence = "silence",
    /// A Byzantine validator did not hand out a batch.
    WithheldBatch = "withheld_batch",
    /// A Byzantine validator did not hand a batch to one other.
    StarvedOfBatch = "starved_of_batch",
    /// A Byzantine leader ordered a batch of a final block again while somebody waited for another one.
    OrderedAgain = "ordered_again",
    /// A Byzantine validator kept a certificate to itself.
    WithheldCertificate = "withheld_certificate",
    /// A Byzantine validator changed a batch or its signature.
    ForgedBatch = "forged_batch",
    /// A Byzantine validator made a batch that no application accepts.
    InvalidBatch = "invalid_batch",
    /// A Byzantine validator answered a question with a lie.
    LyingAnswer = "lying_answer",
    /// A Byzantine validator repeated an old message.
    Replay = "replay",
    /// A Byzantine validator sent many questions and votes at once, all well-formed.
    Spam = "spam",
    /// A Byzantine validator restarted without its database and its signing record.
    Amnesia = "amnesia",
    /// A Byzantine validator sent bytes that mean nothing, or a damaged message.
    Garbage = "garbage",
}

/// Counts by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults([u64; Fault::ALL.len()]);

impl Default for Faults {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Faults {
    /// Counts one.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often a kind was injected.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// Kinds and counts.
    pub fn by_kind(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.iter().map(|fault| (*fault, self.of(*fault)))
    }

    /// Kinds that never happened. In a large campaign that is a fault of the simulator itself.
    pub fn missing(&self) -> Vec<&'static str> {
        self.by_kind().filter(|(_, count)| *count == 0).map(|(fault, _)| fault.name()).collect()
    }
}
