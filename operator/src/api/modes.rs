//! What somebody may order besides the desired state itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// Whether the operator works on an object and on what it controls.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconciliation {
    /// It does.
    #[default]
    Active,
    /// It changes nothing and goes on to report. Certificates are not renewed meanwhile. A deletion is still carried out.
    Paused,
}

impl Reconciliation {
    /// True if this is the default, which is left out.
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// Whether a node may sign.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// It may, if the chain has made it a validator.
    #[default]
    Allowed,
    /// It follows and serves the chain and signs neither votes nor batches. It counts as one validator less.
    Fenced,
}

impl Signing {
    /// True if this is the default, which is left out.
    pub fn is_allowed(&self) -> bool {
        *self == Self::Allowed && !planted::is(Bug::FenceOverwritten)
    }
}

/// Whether a network runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// It does.
    #[default]
    Running,
    /// It has no pods. Volumes, keys and genesis stay, and it goes on where it was once it runs again.
    Hibernated,
}
