//! Twins (Bano et al., 2020): a Byzantine validator is two honest processes with one key that do not know of each other.
//! What equivocation, amnesia and double voting can do to the network, some split of it between twins does; and the
//! splits can be enumerated.
//!
//! A plan says which validators have twins and, for each of the first [`VIEWS`] views, which processes hear each other.
//! Leaders take turns, so a rotation that begins `offset` validators later is the usual one with the twin moved by as
//! many. The split of a view holds for messages of that view, until the network leaves the view, but at most for [`HOLD`]:
//! without an end, no view would follow one in which neither side has a quorum. Then everything is healed, and every
//! honest validator must finalise [`LIVENESS_BLOCKS`] more blocks within [`LIVENESS_BOUND`].

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bizra_driver::wire::PeerMessage;
use bizra_driver::{Destination, Halt, Input, Output};
use bizra_simplex::{Message, Timing};

use crate::oracle::Oracle;
use crate::random::Random;
use crate::rig::{Participant, Rig};

/// Views with a split of their own.
pub const VIEWS: usize = 4;

/// Longest time that a view's split lasts, in virtual milliseconds: two timeouts and a resend.
const HOLD: u64 = 100;

/// Virtual milliseconds after which the network is healed whatever view it is in.
const LONGEST: u64 = 2 * VIEWS as u64 * HOLD;

/// Virtual milliseconds after the last split within which honest validators must finalise again.
const LIVENESS_BOUND: u64 = 10_000;

/// Blocks that they must finalise by then.
const LIVENESS_BLOCKS: u64 = 2;

/// Every message takes one millisecond; the rest is scaled to that.
const TIMING: Timing = Timing {
    base_milliseconds: 20,
    cap_milliseconds: 160,
    min_view_milliseconds: 1,
    heartbeat_milliseconds: 2,
    resend_milliseconds: 40,
};

/// One scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of validators.
    pub validators: usize,
    /// How many of them have a twin.
    pub twins: usize,
    /// The first validator with a twin; the others follow it.
    pub offset: usize,
    /// For each view, which processes are on the far side: bits for the validators with twins, their twins, and all
    /// others but the last, which is always on the near side.
    pub splits: [u64; VIEWS],
}

impl Plan {
    /// Number of processes.
    fn processes(&self) -> usize {
        self.validators + self.twins
    }

    /// The validator that process `process` is: first those with twins, then the twins, then the others.
    fn validator(&self, process: usize) -> usize {
        let position = if process < self.twins { process } else { process - self.twins };
        (self.offset + position) % self.validators
    }

    fn is_honest(&self, process: usize) -> bool {
        process >= 2 * self.twins
    }

    /// True if exchanging every validator with its twin does not give a plan that comes earlier in the enumeration.
    fn is_first_of_its_kind(&self) -> bool {
        let mask = (1 << self.twins) - 1;
        let swapped = self.splits.map(|split| {
            let (first, second) = (split & mask, split >> self.twins & mask);
            (split >> (2 * self.twins) << (2 * self.twins)) | first << self.twins | second
        });
        self.splits <= swapped
    }
}

/// Which plans to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every plan with one twin; of two that differ by exchanging the twins, one.
    All,
    /// So many, drawn from the seed.
    Sample {
        /// How many.
        count: u64,
        /// The seed.
        seed: u64,
    },
}

/// What came of one plan.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Validators that evidence names.
    pub accused: BTreeSet<usize>,
    /// Highest finalised block.
    pub blocks: u64,
}

impl Outcome {
    /// True if two honest validators finalised different blocks at one height.
    pub fn is_forked(&self) -> bool {
        self.violations.iter().any(|what| what.contains("agreement:"))
    }
}

/// What came of many plans.
#[derive(Debug)]
pub struct Summary {
    /// Plans there are before twins are exchanged.
    pub total: u64,
    /// Plans run.
    pub scenarios: u64,
    /// Plans in which evidence was found.
    pub with_evidence: u64,
    /// Blocks finalised, summed.
    pub blocks: u64,
    /// Plans that broke a promise, with the first promise broken.
    pub violations: Vec<(Plan, String)>,
    /// Plans in which honest validators finalised different blocks, and whom evidence named in each.
    pub forks: Vec<(Plan, BTreeSet<usize>)>,
    /// Real time.
    pub elapsed: Duration,
    /// Processor time of all threads.
    pub busy: Duration,
}

