//! Bounds the handshakes that one address can make this node compute: they are the dearest thing that strangers can ask for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::budget::Budget;

/// Handshakes a second from one address in the long run: some two hundredths of a processor.
const HANDSHAKES_PER_SECOND: u64 = 50;
/// Handshakes at once after a rest: a whole network on one address may start at the same moment.
const HANDSHAKES_BURST: u64 = 500;
/// Addresses remembered; beyond, those that are not remembered share one budget.
const ADDRESSES_MAX: usize = 1_024;

/// Who may knock how often. Used by one task only.
pub(super) struct Doorkeeper {
    known: HashMap<IpAddr, Budget>,
    others: Budget,
}

impl Doorkeeper {
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), others: budget() }
    }

    /// True if a handshake with this address may begin; it is paid for then.
    pub(super) fn admits(&mut self, address: IpAddr) -> bool {
        let address = household(address);
        if self.known.len() >= ADDRESSES_MAX && !self.known.contains_key(&address) {
            // Who has paid back everything is as good as unknown.
            self.known.retain(|_, budget| !budget.is_full());
        }
        let room = self.known.len() < ADDRESSES_MAX || self.known.contains_key(&address);
        let budget = if room { self.known.entry(address).or_insert_with(budget) } else { &mut self.others };
        let admitted = !budget.is_overdrawn();
        if admitted {
            budget.spend(1);
        }
        admitted
    }
}

fn budget() -> Budget {
    Budget::new(HANDSHAKES_PER_SECOND, HANDSHAKES_BURST)
}

/// A household has 2^64 addresses of version 6, and may use a new one each time.
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => address
            .to_ipv4_mapped()
            .map_or_else(|| IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))), IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn admitted(doorkeeper: &mut Doorkeeper, address: &str) -> u64 {
        let address = address.parse().unwrap();
        (0..2 * HANDSHAKES_BURST).filter(|_| doorkeeper.admits(address)).count() as u64
    }

    #[test]
    fn an_address_that_knocks_without_end_uses_up_its_own_budget_only() {
        let mut doorkeeper = Doorkeeper::new();
        let some = HANDSHAKES_BURST..HANDSHAKES_BURST + HANDSHAKES_PER_SECOND;
        assert!(some.contains(&admitted(&mut doorkeeper, "10.0.0.1")));
        assert!(some.contains(&admitted(&mut doorkeeper, "10.0.0.2")));
        assert!(some.contains(&admitted(&mut doorkeeper, "2001:db8::1")));
        assert!(admitted(&mut doorkeeper, "2001:db8::2") < HANDSHAKES_PER_SECOND, "the same household");
        assert!(admitted(&mut doorkeeper, "::ffff:10.0.0.1") < HANDSHAKES_PER_SECOND, "the same address");
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let mut doorkeeper = Doorkeeper::new();
        for number in 0..4 * ADDRESSES_MAX as u32 {
            doorkeeper.admits(IpAddr::V4(number.into()));
            assert!(doorkeeper.known.len() <= ADDRESSES_MAX);
        }
    }
}
