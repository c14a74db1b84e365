//! The network: each message gets its fate when it is sent.

use crate::faults::{Fault, Faults};
use crate::random::Random;

/// Weather of the network.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest delay, in milliseconds.
    pub delay_min: u64,
    /// Longest usual delay, in milliseconds.
    pub delay_max: u64,
    /// Messages lost, per thousand.
    pub loss: u64,
    /// Messages delivered twice, per thousand.
    pub duplication: u64,
    /// Messages that take up to `spike_max` milliseconds, per thousand.
    pub spikes: u64,
    /// Longest delay of all, in milliseconds.
    pub spike_max: u64,
    /// Whether messages of one link may overtake each other.
    pub order: Order,
}

/// Whether messages of one link may overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As over one TCP connection.
    Kept,
    /// As over many.
    Mixed,
}

/// All links between the nodes.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    nodes: usize,
    pub(crate) weather: Weather,
    /// Bit `to` of `blocked[from]`: nothing passes.
    blocked: Vec<u64>,
    last_arrival: Vec<u64>,
}

impl Network {
    pub(crate) fn new(nodes: usize, weather: Weather) -> Self {
        Self { nodes, weather, blocked: vec![0; nodes], last_arrival: vec![0; nodes * nodes] }
    }

    /// When copies of a message sent now arrive: none, one or two.
    pub(crate) fn route(
        &mut self,
        random: &mut Random,
        faults: &mut Faults,
        now: u64,
        from: usize,
        to: usize,
    ) -> [Option<u64>; 2] {
        if self.blocked[from] >> to & 1 == 1 {
            return [None; 2];
        }
        let weather = self.weather;
        if random.chance(weather.loss) {
            faults.count(Fault::Loss);
            return [None; 2];
        }
        let first = self.arrival(random, faults, now, from, to);
        let second = random.chance(weather.duplication).then(|| {
            faults.count(Fault::Duplication);
            self.arrival(random, faults, now, from, to)
        });
        [Some(first), second]
    }

    fn arrival(&mut self, random: &mut Random, faults: &mut Faults, now: u64, from: usize, to: usize) -> u64 {
        let weather = self.weather;
        let delay = if random.chance(weather.spikes) {
            faults.count(Fault::DelaySpike);
            random.between(weather.delay_max, weather.spike_max)
        } else {
            random.between(weather.delay_min, weather.delay_max)
        };
        let last = &mut self.last_arrival[from * self.nodes + to];
        let mut arrival = now + delay;
        if arrival < *last {
            match weather.order {
                Order::Kept => arrival = *last,
                Order::Mixed => faults.count(Fault::Reordering),
            }
        }
        *last = arrival.max(*last);
        arrival
    }

    /// Separates the nodes in `part` (a bit set) from the others.
    pub(crate) fn split(&mut self, part: u64) {
        for from in 0..self.nodes {
            self.blocked[from] |= if part >> from & 1 == 1 { !part } else { part };
        }
    }

    /// Lets nothing pass from one node to another.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocked[from] |= 1 << to;
    }

    /// Lets everything pass.
    pub(crate) fn reconnect(&mut self) {
        self.blocked.fill(0);
    }
}