struct Run<'a> {
    plan: &'a Plan,
    processes: Vec<Participant>,
    oracle: Oracle,
    now: u64,
    wakes: Vec<Option<u64>>,
    arriving: Vec<Vec<Input>>,
    /// When the split of each view ends; set when the first process enters the view.
    holds: [Option<u64>; VIEWS],
    healed: bool,
    outcome: Outcome,
}

impl Run<'_> {
    fn passes(&self, from: usize, to: usize, message: &PeerMessage) -> bool {
        let view = match message {
            PeerMessage::Consensus(Message::Proposal(proposal)) => proposal.view.0,
            PeerMessage::Consensus(Message::Vote(vote)) => vote.vote.view.0,
            PeerMessage::Consensus(Message::Certificate(certificate)) => certificate.view().0,
            // Asked once at the start (S5), before there are views to speak of.
            PeerMessage::FetchHighestVote(_) | PeerMessage::HighestVote(..) => return true,
            _ => self.processes[from].view(),
        };
        let Some(position) = view.checked_sub(1).map(|position| position as usize).filter(|at| *at < VIEWS) else {
            return true;
        };
        let split = self.plan.splits[position];
        let together = split >> from & 1 == split >> to & 1;
        together || self.healed || self.holds[position].is_some_and(|end| end <= self.now)
    }

    fn after_turn(&mut self, process: usize, result: Result<Output, Halt>) {
        let (validator, honest) = (self.plan.validator(process), self.plan.is_honest(process));
        let seen = self.processes[process].take_seen();
        if honest {
            self.oracle.committed(self.now, validator, &seen);
        }
        let output = match result {
            Ok(output) => output,
            Err(halt) => {
                if honest {
                    self.oracle.accuse(self.now, validator, format!("an honest node stopped: {halt}"));
                }
                return self.wakes[process] = None;
            }
        };
        self.wakes[process] = output.wake.map(|wake| wake.0.max(self.now + 1));
        let view = self.processes[process].view();
        if let Some(hold) = view.checked_sub(1).and_then(|position| self.holds.get_mut(position as usize)) {
            hold.get_or_insert(self.now + HOLD);
        }
        if honest {
            self.oracle.promised(validator);
            for (_, message) in &output.sends {
                self.oracle.sent(self.now, validator, message);
            }
            for (first, second) in &output.evidence {
                self.oracle.evidence(self.now, validator, first, second);
                self.outcome.accused.insert(usize::from(first.signer.0));
            }
        }
        for (destination, message) in output.sends {
            for to in (0..self.processes.len()).filter(|to| *to != process) {
                let meant = match destination {
                    Destination::All => true,
                    Destination::One(node) => usize::from(node) == self.plan.validator(to),
                };
                if meant && self.passes(process, to, &message) {
                    self.arriving[to].push(Input::Message(validator as u16, message.clone()));
                }
            }
        }
    }

    /// Lets the next moment happen; false if nothing will ever happen again.
    fn advance(&mut self) -> bool {
        self.now = if self.arriving.iter().any(|inputs| !inputs.is_empty()) {
            self.now + 1
        } else {
            let Some(wake) = self.wakes.iter().flatten().min() else { return false };
            *wake
        };
        let count = self.processes.len();
        let arrived = std::mem::replace(&mut self.arriving, vec![Vec::new(); count]);
        for (process, mut inputs) in arrived.into_iter().enumerate() {
            let due = self.wakes[process].is_some_and(|wake| wake <= self.now);
            if due {
                inputs.push(Input::Tick);
            }
            if !inputs.is_empty() {
                let result = self.processes[process].turn(self.now, inputs);
                self.after_turn(process, result);
            }
        }
        true
    }

    fn play(&mut self, within_bounds: bool) {
        let over =
            |run: &Self| (2 * run.plan.twins..run.processes.len()).all(|at| run.processes[at].view() > VIEWS as u64);
        // Beyond the bound a broken promise is expected, and evidence of who broke it waited for.
        let goes_on =
            |run: &Self| run.oracle.violations().is_empty() || (!within_bounds && run.outcome.accused.is_empty());
        while goes_on(self) && !over(self) && self.now < LONGEST && self.advance() {}
        self.healed = true;
        let healed_at = self.now;
        let target = self.oracle.height() + LIVENESS_BLOCKS;
        // Once there are two chains, nothing is owed any more but evidence.
        let bound = if within_bounds { LIVENESS_BOUND } else { 4 * HOLD };
        while goes_on(self) && self.now < healed_at + bound {
            if (within_bounds && self.oracle.lagging(target).0.is_empty()) || !self.advance() {
                break;
            }
        }
        if within_bounds && self.oracle.violations().is_empty() {
            for (node, executed) in self.oracle.lagging(target).0 {
                self.oracle.accuse(self.now, node, format!("liveness: executed {executed}, but {target} was due"));
            }
        }
    }
}

