//! What one seed means: who takes part, which faults may happen, and when they end.

use crate::adversary::Behaviour;
use crate::network::{Order, Weather};
use crate::random::Random;
use crate::schedule::Schedule;
use crate::world::LIVENESS_BOUND;
use bizra_simplex::Protocol;

/// Something that chance does to the nodes and links while faults last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// One node loses power.
    Crash,
    /// One node loses power inside its next commits.
    CrashInCommit,
    /// One node loses power in the middle of its next sending.
    CrashInSend,
    /// One process is killed, its machine goes on; half of the time that loses power soon after.
    Kill,
    /// All nodes lose power.
    CrashOfAll,
    /// One disk becomes slow.
    SlowDisk,
    /// One of the next writes or syncs of a node fails.
    WriteError,
    /// One of the next reads of a node fails.
    ReadError,
    /// The wall clock of one node is set.
    ClockStep,
    /// One node stands still.
    Pause,
    /// The network falls into two parts.
    Partition,
    /// One node is heard by nobody, or hears nobody.
    OneWayPartition,
    /// One node loses its database and keeps its signing record.
    LoseDatabase,
    /// One node is started from an old copy of its volume.
    OldVolume,
    /// All partitions end.
    Reconnect,
}

const TROUBLES: [Trouble; 15] = [
    Trouble::Crash,
    Trouble::CrashInCommit,
    Trouble::CrashInSend,
    Trouble::Kill,
    Trouble::CrashOfAll,
    Trouble::SlowDisk,
    Trouble::WriteError,
    Trouble::ReadError,
    Trouble::ClockStep,
    Trouble::Pause,
    Trouble::Partition,
    Trouble::OneWayPartition,
    Trouble::LoseDatabase,
    Trouble::OldVolume,
    Trouble::Reconnect,
];

