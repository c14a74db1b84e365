//! Does what was planned, one write at a time.

use kube::Resource as _;

use super::plan::Step;
use crate::{
    api::NodePool,
    controllers::Context,
    kubernetes::{Announcement, WriteError, WriteOutcome},
};

/// Executes the steps in order. Stops at the first that somebody else was faster with.
pub(super) async fn act(context: &Context, pool: &NodePool, steps: &[Step]) -> Result<(), WriteError> {
    for step in steps {
        match context.write(&step.write).await? {
            WriteOutcome::Written => {
                if let Some(event) = step.event.clone() {
                    context.announcer.announce(pool.object_ref(&()), Announcement::normal(event));
                }
            }
            WriteOutcome::Superseded | WriteOutcome::Refused(_) => break,
        }
    }
    Ok(())
}