fn play(rig: &Rig, plan: &Plan) -> Result<Outcome, Halt> {
    let honest = |validator| (2 * plan.twins..plan.processes()).any(|process| plan.validator(process) == validator);
    let mut run = Run {
        plan,
        processes: Vec::new(),
        oracle: rig.oracle((0..plan.validators).map(honest).collect()),
        now: 0,
        wakes: vec![None; plan.processes()],
        arriving: vec![Vec::new(); plan.processes()],
        holds: [None; VIEWS],
        healed: false,
        outcome: Outcome::default(),
    };
    let mut outputs = Vec::new();
    for process in 0..plan.processes() {
        // A clock of its own, so that twins propose different blocks.
        let (participant, output) = rig.boot(plan.validator(process), process as u64)?;
        run.processes.push(participant);
        outputs.push(output);
    }
    for (process, output) in outputs.into_iter().enumerate() {
        run.after_turn(process, Ok(output));
    }
    run.play(3 * plan.twins < plan.validators);
    run.outcome.violations = run.oracle.violations().iter().map(ToString::to_string).collect();
    run.outcome.blocks = run.oracle.height();
    Ok(run.outcome)
}

fn play_caught(rig: &Rig, plan: &Plan) -> Outcome {
    let failed = |what: String| Outcome { violations: vec![what], ..Outcome::default() };
    match catch_unwind(AssertUnwindSafe(|| play(rig, plan))) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(halt)) => failed(format!("did not start: {halt}")),
        Err(panic) => failed(format!("panicked: {:?}", panic.downcast_ref::<String>())),
    }
}

/// Runs plans on `jobs` threads. The result does not depend on their number.
pub fn run(validators: usize, twins: usize, selection: Selection, jobs: u64) -> Summary {
    let began = Instant::now();
    let bits = (validators + twins - 1) as u32;
    let total = (validators as u64).saturating_mul(1_u64.checked_shl(bits * VIEWS as u32).unwrap_or(u64::MAX));
    let end = match selection {
        Selection::All => total,
        Selection::Sample { count, .. } => count,
    };
    let plan = |number: u64| {
        let splits = |mut number: u64| {
            [(); VIEWS].map(|()| {
                let split = number & ((1 << bits) - 1);
                number >>= bits;
                split
            })
        };
        match selection {
            Selection::All => {
                let per_offset = total / validators as u64;
                Plan { validators, twins, offset: (number / per_offset) as usize, splits: splits(number % per_offset) }
            }
            Selection::Sample { seed, .. } => {
                let mut random = Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let offset = random.index(validators);
                Plan { validators, twins, offset, splits: [(); VIEWS].map(|()| random.below(1 << bits)) }
            }
        }
    };
    let next = AtomicU64::new(0);
    let results: Mutex<Vec<(u64, Plan, Outcome)>> = Mutex::new(Vec::new());
    let counts = [(); 3].map(|()| AtomicU64::new(0));
    let busy = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                // Disks are not shared between threads.
                let Ok(rig) = Rig::new(validators, TIMING) else { return };
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        break;
                    }
                    let plan = plan(number);
                    if selection == Selection::All && !plan.is_first_of_its_kind() {
                        continue;
                    }
                    let outcome = play_caught(&rig, &plan);
                    counts[0].fetch_add(1, Ordering::Relaxed);
                    counts[1].fetch_add(u64::from(!outcome.accused.is_empty()), Ordering::Relaxed);
                    counts[2].fetch_add(outcome.blocks, Ordering::Relaxed);
                    if !outcome.violations.is_empty() {
                        let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        results.push((number, plan, outcome));
                    }
                }
                busy.fetch_add(crate::campaign::processor_nanoseconds().unwrap_or_default(), Ordering::Relaxed);
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(number, ..)| *number);
    let [scenarios, with_evidence, blocks] = counts.map(AtomicU64::into_inner);
    let forks = results.iter().filter(|(_, _, outcome)| outcome.is_forked());
    let forks = forks.map(|(_, plan, outcome)| (*plan, outcome.accused.clone())).collect();
    let first = |outcome: Outcome| outcome.violations.into_iter().next().unwrap_or_default();
    Summary {
        total,
        scenarios,
        with_evidence,
        blocks,
        forks,
        violations: results.into_iter().map(|(_, plan, outcome)| (plan, first(outcome))).collect(),
        elapsed: began.elapsed(),
        busy: Duration::from_nanos(busy.into_inner()),
    }
}