/// A run before it runs.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed it came from.
    pub seed: u64,
    /// Power of each validator.
    pub powers: Vec<u64>,
    /// What each Byzantine validator does, by index; together below a third of the power.
    pub byzantine: Vec<(usize, Vec<Behaviour>)>,
    /// Nodes without a vote at the start.
    pub full_nodes: usize,
    /// Who validates when.
    pub schedule: Schedule,
    /// When each node gets the binary of the latest version, in virtual milliseconds; `None` if it has it from the start.
    pub upgrades: Vec<Option<u64>>,
    /// The network while faults last.
    pub weather: Weather,
    /// The network afterwards.
    pub calm: Weather,
    /// What may happen, and how often: mean milliseconds between two troubles.
    pub troubles: Vec<Trouble>,
    /// Mean time between two troubles, in milliseconds.
    pub trouble_interval: u64,
    /// Mean time between two payloads while clients are busy, in milliseconds.
    pub payload_interval: u64,
    /// Wall clock error of each node, in milliseconds.
    pub skews: Vec<i64>,
    /// How much too fast each node's clocks run, in millionths.
    pub drifts: Vec<i64>,
    /// When faults end, in virtual milliseconds.
    pub heal_at: u64,
    /// Virtual milliseconds after the end of faults within which everything owed must have happened.
    pub liveness_bound: u64,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Self {
        Self::draw(seed, 500)
    }

    /// The same without the long runs with few faults: most errors show sooner where much goes wrong.
    pub fn restless(seed: u64) -> Self {
        Self::draw(seed, 0)
    }

    fn draw(seed: u64, steady_per_thousand: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x5ce0_a210);
        // Some networks run for long with few faults: an error that needs many views to show has time to.
        let steady = random.chance(steady_per_thousand);
        // Messages grow with the square of the nodes: the long runs are mostly small.
        let count = if steady && random.chance(950) { 4 } else { random.pick(&[4, 4, 4, 4, 5, 6, 7]) };
        let equal = random.chance(750);
        let powers: Vec<u64> = (0..count).map(|_| if equal { 10 } else { random.between(5, 15) }).collect();
        let byzantine = byzantine(random, seed, &powers);
        let full_nodes = usize::from(random.chance(if steady { 20 } else { 150 }));
        // Short epochs, in which owners change who validates, or none at all. Who joins later is a full node until then.
        let epoch_blocks = if random.chance(500) { Some(random.pick(&[16, 32, 32, 64])) } else { None };
        let more = if steady && random.chance(700) { 1 } else { 2 };
        let full_nodes = full_nodes + if epoch_blocks.is_some() { more } else { 0 };
        let schedule = match epoch_blocks {
            Some(blocks) => Schedule::repeated(blocks, &powers),
            None => Schedule::fixed(&powers),
        };
        let heal_at = if steady { random.between(300_000, 1_200_000) } else { random.between(20_000, 60_000) };
        // Half of the networks with epochs begin with old rules and are upgraded while they run, one node after the
        // other; the last one may be late.
        let old = schedule.blocks().is_some() && random.chance(500);
        let late = random.chance(700).then(|| random.index(count));
        let upgrade = |random: &mut Random, node: usize| {
            let horizon = heal_at.min(60_000);
            let latest = if late == Some(node) { horizon } else { horizon / 4 };
            (old && (late == Some(node) || random.chance(700))).then(|| random.between(latest / 2, latest))
        };
        let upgrades = (0..count + full_nodes).map(|node| upgrade(random, node)).collect();
        let schedule = if old { schedule.beginning_with(Protocol::V1) } else { schedule };
        // Some networks are local: views follow each other fast, and hundreds of slots of a signing record wrap around.
        let local = random.chance(120);
        let distant = !local && random.chance(100);
        // A few are slower than the first timeout: only one that backs off ever sees a proposal in time.
        let remote = !steady && !local && !distant && random.chance(60);
        let delay_min = if remote {
            1_100
        } else if local {
            0
        } else {
            random.between(0, if distant { 150 } else { 20 })
        };
        let delay_max = delay_min
            + if remote {
                600
            } else if local {
                3
            } else {
                random.between(1, 60)
            };
        let order = if random.chance(600) { Order::Mixed } else { Order::Kept };
        let calm = Weather { delay_min, delay_max, loss: 0, duplication: 0, spikes: 0, spike_max: delay_max, order };
        let sometimes = |random: &mut Random, most: u64| if random.chance(400) { random.between(1, most) } else { 0 };
        let weather = Weather {
            loss: sometimes(random, 200),
            duplication: sometimes(random, 100),
            spikes: sometimes(random, 50),
            spike_max: delay_max + random.between(50, 3_000),
            ..calm
        };
        // Each seed leaves some kinds of trouble out: rare combinations come up that a uniform mix would drown.
        let troubles: Vec<Trouble> = TROUBLES.into_iter().filter(|_| random.chance(600)).collect();
        let wrong_clocks = random.chance(200);
        let skew =
            |random: &mut Random| if wrong_clocks { random.between(0, 600_000).cast_signed() - 300_000 } else { 0 };
        let skews = (0..count + full_nodes).map(|_| skew(random)).collect();
        // Quartz is off by hundreds of millionths at the worst, virtual machines now and then by far more.
        let drift = if random.chance(250) { random.pick(&[500, 500, 50_000]) } else { 0 };
        let drifts =
            (0..count + full_nodes).map(|_| random.between(0, 2 * drift).cast_signed() - drift.cast_signed()).collect();
        let mut scenario = Self {
            seed,
            powers,
            byzantine,
            full_nodes,
            schedule,
            upgrades,
            weather,
            calm,
            troubles,
            trouble_interval: random.pick(if local {
                &[4_000, 10_000, 20_000]
            } else {
                &[300, 1_500, 4_000, 10_000, 20_000]
            }),
            payload_interval: if local { 20 } else { random.pick(&[20, 100, 400, 2_000]) },
            skews,
            drifts,
            heal_at,
            liveness_bound: if remote { 10 * LIVENESS_BOUND } else { LIVENESS_BOUND },
        };
        if steady {
            scenario.settle_down(random);
        }
        scenario
    }

    /// Few faults for many minutes.
    fn settle_down(&mut self, random: &mut Random) {
        let weather = &mut self.weather;
        weather.loss = weather.loss.min(3);
        weather.duplication = weather.duplication.min(3);
        weather.spikes = weather.spikes.min(3);
        self.trouble_interval = random.pick(&[15_000, 30_000, 60_000]);
        self.payload_interval = random.pick(&[200, 400]);
    }

    /// Number of nodes of all kinds.
    pub fn nodes(&self) -> usize {
        self.powers.len() + self.full_nodes
    }

    /// What a node does if it is Byzantine.
    pub fn behaviours(&self, node: usize) -> Option<&[Behaviour]> {
        self.byzantine.iter().find(|(index, _)| *index == node).map(|(_, behaviours)| &behaviours[..])
    }
}

/// Chooses Byzantine validators below a third of the power.
fn byzantine(random: &mut Random, seed: u64, powers: &[u64]) -> Vec<(usize, Vec<Behaviour>)> {
    let total: u64 = powers.iter().sum();
    let mut chosen: Vec<(usize, Vec<Behaviour>)> = Vec::new();
    // Without any, the network goes on while a node is away, which then has much to catch up.
    if random.chance(400) {
        return chosen;
    }
    // Drawn apart, so that a seed of which a test tells keeps its meaning.
    let later = &mut Random::new(seed ^ 0x57a2_7e00);
    let mut power = 0;
    let first = random.index(powers.len());
    for step in 0..powers.len() {
        let node = (first + step) % powers.len();
        if 3 * (power + powers[node]) < total {
            power += powers[node];
            let mut has = |behaviour: &Behaviour| match behaviour {
                Behaviour::Starve => later.chance(450),
                _ => random.chance(450),
            };
            chosen.push((node, Behaviour::ALL.iter().copied().filter(|behaviour| has(behaviour)).collect()));
        }
    }
    chosen
}
