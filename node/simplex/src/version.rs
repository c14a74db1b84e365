//! Versions of the rules, and the one place where they differ.

/// The number of a version, as headers name it. It may be one that this build does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A version that this build knows. An epoch has one for all of its views (P1), and a core exists only for a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// The first.
    V1 = 1,
    /// Blocks carry contradictions of validators (V7).
    V2 = 2,
}

/// What differs between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Contradictions that one block may carry.
    pub contradictions_max: usize,
}

impl Protocol {
    /// All of them, ascending.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The highest.
    pub const LATEST: Self = Self::V2;

    /// The version behind a number, if this build knows it.
    pub fn known(version: Version) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.version() == version)
    }

    /// Its number.
    pub fn version(self) -> Version {
        Version(self as u32)
    }

    /// What holds in its epochs. Whatever differs between versions is told here and nowhere else.
    pub fn rules(self) -> Rules {
        match self {
            Self::V1 => Rules { contradictions_max: 0 },
            Self::V2 => Rules { contradictions_max: CONTRADICTIONS_MAX },
        }
    }
}

/// Most contradictions in a block of any known version: bounds what a leader can make everybody check, and the size of
/// a header. One for each of f leaders is far more than ever comes together.
pub const CONTRADICTIONS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_versions_and_unknown_ones_nowhere() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::known(protocol.version()), Some(protocol));
            assert!(protocol <= Protocol::LATEST);
        }
        assert_eq!(Protocol::known(Version(0)), None);
        assert_eq!(Protocol::known(Version(Protocol::LATEST.version().0 + 1)), None);
    }
}
